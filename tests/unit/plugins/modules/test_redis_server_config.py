# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis.conf and the drop-in are written whole, only where they differ, and never shown with a secret."""

from __future__ import annotations

import grp
import json
import os
import pwd
import stat
from pathlib import Path
from typing import Any, BinaryIO, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _release,
    _selinux,
    _step_server_config,
    _trial,
    _unit,
)
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_server_config

USER, GROUP = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(os.getegid()).gr_name
CONF = (
    "# Written by the role edgeops.redis_modules.redis_server\n"
    "port 6379\nrequirepass wanted-secret\nrename-command CONFIG wanted-name\n"
)
DROPIN = "[Service]\nMemoryMax=1G\n"


class Host:
    """One host's files and a way to run the module on it."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]]) -> None:
        self.conf, self.dropin, self.backup = (
            root / "etc" / "redis.conf",
            root / "unit.d" / "50.conf",
            root / "etc" / "redis.conf.before-edgeops",
        )
        self._run = run

    def __call__(self, conf: str = CONF, check: bool = False, **args: Any) -> dict[str, Any]:
        given = {
            "conf": conf,
            "conf_path": str(self.conf),
            "owner": USER,
            "group": GROUP,
            "dropin": DROPIN,
            "dropin_path": str(self.dropin),
            **args,
        }
        return self._run(redis_server_config.main, given, check)

    def before(self, text: str) -> None:
        self.conf.parent.mkdir(exist_ok=True)
        self.conf.write_text(text)


@pytest.fixture
def host(tmp_path: Path, run_module: Callable[..., dict[str, Any]], commands: Any) -> Host:
    commands.answer("systemctl", "show", out="LoadState=loaded\nFragmentPath=\n")
    return Host(tmp_path, run_module)


def test_selinux_is_told_of_the_port_first(host: Host, commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_selinux, "enabled", lambda: True)
    monkeypatch.setattr(_selinux.shutil, "which", lambda name: f"/usr/sbin/{name}")
    commands.answer("semanage", "port", "-l", out="redis_port_t    tcp    6379\n")
    command = ["semanage", "port", "-a", "-t", "redis_port_t", "-p", "tcp", "7000"]
    said = host("# edgeops.redis_modules\nport 7000\n", check=True)
    assert (said["selinux"], commands.with_start("semanage", "port", "-a")) == ([" ".join(command)], [])
    assert host("# edgeops.redis_modules\nport 7000\n")["changed"]
    assert commands.with_start("semanage", "port", "-a") == [command]
    assert host()["selinux"] == []


def test_the_first_run_writes_both_and_the_second_nothing(host: Host) -> None:
    first = host()
    assert first["written"] == [str(host.conf), str(host.dropin)]
    assert host.conf.read_text() == CONF
    assert stat.S_IMODE(host.conf.stat().st_mode) == 0o640
    assert "started-with" in host.dropin.read_text()
    inodes = host.conf.stat().st_ino, host.dropin.stat().st_ino
    second = host()
    assert (second["changed"], second["written"], second["diff"]) == (False, [], [])
    assert (host.conf.stat().st_ino, host.dropin.stat().st_ino) == inodes


def test_check_mode_says_the_same_and_writes_nothing(host: Host) -> None:
    said = host(check=True)
    assert not host.conf.exists()
    assert not host.dropin.exists()
    done = host()
    assert (said["changed"], said["written"], said["diff"]) == (done["changed"], done["written"], done["diff"])


def test_comments_and_quoting_alone_are_no_difference(host: Host) -> None:
    host()
    host.conf.write_text(
        '# edgeops.redis_modules, rewritten by CONFIG REWRITE\nport "6379"\n'
        "requirepass wanted-secret\nRENAME-COMMAND CONFIG wanted-name\n"
    )
    assert not host()["changed"]


@pytest.mark.parametrize("found", [CONF + "appendonly yes\n", CONF.replace("6379", "6380"), 'port "unbalanced\n', ""])
def test_anything_else_is(host: Host, found: str) -> None:
    host()
    host.conf.write_text(found)
    assert host()["written"] == [str(host.conf)]
    assert host.conf.read_text() == CONF


def test_another_mode_is_a_difference(host: Host) -> None:
    host()
    host.conf.chmod(0o644)
    assert host()["written"] == [str(host.conf)]
    assert stat.S_IMODE(host.conf.stat().st_mode) == 0o640


def test_only_the_drop_in(host: Host) -> None:
    host()
    inode = host.conf.stat().st_ino
    assert host(dropin="[Service]\nMemoryMax=2G\n")["written"] == [str(host.dropin)]
    assert host.conf.stat().st_ino == inode
    assert "MemoryMax=2G" in host.dropin.read_text()


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize(
    "quoting", ["requirepass found-secret\n", 'requirepass "found-secret"\n', 'requirepass "found-secret\n']
)
def test_no_secret_is_in_the_output(host: Host, check: bool, quoting: str) -> None:
    host.before(
        f"port 1\n{quoting}masterauth found-secret\nuser x on >found-secret\nrename-command DEBUG found-secret\n"
    )
    output = json.dumps(host(check=check))
    assert "port 6379" in output
    for secret in ("wanted-secret", "wanted-name", "found-secret"):
        assert secret not in output


def test_a_foreign_configuration_is_kept_once_for_root_only(host: Host) -> None:
    host.before("port 1\n")
    assert host()["backup"] == str(host.backup)
    assert host.backup.read_text() == "port 1\n"
    assert stat.S_IMODE(host.backup.stat().st_mode) == 0o600
    host.before("port 2\n")
    assert "backup" not in host()
    assert host.backup.read_text() == "port 1\n"


def test_our_own_configuration_is_not_kept(host: Host) -> None:
    host()
    assert "backup" not in host(conf=CONF + "hz 20\n")
    assert not host.backup.exists()


def test_nothing_is_written_where_systemd_refuses_the_drop_in(
    host: Host, commands: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands.answer("systemctl", "show", out="LoadState=loaded\nFragmentPath=/lib/x.service\n")
    monkeypatch.setattr(_step_server_config._unit, "faults", lambda *_: ["drop-in:2: Unknown key"])
    for check in (True, False):
        failed = host(check=check)
        assert failed["failed"]
        assert "drop-in:2: Unknown key" in failed["msg"]
    assert not host.conf.exists()
    assert not host.dropin.exists()


def test_nothing_is_written_where_redis_could_not_read_it(host: Host) -> None:
    failed = host(conf='port 1\nrequirepass "secret\n')
    assert failed["failed"]
    assert "line 2: a double quote is not closed" in failed["msg"]
    assert "secret" not in failed["msg"]
    assert not host.conf.exists()


def test_nothing_is_written_where_the_server_would_start_without_its_data(host: Host, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"data")
    host.before(f"dir {tmp_path}\n")
    failed = host(conf="dir /elsewhere\n")
    assert failed["failed"]
    assert "it would start without its data" in failed["msg"]
    assert host.conf.read_text() == f"dir {tmp_path}\n"


def test_a_host_without_the_unit(host: Host, commands: Any) -> None:
    commands.answer("systemctl", "show", out="LoadState=not-found\n")
    assert host(check=True)["changed"]
    failed = host()
    assert failed["failed"]
    assert "install Redis first" in failed["msg"]
    assert not host.conf.exists()


def test_no_start_in_between_can_claim_a_configuration_that_it_did_not_read(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    write = _release.write

    def look(reader: BinaryIO, target: str, *rest: Any) -> None:
        steps.append((os.path.basename(target), b"started-with" in reader.read()))
        reader.seek(0)
        write(reader, target, *rest)

    monkeypatch.setattr(_release, "write", look)
    host()
    assert steps == [("50.conf", False), ("redis.conf", False), ("50.conf", True)]


def test_an_unknown_owner_is_told(host: Host) -> None:
    failed = host(owner="no-such-user")
    assert failed["failed"]
    assert "no-such-user" in failed["msg"]


class TestRewritten:
    """A redis.conf after CONFIG REWRITE, judged by what throwaway servers come to with it and with the wanted one."""

    @pytest.fixture
    def trials(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        made: dict[str, Any] = {"asked": []}
        (tmp_path / "redis-server").write_text("")

        def tried(_run: Any, service: Any, directives: Any, _paths: Any, _visit: Any) -> _trial.Trial:
            made["asked"].append(service.unit)
            settings = {d.name: " ".join(d.args) for d in directives if d.name == "hz"}
            return _trial.Trial(
                made.get("error", ""), [], settings, [], True, made.get("users", {}).get(len(made["asked"]))
            )

        monkeypatch.setattr(_trial, "in_place_of", tried)
        monkeypatch.setattr(_unit, "KEEPER", str(tmp_path / "lib" / "keep"))
        monkeypatch.setattr(_unit, "kept", lambda _run, text: text.replace("it's spoiled\n", ""))
        return made

    def rewritten(self, host: Host, tmp_path: Path, more: str, conf: str = CONF) -> list[str]:
        """Write the configuration, let the server rewrite it, and return what the next run writes."""
        binary = str(tmp_path / "redis-server")
        host(conf, binary=binary)
        host.conf.write_text(conf.replace("port 6379\n", "") + "port 6379\n# Generated by CONFIG REWRITE\n" + more)
        return list(host(conf, binary=binary)["written"])

    @pytest.mark.parametrize("more", ["", "replicaof 10.0.0.1 6379\n", "supervised systemd\n", "it's spoiled\n"])
    def test_the_same_to_the_server_stays(self, host: Host, trials: Any, tmp_path: Path, more: str) -> None:
        assert self.rewritten(host, tmp_path, more) == []
        assert len(trials["asked"]) == 2

    @pytest.mark.parametrize("more", ["hz 20\n", "unixsocket /s\n", "loadmodule /m/a.so\n", "include /x\n", '"'])
    def test_another_is_written_again(self, host: Host, trials: Any, tmp_path: Path, more: str) -> None:
        assert self.rewritten(host, tmp_path, more) == [str(host.conf)]
        assert host.conf.read_text() == CONF

    def test_other_users_or_a_server_that_does_not_start(self, host: Host, trials: Any, tmp_path: Path) -> None:
        trials["users"] = {1: {"default": ["on"]}, 2: {"default": ["off"]}}
        assert self.rewritten(host, tmp_path, "") == [str(host.conf)]
        trials["error"] = "exit status 1"
        assert self.rewritten(host, tmp_path, "") == [str(host.conf)]

    def test_a_file_of_somebody_else_is_not_tried(self, host: Host, trials: Any, tmp_path: Path) -> None:
        host.before("hz 10\n" + CONF.split("\n", 1)[1])
        assert str(host.conf) in host(binary=str(tmp_path / "redis-server"))["written"]
        assert trials["asked"] == []

    def test_the_script_is_put_there_where_it_is_needed(self, host: Host, trials: Any) -> None:
        conf = CONF + 'loadmodule /m/a.so "two words"\n'
        assert _unit.KEEPER in host(conf, check=True)["written"]
        assert not Path(_unit.KEEPER).exists()
        assert _unit.KEEPER in host(conf)["written"]
        assert stat.S_IMODE(Path(_unit.KEEPER).stat().st_mode) == 0o755
        assert host(conf)["written"] == []
        Path(_unit.KEEPER).write_text("exit 0\n")
        assert host(conf)["written"] == [_unit.KEEPER]


def test_the_folder_of_the_data_is_made_for_the_service_alone(host: Host, tmp_path: Path) -> None:
    data = tmp_path / "new" / "data"
    conf = f"# edgeops.redis_modules\nport 7000\ndir {data}\n"
    said = host(conf, check=True, user=USER)
    assert (said["changed"], said["made"], data.exists()) == (True, str(data), False)
    said = host(conf, user=USER)
    assert (said["changed"], said["made"]) == (True, str(data))
    assert (stat.S_IMODE(data.stat().st_mode), data.stat().st_uid) == (0o750, os.geteuid())
    said = host(conf, user=USER)
    assert (said["changed"], said["made"]) == (False, "")


@pytest.mark.parametrize(
    ("more", "mode", "refused"),
    [
        ("", 0o755, True),
        ("", 0o757, False),
        ('save ""\nappendonly yes\n', 0o755, True),
        ('save ""\n', 0o755, False),
    ],
)
def test_a_folder_that_the_service_may_not_write_to_is_refused_where_it_saves(
    host: Host, tmp_path: Path, more: str, mode: int, refused: bool
) -> None:
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(mode)
    # Of the user that runs the tests; the service's is another one.
    said = host(f"# edgeops.redis_modules\ndir {data}\n{more}", user="daemon")
    assert bool(said.get("failed")) is refused
    assert not refused or f"daemon may not write to {data} (" in said["msg"]
    assert host.conf.exists() is not refused
