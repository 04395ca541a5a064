# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of redis_steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
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


LOOK = {"name": "Look", "module": "redis_module_artifact"}


def look_at(src: Path, **args: Any) -> dict[str, Any]:
    """Return a step that looks at a module made from I(src)."""
    return {**LOOK, "args": {"step": "look", "modules": [{"name": "a", "src": str(src)}], "cc": "gcc", **args}}


def test_of_a_look_at_artifacts_the_host_gets_its_half_alone(run: Any, tmp_path: Path) -> None:
    (tmp_path / "a.c").write_text("")
    step = look_at(tmp_path, header="", controller_cache=str(tmp_path / "cache"), on_controller=False)
    done = run(steps=[{"name": "x"}, step])
    first, sent = done["ran"][0]["steps"]
    assert first == {"name": "x"}
    assert sent.pop("args").pop("_sources").keys() == {"a"}
    assert sent == LOOK
    assert step["args"]["modules"]
    # The host has told nothing of it, as a step before it failed.
    assert done["steps"] == {"a": 1}


@pytest.mark.parametrize("key", ["module_artifact", "own"])
def test_to_what_the_host_tells_comes_what_the_controller_knows(
    run: Any, tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.c").write_text("")
    answer = {"steps": {key: {"platform": {}, "headers": {}}}}
    monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_options: answer)
    own = {"id": "own"} if key == "own" else {}
    found = run(steps=[{**look_at(tmp_path, controller_cache=str(tmp_path)), **own}])["steps"][key]
    assert [want["name"] for want in found["wanted"]] == ["a"]
    assert (found["header"], found["held"], found["platform"]) == ("server", {}, {})


def test_a_look_that_failed_stays_as_it_is(run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.c").write_text("")
    answer = {"failed": True, "steps": {"module_artifact": {"failed": True, "msg": "no"}}}
    monkeypatch.setattr(action.ActionModule, "_execute_module", lambda _self, **_options: answer)
    assert run(steps=[look_at(tmp_path)])["steps"] == {"module_artifact": {"failed": True, "msg": "no"}}


def test_sources_that_are_not_there_are_told_before_the_host_is_asked(run: Any, tmp_path: Path) -> None:
    with pytest.raises(AnsibleActionFail, match="module a: there is no "):
        run(steps=[look_at(tmp_path / "none")])
