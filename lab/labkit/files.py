# SPDX-License-Identifier: GPL-3.0-or-later
"""Small file helpers: atomic writes, locks, and what /proc says."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labkit.errors import LabError


def write_atomically(path: Path, text: str, mode: int = 0o644) -> None:
    """Write by rename, so that a crash leaves the old file or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.chmod(mode)
    temporary.replace(path)


@contextmanager
def locked(path: Path, wait: float = 600.0) -> Iterator[None]:
    """Hold a lock file. The holder may remove it (and its folder) before it lets go."""
    deadline = time.monotonic() + wait
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue  # a former holder has just removed the folder
        try:
            _flock(descriptor, path, deadline)
            if _is_still(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _flock(descriptor: int, path: Path, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise LabError(f"another lab command has held {path} for too long; see `fuser {path}`") from None
            time.sleep(0.05)


def _is_still(descriptor: int, path: Path) -> bool:
    """Whether the path still leads to the file that we locked."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def boot_id() -> str:
    """Changes with every boot of this machine."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def parse_start_time(stat: str) -> int:
    """Field 22 of /proc/PID/stat; the name in field 2 may hold spaces and brackets."""
    return int(stat.rpartition(")")[2].split()[19])


def process_start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none (or a zombie)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    if stat.rpartition(")")[2].split()[0] in ("Z", "X"):
        return None
    return parse_start_time(stat)


def parse_mount_points(mountinfo: str, folder: str) -> list[str]:
    """Mount points at or under a folder, in mount order, from the text of /proc/self/mountinfo.

    An overlay whose disk is there counts wherever it is seen: a checkout may be
    renamed while its lab is up.
    """
    points = []
    for line in mountinfo.splitlines():
        fields = line.split()
        point = unescape(fields[4])
        options = unescape(fields[-1]).split(",")
        if (point + "/").startswith(folder + "/") or any(o.startswith(f"upperdir={folder}/") for o in options):
            points.append(point)
    return points


def unescape(field: str) -> str:
    """A path without the octal escapes that the kernel writes for blanks."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), field)


def mounts_under(folder: Path) -> list[str]:
    """Mount points at or under a folder, the latest (and so the deepest) first."""
    return parse_mount_points(Path("/proc/self/mountinfo").read_text(), str(folder))[::-1]


def remove_tree(folder: Path) -> None:
    """Remove a folder, unless something is still mounted in it."""
    held = mounts_under(folder)
    if held:
        raise LabError(f"{held[0]} is still mounted; `umount {held[0]}`, then run this again")
    if folder.exists():
        shutil.rmtree(folder)


def tail(path: Path, lines: int = 15) -> str:
    """A log's last lines, for an error message."""
    try:
        text = path.read_text(errors="replace")
    except FileNotFoundError:
        return "(no log)"
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (empty log)"
