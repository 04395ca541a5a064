# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part of a receipt: what is declared is worked out before the round trip, and kept for the end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from ansible.parsing.dataloader import DataLoader
from ansible.plugins.action import ActionBase
from ansible.template import Templar, trust_as_template

from ansible_collections.edgeops.redis_modules.plugins.action import redis_receipt as action
from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declared
from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _kept

UNDEFINED = {"redis_server_maxmemory": trust_as_template("{{ memory_of_the_host }}")}


class Host:
    """Hosts that answer as they are told, and a controller that asks them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = "one"
        self.variables: dict[str, Any] = {"redis_server_port": 6379}
        self.hostvars: dict[str, dict[str, Any]] = {}
        self.answer: dict[str, Any] = {"changed": False, "as_wanted": True, "differences": [], "reached": "2026"}
        self.ran: list[dict[str, Any]] = []

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module_name == "edgeops.redis_modules.redis_receipt"
        assert task_vars["inventory_hostname"] == self.name
        self.ran.append(dict(module_args))
        return dict(self.answer)

    def act(self, **args: Any) -> dict[str, Any]:
        """Run the action with these arguments."""
        task_vars = {
            "inventory_hostname": self.name,
            "inventory_dir": str(self.folder / "inventory"),
            "playbook_dir": str(self.folder / "playbook"),
            "hostvars": self.hostvars,
            **self.variables,
        }
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = type("Task", (), {"args": args})()
        plugin._templar = Templar(loader=DataLoader(), variables=task_vars)
        plugin._execute_module = self.execute
        result: dict[str, Any] = plugin.run(None, task_vars)
        for told in self.ran:
            assert told.get("_declared", "never") not in json.dumps(result)
        return result

    def digest(self, **variables: Any) -> str:
        """Return the digest that is sent where these variables are declared as well."""
        before = dict(self.variables)
        self.variables.update(variables)
        self.act()
        self.variables = before
        return str(self.ran[-1]["_declared"])


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Host:
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {"of_ansible": True})
    monkeypatch.setattr(_declared, "collection", lambda folder: f"the collection at {folder}")
    monkeypatch.chdir(tmp_path)
    for name in ("inventory", "playbook", "local"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(_kept.constants, "DEFAULT_LOCAL_TMP", str(tmp_path / "local"))
    return Host(tmp_path)


def test_a_look_is_one_round_trip_with_the_digest_of_what_is_declared(host: Host) -> None:
    result = host.act(unit="redis-two.service", login_port=7000)
    assert result == {**host.answer, "of_ansible": True}
    (told,) = host.ran
    assert {key: value for key, value in told.items() if key != "_declared"} == {
        "unit": "redis-two.service",
        "login_port": 7000,
    }
    assert re.fullmatch("[0-9a-f]{64}", told["_declared"])


def test_what_is_noted_is_what_was_declared_at_the_look(host: Host) -> None:
    host.act(state="compared")
    # Facts of roles, by now; none of them is what the operator has declared.
    host.variables["redis_server_port"] = 7000
    host.act(state="noted", packages=["redis-server"])
    look, note = host.ran
    assert note == {"state": "noted", "packages": ["redis-server"], "_declared": look["_declared"]}


def test_the_digest_of_a_later_look_takes_the_place_of_the_one_before(host: Host) -> None:
    host.act()
    host.variables["redis_server_port"] = 7000
    host.act()
    host.act(state="noted")
    assert host.ran[0]["_declared"] != host.ran[1]["_declared"] == host.ran[2]["_declared"]


def test_without_a_look_before_it_none_is_noted_and_the_reason_told(host: Host) -> None:
    assert host.act(state="noted") == {
        "of_ansible": True,
        "changed": False,
        "noted": False,
        "differences": ["what was declared could not be told before anything was changed"],
        "reached": "",
    }
    assert host.ran == []


def test_each_host_has_its_own(host: Host) -> None:
    host.act()
    host.name = "two/../one"
    assert host.act(state="noted")["noted"] is False
    host.act()
    host.name = "one"
    host.variables["redis_server_port"] = 7000
    host.act(state="noted")
    assert host.ran[-1]["_declared"] == host.ran[0]["_declared"]
    # All lie in the folder that ends with the run, under names that no host can choose.
    names = sorted(os.listdir(host.folder / "local"))
    assert len(names) == 2
    assert all(re.fullmatch("redis-declared-[0-9a-f]{64}", name) for name in names)


CLUSTER = {"redis_firewall_allowed_cidrs": [], "redis_server_cluster_enabled": True, "ansible_play_hosts_all": ["one"]}


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        (UNDEFINED, "redis_server_maxmemory can't be told without more of the host: "),
        ({"redis_modules": [{"name": "a", "src": "none"}]}, "module a: there is no folder none on the controller"),
        ({**CLUSTER, "ansible_limit": "one"}, "this run is limited to one"),
        (CLUSTER, "no address is known of one"),
    ],
)
def test_where_it_is_not_known_what_is_declared_the_host_is_told_why(
    host: Host, variables: dict[str, Any], words: str
) -> None:
    host.act()
    host.variables.update(variables)
    host.hostvars["one"] = {}
    host.act()
    assert "_declared" not in host.ran[-1]
    assert host.ran[-1]["_unknown"].startswith(words)
    # Nor does anybody know it in the end, although an earlier look of this run did.
    assert host.act(state="noted")["noted"] is False
    assert len(host.ran) == 2


def test_a_template_is_worked_out_and_counts_as_what_comes_of_it(host: Host) -> None:
    plain = host.digest(redis_server_maxmemory="1gb")
    template = trust_as_template("{{ gigabytes }}gb")
    assert host.digest(redis_server_maxmemory=template, gigabytes=1) == plain
    assert host.digest(redis_server_maxmemory=template, gigabytes=2) != plain
    loaded = DataLoader().load("redis_server_maxmemory: 1gb\n", file_name="/group_vars/all.yml")
    assert host.digest(**loaded) == plain


def test_ansibles_own_text_and_dictionaries_are_plain_in_it() -> None:
    loaded = DataLoader().load("a: b\nc: {d: 1, e: 1.5, f: [x, {g: h}, true, null]}\n", file_name="/vars.yml")
    assert loaded.__class__ is not dict
    assert loaded["a"].__class__ is not str
    wanted = {"a": "b", "c": {"d": 1, "e": 1.5, "f": ["x", {"g": "h"}, True, None]}}
    found = _declared.plain(loaded)
    assert found == wanted
    for value in (found, found["c"], found["c"]["f"][1]):
        assert value.__class__ is dict
        assert {type(key) for key in value} == {str}
    assert found["c"]["f"].__class__ is list
    assert {type(text) for text in (found["a"], found["c"]["f"][0], found["c"]["f"][1]["g"])} == {str}
    assert json.dumps(found) == json.dumps(wanted)


def test_what_says_how_what_was_found_and_what_is_others_is_no_matter(host: Host) -> None:
    before = host.digest()
    for name in ("redis_rollout_waves", "redis_verify_report_dir", "redis_firewall_found", "redis_hosts", "other"):
        assert host.digest(**{name: UNDEFINED["redis_server_maxmemory"]}) == before
    assert host.digest(redis_server_port=6380) != before


@pytest.mark.parametrize("place", ["inventory", "playbook"])
def test_sources_are_looked_for_beside_the_inventory_and_the_playbook(host: Host, place: str) -> None:
    folder = host.folder / place / "src"
    folder.mkdir()
    (folder / "a.c").write_text("int a;")
    host.variables["redis_modules"] = [{"name": "a", "src": "src"}]
    before = host.digest()
    assert host.digest() == before
    (folder / "a.c").write_text("int b;")
    assert host.digest() != before


def test_the_peers_of_a_cluster_are_those_of_the_play(host: Host) -> None:
    host.hostvars.update({"one": {"ansible_host": "192.0.2.1"}, "two": {"ansible_host": "192.0.2.2"}})
    two = {**CLUSTER, "ansible_play_hosts_all": ["one", "two"]}
    both = host.digest(**two)
    assert host.digest(**CLUSTER) != both
    host.hostvars["two"]["ansible_host"] = "192.0.2.3"
    assert host.digest(**two) != both
    # Without a cluster, others are no matter.
    alone = host.digest(ansible_play_hosts_all=["one", "two"])
    assert host.digest(ansible_play_hosts_all=["one"], ansible_limit="one") == alone


def test_the_collection_is_the_one_that_runs(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    folders: list[str] = []

    def collection(folder: str) -> str:
        folders.append(folder)
        return "another"

    before = host.digest()
    monkeypatch.setattr(_declared, "collection", collection)
    assert host.digest() != before
    assert folders == [str(Path(action.__file__).resolve().parents[2])]
    assert os.path.isdir(os.path.join(folders[0], "roles"))
