# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a command of this machine."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence

from labkit.errors import LabError

# root's PATH in a su shell may lack sbin, where ip and nft live.
PATH = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
PROXIES = ("http_proxy", "https_proxy", "no_proxy")
# Nothing else of the caller's environment (tokens, say) reaches a host or an image.
ENVIRONMENT = {"PATH": PATH, "LC_ALL": "C.UTF-8"} | {p: os.environ[p] for p in PROXIES if p in os.environ}


def run(
    command: Sequence[str], stdin: str | None = None, check: bool = True, limit: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run to the end, and say what failed with the command's own words."""
    try:
        result = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=limit,
            env=ENVIRONMENT,
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"{' '.join(command)}: no end after {limit:.0f} s") from None
    if check and result.returncode:
        words = (result.stderr or result.stdout).strip()
        raise LabError(f"{' '.join(command)}: exit status {result.returncode}: {words}")
    return result
