"""Stops the third node of the pod whose first two have status sockets in /run/eagre, has vCPU 0, which is on the first,
move to the second, and lets the third go on. Prints "moved", or what it was told and saw. For tests/pod/moves."""
import glob
import os
import signal
import socket
import struct
import time

WAIT_S = 0.4  # the guest needs some 5 ms to come to a page of the third


def ask(node, words):
    """What it says, and the process id of who says it."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(10 * float(os.environ.get("EAGRE_TEST_PATIENCE", "1")))
        s.connect(glob.glob(f"/run/eagre/*.node{node}.sock")[0])
        pid = struct.unpack("3i", s.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        if not words:
            return None, pid
        s.sendall(f"{words}\n".encode())
        return s.makefile().read().strip(), pid


def cpu_s(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


time.sleep(0.3)  # it writes
_, first = ask(0, None)
_, third = ask(2, None)
begin = time.monotonic()
os.kill(third, signal.SIGSTOP)
try:
    time.sleep(WAIT_S / 2)
    used = cpu_s(first)
    time.sleep(WAIT_S / 2)
    used = cpu_s(first) - used
    asked = time.monotonic()
    told, _ = ask(0, "move 0 1")
    took = time.monotonic() - asked
finally:
    os.kill(third, signal.SIGCONT)
silent = time.monotonic() - begin
print(f"asked after {WAIT_S} s, answered after {took * 1e3:.0f} ms: {told}; the third stood still for {silent:.2f} s, "
      f"the first had used {used:.2f} s of CPU meanwhile")
# The third was stopped when it was told: what the vCPU waits for had not come.
if used < WAIT_S / 8 and '"done"' in told and "is on node" in told:
    print("moved")
