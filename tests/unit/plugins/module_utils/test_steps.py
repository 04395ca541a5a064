# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several modules in one process: their order, what they give each other, and what must not leave."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible.module_utils import basic

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _memo, _steps

INTERNAL = {"_ansible_check_mode": False, "_ansible_diff": True, "_ansible_selinux_special_fs": []}


@pytest.fixture(autouse=True)
def profile(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AnsiballZ sets it."""
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": {}}).encode())
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
    monkeypatch.setattr(basic.AnsibleModule, "_log_invocation", lambda _self: None)


def does(act: Callable[[Any], Any], **spec: Any) -> SimpleNamespace:
    """Return what a module does."""
    return SimpleNamespace(SPEC={"argument_spec": spec, "supports_check_mode": True}, run=act)


def step(key: str, module: str = "", /, **more: Any) -> _steps.Step:
    """Return a step."""
    return _steps.Step(key, key.capitalize(), module or key, more.pop("args", {}), more.pop("take", {}), **more)


def run(steps: list[_steps.Step], modules: dict[str, Any], **more: Any) -> _steps.Outcome:
    """Run steps."""
    return _steps.run(steps, more.pop("given", {}), {**INTERNAL, **more.pop("internal", {})}, modules.get, **more)


def entry(**more: Any) -> dict[str, Any]:
    """Return a step as the module takes it."""
    own = {"id": None, "args": {}, "take": {}, "only_if": None, "when": True, "only_look": False, "may_fail": False}
    return {**own, "name": "Do it", "module": "redis_trial", **more}


class TestStepsOf:
    """How steps may be written."""

    def test_the_id_is_the_name_of_the_module_unless_one_is_given(self) -> None:
        steps = _steps.steps_of({"known": {}, "steps": [entry(), entry(module="redis_service", id="other")]})
        assert [step.id for step in steps] == ["trial", "other"]

    def test_two_with_one_id(self) -> None:
        with pytest.raises(_steps.StepsError, match="two with the id trial"):
            _steps.steps_of({"known": {}, "steps": [entry(), entry(when=False)]})

    @pytest.mark.parametrize("more", [{"take": {"types": "later.x"}}, {"only_if": "later.x"}])
    def test_what_no_step_before_gives(self, more: dict[str, Any]) -> None:
        with pytest.raises(_steps.StepsError, match=r"trial takes later\.x, which no step before it gives"):
            _steps.steps_of({"known": {}, "steps": [entry(**more), entry(id="later")]})
        assert _steps.steps_of({"known": {"later": {}}, "steps": [entry(**more)]})

    def test_what_the_controller_leaves_out(self) -> None:
        steps = [entry(when=False), entry(id="b", only_if="trial.x")]
        assert [step.id for step in _steps.steps_of({"known": {}, "steps": steps})] == ["b"]


class TestRun:
    """One after another."""

    def test_in_their_order_and_with_what_they_take(self) -> None:
        modules = {
            "first": does(lambda module: module.exit_json(changed=False, found={"keys": ["a"]})),
            "second": does(
                lambda module: module.exit_json(changed=True, got=module.params), keys={"type": "list"}, unit={}
            ),
        }
        steps = [step("first"), step("second", take={"keys": "first.found.keys"})]
        outcome = run(steps, modules, given={"unit": "u", "conf": "nobody takes it"})
        assert outcome.failed is None
        assert outcome.results["second"]["got"] == {"keys": ["a"], "unit": "u"}
        assert _steps.result(outcome)["changed"] is True

    def test_what_nobody_gives_is_left_to_the_default(self) -> None:
        modules = {"a": does(lambda module: module.exit_json(got=module.params["b"]), b={"type": "int", "default": 7})}
        assert run([step("a", take={"b": "none.at.all"})], modules).results["a"]["got"] == 7
        assert run([step("a", args={"b": None})], modules, given={"b": 3}).results["a"]["got"] == 7
        assert run([step("a", args={"b": 4})], modules, given={"b": 3}).results["a"]["got"] == 4

    def test_of_a_list_of_dictionaries_each_takes_the_keys_that_it_knows(self) -> None:
        spec = {"type": "list", "elements": "dict", "options": {"name": {"required": True}}}
        modules = {"a": does(lambda m: m.exit_json(got=m.params["modules"]), modules=spec)}
        given = {"modules": [{"name": "x", "smoke": []}]}
        assert run([step("a")], modules, given=given).results["a"]["got"] == [{"name": "x"}]
        # What is no list of them is for the module itself to refuse.
        assert "msg" in run([step("a")], modules, given={"modules": ["x"]}).results["a"]

    def test_the_first_that_fails_is_the_last(self) -> None:
        ran: list[str] = []
        modules = {
            "good": does(lambda module: [ran.append("good"), module.exit_json(changed=True)]),
            "bad": does(lambda module: module.fail_json(msg="its own words", log=["line"])),
        }
        outcome = run([step("good"), step("bad"), step("never", "good")], modules)
        told = _steps.result(outcome)
        assert ran == ["good"]
        assert (told["failed"], told["failed_step"], told["msg"]) == (True, "Bad", "its own words")
        assert told["steps"]["bad"]["log"] == ["line"]
        assert set(told["steps"]) == {"good", "bad"}
        assert told["changed"] is True

    def test_one_that_may_fail(self) -> None:
        modules = {"bad": does(lambda module: module.fail_json(msg="no")), "b": does(lambda m: m.exit_json())}
        outcome = run([step("bad", may_fail=True), step("b")], modules)
        assert outcome.failed is None
        assert outcome.warnings == ["Bad: no"]
        assert set(outcome.results) == {"bad", "b"}

    def test_bad_arguments_name_their_step(self) -> None:
        told = _steps.result(run([step("a", args={"x": "y"})], {"a": does(lambda m: m.exit_json(), x={"type": "int"})}))
        assert told["failed_step"] == "A"
        assert "argument 'x' is of type" in told["msg"]

    def test_what_nobody_expected(self) -> None:
        def act(_module: Any) -> None:
            raise ZeroDivisionError("oh")

        told = _steps.result(run([step("good"), step("a")], {"good": does(lambda m: m.exit_json()), "a": does(act)}))
        assert told["failed_step"] == "A"
        assert told["msg"] == "ZeroDivisionError: oh"
        assert "act" in told["exception"]
        assert "good" in told["steps"]

    def test_only_where_something_was_found(self) -> None:
        modules = {"a": does(lambda m: m.exit_json(none=[], some=["x"])), "b": does(lambda m: m.exit_json())}
        assert set(run([step("a"), step("b", only_if="a.none")], modules).results) == {"a"}
        assert set(run([step("a"), step("b", only_if="a.some")], modules).results) == {"a", "b"}
        assert set(run([step("b", only_if="before.x")], modules, known={"before": {"x": 1}}).results) == {"b"}

    def test_check_mode_and_diff_mode_are_passed_on(self) -> None:
        modules = {"a": does(lambda m: m.exit_json(changed=True, check=m.check_mode, diffs=m._diff))}
        assert run([step("a")], modules).results["a"] == {"changed": True, "check": False, "diffs": True}
        assert run([step("a")], modules, internal={"_ansible_check_mode": True}).results["a"]["check"] is True
        only_look = run([step("a", only_look=True)], modules).results["a"]
        assert only_look == {"changed": False, "check": True, "diffs": True}

    def test_the_diffs_come_together(self) -> None:
        modules = {
            "a": does(lambda m: m.exit_json(diff={"before": "1", "after": "2"})),
            "b": does(lambda m: m.exit_json(diff=[{"before": "3", "after": "4"}])),
            "c": does(lambda m: m.exit_json()),
        }
        told = _steps.result(run([step("a"), step("b"), step("c")], modules))
        assert told["diff"] == [{"before": "1", "after": "2"}, {"before": "3", "after": "4"}]
        assert "diff" not in told["steps"]["a"]

    @pytest.mark.parametrize("end", ["exit_json", "fail_json"])
    def test_a_secret_of_one_is_in_no_result(self, end: str) -> None:
        modules = {
            "a": does(lambda m: m.exit_json(said="s3cret was here")),
            "b": does(lambda m: getattr(m, end)(msg="no s3cret", more=["s3cret"]), password={"no_log": True}),
        }
        outcome = run([step("a"), step("b", args={"password": "s3cret"})], modules)
        assert "s3cret" not in json.dumps(_steps.result(outcome))
        # Each other gets the true values.
        assert outcome.results["a"]["said"] == "s3cret was here"

    def test_all_of_them_remember_together(self) -> None:
        asked: list[int] = []
        modules = {"a": does(lambda m: m.exit_json(got=_memo.once("key", lambda: asked.append(1) or len(asked))))}
        outcome = run([step("a"), step("b", "a")], modules)
        assert [found["got"] for found in outcome.results.values()] == [1, 1]
        assert run([step("a")], modules).results["a"]["got"] == 2


def test_each_module_that_can_be_a_step_is_one() -> None:
    for name, load in _steps.MODULES.items():
        found = load()
        assert found.__name__.endswith("._step_" + name.split("_", 1)[1])
        assert callable(found.run)
        assert found.SPEC["supports_check_mode"] is True
