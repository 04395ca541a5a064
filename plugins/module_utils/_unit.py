# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd drop-in of the service: completed with the start digest, and checked by systemd itself."""

from __future__ import annotations

import os
import re
import shutil
from typing import Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _host, _memo, _scratch


def dropin_path(unit: str) -> str:
    """Return where our drop-in of the unit lies."""
    return f"/etc/systemd/system/{unit}.d/50-edgeops-redis-modules.conf"


KEEPER = "/usr/local/lib/edgeops-redis-modules/keep-loadmodule"
"""Where the script lies that a start runs before the server."""

KEEPER_SCRIPT = r"""#!/bin/sh
# Written by the collection edgeops.redis_modules; run before each start of Redis, with the path of its redis.conf.
# CONFIG REWRITE drops the quotes of loadmodule lines, and their order. redis.conf has them in comments as well, from
# which they are put back here. Where the lines differ by more than that, somebody has changed them on purpose: then
# they stay.
set -eu
conf=$1
declared=$(sed -n 's/^#: loadmodule /loadmodule /p' "$conf")
found=$(sed -n '/^loadmodule /p' "$conf")
plain() { printf '%s\n' "$1" | tr -d '"\\' | sort; }
if [ "$found" = "$declared" ] || [ "$(plain "$found")" != "$(plain "$declared")" ]; then exit 0; fi
new=$conf.loadmodule
trap 'rm -f "$new"' EXIT
cp -p "$conf" "$new"
awk '/^loadmodule /{next} {print} sub(/^#: loadmodule /, "loadmodule ")' "$conf" >"$new"
sync "$new"
mv "$new" "$conf"
"""


def kept(run: _host.Run, text: str) -> str:
    """Return a redis.conf as the next start is going to read it. Raises OSError."""
    with _scratch.folder(_scratch.CONF) as folder:
        path = os.path.join(folder, "redis.conf")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as stream:
            stream.write(text)
        run(["/bin/sh", "-c", KEEPER_SCRIPT, "keep-loadmodule", path])
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return stream.read()


def completed(dropin: str, unit: str, directives: Sequence[_conf.Directive], conf_path: str) -> str:
    """Return the drop-in with a line by which each start leaves its digest (see _conf.start_digest).

    And with one that puts back what CONFIG REWRITE spoils in the redis.conf at I(conf_path), where it would.

    A symbolic link is made in one step and needs no shell. The process itself can't carry the digest: Redis writes
    its title over its own environment.
    """
    digest = _conf.start_digest(directives, dropin)
    keeper = f"ExecStartPre=-+{KEEPER} {conf_path}\n" if _conf.rewrite_spoils(directives) else ""
    return (
        f"{dropin.rstrip()}\n"
        f"{keeper}"
        "# Leaves what this start was made with, so that a later run can see whether another one is needed.\n"
        f"ExecStartPre=-+/bin/ln -sfn {digest} {_host.started_record(unit)}\n"
    )


def is_there(unit: str, dropin: str) -> bool:
    """Whether the unit has this drop-in already, so that systemd has accepted it."""
    try:
        with open(dropin_path(unit), encoding="utf-8") as stream:
            return has(stream.read(), dropin)
    except OSError:
        return False


def has(text: str, dropin: str) -> bool:
    """Whether the text of a drop-in has all of I(dropin); what completed() adds may differ."""
    return text.startswith(dropin.rstrip() + "\n")


def faults(run: _host.Run, unit: str, fragment: str, dropin: str) -> list[str]:
    """Return what systemd finds wrong with the drop-in beside the unit's own file; empty where it is fine.

    I(fragment) is the path of the packaged unit file. Raises OSError.
    """
    question = ("dropin", unit, fragment, _host.sha256_of(fragment), dropin)
    return _memo.once(question, lambda: _verified(run, unit, fragment, dropin))


def _verified(run: _host.Run, unit: str, fragment: str, dropin: str) -> list[str]:
    with _scratch.folder(_scratch.DROPIN) as folder:
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
