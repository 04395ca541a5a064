# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/corpus.md says of each bad module what tests/rollout/corpus.py knows."""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests" / "rollout"))

import corpus  # noqa: E402

ROW = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)
ROWS = {row[0]: row[1:] for row in ROW.findall((ROOT / "docs" / "corpus.md").read_text(encoding="utf-8"))}
"""What the module is, what a bare server does, what catches it, what the operator reads; by the case's name."""


def test_the_table_has_every_case_in_order() -> None:
    assert list(ROWS) == list(corpus.CORPUS)
    assert len(ROWS) >= 30


def test_the_table_says_what_catches_each() -> None:
    assert {name: caught for name, (_what, _bare, caught, _reads) in ROWS.items()} == {
        name: case.caught for name, case in corpus.CORPUS.items()
    }


def test_the_table_quotes_what_the_operator_reads() -> None:
    """The message in the table satisfies what the run on the hosts asks of the real one."""
    for name, case in corpus.CORPUS.items():
        for words in case.says:
            assert re.search(words, ROWS[name][3]), f"{name}: {words!r} is not in {ROWS[name][3]!r}"


def test_every_stage_is_explained_and_catches_something() -> None:
    assert {case.caught for case in corpus.CORPUS.values()} == set(corpus.STAGES)
    page = (ROOT / "docs" / "corpus.md").read_text(encoding="utf-8")
    for stage, meaning in corpus.STAGES.items():
        assert f"- *{stage}*: {meaning}" in page


def test_file_names_differ() -> None:
    """All files are made in one folder, and laid in one on the host."""
    names = [*corpus.BASE, *corpus.BESIDE, *corpus.CORPUS]
    assert len(names) == len(set(names))
