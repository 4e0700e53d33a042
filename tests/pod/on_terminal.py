#!/usr/bin/env python3
"""Runs a command on a terminal of its own, as a user would: types a line at the shell's prompt.

usage: on_terminal.py LOG LINE COMMAND...      LOG gets all that the terminal showed

Prints the command's status and takes it as its own; 1 after ten minutes, EAGRE_TEST_PATIENCE times that.
"""
import os
import pty
import select
import sys
import time

PATIENCE_S = 580 * float(os.environ.get("EAGRE_TEST_PATIENCE", "1"))
PROMPT = b"~ # "


def main():
    log, line, command = open(sys.argv[1], "wb"), sys.argv[2], sys.argv[3:]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvp(command[0], command)
    until, shown, typed = time.monotonic() + PATIENCE_S, b"", False
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            data = os.read(terminal, 4096)
        except OSError:  # the terminal's other side is closed
            break
        if not data:
            break
        log.write(data.replace(b"\r", b""))
        log.flush()
        shown = (shown + data)[-200:]
        if not typed and PROMPT in shown:
            os.write(terminal, line.encode() + b"\n")
            typed = True
    if time.monotonic() >= until:
        os.kill(pid, 15)
        print("it did not end")
        sys.exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    print(f"status {status}")
    sys.exit(status if status >= 0 else 1)


main()
