# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask this host's dynamic linker what a module lacks, without running anything of it.

As C(ldd -r) does: the linker maps, resolves and tells, but starts nothing, neither constructors nor the resolvers of
indirect functions. Other than there, the program is redis-server and the module comes with it, so that what the server
exports counts as there.
"""

from __future__ import annotations

import os
import pwd
import re
import signal

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _elf, _host

NO_LIBRARY = re.compile(r"^\s+(\S+) => not found$", re.MULTILINE)
NO_VERSION = re.compile(r"^.*?: (\S+): version `([^']+)' not found \(required by (.+)\)$", re.MULTILINE)
NO_SYMBOL = re.compile(r"^undefined symbol: ([^\s,]+)(?:, version (\S+))?\s+\((.+)\)$", re.MULTILINE)
NOT_LOADED = re.compile(
    r"^ERROR: ld\.so: object '.*' from LD_PRELOAD cannot be preloaded \((.+)\): ignored\.$", re.MULTILINE
)
NOT_STARTED = re.compile(r"error while loading shared libraries: (.+)$", re.MULTILINE)

NOEXEC = "failed to map segment from shared object"
"""Said of a mount without exec. The service has its own view of the mounts, so only the trial can tell."""

SHOWN = 8
"""Undefined symbols that are told one by one."""


def faults(run: _host.Run, binary: str, artifact: str, user: str) -> list[str]:
    """Return, as sentences, what the redis-server at I(binary) could not find when it loads I(artifact).

    The linker runs as I(user), the service's, who has to be able to read the artifact: the trial needs that too.
    Nothing is said where I(binary) is no dynamically linked ELF program, such as a wrapper in shell. Raises OSError,
    and KeyError where there is no such user.
    """
    linker = interpreter(binary)
    if not linker:
        return []
    account = pwd.getpwnam(user)
    who = ["--reuid", str(account.pw_uid), "--regid", str(account.pw_gid), "--clear-groups", "--no-new-privs"]
    # By env: these variables would already work on setpriv, which still is root.
    told = ["LD_TRACE_LOADED_OBJECTS=1", "LD_WARN=1", "LD_BIND_NOW=1", f"LD_PRELOAD={artifact}"]
    code, out, err = run(["setpriv", *who, "env", "-i", "LC_ALL=C", *told, linker, binary])
    return parse(code, out + "\n" + err, artifact, user)


def interpreter(binary: str) -> str:
    """Return the dynamic linker that a program asks for; empty where it asks for none. Raises OSError."""
    with open(binary, "rb") as stream:
        try:
            image = _elf.Image(stream)
        except _elf.DAMAGES:
            return ""
    paths = [image.content[s.offset : s.offset + s.file_size] for s in image.segments if s.type == "PT_INTERP"]
    return os.fsdecode(paths[0].rstrip(b"\0")) if paths else ""


def parse(code: int, said: str, artifact: str, user: str) -> list[str]:
    """Return what the dynamic linker found, as sentences, from its return code and its output in the C locale."""
    libraries = list(dict.fromkeys(NO_LIBRARY.findall(said)))
    versions = list(dict.fromkeys(NO_VERSION.findall(said)))
    # A symbol of a library or version that is not there is not worth a sentence of its own.
    known = {version for _library, version, _object in versions}
    symbols = [
        (name, user_of)
        for name, version, user_of in dict.fromkeys(NO_SYMBOL.findall(said))
        if version not in known and not libraries
    ]
    found = [f"it needs the library {library}, which this host does not have" for library in libraries]
    found += [
        f"{_who(user_of, artifact)} needs {version} of {os.path.basename(library)}, which this host's does not have"
        for library, version, user_of in versions
    ]
    found += [
        f"{_who(user_of, artifact)} uses the symbol {name}, which neither redis-server nor any of its libraries has"
        for name, user_of in symbols[:SHOWN]
    ]
    if len(symbols) > SHOWN:
        found.append(f"and {len(symbols) - SHOWN} symbols more")
    refusals = [*NOT_LOADED.findall(said), *NOT_STARTED.findall(said)]
    found += [
        f"the dynamic linker can't load it as the user {user}: {reason}" for reason in refusals if NOEXEC not in reason
    ]
    if code < 0:
        found.append(f"the dynamic linker died of it ({signal.Signals(-code).name}); the file is damaged")
    elif code > 0 and not refusals:
        found.append(f"the dynamic linker could not be asked as the user {user}: {said.strip() or code}")
    return found


def _who(path: str, artifact: str) -> str:
    return "it" if path == artifact else f"its library {path}"
