# SPDX-License-Identifier: GPL-3.0-or-later
"""Make the lab's package importable: it is a tool of the checkout, not part of the collection."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "lab"))
