# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where SELinux is on: the module folder's type, and that of Redis' ports. Not run by us; see docs/not-run.md.

Redis runs as redis_t. Below /var/lib/redis, files are redis_var_lib_t, which it may write and not map as code. Every
domain may read, map and execute lib_t, and redis_t may not write it: what the mode and the read-only mount say too.
"""

from __future__ import annotations

import os
import re
import shutil
from typing import Callable, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

FOLDER_TYPE = "lib_t"
CODE_TYPES = ("lib_t", "textrel_shlib_t")
PORT_TYPE = "redis_port_t"
LABEL = "security.selinux"
TOOLS = "policycoreutils-python-utils"
"""The package of semanage."""


class Port(NamedTuple):
    """One range of TCP ports that has a type."""

    type: str
    first: int
    last: int


class SelinuxError(Exception):
    """SELinux can't be told; the text is for the operator."""


def enabled(root: str = "/sys/fs/selinux") -> bool:
    """Whether SELinux is on, enforcing or not."""
    return os.path.exists(os.path.join(root, "enforce"))


def type_of(context: str) -> str:
    """Return the type in a context as C(system_u:object_r:lib_t:s0); empty where it is none."""
    parts = context.strip().rstrip("\0").split(":")
    return parts[2] if len(parts) >= 3 else ""


def pattern(folder: str) -> str:
    """Return the expression by which semanage names a folder and all in it."""
    return re.sub(r"([.^$*+?{}\[\]()|\\])", r"\\\1", folder.rstrip("/")) + "(/.*)?"


def local_contexts(output: str) -> dict[str, str]:
    """Return expression to type, from what C(semanage fcontext -l -C) prints; equivalences are left out."""
    found = {}
    for line in output.splitlines():
        match = re.match(r"(/.*?)\s{2,}\S.*?\s(\S+:\S+:\S+)\s*$", line)
        if match:
            found[match.group(1)] = type_of(match.group(2))
    return found


def folder_commands(folder: str, by_policy: str, actual: str, local: dict[str, str]) -> list[list[str]]:
    """Return what gives the folder a type that Redis may run code from.

    I(by_policy) is the type that the policy gives a file in it, I(actual) the one that the folder has.
    """
    commands = []
    expression = pattern(folder)
    if by_policy not in CODE_TYPES:
        verb = "-m" if expression in local else "-a"
        commands.append(["semanage", "fcontext", verb, "-t", FOLDER_TYPE, expression])
    if commands or actual not in CODE_TYPES:
        commands.append(["restorecon", "-R", folder])
    return commands


def ports(output: str) -> list[Port]:
    """Return the TCP ports that have a type, from what C(semanage port -l) prints."""
    found = []
    for line in output.splitlines():
        match = re.match(r"(\w+)\s+tcp\s+(\d[\d, -]*)$", line.strip())
        for part in match.group(2).split(",") if match else []:
            first, _dash, last = part.strip().partition("-")
            found.append(Port(match.group(1) if match else "", int(first), int(last or first)))
    return found


def port_commands(wanted: Sequence[int], known: Sequence[Port]) -> list[list[str]]:
    """Return what lets Redis listen on the ports I(wanted)."""
    commands = []
    for port in sorted({port for port in wanted if port}):
        if any(k.type == PORT_TYPE and k.first <= port <= k.last for k in known):
            continue
        # What has this very port already is changed; a range around it is only narrowed.
        verb = "-m" if any(k.first == k.last == port for k in known) else "-a"
        commands.append(["semanage", "port", verb, "-t", PORT_TYPE, "-p", "tcp", str(port)])
    return commands


def _asked(run: _host.Run, command: list[str]) -> str:
    try:
        code, out, err = run(command, environ_update={"LC_ALL": "C"}, handle_exceptions=False)
    except OSError as error:
        code, out, err = 127, "", str(error)
    if code != 0:
        raise SelinuxError(
            f"SELinux is on, and {' '.join(command)} failed: {(err or out).strip()}. Is the package {TOOLS} installed?"
        )
    return out


def of_folder(run: _host.Run, folder: str, forecast: bool = False) -> list[list[str]]:
    """Return the commands that the module folder needs; none where SELinux is off. Raises SelinuxError.

    A forecast, before the tools are installed, has none.
    """
    if not enabled() or (forecast and not shutil.which("semanage")):
        return []
    by_policy = type_of(_asked(run, ["matchpathcon", "-n", os.path.join(folder, "module.so")]))
    try:
        actual = type_of(os.getxattr(folder, LABEL).decode())
    except OSError:
        actual = ""
    needs_entry = by_policy not in CODE_TYPES
    local = local_contexts(_asked(run, ["semanage", "fcontext", "-l", "-C"])) if needs_entry else {}
    return folder_commands(folder, by_policy, actual, local)


def of_ports(run: _host.Run, wanted: Sequence[int], forecast: bool = False) -> list[list[str]]:
    """Return the commands that Redis' ports need; none where SELinux is off. Raises SelinuxError."""
    if not enabled() or not any(wanted) or (forecast and not shutil.which("semanage")):
        return []
    return port_commands(wanted, ports(_asked(run, ["semanage", "port", "-l"])))


def tell(run: _host.Run, commands: Sequence[list[str]]) -> None:
    """Run the commands. Raises SelinuxError."""
    for command in commands:
        _asked(run, command)


def label_as_code(path: str, setxattr: Callable[[str, str, bytes], None] = os.setxattr) -> None:
    """Give a file the type that it is going to have, where SELinux is on. Raises OSError."""
    if enabled():
        setxattr(path, LABEL, f"system_u:object_r:{FOLDER_TYPE}:s0\0".encode())
