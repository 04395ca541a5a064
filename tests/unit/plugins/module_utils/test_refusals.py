# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that stands against a rollout, all of it at once."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _refusals

MODULES = [{"name": "a", "src": "x", "path": "/m/a.so", "state": "present"}]


def declared(**more: Any) -> dict[str, Any]:
    """Return a declaration."""
    return {
        "modules": [{"name": "a", "src": "x"}],
        "folder": "/m",
        "users": [],
        "requirepass": "",
        "probe": {"name": "edgeops-probe", "password": ""},
        "aclfile": "",
        "login": {},
        "renames": {},
        "limits": {},
        **more,
    }


class TestOfDeclaration:
    """What is declared wrongly."""

    def test_nothing(self) -> None:
        assert _refusals.of_declaration(declared()) == []

    @pytest.mark.parametrize(
        ("more", "what"),
        [
            ({"modules": [{"name": "a"}]}, "module a"),
            ({"modules": "a"}, "redis_modules"),
            ({"users": [{"name": "x", "rules": ["+@all"], "no": 1}]}, "no"),
            ({"renames": {"A.GET": "x"}}, "A.GET is a command of the module a"),
            ({"limits": {"cpu_quota": "much"}}, "cpu_quota"),
            ({"releases": {"b": "previous"}}, "module b: it is not declared"),
            ({"modules": [], "releases": {"b": "previous"}}, "module b: it is not declared"),
            ({"firewall": {"allowed_cidrs": ["nowhere"], "ports": [6379]}}, "nowhere"),
        ],
    )
    def test_something(self, more: dict[str, Any], what: str) -> None:
        assert what in "\n".join(_refusals.of_declaration(declared(**more)))

    def test_all_of_it_at_once(self) -> None:
        found = _refusals.of_declaration(declared(modules=[{"name": "a"}], limits={"cpu_quota": "much"}))
        assert len(found) == 2


def looked(modules: Any = (), **server: Any) -> dict[str, Any]:
    """Return what redis_modules_info tells of a host."""
    well = {
        "running": True,
        "error": "",
        "login_refused": False,
        "files": [],
        "users": ["default"],
        "replicaof": "",
        "configured": True,
        "key_count": 0,
    }
    return {"server": {**well, **server}, "modules": list(modules), "releases": {}}


def told(**more: Any) -> dict[str, Any]:
    """Return what is declared of a host."""
    return {"modules": MODULES, "users": [], "probe": "edgeops-probe", "has_users": False, "replicaof": "", **more}


class TestOfHost:
    """What a host would lose."""

    def test_nothing(self) -> None:
        running = [{"name": "a", "built_in": False}, {"name": "vectorset", "built_in": True}]
        assert _refusals.of_host(looked(running), "h", told()) == []

    def test_a_host_that_is_not_reached(self) -> None:
        assert _refusals.of_host({"unreachable": True, "msg": "no route"}, "h", {}) == ["h can't be reached: no route"]

    def test_a_login_that_is_refused(self) -> None:
        found = looked(running=False, login_refused=True, error="WRONGPASS", files=["/other.so"])
        (why,) = _refusals.of_host(found, "h", told())
        assert why.startswith("h: the server does not take the login (WRONGPASS). Correct redis_server_requirepass")
        assert _refusals.of_host(found, "h", told(unseen=True)) == []

    def test_a_server_that_does_not_answer_and_runs_other_modules(self) -> None:
        found = looked(running=False, error="refused", files=["/m/a.so", "/other.so"])
        (why,) = _refusals.of_host(found, "h", told())
        assert "(refused), and runs or would load /other.so, which redis_modules does not name" in why
        assert _refusals.of_host(found, "h", told(unseen=True)) == []
        assert _refusals.of_host(looked(running=False, files=["/m/a.so"]), "h", told()) == []
        assert _refusals.of_host(found, "h", told(modules=None)) == []

    def test_users_that_nobody_declared(self) -> None:
        found = looked(users=["default", "edgeops-probe", "boss"])
        (why,) = _refusals.of_host(found, "h", told(has_users=True))
        assert why.startswith("h: the server has the users boss, which redis_server_acl_users does not name")
        assert _refusals.of_host(found, "h", told(has_users=False)) == []
        assert _refusals.of_host(looked(users=None), "h", told(has_users=True)) == []

    def test_data_that_a_primary_would_replace(self) -> None:
        primary = told(replicaof="10.0.0.1 6379")
        (why,) = _refusals.of_host(looked(configured=False, key_count=3), "h", primary)
        assert why.startswith("h: the server holds 3 keys of its own")
        for server in ({"key_count": 0}, {"configured": True}, {"replicaof": "10.0.0.1 6379"}, {"running": False}):
            assert _refusals.of_host(looked(**{"configured": False, "key_count": 3, **server}), "h", primary) == []

    def test_modules_that_nobody_declared(self) -> None:
        running = [{"name": "a", "built_in": False}, {"name": "b", "built_in": False}]
        (why,) = _refusals.of_host(looked(running), "h", told())
        assert why.startswith("h runs b, which redis_modules does not name.")
        assert _refusals.of_host(looked(running), "h", told(modules=None)) == []

    def test_a_release_that_the_host_does_not_have(self) -> None:
        (why,) = _refusals.of_host(looked(), "h", told(releases={"a": "previous"}))
        assert why.startswith("module a: ")

    def test_all_of_it_at_once(self) -> None:
        running = [{"name": "b", "built_in": False}]
        found = looked(running, users=["boss"], configured=False, key_count=1)
        assert len(_refusals.of_host(found, "h", told(has_users=True, replicaof="x 1"))) == 3


class TestFirstResults:
    """Where hosts keep what they have found."""

    def test_the_first_that_is_there(self) -> None:
        hosts = [
            {"found": {"x": 1}, "looked": {"steps": {"found": {"x": 2}}}},
            {"looked": {"steps": {"found": {"x": 2}}}},
            {"looked": {"failed": True}},
            {},
        ]
        assert _refusals.first_results(hosts, "found", "looked.steps.found") == [{"x": 1}, {"x": 2}, {}, {}]

    def test_what_is_there_and_false(self) -> None:
        assert _refusals.first_results([{"a": {"b": False}}, {"a": {"b": ""}}], "a.b", "c") == [False, ""]
