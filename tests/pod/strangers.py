#!/usr/bin/env python3
"""Strangers at the doors of a pod: they say nothing, nonsense, a hello, or TLS without the secret.

usage: strangers.py PORT...     until it is ended; prints now and then how many connections it has made
"""
import itertools
import random
import socket
import ssl
import struct
import sys
import time

HELD_MAX = 40
HELLO = struct.pack("<IHHHHB3x", 0x48474145, 1, 256, 1, 0, 0) + bytes(240)


def main():
    ports, held, made = [int(word) for word in sys.argv[1:]], [], 0
    context = ssl.create_default_context()
    context.check_hostname = False
    for turn in itertools.count():
        try:
            link = socket.create_connection(("127.0.0.1", random.choice(ports)), timeout=2)
            made += 1
            held.append(link)
            what = turn % 5
            if what == 1:
                link.sendall(random.randbytes(random.randrange(1, 2000)))
            elif what == 2:
                link.sendall(HELLO)
            elif what == 3:
                held[-1] = context.wrap_socket(link)
            elif what == 4:
                link.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(random.randrange(600)))
        except OSError:
            pass
        while len(held) > HELD_MAX:
            held.pop(0).close()
        if turn % 20 == 0:
            print(f"{made} connections", flush=True)
        time.sleep(0.02)


main()
