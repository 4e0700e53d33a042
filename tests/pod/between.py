"""Two real nodes with somebody between them.

Node 1 lives in a network namespace of its own, where node 0's address is this process. It passes
everything on to the real node 0, frame by frame, and may hold frames back, change them, or say
things of its own in either node's name: the handshake is real, so each node takes what comes for
its peer's words.

        node 1 (own namespace) <---> Between <---> node 0

Frames are those of docs/links.md; their sequence numbers are made anew, so that what is inserted or
left out is not noticed by them.
"""
import ctypes
import os
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import ports

HELLO_BYTES, PROOF_BYTES = 256, 32
STARVED_S = 1.0
PATIENCE = float(os.environ.get("EAGRE_TEST_PATIENCE", "1"))  # as in lib.bash
HANGS_S = 30 * PATIENCE  # what has not come by then does not come
CONTROL_MAGIC, PAGES_MAGIC, IO_MAGIC = 0x43474145, 0x50474145, 0x49474145
CONTROL_HEADER, PAGES_HEADER, PAGES_MESSAGE, PAGE, IO_HEAD, IO_PART = 16, 16, 48, 4096, 48, 32
TYPES = ["?", "HEARTBEAT", "CLOCK_PING", "CLOCK_PONG", "INTERRUPT", "EOI", "IO_REQUEST", "IO_REPLY",
         "FEATURES", "START", "READY", "RUN", "STATS_REQUEST", "STATS_REPLY", "END",
         "MOVE", "PLACE", "REFUSED", "MOVE_ASK", "MOVE_TOLD", "TAKEN",
         "LOAD", "POLICY", "PIN", "OUTCOMES", "COMING",
         "BUTTON", "PUBLISHED", "DOORBELL", "STOPPED", "NEEDS_RESET", "QUEUE", "QUEUE_PLACE",
         "STEP", "STEP_DONE", "STEP_OVER", "WISH", "WISH_REFUSED", "JOIN_READY", "JOIN_FAILED", "DRAINED", "JOIN_ASK", "JOIN_TOLD"]
CONTROL = {name: number for number, name in enumerate(TYPES)}
IO_TYPES = ["?", "DISK_REQUEST", "DISK_REPLY", "NET_OUT", "NET_IN", "NET_ROOM", "NET_DRIVER"]
IO = {name: number for number, name in enumerate(IO_TYPES)}
# Purposes of connections, of a pod with one shard.
TO_CONTROL, TO_PAGES, TO_IO = 0, 1, 17
PURPOSE = {"control": TO_CONTROL, "pages": TO_PAGES, "io": TO_IO}
TO_FIRST, TO_SECOND = 0, 1  # directions, by the node that hears


class Frame:
    """One frame: control (type, payload), pages (messages, pages), or io (type, device; a part of 32 bytes and data)."""

    def __init__(self, kind, payload=b"", type=0, counts=(0, 0), device=0):
        self.kind, self.payload, self.type, self.counts, self.device = kind, payload, type, counts, device

    @property
    def name(self):
        if self.kind == "pages":
            return "PAGES"
        names = IO_TYPES if self.kind == "io" else TYPES
        return names[self.type] if self.type < len(names) else "?"

    def encode(self, sequence):
        if self.kind == "raw":
            return self.payload
        if self.kind == "control":
            return struct.pack("<IHHII", CONTROL_MAGIC, self.type, 0, len(self.payload), sequence) + self.payload
        if self.kind == "io":
            return struct.pack("<IBBHII", IO_MAGIC, self.type, self.device, 0, sequence, len(self.payload) - IO_PART) + self.payload
        return struct.pack("<IHHII", PAGES_MAGIC, *self.counts, sequence, 0) + self.payload


def control(name, payload=b""):
    return Frame("control", payload, CONTROL[name])


def io(name, device, part, data=b""):
    return Frame("io", part.ljust(IO_PART, b"\0") + data, IO[name], device=device)


class Stream:
    """One direction of a connection: bytes in, frames out."""

    def __init__(self, link, hears):
        self.link, self.hears = link, hears
        self.source = self.sink = None
        self.have, self.out, self.sequence = b"", b"", 0
        # Node 1 dials, so it has the last word of the handshake.
        self.overheard = b""
        self.greeting = [HELLO_BYTES] + [PROOF_BYTES] * (hears == TO_FIRST)

    @property
    def greeted(self):
        return not self.greeting

    def take_greeting(self):
        """Passes on what there is of the handshake."""
        while self.greeting and len(self.have) >= self.greeting[0]:
            size = self.greeting.pop(0)
            self.overheard += self.have[:size]
            if self.link.purpose is None:
                self.link.purpose = struct.unpack_from("<H", self.have, 16)[0]
            self.out += self.have[:size]
            self.have = self.have[size:]
        return self.greeted

    def take_frame(self):
        if len(self.have) < CONTROL_HEADER:
            return None
        if self.link.purpose == 0:
            _, type, _, size, _ = struct.unpack_from("<IHHII", self.have)
            end = CONTROL_HEADER + size
            frame = Frame("control", self.have[CONTROL_HEADER:end], type)
        elif self.link.purpose == TO_IO:
            if len(self.have) < IO_HEAD:
                return None
            _, type, device, _, _, data = struct.unpack_from("<IBBHII", self.have)
            end = IO_HEAD + data
            frame = Frame("io", self.have[IO_HEAD - IO_PART:end], type, device=device)
        else:
            _, messages, pages, _, _ = struct.unpack_from("<IHHII", self.have)
            end = PAGES_HEADER + PAGES_MESSAGE * messages + PAGE * pages
            frame = Frame("pages", self.have[PAGES_HEADER:end], 0, (messages, pages))
        if len(self.have) < end:
            return None
        self.have = self.have[end:]
        return frame

    def put(self, frame):
        self.out += frame.encode(self.sequence)
        self.sequence = (self.sequence + 1) & 0xffffffff

    def flush(self):
        try:
            while self.out and self.sink:
                self.out = self.out[self.sink.send(self.out):]
        except BlockingIOError:
            pass
        except OSError:
            self.out = b""


class Link:
    """A connection of the two nodes."""

    def __init__(self):
        self.purpose = None
        self.stream = {TO_FIRST: Stream(self, TO_FIRST), TO_SECOND: Stream(self, TO_SECOND)}


class Late(str):
    """What is wrong: only that it came later than it should. A node that is let run too seldom is late, too."""


def fairly(play):
    """play() returns (between, what it came to, what is wrong or None). Again, three times at most, if it was starved or late."""
    for _ in range(3):
        b, result, problem = play()
        if not problem or not b.starved() and not isinstance(problem, Late):
            break
        print(f"again: {problem}; nothing was passed on for {b.late_s:.1f} s", flush=True)
    return result


pods = []


def end_all(*_):
    """A test that is ended leaves nothing behind: not a node that it has stopped, either."""
    for pod in pods:
        for process in list(pod.node.values()):
            process.kill()
        shutil.rmtree(pod.folder, ignore_errors=True)
    os._exit(143)


signal.signal(signal.SIGTERM, end_all)


class Between:
    """A pod of two nodes on the soft engine, "first" and "second", and what stands between them.

    on_frame(between, stream, frame) returns the frames to pass on in its place (default: it alone).
    devices: the first node has a disk, the second a disk and a network card, and they have a link about those.
    """

    def __init__(self, eagre, logs, kernel, action="h", on_frame=None, env=None, options=(), missing=False, devices=False):
        self.eagre, self.logs, self.kernel, self.action = eagre, logs, kernel, action
        self.options = options  # more of the first node's
        self.purposes = (TO_CONTROL, TO_PAGES) + (TO_IO,) * devices
        self.on_frame = on_frame or (lambda between, stream, frame: [frame])
        self.env = env
        self.links, self.seen, self.node = [], {}, {}
        self.looked_s, self.late_s = time.monotonic(), 0.0  # the longest that nothing could have been passed on
        self.last = {}  # (purpose, direction): a frame that was passed on
        self.selector = selectors.DefaultSelector()
        self.folder = tempfile.mkdtemp(prefix="between.")
        pods.append(self)
        self.port = ports.free_ports(2 + missing)  # the third never comes
        self.config = os.path.join(self.folder, "pod.conf")
        self.pod = os.path.basename(self.folder).replace("_", "-")
        names = ["first", "second"] + ["third"] * missing
        with open(self.config, "w") as file:
            file.write(f"[pod]\nname = {self.pod}\nmemory = 128M\npolicy = pages\n")
            for name, port in zip(names, self.port):
                file.write(f"[node {name}]\naddress = 127.0.0.1:{port}\nmemory = 128M\nvcpus = 1\n")
            for name in ("first", "second") if devices else ():
                image = os.path.join(self.folder, f"{name}.img")
                with open(image, "wb") as disk:
                    disk.truncate(1 << 20)
                file.write(f"[disk of-{name}]\nnode = {name}\nfile = {image}\n")
            if devices:
                file.write("[net card]\nnode = second\nuser = yes\n")

    def spawn(self, name, *options):
        log = open(os.path.join(self.logs, f"{name}.err"), "wb")
        out = open(os.path.join(self.logs, f"{name}.out"), "wb")
        command = [self.eagre, "node", "--engine", "soft", "--config", self.config, "--name", name, *options]
        self.node[name] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=log, env=self.env)
        log.close()
        out.close()

    def start_first(self):
        self.spawn("first", "--no-console", "--kernel", self.kernel, "--append", self.action,
                   *self.options)

    def start_second(self):
        """In a namespace of its own, whose loopback has this process at the first node's address."""
        failure = []

        def inside():
            try:
                if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:  # CLONE_NEWNET
                    raise OSError(ctypes.get_errno(), "unshare: this test needs root")
                subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
                self.listener = socket.create_server(("127.0.0.1", self.port[0]))
                self.listener.setblocking(False)
                self.spawn("second")
            except (OSError, subprocess.SubprocessError) as error:
                failure.append(error)

        thread = threading.Thread(target=inside)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        self.selector.register(self.listener, selectors.EVENT_READ, None)

    def accept(self):
        near, _ = self.listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", self.port[0]), timeout=2)
        except OSError:  # it does not listen yet; the second dials again
            near.close()
            return
        link = Link()
        up, down = link.stream[TO_FIRST], link.stream[TO_SECOND]
        up.source, up.sink, down.source, down.sink = near, far, far, near
        for side, stream in ((near, up), (far, down)):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.selector.register(side, selectors.EVENT_READ, stream)
        self.links.append(link)

    def close(self, link):
        for stream in link.stream.values():
            if stream.source:
                self.selector.unregister(stream.source)
                stream.flush()
        for stream in link.stream.values():
            if stream.source:
                stream.source.close()
            stream.source = stream.sink = None
        self.links.remove(link)

    def read(self, stream):
        try:
            data = stream.source.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close(stream.link)
            return
        stream.have += data
        if not stream.greeted and not stream.take_greeting():
            return
        while (frame := stream.take_frame()) is not None:
            key = (frame.name, stream.hears)
            self.seen[key] = self.seen.get(key, 0) + 1
            self.last[(stream.link.purpose, stream.hears, frame.name)] = frame
            for passed in self.on_frame(self, stream, frame):
                stream.put(passed)

    def turn(self, seconds):
        """Passes on what comes, for so long."""
        until = time.monotonic() + seconds
        while True:
            left = until - time.monotonic()
            self.late_s = max(self.late_s, time.monotonic() - self.looked_s)
            self.looked_s = time.monotonic()
            for key, _ in self.selector.select(max(0, min(left, 0.02))):
                if key.data is None:
                    self.accept()
                elif key.data.source:
                    self.read(key.data)
            for link in list(self.links):
                for stream in link.stream.values():
                    stream.flush()
            if left <= 0:
                return

    def starved(self):
        """This process did not get to run, and the nodes heard nothing of each other: what they say of that proves nothing."""
        return self.late_s > STARVED_S

    def turn_until(self, done, seconds):
        """True: done() came true."""
        until = time.monotonic() + seconds
        while not done():
            if time.monotonic() >= until:
                return False
            self.turn(0.005)
        return True

    def stream(self, purpose, hears):
        for link in self.links:
            if link.purpose == purpose and link.stream[hears].greeted:
                return link.stream[hears]
        return None

    def saw(self, name, hears=None):
        return any(n == name and (hears is None or h == hears) for n, h in self.seen)

    def linked(self):
        """All links have shaken hands, both ways."""
        return all(self.stream(p, d) for p in self.purposes for d in (TO_FIRST, TO_SECOND))

    def text(self, name):
        with open(os.path.join(self.logs, f"{name}.err"), errors="replace") as file:
            return file.read()

    def destroy(self):
        for process in self.node.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for link in list(self.links):
            self.close(link)
        if hasattr(self, "listener"):
            self.listener.close()
        self.selector.close()
        shutil.rmtree(self.folder)
