# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd drop-in of the service: completed with the start digest, and checked by systemd itself."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from typing import Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _host


def dropin_path(unit: str) -> str:
    """Return where our drop-in of the unit lies."""
    return f"/etc/systemd/system/{unit}.d/50-edgeops-redis-modules.conf"


def completed(dropin: str, unit: str, directives: Sequence[_conf.Directive]) -> str:
    """Return the drop-in with a line by which each start leaves its digest (see _conf.start_digest).

    A symbolic link is made in one step and needs no shell. The process itself can't carry the digest: Redis writes
    its title over its own environment.
    """
    digest = _conf.start_digest(directives, dropin)
    return (
        f"{dropin.rstrip()}\n"
        "# Leaves what this start was made with, so that a later run can see whether another one is needed.\n"
        f"ExecStartPre=-+/bin/ln -sfn {digest} {_host.started_record(unit)}\n"
    )


def is_there(unit: str, dropin: str) -> bool:
    """Whether the unit has this drop-in already, so that systemd has accepted it."""
    try:
        with open(dropin_path(unit), encoding="utf-8") as stream:
            return stream.read().startswith(dropin.rstrip() + "\n")
    except OSError:
        return False


def faults(run: _host.Run, unit: str, fragment: str, dropin: str) -> list[str]:
    """Return what systemd finds wrong with the drop-in beside the unit's own file; empty where it is fine.

    I(fragment) is the path of the packaged unit file. Raises OSError.
    """
    folder = tempfile.mkdtemp(prefix="redis-dropin-", dir="/run")
    try:
        shutil.copy(fragment, os.path.join(folder, unit))
        os.mkdir(os.path.join(folder, unit + ".d"))
        path = os.path.join(folder, unit + ".d", "check.conf")
        with open(path, "w", encoding="utf-8") as stream:
            stream.write(dropin)
        _code, out, err = run(
            ["systemd-analyze", "verify", os.path.join(folder, unit)],
            environ_update={"LC_ALL": "C", "SYSTEMD_COLORS": "0", "SYSTEMD_LOG_COLOR": "0"},
        )
        return telling_lines(out + err, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def telling_lines(output: str, path: str) -> list[str]:
    """Return the lines of systemd-analyze verify that are about the drop-in: it also tells of other units."""
    return [line.replace(path, "drop-in") for line in output.splitlines() if path in line]


def exposure(run: _host.Run, unit: str) -> float | None:
    """Return how exposed systemd finds the unit, 0.0 to 10.0, by its own settings; None where it does not tell."""
    _code, out, _err = run(
        ["systemd-analyze", "security", "--no-pager", unit], environ_update={"LC_ALL": "C", "SYSTEMD_COLORS": "0"}
    )
    return overall_exposure(out)


def overall_exposure(output: str) -> float | None:
    """Return the number in the last line of systemd-analyze security, as C(Overall exposure level for X: 1.1 OK)."""
    match = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", output)
    return float(match.group(1)) if match else None
