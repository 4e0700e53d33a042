#!/usr/bin/env python3
"""The guest's console on a terminal of its own: its size, its bytes, a BREAK.

usage: terminal.py LOG COMMAND...      COMMAND gives a guest's console; LOG gets all that it showed

Prints "ok: ..." or "FAILED: ..." for each thing; the status says whether all were right.
"""
import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

PATIENCE_S = 120 * float(os.environ.get("EAGRE_TEST_PATIENCE", "1"))
PROMPT = b"~ # "


class Terminal:
    def __init__(self, log, command, rows, columns):
        self.log, self.seen, self.failures = log, b"", 0
        self.user, terminal = pty.openpty()
        self.resize(rows, columns)
        self.pid = os.fork()
        if self.pid == 0:
            os.login_tty(terminal) if hasattr(os, "login_tty") else self.login(terminal)
            os.execvp(command[0], command)
        os.close(terminal)
        self.until = time.monotonic() + PATIENCE_S

    @staticmethod
    def login(terminal):
        os.setsid()
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        for fd in range(3):
            os.dup2(terminal, fd)

    def resize(self, rows, columns):
        fcntl.ioctl(self.user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text):
        os.write(self.user, text)

    def read(self):
        if not select.select([self.user], [], [], 0.5)[0]:
            return True
        try:
            data = os.read(self.user, 4096)
        except OSError:  # the terminal's other side is closed
            return False
        self.log.write(data)
        self.log.flush()
        self.seen += data
        return bool(data)

    def wait(self, text):
        """Reads until this comes, and forgets all up to its end; what was before it."""
        while text not in self.seen:
            if time.monotonic() > self.until or not self.read():
                print(f"FAILED: no {text!r} in {self.seen[-300:]!r}")
                os.kill(self.pid, 15)
                sys.exit(1)
        before, self.seen = self.seen.split(text, 1)
        return before

    def check(self, what, right):
        print(("ok: " if right else "FAILED: ") + what)
        self.failures += not right

    def asks(self, line, answer):
        self.type(line + b"\n")
        said = self.wait(b"ready" + PROMPT)
        self.check(f"{line.decode()}: {answer!r}", answer in said)
        if answer not in said:
            print(f"  it said {said!r}")


def main():
    t = Terminal(open(sys.argv[1], "wb"), sys.argv[2:], 33, 101)
    t.wait(PROMPT)
    # The kernel says nothing in between; and a prompt that is not what the echo of a line has.
    t.type(b"dmesg -n 1; PS1='ready~ # '\n")
    t.wait(b"\nready" + PROMPT)
    t.asks(b"stty size", b"33 101\r\n")
    # While no line is being typed: the shell shows its prompt again when the size changes.
    t.type(b"echo go; while test \"$(stty size)\" = '33 101'; do sleep 0.1; done; stty size\n")
    t.wait(b"\ngo\r\n")
    t.resize(50, 132)
    said = t.wait(b"ready" + PROMPT)
    t.check(f"another size: {said!r}", b"50 132\r\n" in said)
    # Its own carriage returns are the guest's: with opost and without.
    t.asks(b"printf '1\\n\\t2\\n'", b"1\r\n\t2\r\n")
    t.asks(b"stty -opost; printf '3\\n4\\n5\\r6'; stty opost", b"3\n4\n5\r6")
    t.type(b"\x1eh")  # BREAK, and sysrq's key for help
    t.wait(b"sysrq: HELP")
    t.check("a BREAK and h: sysrq's help", True)
    t.asks(b"echo on", b"on\r\n")
    t.type(b"exit\n")
    while time.monotonic() < t.until and t.read():
        pass
    status = os.waitstatus_to_exitcode(os.waitpid(t.pid, 0)[1])
    t.check(f"exit status {status}", status == 0)
    sys.exit(t.failures > 0)


main()
