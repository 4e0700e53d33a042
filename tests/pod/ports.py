#!/usr/bin/env python3
"""ports: TCP ports of 127.0.0.1 that nobody has now, and that no other test gets before it has used up all others.

usage: tests/pod/ports.py [COUNT]

A port that the kernel picks for a moment is free for everybody again when it is told: the next who asks may get the same
one, before a node has taken it. One in 14,000 is not rare where a run of all tests asks a thousand times. So these lie
below what the kernel picks from, and are given out one after the other, to all tests on this machine.
"""
import fcntl
import os
import socket
import sys

NEXT = "/tmp/eagre-test-ports"
FIRST, COUNT = 10000, 10000  # Linux picks from 32768 on


def is_free(port):
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count=1):
    """So many, which differ."""
    try:
        fd = os.open(NEXT, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        fd = os.open(NEXT, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        os.fchmod(fd, 0o666)  # tests of other users have it, too
    with open(fd, "r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        text, ports, tries = file.read().strip(), [], 0
        at = int(text) if text.isdigit() else os.getpid()
        while len(ports) < count:
            port = FIRST + at % COUNT
            at, tries = at + 1, tries + 1
            if is_free(port):
                ports.append(port)
            elif tries > COUNT:
                sys.exit("ports: none is free")
        file.seek(0)
        file.truncate()
        file.write(str(at % COUNT))
    return ports


def free_port():
    return free_ports()[0]


if __name__ == "__main__":
    print(*free_ports(int(sys.argv[1]) if len(sys.argv) > 1 else 1), sep="\n")
