# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a shared object says of itself, without running it (by pyelftools)."""

from __future__ import annotations

import os
import re
import traceback
from typing import Any, NamedTuple

ELFTOOLS_IMPORT_ERROR: str | None
try:
    from elftools.common.exceptions import ELFError
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection
    from elftools.elf.sections import SymbolTableSection
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
"""ELF's names of machines by those of uname -m."""

DAMAGES: tuple[type[Exception], ...] = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    OSError,
    TypeError,
    ValueError,
)
"""What reading a damaged file can raise: pyelftools checks little, and seeks to wherever the file says."""
if not ELFTOOLS_IMPORT_ERROR:
    DAMAGES += (ELFError,)

ONLOAD = "RedisModule_OnLoad"


class Inspection(NamedTuple):
    """What an artifact depends on, and what is wrong with it anywhere.

    I(faults) are sentences; with any of them no server can load the file, whichever host it is.
    """

    architecture: str
    needed: tuple[str, ...]
    glibc: str
    faults: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The part that goes into a manifest."""
        return {"architecture": self.architecture, "needed": list(self.needed), "glibc": self.glibc}


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
            return _inspect_elf(ELFFile(stream), size)
        except DAMAGES as error:
            return _broken(f"its ELF structure is damaged or cut off ({str(error) or type(error).__name__})")


def _inspect_elf(elf: Any, size: int) -> Inspection:
    faults: list[str] = []
    architecture = MACHINES.get(elf["e_machine"], str(elf["e_machine"]))
    end = max(
        [elf["e_shoff"] + elf["e_shnum"] * elf["e_shentsize"]]
        + [segment["p_offset"] + segment["p_filesz"] for segment in elf.iter_segments()]
    )
    if end > size:
        return _broken(f"it is cut off: {size} of {end} bytes are there")
    if elf["e_type"] == "ET_DYN" and not any(segment["p_type"] == "PT_LOAD" for segment in elf.iter_segments()):
        return _broken("its ELF structure is damaged (nothing in it is to be loaded)")
    if elf["e_type"] != "ET_DYN":
        faults.append(f"it is no shared object (ELF type {elf['e_type']}; link it with -shared)")
    needed: list[str] = []
    versions: list[str] = []
    exported = set()
    for section in elf.iter_sections():
        if isinstance(section, DynamicSection):
            needed += [tag.needed for tag in section.iter_tags() if tag.entry.d_tag == "DT_NEEDED"]
        elif isinstance(section, GNUVerNeedSection):
            versions += [aux.name for _need, auxiliaries in section.iter_versions() for aux in auxiliaries]
        elif isinstance(section, SymbolTableSection) and section.name == ".dynsym":
            exported = {s.name for s in section.iter_symbols() if s["st_shndx"] != "SHN_UNDEF"}
    if ONLOAD not in exported:
        other = "ValkeyModule_OnLoad"
        hint = f"; it exports {other}, so it was built with valkeymodule.h" if other in exported else ""
        faults.append(f"it does not export {ONLOAD}{hint}")
    return Inspection(architecture, tuple(needed), highest_glibc(versions), tuple(faults))


def highest_glibc(versions: list[str]) -> str:
    """Return the highest of symbol versions such as C(GLIBC_2.14), as C("2.14"); empty where there is none."""
    found = [v[len("GLIBC_") :] for v in versions if re.fullmatch(r"GLIBC_\d+(\.\d+)*", v)]
    return max(found, key=lambda v: tuple(int(part) for part in v.split(".")), default="")


def misfits(inspection: Inspection, architecture: str, libc: str) -> list[str]:
    """Return why a host of I(architecture) and I(libc) (C("glibc 2.31")) can't load the artifact."""
    found = list(inspection.faults)
    if inspection.architecture and inspection.architecture != architecture:
        found.append(f"it is built for {inspection.architecture}, this host is {architecture}")
    host = re.fullmatch(r"glibc (\d+(?:\.\d+)*)", libc)
    if inspection.glibc and host:
        wanted = tuple(int(part) for part in inspection.glibc.split("."))
        have = tuple(int(part) for part in host.group(1).split("."))
        if wanted > have:
            found.append(f"it needs glibc {inspection.glibc} or newer, this host has {host.group(1)}")
    return found
