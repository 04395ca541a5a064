# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis_steps as Ansible runs it: its arguments, its output, and no secret in it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible.module_utils import basic
from ansible.module_utils.common.parameters import PASS_VARS

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _steps
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_steps

Run = Callable[..., Any]
INFO = {"name": "Look", "module": "redis_modules_info"}
# Newer releases of ansible-core add it only where somebody asks for it.
ASKS_FOR_INVOCATION = {"_ansible_inject_invocation": True} if "inject_invocation" in PASS_VARS else {}


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes to the system's log."""
    lines: list[str] = []
    monkeypatch.setattr(
        basic.AnsibleModule, "log", lambda self, msg, log_args=None: lines.append(f"{self._name} {msg}")
    )
    return lines


def test_each_step_is_run_with_the_login_and_what_is_given(run_module: Run, server: Any, commands: Any) -> None:
    given = {"unit": "redis-server.service", "conf_path": "/nowhere", "binary": "/nowhere"}
    steps = [INFO, {"name": "Ask", "module": "redis_topology_info", "args": {"modules": ["a"]}}]
    found = run_module(redis_steps.main, {"steps": steps, "given": given, "login_port": 7000})
    assert found["steps"]["modules_info"]["server"]["running"] is True
    assert found["steps"]["topology_info"]["server"]["lacks"] == ["a"]
    assert {connection["login_port"] for connection in server.connections} == {7000}
    assert not found["changed"]


def test_no_secret_is_in_the_result_or_the_log(
    run_module: Run, server: Any, commands: Any, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    server.down = "nobody answers to s3cret"
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", None)
    steps = [{**INFO, "args": {"binary": "/nowhere", "login_current_password": "f0rmer"}}]
    args = {"steps": steps, "login_password": "s3cret", "given": {"conf": "requirepass s3cret"}}
    found = run_module(redis_steps.main, {**args, **ASKS_FOR_INVOCATION})
    text = json.dumps(found) + "\n".join(logged)
    assert "nobody answers to" in text
    assert "s3cret" not in text
    assert "f0rmer" not in text
    assert found["invocation"] == {"module_args": {"steps": ["Look"]}}
    # Each step is logged under the name of its module, and nothing else is.
    assert [line.split(" ")[0] for line in logged] == ["redis_modules_info"]


def test_a_failure_names_its_step(run_module: Run, server: Any, commands: Any) -> None:
    steps = [INFO, {"name": "Remember", "module": "redis_snapshot"}]
    found = run_module(redis_steps.main, {"steps": steps, "given": {"binary": "/nowhere"}})
    assert found["failed"] is True
    assert found["failed_step"] == "Remember"
    assert "missing required arguments: state" in found["msg"]
    assert found["steps"]["modules_info"]["server"]["running"] is True


def test_what_is_refused_runs_nothing(run_module: Run, server: Any) -> None:
    found = run_module(redis_steps.main, {"steps": [INFO], "refuse": ["one", "two"]})
    assert (found["failed"], found["msg"], found["steps"]) == (True, "one\ntwo", {})
    assert server.connections == []


def test_steps_that_can_not_be(run_module: Run) -> None:
    found = run_module(redis_steps.main, {"steps": [INFO, INFO]})
    assert found["msg"] == "steps: there are two with the id modules_info; give one of them another"


def test_one_that_may_fail_is_warned_of_without_a_secret(run_module: Run, server: Any, commands: Any) -> None:
    steps = [{"name": "Remember", "module": "redis_snapshot", "args": {"state": "s3cret"}, "may_fail": True}]
    found = run_module(redis_steps.main, {"steps": steps, "login_password": "s3cret"})
    assert "failed" not in found
    assert "Remember: value of state must be one of" in found["warnings"][0]
    assert "s3cret" not in found["warnings"][0]


def test_check_mode(run_module: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(module: Any) -> None:
        module.exit_json(changed=True, check=module.check_mode)

    does = SimpleNamespace(SPEC={"argument_spec": {}, "supports_check_mode": True}, run=act)
    monkeypatch.setitem(_steps.MODULES, "redis_trial", lambda: does)
    steps = [{"name": "Try", "module": "redis_trial"}]
    for check in (True, False):
        assert run_module(redis_steps.main, {"steps": steps}, check=check)["steps"]["trial"]["check"] is check


def test_arguments_that_are_not_as_they_should_be_are_not_shown(run_module: Run) -> None:
    args = {"steps": [{"name": "Look", "module": "no_such"}], "given": {"conf": "requirepass s3cret"}}
    found = run_module(redis_steps.main, {**args, **ASKS_FOR_INVOCATION})
    assert "value of module must be one of" in found["msg"]
    assert found["invocation"] == {"module_args": {"steps": ["Look"]}}
    assert "s3cret" not in json.dumps(found)
