# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab's package and the benchmarks importable: they are tools of the checkout, not part of the collection."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path[:0] = [str(ROOT / "lab"), str(ROOT / "benchmarks")]
