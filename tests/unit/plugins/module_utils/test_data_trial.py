# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's own data meets new modules in a copy first, and no key is given up that nobody named."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _data,
    _data_trial,
    _host,
    _plan,
    _rehearsal,
    _trial,
)
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._data_trial import Told
from ansible_collections.edgeops.redis_modules.plugins.module_utils._rehearsal import TrialError
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial

WHOLE = b"REDIS0010" + b"\xff" + b"checksum"
MIB = 1 << 20
LOG = "812:M 22 Nov 2026 12:00:00.123 "
USER = pwd.getpwuid(os.getuid()).pw_name
UP = Trial("", [], {}, [], True)


def lost(kind: str, aux: str = "", error: str = "exit status 1") -> Trial:
    """Return a trial of a server that has no module for some of its data."""
    words = f"The RDB file contains {aux}module data I can't load: no matching module type '{kind}'"
    return Trial(error, [], {}, [LOG + "# " + words])


class Host:
    """A host with a running server whose module a is going to change, and a copy of its data in a throwaway one."""

    def __init__(self, root: Path, server: Any, commands: Any) -> None:
        self.root, self.server, self.run_command = root, server, commands
        self.warnings: list[str] = []
        self.check_mode = False
        self.modules = [self.entry("a"), self.entry("b")]
        self.conf = f'loadmodule {root}/a.so x\nloadmodule {root}/b.so\ndbfilename "my data.rdb"\na.level 3\n'
        (root / "redis.conf").write_text(f"dir {root}/db\nloadmodule {root}/a.so\nloadmodule {root}/gone.so\n")
        (root / "db").mkdir()
        self.rdb = root / "db" / "dump.rdb"
        self.params: dict[str, Any] = {
            "conf_path": str(root / "redis.conf"),
            "modules": [{"name": name, "accept": []} for name in "ab"],
            "absent": [],
            "data_limit": 100,
            "data_folder": str(root / "state" / "data"),
            "data_timeout": 77,
            "login_host": "127.0.0.1",
            "login_port": 6379,
        }
        self.types: dict[str, Any] = {"a": ["win"], "b": ["bloom"]}
        server.info["used_memory_dataset"] = str(10 * MIB)
        server.modules = [LoadedModule(name, 1, f"{root}/{name}.so", ()) for name in "ab"]
        server.databases = {0: {"w1": "win", "w2": "win", "b": "bloom", "s": "string"}, 1: {"w": "win"}}
        self.images = {f"{root}/{name}.so": _host.LiveImage("", 1, False, self.digest(name)) for name in "ab"}
        self.images.pop(f"{root}/a.so")
        self.disk, self.memory = 1 << 40, 1 << 40
        self.fetched: list[str] = []
        self.unfetched: Exception | None = None
        self.outcomes: list[Any] = [UP]
        self.ran: list[str] = []
        self.limits: set[int] = set()
        self.holds_data: list[bool] = []
        self.copy = type(server)()
        self.copy.databases = {number: dict(keys) for number, keys in server.databases.items()}

    def entry(self, name: str) -> dict[str, Any]:
        artifact = self.root / f"new-{name}.so"
        artifact.write_text(name)
        return {"name": name, "path": f"{self.root}/{name}.so", "artifact": str(artifact), "args": []}

    def digest(self, name: str) -> str:
        return _host.sha256_of(str(self.root / f"new-{name}.so"))

    def accepts(self, *names: str) -> None:
        self.params["modules"] = [{"name": name, "accept": ["delete_keys"] if name in names else []} for name in "abc"]

    def goes(self, name: str = "gone", *accept: str, alone: bool = True) -> None:
        """Have a module run that is not to be there any more; alone where nothing else changes."""
        self.server.modules.append(LoadedModule(name, 1, f"{self.root}/{name}.so", ()))
        if alone:
            self.images[f"{self.root}/a.so"] = _host.LiveImage("", 1, False, self.digest("a"))
        self.params["absent"] = [{"name": name, "accept": list(accept)}]

    def warn(self, warning: str) -> None:
        self.warnings.append(warning)

    def fetch(self, run: Any, client: Any, params: Any, target: str) -> None:
        if self.unfetched:
            raise self.unfetched
        assert (run, params) == (self.run_command, self.params)
        self.fetched.append(target)
        Path(target).write_bytes(WHOLE)

    def run_server(self, shop: Any, directives: Any, visit: Any, limit: int) -> Trial:
        """In the place of Workshop.run."""
        assert os.path.isfile(shop.path("my data.rdb"))
        self.ran.append(_conf.render(directives))
        self.limits.add(limit)
        outcome = self.outcomes.pop(0)
        assert isinstance(outcome, Trial)
        if outcome.came_up or not outcome.error:
            try:
                visit(self.copy.connect({}), [])
            except _client.NotReachedError:
                return outcome._replace(error="killed by signal 11")
        return outcome

    def __call__(self) -> Any:
        service = _trial.Service("redis.service", "", "/usr/bin/redis-server", USER)
        directives = _conf.parse(self.conf)
        try:
            return _data_trial.DataTrial(self, service, directives, self.modules, self.types).run()
        finally:
            # Whatever becomes of it, no copy of the data stays.
            folder = Path(self.params["data_folder"])
            assert not folder.exists() or list(folder.iterdir()) == []

    def refused(self) -> str:
        live = {number: dict(keys) for number, keys in self.server.databases.items()}
        with pytest.raises(TrialError) as caught:
            self()
        assert self.server.databases == live
        return str(caught.value)


@pytest.fixture
def host(tmp_path: Path, server: Any, commands: Any, monkeypatch: pytest.MonkeyPatch) -> Host:
    made = Host(tmp_path, server, commands)
    sandboxed = _trial.sandboxed

    def spied(run: Any, service: Any, paths: Any, data: bool = False) -> Any:
        made.holds_data.append(data)
        return sandboxed(run, service, paths, data)

    monkeypatch.setattr(_trial, "sandboxed", spied)

    def run_server(shop: Any, directives: Any, visit: Any = None, limit: int = 0, answer: float = 0) -> Trial:
        assert answer == limit, "SAVE may take as long as loading"
        return made.run_server(shop, directives, visit, limit)

    monkeypatch.setattr(_trial.Workshop, "run", run_server)
    monkeypatch.setattr(_data, "fetch", made.fetch)
    monkeypatch.setattr(_data, "free_disk", lambda folder: made.disk if os.path.isdir(folder) else 0)
    monkeypatch.setattr(_data, "free_memory", lambda meminfo: made.memory if "MemTotal" in meminfo else 0)
    monkeypatch.setattr(
        _host, "live_images", lambda pid, paths: {p: i for p, i in made.images.items() if pid and p in paths}
    )
    return made


class TestTried:
    """The data of a running server."""

    def test_it_loads_under_the_new_modules_and_is_saved(self, host: Host) -> None:
        assert host() == (Told(True, "streamed by the running server", len(WHOLE)), {})
        (conf,) = host.ran
        assert f"loadmodule {host.root}/new-a.so x\n" in conf
        assert f"loadmodule {host.root}/new-b.so\n" in conf
        assert conf.endswith('appendonly no\nsave ""\n')
        assert host.copy.sent == ["SAVE"]
        assert (host.limits, host.holds_data) == ({77}, [True])
        assert host.fetched[0].startswith(host.params["data_folder"] + "/redis-trial-")

    def test_the_live_server_is_only_looked_at(self, host: Host) -> None:
        host()
        assert host.server.sent == []
        assert host.server.was_set == {}

    def test_not_where_no_module_changes(self, host: Host) -> None:
        host.images[f"{host.root}/a.so"] = host.images[f"{host.root}/b.so"]._replace(sha256=host.digest("a"))
        assert host() == (Told(False, "no module changes"), {})
        assert (host.ran, host.fetched, host.warnings) == ([], [], [])
        assert not os.path.exists(host.params["data_folder"])

    def test_where_the_server_is_on_another_host_each_module_may_change(self, host: Host) -> None:
        host.images[f"{host.root}/a.so"] = host.images[f"{host.root}/b.so"]._replace(sha256=host.digest("a"))
        host.params["login_host"] = "10.0.0.1"
        assert host()[0].tried

    def test_where_a_module_goes(self, host: Host) -> None:
        host.goes()
        assert host()[0].tried

    def test_a_built_in_module_goes_nowhere(self, host: Host) -> None:
        host.goes()
        host.server.modules[-1] = LoadedModule("vectorset", 1, "", ())
        assert host() == (Told(False, "no module changes"), {})

    @pytest.mark.parametrize(
        ("conf", "sent"), [("rename-command SAVE hidden", ["hidden"]), ('rename-command SAVE ""', [])]
    )
    def test_saved_by_its_new_name(self, host: Host, conf: str, sent: list[str]) -> None:
        host.conf += conf + "\n"
        assert host()[0].tried
        assert host.copy.sent == sent

    def test_the_login_has_config_by_the_name_of_now(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        asked: list[str] = []

        def connect(params: Any, config: str) -> Any:
            asked.append(config)
            return host.server.connect(params, config)

        monkeypatch.setattr(_client, "connect", connect)
        with (host.root / "redis.conf").open("a") as stream:
            stream.write("rename-command CONFIG hidden\n")
        host()
        host.params["conf_path"] = "/nowhere/redis.conf"
        host.outcomes = [UP]
        host()
        assert asked == ["hidden", "CONFIG"]

    def test_the_data_dies_at_save(self, host: Host) -> None:
        host.copy.answers["SAVE"] = _client.NotReachedError("gone")
        host.outcomes = [UP._replace(log=[LOG + "# Redis 7.0.15 crashed by signal: 11"])]
        assert host.refused() == (
            "module a: a server with it ends at SAVE (killed by signal 11): Redis 7.0.15 crashed by signal: 11; "
            "a data type without rdb_save does that, with this host's data"
        )

    def test_the_new_name_of_save_is_told_to_nobody(self, host: Host) -> None:
        host.conf += "rename-command SAVE hidden\n"
        host.copy.answers["hidden"] = _client.NotReachedError("gone")
        fault = host.refused()
        assert "ends at SAVE" in fault
        assert "hidden" not in fault

    def test_a_server_that_can_not_be_asked(self, host: Host) -> None:
        host.outcomes = [lost("win")]
        host.server.answers["TYPE"] = _client.ServerError("NOPERM no TYPE")
        assert host.refused() == "the running server can't be asked for its data: NOPERM no TYPE"


class TestLimit:
    """Up to a size."""

    def test_data_at_the_limit_is_tried(self, host: Host) -> None:
        host.params["data_limit"] = 10
        assert host()[0].tried

    @pytest.mark.parametrize(("limit", "more"), [(10, 1), (0, 0), (0, -10 * MIB)])
    def test_data_beyond_it_is_not_and_that_is_said(self, host: Host, limit: int, more: int) -> None:
        host.params["data_limit"] = limit
        host.server.info["used_memory_dataset"] = str(10 * MIB + more)
        why = f"the data takes {10 + more / MIB:.1f} MiB, the limit is {limit} MiB"
        assert host() == (Told(False, why), {})
        assert host.warnings == [f"the modules were not tried on the data of this host: {why}"]
        assert (host.ran, host.fetched) == ([], [])
        assert not os.path.exists(host.params["data_folder"])

    def test_then_no_module_goes_while_there_are_keys_of_modules(self, host: Host) -> None:
        host.goes()
        host.params["data_limit"] = 0
        fault = host.refused()
        assert fault.startswith(
            "module gone: it is to go, and the keyspace has keys of modules' types: 1 of type bloom, 3 of type win."
        )
        assert "the limit is 0 MiB" in fault
        assert host.warnings == []

    def test_it_goes_where_there_are_none(self, host: Host) -> None:
        host.goes()
        host.params["data_limit"] = 0
        host.server.databases = {0: {"s": "string"}}
        assert not host()[0].tried
        assert len(host.warnings) == 1

    def test_not_where_nobody_knows_whether_there_are(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.goes()
        host.params["data_limit"] = 0
        host.server.databases = {0: {"s": "string"}}
        monkeypatch.setattr(_data_trial, "COUNT_SECONDS", -1)
        assert "none (not all keys were looked at)" in host.refused()


class TestRoom:
    """Seen before anything starts."""

    def test_twice_the_data(self, host: Host) -> None:
        host.disk = 20 * MIB
        assert host()[0].tried

    @pytest.mark.parametrize(
        ("disk", "memory", "why"),
        [
            (20 * MIB - 1, 1 << 40, "twice the data may take 20.0 MiB on disk"),
            (1 << 40, MIB, "of memory, free are 1.0"),
        ],
    )
    def test_none(self, host: Host, disk: int, memory: int, why: str) -> None:
        host.disk, host.memory = disk, memory
        fault = host.refused()
        assert fault.startswith("there is no room to try the modules on this host's data: ")
        assert why in fault
        assert (host.ran, host.fetched) == ([], [])


class TestFile:
    """The RDB file that lies there."""

    @pytest.fixture(autouse=True)
    def old(self, host: Host) -> None:
        host.rdb.write_bytes(WHOLE + b"x")
        os.utime(host.rdb, (time.time() - 1000, time.time() - 1000))

    @pytest.mark.parametrize("error", [_data.DataError("no disk"), _client.ServerError("no disk")])
    def test_where_the_server_can_not_stream(self, host: Host, error: Exception) -> None:
        host.unfetched = error
        told, _delete = host()
        assert (told.tried, told.bytes) == (True, len(WHOLE) + 1)
        assert told.reason.startswith(f"{host.rdb}, 100")
        assert told.reason.endswith(" s old; the server could not stream its data (no disk)")

    @pytest.mark.parametrize(
        ("changes", "aof", "whole", "copied"),
        [("0", "0", True, True), ("1", "0", True, False), ("0", "1", True, False), ("0", "0", False, False)],
    )
    def test_the_server_need_not_stream_what_lies_there(
        self, host: Host, changes: str, aof: str, whole: bool, copied: bool
    ) -> None:
        """Only where the file is whole, and all that the server holds."""
        host.server.info.update(rdb_changes_since_last_save=changes, aof_enabled=aof)
        host.rdb.write_bytes(WHOLE if whole else b"REDIS")
        told, _delete = host()
        assert (host.fetched == []) is copied
        assert told.reason.endswith("nothing has changed since" if copied else "streamed by the running server")

    def test_and_there_is_none(self, host: Host) -> None:
        host.unfetched = _data.DataError("no disk")
        host.rdb.unlink()
        assert host() == (Told(False, "there is no RDB to copy"), {})
        assert host.ran == []

    def test_where_no_server_answers(self, host: Host) -> None:
        host.server.down = "127.0.0.1:6379: Connection refused"
        told, delete = host()
        assert (told.tried, delete) == (True, {})
        assert told.reason.endswith(" s old; no server answers")
        assert len(host.ran) == 1

    def test_and_there_is_none_either(self, host: Host) -> None:
        host.server.down = "127.0.0.1:6379: Connection refused"
        host.rdb.unlink()
        assert host() == (
            Told(False, f"no server answers (127.0.0.1:6379: Connection refused), and there is no {host.rdb}"),
            {},
        )

    def test_the_limit_counts_its_size(self, host: Host) -> None:
        host.server.down = "Connection refused"
        with host.rdb.open("r+b") as stream:
            stream.truncate(MIB)
        host.params["data_limit"] = 1
        assert host()[0].tried
        with host.rdb.open("r+b") as stream:
            stream.truncate(MIB + 1)
        told, _delete = host()
        assert told == Told(False, "the data takes 1.0 MiB, the limit is 1 MiB")
        assert host.warnings == [f"the modules were not tried on the data of this host: {told.reason}"]

    def test_no_keys_are_given_up_where_no_server_tells_how_many(self, host: Host) -> None:
        host.server.down = "Connection refused"
        host.accepts("a", "b")
        host.outcomes = [lost("win")]
        fault = host.refused()
        assert fault.startswith("module a, b: this host's data does not load with the new modules (exit status 1): ")
        assert "in the keyspace: none (not all keys were looked at)" in fault
        assert fault.endswith("which keys to delete is not known")
        assert len(host.ran) == 1


class TestOneWay:
    """Data that does not load with the new modules."""

    def test_is_refused_with_what_is_there_and_the_way_through(self, host: Host) -> None:
        host.outcomes = [lost("win")]
        assert host.refused() == (
            "module a: this host's data does not load with the new modules (exit status 1): The RDB file contains "
            "module data I can't load: no matching module type 'win'. Keys of modules' types in the keyspace: "
            "1 of type bloom, 3 of type win. Keep the release that runs; or, to lose them, name delete_keys in accept "
            "of its entry: they are deleted once the RDB is saved"
        )
        assert len(host.ran) == 1

    def test_the_log_of_the_throwaway_server_goes_with_it(self, host: Host) -> None:
        host.outcomes = [lost("win")]
        with pytest.raises(TrialError) as caught:
            host()
        assert caught.value.log == lost("win").log

    def test_where_it_is_accepted_it_is_rehearsed_and_only_on_the_copy(self, host: Host) -> None:
        host.accepts("a")
        host.outcomes = [lost("win"), UP, UP]
        live = {number: dict(keys) for number, keys in host.server.databases.items()}
        told, delete = host()
        assert (told.tried, delete) == (True, {"win": 3})
        assert host.server.databases == live
        assert host.copy.databases == {0: {"b": "bloom", "s": "string"}, 1: {}}
        assert host.copy.sent[-2:] == ["SAVE", "SAVE"]

    def test_deleted_with_the_modules_of_now_that_are_still_there(self, host: Host) -> None:
        host.accepts("a")
        (host.root / "a.so").write_text("old")
        host.conf += "rename-command SAVE hidden\nmaxmemory 5\n"
        host.outcomes = [lost("win"), UP, UP]
        host()
        before, deleting, after = host.ran
        assert before == after
        # The old files in their places, without what only the new ones know, and without new names of commands.
        assert deleting == (
            f'dbfilename "my data.rdb"\nmaxmemory 5\nloadmodule {host.root}/a.so\nappendonly no\nsave ""\n'
        )
        assert "SAVE" in host.copy.sent
        assert host.copy.sent[-1] == "hidden"
        assert host.limits == {77}

    def test_several_types_one_after_another(self, host: Host) -> None:
        host.accepts("a")
        host.types["a"] = ["win", "bloom"]
        host.outcomes = [lost("win"), UP, lost("bloom"), UP, UP]
        assert host()[1] == {"win": 3, "bloom": 1}
        assert host.copy.databases == {0: {"s": "string"}, 1: {}}

    def test_a_deletion_that_does_not_help_is_not_tried_twice(self, host: Host) -> None:
        host.accepts("a")
        host.outcomes = [lost("win"), UP, lost("win")]
        assert host.refused().endswith(": which keys to delete is not known")

    def test_accepted_by_the_entry_of_a_module_that_goes(self, host: Host) -> None:
        host.goes("gone", "delete_keys")
        host.outcomes = [lost("win"), UP, UP]
        assert host()[1] == {"win": 3}

    def test_of_a_module_that_goes_it_is_refused_by_its_name(self, host: Host) -> None:
        host.goes()
        host.outcomes = [lost("win")]
        assert host.refused().startswith("module gone: this host's data does not load")

    @pytest.mark.parametrize("other", ["b", "c"])
    def test_what_another_modules_entry_accepts_does_not_count(self, host: Host, other: str) -> None:
        host.accepts(other)
        host.outcomes = [lost("win")]
        assert "name delete_keys in accept" in host.refused()

    def test_nor_does_that_of_one_that_stays_where_another_goes(self, host: Host) -> None:
        host.accepts("a", "b")
        host.goes()
        host.outcomes = [lost("win")]
        assert "name delete_keys in accept" in host.refused()

    def test_a_type_is_its_own_modules_business_where_another_goes_as_well(self, host: Host) -> None:
        host.accepts("a")
        host.goes(alone=False)
        host.outcomes = [lost("win"), UP, UP]
        assert host()[1] == {"win": 3}

    def test_of_two_that_change_each_entry_counts_for_its_own_type(self, host: Host) -> None:
        host.images.clear()
        host.accepts("a")
        host.outcomes = [lost("bloom")]
        assert "name delete_keys in accept" in host.refused()
        host.outcomes = [lost("win"), UP, UP]
        assert host()[1] == {"win": 3}

    @pytest.mark.parametrize("error", ["it was not ready after 300 seconds", "killed by signal 9"])
    def test_too_little_time_or_memory_gives_up_nothing(self, host: Host, error: str) -> None:
        host.accepts("a")
        host.outcomes = [Trial(error, [], {}, [LOG + "* Loading RDB produced by version 7.0.15"])]
        assert host.refused().endswith(": which keys to delete is not known")

    @pytest.mark.parametrize(
        ("said", "given_up"),
        [
            ("data for the module type 'win', that the responsible module is not able to load.", {"win": 3}),
            ("data for the module 'b' that is not terminated by the proper module value EOF marker", {"bloom": 1}),
        ],
    )
    def test_what_a_module_could_not_read_is_told_by_type_or_by_module(
        self, host: Host, said: str, given_up: dict[str, int]
    ) -> None:
        host.images.clear()
        host.accepts("a", "b")
        host.outcomes = [Trial("exit status 1", [], {}, [LOG + f"# The RDB file contains module {said}"]), UP, UP]
        assert host()[1] == given_up

    def test_before_7_0_it_is_known_where_one_module_alone_has_types(self, host: Host) -> None:
        said = "# The RDB file contains module data for the module '' that is not terminated by the proper marker"
        host.accepts("a", "b")
        host.outcomes = [Trial("exit status 1", [], {}, [LOG + said]), UP, UP]
        assert host()[1] == {"win": 3}
        host.images.clear()
        host.outcomes = [Trial("exit status 1", [], {}, [LOG + said])]
        assert host.refused().endswith(": which keys to delete is not known")

    def test_check_mode_has_the_server_not_stream_and_makes_no_folder(self, host: Host) -> None:
        host.check_mode = True
        host.rdb.write_bytes(WHOLE)
        told, _delete = host()
        assert told.reason.endswith("check mode does not have the server stream")
        assert host.fetched == []
        assert not Path(host.params["data_folder"]).exists()

    def test_not_where_the_keys_could_not_all_be_counted(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        host.accepts("a")
        host.outcomes = [lost("bloom")]
        monkeypatch.setattr(_data_trial, "COUNT_SECONDS", -1)
        fault = host.refused()
        assert "1 of type bloom (not all keys were looked at)" in fault
        assert len(host.ran) == 1

    def test_not_where_no_key_is_of_that_type(self, host: Host) -> None:
        host.accepts("a")
        host.outcomes = [lost("cuckoo")]
        assert host.refused().endswith(": which keys to delete is not known")

    @pytest.mark.parametrize("accepts", [(), ("a",)])
    def test_not_where_the_rdb_has_aux_fields(self, host: Host, accepts: Any) -> None:
        host.accepts(*accepts)
        host.types = {"a": ["auxonly-t"]}
        host.outcomes = [lost("auxonly-t", aux="AUX ")]
        assert host.refused().endswith(": the RDB has AUX fields of auxonly-t, which deleting keys does not mend")

    def test_not_where_the_copy_does_not_load_with_the_modules_of_now_either(self, host: Host) -> None:
        host.accepts("a")
        host.outcomes = [lost("win"), lost("other", error="exit status 7")]
        fault = host.refused()
        assert fault.startswith("a copy of this host's data does not load with the modules of now (exit status 7): ")
        assert "no matching module type 'other'" in fault

    def test_a_crash_names_no_type_so_all_of_the_changed_modules_are_meant(self, host: Host) -> None:
        host.accepts("a")
        crash = Trial("killed by signal 11", [], {}, [LOG + "# Redis 7.0.15 crashed by signal: 11"])
        host.outcomes = [crash, UP, UP]
        assert host()[1] == {"win": 3}

    def test_but_not_those_of_a_module_that_goes_which_nobody_knows(self, host: Host) -> None:
        host.goes("gone", "delete_keys", alone=False)
        host.outcomes = [Trial("killed by signal 11", [], {}, [LOG + "# Redis 7.0.15 crashed by signal: 11"])]
        assert host.refused().endswith(": which keys to delete is not known")

    def test_nor_where_its_code_can_not_be_read(self, host: Host) -> None:
        host.accepts("a")
        host.types = {}
        host.outcomes = [Trial("killed by signal 11", [], {}, [LOG + "# Redis 7.0.15 crashed by signal: 11"])]
        assert host.refused().endswith(": which keys to delete is not known")


def test_which_modules_change_is_asked_of_the_plan(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_plan, "changed_modules", lambda *_seen: ["b"])
    host.outcomes = [lost("win")]
    assert host.refused().startswith("module b: ")


def test_nothing_is_written_by_a_copy_unless_it_is_asked(host: Host) -> None:
    host.conf += "appendonly yes\nsave 60 1\n"
    host()
    assert host.ran[0].endswith(_conf.render(_rehearsal.QUIET))
