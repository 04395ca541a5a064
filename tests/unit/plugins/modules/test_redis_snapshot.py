# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is put back on a host, and what is said of it: with the server, its unit and its files at hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _places,
    _release,
    _step_snapshot,
)
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_snapshot


class Unit:
    """A host with a redis.conf, a module and a unit; systemctl answers as it stands."""

    def __init__(self, folder: Path, server: Any, commands: Any) -> None:
        self.folder = folder
        self.server = server
        self.state = "active"
        self.start = 1
        self.starts_well = True
        self.conf = folder / "redis.conf"
        self.so = folder / "a.so"
        self.mapped: dict[str, str] = {}
        self.write(f"port 6379\nloadmodule {self.so}\n", "old code")
        server.modules = [LoadedModule("a", 1, str(self.so), ())]
        server.settings = {"hz": "10", "maxmemory": "0"}
        self.commands = commands
        self.map()
        self.show()
        self.can_start()

    def write(self, conf: str, code: str) -> None:
        """What a rollout places."""
        self.conf.write_text(conf)
        self.so.write_text(code)

    def show(self) -> None:
        """Let systemd tell how the unit stands."""
        pid = 4242 if self.state == "active" else 0
        self.commands.answer(
            "systemctl",
            "show",
            out=f"Type=notify\nActiveState={self.state}\nMainPID={pid}\nInvocationID={self.start}\n",
        )

    def can_start(self, well: bool = True) -> None:
        """Let the next starts of the unit go well, or fail."""
        self.starts_well = well
        self.commands.answer(
            "systemctl", "restart", code=0 if well else 1, err="Job failed", do=lambda *_w, **_o: self.restart()
        )

    def map(self) -> None:
        """Let the process have its module's file mapped as it is now."""
        self.mapped = {str(self.so): _host.sha256_of(str(self.so))}

    def restart(self) -> None:
        """What systemctl restart does."""
        self.start += 1
        self.state = "active" if self.starts_well else "failed"
        self.map()
        self.show()

    def images(self, pid: int, paths: list[str]) -> dict[str, _host.LiveImage]:
        """Stand for _host.live_images."""
        return {p: _host.LiveImage(p, 1, False, self.mapped[p]) for p in paths if p in self.mapped and pid}


@pytest.fixture
def unit(tmp_path: Path, server: Any, commands: Any, monkeypatch: pytest.MonkeyPatch) -> Unit:
    found = Unit(tmp_path, server, commands)
    ids = found.conf.stat()
    monkeypatch.setattr(_host, "live_images", found.images)
    monkeypatch.setattr(_host, "started_with", lambda _unit: "digest")
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    monkeypatch.setattr(_release, "owner_ids", lambda *_words: (ids.st_uid, ids.st_gid))
    return found


@pytest.fixture
def call(unit: Unit, run_module: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Run the module in one of its states."""

    def called(state: str, check: bool = False, **more: Any) -> dict[str, Any]:
        args = {
            "state": state,
            "folder": str(unit.folder / "kept" / "before"),
            "paths": [str(unit.conf), str(unit.so)],
            "conf_path": str(unit.conf),
            "start_timeout": 1,
            **more,
        }
        return run_module(redis_snapshot.main, args, check)

    return called


def restarts(unit: Unit) -> int:
    """How often it was restarted."""
    return len(unit.commands.with_start("systemctl", "restart"))


def test_files_alone_come_back_without_a_restart(unit: Unit, call: Any) -> None:
    taken = call("taken")
    assert (taken["changed"], taken["modules"]) == (False, {"a": 1})
    unit.write("port 6379\nhz 20\n", "new code")
    assert call("restored", check=True)["changed"] is True
    assert unit.so.read_text() == "new code"
    result = call("restored")
    assert result["restored"] == [str(unit.conf), str(unit.so)]
    assert (result["restarted"], result["set"], result["changed"]) == (False, [], True)
    assert result["summary"] == "2 files were put back, the server runs a"
    assert unit.so.read_text() == "old code"
    assert restarts(unit) == 0
    assert call("restored")["changed"] is False


def test_a_server_that_was_restarted_since_is_restarted(unit: Unit, call: Any) -> None:
    call("taken")
    unit.write("port 6379\n", "new code")
    unit.restart()
    result = call("restored")
    assert (result["restarted"], result["modules"]) == (True, {"a": 1})
    assert result["summary"] == "2 files were put back, the server was restarted and runs a"


def test_one_that_has_another_file_in_it_without_a_restart(unit: Unit, call: Any) -> None:
    call("taken")
    unit.write("port 6379\n", "new code")
    unit.map()
    assert call("restored")["restarted"] is True


def test_one_whose_modules_are_others_without_a_restart(unit: Unit, call: Any) -> None:
    call("taken")
    unit.server.modules = []
    unit.commands.answer("systemctl", "daemon-reload", do=lambda *_w, **_o: setattr(unit.server, "modules", former))
    former = [LoadedModule("a", 1, str(unit.so), ())]
    assert call("restored")["restarted"] is True


def test_settings_of_run_time_are_set_back_by_name_and_no_value_is_shown(unit: Unit, call: Any) -> None:
    unit.server.settings["masterauth"] = "a former secret"
    call("taken")
    unit.server.settings.update(maxmemory="100", masterauth="a new secret")
    result = call("restored")
    assert result["set"] == ["masterauth", "maxmemory"]
    assert unit.server.was_set == {"maxmemory": "0", "masterauth": "a former secret"}
    assert result["summary"] == "0 files were put back, masterauth, maxmemory were set back, the server runs a"
    assert "secret" not in str(result)
    assert restarts(unit) == 0


def test_a_setting_that_the_server_does_not_take_back_is_told(unit: Unit, call: Any) -> None:
    call("taken")
    unit.server.settings["maxmemory"] = "100"
    unit.server.refuses["maxmemory"] = "no"
    result = call("restored")
    assert result["failed"]
    assert "did not take these settings of before: maxmemory" in result["msg"]


def test_the_former_password_and_port_are_found_in_the_former_redis_conf(unit: Unit, call: Any) -> None:
    unit.conf.write_text(f"port 7000\nrequirepass former\nloadmodule {unit.so}\n")
    unit.server.password = "former"
    call("taken", login_password="former")
    unit.write("port 7001\nrequirepass new\n", "new code")
    unit.restart()
    result = call("restored", login_port=7001, login_password="new")
    assert result["restarted"] is True
    assert result["modules"] == {"a": 1}
    assert unit.server.connections[-1]["login_port"] in (7000, 7001)
    assert unit.server.connections[-1]["login_password"] == "former"


def test_where_no_login_works_systemd_and_the_mapped_files_tell(
    unit: Unit, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_step_snapshot, "READY_SECONDS", 0)
    call("taken")
    unit.restart()
    unit.server.down = "127.0.0.1:6379: Connection refused"
    assert call("restored")["modules"] == {"a": 1}
    call_again = call("taken")
    assert call_again["modules"] == {}


def test_and_they_tell_of_a_wrong_file_too(unit: Unit, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_step_snapshot, "READY_SECONDS", 0)
    call("taken")
    unit.restart()
    unit.server.down = "127.0.0.1:6379: Connection refused"
    monkeypatch.setattr(unit, "map", unit.mapped.clear)
    result = call("restored")
    assert result["failed"]
    assert "it has mapped []" in result["msg"]


def test_a_server_that_does_not_come_back_keeps_the_snapshot(unit: Unit, call: Any) -> None:
    call("taken")
    unit.write("port 6379\n", "new code")
    unit.can_start(well=False)
    unit.restart()
    result = call("restored")
    assert result["failed"]
    assert "the files of before are back in place" in result["msg"]
    assert "but the server does not start" in result["msg"]
    unit.can_start()
    assert call("restored")["restarted"] is True


def stopped(unit: Unit, state: str) -> None:
    """Let the server not run, and nobody answer."""
    unit.state = state
    unit.server.down = "127.0.0.1:6379: Connection refused"
    unit.show()


def test_a_server_that_did_not_run_is_left_alone(unit: Unit, call: Any) -> None:
    stopped(unit, "inactive")
    call("taken")
    unit.write("port 6379\n", "new code")
    result = call("restored")
    assert result["restarted"] is False
    assert result["summary"] == "2 files were put back, the server did not run before and does not run now"
    assert restarts(unit) == 0


def test_one_that_did_not_run_may_fail_as_before_and_systemd_is_told_to_forget_it(unit: Unit, call: Any) -> None:
    stopped(unit, "failed")
    call("taken")
    unit.can_start(well=False)
    unit.restart()
    result = call("restored")
    assert not result.get("failed")
    assert result["summary"].endswith("the server did not run before and does not run now")
    done = [command[1] for command in unit.commands.ran if command[0] == "systemctl" and command[1] != "show"]
    assert done == ["daemon-reload", "reset-failed", "restart", "stop", "reset-failed"]


def test_an_open_snapshot_is_kept_and_a_closed_one_forgotten(unit: Unit, call: Any) -> None:
    call("taken")
    unit.write("port 1\n", "half")
    assert call("taken")["modules"] == {"a": 1}
    assert call("closed", check=True)["changed"] is False
    call("restored")
    assert unit.so.read_text() == "old code"
    call("taken")
    assert call("closed")["changed"] is False
    assert not (unit.folder / "kept" / "before").exists()


def test_without_redis_py(unit: Unit, call: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    assert call("taken", check=True)["changed"] is False
    assert "redis" in call("taken")["msg"]


def test_a_server_that_may_not_start_is_left_as_it_is(unit: Unit, call: Any) -> None:
    call("taken")
    unit.write("port 6379\n", "new code")
    # Where no start is needed, files alone come back.
    assert call("restored", may_start=False)["left"] is False
    call("taken")
    unit.write("port 6379\n", "new code")
    unit.restart()
    result = call("restored", may_start=False)
    assert (result["left"], result["changed"], result["restored"]) == (True, False, [])
    assert unit.so.read_text() == "new code"
    assert restarts(unit) == 0
    # The snapshot is still there for another time.
    assert call("restored")["restored"] == [str(unit.conf), str(unit.so)]


def test_a_failover_since_is_not_undone(unit: Unit, call: Any, server: Any) -> None:
    mark = f"# {_conf.MARK}\n"
    unit.write(mark + "replicaof 192.0.2.1 6379\n", "old code")
    call("taken")
    unit.write(mark + "replicaof 192.0.2.9 6379\n", "new code")
    unit.restart()
    server.info.update(role="slave", master_host="192.0.2.9", master_port="6379")
    call("restored")
    assert unit.conf.read_text() == mark + "replicaof 192.0.2.9 6379\n"
    assert unit.so.read_text() == "old code"


@pytest.fixture
def noted(unit: Unit, call: Any, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Take a snapshot and return where a receipt waits in it."""
    monkeypatch.setattr(_places, "STATE", str(unit.folder / "kept"))
    call("taken")
    path = Path(_places.noted(str(unit.folder / "kept" / "before")))
    path.write_text("noted")
    return path


def test_a_receipt_counts_from_when_the_snapshot_is_closed(unit: Unit, call: Any, noted: Path) -> None:
    kept = Path(_places.receipt("redis-server.service"))
    call("closed", check=True)
    assert (noted.exists(), kept.exists()) == (True, False)
    call("closed")
    assert kept.read_text() == "noted"
    assert not noted.parent.exists()
    # Another one without a word on it leaves the former.
    call("taken")
    call("closed")
    assert kept.read_text() == "noted"


def test_a_receipt_of_what_was_put_back_never_counts(unit: Unit, call: Any, noted: Path) -> None:
    unit.write("port 6379\n", "new code")
    call("restored")
    call("closed")
    assert not noted.parent.exists()
    assert not Path(_places.receipt("redis-server.service")).exists()
