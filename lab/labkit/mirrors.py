# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets Debian's packages from: the hosts of the lab use the same."""

from __future__ import annotations

import re
from pathlib import Path

ETC = Path("/etc/apt")


def sources(etc: Path = ETC) -> list[tuple[str, str]]:
    """Return (address, suite) of every binary source that apt knows here, in the order of its files."""
    found: list[tuple[str, str]] = []
    for path in [etc / "sources.list", *sorted((etc / "sources.list.d").glob("*.list"))]:
        if path.is_file():
            text = path.read_text(encoding="utf-8", errors="replace")
            found += re.findall(r"^\s*deb\s+(?:\[[^\]]*\]\s+)?(\S+)\s+(\S+)", text, re.MULTILINE)
    for path in sorted((etc / "sources.list.d").glob("*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text(encoding="utf-8", errors="replace")):
            fields = dict(re.findall(r"^(\w+):\s*(.*)$", stanza, re.MULTILINE))
            if "deb" in fields.get("Types", "").split() and fields.get("Enabled", "yes") == "yes":
                found += [(uri, suite) for uri in fields.get("URIs", "").split() for suite in fields["Suites"].split()]
    return found


def own_mirrors(etc: Path = ETC) -> tuple[str, str]:
    """Return the addresses of Debian's archive and of its security archive; empty where apt knows none."""
    main = security = ""
    for address, suite in sources(etc):
        plain = address.rstrip("/")
        if suite.endswith(("-security", "/updates")):
            security = security or plain
        elif plain.endswith("/debian"):
            main = main or plain
    return main, security
