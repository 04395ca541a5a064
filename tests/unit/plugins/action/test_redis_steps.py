# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_steps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.action import redis_steps as action


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what runs the action, and remembers how the module was run."""
    ran: list[dict[str, Any]] = []
    monkeypatch.setattr(ActionBase, "run", lambda *_words: {})
    monkeypatch.setattr(
        action.ActionModule, "_execute_module", lambda _self, **options: ran.append(options) or {"steps": {"a": 1}}
    )

    def act(**args: Any) -> dict[str, Any]:
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = SimpleNamespace(args=args)
        return {**plugin.run(None, {}), "ran": [options["module_args"] for options in ran]}

    return act


def test_the_module_gets_it_as_it_is(run: Any) -> None:
    assert run(steps=[{"name": "x"}], refuse=[]) == {
        "steps": {"a": 1},
        "ran": [{"steps": [{"name": "x"}], "refuse": []}],
    }


@pytest.mark.parametrize(("refuse", "why"), [(["one", "two"], "one\ntwo"), ("one", "one")])
def test_what_is_refused_does_not_go_to_the_host(run: Any, refuse: Any, why: str) -> None:
    assert run(steps=[], refuse=refuse) == {"failed": True, "msg": why, "steps": {}, "ran": []}
