# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a shared object says of itself, without running it (by pyelftools).

It is read as the dynamic linker reads it: by its segments. Sections are only a linker's and a debugger's, and a file
can do without them.
"""

from __future__ import annotations

import os
import re
import struct
import traceback
from typing import Any, Iterator, NamedTuple

ELFTOOLS_IMPORT_ERROR: str | None
try:
    from elftools.common.exceptions import ELFError
    from elftools.elf.elffile import ELFFile
except ImportError:
    ELFTOOLS_IMPORT_ERROR = traceback.format_exc()
else:
    ELFTOOLS_IMPORT_ERROR = None

MACHINES = {
    "EM_X86_64": "x86_64",
    "EM_AARCH64": "aarch64",
    "EM_ARM": "armv7l",
    "EM_386": "i686",
    "EM_PPC64": "ppc64le",
    "EM_S390": "s390x",
    "EM_RISCV": "riscv64",
    "EM_LOONGARCH": "loongarch64",
}
"""The names of uname -m by ELF's."""
WIDE = {"x86_64", "aarch64", "ppc64le", "s390x", "riscv64", "loongarch64"}
"""Those whose redis-server is a 64-bit program."""

DAMAGES: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
    struct.error,
)
"""What reading a damaged file can raise: pyelftools checks little, and seeks to wherever the file says."""
if not ELFTOOLS_IMPORT_ERROR:
    DAMAGES += (ELFError,)

ONLOAD = "RedisModule_OnLoad"

ALLOCATORS = frozenset(
    (
        *(
            "malloc",
            "calloc",
            "realloc",
            "reallocarray",
            "posix_memalign",
            "aligned_alloc",
            "memalign",
            "valloc",
            "pvalloc",
        ),
        *("strdup", "strndup", "wcsdup", "asprintf", "vasprintf", "getline", "getdelim", "open_memstream"),
        *("mmap", "mmap64", "brk", "sbrk"),
        *(
            "_Znam",
            "_Znwm",
            "_ZnamRKSt9nothrow_t",
            "_ZnwmRKSt9nothrow_t",
            "_ZnamSt11align_val_t",
            "_ZnwmSt11align_val_t",
        ),
    )
)
"""Functions that give memory which Redis does not count, so that maxmemory does not see it. _Zn are C++'s new."""

STARTERS = frozenset(
    ("fork", "_Fork", "vfork", "clone", "daemon", "forkpty", "posix_spawn", "posix_spawnp", "system", "popen")
)
"""Functions that start another process."""

PT_DYNAMIC, PT_GNU_STACK = "PT_DYNAMIC", "PT_GNU_STACK"
PF_X, PF_W = 1, 2
DT_NEEDED, DT_HASH, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_TEXTREL, DT_FLAGS = 1, 4, 5, 6, 7, 8, 22, 30
DT_GNU_HASH, DT_FLAGS_1, DT_VERNEED, DT_VERNEEDNUM = 0x6FFFFEF5, 0x6FFFFFFB, 0x6FFFFFFE, 0x6FFFFFFF
DF_TEXTREL, DF_1_NODELETE = 4, 8
R_X86_64_GLOB_DAT = 6


class Segment(NamedTuple):
    """A program header."""

    type: str
    flags: int
    offset: int
    address: int
    file_size: int
    memory_size: int


class Symbol(NamedTuple):
    """A dynamic symbol; I(value) is its address where it is I(defined) here."""

    name: str
    defined: bool
    value: int


class Image:
    """A shared object as the dynamic linker sees it. Raises one of DAMAGES wherever the file is not as it should be."""

    def __init__(self, stream: Any) -> None:
        elf = ELFFile(stream)
        self.machine = str(elf["e_machine"])
        self.type = str(elf["e_type"])
        self.bits: int = elf.elfclass
        self.order = "<" if elf.little_endian else ">"
        self.segments = [
            Segment(*(segment["p_" + key] for key in ("type", "flags", "offset", "vaddr", "filesz", "memsz")))
            for segment in elf.iter_segments()
        ]
        self.end = max(
            [elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]] + [s.offset + s.file_size for s in self.segments]
        )
        stream.seek(0)
        self.content: bytes = stream.read()
        self.loaded = [segment for segment in self.segments if segment.type == "PT_LOAD"]
        self.tags = list(self._tags())

    def _tags(self) -> Iterator[tuple[int, int]]:
        for segment in self.segments:
            if segment.type == PT_DYNAMIC:
                for tag, value in self.records("qQ" if self.bits == 64 else "iI", segment.offset, segment.file_size):
                    if tag == 0:
                        break
                    yield tag, value

    def records(self, form: str, offset: int, size: int) -> Iterator[tuple[Any, ...]]:
        """Return what is in the file from I(offset) on, as whole records of the form."""
        record = struct.Struct(self.order + form)
        return record.iter_unpack(self.content[offset : offset + size // record.size * record.size])

    def record(self, form: str, offset: int) -> tuple[Any, ...]:
        """Return the record at I(offset) of the file."""
        return struct.unpack_from(self.order + form, self.content, offset)

    def tag(self, wanted: int) -> int | None:
        """Return the value of the first dynamic tag of this kind."""
        return next((value for tag, value in self.tags if tag == wanted), None)

    def offset(self, address: int) -> int:
        """Return where in the file the content of an address is. Raises LookupError where the file has none."""
        for segment in self.loaded:
            if segment.address <= address < segment.address + segment.file_size:
                return address - segment.address + segment.offset
        raise LookupError(f"nothing of the file is at address {address:#x}")

    def string(self, index: int) -> str:
        """Return a string of the dynamic string table."""
        start = self.offset((self.tag(DT_STRTAB) or 0) + index)
        return self.content[start : self.content.index(b"\0", start)].decode("utf-8", "replace")

    def symbols(self) -> list[Symbol]:
        """Return the dynamic symbols, each at its index."""
        table = self.tag(DT_SYMTAB)
        if table is None:
            return []
        # name, then value and section at other places in 32 bits
        form, name, value, section = ("IBBHQQ", 0, 4, 3) if self.bits == 64 else ("IIIBBH", 0, 1, 5)
        size = struct.calcsize(self.order + form) * self._symbol_count()
        return [
            Symbol(self.string(record[name]), record[section] != 0, record[value])
            for record in self.records(form, self.offset(table), size)
        ]

    def _symbol_count(self) -> int:
        """The dynamic linker never asks how many there are; its hash tables show the last one that it can find."""
        table = self.tag(DT_GNU_HASH)
        if table is None:
            hashes = self.tag(DT_HASH)
            return int(self.record("II", self.offset(hashes))[1]) if hashes is not None else 0
        at = self.offset(table)
        buckets, first, blooms, _shift = self.record("IIII", at)
        at += 16 + blooms * self.bits // 8
        last = max(self.record(f"{buckets}I", at), default=0)
        if last < first:
            return int(first)
        at += 4 * buckets - 4 * first
        while not self.record("I", at + 4 * last)[0] & 1:
            last += 1
        return int(last) + 1

    def global_data(self) -> Iterator[tuple[int, int]]:
        """Return the slots of the global offset table of x86-64, each with its symbol's index."""
        table, size = self.tag(DT_RELA), self.tag(DT_RELASZ)
        if table is not None and size:
            for address, info, _addend in self.records("QQq", self.offset(table), size):
                if info & 0xFFFFFFFF == R_X86_64_GLOB_DAT:
                    yield address, info >> 32

    def versions(self) -> Iterator[str]:
        """Return the symbol versions that it needs of its libraries, such as C(GLIBC_2.14)."""
        need = self.tag(DT_VERNEED)
        at = self.offset(need) if need is not None else 0
        for _file in range(self.tag(DT_VERNEEDNUM) or 0):
            _version, count, _name, first, following = self.record("HHIII", at)
            auxiliary = at + first
            for _auxiliary in range(count):
                _hash, _flags, _other, name, step = self.record("IHHII", auxiliary)
                yield self.string(name)
                auxiliary += step
            if following == 0:
                break
            at += following


class Inspection(NamedTuple):
    """What an artifact depends on, and what is wrong with it anywhere.

    I(faults) are sentences; with any of them no server can load the file, whichever host it is. I(executable_stack)
    is also true where the file does not say whether it needs one, as glibc then takes it that it does. I(nodelete)
    means that MODULE UNLOAD leaves its code in the process. I(allocators) are the functions that it imports which give
    memory that Redis does not count, I(starters) those that start another process.
    """

    architecture: str
    needed: tuple[str, ...]
    glibc: str
    faults: tuple[str, ...]
    bits: int = 0
    executable_stack: bool = False
    text_relocations: bool = False
    nodelete: bool = False
    allocators: tuple[str, ...] = ()
    starters: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The part that goes into a manifest."""
        return {
            "architecture": self.architecture,
            "needed": list(self.needed),
            "glibc": self.glibc,
            "executable_stack": self.executable_stack,
            "text_relocations": self.text_relocations,
            "nodelete": self.nodelete,
            "allocators": list(self.allocators),
        }


def _broken(fault: str) -> Inspection:
    return Inspection("", (), "", (fault,))


def inspect(path: str) -> Inspection:
    """Read the artifact at I(path). Raises OSError where it can't be read at all."""
    size = os.path.getsize(path)
    if size == 0:
        return _broken("the file is empty")
    with open(path, "rb") as stream:
        if stream.read(4) != b"\x7fELF":
            return _broken("it is no shared object (no ELF header)")
        stream.seek(0)
        try:
            return _inspect_image(Image(stream), size)
        except DAMAGES as error:
            return _broken(f"its ELF structure is damaged or cut off ({str(error) or type(error).__name__})")


def _inspect_image(image: Image, size: int) -> Inspection:
    faults: list[str] = []
    if image.end > size:
        return _broken(f"it is cut off: {size} of {image.end} bytes are there")
    if image.type == "ET_DYN" and not image.loaded:
        return _broken("its ELF structure is damaged (nothing in it is to be loaded)")
    if image.type != "ET_DYN":
        faults.append(f"it is no shared object (ELF type {image.type}; link it with -shared)")
    symbols = image.symbols()
    exported = {symbol.name for symbol in symbols if symbol.defined}
    if ONLOAD not in exported:
        other = "ValkeyModule_OnLoad"
        hint = f"; it exports {other}, so it was built with valkeymodule.h" if other in exported else ""
        faults.append(f"it does not export {ONLOAD}{hint}")
    imported = {symbol.name for symbol in symbols if not symbol.defined}
    stack = [segment.flags for segment in image.segments if segment.type == PT_GNU_STACK]
    return Inspection(
        MACHINES.get(image.machine, image.machine),
        tuple(image.string(value) for tag, value in image.tags if tag == DT_NEEDED),
        highest_glibc(list(image.versions())),
        tuple(faults),
        bits=image.bits,
        executable_stack=not stack or bool(stack[0] & PF_X),
        text_relocations=image.tag(DT_TEXTREL) is not None or bool((image.tag(DT_FLAGS) or 0) & DF_TEXTREL),
        nodelete=bool((image.tag(DT_FLAGS_1) or 0) & DF_1_NODELETE),
        allocators=tuple(sorted(imported & ALLOCATORS)),
        starters=tuple(sorted(imported & STARTERS)),
    )


def highest_glibc(versions: list[str]) -> str:
    """Return the highest of symbol versions such as C(GLIBC_2.14), as C("2.14"); empty where there is none."""
    found = [v[len("GLIBC_") :] for v in versions if re.fullmatch(r"GLIBC_\d+(\.\d+)*", v)]
    return max(found, key=lambda v: tuple(int(part) for part in v.split(".")), default="")


def misfits(inspection: Inspection, architecture: str, libc: str) -> list[str]:
    """Return why a host of I(architecture) and I(libc) (C("glibc 2.31")) can't load the artifact."""
    found = list(inspection.faults)
    if inspection.bits == 32 and architecture in WIDE:
        found.append("it is a 32-bit object, this host's redis-server is 64-bit")
    elif inspection.architecture and inspection.architecture != architecture:
        found.append(f"it is built for {inspection.architecture}, this host is {architecture}")
    host = re.fullmatch(r"glibc (\d+(?:\.\d+)*)", libc)
    if inspection.glibc and host:
        wanted = tuple(int(part) for part in inspection.glibc.split("."))
        have = tuple(int(part) for part in host.group(1).split("."))
        if wanted > have:
            found.append(f"it needs glibc {inspection.glibc} or newer, this host has {host.group(1)}")
    return found
