# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remember the files that a rollout is going to change, so that they can be put back.

A snapshot is open from before the first change until the new state is confirmed. One that is still open when the next
run begins is kept: it is the last state that is known to have been whole.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import Any, NamedTuple

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _release

INDEX = "index.json"


class Kept(NamedTuple):
    """One file as it was: where its copy is, empty where there was none, and its owner, group and mode."""

    path: str
    copy: str
    owner: str
    group: str
    mode: str


class Snapshot(NamedTuple):
    """What a host was before a rollout.

    I(pid) is the server's process, 0 where none ran; I(modules) maps the names of its modules to their versions.
    """

    files: list[Kept]
    pid: int
    modules: dict[str, int]

    def as_dict(self) -> dict[str, Any]:
        """For the index."""
        return {"files": [list(kept) for kept in self.files], "pid": self.pid, "modules": self.modules}


def load(folder: str) -> Snapshot | None:
    """Return the open snapshot in I(folder); None where there is none."""
    try:
        with open(os.path.join(folder, INDEX), encoding="utf-8") as stream:
            index = json.load(stream)
    except FileNotFoundError:
        return None
    return Snapshot([Kept(*kept) for kept in index["files"]], index["pid"], index["modules"])


def take(folder: str, paths: list[str], pid: int, modules: dict[str, int]) -> Snapshot:
    """Copy the files at I(paths) and open a snapshot; the index comes last, as it says that all is whole.

    Raises OSError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    _release.make_folders(os.path.dirname(folder))
    os.mkdir(folder, 0o700)
    files = []
    for number, path in enumerate(paths):
        found = _host.file_state(path)
        if found is None:
            files.append(Kept(path, "", "", "", ""))
            continue
        copy = os.path.join(folder, f"{number}-{os.path.basename(path)}")
        _release.replace(path, copy, 0, 0, 0o600)
        files.append(Kept(path, copy, found.owner, found.group, found.mode))
    snapshot = Snapshot(files, pid, modules)
    temporary = os.path.join(folder, INDEX + ".new")
    with open(temporary, "w", encoding="utf-8") as stream:
        json.dump(snapshot.as_dict(), stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.rename(temporary, os.path.join(folder, INDEX))
    _release.sync_folder(folder)
    return snapshot


def close(folder: str) -> None:
    """Forget the snapshot: what is there now is confirmed. The index goes first."""
    try:
        os.unlink(os.path.join(folder, INDEX))
    except FileNotFoundError:
        return
    shutil.rmtree(folder, ignore_errors=True)


def put_back(snapshot: Snapshot) -> list[str]:
    """Put every file back that is not as it was, by rename, and return their paths. Raises OSError and KeyError.

    What was not there before goes last, after redis.conf no longer names it.
    """
    done = []
    for kept in sorted(snapshot.files, key=lambda kept: not kept.copy):
        found = _host.file_state(kept.path)
        if not kept.copy:
            if found is not None:
                os.unlink(kept.path)
                done.append(kept.path)
            continue
        before = _host.FileState(
            kept.path, kept.owner, kept.group, kept.mode, _host.sha256_of(kept.copy), os.path.getsize(kept.copy)
        )
        if found != before:
            uid, gid = _release.owner_ids(kept.owner, kept.group)
            _release.make_folders(os.path.dirname(kept.path))
            _release.replace(kept.copy, kept.path, uid, gid, int(kept.mode, 8))
            done.append(kept.path)
    return done
