# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own gates: JMESPath expressions over what redis_modules_info returns. They run on the controller."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

try:
    import jmespath
except ImportError:
    HAS_JMESPATH = False
else:
    HAS_JMESPATH = True


class GateError(ValueError):
    """What is wrong with a gate as it is written; the text is for the operator."""


def failed(seen: Mapping[str, Any], gates: Sequence[str]) -> list[str]:
    """Return a sentence for each gate that does not come out as true; with an empty I(seen), none: they are only read.

    True alone lets a rollout go on: a list or a number that comes out is a gate that says something else than was
    meant. Raises GateError.
    """
    if gates and not HAS_JMESPATH:
        raise GateError("redis_rollout_gates needs the Python package jmespath on the controller")
    found = []
    for gate in gates:
        try:
            expression = jmespath.compile(str(gate))
            came_out = expression.search(dict(seen)) if seen else True
        except jmespath.exceptions.JMESPathError as error:
            raise GateError(f"the gate {gate!r} in redis_rollout_gates: {error}") from error
        if came_out is not True:
            found.append(f"the gate {gate!r} is {came_out!r}, not true")
    return found
