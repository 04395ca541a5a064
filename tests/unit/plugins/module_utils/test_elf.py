# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An artifact is judged by reading it: a sound one passes, any damaged one is a fault and never an exception."""

from __future__ import annotations

import os
import struct
import tempfile
from pathlib import Path
from typing import Any, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _elf
from ansible_collections.edgeops.redis_modules.plugins.module_utils._elf import Inspection

BuildSo = Callable[..., str]
HERE = os.uname().machine

VALKEY = "int ValkeyModule_OnLoad(void) { return 0; }\n"
NOTHING = "int something(void) { return 0; }\n"
UNDEFINED = "int RedisModule_OnLoad(void); int other(void) { return RedisModule_OnLoad(); }\n"
HIDDEN = '__attribute__((visibility("hidden"))) int RedisModule_OnLoad(void) { return 0; }\n'
PROGRAM = "int RedisModule_OnLoad(void) { return 0; } int main(void) { return 0; }\n"
USES_LIBC = '#include <stdio.h>\nint RedisModule_OnLoad(void) { return puts("x"); }\n'
ALLOCATES = """
#include <stdlib.h>
#include <sys/mman.h>
void *take(int n) { return n ? malloc(n) : n > 9 ? calloc(n, n) : mmap(0, n, PROT_READ, MAP_PRIVATE, 0, 0); }
"""


def headers(content: bytearray) -> range:
    """Return where the program headers are."""
    at, size, count = (*struct.unpack_from("<Q", content, 0x20), *struct.unpack_from("<HH", content, 0x36))
    return range(at, at + size * count, size)


def set_tag(path: Path, tag: int, new: int, value: int | None) -> None:
    """Change an entry of the dynamic table."""
    content = bytearray(path.read_bytes())
    for header in headers(content):
        kind, _flags, offset, _address, _physical, size = struct.unpack_from("<IIQQQQ", content, header)
        for at in range(offset, offset + size, 16) if kind == 2 else ():  # PT_DYNAMIC
            found, old = struct.unpack_from("<qQ", content, at)
            if found == tag and tag:
                struct.pack_into("<qQ", content, at, new, old if value is None else value)
    path.write_bytes(content)


def elf32(machine: int) -> bytes:
    """Return a small shared object of 32 bits."""
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    head = ident + struct.pack("<HHIIIIIHHHHHH", 3, machine, 1, 0, 52, 0, 0, 52, 32, 1, 40, 0, 0)
    return head + struct.pack("<IIIIIIII", 1, 0, 0, 0, 84, 84, 5, 4096)


class TestSound:
    """What any server of this machine could load."""

    def test_it_has_no_fault_and_tells_what_it_needs(self, build_so: BuildSo) -> None:
        inspection = _elf.inspect(build_so(source=USES_LIBC))
        assert inspection.faults == ()
        assert inspection.architecture == HERE
        assert inspection.needed == ("libc.so.6",)
        assert inspection.glibc.startswith("2.")
        assert _elf.misfits(inspection, HERE, "glibc 99.0") == []

    def test_what_goes_into_a_manifest(self, build_so: BuildSo) -> None:
        inspection = _elf.inspect(build_so(flags=("-shared", "-fPIC", "-nostdlib")))
        assert inspection.as_dict() == {
            "architecture": HERE,
            "needed": [],
            "glibc": "",
            "executable_stack": False,
            "text_relocations": False,
            "nodelete": False,
            "allocators": [],
        }

    def test_a_stripped_one_is_sound(self, build_so: BuildSo) -> None:
        assert _elf.inspect(build_so(flags=("-shared", "-fPIC", "-s"))).faults == ()

    def test_one_without_sections_is_read_as_the_dynamic_linker_reads_it(self, build_so: BuildSo) -> None:
        path = Path(build_so(source=USES_LIBC + ALLOCATES))
        whole = _elf.inspect(str(path))
        content = bytearray(path.read_bytes())
        (sections_at,) = struct.unpack_from("<Q", content, 0x28)
        struct.pack_into("<Q", content, 0x28, 0)
        struct.pack_into("<HHH", content, 0x3A, 0, 0, 0)
        path.write_bytes(content[:sections_at])
        assert _elf.inspect(str(path)) == whole
        assert (whole.faults, whole.needed, whole.allocators) == ((), ("libc.so.6",), ("calloc", "malloc", "mmap"))

    @pytest.mark.parametrize("style", ["sysv", "gnu"])
    def test_symbols_are_found_by_either_hash_table(self, build_so: BuildSo, style: str) -> None:
        inspection = _elf.inspect(build_so(source=USES_LIBC, flags=("-shared", "-fPIC", f"-Wl,--hash-style={style}")))
        assert (inspection.faults, inspection.needed) == ((), ("libc.so.6",))


class TestProperties:
    """What a server may stumble over, and an operator has to know."""

    def test_an_ordinary_one_has_none(self, build_so: BuildSo) -> None:
        inspection = _elf.inspect(build_so(source=USES_LIBC + "#include <stdlib.h>\nvoid f(void *p) { free(p); }\n"))
        assert not inspection.executable_stack
        assert not inspection.text_relocations
        assert not inspection.nodelete
        assert (inspection.allocators, inspection.starters) == ((), ())
        assert inspection.bits == 64

    def test_what_starts_a_process(self, build_so: BuildSo) -> None:
        source = '#include <stdlib.h>\n#include <unistd.h>\nvoid f(void) { if (fork() == 0) exit(system("true")); }\n'
        assert _elf.inspect(build_so(source=USES_LIBC + source)).starters == ("fork", "system")

    def test_an_executable_stack(self, build_so: BuildSo) -> None:
        assert _elf.inspect(build_so(flags=("-shared", "-fPIC", "-Wl,-z,execstack"))).executable_stack

    def test_one_that_does_not_say_whether_it_needs_one_gets_one(self, build_so: BuildSo) -> None:
        path = Path(build_so())
        content = bytearray(path.read_bytes())
        for header in headers(content):
            if struct.unpack_from("<I", content, header) == (0x6474E551,):  # PT_GNU_STACK becomes PT_NULL
                struct.pack_into("<I", content, header, 0)
        path.write_bytes(content)
        assert _elf.inspect(str(path)).executable_stack

    @pytest.mark.parametrize("without", [0, 22, 30], ids=["both", "DT_FLAGS", "DT_TEXTREL"])
    def test_text_relocations(self, build_so: BuildSo, without: int) -> None:
        source = '__asm__(".text\\n.global here\\nhere: .quad here");\n'
        flags = ("-shared", "-fPIC", "-Wl,-z,notext", "-Wl,--enable-new-dtags")
        path = Path(build_so(source=f"int RedisModule_OnLoad(void) {{ return 0; }}\n{source}", flags=flags))
        set_tag(path, without, 21, None)  # DT_DEBUG, which nobody reads in a shared object
        assert _elf.inspect(str(path)).text_relocations

    def test_one_that_stays_in_the_process(self, build_so: BuildSo) -> None:
        assert _elf.inspect(build_so(flags=("-shared", "-fPIC", "-Wl,-z,nodelete"))).nodelete

    def test_functions_that_give_memory_by_redis(self, build_so: BuildSo) -> None:
        inspection = _elf.inspect(build_so(source=USES_LIBC + ALLOCATES))
        assert inspection.allocators == ("calloc", "malloc", "mmap")

    def test_an_allocator_of_its_own_is_not_imported(self, build_so: BuildSo) -> None:
        source = "#include <stddef.h>\nvoid *malloc(size_t n) { (void)n; return 0; }\n"
        assert _elf.inspect(build_so(source=USES_LIBC + source)).allocators == ()


class TestFaults:
    """What no server can load."""

    def test_no_onload(self, build_so: BuildSo) -> None:
        assert _elf.inspect(build_so(source=NOTHING)).faults == ("it does not export RedisModule_OnLoad",)

    @pytest.mark.parametrize("source", [UNDEFINED, HIDDEN])
    def test_an_onload_that_is_only_named_or_hidden_is_none(self, build_so: BuildSo, source: str) -> None:
        assert _elf.inspect(build_so(source=source)).faults == ("it does not export RedisModule_OnLoad",)

    def test_one_built_with_valkeymodule_h(self, build_so: BuildSo) -> None:
        (fault,) = _elf.inspect(build_so(source=VALKEY)).faults
        assert (
            fault == "it does not export RedisModule_OnLoad; it exports ValkeyModule_OnLoad,"
            " so it was built with valkeymodule.h"
        )

    def test_a_program(self, build_so: BuildSo) -> None:
        faults = _elf.inspect(build_so(source=PROGRAM, flags=("-no-pie", "-rdynamic"))).faults
        assert faults == ("it is no shared object (ELF type ET_EXEC; link it with -shared)",)

    def test_an_object_file(self, build_so: BuildSo) -> None:
        faults = _elf.inspect(build_so(name="x.o", flags=("-c", "-fPIC"))).faults
        assert "it is no shared object (ELF type ET_REL; link it with -shared)" in faults

    def test_an_empty_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"")
        assert _elf.inspect(str(tmp_path / "x")).faults == ("the file is empty",)

    @pytest.mark.parametrize("content", [b"#!/bin/sh\n", b"x", b"\x7fEL", b"\x7fELG....", b"<html>", b"\0" * 4096])
    def test_something_else(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "x").write_bytes(content)
        assert _elf.inspect(str(tmp_path / "x")).faults == ("it is no shared object (no ELF header)",)

    def test_a_file_that_is_not_there_is_an_oserror(self) -> None:
        with pytest.raises(OSError, match="nowhere"):
            _elf.inspect("/nowhere/x.so")

    def test_cut_off_at_any_length(self, build_so: BuildSo, tmp_path: Path) -> None:
        whole = Path(build_so()).read_bytes()
        cut = tmp_path / "cut.so"
        for length in sorted({*range(200), *range(200, len(whole), 97), len(whole) - 1}):
            cut.write_bytes(whole[:length])
            inspection = _elf.inspect(str(cut))
            assert len(inspection.faults) == 1, length
            assert inspection.architecture == "", length

    @pytest.mark.parametrize("missing", [1, 64, 1000])
    def test_a_transfer_that_broke_off_is_called_so(self, build_so: BuildSo, missing: int) -> None:
        path = Path(build_so())
        path.write_bytes(path.read_bytes()[:-missing])
        (fault,) = _elf.inspect(str(path)).faults
        assert "cut off" in fault

    def test_damaged_headers_never_raise(self, build_so: BuildSo) -> None:
        whole = Path(build_so()).read_bytes()
        # The ELF header, the program headers, and the section headers at the end.
        (sections_at,) = struct.unpack_from("<Q", whole, 0x28)
        places = st.integers(4, 64 + 56 * 12) | st.integers(sections_at, len(whole) - 1)

        @settings(max_examples=400)
        @given(st.lists(st.tuples(places, st.integers(0, 255)), min_size=1, max_size=4))
        def check(changes: list[Any]) -> None:
            damaged = bytearray(whole)
            for at, byte in changes:
                damaged[at] = byte
            with tempfile.NamedTemporaryFile() as stream:
                stream.write(damaged)
                stream.flush()
                assert isinstance(_elf.inspect(stream.name), Inspection)

        check()

    @pytest.mark.parametrize(
        ("at", "form", "value"),
        [
            (0x28, "<Q", 2**64 - 1),  # e_shoff
            (0x28, "<Q", 2**63 - 1),
            (0x20, "<Q", 2**64 - 1),  # e_phoff
            (0x3A, "<H", 0),  # e_shentsize
            (0x36, "<H", 0),  # e_phentsize
            (0x38, "<H", 0xFFFF),  # e_phnum
            (0x3C, "<H", 0xFFFF),  # e_shnum
            (0x04, "<B", 9),  # class
            (0x05, "<B", 9),  # byte order
            (0x04, "<B", 1),  # 32 bits
            (0x05, "<B", 2),  # big-endian
        ],
    )
    def test_each_field_of_the_header_out_of_range(self, build_so: BuildSo, at: int, form: str, value: int) -> None:
        path = Path(build_so())
        damaged = bytearray(path.read_bytes())
        struct.pack_into(form, damaged, at, value)
        path.write_bytes(damaged)
        assert _elf.inspect(str(path)).faults != ()

    def test_a_count_of_versions_that_can_not_be(self, build_so: BuildSo) -> None:
        path = Path(build_so(source=USES_LIBC))
        sound = _elf.inspect(str(path))
        set_tag(path, 0x6FFFFFFF, 0x6FFFFFFF, 2**63)  # DT_VERNEEDNUM
        assert _elf.inspect(str(path)) == sound

    def test_one_without_anything_to_load(self, build_so: BuildSo) -> None:
        path = Path(build_so())
        damaged = bytearray(path.read_bytes())
        for header in headers(damaged):
            if struct.unpack_from("<I", damaged, header) == (1,):  # PT_LOAD becomes PT_NULL
                struct.pack_into("<I", damaged, header, 0)
        path.write_bytes(damaged)
        assert _elf.inspect(str(path)).faults != ()

    def test_every_section_with_impossible_sizes_is_a_fault_or_read(self, build_so: BuildSo) -> None:
        path = Path(build_so(source=USES_LIBC))
        whole = path.read_bytes()
        (sections_at,) = struct.unpack_from("<Q", whole, 0x28)
        (count,) = struct.unpack_from("<H", whole, 0x3C)
        for section in range(count):
            # sh_link, sh_entsize, sh_offset, sh_size
            for offset, form in ((0x28, "<I"), (0x38, "<Q"), (0x18, "<Q"), (0x20, "<Q")):
                for value in (0, 2**31, 2**32 - 1, 2**63, 2**64 - 1):
                    damaged = bytearray(whole)
                    struct.pack_into(
                        form,
                        damaged,
                        sections_at + 64 * section + offset,
                        value & (2 ** (8 * struct.calcsize(form)) - 1),
                    )
                    path.write_bytes(damaged)
                    assert isinstance(_elf.inspect(str(path)), Inspection)


class TestMisfits:
    """What this host, of all, can't load."""

    def test_another_machine(self, build_so: BuildSo) -> None:
        path = Path(build_so())
        patched = bytearray(path.read_bytes())
        other, name = (183, "aarch64") if HERE != "aarch64" else (62, "x86_64")
        struct.pack_into("<H", patched, 0x12, other)
        path.write_bytes(patched)
        inspection = _elf.inspect(str(path))
        assert inspection.faults == ()
        assert _elf.misfits(inspection, HERE, "glibc 99.0") == [f"it is built for {name}, this host is {HERE}"]

    @pytest.mark.parametrize("machine", [3, 40, 62], ids=["EM_386", "EM_ARM", "EM_X86_64 with x32"])
    @pytest.mark.parametrize("host", ["x86_64", "aarch64"])
    def test_a_32_bit_object_on_a_64_bit_host(self, tmp_path: Path, machine: int, host: str) -> None:
        (tmp_path / "x.so").write_bytes(elf32(machine))
        assert _elf.misfits(_elf.inspect(str(tmp_path / "x.so")), host, "glibc 99.0") == [
            "it does not export RedisModule_OnLoad",
            "it is a 32-bit object, this host's redis-server is 64-bit",
        ]

    def test_a_32_bit_object_on_a_32_bit_host(self, tmp_path: Path) -> None:
        (tmp_path / "x.so").write_bytes(elf32(40))
        inspection = _elf.inspect(str(tmp_path / "x.so"))
        assert _elf.misfits(inspection, "armv7l", "") == ["it does not export RedisModule_OnLoad"]
        assert "it is built for armv7l, this host is i686" in _elf.misfits(inspection, "i686", "")

    @pytest.mark.parametrize(
        ("needs", "libc", "fits"),
        [
            ("2.34", "glibc 2.31", False),
            ("2.34", "glibc 2.34", True),
            ("2.34", "glibc 2.36", True),
            ("2.9", "glibc 2.31", True),
            ("2.31", "glibc 2.9", False),
            ("2.2.5", "glibc 2.31", True),
            ("2.34", "glibc 3.0", True),
            ("", "glibc 2.31", True),
            ("2.34", "unknown", True),
            ("2.34", "", True),
        ],
    )
    def test_a_newer_glibc(self, needs: str, libc: str, fits: bool) -> None:
        found = _elf.misfits(Inspection("x86_64", (), needs, ()), "x86_64", libc)
        assert found == ([] if fits else [f"it needs glibc {needs} or newer, this host has {libc[6:]}"])

    def test_faults_come_first_and_a_broken_file_has_no_machine(self) -> None:
        assert _elf.misfits(Inspection("", (), "", ("broken",)), "x86_64", "glibc 2.31") == ["broken"]
        assert _elf.misfits(Inspection("aarch64", (), "", ("broken",)), "x86_64", "glibc 2.31") == [
            "broken",
            "it is built for aarch64, this host is x86_64",
        ]

    @pytest.mark.parametrize(
        ("versions", "highest"),
        [
            (["GLIBC_2.2.5", "GLIBC_2.14", "GLIBC_2.4"], "2.14"),
            (["GLIBC_2.9", "GLIBC_2.34"], "2.34"),
            (["GLIBC_2.2", "GLIBC_2.2.5"], "2.2.5"),
            (["GLIBC_PRIVATE", "GLIBCXX_3.4", "OPENSSL_3.0.0", "GLIBC_ABI_DT_RELR"], ""),
            ([], ""),
        ],
    )
    def test_the_highest_glibc_is_found_by_number(self, versions: list[str], highest: str) -> None:
        assert _elf.highest_glibc(versions) == highest
