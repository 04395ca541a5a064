# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay a file where a running server may have the old one mapped, and keep what was there before.

A file is never written in place: a server that has it mapped would die at its next call. The new one is written
beside it, brought to the disk, and renamed over it, so at any moment there is one whole file under the name.

A release carries the time at which a rollout placed it, as its file's own time: going back to it, keeping it and
putting it back leave that as it is. So "the one before the newest" is the same before and after going back to it.
"""

from __future__ import annotations

import contextlib
import glob
import grp
import os
import pwd
import re
import shutil
import tempfile
import time
from typing import Any, BinaryIO, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

RELEASES = ".releases"
"""The folder in the module folder that keeps earlier files: .releases/NAME/DIGEST.so"""

STAGED = ".trial"
"""The folder in the module folder where files lie for the time of a trial."""

INNER = (RELEASES, STAGED)
"""What lies in the module folder beside the modules, made by root alone."""

FOLDER_MODE = 0o755
"""The service's user has to get through each folder to what it may read."""

SHORT = 16
"""Digits of a digest in a file's name."""

PREVIOUS = "previous"
"""Stands for the release before the newest one that a rollout placed on this host."""


class ReleaseError(ValueError):
    """A release that can't be had; the text is for the operator, a line for each module."""


class Release(NamedTuple):
    """A whole file that a module has or had on this host.

    I(rolled_out) is when a rollout placed it, in nanoseconds since 1970; I(size) is in bytes; I(current) tells the file
    that is in its place now.
    """

    sha256: str
    path: str
    rolled_out: int
    size: int
    current: bool

    def as_dict(self) -> dict[str, Any]:
        """For a module's result, with the time as ISO 8601 in UTC."""
        rolled_out = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(self.rolled_out // 10**9))
        return {**self._asdict(), "rolled_out": rolled_out}


def owner_ids(owner: str, group: str) -> tuple[int, int]:
    """Return the ids of a user and a group. Raises KeyError with a name that the host does not know."""
    return pwd.getpwnam(owner).pw_uid, grp.getgrnam(group).gr_gid


def replace(source: str, target: str, uid: int, gid: int, mode: int, keep_time: bool = False) -> None:
    """Put a copy of the file at I(source) at I(target), as write() does; with the source's own time where asked."""
    with open(source, "rb") as reader:
        write(reader, target, uid, gid, mode, os.fstat(reader.fileno()).st_mtime_ns if keep_time else None)


def write(reader: BinaryIO, target: str, uid: int, gid: int, mode: int, mtime_ns: int | None = None) -> None:
    """Put what I(reader) gives at I(target) by rename, with its owner and mode set before it gets the name.

    Raises OSError; what was at I(target) is then untouched.
    """
    folder, name = os.path.split(target)
    # Nobody else may read it before it has its own mode: redis.conf holds passwords. Its name is its own, as a run that
    # lost its controller may still be at work beside us.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", suffix=".new", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as writer:
            shutil.copyfileobj(reader, writer)
            os.fchown(writer.fileno(), uid, gid)
            os.fchmod(writer.fileno(), mode)
            writer.flush()
            if mtime_ns is not None:
                os.utime(writer.fileno(), ns=(mtime_ns, mtime_ns))
            os.fsync(writer.fileno())
        os.rename(temporary, target)
        sync_folder(folder)
    finally:
        remove(temporary)


def temporaries(target: str) -> list[str]:
    """Return what a power cut left of files that were being written for I(target), its backup or its releases."""
    folder = glob.escape(os.path.dirname(target))
    name = glob.escape("." + os.path.basename(target))
    return glob.glob(f"{folder}/{name}.*.new") + glob.glob(f"{folder}/{RELEASES}/*/.*.new")


def remove(path: str) -> None:
    """Remove a file or link that may be there. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def make_folders(path: str) -> None:
    """Make a folder and those above it, readable by all whatever the umask: the service's user has to get there."""
    for folder in reversed(missing_folders(path)):
        # Another process may make it at the same moment: several hosts' builds share the cache of a builder.
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder)
        os.chmod(folder, FOLDER_MODE)
        sync_folder(os.path.dirname(folder))


def missing_folders(path: str) -> list[str]:
    """Return the folders of a path that are not there, the innermost first."""
    missing = []
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    return missing


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


def is_kept(folder: str, path: str) -> bool:
    """Whether a file is a kept release."""
    return os.path.normpath(path).startswith(os.path.join(os.path.normpath(folder), RELEASES) + os.sep)


def keep(folder: str, name: str, current: str) -> str:
    """Keep the file at I(current) as a release, with its time, and return where. Raises OSError."""
    digest = _host.sha256_of(current)
    kept = release_path(folder, name, digest)
    make_folders(os.path.dirname(kept))
    if os.path.exists(kept) and _host.sha256_of(kept) == digest:
        mtime_ns = os.stat(current).st_mtime_ns
        os.utime(kept, ns=(mtime_ns, mtime_ns))
    else:
        # Root's own, and with an x bit, without which no trial loads it.
        replace(current, kept, 0, 0, 0o555, keep_time=True)
    return kept


def kept_paths(folder: str, name: str) -> list[str]:
    """Return the kept releases of a module, the one that was rolled out last first."""
    kept_in = os.path.join(folder, RELEASES, name)
    if not os.path.isdir(kept_in):
        return []
    kept = [os.path.join(kept_in, entry) for entry in os.listdir(kept_in) if entry.endswith(".so")]
    return sorted(kept, key=lambda path: os.stat(path).st_mtime_ns, reverse=True)


def surplus(folder: str, name: str, count: int, current: str = "") -> list[str]:
    """Return the releases of a module beyond the newest I(count), oldest first.

    The one with the digest I(current) is no earlier file: it is neither counted nor surplus.
    """
    own = release_path(folder, name, current) if current else ""
    return [path for path in kept_paths(folder, name) if path != own][count:][::-1]


def found(folder: str, name: str, path: str) -> list[Release]:
    """Return the releases of a module, the one that was rolled out last first; its file at I(path) is one of them.

    A kept file that is not what its name says is damaged, and left out. Raises OSError.
    """
    releases = {}
    for kept in kept_paths(folder, name):
        digest = _host.sha256_of(kept)
        if kept == release_path(folder, name, digest):
            status = os.stat(kept)
            releases[digest] = Release(digest, kept, status.st_mtime_ns, status.st_size, current=False)
    if os.path.isfile(path):
        status, digest = os.stat(path), _host.sha256_of(path)
        releases[digest] = Release(digest, path, status.st_mtime_ns, status.st_size, current=True)
    return sorted(releases.values(), key=lambda release: release.rolled_out, reverse=True)


def wanted_faults(modules: Sequence[Mapping[str, Any]], wanted: Any) -> list[str]:
    """Return what is wrong with the releases that are asked for, by module; each must be declared, and present."""
    if not isinstance(wanted, Mapping):
        return [f"the releases must be a dictionary of modules, not {wanted!r}"]
    states = {module["name"]: module["state"] for module in modules}
    faults = []
    for name, release in wanted.items():
        if states.get(name) != "present":
            found_state = "is declared absent" if name in states else "is not declared"
            faults.append(f"module {name}: it {found_state}; only what redis_modules declares as present can go back")
        elif not isinstance(release, str) or not (release == PREVIOUS or re.fullmatch(r"[0-9a-f]{6,64}", release)):
            faults.append(
                f"module {name}: the release {release!r} must be {PREVIOUS}, or 6 or more of the first digits of its "
                "sha256, in quotes"
            )
    return faults


def chosen(name: str, wanted: str, releases: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the release that is asked for, of those of Release.as_dict(), newest first. Raises ReleaseError."""
    if wanted == PREVIOUS:
        fitting = list(releases[1:2])
        why = "there is no release before the newest one"
    else:
        fitting = [release for release in releases if release["sha256"].startswith(wanted)]
        why = f"there {'are several releases' if fitting else 'is no release'} {wanted}"
    if len(fitting) == 1:
        return fitting[0]
    have = [
        f"{release['sha256'][:SHORT]} of {release['rolled_out']}{' (in place)' if release['current'] else ''}"
        for release in releases
    ]
    raise ReleaseError(f"module {name}: {why}; this host has {', '.join(have) or 'none'}")


def artifacts(
    modules: Sequence[Mapping[str, Any]], wanted: Mapping[str, str], releases: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Return path and digest of each present module's file, by name: the release asked for, else what is in place.

    I(releases) are those of this host, by name, as redis_modules_info returns them. Raises ReleaseError.
    """
    files: dict[str, dict[str, str]] = {}
    faults = []
    for name in (module["name"] for module in modules if module["state"] == "present"):
        own = releases.get(name, [])
        in_place = [release for release in own if release["current"]]
        try:
            if name not in wanted and not in_place:
                raise ReleaseError(f"module {name}: this host does not have it yet; run the playbook rollout first")
            release = chosen(name, wanted[name], own) if name in wanted else in_place[0]
            files[name] = {"path": release["path"], "sha256": release["sha256"]}
        except ReleaseError as error:
            faults.append(str(error))
    if faults:
        raise ReleaseError("\n".join(faults))
    return files
