# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A running server's modules are changed only where nothing known can crash it, and there is a way back."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _hot, _release
from ansible_collections.edgeops.redis_modules.plugins.module_utils._hot import Change, Code, Loading, Seen, Step

SIX, SEVEN = (6, 0, 16), (7, 0, 15)
CONF = "loadmodule /m/a.so x\nloadmodule /m/b.so\nmaxmemory 1\n"
RECORD = _conf.start_digest(_conf.parse(CONF), "")


def entry(name: str, *args: str, state: str = "present", strategy: str = "hot") -> dict[str, Any]:
    return {"name": name, "path": f"/m/{name}.so", "args": list(args), "state": state, "strategy": strategy}


A, B = entry("a", "x"), entry("b", strategy="hot_or_restart")


class TestChanges:
    """Found from what runs and from what the last start left."""

    def test_none_where_all_runs_as_declared(self) -> None:
        assert _hot.changes([A, B], ["a", "b"], [], RECORD) == []

    def test_one_that_does_not_run_is_loaded(self) -> None:
        assert _hot.changes([A, B], ["a"], ["b"], RECORD) == [Change("b", "load", "hot_or_restart")]

    def test_one_that_runs_otherwise_is_reloaded(self) -> None:
        assert _hot.changes([A, B], ["a", "b"], ["a"], RECORD) == [Change("a", "reload", "hot")]

    def test_other_arguments_are_seen_in_the_record_alone(self) -> None:
        assert _hot.changes([entry("a", "y"), B], ["a", "b"], [], RECORD) == [Change("a", "reload", "hot")]

    def test_a_server_that_was_never_started_by_us_tells_nothing(self) -> None:
        assert _hot.changes([entry("a", "y"), B], ["a", "b"], [], "") == []

    def test_those_that_go_are_first_so_that_their_commands_are_free(self) -> None:
        gone = entry("gone", state="absent")
        assert _hot.changes([entry("c"), A, B, gone], ["a", "b", "gone"], [], RECORD) == [
            Change("gone", "unload", "hot"),
            Change("c", "load", "hot"),
        ]
        assert _hot.changes([A, B, gone], ["a", "b"], [], RECORD) == []

    def test_one_that_nobody_declared_is_left_to_a_restart(self) -> None:
        assert _hot.changes([A, B], ["a", "b", "c"], [], RECORD) == [Change("c", "unload", "restart")]


def test_the_arguments_of_a_running_module_are_those_that_the_record_proves() -> None:
    confs = [_conf.parse("loadmodule /m/a.so y"), _conf.parse(CONF)]
    assert _hot.arguments("/m/a.so", RECORD, confs) == ["x"]
    assert _hot.arguments("/m/b.so", RECORD, confs) == []
    assert _hot.arguments("/m/a.so", RECORD, confs[:1]) is None
    assert _hot.arguments("/m/a.so", "", confs) is None


PLAIN = Code(frozenset(["RedisModule_CreateCommand"]), nodelete=False, threads=False)
TYPED = Code(frozenset(["RedisModule_CreateDataType"]), nodelete=False, threads=False)
TIMED = Code(frozenset(["RedisModule_CreateTimer"]), nodelete=False, threads=False)
UNKNOWN = PLAIN._replace(calls=None)
RELOAD = Change("a", "reload", "hot")


def obstacle(seen: Seen, version: tuple[int, ...] = SEVEN, change: Change = RELOAD) -> str:
    """Return the one obstacle that there is; empty where there is none."""
    found = _hot.obstacles(change, seen, version)
    assert len(found) <= 1, found
    return found[0] if found else ""


class TestObstacles:
    """Each condition by itself."""

    @pytest.mark.parametrize("version", [SIX, SEVEN])
    @pytest.mark.parametrize(
        ("step", "seen"),
        [
            ("load", Seen(new=PLAIN)),
            ("reload", Seen(running=PLAIN, new=PLAIN)),
            ("unload", Seen(running=PLAIN)),
            # In check mode, what is going to be built can't be read yet.
            ("load", Seen()),
        ],
    )
    def test_none(self, version: tuple[int, ...], step: str, seen: Seen) -> None:
        assert _hot.obstacles(Change("a", step, "hot"), seen, version) == []

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (TYPED, "has a data type"),
            (PLAIN._replace(nodelete=True), "is marked NODELETE"),
            (PLAIN._replace(threads=True), "starts threads"),
            (PLAIN._replace(calls=frozenset(["RedisModule_EventLoopAdd"])), "watches files or sockets"),
        ],
    )
    def test_what_is_in_the_code(self, code: Code, words: str) -> None:
        running = obstacle(Seen(running=code, new=PLAIN))
        assert running.startswith("module a: the file that it runs from ")
        assert words in running
        coming = obstacle(Seen(running=PLAIN, new=code))
        assert coming.startswith("module a: the new file ")
        assert words in coming

    @pytest.mark.parametrize(("code", "words"), [(TIMED, "uses timers"), (UNKNOWN, "can't be read for its calls")])
    def test_what_redis_6_unloads_and_crashes_of(self, code: Code, words: str) -> None:
        assert words in obstacle(Seen(running=code, new=PLAIN), SIX)
        assert words in obstacle(Seen(new=code), SIX, Change("a", "load", "hot"))
        assert obstacle(Seen(running=code, new=code), SEVEN) == ""

    def test_what_there_is_no_way_back_from(self) -> None:
        assert "the file that it runs from can't be read" in obstacle(Seen(new=PLAIN))
        assert "nobody knows the arguments" in obstacle(Seen(running=PLAIN, new=PLAIN, args=None))

    def test_who_uses_it(self) -> None:
        assert obstacle(Seen(running=PLAIN, new=PLAIN, used_by=["b", "c"])) == "module a: it is used by b, c"
        assert obstacle(Seen(running=PLAIN, named=["the ACL user x"])) == "module a: the ACL user x"

    def test_another_strategy(self) -> None:
        said = obstacle(Seen(), change=Change("a", "reload", "restart"))
        assert said == "module a changes as well, and its strategy is restart"

    @pytest.mark.parametrize(
        ("version", "enabled", "local", "words"),
        [
            (SIX, "no", False, ""),
            (SEVEN, "yes", False, ""),
            (SEVEN, "local", True, ""),
            (SEVEN, "local", False, "over this connection"),
            (SEVEN, "no", True, "enable-module-command is no"),
        ],
    )
    def test_whether_the_server_takes_the_command(
        self, version: tuple[int, ...], enabled: str, local: bool, words: str
    ) -> None:
        said = _hot.command_obstacle(version, enabled, local)
        assert words in said
        assert bool(said) == bool(words)


class TestFile:
    """What is read from a file itself."""

    THREADS = (
        "#include <pthread.h>\nint RedisModule_OnLoad(void) { pthread_t t; return pthread_create(&t, 0, 0, 0); }\n"
    )

    def test_threads_without_an_end(self, build_so: Callable[..., str]) -> None:
        assert _hot.code(build_so("t.so", self.THREADS), None, nodelete=True) == Code(None, True, True)
        ended = self.THREADS + "int RedisModule_OnUnload(void) { return 0; }\n"
        assert not _hot.code(build_so("e.so", ended), None, nodelete=False).threads
        assert not _hot.code(build_so(), frozenset(), nodelete=False).threads


def test_who_uses_whom() -> None:
    text = (
        "# Modules\r\nmodule:name=a,ver=1,api=1,filters=0,usedby=[b|c],using=[],options=[]\r\n"
        "module:name=b,ver=10,api=1,filters=0,usedby=[],using=[a],options=[handle-io-errors|x]\r\n"
    )
    assert _hot.used_by(text.encode()) == {"a": ["b", "c"], "b": []}


class TestNamed:
    """ACL LIST as each version writes it."""

    @pytest.mark.parametrize(
        "rule",
        [
            "user u on nopass ~* -@all +a.get",
            "user u on nopass ~* +@all -a.get",
            "user u on nopass ~* -@all +A.Get",
            "user u on #0123 ~* resetchannels -@all +a.get|sub",
            "user u on nopass sanitize-payload ~* resetchannels -@all (~k resetchannels -@all +a.get)",
            "user u on nopass ~* -@all (+a.get ~k)",
        ],
    )
    def test_a_rule_that_names_a_command(self, rule: str) -> None:
        (said,) = _hot.named_by(["user default on nopass ~* &* +@all", rule], ["a.get", "a.set"], "its")
        assert said.startswith("the ACL user u names its command a.get")

    @pytest.mark.parametrize(
        "rule",
        [
            "user u on nopass ~* +@all",
            "user u on nopass ~a.get &a.get -@all +get",
            "user a.get on nopass ~* -@all +b.get",
            "user u on nopass ~* +@a.get",
        ],
    )
    def test_a_rule_that_does_not(self, rule: str) -> None:
        assert _hot.named_by([rule], ["a.get", "a.set|sub"], "its") == []


class Server:
    """Stands for MODULE of a server: remembers what is loaded, and refuses what a test says."""

    def __init__(self, **loaded: str) -> None:
        self.loaded = dict(loaded)
        self.said: list[list[str]] = []
        self.refuses: dict[tuple[str, str], Exception] = {}

    def __call__(self, *words: str) -> bytes:
        self.said.append(list(words))
        name = words[1] if words[0] == "UNLOAD" else os.path.basename(words[1])[: -len(".so")]
        error = self.refuses.pop((words[0], name), None)
        if error:
            raise error
        if words[0] == "UNLOAD":
            del self.loaded[name]
        else:
            self.loaded[name] = Path(words[1]).read_text()
        return b"OK"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a module folder with new files, and copies of the former ones."""
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    for name in ("a", "b"):
        (tmp_path / f"{name}.so").write_text("new " + name)
        (tmp_path / f"{name}.kept").write_text("old " + name)
    return tmp_path


def steps(folder: Path) -> list[Step]:
    """Return a reload of a, a load of c, an unload of b."""
    (folder / "c.so").write_text("new c")

    def former(name: str) -> Loading:
        return Loading(str(folder / f"{name}.so"), ["old"], {}, str(folder / f"{name}.kept"))

    return [
        Step("b", former("b"), None),
        Step("a", former("a"), Loading(str(folder / "a.so"), ["n"], {"a.x": "1"})),
        Step("c", None, Loading(str(folder / "c.so"), [], {})),
    ]


class TestSwitch:
    """One after another, and the same way back."""

    def test_all_goes_well(self, folder: Path) -> None:
        server, confirmed = Server(a="old a", b="old b"), []
        _hot.Switch(server, confirmed.append).run(steps(folder))
        assert server.loaded == {"a": "new a", "c": "new c"}
        assert confirmed == ["a", "c"]
        assert server.said == [
            ["UNLOAD", "b"],
            ["UNLOAD", "a"],
            ["LOADEX", str(folder / "a.so"), "CONFIG", "a.x", "1", "ARGS", "n"],
            ["LOAD", str(folder / "c.so")],
        ]

    def test_a_load_that_fails_brings_all_back(self, folder: Path) -> None:
        server = Server(a="old a", b="old b")
        server.refuses["LOAD", "c"] = _client.ServerError("ERR Error loading the extension")
        switch = _hot.Switch(server, lambda name: None)
        with pytest.raises(_hot.HotError, match=r"module c: the running server does not load .*ERR Error loading"):
            switch.run(steps(folder))
        assert switch.take_back() == "what ran before was loaded again at once: a, b"
        assert server.loaded == {"a": "old a", "b": "old b"}
        assert server.said[-3:] == [
            ["UNLOAD", "a"],
            ["LOAD", str(folder / "a.so"), "old"],
            ["LOAD", str(folder / "b.so"), "old"],
        ]
        assert (folder / "a.so").read_text() == "old a"

    def test_one_that_loads_and_does_not_run_as_it_should(self, folder: Path) -> None:
        server = Server(a="old a", b="old b")

        def confirm(name: str) -> None:
            if name == "c":
                raise _hot.HotError("module c: it was loaded, but version is 2, wanted 1")

        switch = _hot.Switch(server, confirm)
        with pytest.raises(_hot.HotError):
            switch.run(steps(folder))
        switch.take_back()
        assert server.loaded == {"a": "old a", "b": "old b"}

    def test_what_the_server_does_not_unload_is_still_there(self, folder: Path) -> None:
        server = Server(a="old a", b="old b")
        server.refuses["UNLOAD", "b"] = _client.ServerError("ERR the module has blocked clients")
        switch = _hot.Switch(server, lambda name: None)
        with pytest.raises(_hot.RefusedError, match="module b: the server does not unload it: ERR the module has"):
            switch.run(steps(folder))
        assert switch.take_back() == "the running server has the modules that it had before"
        assert server.said == [["UNLOAD", "b"]]
        assert (folder / "a.so").read_text() == "new a"

    @pytest.mark.parametrize("step", [("UNLOAD", "a"), ("LOADEX", "a")])
    def test_a_server_that_ends_is_no_refusal(self, folder: Path, step: tuple[str, str]) -> None:
        server = Server(a="old a", b="old b")
        server.refuses[step] = _client.NotReachedError("Connection reset by peer")
        with pytest.raises(_hot.HotError, match=r"module a: the server ended or hung at MODULE") as caught:
            _hot.Switch(server, lambda name: None).run(steps(folder))
        assert not isinstance(caught.value, _hot.RefusedError)

    def test_the_way_back_can_fail_as_well(self, folder: Path) -> None:
        server = Server(a="old a", b="old b")
        server.refuses["LOADEX", "a"] = _client.ServerError("ERR no")
        server.refuses["LOAD", "a"] = _client.ServerError("ERR no again")
        switch = _hot.Switch(server, lambda name: None)
        with pytest.raises(_hot.HotError):
            switch.run(steps(folder))
        with pytest.raises(_hot.HotError, match="ERR no again"):
            switch.take_back()


def test_a_former_file_is_put_back_only_where_another_lies(folder: Path) -> None:
    path = folder / "a.so"
    path.chmod(0o555)
    _hot.put_back(str(folder / "a.kept"), str(path))
    assert path.read_text() == "old a"
    assert path.stat().st_mode & 0o777 == 0o555
    inode = path.stat().st_ino
    _hot.put_back(str(folder / "a.kept"), str(path))
    assert path.stat().st_ino == inode
    path.unlink()
    _hot.put_back(str(folder / "a.kept"), str(path))
    assert path.stat().st_mode & 0o111
