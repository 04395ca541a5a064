# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Machine code is read for what it calls. What compilers really make of a module is in tests/example."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _calls
from ansible_collections.edgeops.redis_modules.plugins.module_utils._calls import Calls

X86_64, AARCH64 = 62, 183
RAX, RCX, RDX, RBX, RBP, RSI, RDI, R8, R12, R13 = 0, 1, 2, 3, 5, 6, 7, 8, 12, 13
CODE, DATA = 0x400, 0x10000
FUNCTIONS = ("SetModuleAttribs", "Alloc", "Free", "CreateDataType", "New")
"""What the header of the modules here asks for; New is the one that older servers lack."""


POINTERS = ("GetApi", *FUNCTIONS)


class Code:
    """A module of a few functions, assembled by hand: the header's part first."""

    def __init__(self, hidden: bool, header: tuple[str, ...] = FUNCTIONS) -> None:
        self.hidden = hidden
        self.code = b""
        self.strings = b""
        self.distances: list[tuple[int, int, str]] = []
        self.address("GetApi", RBX).add(b"\x48\x8b\x07\x48\x89\x03")
        for function in header:
            self.asks_for(function)
        self.uses("SetModuleAttribs", RAX).add(b"\xff\xd0")

    def add(self, code: bytes) -> Code:
        """Add instructions as they are."""
        self.code += code
        return self

    def names(self, opcode: bytes, register: int, what: str, after: bytes = b"") -> Code:
        """Add an instruction that names an address relative to the next one."""
        prefix = b"" if opcode == b"\xff" else (b"\x4c" if register > 7 else b"\x48")
        self.code += prefix + opcode + bytes([(register & 7) << 3 | 5])
        self.distances.append((len(self.code), len(self.code) + 4 + len(after), what))
        return self.add(b"\0\0\0\0" + after)

    def address(self, function: str, register: int) -> Code:
        """Take the address of a pointer."""
        return self.names(b"\x8d" if self.hidden else b"\x8b", register, function)

    def asks_for(self, function: str, register: int = RSI) -> Code:
        """As the header does."""
        self.address(function, register)
        self.names(b"\x8d", RDI, "RedisModule_" + function)
        return self.add(b"\x48\x89" + bytes([0xC6 | (register & 7) << 3]) if register != RSI else b"").add(b"\xff\xd0")

    def uses(self, function: str, register: int) -> Code:
        """Load a pointer into rax, by way of a register where its address comes from the table."""
        if self.hidden:
            return self.names(b"\x8b", RAX, function)
        assert register == RAX
        return self.address(function, RAX).add(b"\x48\x8b\x00")

    def calls(self, function: str) -> Code:
        """Call a function, and test what it returns."""
        return self.uses(function, RAX).add(b"\x48\x89\xdf\xff\xd0\x48\x85\xc0\x74\x02")

    def elf(self, machine: int = X86_64) -> bytes:
        """Return the module as a file: headers, code and strings are loaded at 0, pointers and tables at DATA."""
        places = {function: DATA + 0x100 + 8 * i for i, function in enumerate(POINTERS)}
        code, strings = bytearray(self.code), b""
        dynamic_names = b"\0"
        symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
        relocations = b""
        for i, function in enumerate(POINTERS):
            if not self.hidden:
                symbols += struct.pack("<IBBHQQ", len(dynamic_names), 0x11, 0, 9, places[function] + 0x100, 8)
                dynamic_names += b"RedisModule_" + function.encode() + b"\0"
                relocations += struct.pack("<QQq", places[function], i + 1 << 32 | 6, 0)
        for at, following, what in self.distances:
            if what not in places:
                places[what] = CODE + len(code) + len(strings)
                strings += what.encode() + b"\0"
            struct.pack_into("<i", code, at, places[what] - CODE - following)
        text = bytes(code) + strings
        tables = b""
        tags = []
        count = len(symbols) // 24
        hashes = struct.pack("<II", 1, count) + bytes(4 * (1 + count))
        for tag, table in ((5, dynamic_names), (6, symbols), (4, hashes), (7, relocations)):
            tags.append((tag, DATA + 0x400 + len(tables)))
            tables += table + bytes(-len(table) % 8)
        tags += [(8, len(relocations)), (0, 0)]
        dynamic = b"".join(struct.pack("<qQ", *tag) for tag in tags)
        data = (dynamic.ljust(0x400, b"\0")) + tables
        start = CODE + len(text)
        segments = [
            (1, 5, 0, 0, start, start),
            (1, 6, start, DATA, len(data), len(data)),
            (2, 6, start, DATA, len(dynamic), len(dynamic)),
        ]
        headers = b"".join(
            struct.pack("<IIQQQQQQ", kind, flags, offset, address, address, size, memory, 8)
            for kind, flags, offset, address, size, memory in segments
        )
        ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
        head = ident + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
        return (head + headers).ljust(CODE, b"\0") + text + data


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Calls | None]:
    """Return a function that reads a module, or a file's content."""

    def of(module: Code | bytes) -> Calls | None:
        path = tmp_path / "x.so"
        path.write_bytes(module.elf() if isinstance(module, Code) else module)
        return _calls.read(str(path))

    return of


Read = Callable[..., Calls]


def short(names: frozenset[str]) -> set[str]:
    """Return the names without what all have in common."""
    return {name[len("RedisModule_") :] for name in names}


@pytest.mark.parametrize("hidden", [False, True])
class TestUses:
    """What of the API is called, with pointers from the table and with hidden ones."""

    def test_what_the_header_asks_for_is_no_call(self, read: Read, hidden: bool) -> None:
        assert read(Code(hidden)) == Calls(frozenset({"RedisModule_SetModuleAttribs"}), frozenset(), ())

    def test_what_is_called_is(self, read: Read, hidden: bool) -> None:
        found = read(Code(hidden).calls("Alloc").calls("New").calls("Alloc"))
        assert short(found.functions) == {"SetModuleAttribs", "Alloc", "New"}
        assert found.guarded == frozenset()

    def test_a_pointer_that_is_loaded_and_tested_is_guarded(self, read: Read, hidden: bool) -> None:
        found = read(Code(hidden).uses("New", RAX).add(b"\x48\x85\xc0\x74\x02\xff\xd0").calls("New"))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs"}, {"New"})

    @pytest.mark.parametrize(
        "between",
        [b"\xff\xd3", b"\xe8\x10\0\0\0", b"\x48\x8b\x45\x08", b"\xff\xd0"],
        ids=["another call", "a direct call", "another value", "its own call"],
    )
    def test_a_test_of_something_else_is_no_guard(self, read: Read, hidden: bool, between: bytes) -> None:
        found = read(Code(hidden).uses("New", RAX).add(between + b"\x48\x85\xc0\x74\x02\xff\xd0"))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs", "New"}, set())

    def test_a_use_right_after_it_was_asked_for_is_one(self, read: Read, hidden: bool) -> None:
        found = read(Code(hidden).asks_for("New").calls("New"))
        assert "New" in short(found.functions)

    def test_one_of_two_by_a_condition(self, read: Read, hidden: bool) -> None:
        found = read(Code(hidden).address("Alloc", RCX).names(b"\x0f\x44", RCX, "New").add(b"\xff\x11"))
        assert short(found.functions) == {"SetModuleAttribs", "Alloc", "New"}

    def test_what_lies_near_the_first_one_is_not_taken_for_its_pointer(self, read: Read, hidden: bool) -> None:
        # As the compiler's own code before the first function, and a function that pushes rbp after a short jump back.
        code = Code(hidden, header=())
        code.code = b""
        code.distances = []
        code.names(b"\x8d", RSI, "Free").add(b"\xc3\x0f\x1f\x00").address("Alloc", RBX)
        code.add(b"\x4c\x8d\x25\xd9\xfe\xff\xff\x55\x48\x89\xde").names(b"\x8d", RDI, "RedisModule_Alloc").add(
            b"\xff\xd0"
        )
        for function in FUNCTIONS[:1] + FUNCTIONS[2:]:
            code.asks_for(function)
        found = read(code.uses("SetModuleAttribs", RAX).add(b"\xff\xd0").calls("Alloc"))
        assert short(found.functions) - {"Free"} == {"SetModuleAttribs", "Alloc"}

    def test_a_type_with_its_encoding_version(self, read: Read, hidden: bool) -> None:
        code = Code(hidden).uses("CreateDataType", RAX).add(b"\xba\x03\x01\0\0")
        code.names(b"\x8d", RSI, "my-type_1").add(b"\xff\xd0")
        code.uses("CreateDataType", RAX).names(b"\x8d", RSI, "otherTYPE").add(b"\x31\xd2\xff\xd0")
        assert read(code).types == (("my-type_1", 259), ("otherTYPE", 0))

    def test_a_type_whose_version_is_not_a_constant(self, read: Read, hidden: bool) -> None:
        # The constant before is another call's.
        code = Code(hidden).add(b"\xba\x07\0\0\0\xff\xd3").uses("CreateDataType", RAX)
        code.names(b"\x8d", RSI, "my-type_1").add(b"\x89\xda\xff\xd0")
        assert read(code).types == (("my-type_1", None),)

    @pytest.mark.parametrize("name", ["short", "my.type.1", "my-type-12"])
    def test_what_can_be_no_type_name_is_none(self, read: Read, hidden: bool, name: str) -> None:
        code = Code(hidden).uses("CreateDataType", RAX).names(b"\x8d", RSI, name).add(b"\xff\xd0")
        assert read(code).types == ()

    @pytest.mark.parametrize("name", ["RedisModule_New", "RedisModule_Other"])
    def test_a_name_of_the_api_without_a_pointer_beside_it_is_not_understood(
        self, read: Read, hidden: bool, name: str
    ) -> None:
        assert read(Code(hidden).add(b"\xff\xd3").names(b"\x8d", RDI, name).add(b"\xff\xd3")) is None


class TestByTable:
    """Pointers whose addresses come from the global offset table."""

    def test_a_comparison_in_memory_is_a_guard(self, read: Read) -> None:
        found = read(Code(hidden=False).address("New", RDX).add(b"\x48\x83\x3a\x00\x74\x02").calls("New"))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs"}, {"New"})

    @pytest.mark.parametrize(
        ("register", "call", "guard"),
        [
            (RBX, b"\xff\x13", b"\x48\x83\x3b\x00"),
            (RBP, b"\xff\x55\x00", b"\x48\x83\x7d\x00\x00"),
            (R12, b"\x41\xff\x14\x24", b"\x49\x83\x3c\x24\x00"),
            (R13, b"\x41\xff\x55\x00", b"\x49\x8b\x45\x00\x48\x85\xc0"),
        ],
    )
    def test_one_that_is_kept_since_it_was_asked_for(
        self, read: Read, register: int, call: bytes, guard: bytes
    ) -> None:
        def kept() -> Code:
            return Code(hidden=False).asks_for("New", register).add(b"\x90" * 5000)

        assert short(read(kept().add(call)).functions) == {"SetModuleAttribs", "New"}
        found = read(kept().add(guard + b"\x74\x02" + call))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs"}, {"New"})

    @pytest.mark.parametrize("distance", [100, 600])
    def test_a_comparison_far_from_where_it_was_loaded_is_none(self, read: Read, distance: int) -> None:
        found = read(Code(hidden=False).address("New", RBX).add(b"\x90" * distance + b"\x48\x83\x3b\x00"))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs", "New"}, set())

    def test_two_types_by_one_kept_pointer(self, read: Read) -> None:
        code = Code(hidden=False).address("CreateDataType", RBX)
        for name in ("my-type_1", "my-type_2"):
            code.add(b"\x90" * 100).names(b"\x8d", RSI, name).add(b"\x31\xd2\xff\x13")
        assert read(code).types == (("my-type_1", 0), ("my-type_2", 0))


class TestHidden:
    """Pointers that are named directly."""

    def test_called_in_memory_and_jumped_to(self, read: Read) -> None:
        found = read(Code(hidden=True).names(b"\xff", 2, "Alloc").names(b"\xff", 4, "Free"))
        assert short(found.functions) == {"SetModuleAttribs", "Alloc", "Free"}

    def test_compared_in_memory(self, read: Read) -> None:
        found = read(Code(hidden=True).names(b"\x83", 7, "New", b"\0").add(b"\x74\x06").names(b"\xff", 2, "New"))
        assert (short(found.functions), short(found.guarded)) == ({"SetModuleAttribs"}, {"New"})

    def test_the_second_argument_is_the_pointer_though_another_is_nearer(self, read: Read) -> None:
        code = Code(hidden=True, header=FUNCTIONS[:-1]).names(b"\x8d", RSI, "New").names(b"\x8d", RBX, "GetApi")
        assert short(read(code.names(b"\x8d", RDI, "RedisModule_New").add(b"\xff\x13")).functions) == {
            "SetModuleAttribs"
        }

    def test_what_an_earlier_call_was_given_is_not_the_next_ones(self, read: Read) -> None:
        code = Code(hidden=True, header=FUNCTIONS[:-1])
        code.names(b"\x8d", RSI, "Free").names(b"\x8d", RDI, "RedisModule_Free")
        code.names(b"\xff", 2, "GetApi").names(b"\x8d", RDI, "RedisModule_New").add(b"\x90" * 40)
        found = read(code.names(b"\x8d", RSI, "New").names(b"\xff", 2, "GetApi").calls("New"))
        assert short(found.functions) == {"SetModuleAttribs", "New"}

    def test_setting_one_is_no_use(self, read: Read) -> None:
        found = read(Code(hidden=True).names(b"\x89", RAX, "New"))
        assert short(found.functions) == {"SetModuleAttribs"}

    def test_a_pointer_that_is_asked_for_under_two_names_is_not_understood(self, read: Read) -> None:
        code = Code(hidden=True).names(b"\x8d", RSI, "New").names(b"\x8d", RDI, "RedisModule_Other").add(b"\xff\xd0")
        assert read(code) is None


class TestNotKnown:
    """Nothing is said of code that can't be read."""

    def test_another_machine(self, read: Read) -> None:
        assert read(Code(hidden=False).elf(AARCH64)) is None

    def test_code_in_which_the_header_is_not_found(self, read: Read) -> None:
        assert read(Code(hidden=True, header=())) is None

    @pytest.mark.parametrize("content", [b"", b"text", b"\x7fELF", b"\x7fELF\x02\x01\x01" + bytes(100)])
    def test_no_elf_file(self, read: Read, content: bytes) -> None:
        assert read(content) is None

    def test_a_file_that_is_not_there_is_an_oserror(self) -> None:
        with pytest.raises(OSError, match="nowhere"):
            _calls.read("/nowhere/x.so")

    def test_damaged_ones_never_raise(self, read: Read) -> None:
        whole = Code(hidden=False).calls("Alloc").elf()

        @settings(max_examples=300)
        @given(st.lists(st.tuples(st.integers(4, len(whole) - 1), st.integers(0, 255)), min_size=1, max_size=6))
        def check(changes: list[tuple[int, int]]) -> None:
            damaged = bytearray(whole)
            for at, byte in changes:
                damaged[at] = byte
            found = read(bytes(damaged))
            assert found is None or isinstance(found, Calls)

        check()

    def test_cut_off_ones_never_raise(self, read: Read) -> None:
        whole = Code(hidden=True).calls("Alloc").elf()
        for length in range(0, len(whole), 37):
            found = read(whole[:length])
            assert found is None or isinstance(found, Calls)


class TestServer:
    """What the server has."""

    def test_names_stand_between_nuls(self, tmp_path: Path) -> None:
        binary = tmp_path / "redis-server"
        binary.write_bytes(
            b"\x7fELF\0RedisModule_Alloc\0RedisModule_Free\0xRedisModule_No\0RedisModule_%s\0RedisModule_Cut"
        )
        assert _calls.server_functions(str(binary)) == {"RedisModule_Alloc", "RedisModule_Free"}

    def test_what_it_lacks_is_missing_where_nobody_asks_first(self) -> None:
        calls = Calls(frozenset({"RedisModule_B", "RedisModule_A", "RedisModule_C"}), frozenset({"RedisModule_D"}), ())
        assert _calls.missing(calls, frozenset({"RedisModule_B"})) == ["RedisModule_A", "RedisModule_C"]
        assert _calls.missing(calls, calls.functions) == []
