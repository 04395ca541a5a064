# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read from a module's machine code which functions of the module API it calls, without running it.

A module gets each function by name when it is loaded, C(RedisModule_GetApi("RedisModule_X", &RedisModule_X)), always
all those of its header; one that the server lacks stays NULL, and only calling it kills the server. So what counts is
which of these pointers the code uses. That needs no disassembler: the pointers are few, their addresses are known,
and x86-64 code names an address by its distance from the next instruction. Four bytes that are the distance to one
of them are hardly ever anything else.

The code has a pointer in one of two ways. By default it takes the pointer's address from the global offset table,
whose relocations name the symbol. With hidden visibility it takes it directly, and the symbol's name is gone; then
the header's own code tells which is which, as it has the pointer's address beside the name.
"""

from __future__ import annotations

import functools
import mmap
import re
import struct
from typing import Callable, Iterator, NamedTuple

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _elf

GET_API = "RedisModule_GetApi"
"""The one pointer that comes from the server's context rather than by name."""
ALWAYS_CALLED = "RedisModule_SetModuleAttribs"
"""The header itself calls it for every module. Where that is not seen, the code is not understood."""
CREATE_TYPE = "RedisModule_CreateDataType"

NAME = re.compile(rb"RedisModule_[A-Za-z0-9_]+(?=\0)")
TYPE_NAME = re.compile(rb"[A-Za-z0-9_-]{9}(?=\0)")
ENCODING = re.compile(rb"\xba(?P<number>.[\0-\x03])\0\0|\x31\xd2", re.DOTALL)
"""C(mov $number,%edx) with a number that Redis takes (at most 1023), or C(xor %edx,%edx)."""

RELATIVE = re.compile(rb"[\x05\x0d\x15\x1d\x25\x2d\x35\x3d](?=...[\x00-\x03\xfc-\xff])", re.DOTALL)
"""A ModRM byte that says "from the next instruction", and a distance of at most 64 MB."""
RETURN = re.compile(rb"\xc3[\xc3\x0f\x66\x90\xcc\xf3]")
"""The end of a function and what fills the gap to the next one."""
INDIRECT_CALL = re.compile(rb"\xff(?:[\xd0-\xd7\x10-\x17]|\x55\0)")
"""A call by a register, or through one."""

LEA, LOAD, CALL, COMPARE = 0x8D, 0x8B, 0xFF, 0x83
TESTS = (0x39, 0x3B, 0x85, COMPARE)
USES = (LOAD, CALL, 0x16, 0x7E, *range(0x40, 0x50), *TESTS)
"""Opcodes that read what they name; 16 and 7e load one half of an xmm register, 40 to 4f under a condition."""
RDI, RSI = 7, 6
"""The registers of the first and second argument."""
KEPT = {3: b"\x5b", 5: b"\x5d", 12: b"\x41\x5c", 13: b"\x41\x5d", 14: b"\x41\x5e", 15: b"\x41\x5f"}
"""The registers that keep their value over a call (rbx, rbp, r12 to r15), each with what ends that: its C(pop)."""

BLOCK = 64
"""Bytes of code in which a pointer is read whose address was just loaded."""
ONLOAD = 1 << 15
"""Bytes of code in which the header asks for all of them; gcc keeps some of the pointers in registers meanwhile."""
AGAIN = 512
"""Bytes of code between two uses of one pointer whose address is kept in a register."""
ARGUMENTS = 256
"""Bytes of code in which the arguments of one call are prepared."""


class Calls(NamedTuple):
    """What a module's code uses of the module API.

    I(functions) are called without asking first whether the server has them; I(guarded) are compared with NULL
    somewhere, as C(RMAPI_FUNC_SUPPORTED) does. I(types) are its data types by their names of nine characters, with
    the encoding version, or None where that can't be read.
    """

    functions: frozenset[str]
    guarded: frozenset[str]
    types: tuple[tuple[str, int | None], ...]


class _Reference(NamedTuple):
    """An instruction from I(start) to I(end) of the file that names the address I(target)."""

    start: int
    end: int
    opcode: int
    register: int
    target: int


class _Use(NamedTuple):
    """A pointer is read; its call ends at I(call) of the file (0: not seen), I(guard) where it is compared before."""

    function: str
    call: int
    guard: bool


def server_functions(binary: str) -> frozenset[str]:
    """Return the names of the API functions that the redis-server at I(binary) has. Raises OSError, ValueError."""
    with open(binary, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return frozenset(m.group().decode() for m in NAME.finditer(content) if content[m.start() - 1] == 0)


def missing(calls: Calls, have: frozenset[str]) -> list[str]:
    """Return the functions that the module calls without asking and that a server with I(have) lacks."""
    return sorted(calls.functions - have)


def read(path: str) -> Calls | None:
    """Return what the module at I(path) uses; None where its code can't be read. Raises OSError."""
    with open(path, "rb") as stream:
        try:
            image = _elf.Image(stream)
            return _Code(image).calls() if (image.machine, image.bits) == ("EM_X86_64", 64) else None
        except _elf.DAMAGES:
            return None


def _is_function(symbol: str) -> bool:
    return symbol.startswith("RedisModule_") and symbol != GET_API


class _Code:
    """The machine code of a module, and where it names what of the module API. Places are offsets in the file."""

    def __init__(self, image: _elf.Image) -> None:
        self.image = image
        self.content = image.content
        writable = [segment for segment in image.loaded if segment.flags & _elf.PF_W]
        self.low = min((segment.address for segment in writable), default=0)
        self.high = max((segment.address + segment.memory_size for segment in writable), default=0)
        self.names = {
            match.start() - segment.offset + segment.address: match.group().decode()
            for segment in image.loaded
            for match in NAME.finditer(self.content, segment.offset, segment.offset + segment.file_size)
        }
        symbols = image.symbols()
        self.slots = {
            address: symbols[index].name
            for address, index in image.global_data()
            if index < len(symbols) and _is_function(symbols[index].name)
        }
        """Where the addresses of pointers are, by the functions of these."""
        self.pointers = {
            symbol.value: symbol.name
            for symbol in symbols
            if _is_function(symbol.name) and self.low <= symbol.value < self.high
        }
        """Where the pointers themselves are."""
        self.references = [
            reference
            for segment in image.loaded
            if segment.flags & _elf.PF_X
            for reference in self._references(
                segment, lambda target: target in self.names or self.low <= target < self.high
            )
        ]

    def _references(
        self, segment: _elf.Segment, wanted: Callable[[int], bool], start: int = 0, end: int = 1 << 62
    ) -> Iterator[_Reference]:
        """Return what names a wanted address, of the segment's code between two places of the file."""
        content = self.content
        first, last = max(segment.offset + 2, start), min(segment.offset + segment.file_size, end)
        distance = struct.Struct("<i").unpack_from
        for match in RELATIVE.finditer(content, first, last):
            at = match.start()
            opcode = content[at - 1]
            # After the distance, a comparison still has the byte that it compares with.
            target = at + 5 + (opcode == COMPARE) - segment.offset + segment.address + distance(content, at + 1)[0]
            if wanted(target):
                prefix = content[at - 2] if content[at - 2] & 0xF0 == 0x40 else 0
                yield _Reference(at - (2 if prefix else 1), at + 5, opcode, _register(prefix, content[at]), target)

    def calls(self) -> Calls | None:
        """Return what the code uses; None where it is not understood."""
        asked = [i for i, r in enumerate(self.references) if r.opcode == LEA and r.target in self.names]
        known = {*self.slots.values(), *self.pointers.values()}
        for index in asked:
            function = self.names[self.references[index].target]
            if function not in known:
                beside = self._beside(index, lambda r: r.opcode == LEA and r.target not in self.names)
                if beside:
                    self.pointers.setdefault(beside.target, function)
        header = {self._beside(index, functools.partial(self._is_address, index)) for index in asked}
        uses = [use for reference in self.references for use in self._uses(reference, reference in header)]
        used = {use.function for use in uses}
        if None in header or ALWAYS_CALLED not in used:
            return None
        guarded = frozenset(use.function for use in uses if use.guard)
        types = {self._type_made_at(use.call) for use in uses if use.function == CREATE_TYPE and use.call}
        return Calls(frozenset(used - guarded), guarded, tuple(sorted(made for made in types if made)))

    def _beside(self, index: int, wanted: Callable[[_Reference], bool]) -> _Reference | None:
        """Return the nearest wanted reference that prepares the same call; a second argument above all."""
        name = self.references[index]
        found = []
        for step in (-1, 1):
            at = index
            while 0 <= at + step < len(self.references):
                first, second = sorted((self.references[at], self.references[at + step]))
                between = self.content[first.end : second.start]
                at += step
                other = self.references[at]
                distance = abs(other.start - name.start)
                if distance > ARGUMENTS or other.opcode == CALL:
                    break
                if INDIRECT_CALL.search(between) or RETURN.search(between):
                    break
                if wanted(other):
                    found.append(((name.register, other.register) != (RDI, RSI), distance, other))
        return min(found)[2] if found else None

    def _is_address(self, name: int, reference: _Reference) -> bool:
        """Whether an instruction takes the address of the pointer that the one at index I(name) names."""
        function = self.names[self.references[name].target]
        return self._address_of(reference) == function

    def _address_of(self, reference: _Reference) -> str | None:
        """Return the function whose pointer's address this instruction takes."""
        return {LOAD: self.slots, LEA: self.pointers}.get(reference.opcode, {}).get(reference.target)

    def _uses(self, reference: _Reference, header: bool) -> Iterator[_Use]:
        """Return what is done with a pointer that an instruction names; the header's own asking for it is no use."""
        function = self._address_of(reference)
        if function and (reference.register in KEPT or not header):
            yield from self._reads(function, reference, header)
        elif not function and reference.target in self.slots:
            yield _Use(self.slots[reference.target], 0, False)
        elif not function and reference.target in self.pointers and reference.opcode in USES:
            call, guard = reference.end if reference.opcode == CALL else 0, reference.opcode in TESTS
            if reference.opcode == LOAD:
                call, guard = self._called(reference.end, reference.register)
            yield _Use(self.pointers[reference.target], call, guard)

    def _reads(self, function: str, reference: _Reference, header: bool) -> Iterator[_Use]:
        """Return where a pointer is read whose address is in a register: soon, and again while that one is kept."""
        kept = reference.register in KEPT
        at, span = reference.end, ONLOAD if header else (AGAIN if kept else BLOCK)
        match = _through(reference.register).search(self.content, at, at + span)
        yield _Use(function, 0, False)
        near = header or (match and match.start() < at + BLOCK)
        while match:
            call, guard = match.end() if match.lastgroup == "call" else 0, match.lastgroup == "test"
            if match.lastgroup == "load":
                prefix, _opcode, modrm = match.group()[:3]
                call, guard = self._called(match.end(), _register(prefix, modrm))
            yield _Use(function, call, bool(guard and near))
            at, near = match.end(), False
            match = _through(reference.register).search(self.content, at, at + AGAIN) if kept else None
            if match and KEPT[reference.register] in self.content[at : match.start()]:
                break

    def _called(self, at: int, register: int) -> tuple[int, bool]:
        """Return where a pointer that is in a register is called, 0 if nowhere, and whether it is compared before."""
        pattern = _of_register(register)
        match = pattern.search(self.content, at, at + ARGUMENTS)
        guard = bool(match and match.lastgroup == "test")
        if match and guard:
            match = pattern.search(self.content, match.end(), match.end() + ARGUMENTS)
        return match.end() if match and match.lastgroup == "call" else 0, guard

    def _type_made_at(self, call: int) -> tuple[str, int | None] | None:
        """Return the name and encoding version of the data type that is made by the call that ends here."""
        found = [
            (reference.start < call - ARGUMENTS, reference.register != RSI, -reference.start, reference)
            for segment in self.image.loaded
            if segment.flags & _elf.PF_X
            for reference in self._references(segment, self._is_type_name, call - ONLOAD, call)
            if reference.opcode == LEA and (reference.register in KEPT or reference.start > call - ARGUMENTS)
        ]
        if not found:
            return None
        place = self.image.offset(min(found)[-1].target)
        number = None
        for match in ENCODING.finditer(self.content, call - ARGUMENTS, call):
            # Another call between would have lost it; the call itself has at most six bytes.
            if not INDIRECT_CALL.search(self.content[match.end() : call - 6]):
                number = int.from_bytes(match.group("number") or b"", "little")
        return self.content[place : place + 9].decode(), number

    def _is_type_name(self, address: int) -> bool:
        try:
            return bool(TYPE_NAME.match(self.content, self.image.offset(address)))
        except LookupError:
            return False


def _register(prefix: int, modrm: int) -> int:
    """Return the number of an instruction's register, 0 to 15."""
    return (modrm >> 3 & 7) + (8 if prefix & 4 else 0)


@functools.lru_cache(maxsize=None)
def _through(register: int) -> re.Pattern[bytes]:
    """Return what reads the memory that a register points to: loads it, compares it, calls or jumps to it."""
    low, high = register & 7, register >> 3
    # rsp and r12 need a further byte, rbp and r13 a distance of nothing.
    mode, rest = (0x40, b"\0") if low == 5 else (0, b"\x24" if low == 4 else b"")

    def operand(*others: int) -> bytes:
        return _byte(*(mode | other << 3 | low for other in others)) + re.escape(rest)

    wide = _byte(0x48 | high, 0x4C | high)
    load = b"(?P<load>" + wide + rb"\x8b" + operand(*range(8)) + b")"
    test = b"(?P<test>" + wide + rb"(?:\x83" + operand(7) + rb"\0|[\x39\x3b\x85]" + operand(*range(8)) + b"))"
    call = b"(?P<call>" + (rb"\x41" if high else b"") + rb"\xff" + operand(2, 4) + b")"
    return re.compile(b"|".join((load, test, call)), re.DOTALL)


@functools.lru_cache(maxsize=None)
def _of_register(register: int) -> re.Pattern[bytes]:
    """Return what compares a register with nothing, calls or jumps to it, or gives it another value."""
    low, high = register & 7, register >> 3
    prefix = rb"\x41" if high else b""
    test = b"(?P<test>" + _byte(0x48 | high | high << 2) + rb"\x85" + _byte(0xC0 | low << 3 | low) + b")"
    call = b"(?P<call>" + prefix + rb"\xff" + _byte(0xD0 | low, 0xE0 | low) + b")"
    others = [modrm for modrm in range(256) if modrm >> 3 & 7 == low]
    lost = _byte(0x48 | high << 2, 0x49 | high << 2) + rb"[\x8b\x8d]" + _byte(*others)
    if register not in KEPT:
        lost += b"|" + INDIRECT_CALL.pattern + rb"|\xe8...[\x00-\x03\xfc-\xff]"
    return re.compile(b"|".join((test, call, b"(?P<lost>" + lost + b")")), re.DOTALL)


def _byte(*choice: int) -> bytes:
    """Return the pattern of one byte out of these."""
    return b"[" + b"".join(b"\\x%02x" % byte for byte in choice) + b"]"
