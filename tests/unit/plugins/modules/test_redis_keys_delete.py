# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys of modules' types are deleted once all data is in a backup, and not before."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _data
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_keys_delete

WHOLE = b"REDIS0010" + b"\xff" + b"checksum"
MIB = 1 << 20


class Host:
    """A host whose server has keys of modules' types."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]], server: Any, commands: Any) -> None:
        self.server, self.commands, self._run = server, commands, run
        self.conf = root / "redis.conf"
        self.conf.write_text("port 6379\n")
        self.folder = root / "state" / "backups"
        server.databases = {0: {"w1": "win", "w2": "win", "b": "bloom", "s": "string"}, 2: {"w": "win"}}
        server.info["used_memory_dataset"] = str(MIB)
        self.before = {number: dict(keys) for number, keys in server.databases.items()}
        self.streams(WHOLE)

    def streams(self, content: bytes, **answer: Any) -> None:
        """Have redis-cli write this."""

        def write(command: list[str], **_options: Any) -> None:
            assert self.server.databases == self.before
            Path(command[-1]).write_bytes(content)

        self.commands.answer("timeout", do=write, **answer)

    def __call__(self, *types: str, check: bool = False, **args: Any) -> dict[str, Any]:
        given = {"types": list(types), "folder": str(self.folder), "conf_path": str(self.conf), **args}
        return self._run(redis_keys_delete.main, given, check)

    def untouched(self) -> bool:
        return bool(self.server.databases == self.before)


@pytest.fixture
def host(tmp_path: Path, run_module: Any, server: Any, commands: Any) -> Host:
    return Host(tmp_path, run_module, server, commands)


def test_all_data_is_backed_up_and_the_keys_are_deleted(host: Host) -> None:
    result = host("win", "nil")
    assert (result["changed"], result["deleted"]) == (True, {"win": 3, "nil": 0})
    assert host.server.databases == {0: {"b": "bloom", "s": "string"}, 2: {}}
    backup = Path(result["backup"])
    assert backup.parent == host.folder
    assert re.fullmatch(r"\d{8}T\d{6}Z-\d+\.rdb", backup.name)
    assert backup.read_bytes() == WHOLE
    assert list(host.folder.iterdir()) == [backup]


def test_the_backup_is_for_root_alone_in_folders_that_others_may_pass(host: Host) -> None:
    umask = os.umask(0)
    try:
        backup = Path(host("win")["backup"])
    finally:
        os.umask(umask)
    assert [path.stat().st_mode & 0o777 for path in (backup, host.folder, host.folder.parent)] == [0o600, 0o700, 0o755]


def test_check_mode_counts_only(host: Host) -> None:
    result = host("win", "nil", check=True)
    assert (result["changed"], result["deleted"]) == (True, {"win": 3, "nil": 0})
    assert host.untouched()
    assert not host.folder.exists()
    assert host.commands.ran == []


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_done_where_there_are_none(host: Host, check: bool) -> None:
    result = host("nil", check=check)
    assert (result["changed"], result["deleted"]) == (False, {"nil": 0})
    assert "backup" not in result
    assert host.untouched()
    assert not host.folder.exists()


def test_the_second_run_finds_nothing_more(host: Host) -> None:
    assert host("win")["changed"]
    assert not host("win")["changed"]


@pytest.mark.parametrize("core", sorted(_data.CORE_TYPES))
def test_no_type_of_the_server_itself(host: Host, core: str) -> None:
    assert host("win", core)["msg"] == f"{core}: a type of the server itself; only modules' types are deleted"
    assert host.untouched()


class TestNoBackup:
    """Without one, nothing is deleted."""

    def refused(self, host: Host) -> str:
        result = host("win")
        assert result["failed"]
        assert host.untouched()
        message: str = result["msg"]
        assert message.endswith(f". Nothing was deleted that is not in a backup in {host.folder}")
        return message

    @pytest.mark.parametrize(("free", "enough"), [(MIB, True), (MIB - 1, False)])
    def test_on_a_full_disk(self, host: Host, monkeypatch: pytest.MonkeyPatch, free: int, enough: bool) -> None:
        monkeypatch.setattr(_data, "free_disk", lambda folder: free if folder == str(host.folder) else 0)
        if enough:
            assert host("win")["changed"]
        else:
            assert self.refused(host).startswith(f"the backup may take 1.0 MiB in {host.folder}, free are 1.0 MiB")
            assert host.commands.ran == []

    @pytest.mark.parametrize(("content", "answer"), [(WHOLE[:-1], {}), (WHOLE, {"code": 1, "err": "no space"})])
    def test_where_it_is_not_whole(self, host: Host, content: bytes, answer: Any) -> None:
        host.streams(content, **answer)
        assert self.refused(host).startswith("redis-cli --rdb gave no whole RDB: ")
        assert not list(host.folder.glob("*.rdb"))

    def test_where_the_server_refuses(self, host: Host) -> None:
        host.server.settings = {"repl-diskless-sync": "no"}
        host.server.refuses = {"repl-diskless-sync": "NOPERM"}
        assert "NOPERM" in self.refused(host)

    def test_where_no_server_answers(self, host: Host) -> None:
        host.server.down = "Connection refused"
        assert "Connection refused" in self.refused(host)

    def test_where_the_folder_can_not_be_made(self, host: Host) -> None:
        host.folder.parent.write_text("a file")
        assert str(host.folder.parent) in self.refused(host)

    def test_where_redis_conf_can_not_be_read(self, host: Host) -> None:
        host.conf.write_text('requirepass "a secret\n')
        assert "a secret" not in self.refused(host)
        host.conf.unlink()
        assert "No such file" in self.refused(host)


def test_a_server_that_stops_under_way(host: Host) -> None:
    host.server.answers["UNLINK"] = _client.NotReachedError("UNLINK at here: Connection closed")
    result = host("win")
    assert result["msg"].startswith("UNLINK at here: Connection closed. Nothing was deleted that is not in a backup")
    assert len(list(host.folder.glob("*.rdb"))) == 1


def test_config_by_its_new_name(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def connect(params: Any, config: str) -> Any:
        asked.append(config)
        return host.server.connect(params, config)

    monkeypatch.setattr(_client, "connect", connect)
    host.conf.write_text("rename-command CONFIG hidden\n")
    assert host("win")["changed"]
    assert asked == ["hidden"]


def test_without_redis_py(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    assert "Python library (redis)" in host("win")["msg"]
