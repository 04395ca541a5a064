# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is declared of a host is one digest: another one wherever something else is wanted of it, and only there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declared
from ansible_collections.edgeops.redis_modules.plugins.module_utils._declared import UnknownError

ROOT = Path(_declared.__file__).resolve().parents[2]
VARIABLES: dict[str, Any] = {
    "redis_modules": [{"name": "a", "src": "src"}],
    "redis_server_maxmemory": "1gb",
    "redis_rollout_releases": {},
    "redis_firewall_allowed_cidrs": ["10.0.0.0/8"],
}


def same(value: Any) -> Any:
    """Stands for the template of a value that needs none."""
    return value


class Tagged(str):
    """Text that knows where it is from, as Ansible's."""

    __slots__ = ()


class TaggedMapping(dict):  # type: ignore[type-arg]
    """A dictionary that does."""


class TestNames:
    """Which variables count."""

    def test_those_that_a_rollout_is_made_of(self) -> None:
        names = [
            "redis_server_port",
            "redis_modules",
            "redis_modules_dir",
            "redis_modules_login",
            "redis_server_acl_users",
            "redis_rollout_releases",
            "redis_build_cc",
            "redis_toolchain_packages",
            "redis_preflight_packages",
            "redis_firewall_allowed_cidrs",
            "redis_verify_exclusive",
        ]
        assert _declared.names(names) == sorted(names)

    @pytest.mark.parametrize(
        "name",
        [
            "redis_hosts",
            "redis_receipt_believe",
            "redis_receipt_found",
            "redis_publish_tree",
            "redis_pull_interval",
            "redis_serverless",
            "redis_modulesets",
            "my_redis_server_port",
            "__redis_server_conf",
            "ansible_host",
            "inventory_hostname",
        ],
    )
    def test_others_variables_do_not(self, name: str) -> None:
        assert _declared.names([name]) == []

    @pytest.mark.parametrize("name", sorted(_declared.HOW | _declared.RESULTS))
    def test_nor_do_those_that_say_how_and_what_roles_leave_for_each_other(self, name: str) -> None:
        # Each would count if it were not named: one that nobody knows is a slip of the pen.
        assert _declared.CONCERNED.match(name)
        assert _declared.names([name]) == []

    def test_those_that_say_how_are_variables_of_the_roles(self) -> None:
        known = {
            name
            for path in (ROOT / "roles").glob("*/meta/argument_specs.yml")
            for entry in yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"].values()
            for name in entry.get("options") or {}
        }
        assert known >= _declared.HOW


class TestPlain:
    """Values as JSON has them."""

    @pytest.mark.parametrize("value", [None, True, False, 0, 1, -2, 1.5, "", "x", [], {}, [1, "x"], {"a": [None]}])
    def test_what_is_plain_stays(self, value: Any) -> None:
        found = _declared.plain(value)
        assert found == value
        assert type(found) is type(value)

    def test_classes_that_only_say_where_a_value_is_from_do_not(self) -> None:
        found = _declared.plain(TaggedMapping({Tagged("a"): Tagged("b"), 1: (Tagged("c"), 2)}))
        assert found == {"a": "b", "1": ["c", 2]}
        assert [type(value) for value in (found, *found, found["a"], found["1"], found["1"][0])] == [
            dict,
            str,
            str,
            str,
            list,
            str,
        ]

    def test_the_order_of_a_list_counts_and_that_of_a_set_does_not(self) -> None:
        assert _declared.plain([2, 1]) == [2, 1]
        assert _declared.plain({"b", "a", "c"}) == _declared.plain(frozenset(["c", "b", "a"])) == ["a", "b", "c"]

    def test_what_json_does_not_have_is_text(self) -> None:
        assert _declared.plain(Path("/x")) == "/x"


class TestValues:
    """What is declared, as it comes out for the host."""

    def test_each_variable_that_counts_is_templated(self) -> None:
        variables = {"redis_server_port": "{{ port }}", "redis_rollout_waves": "{{ fails }}", "port": "{{ fails }}"}
        assert _declared.values(variables, lambda value: f"templated {value}") == {
            "redis_server_port": "templated {{ port }}"
        }

    @pytest.mark.parametrize("error", [ValueError, KeyError, RuntimeError, RecursionError])
    def test_a_template_that_fails_is_named_by_its_variable(self, error: Any) -> None:
        def template(value: Any) -> Any:
            if value == "{{ memory }}":
                raise error("'memory' is undefined")
            return value

        variables = {"redis_server_maxmemory": "{{ memory }}", "redis_server_port": 1}
        words = "^redis_server_maxmemory can't be told without more of the host: .*'memory' is undefined"
        with pytest.raises(UnknownError, match=words):
            _declared.values(variables, template)


class TestSources:
    """What modules are built from."""

    @pytest.fixture
    def src(self, tmp_path: Path) -> Path:
        folder = tmp_path / "src"
        (folder / "deep").mkdir(parents=True)
        (folder / "a.c").write_text("int a;")
        (folder / "deep" / "a.h").write_text("")
        return folder

    def digests(self, folder: Path, **entry: Any) -> dict[str, str]:
        given = {"name": "a", "src": "src", **entry}
        return _declared.sources({"redis_modules": [given]}, [str(folder.parent)])

    def test_any_change_of_a_source_file_is_another_digest(self, src: Path) -> None:
        found = [self.digests(src)]
        assert list(found[0]) == ["src"]
        for change in (
            lambda: (src / "a.c").write_text("int b;"),
            lambda: (src / "deep" / "a.h").write_text("\n"),
            lambda: (src / "b.c").write_text(""),
            lambda: (src / "b.c").rename(src / "c.c"),
            (src / "c.c").unlink,
            lambda: (src / "a.c").chmod(0o755),
        ):
            change()
            found.append(self.digests(src))
        # What was made and taken away again leaves all as it was.
        assert found[-2] == found[2]
        assert len({digests["src"] for digests in found}) == 6

    def test_left_overs_of_a_build_are_no_sources(self, src: Path) -> None:
        before = self.digests(src, make_target="all", make_output="deep/a.so")
        (src / "a.o").write_text("")
        (src / ".git").mkdir()
        (src / ".git" / "HEAD").write_text("")
        (src / "deep" / "a.so").write_text("")
        os.utime(src / "a.c", (1, 1))
        assert self.digests(src, make_target="all", make_output="deep/a.so") == before

    def test_the_modules_of_each_role_count(self, src: Path) -> None:
        (src.parent / "two").mkdir()
        declared = {
            "redis_modules": [{"name": "a", "src": "src"}],
            "redis_rollout_modules": [{"name": "a", "src": "two"}],
            "redis_modules_dir": "/m",
            "redis_server_port": 1,
        }
        assert sorted(_declared.sources(declared, [str(src.parent)])) == ["src", "two"]

    def test_what_is_not_built_has_none(self, src: Path) -> None:
        artifact = {"name": "b", "artifact": "nowhere.so", "sha256": "0" * 64}
        absent = {"name": "c", "src": "nowhere", "state": "absent"}
        assert _declared.sources({"redis_modules": [artifact, absent]}, [str(src.parent)]) == {}
        assert _declared.sources({}, []) == {}

    @pytest.mark.parametrize(
        ("modules", "words"),
        [
            ([{"name": "a", "src": "none"}], "module a: there is no folder none on the controller"),
            ([{"name": "a", "src": "src/a.c"}], "module a: there is no folder src/a.c on the controller"),
            ([{"name": "a"}], "module a: give exactly one of src"),
            (["a"], r"redis_modules\[1\] must be a dictionary"),
            ("a", "redis_modules must be a list"),
            (None, "redis_modules must be a list"),
        ],
    )
    def test_what_can_not_be_built_is_not_known(self, src: Path, modules: Any, words: str) -> None:
        with pytest.raises(UnknownError, match=words):
            _declared.sources({"redis_modules": modules}, [str(src.parent)])

    def test_a_file_that_can_not_be_read_is_not_known(self, src: Path) -> None:
        (src / "b.c").symlink_to("/nowhere")
        with pytest.raises(UnknownError, match="No such file"):
            self.digests(src)


class TestPeers:
    """The addresses that the bus of a cluster is open to."""

    HOSTS = ("one", "192.0.2.2")
    KNOWN: ClassVar[dict[str, dict[str, Any]]] = {"one": {"ansible_host": "192.0.2.1"}, "192.0.2.2": {}}
    CLUSTER: ClassVar[dict[str, Any]] = {"redis_firewall_allowed_cidrs": [], "redis_server_cluster_enabled": True}

    def peers(self, declared: dict[str, Any], limit: str = "") -> list[str]:
        return _declared.peers(declared, self.HOSTS, lambda host: self.KNOWN[host], limit)

    @pytest.mark.parametrize("enabled", [True, "yes", "true", "True", "on", "1", 1])
    def test_of_a_cluster_they_are_those_of_the_play(self, enabled: Any) -> None:
        declared = {**self.CLUSTER, "redis_server_cluster_enabled": enabled}
        assert self.peers(declared) == ["192.0.2.1", "192.0.2.2"]

    def test_of_a_bus_port_that_is_declared_too(self) -> None:
        declared = {"redis_firewall_allowed_cidrs": [], "redis_firewall_cluster_bus_ports": [16379]}
        assert self.peers(declared) == ["192.0.2.1", "192.0.2.2"]

    def test_with_a_limit_they_are_not_known(self) -> None:
        with pytest.raises(UnknownError, match="limited to one"):
            self.peers(self.CLUSTER, "one")

    def test_nor_where_no_address_is(self) -> None:
        with pytest.raises(UnknownError, match="no address is known of three"):
            _declared.peers(self.CLUSTER, ["three"], lambda _host: {}, "")

    @pytest.mark.parametrize(
        "declared",
        [
            {},
            {"redis_server_cluster_enabled": True},
            {"redis_firewall_allowed_cidrs": []},
            {"redis_firewall_allowed_cidrs": [], "redis_server_cluster_enabled": False},
            {"redis_firewall_allowed_cidrs": [], "redis_server_cluster_enabled": "no"},
            {**CLUSTER, "redis_firewall_cluster_peers": ["192.0.2.0/24"]},
        ],
    )
    def test_where_nobody_asks_for_them_a_limit_is_no_matter(self, declared: dict[str, Any]) -> None:
        assert _declared.peers(declared, ["three"], lambda _host: {}, "three") == []


class TestCollection:
    """The collection itself."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for name in ("roles/a/tasks/main.yml", "plugins/m.py", "playbooks/p.yml", "meta/runtime.yml", "README.md"):
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(name)
        return tmp_path

    def test_any_change_of_a_file_that_runs_is_another_digest(self, folder: Path) -> None:
        digests = [_declared.collection(str(folder))]
        for change in (
            lambda: (folder / "roles/a/tasks/main.yml").write_text("edited"),
            lambda: (folder / "plugins/m.py").write_text("edited"),
            lambda: (folder / "playbooks/p.yml").write_text("edited"),
            lambda: (folder / "meta/runtime.yml").write_text("edited"),
            lambda: (folder / "plugins/new.py").write_text(""),
            lambda: (folder / "plugins/new.py").rename(folder / "roles/new.py"),
            (folder / "plugins/m.py").unlink,
        ):
            change()
            digests.append(_declared.collection(str(folder)))
        assert len(set(digests)) == len(digests)

    def test_what_does_not_run_is_no_matter_nor_where_it_lies(self, folder: Path, tmp_path: Path) -> None:
        before = _declared.collection(str(folder))
        (folder / "README.md").write_text("edited")
        (folder / "tests").mkdir()
        (folder / "tests" / "t.py").write_text("")
        (folder / "plugins" / "__pycache__").mkdir()
        (folder / "plugins" / "__pycache__" / "m.pyc").write_text("")
        os.utime(folder / "plugins" / "m.py", (1, 1))
        assert _declared.collection(str(folder)) == before
        (tmp_path / "there").mkdir()
        for part in _declared.CODE:
            (tmp_path / part).rename(tmp_path / "there" / part)
        assert _declared.collection(str(tmp_path / "there")) == before

    def test_an_installed_one_is_known_by_the_list_of_its_files(self, folder: Path) -> None:
        listed = folder / "FILES.json"
        listed.write_text('{"files": []}')
        assert _declared.collection(str(folder)) == hashlib.sha256(listed.read_bytes()).hexdigest()


class TestDigest:
    """All of it."""

    def digest(self, variables: dict[str, Any] | None = None, **more: Any) -> str:
        values = _declared.values(VARIABLES if variables is None else variables, same)
        return _declared.digest(values, **{"sources": {"src": "1"}, "peers": [], "collection": "2", **more})

    def test_the_same_is_the_same_in_any_order(self) -> None:
        turned = dict(reversed(list(VARIABLES.items())))
        assert self.digest(turned) == self.digest()
        assert len(self.digest()) == 64

    @pytest.mark.parametrize(
        "changed",
        [
            {"redis_server_maxmemory": "2gb"},
            {"redis_server_maxmemory": None},
            {"redis_server_port": 6379},
            {"redis_modules": []},
            {"redis_modules": [{"name": "a", "src": "src", "args": ["x"]}]},
            {"redis_modules": [{"name": "a", "src": "other"}]},
            {"redis_rollout_releases": {"a": "previous"}},
            {"redis_firewall_allowed_cidrs": ["10.0.0.0/9"]},
            {"redis_rollout_another": 1},
        ],
    )
    def test_any_change_of_a_variable_changes_it(self, changed: dict[str, Any]) -> None:
        assert self.digest({**VARIABLES, **changed}) != self.digest()

    def test_and_so_does_each_that_is_gone(self) -> None:
        digests = {self.digest({key: value for key, value in VARIABLES.items() if key != name}) for name in VARIABLES}
        assert len(digests | {self.digest()}) == len(VARIABLES) + 1

    @pytest.mark.parametrize(
        "more", [{"sources": {"src": "2"}}, {"sources": {}}, {"peers": ["x"]}, {"collection": "3"}]
    )
    def test_and_of_a_source_of_the_peers_and_of_the_collection(self, more: dict[str, Any]) -> None:
        assert self.digest(**more) != self.digest()

    def test_how_what_was_found_and_what_is_others_does_not(self) -> None:
        more = dict.fromkeys([*_declared.HOW, *_declared.RESULTS, "redis_hosts", "ansible_host", "x"], "something")
        assert self.digest({**VARIABLES, **more}) == self.digest()

    def test_where_an_artifact_lies_is_no_matter_where_its_digest_is_declared(self) -> None:
        def of(**entry: Any) -> str:
            return self.digest({"redis_modules": [{"name": "a", **entry}]})

        known = of(artifact="/here/a.so", sha256="0" * 64)
        assert of(artifact="/there/a.so", sha256="0" * 64) == known
        assert of(artifact="https://files.example.com/a.so", sha256="0" * 64) == known
        assert of(artifact="/here/a.so", sha256="1" * 64) != known
        assert of(artifact="/here/a.so") != of(artifact="/there/a.so")
        assert of(artifact="/here/a.so", sha256="") != of(artifact="/there/a.so", sha256="")

    def test_what_is_declared_stays_as_it_is(self) -> None:
        declared = {"redis_modules": [{"name": "a", "artifact": "/a.so", "sha256": "0" * 64}]}
        _declared.digest(declared)
        assert declared["redis_modules"][0]["artifact"] == "/a.so"

    def test_of_text_that_is_no_unicode(self) -> None:
        digests = {self.digest({"redis_server_requirepass": word}) for word in ("\udcff", "\udcfe")}
        assert len(digests) == 2

    def test_modules_that_nobody_declares(self) -> None:
        digests = {_declared.digest(declared) for declared in ({}, {"redis_modules": None}, {"redis_modules": []})}
        assert len(digests) == 1
