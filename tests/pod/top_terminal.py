#!/usr/bin/env python3
"""eagre top on terminals of its own: its pages, keys, sizes, and that the terminal is as it was, however it ends.

usage: top_terminal.py LOG POD-PID EAGRE      LOG gets all that it showed; POD-PID is ended, for the last case

Prints "ok: ..." or "FAILED: ..." for each thing; the status says whether all were right.
"""
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time

ENTER, LEAVE, HOME = b"\x1b[?1049h\x1b[?25l", b"\x1b[?25h\x1b[?1049l", b"\x1b[H"
PATIENCE_S = 30 * float(os.environ.get("EAGRE_TEST_PATIENCE", "1"))
MARK = b"\0"  # which top never prints
failures = 0


def check(what, right):
    global failures
    print(("ok: " if right else "FAILED: ") + what, flush=True)
    failures += not right


class Top:
    def __init__(self, name, *arguments, rows=24, columns=80):
        self.name, self.seen = name, b""
        self.user, self.terminal = pty.openpty()
        self.resize(rows, columns)
        self.mode = termios.tcgetattr(self.terminal)
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            fcntl.ioctl(self.terminal, termios.TIOCSCTTY, 0)
            for fd in range(3):
                os.dup2(self.terminal, fd)
            os.environ["TERM"] = "vt100"
            os.execv(sys.argv[3], [sys.argv[3], "top", *arguments])

    def resize(self, rows, columns):
        self.rows, self.columns = rows, columns
        fcntl.ioctl(self.user, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self, seconds):
        if select.select([self.user], [], [], seconds)[0]:
            self.seen += os.read(self.user, 65536)

    def drain(self):
        """Reads all that it has written so far: bytes take their time through a terminal."""
        os.write(self.terminal, MARK)
        until = time.monotonic() + PATIENCE_S
        while MARK not in self.seen and time.monotonic() < until:
            self.read(0.2)
        self.seen = self.seen.replace(MARK, b"")

    def pages(self):
        """Those that are whole, as lists of lines."""
        found = []
        for page in self.seen.split(HOME)[1:]:
            if b"\x1b[J" in page:
                text = re.sub(rb"\x1b\[[0-9;]*[mKJ]", b"", page.split(b"\x1b[J")[0])
                found.append(text.decode("ascii").replace("\r", "").split("\n"))
        return found

    def wait(self, what, condition):
        until = time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            if condition():
                check(f"{self.name}: {what}", True)
                return
            self.read(0.2)
        check(f"{self.name}: {what}: {self.seen[-400:]!r}", False)

    def wait_page(self, what, condition):
        count = len(self.pages())
        self.wait(what, lambda: any(condition(page) for page in self.pages()[count:]))

    def ends(self, wanted):
        until, status = time.monotonic() + PATIENCE_S, None
        while status is None and time.monotonic() < until:
            self.read(0.05)
            pid, code = os.waitpid(self.pid, os.WNOHANG)
            status = os.waitstatus_to_exitcode(code) if pid else None
        if status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        self.drain()
        check(f"{self.name}: status {status}", status == wanted)
        check(f"{self.name}: the terminal is as it was", self.is_restored())
        with open(sys.argv[1], "ab") as log:
            log.write(self.seen)

    def is_restored(self):
        return (self.seen.count(ENTER) == self.seen.count(LEAVE) > 0 and self.seen.rfind(LEAVE) > self.seen.rfind(HOME) and
                termios.tcgetattr(self.terminal) == self.mode)

    def fits(self, page):
        return len(page) == self.rows and max(map(len, page)) <= self.columns


def running(page):
    """It has numbers of an interval in it."""
    return any(re.match(r"\d.* s, vCPUs: \d", line) for line in page)


def quits():
    top = Top("q")
    top.wait("a page with numbers", lambda: any(running(page) for page in top.pages()))
    check("q: it fits into 80 x 24", all(top.fits(page) for page in top.pages()))
    for rows, columns in ((40, 132), (9, 33), (1, 1), (24, 80)):
        top.resize(rows, columns)
        top.wait_page(f"it fits into {columns} x {rows}", top.fits)
    os.write(top.user, b"m")
    top.wait_page("sorted by moves", running)
    os.kill(top.pid, signal.SIGTSTP)
    os.waitpid(top.pid, os.WUNTRACED)
    top.drain()
    check("q: stopped, the terminal is as it was", top.is_restored())
    os.kill(top.pid, signal.SIGCONT)
    top.wait_page("it goes on", running)
    check("q: it never clears the screen", b"\x1b[2J" not in top.seen)
    os.write(top.user, b"q")
    top.ends(0)


def by_signals():
    top = Top("Ctrl-C", "--interval", "100")
    top.wait("a page", top.pages)
    os.write(top.user, b"\x03")
    top.ends(0)
    for number in (signal.SIGTERM, signal.SIGHUP):
        top = Top(number.name)
        top.wait("a page", top.pages)
        os.kill(top.pid, number)
        top.ends(-number)
    top = Top("--count", "--count", "2", "--interval", "0.2")
    top.ends(0)


def pod_ends():
    top = Top("the pod ends", "--interval", "0.2")
    top.wait("a page with numbers", lambda: any(running(page) for page in top.pages()))
    os.kill(int(sys.argv[2]), signal.SIGTERM)
    top.ends(0)
    last = top.seen[top.seen.rfind(LEAVE) + len(LEAVE):].decode("ascii").replace("\r", "").strip().split("\n")
    check(f"the pod ends: {last[-1]}", re.match(r"eagre: the pod \S+ has ended", last[-1]) is not None)
    check("the pod ends: the last page stays", last[0].startswith("pod ") and running(last) and len(last) < top.rows)


quits()
by_signals()
pod_ends()
sys.exit(failures > 0)
