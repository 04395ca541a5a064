# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet of this scenario, one for all its tests."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

SCENARIO = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SCENARIO.parent / "shared"))

from fleet_kit import Fleet  # noqa: E402 -- it lies beside the scenarios


@pytest.fixture(scope="session")
def all_nodes(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    """Return the fleet as converge left it."""
    lab = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory" / "lab.yml"
    return Fleet(SCENARIO, lab, tmp_path_factory.mktemp("fleet"))


@pytest.fixture
def fleet(all_nodes: Fleet) -> Fleet:
    """Return the fleet, whole and empty."""
    all_nodes.settle()
    all_nodes.empty()
    return all_nodes
