# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller remembers of a host from one task to another, and tells nobody.

The digest of all that is declared is made over secrets as well. A result would be printed, and kept by callbacks; the
folder of this run's own files ends with the run.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from ansible import constants


def _path(host: str) -> Path:
    name = hashlib.sha256(host.encode("utf-8", "surrogatepass")).hexdigest()
    return Path(str(constants.DEFAULT_LOCAL_TMP)) / f"redis-declared-{name}"


def keep_declared(host: str, digest: str) -> None:
    """Remember the digest of what is declared of a host; an empty one forgets what was remembered."""
    _path(host).write_text(digest, encoding="utf-8")


def declared(host: str) -> str:
    """Return what was remembered of a host in this run; empty where nothing was."""
    path = _path(host)
    return path.read_text(encoding="utf-8") if path.exists() else ""
