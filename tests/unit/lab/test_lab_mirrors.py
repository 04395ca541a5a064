# SPDX-License-Identifier: GPL-3.0-or-later
"""Where this machine gets its packages from, as its apt sources say."""

from __future__ import annotations

from pathlib import Path

import pytest

from labkit.mirrors import own_mirrors

NEW = """\
Types: deb
# a comment
URIs: http://mirror.example.com/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example.com/debian-security/
Suites: bookworm-security
Components: main
"""
OLD = """\
# deb http://wrong.example.com/debian bookworm main
deb-src http://wrong.example.com/debian bookworm main
deb [arch=amd64] http://mirror.example.com/debian bookworm main
deb http://mirror.example.com/debian-security bookworm-security main
"""
OTHERS = """\
Types: deb
URIs: https://node.example.com/node_20.x
Suites: nodistro
Components: main
"""
WANTED = ("http://mirror.example.com/debian", "http://mirror.example.com/debian-security")


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    """Return an empty /etc/apt."""
    (tmp_path / "sources.list.d").mkdir()
    return tmp_path


def test_stanzas(etc: Path) -> None:
    (etc / "sources.list.d" / "debian.sources").write_text(NEW)
    assert own_mirrors(etc) == WANTED


def test_lines(etc: Path) -> None:
    (etc / "sources.list").write_text(OLD)
    assert own_mirrors(etc) == WANTED


def test_other_archives_are_no_mirrors_of_debian(etc: Path) -> None:
    (etc / "sources.list.d" / "a-node.sources").write_text(OTHERS)
    assert own_mirrors(etc) == ("", "")
    (etc / "sources.list.d" / "debian.sources").write_text(NEW)
    assert own_mirrors(etc) == WANTED


def test_a_machine_without_apt(tmp_path: Path) -> None:
    assert own_mirrors(tmp_path / "nothing") == ("", "")
