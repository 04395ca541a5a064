# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders for a moment: what a process that was killed has left of them, a later one takes away."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import shutil
import tempfile
import time
from typing import Iterator, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _places

TRIAL = "redis-trial-"
"""What the name of each trial's folder, and of its unit, begins with."""
CONF = "redis-conf-"
DROPIN = "redis-dropin-"
BASE = "/run"


@contextlib.contextmanager
def folder(prefix: str, base: str = BASE) -> Iterator[str]:
    """Make a folder and yield its path; it is gone when the block ends. Raises OSError."""
    path = tempfile.mkdtemp(prefix=prefix, dir=base)
    # As long as this process lives, nobody clears it away as what a dead one left.
    live = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(live, fcntl.LOCK_SH)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(live)


def is_left(path: str, since: float = 0) -> bool:
    """Whether a folder is what a dead process left, I(since) seconds ago or longer: a live one holds it."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(descriptor).st_mtime < time.time() - since
    except OSError:
        return False
    finally:
        os.close(descriptor)


def clear_left(run: _host.Run, bases: Sequence[str] = (BASE, _places.STATE)) -> list[str]:
    """Take away what dead processes have left: folders, and the units of trials; return the folders.

    systemd ends a trial's server in time, and keeps its unit as one that failed.
    """
    left = [
        path
        for base in bases
        for prefix in (TRIAL, CONF, DROPIN)
        for path in glob.glob(f"{glob.escape(base)}/{prefix}*")
        # One that has just been made is held in a moment.
        if is_left(path, since=2)
    ]
    for path in left:
        name = os.path.basename(path)
        if name.startswith(TRIAL):
            run(["systemctl", "stop", f"{name}.service"])
            run(["systemctl", "reset-failed", f"{name}.service"])
        shutil.rmtree(path, ignore_errors=True)
    return left
