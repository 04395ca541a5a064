# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every verdict, with the differences that lead to it; what must be set, and why a server must be restarted."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _plan
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._host import FileState, LiveImage
from ansible_collections.edgeops.redis_modules.plugins.module_utils._plan import SettingChange, Verdict, Wanted

PATH = "/m/sensor.so"
OLD, NEW = "1" * 64, "2" * 64

WANTED = Wanted("sensor", "present", PATH, ("a", "b c"), 2, NEW, "redis", "redis", "0555")
LOADED = LoadedModule("sensor", 2, PATH, ("a", "b c"))
DISK = FileState(PATH, "redis", "redis", "0555", NEW, 100)
LIVE = LiveImage(PATH, 7, False, NEW)
STALE = "the running server still has an older file mapped; a restart loads the new one"


class TestPresent:
    """A module that is wanted."""

    def judge(
        self,
        wanted: Wanted = WANTED,
        loaded: LoadedModule | None = LOADED,
        disk: FileState | None = DISK,
        live: LiveImage | None = LIVE,
        runs: bool = True,
    ) -> Any:
        verdict = _plan.judge(wanted, loaded, disk, live, runs)
        return verdict.verdict, verdict.differences

    def test_loaded_where_all_is_as_wanted(self) -> None:
        assert self.judge() == ("loaded", [])

    def test_loaded_where_the_live_image_can_not_be_seen(self) -> None:
        assert self.judge(live=None) == ("loaded", [])

    def test_before_7_0_path_and_arguments_can_not_differ(self) -> None:
        assert self.judge(loaded=LoadedModule("sensor", 2, None, None)) == ("loaded", [])

    def test_what_is_not_asked_is_not_compared(self) -> None:
        anything = Wanted("sensor", "present", PATH, ("a", "b c"), None)
        assert self.judge(wanted=anything, disk=FileState(PATH, "x", "y", "0777", OLD, 1), live=None)[0] == "loaded"

    def test_restart_pending_where_only_the_live_image_is_older(self) -> None:
        assert self.judge(live=LiveImage(PATH, 7, True, OLD)) == ("restart-pending", [STALE])

    def test_restart_pending_by_the_inode_where_the_live_image_can_not_be_read(self) -> None:
        assert self.judge(live=LiveImage(PATH, 7, True, "")) == ("restart-pending", [STALE])

    def test_a_new_inode_with_the_same_content_needs_no_restart(self) -> None:
        assert self.judge(live=LiveImage(PATH, 7, True, NEW)) == ("loaded", [])

    def test_other_content_is_stale_even_where_the_path_still_names_it(self) -> None:
        assert self.judge(live=LiveImage(PATH, 7, False, OLD))[0] == "restart-pending"

    @pytest.mark.parametrize(
        ("change", "difference"),
        [
            ({"owner": "root"}, "owner is root, wanted redis"),
            ({"group": "root"}, "group is root, wanted redis"),
            ({"mode": "0777"}, "mode is 0777, wanted 0555"),
            ({"sha256": OLD}, f"sha256 is {OLD}, wanted {NEW}"),
        ],
    )
    def test_drifted_by_the_file(self, change: Any, difference: str) -> None:
        assert self.judge(disk=DISK._replace(**change), live=None) == ("drifted", [difference])

    @pytest.mark.parametrize(
        ("change", "difference"),
        [
            ({"version": 1}, "version is 1, wanted 2"),
            ({"path": "/other.so"}, "loaded from /other.so, wanted /m/sensor.so"),
            ({"args": ()}, "arguments are [], wanted ['a', 'b c']"),
            ({"args": ("b c", "a")}, "arguments are ['b c', 'a'], wanted ['a', 'b c']"),
            ({"args": ("a", "b", "c")}, "arguments are ['a', 'b', 'c'], wanted ['a', 'b c']"),
        ],
    )
    def test_drifted_by_what_runs(self, change: Any, difference: str) -> None:
        assert self.judge(loaded=LOADED._replace(**change)) == ("drifted", [difference])

    def test_a_version_of_nought_is_compared_too(self) -> None:
        assert self.judge(wanted=WANTED._replace(version=0))[0] == "drifted"

    def test_a_mode_may_be_written_without_its_leading_nought(self) -> None:
        assert self.judge(wanted=WANTED._replace(mode="555")) == ("loaded", [])

    def test_drifted_goes_before_restart_pending_and_tells_both(self) -> None:
        verdict, differences = self.judge(disk=DISK._replace(owner="root"), live=LiveImage(PATH, 7, True, OLD))
        assert (verdict, differences) == ("drifted", ["owner is root, wanted redis", STALE])
        verdict, differences = self.judge(loaded=LOADED._replace(version=1), live=LiveImage(PATH, 7, True, OLD))
        assert (verdict, differences) == ("drifted", ["version is 1, wanted 2", STALE])

    def test_drifted_where_the_file_is_gone_under_a_running_module(self) -> None:
        assert self.judge(disk=None) == ("drifted", ["no file at /m/sensor.so"])

    def test_missing_where_module_list_does_not_have_it(self) -> None:
        assert self.judge(loaded=None, live=None) == ("missing", ["MODULE LIST does not report it"])
        assert self.judge(loaded=None, disk=None, live=None) == (
            "missing",
            ["MODULE LIST does not report it", "no file at /m/sensor.so"],
        )

    def test_broken_where_the_server_does_not_run(self) -> None:
        assert self.judge(loaded=None, live=None, runs=False) == ("broken", ["the server does not run"])
        assert self.judge(loaded=None, disk=None, live=None, runs=False) == (
            "broken",
            ["the server does not run", "no file at /m/sensor.so"],
        )

    def test_only_loaded_and_absent_need_nothing_done(self) -> None:
        assert set(_plan.GOOD) == {"loaded", "absent"}

    def test_the_verdict_holds_what_was_found(self) -> None:
        found = LOADED._replace(version=1, path="/other.so")
        verdict = _plan.judge(WANTED, found, DISK._replace(sha256=OLD), LiveImage(PATH, 7, True, "3"))
        assert verdict[3:] == (1, "/other.so", OLD, "3")
        assert verdict.as_dict()["live_sha256"] == "3"
        assert _plan.judge(WANTED, LOADED._replace(path=None), DISK, LIVE).path == PATH
        assert _plan.judge(WANTED, None, None, None)[3:] == (None, PATH, "", "")


class TestAbsent:
    """A module that must be gone."""

    @pytest.mark.parametrize(
        ("loaded", "disk", "runs", "verdict", "differences"),
        [
            (None, None, True, "absent", []),
            (None, None, False, "absent", []),
            (LOADED, None, True, "restart-pending", ["MODULE LIST still reports it"]),
            (None, DISK, True, "drifted", ["its file is still at /m/sensor.so"]),
            (None, DISK, False, "drifted", ["its file is still at /m/sensor.so"]),
            (LOADED, DISK, True, "drifted", ["MODULE LIST still reports it", "its file is still at /m/sensor.so"]),
        ],
    )
    def test_it(self, loaded: Any, disk: Any, runs: bool, verdict: str, differences: list[str]) -> None:
        found = _plan.judge(WANTED._replace(state="absent"), loaded, disk, None, runs)
        assert (found.verdict, found.differences) == (verdict, differences)


def test_only_modules_of_others_that_are_not_built_in_are_undeclared() -> None:
    loaded = [
        LOADED,
        LoadedModule("stranger", 1, "/x.so", ()),
        LoadedModule("vectorset", 1, "", ()),
        LoadedModule("old", 1, None, None),
    ]
    assert [m.name for m in _plan.undeclared(loaded, ["sensor"])] == ["stranger", "old"]


class TestChangedModules:
    """Those whose data has to be tried."""

    ENTRY: ClassVar[Any] = {"name": "sensor", "path": PATH, "args": ["a", "b c"]}

    def changed(
        self, loaded: LoadedModule | None = LOADED, live: LiveImage | None = LIVE, digest: str = NEW, **entry: Any
    ) -> bool:
        other = {"name": "other", "path": "/m/other.so"}
        names = _plan.changed_modules(
            [LoadedModule("other", 1, "/m/other.so", ()), *([loaded] if loaded else [])],
            {"/m/other.so": LiveImage("/m/other.so", 8, False, OLD), **({PATH: live} if live else {})},
            [{**self.ENTRY, **entry}, other],
            {PATH: digest, "/m/other.so": OLD},
        )
        assert names in (["sensor"], [])
        return bool(names)

    def test_none_where_the_same_runs(self) -> None:
        assert not self.changed()

    def test_also_where_another_file_has_the_name_by_now(self) -> None:
        assert not self.changed(live=LiveImage(PATH, 7, True, NEW))

    def test_where_arguments_are_not_told(self) -> None:
        assert not self.changed(LoadedModule("sensor", 2, None, None), args=["x"])

    def test_no_arguments_are_none_however_it_is_said(self) -> None:
        without = LoadedModule("sensor", 2, PATH, ())
        assert not self.changed(without, args=None)
        assert not self.changed(without, args=[])

    def test_one_that_does_not_run(self) -> None:
        assert self.changed(None)

    def test_another_file(self) -> None:
        assert self.changed(digest=OLD)

    def test_a_file_that_can_not_be_seen(self) -> None:
        assert self.changed(live=None)
        assert self.changed(live=LiveImage(PATH, 7, True, ""))

    @pytest.mark.parametrize("args", [[], ["a"], ["b c", "a"], ["a", "b", "c"]])
    def test_other_arguments(self, args: list[str]) -> None:
        assert self.changed(args=args)

    def test_one_that_is_not_declared_is_none_of_them(self) -> None:
        assert _plan.changed_modules([LOADED], {PATH: LIVE}, [], {}) == []


class TestSettingChanges:
    """The running server's settings against those of a throwaway one."""

    def changes(self, running: Any, tried: Any, conf: str = "") -> list[SettingChange]:
        return _plan.setting_changes(running, tried, _conf.parse(conf))

    def test_none_where_both_say_the_same(self) -> None:
        assert self.changes({"maxmemory": "100"}, {"maxmemory": "100"}) == []

    def test_each_difference_by_name(self) -> None:
        running = {"b": "1", "a": "1", "same": "1"}
        assert self.changes(running, {"b": "2", "a": "", "same": "1"}) == [
            SettingChange("a", "1", ""),
            SettingChange("b", "1", "2"),
        ]

    def test_what_only_one_of_them_knows_is_no_difference(self) -> None:
        assert self.changes({"only-running": "1"}, {"only-tried": "1"}) == []

    def test_the_throwaway_servers_own_place_is_no_difference(self) -> None:
        running = {
            "port": "6379",
            "dir": "/var/lib/redis",
            "unixsocket": "",
            "logfile": "/l",
            "daemonize": "no",
            "replicaof": "10.0.0.1 6379",
            "maxclients": "99",
        }
        tried = {
            "port": "0",
            "dir": "/run/trial",
            "unixsocket": "/run/trial/s",
            "logfile": "",
            "daemonize": "no",
            "replicaof": "",
            "maxclients": "10",
        }
        assert self.changes(running, tried) == []

    @pytest.mark.parametrize(
        ("conf", "name", "now", "wanted"),
        [
            ("port 6380", "port", "6379", "6380"),
            ("bind 127.0.0.1 -::1", "bind", "127.0.0.1", "127.0.0.1 -::1"),
            ("dir /data", "dir", "/var/lib/redis", "/data"),
            ('logfile ""', "logfile", "/l", ""),
            ("maxclients 5", "maxclients", "10", "5"),
            ("pidfile /b", "pidfile", "/a", "/b"),
            ("tls-port 1", "tls-port", "0", "1"),
            ("unixsocket /b", "unixsocket", "/a", "/b"),
            ("aclfile /b", "aclfile", "/a", "/b"),
            ("cluster-enabled yes", "cluster-enabled", "no", "yes"),
            ("cluster-config-file b.conf", "cluster-config-file", "nodes.conf", "b.conf"),
            ("unixsocketperm 777", "unixsocketperm", "770", "777"),
            ("syslog-enabled yes", "syslog-enabled", "no", "yes"),
        ],
    )
    def test_a_tie_to_the_place_is_compared_with_what_redis_conf_names(
        self, conf: str, name: str, now: str, wanted: str
    ) -> None:
        assert self.changes({name: now}, {name: "the throwaway server's"}, conf) == [SettingChange(name, now, wanted)]
        assert self.changes({name: wanted}, {name: "the throwaway server's"}, conf) == []

    def test_a_folder_behind_a_link_or_with_a_slash_is_the_same_folder(self, tmp_path: Path) -> None:
        # CONFIG GET dir answers with the folder that the process is in, which has no links in its name.
        (tmp_path / "data").mkdir()
        (tmp_path / "link").symlink_to("data")
        running = {"dir": str((tmp_path / "data").resolve())}
        assert self.changes(running, {}, f"dir {tmp_path}/link") == []
        assert self.changes(running, {}, f"dir {tmp_path}/data/") == []

    @pytest.mark.parametrize("written", ["770", "0770"])
    def test_a_socket_mode_may_have_a_leading_nought(self, written: str) -> None:
        assert self.changes({"unixsocketperm": "770"}, {}, f"unixsocketperm {written}") == []

    def test_the_last_line_of_a_repeated_directive_counts(self) -> None:
        assert self.changes({"port": "2"}, {}, "port 1\nport 2") == []

    def test_a_replicas_primary_is_not_ours_to_change(self) -> None:
        assert self.changes({"replicaof": "10.0.0.2 6379"}, {"replicaof": ""}, "replicaof 10.0.0.1 6379") == []


class TestRestartReasons:
    """Why the running server must be started anew."""

    BAD = Verdict("sensor", "restart-pending", ["older", "other"], 1, PATH, "", "")

    def test_none_where_all_is_as_wanted(self) -> None:
        assert _plan.restart_reasons(1, "d", "d", [], []) == []

    def test_a_server_that_does_not_run_has_just_this_one(self) -> None:
        assert _plan.restart_reasons(0, "x", "d", [self.BAD], [LOADED]) == ["the server does not run"]

    @pytest.mark.parametrize("started_with", ["", "other"])
    def test_another_start(self, started_with: str) -> None:
        assert _plan.restart_reasons(1, started_with, "d", [], []) == [
            "it was started with another drop-in, module list or renamed commands"
        ]

    def test_each_difference_of_each_module_and_each_stranger(self) -> None:
        assert _plan.restart_reasons(1, "d", "d", [self.BAD], [LoadedModule("x", 1, "/x", ())]) == [
            "module sensor: older",
            "module sensor: other",
            "module x is loaded but no longer configured",
        ]


class TestData:
    """A start must never come up without the data."""

    BEFORE = _conf.parse("dir /var/lib/redis\ndbfilename dump.rdb\n")

    def moved(self, wanted: str, *there: str) -> str:
        return _plan.moved_data(self.BEFORE, _conf.parse(wanted), lambda path: path in there)

    @pytest.mark.parametrize("wanted", ["dir /data", "dir /var/lib/redis\ndbfilename other.rdb"])
    def test_an_rdb_that_would_be_looked_for_elsewhere_is_told(self, wanted: str) -> None:
        said = self.moved(wanted, "/var/lib/redis/dump.rdb")
        assert "the server keeps its data in /var/lib/redis/dump.rdb" in said

    def test_nothing_is_told_where_nothing_moves_or_the_data_has_been_moved(self) -> None:
        assert self.moved("dir /var/lib/redis", "/var/lib/redis/dump.rdb") == ""
        assert self.moved("dir /var/lib/redis/", "/var/lib/redis/dump.rdb") == ""
        assert self.moved("dir /data") == ""
        assert self.moved("dir /data", "/var/lib/redis/dump.rdb", "/data/dump.rdb") == ""

    def unread(self, conf: str, *there: str) -> str:
        return _plan.unread_data(_conf.parse("dir /d\n" + conf), lambda path: path in there)

    def test_an_rdb_that_appendonly_would_ignore_is_told(self) -> None:
        assert "a start would ignore /d/dump.rdb and come up empty" in self.unread("appendonly yes", "/d/dump.rdb")

    def test_nothing_is_told_without_appendonly_without_data_or_with_an_aof(self) -> None:
        assert self.unread("appendonly no", "/d/dump.rdb") == ""
        assert self.unread("", "/d/dump.rdb") == ""
        assert self.unread("appendonly yes") == ""
        assert self.unread("appendonly yes", "/d/dump.rdb", "/d/appendonly.aof") == ""
        assert self.unread("appendonly yes", "/d/dump.rdb", "/d/appendonlydir/appendonly.aof.manifest") == ""
        assert self.unread("appendonly yes\nappendfilename x\nappenddirname y", "/d/dump.rdb", "/d/y/x.manifest") == ""


class TestSameToServer:
    """What CONFIG REWRITE may do to a redis.conf without making it another."""

    WANTED = "port 1\nbind 127.0.0.1\nloadmodule /m/a.so x\nrename-command DEBUG dbg\ndir /d\n"

    @pytest.mark.parametrize(
        "found",
        [
            "bind 127.0.0.1\nport 1\nrename-command DEBUG dbg\nloadmodule /m/a.so x\ndir /d\n",
            WANTED + "replicaof 10.0.0.1 6379\nsupervised systemd\ntls-port 0\nhz 10\n",
        ],
    )
    def test_the_same(self, found: str) -> None:
        assert _plan.same_unasked(_conf.parse(found), _conf.parse(self.WANTED))

    @pytest.mark.parametrize(
        "found",
        [
            WANTED.replace("port 1", "port 2"),
            WANTED.replace("a.so x", "a.so y"),
            WANTED + "loadmodule /m/b.so\n",
            WANTED + "include /x\n",
            WANTED + "unixsocket /s\n",
            WANTED.replace("dbg", "other"),
            WANTED.replace("dir /d\n", ""),
        ],
    )
    def test_another(self, found: str) -> None:
        assert not _plan.same_unasked(_conf.parse(found), _conf.parse(self.WANTED))

    def test_settings_but_for_the_place(self) -> None:
        one = {"maxmemory": "1", "dir": "/a", "unixsocket": "/a/s", "tls-replication": "yes"}
        assert _plan.same_settings(one, {**one, "dir": "/b", "unixsocket": "/b/s", "tls-replication": "no"})
        assert not _plan.same_settings(one, {**one, "maxmemory": "2"})
        assert not _plan.same_settings(one, {**one, "a.level": "2"})
