# SPDX-License-Identifier: GPL-3.0-or-later
"""The way into the hosts: options, known hosts, the inventory."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from labkit.config import RUN_DIR
from labkit.files import write_atomically
from labkit.hosts import host_public_key
from labkit.run import run
from labkit.state import LabState


def options(folder: Path) -> list[str]:
    """Ssh options that use the lab's own key and known hosts, and nobody else's."""
    return [
        "-o",
        f"UserKnownHostsFile={folder}/known_hosts",
        "-o",
        "GlobalKnownHostsFile=/dev/null",
        "-o",
        "StrictHostKeyChecking=yes",
        "-o",
        "IdentitiesOnly=yes",
    ]


def command(folder: Path, address: str, *more: str) -> list[str]:
    """An ssh call into a host."""
    settings = [word for option in more for word in ("-o", option)]
    return ["ssh", "-F", "none", *options(folder), *settings, "-i", str(folder / "id_ed25519"), f"root@{address}"]


def control_folder(index: int) -> Path:
    """Where Ansible keeps its connections to this lab's hosts; short, for a socket's path may have 107 characters."""
    return RUN_DIR / f"ssh{index}"


def write_known_hosts(folder: Path, state: LabState) -> None:
    """One line a host."""
    lines = []
    for name, host in state.hosts.items():
        names = ",".join(filter(None, (name, host.address, host.address6)))
        lines.append(f"{names} {host_public_key(folder, name)}\n")
    write_atomically(folder / "known_hosts", "".join(lines))


def inventory(folder: Path, state: LabState) -> str:
    """A plain inventory, in JSON's quoting where YAML could stumble."""
    lines = [
        "---",
        "all:",
        "  vars:",
        "    ansible_user: root",
        f"    ansible_ssh_private_key_file: {json.dumps(str(folder / 'id_ed25519'))}",
        f"    ansible_ssh_common_args: {json.dumps(shlex.join(options(folder)))}",
        "    # Connections that outlive a play end with the lab.",
        f"    ansible_control_path_dir: {json.dumps(str(control_folder(state.index)))}",
        "    ansible_python_interpreter: /usr/bin/python3",
        "  hosts:",
    ]
    for name, host in state.hosts.items():
        lines += [f"    {name}:", f"      ansible_host: {host.address}"]
    lines.append("  children:")
    for suite in dict.fromkeys(host.suite for host in state.hosts.values()):
        lines += [f"    {suite}:", "      hosts:"]
        lines += [f"        {name}:" for name, host in state.hosts.items() if host.suite == suite]
    return "\n".join([*lines, ""])


def end_connections(index: int) -> None:
    """End the ssh masters that Ansible left behind, by their own control sockets."""
    folder = control_folder(index)
    for path in folder.iterdir() if folder.is_dir() else ():
        run(["ssh", "-F", "none", "-o", f"ControlPath={path}", "-O", "exit", "lab"], check=False, limit=5)
        path.unlink(missing_ok=True)
    if folder.is_dir():
        folder.rmdir()
