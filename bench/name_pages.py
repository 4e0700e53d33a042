"""name_pages: what the pages at some guest physical addresses hold, at some offsets; runs in the guest, as root.

bench/pod-stalls sends this text down the command's standard input, with the addresses behind it.

Names come from the running kernel: /proc/kallsyms for its image and the CPUs' own areas, /proc/kpageflags for what
a page is used for, /proc/kcore for the rest: the name of a slab's cache from its struct page, and which page lies
behind which address of /proc/vmallocinfo from the kernel's page table. The kernel must run with `nokaslr`.
"""
import bisect
import re
import struct

PAGE = 4096
IMAGE, VMEMMAP, DIRECT, VMALLOC = 0xffffffff80000000, 0xffffea0000000000, 0xffff888000000000, 0xffffc90000000000
OWN_SIZE = 512 << 10  # of each CPU's first chunk, in a kernel without NUMA
ADDRESS = 0x000ffffffffff000
FLAGS = {7: "slab", 10: "free", 12: "user's own memory", 11: "mapped file", 26: "page table", 24: "zero page", 5: "page cache",
         32: "reserved", 20: "hole"}


class Memory:
    """Kernel memory by virtual address."""

    def __init__(self):
        self.file = open("/proc/kcore", "rb", buffering=0)
        header = self.file.read(64)
        offset, = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        self.file.seek(offset)
        table = self.file.read(size * count)
        self.segments = []
        for i in range(count):
            kind, _, at, va, _, length = struct.unpack_from("<IIQQQQ", table, i * size)
            if kind == 1:
                self.segments.append((va, length, at))

    def read(self, va, size):
        for start, length, at in self.segments:
            if start <= va < start + length:
                self.file.seek(at + va - start)
                return self.file.read(size)
        return b""

    def word(self, va):
        data = self.read(va, 8)
        return struct.unpack("<Q", data)[0] if len(data) == 8 else 0

    def text(self, va):
        found = re.match(rb"[A-Za-z][ -~]{2,40}\0", self.read(va, 64))
        return found.group(0)[:-1].decode() if found else None


class Names:
    def __init__(self):
        self.memory = Memory()
        self.symbols, self.percpu, self.address = [], [], {}
        with open("/proc/kallsyms") as f:
            for line in f:
                fields = line.split()
                va = int(fields[0], 16)
                if len(fields) > 3:
                    continue  # a module's
                self.address.setdefault(fields[2], va)
                if va >= IMAGE:
                    self.symbols.append((va, fields[2]))
                elif va < 1 << 20 and fields[1] in "aA":
                    self.percpu.append((va, fields[2]))
        self.symbols.sort()
        self.percpu.sort()
        self.areas = self.find_areas()
        self.vmalloc = self.find_vmalloc()

    def find_areas(self):
        """The first gpa of each CPU's own area."""
        table = self.address["__per_cpu_offset"]
        areas = []
        with open("/sys/devices/system/cpu/possible") as f:
            last = int(f.read().strip().split("-")[-1])
        for cpu in range(last + 1):
            areas.append((cpu, self.memory.word(table + 8 * cpu) - DIRECT))
        return areas

    def own(self, gpa, offsets):
        """The kernel's image has room for so much of each CPU's own; what follows is given out at run time."""
        size = max(va for va, _ in self.percpu) // PAGE * PAGE + PAGE
        for cpu, start in self.areas:
            if start <= gpa < start + size:
                return f"CPU {cpu}'s own: " + self.inside(self.percpu, gpa - start, offsets)
            if start + size <= gpa < start + OWN_SIZE:
                return f"CPU {cpu}'s own, given out at run time"
        return None

    def physical(self, va, root):
        table = root
        for shift in (39, 30, 21, 12):
            entry = self.memory.word(DIRECT + table + (va >> shift & 511) * 8)
            if not entry & 1:
                return None
            if entry & 128 and shift in (30, 21):
                return (entry & ADDRESS & -(1 << shift)) + (va & ((1 << shift) - 1) & -PAGE)
            table = entry & ADDRESS
        return table

    def find_vmalloc(self):
        """gpa of a page to whom the kernel gave it."""
        root = self.address["init_top_pgt"] - IMAGE
        pages = {}
        with open("/proc/vmallocinfo") as f:
            for line in f:
                found = re.match(r"0x([0-9a-f]+)-0x[0-9a-f]+\s+(\d+)\s+(\S+)?.*", line)
                if not found or "ioremap" in line or int(found.group(2)) > 1 << 20:
                    continue
                start, who = int(found.group(1), 16), (found.group(3) or "").split("+")[0]
                for at in range(0, int(found.group(2)) - PAGE, PAGE):
                    gpa = self.physical(start + at, root)
                    if gpa is not None:
                        pages[gpa] = f"{self.user_of(who)}, page {at // PAGE}"
        return pages

    @staticmethod
    def user_of(who):
        return {"dup_task_struct": "kernel stack", "copy_process": "kernel stack", "kernel_clone": "kernel stack",
                "pcpu_get_vm_areas": "per-CPU memory"}.get(who, f"vmalloc for {who or '?'}")

    @staticmethod
    def touched(symbols, start, offsets):
        """The symbols at these offsets of a page."""
        keys = [va for va, _ in symbols]
        names = []
        for offset in offsets:
            i = bisect.bisect_right(keys, start + offset) - 1
            if i >= 0:
                inside = start + offset - keys[i]
                names.append(symbols[i][1] + (f"+{inside:#x}" if inside else ""))
        return ", ".join(names)

    def inside(self, symbols, start, offsets):
        return self.touched(symbols, start, offsets) if offsets else self.largest(symbols, start)

    @staticmethod
    def largest(symbols, start):
        """The symbols of a page, those with most bytes in it first."""
        keys = [va for va, _ in symbols]
        first = max(bisect.bisect_right(keys, start) - 1, 0)
        sizes = {}
        for i in range(first, len(symbols)):
            va, name = symbols[i]
            if va >= start + PAGE:
                break
            end = keys[i + 1] if i + 1 < len(keys) else va + 8
            share = min(end, start + PAGE) - max(va, start)
            if share > 0:
                sizes[name] = max(sizes.get(name, 0), share)
        order = sorted(sizes, key=lambda n: -sizes[n])
        return ", ".join(order[:5]) + (f" and {len(order) - 5} more" if len(order) > 5 else "")

    def slab(self, frame):
        head = self.memory.word(VMEMMAP + frame * 64 + 8)
        if head & 1:  # a tail page
            return self.slab((head - 1 - VMEMMAP) // 64)
        # struct slab has its cache there from 6.2 on, or before; the cache's name is its first pointer to a text.
        for at in (8, 24):
            cache = self.memory.word(VMEMMAP + frame * 64 + at)
            for offset in range(0x50, 0x90, 8):
                name = self.memory.text(self.memory.word(cache + offset))
                if name:
                    return f"slab {name}"
        return "slab"

    def name(self, gpa, offsets):
        own = self.own(gpa, offsets)
        if own:
            return own
        if self.symbols[0][0] - IMAGE <= gpa < self.address["_end"] - IMAGE:
            return self.inside(self.symbols, gpa + IMAGE, offsets) or "the kernel's image"
        if gpa in self.vmalloc:
            return self.vmalloc[gpa]
        with open("/proc/kpageflags", "rb") as f:
            f.seek(gpa // PAGE * 8)
            data = f.read(8)
        flags = struct.unpack("<Q", data)[0] if len(data) == 8 else 0
        if flags >> 7 & 1:
            return self.slab(gpa // PAGE)
        return next((name for bit, name in FLAGS.items() if flags >> bit & 1), "a page of the kernel's")


def main(wanted):
    """wanted: offsets by (whatever, gpa); a line each, in that order."""
    with open("/proc/sys/kernel/kptr_restrict", "w") as f:
        f.write("1")  # addresses as they are, for root; with 0 they are hashed
    names = Names()
    for (_, gpa), offsets in wanted.items():
        print(names.name(gpa, offsets))
