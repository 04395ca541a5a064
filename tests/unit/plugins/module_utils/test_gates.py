# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The operator's own gates."""

from __future__ import annotations

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _gates

SEEN = {"server": {"key_count": 7, "role": "master"}, "modules": [{"name": "probe"}]}


def test_true_alone_lets_a_rollout_go_on() -> None:
    assert _gates.failed(SEEN, ["server.key_count < `10`", "contains(modules[].name, 'probe')"]) == []
    assert _gates.failed(SEEN, ["server.key_count < `5`", "server.key_count", "server.nothing"]) == [
        "the gate 'server.key_count < `5`' is False, not true",
        "the gate 'server.key_count' is 7, not true",
        "the gate 'server.nothing' is None, not true",
    ]


@pytest.mark.parametrize("seen", [SEEN, {}])
def test_one_that_can_not_be_read_is_refused_also_where_nothing_was_seen_yet(seen: dict[str, object]) -> None:
    assert _gates.failed({}, ["server.key_count < `5`"]) == []
    with pytest.raises(_gates.GateError, match=r"the gate 'server\.\[' in redis_rollout_gates"):
        _gates.failed(seen, ["server.["])


def test_without_jmespath_gates_are_refused_and_their_absence_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gates, "HAS_JMESPATH", False)
    assert _gates.failed(SEEN, []) == []
    with pytest.raises(_gates.GateError, match="jmespath"):
        _gates.failed(SEEN, ["server"])
