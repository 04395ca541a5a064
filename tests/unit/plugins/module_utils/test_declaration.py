# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every fault in redis_modules is told before anything is touched; what is left out gets its default."""

from __future__ import annotations

import re
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declaration
from ansible_collections.edgeops.redis_modules.plugins.module_utils._declaration import DeclarationError

FOLDER = "/var/lib/redis/modules"
DIGEST = "0123456789abcdef" * 4
SRC = {"name": "sensor", "src": "examples/sensor"}
ARTIFACT = {"name": "sensor", "artifact": "sensor.so", "sha256": DIGEST}


def faults_of(entries: Any) -> list[str]:
    """Return the lines of the error."""
    with pytest.raises(DeclarationError) as caught:
        _declaration.declared(entries, FOLDER)
    return str(caught.value).splitlines()


class TestDefaults:
    """A valid entry with every key filled in."""

    def test_the_shortest_entry_of_sources(self) -> None:
        assert _declaration.declared([SRC], FOLDER) == [
            {
                "name": "sensor",
                "state": "present",
                "src": "examples/sensor",
                "sources": [],
                "include_dirs": [],
                "defines": [],
                "cflags": [],
                "ldflags": [],
                "libraries": [],
                "make_target": None,
                "make_output": None,
                "make_args": [],
                "artifact": None,
                "sha256": None,
                "path": FOLDER + "/sensor.so",
                "args": [],
                "config": {},
                "version": None,
                "smoke": [],
                "restricted_commands": [],
                "restricted_to": [],
                "strategy": "restart",
                "accept": [],
            }
        ]

    def test_every_key_of_the_options_is_there(self) -> None:
        for entry in (SRC, ARTIFACT, {"name": "gone", "state": "absent"}):
            (module,) = _declaration.declared([entry], FOLDER)
            assert list(module) == list(_declaration.MODULE_OPTIONS)

    def test_null_is_the_same_as_leaving_it_out(self) -> None:
        nulls = dict.fromkeys(_declaration.MODULE_OPTIONS)
        assert _declaration.declared([{**nulls, **SRC}], FOLDER) == _declaration.declared([SRC], FOLDER)

    def test_no_two_entries_share_a_default(self) -> None:
        first, second = _declaration.declared([SRC, {**SRC, "name": "other"}], FOLDER)
        first["args"].append("x")
        first["config"]["x"] = "y"
        assert second["args"] == []
        assert second["config"] == {}
        assert _declaration.MODULE_OPTIONS["args"]["default"] == []

    def test_what_is_given_is_text(self) -> None:
        entry = {
            **SRC,
            "args": [1, "two words", 'a"#b', 3.5],
            "version": "7",
            "config": {"level": 3, "sensor.on": True, "off": False},
        }
        (module,) = _declaration.declared([entry], FOLDER)
        assert module["args"] == ["1", "two words", 'a"#b', "3.5"]
        assert module["version"] == 7
        assert module["config"] == {"sensor.level": "3", "sensor.on": "yes", "sensor.off": "no"}

    def test_a_truth_value_means_the_same_as_an_argument_and_as_a_setting(self) -> None:
        (module,) = _declaration.declared([{**SRC, "args": [True, False]}], FOLDER)
        assert module["args"] == ["yes", "no"]

    def test_a_digest_is_in_lower_case(self) -> None:
        (module,) = _declaration.declared([{**ARTIFACT, "sha256": DIGEST.upper()}], FOLDER)
        assert module["sha256"] == DIGEST

    @pytest.mark.parametrize(
        "path", ["other.so", "./other.so", "x/../other.so", FOLDER + "/other.so", FOLDER + "//other.so"]
    )
    def test_a_path_is_made_absolute(self, path: str) -> None:
        (module,) = _declaration.declared([{**SRC, "path": path}], FOLDER)
        assert module["path"] == FOLDER + "/other.so"

    def test_the_order_is_kept(self) -> None:
        names = ["c", "a", "b"]
        assert [m["name"] for m in _declaration.declared([{**SRC, "name": n} for n in names], FOLDER)] == names

    def test_an_empty_list_is_fine(self) -> None:
        assert _declaration.declared([], FOLDER) == []

    @pytest.mark.parametrize(
        ("key", "name"), [("level", "sensor.level"), ("other.level", "other.level"), ("sensor.level", "sensor.level")]
    )
    def test_a_modules_directive_has_the_modules_name_before_a_dot(self, key: str, name: str) -> None:
        assert _declaration.directive_name("sensor", key) == name

    @pytest.mark.parametrize(
        ("value", "text"), [(True, "yes"), (False, "no"), (5, "5"), ("yes", "yes"), ("", ""), (1.5, "1.5")]
    )
    def test_a_setting_is_written_as_redis_has_it(self, value: Any, text: str) -> None:
        assert _declaration.setting_text(value) == text


class TestShape:
    """What the variable itself must be."""

    @pytest.mark.parametrize(
        ("entries", "kind"), [({"name": "x"}, "dict"), ("x", "str"), (None, "NoneType"), (5, "int"), (b"x", "bytes")]
    )
    def test_it_must_be_a_list(self, entries: Any, kind: str) -> None:
        assert faults_of(entries) == [f"redis_modules must be a list of modules, not {kind}"]

    def test_each_entry_must_be_a_dictionary(self) -> None:
        assert faults_of([SRC, "sensor"]) == ["redis_modules[2] must be a dictionary with a name, not 'sensor'"]

    def test_all_faults_are_told_at_once_each_with_its_module(self) -> None:
        faults = faults_of([{"name": "a", "src": "x", "typo": 1}, {"src": "x"}, SRC, {"name": "b"}])
        assert [fault.split(":")[0] for fault in faults] == ["module a", "module number 2", "module b"]

    def test_a_name_twice(self) -> None:
        faults = faults_of([SRC, {**SRC, "path": "other.so"}])
        assert faults == ["module name sensor: it is declared 2 times; give each module one entry"]

    def test_a_path_twice(self) -> None:
        faults = faults_of([SRC, {**SRC, "name": "other", "path": "sensor.so"}])
        assert faults == [f"module path {FOLDER}/sensor.so: it is declared 2 times; give each module one entry"]

    def test_one_that_is_wanted_and_one_that_is_not_are_two_entries_as_well(self) -> None:
        assert "declared 2 times" in faults_of([SRC, {"name": "sensor", "state": "absent"}])[0]


class TestFaults:
    """Each fault of one entry."""

    @pytest.mark.parametrize(
        ("entry", "fault"),
        [
            ({**SRC, "source": ["a.c"]}, "module sensor: unknown key 'source'; the keys are name, state, src, sources"),
            ({**SRC, 5: 1}, "unknown key 5"),
            ({"src": "x"}, "module number 1: name '' must be letters, digits, _ . or -"),
            ({**SRC, "name": "a b"}, "name 'a b' must be letters"),
            ({**SRC, "name": "../x"}, "name '../x' must be letters"),
            ({**SRC, "name": "-x"}, "name '-x' must be letters"),
            ({**SRC, "name": ".x"}, "name '.x' must be letters"),
            ({**SRC, "name": "é"}, "must be letters"),
            ({**SRC, "name": ["x"]}, "name must be text, not ['x']"),
            ({**SRC, "state": "gone"}, "state 'gone' must be present or absent"),
            ({**SRC, "src": ["x"]}, "src must be text, not ['x']"),
            ({**SRC, "src": {"x": 1}}, "src must be text, not {'x': 1}"),
            ({**SRC, "args": "a b"}, "args must be a list, not 'a b'"),
            ({**SRC, "args": 5}, "args must be a list, not 5"),
            ({**SRC, "args": {"a": 1}}, "args must be a list, not {'a': 1}"),
            ({**SRC, "args": [["a"]]}, "args holds ['a']; each item must be text"),
            ({**SRC, "args": [{"a": 1}]}, "args holds {'a': 1}; each item must be text"),
            ({**SRC, "args": [None]}, "args holds None; each item must be text"),
            ({**SRC, "config": ["a"]}, "config must be a dictionary, not ['a']"),
            ({**SRC, "config": {"level": None}}, "level"),
            ({**SRC, "config": {"level": ["a"]}}, "level"),
            ({**SRC, "config": {"level 3\nport": 1}}, "level 3"),
            ({**SRC, "version": "1.0"}, "version must be a whole number as MODULE LIST reports it, not '1.0'"),
            ({**SRC, "version": 1.5}, "version must be a whole number"),
            ({**SRC, "version": True}, "version must be a whole number"),
            ({**SRC, "version": ""}, "version must be a whole number"),
            ({"name": "sensor"}, "give exactly one of src (C sources) or artifact (a built .so), not none"),
            ({**SRC, "artifact": "x.so", "sha256": DIGEST}, "not src and artifact"),
            ({"name": "sensor", "src": ""}, "not none"),
            ({"name": "sensor", "artifact": "x.so"}, "artifact needs its sha256 (64 hexadecimal digits"),
            ({**ARTIFACT, "sha256": DIGEST[:-1]}, "artifact needs its sha256"),
            ({**ARTIFACT, "sha256": DIGEST + "0"}, "artifact needs its sha256"),
            ({**ARTIFACT, "sha256": "g" * 64}, "artifact needs its sha256"),
            ({**ARTIFACT, "sources": ["a.c"]}, "sources goes with src, not with artifact"),
            ({**ARTIFACT, "cflags": ["-O0"]}, "cflags goes with src, not with artifact"),
            ({**ARTIFACT, "make_target": "all"}, "make_target goes with src, not with artifact"),
            ({**SRC, "sha256": DIGEST}, "sha256 goes with artifact, not with src"),
            ({**SRC, "make_target": "all"}, "make_target needs make_output"),
            ({**SRC, "make_output": "x.so"}, "make_output and make_args need make_target"),
            ({**SRC, "make_args": ["V=1"], "make_output": "x.so"}, "make_output and make_args need make_target"),
            (
                {**SRC, "make_target": "all", "make_output": "x.so", "cflags": ["-O0"]},
                "cflags is the Makefile's own business",
            ),
            (
                {**SRC, "make_target": "all", "make_output": "x.so", "sources": ["a.c"]},
                "sources is the Makefile's own business",
            ),
            ({**SRC, "make_target": "all", "make_output": "../x.so"}, "make_output: '../x.so' must lie below src"),
            ({**SRC, "make_target": "all", "make_output": "/x.so"}, "make_output: '/x.so' must lie below src"),
            ({**SRC, "sources": ["a.c", "../b.c"]}, "sources: '../b.c' must lie below src"),
            ({**SRC, "sources": ["x/../../b.c"]}, "must lie below src"),
            ({**SRC, "include_dirs": ["/usr/include"]}, "include_dirs: '/usr/include' must lie below src"),
            ({**SRC, "include_dirs": [".."]}, "include_dirs: '..' must lie below src"),
            ({**SRC, "cflags": ["-O0 -g"]}, "cflags: '-O0 -g' looks like several flags; give each its own item"),
            ({**SRC, "ldflags": ["-L/x -lm"]}, "ldflags: '-L/x -lm' looks like several flags"),
            ({**SRC, "defines": ["-DX"]}, "defines: '-DX' must be NAME or NAME=VALUE"),
            ({**SRC, "defines": ["1X"]}, "defines: '1X' must be NAME or NAME=VALUE"),
            ({**SRC, "defines": ["X Y"]}, "defines: 'X Y' must be NAME or NAME=VALUE"),
            ({**SRC, "libraries": ["-lm"]}, "libraries: '-lm' must be the bare name, as m or crypto"),
            ({**SRC, "args": ["a\0b"]}, "args: a NUL character can't be passed on"),
            ({**SRC, "defines": ["X=\0"]}, "defines: a NUL character can't be passed on"),
            ({**SRC, "path": "/opt/sensor.so"}, f"path /opt/sensor.so lies outside the module folder {FOLDER}"),
            ({**SRC, "path": "../sensor.so"}, "lies outside the module folder"),
            ({**SRC, "path": "sub/sensor.so"}, "lies outside the module folder"),
            ({**SRC, "path": FOLDER + "-x/sensor.so"}, "lies outside the module folder"),
            ({**SRC, "path": "sensor.bin"}, f"path {FOLDER}/sensor.bin must end in .so"),
            ({"name": "gone", "state": "absent", "path": "/etc/passwd"}, "lies outside the module folder"),
        ],
    )
    def test_it_is_told(self, entry: dict[Any, Any], fault: str) -> None:
        (said,) = faults_of([entry])
        assert said.startswith("module ")
        assert fault in said

    @pytest.mark.parametrize(
        "entry",
        [
            {**SRC, "defines": ["X", "X=1", "X=a b", "F(x)=x", "_x9="]},
            {**SRC, "sources": ["a.c", "sub/b.c", "./c.c", "..c"], "include_dirs": [".", "include"]},
            {**SRC, "cflags": ["-O0", "-DX=-1", "-Wl,-x"], "libraries": ["m", "ssl"], "ldflags": ["-Lx"]},
            {**SRC, "make_target": "all", "make_output": "out/x.so", "make_args": ["V=1"]},
            {**SRC, "version": 0},
            {**SRC, "version": "-1"},
            {**SRC, "name": "a.b-c_9"},
            {**SRC, "args": ["", "a b", '"', "'", "#", "\n", "é", "\\"]},
            ARTIFACT,
            {**ARTIFACT, "artifact": "https://files.example.com/x.so"},
            {"name": "gone", "state": "absent"},
            {"name": "gone", "state": "absent", "src": "x", "artifact": "y"},
        ],
    )
    def test_what_is_fine_passes(self, entry: dict[str, Any]) -> None:
        assert len(_declaration.declared([entry], FOLDER)) == 1

    def test_several_faults_of_one_entry_are_told_together(self) -> None:
        faults = faults_of([{**SRC, "name": "a b", "libraries": ["-lm"], "defines": ["1"]}])
        assert len(faults) == 3

    def test_the_module_folder_must_be_absolute(self) -> None:
        with pytest.raises(DeclarationError, match="the module folder 'modules' must be an absolute path"):
            _declaration.declared([SRC], "modules")


class TestTrialKeys:
    """What an entry says of its trial and its switch."""

    def test_smoke_commands_keep_what_is_expected_as_it_is(self) -> None:
        smoke = [
            {"command": ["A.ADD", 1, True], "expect": 1},
            {"command": ["A.GET"], "query": "[0]", "expect": None, "after_restart": False},
        ]
        (module,) = _declaration.declared([{"name": "a", "src": "a", "smoke": smoke}], FOLDER)
        assert module["smoke"] == [
            {"command": ["A.ADD", "1", "yes"], "expect": 1},
            {"command": ["A.GET"], "query": "[0]", "expect": None, "after_restart": False},
        ]

    @pytest.mark.parametrize(
        ("smoke", "fault"),
        [
            (["PING"], "each item needs a command"),
            ([{"expect": 1}], "each item needs a command"),
            ([{"command": "PING x"}], "must be a list of words"),
            ([{"command": ["PING", None]}], "must be text"),
            ([{"command": ["PING"], "expected": 1}], "unknown key 'expected'"),
            ([{"command": ["PING"], "query": "[0]"}], "needs what to expect"),
        ],
    )
    def test_a_smoke_command_is_checked(self, smoke: list[object], fault: str) -> None:
        with pytest.raises(_declaration.DeclarationError, match=re.escape(fault)):
            _declaration.declared([{"name": "a", "src": "a", "smoke": smoke}], FOLDER)

    def test_strategy_and_accept_are_words_of_their_own(self) -> None:
        with pytest.raises(_declaration.DeclarationError) as refused:
            _declaration.declared([{"name": "a", "src": "a", "strategy": "warm", "accept": ["all"]}], FOLDER)
        assert "strategy 'warm' must be restart, hot or hot_or_restart" in str(refused.value)
        assert "accept: 'all' is none of delete_keys" in str(refused.value)


@pytest.mark.parametrize(
    ("entries", "modules", "absent"),
    [
        ([{"name": "a"}, {"name": "b", "state": "absent"}, {"name": "c", "state": "present"}], ["a", "c"], ["b"]),
        ([], [], []),
        # declared() says what is wrong with these.
        (["a", {"state": "absent"}, {"name": 7}], ["7"], []),
        ("a", [], []),
        (None, [], []),
    ],
)
def test_the_names_by_state_of_whatever_is_declared(entries: Any, modules: list[str], absent: list[str]) -> None:
    assert _declaration.names_by_state(entries) == {"modules": modules, "absent": absent}


class TestWantedOfHost:
    """What the steps of a change take."""

    def wanted(self, strategy: str = "restart", handover: bool = False) -> dict[str, Any]:
        modules = [
            {"name": "a", "path": "/m/a.so", "state": "present", "strategy": strategy},
            {"name": "b", "path": "/m/b.so", "state": "absent", "strategy": "restart"},
        ]
        return _declaration.wanted_of_host(modules, "/etc/r.conf", "redis@x.service", handover)

    def test_the_modules_by_state_and_the_files(self) -> None:
        found = self.wanted()
        assert [[m["name"] for m in found[key]] for key in ("all", "present", "absent")] == [["a", "b"], ["a"], ["b"]]
        assert found["dropin_path"] == "/etc/systemd/system/redis@x.service.d/50-edgeops-redis-modules.conf"
        assert found["files"] == ["/etc/r.conf", found["dropin_path"], "/m/a.so", "/m/b.so"]

    def test_whether_a_start_is_to_be_told_before(self) -> None:
        assert self.wanted()["forecast"] == []
        assert self.wanted(strategy="hot")["forecast"] == ["a"]
        assert self.wanted(strategy="hot_or_restart")["forecast"] == ["a"]
        assert self.wanted(handover=True)["forecast"] == ["handover"]
