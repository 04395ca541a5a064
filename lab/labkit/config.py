# SPDX-License-Identifier: GPL-3.0-or-later
"""Where things are, and what the environment may change."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from labkit.mirrors import own_mirrors
from labkit.plan import Ranges, parse_ranges

# What concerns the whole machine is kept here: it must not outlive a boot, and
# two checkouts must see each other's labs.
RUN_DIR = Path("/run/edgeops-lab")


@dataclass(frozen=True)
class Config:
    """The settings of one call."""

    root: Path
    ranges: Ranges
    mirror: str
    security_mirror: str

    @property
    def images(self) -> Path:
        """The folder of the cached images."""
        return self.root / "images"

    def lab(self, name: str) -> Path:
        """A lab's folder."""
        return self.root / name

    def labs(self) -> list[str]:
        """The labs that have a folder, up or half up."""
        if not self.root.is_dir():
            return []
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and p != self.images and p.name[0] != ".")


def load_config() -> Config:
    """Read LAB_DIR, LAB_NETWORK, LAB_MIRROR and LAB_SECURITY_MIRROR."""
    checkout = Path(__file__).resolve().parents[2]
    mirror, security_mirror = own_mirrors()
    return Config(
        root=Path(os.environ.get("LAB_DIR") or checkout / "build" / "lab").resolve(),
        ranges=parse_ranges(os.environ.get("LAB_NETWORK")),
        mirror=os.environ.get("LAB_MIRROR") or mirror,
        security_mirror=os.environ.get("LAB_SECURITY_MIRROR") or security_mirror,
    )
