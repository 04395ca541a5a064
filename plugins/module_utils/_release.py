# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay a file where a running server may have the old one mapped, and keep what was there before.

A file is never written in place: a server that has it mapped would die at its next call. The new one is written
beside it, brought to the disk, and renamed over it, so at any moment there is one whole file under the name.
"""

from __future__ import annotations

import grp
import os
import pwd
import shutil

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

RELEASES = ".releases"
"""The folder in the module folder that keeps earlier files: .releases/NAME/DIGEST.so"""

FOLDER_MODE = 0o755
"""The service's user has to get through each folder to what it may read."""

SHORT = 16
"""Digits of a digest in a file's name."""


def owner_ids(owner: str, group: str) -> tuple[int, int]:
    """Return the ids of a user and a group. Raises KeyError with a name that the host does not know."""
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid


def replace(source: str, target: str, uid: int, gid: int, mode: int) -> None:
    """Put a copy of I(source) at I(target) by rename, with its owner and mode set before it gets the name.

    Raises OSError; what was at I(target) is then untouched.
    """
    folder = os.path.dirname(target)
    temporary = os.path.join(folder, f".{os.path.basename(target)}.new")
    try:
        # Nobody else may read it before it has its own mode: redis.conf holds passwords.
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(source, "rb") as reader, os.fdopen(descriptor, "wb") as writer:
            shutil.copyfileobj(reader, writer)
            os.fchown(writer.fileno(), uid, gid)
            os.fchmod(writer.fileno(), mode)
            writer.flush()
            os.fsync(writer.fileno())
        os.rename(temporary, target)
        sync_folder(folder)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)


def make_folders(path: str) -> None:
    """Make a folder and those above it, readable by all whatever the umask: the service's user has to get there."""
    missing = []
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for folder in reversed(missing):
        os.mkdir(folder)
        os.chmod(folder, FOLDER_MODE)


def sync_folder(folder: str) -> None:
    """Bring a rename in I(folder) to the disk, so that it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def release_path(folder: str, name: str, sha256: str) -> str:
    """Return where the release of module I(name) with this digest is kept."""
    return os.path.join(folder, RELEASES, name, sha256[:SHORT] + ".so")


def keep(folder: str, name: str, current: str) -> str:
    """Keep the file at I(current) as a release and return where; it counts as the newest from now on.

    Raises OSError.
    """
    kept = release_path(folder, name, _host.sha256_of(current))
    make_folders(os.path.dirname(kept))
    if not os.path.exists(kept):
        replace(current, kept, 0, 0, 0o444)
    os.utime(kept)
    return kept


def surplus(folder: str, name: str, count: int) -> list[str]:
    """Return the releases of a module beyond the newest I(count), oldest first."""
    kept_in = os.path.join(folder, RELEASES, name)
    if not os.path.isdir(kept_in):
        return []
    kept = [os.path.join(kept_in, entry) for entry in os.listdir(kept_in) if entry.endswith(".so")]
    kept.sort(key=lambda path: os.stat(path).st_mtime_ns)
    return kept[: max(0, len(kept) - count)]
