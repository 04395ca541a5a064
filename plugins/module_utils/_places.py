# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host keeps what rollouts leave word of."""

from __future__ import annotations

import contextlib
import os
import time

STATE = "/var/lib/edgeops-redis-modules"
LOCK = f"{STATE}/rollout.lock"
SNAPSHOT = f"{STATE}/before"
"""The snapshot of the packaged unit's server."""

PACKAGED = ("redis-server.service", "redis.service")


def instance(unit: str) -> str:
    """Return what tells a unit's own files from those of others; empty for the packaged unit."""
    name = unit if unit.endswith(".service") else f"{unit}.service"
    return "" if name in PACKAGED else f"-{name}"


def snapshot(unit: str) -> str:
    """Return where the snapshot of a unit's server is kept."""
    return SNAPSHOT + instance(unit)


def receipt(unit: str) -> str:
    """Return where the receipt of a unit's server lies."""
    return f"{STATE}/receipt{instance(unit)}.json"


def noted(folder: str) -> str:
    """Return where a receipt waits in the snapshot in I(folder), until that is closed."""
    return f"{folder}/receipt.json"


def keep_noted(folder: str, unit: str) -> None:
    """Make the receipt that waits in a snapshot the one of the host, where there is one. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        os.rename(noted(folder), receipt(unit))


def iso(seconds: int) -> str:
    """Return a time as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
