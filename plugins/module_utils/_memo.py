# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask once what several steps of one process want to know, where its answer can't have changed in between.

A key names all that the answer depends on. Outside of C(shared()) nothing is remembered.
"""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Hashable, Iterator, TypeVar

Answer = TypeVar("Answer")

_remembered: dict[Hashable, Any] = {}
_depth = [0]


@contextlib.contextmanager
def shared() -> Iterator[None]:
    """Remember answers until the block ends."""
    _depth[0] += 1
    try:
        yield
    finally:
        _depth[0] -= 1
        if not _depth[0]:
            _remembered.clear()


def is_shared() -> bool:
    """Whether anything is remembered at all."""
    return _depth[0] > 0


def once(key: Hashable, ask: Callable[[], Answer]) -> Answer:
    """Return what I(ask) says, or has said before under this key. What it raises is not remembered."""
    if not _depth[0]:
        return ask()
    if key not in _remembered:
        _remembered[key] = ask()
    answer: Answer = _remembered[key]
    return answer


def keep(key: Hashable, answer: Any) -> None:
    """Remember an answer that came as a part of something else."""
    if _depth[0]:
        _remembered[key] = answer


def kept(key: Hashable) -> Any:
    """Return the answer to this key; None where there is none."""
    return _remembered.get(key)
