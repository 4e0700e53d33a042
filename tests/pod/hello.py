#!/usr/bin/env python3
"""A node of another version: says hello as wire/handshake.h has it, and prints what it hears.

usage: hello.py listen PORT VERSION     answers one node that dials, refusing it
       hello.py dial PORT VERSION       dials a node; prints "version V verdict N" of its answer
"""
import socket
import struct
import sys

MAGIC, LENGTH, VERDICT_VERSION = 0x48474145, 256, 1


def hello(version, node, peer, verdict):
    fixed = struct.pack("<IHHHHB3x", MAGIC, version, LENGTH, node, peer, verdict)
    return fixed + bytes(LENGTH - len(fixed))


def read_all(link):
    data = b""
    while len(data) < LENGTH:
        more = link.recv(LENGTH - len(data))
        if not more:
            break
        data += more
    return data


def main():
    what, port, version = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if what == "listen":
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("127.0.0.1", port))
            listener.listen()
            print("listening", flush=True)
            link, _ = listener.accept()
            with link:
                read_all(link)
                link.sendall(hello(version, 0, 1, VERDICT_VERSION))
        return
    with socket.create_connection(("127.0.0.1", port), timeout=5) as link:
        link.sendall(hello(version, 1, 0, 0))
        data = read_all(link)
        if len(data) >= 13:
            _, theirs, _, _, _, verdict = struct.unpack_from("<IHHHHB", data)
            print(f"version {theirs} verdict {verdict}")


main()
