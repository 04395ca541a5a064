# SPDX-License-Identifier: GPL-3.0-or-later
"""The sites of this scenario, one set for all its tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(SCENARIO), str(SCENARIO.parent / "shared")]

from site_kit import Central  # noqa: E402 -- it lies beside the scenario


@pytest.fixture(scope="session")
def central() -> Central:
    """Return the central side as converge left it."""
    return Central(Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]))
