# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A copy of a server's data is had without a trace on the server; the keys of modules' types are found in it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _data
from ansible_collections.edgeops.redis_modules.plugins.module_utils._data import DataError, Keys

WHOLE = b"REDIS0010" + b"\xff" + b"checksum"
MIB = 1 << 20
SOCKET = {"login_unix_socket": "/run/redis.sock"}
AS_PACKAGED = {"repl-diskless-sync": "no", "repl-diskless-sync-delay": "5", "maxmemory": "0"}


class TestFetch:
    """The data, streamed by the server."""

    @pytest.fixture
    def fetch(self, server: Any, commands: Any, tmp_path: Path) -> Any:
        """Return a function that fetches; redis-cli writes what it is told to."""
        server.settings = dict(AS_PACKAGED)

        def run(content: bytes | None = WHOLE, params: Any = None, **answer: Any) -> Path:
            target = tmp_path / "dump.rdb"
            params = params or SOCKET

            def write(_command: Any, **_options: Any) -> None:
                self.seen = dict(server.settings)
                if content is not None:
                    target.write_bytes(content)

            commands.answer("timeout", do=write, **answer)
            _data.fetch(commands, server.connect(params), params, str(target))
            return target

        return run

    def test_it_is_streamed_at_once_and_the_settings_are_as_before(
        self, fetch: Any, server: Any, commands: Any
    ) -> None:
        target = fetch()
        assert target.read_bytes() == WHOLE
        assert self.seen == {**AS_PACKAGED, "repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        assert server.settings == AS_PACKAGED
        assert commands.ran == [
            [
                *("timeout", str(_data.LONGEST), "redis-cli", "--no-auth-warning"),
                *("-s", "/run/redis.sock", "--rdb", str(target)),
            ]
        ]

    def test_what_is_set_already_is_not_touched(self, fetch: Any, server: Any) -> None:
        server.settings = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "0"}
        fetch()
        assert server.was_set == {}

    def test_only_what_was_changed_is_set_back(self, fetch: Any, server: Any) -> None:
        server.settings = {"repl-diskless-sync": "yes", "repl-diskless-sync-delay": "5"}
        fetch()
        assert server.was_set == {"repl-diskless-sync-delay": "5"}

    def test_the_password_is_in_the_environment_alone(self, fetch: Any, server: Any, commands: Any) -> None:
        server.password = "a secret"
        fetch(params={**SOCKET, "login_password": "a secret"})
        assert commands.options == [{"environ_update": {"REDISCLI_AUTH": "a secret"}}]
        assert "a secret" not in " ".join(commands.ran[0])

    def test_none_is_no_password(self, fetch: Any, commands: Any) -> None:
        fetch()
        assert commands.options == [{"environ_update": {}}]

    @pytest.mark.parametrize(
        ("content", "answer", "said"),
        [
            (WHOLE, {"code": 1, "err": "Could not connect: Connection refused\n\n"}, "Could not connect"),
            (WHOLE, {"code": 124}, "exit status 124"),
            (None, {}, "exit status 0"),
            (WHOLE[:-1], {"out": "Transfer finished with success.\n"}, "Transfer finished with success."),
            (b"", {"out": "a line\n", "err": "sending REPLCONF capa eof\n  \n"}, "a line"),
        ],
    )
    def test_what_is_not_whole_is_refused_in_the_words_of_redis_cli(
        self, fetch: Any, server: Any, content: Any, answer: Any, said: str
    ) -> None:
        with pytest.raises(DataError, match=f"^redis-cli --rdb gave no whole RDB: {said}"):
            fetch(content, **answer)
        assert server.settings == AS_PACKAGED

    def test_a_setting_that_the_server_refuses_leaves_the_other_as_it_was(
        self, fetch: Any, server: Any, commands: Any
    ) -> None:
        server.refuses = {"repl-diskless-sync-delay": "immutable"}
        with pytest.raises(_client.ServerError, match="immutable"):
            fetch()
        assert server.settings == AS_PACKAGED
        assert commands.ran == []


class TestLogin:
    """redis-cli's options for a login."""

    TCP: ClassVar[Any] = {"login_host": "127.0.0.1", "login_port": 6379}

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            (TCP, "-h 127.0.0.1 -p 6379"),
            ({**TCP, **SOCKET}, "-s /run/redis.sock"),
            ({**TCP, "login_user": "ops", "login_password": "pw"}, "-h 127.0.0.1 -p 6379 --user ops"),
            ({**TCP, "tls": True, "validate_certs": True}, "-h 127.0.0.1 -p 6379 --tls"),
            ({**TCP, "tls": True}, "-h 127.0.0.1 -p 6379 --tls"),
            ({**TCP, "tls": True, "validate_certs": False}, "-h 127.0.0.1 -p 6379 --tls --insecure"),
            (
                {**TCP, "tls": True, "ca_certs": "/ca", "client_cert_file": "/crt", "client_key_file": "/key"},
                "-h 127.0.0.1 -p 6379 --tls --cacert /ca --cert /crt --key /key",
            ),
            ({**TCP, **SOCKET, "tls": True, "ca_certs": "/ca", "validate_certs": False}, "-s /run/redis.sock"),
            ({**TCP, "ca_certs": "/ca", "validate_certs": False}, "-h 127.0.0.1 -p 6379"),
        ],
    )
    def test_each_form(self, params: Any, words: str) -> None:
        assert _data.login_words(params) == ["--no-auth-warning", *words.split()]


@pytest.mark.parametrize(
    ("content", "whole"),
    [
        (WHOLE, True),
        (b"REDIS\xff12345678", True),
        (WHOLE + b"x", False),
        (WHOLE[:-1], False),
        (b"redis0010\xffchecksum", False),
        (b"REDIS", False),
        (b"", False),
    ],
)
def test_a_whole_rdb_has_its_begin_and_its_end(tmp_path: Path, content: bytes, whole: bool) -> None:
    (tmp_path / "x.rdb").write_bytes(content)
    assert _data.is_whole(str(tmp_path / "x.rdb")) is whole


def test_no_file_is_no_whole_rdb(tmp_path: Path) -> None:
    assert not _data.is_whole(str(tmp_path / "x.rdb"))


@pytest.mark.parametrize(
    ("info", "size"),
    [
        ({"used_memory_dataset": "7", "used_memory": "9"}, 7),
        ({"used_memory_dataset": "0", "used_memory": "9"}, 0),
        ({"used_memory": "9"}, 9),
        ({}, 0),
    ],
)
def test_the_size_of_the_data(info: Any, size: int) -> None:
    assert _data.size(info) == size


class TestRoom:
    """A full disk or too little memory is seen before anything starts."""

    def test_twice_the_data_is_enough_disk(self) -> None:
        assert _data.room_fault(100 * MIB, 200 * MIB, 1 << 40) == ""
        assert _data.room_fault(100 * MIB, 200 * MIB - 1, 1 << 40) == (
            "twice the data may take 200.0 MiB on disk, free are 200.0 MiB"
        )

    def test_the_data_a_quarter_more_and_what_the_host_keeps_is_enough_memory(self) -> None:
        enough = 125 * MIB + _data.MINIMUM_FREE
        assert _data.room_fault(100 * MIB, 1 << 40, enough) == ""
        assert _data.room_fault(100 * MIB, 1 << 40, enough - 1) == (
            "a copy of the data takes 125.0 MiB of memory, free are 189.0 MiB"
        )

    def test_without_data_too(self) -> None:
        assert _data.room_fault(0, 0, _data.MINIMUM_FREE) == ""
        assert _data.room_fault(0, 0, _data.MINIMUM_FREE - 1) != ""

    def test_what_is_free(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        class Stat:
            f_bavail, f_bfree, f_frsize, f_bsize = 10, 12, 4096, 1 << 20

        monkeypatch.setattr(_data.os, "statvfs", lambda folder: Stat if folder == str(tmp_path) else None)
        assert _data.free_disk(str(tmp_path)) == 40960
        assert _data.free_memory("MemTotal:  9 kB\nMemAvailable:    1000 kB\nSwapFree: 7 kB\n") == 1024000
        assert _data.free_memory("MemFree: 12 kB\n") == 0


def test_a_copy_of_the_file_and_its_age(tmp_path: Path) -> None:
    source, target = tmp_path / "dump.rdb", tmp_path / "copy"
    source.write_bytes(WHOLE)
    os.utime(source, (time.time() - 100, time.time() - 100))
    assert 100 <= _data.copy_file(str(source), str(target)) < 110
    assert target.read_bytes() == WHOLE
    os.utime(source, (time.time() + 100, time.time() + 100))
    assert _data.copy_file(str(source), str(target)) == 0
    with pytest.raises(FileNotFoundError):
        _data.copy_file(str(tmp_path / "none"), str(target))


def test_keys_as_an_operator_reads_them() -> None:
    assert str(Keys({}, True)) == "none"
    assert str(Keys({"win": 3, "bloom": 1}, True)) == "1 of type bloom, 3 of type win"
    assert str(Keys({"win": 3}, False)) == "3 of type win (not all keys were looked at)"
    assert str(Keys({}, False)) == "none (not all keys were looked at)"


class TestModuleKeys:
    """Counted by SCAN and TYPE."""

    def count(self, server: Any, seconds: float = 60) -> Keys:
        return _data.module_keys(server.connect(SOCKET), seconds)

    def test_of_every_database_and_none_of_the_servers_own_types(self, server: Any) -> None:
        core = {kind: kind for kind in _data.CORE_TYPES}
        server.databases = {
            0: {**core, "w1": "win", "w2": "win", "b1": "bloom"},
            3: {"w1": "win"},
            12: {"s": "string", "b": "bloom", "c": "bloom"},
        }
        assert self.count(server) == Keys({"win": 3, "bloom": 3}, True)

    def test_nothing_of_an_empty_server(self, server: Any) -> None:
        assert self.count(server) == Keys({}, True)

    def test_no_value_is_read_and_nothing_dumped(self, server: Any) -> None:
        server.databases = {0: {"w": "win", "s": "string"}, 1: {"w": "win"}}
        self.count(server)
        assert {said.split()[0] for said in server.sent} <= {"SELECT", "SCAN", "TYPE"}

    def test_a_server_of_a_cluster(self, server: Any) -> None:
        server.info["redis_mode"] = "cluster"
        server.databases = {0: {"w1": "win"}}
        assert self.count(server) == Keys({"win": 1}, True)

    def test_what_is_counted_when_time_runs_out_is_not_all(self, server: Any) -> None:
        server.databases = {0: {f"w{number}": "win" for number in range(9)}}
        counted = self.count(server, -1)
        assert not counted.complete
        assert 0 < counted.counts["win"] < 9

    def test_a_server_that_refuses(self, server: Any) -> None:
        server.databases = {0: {"w": "win"}}
        server.answers["TYPE"] = _client.ServerError("NOPERM")
        with pytest.raises(_client.ServerError, match="NOPERM"):
            self.count(server)


class TestDelete:
    """What the operator accepts to lose, and nothing else."""

    def test_each_key_of_these_types_in_every_database(self, server: Any) -> None:
        server.databases = {
            0: {**{f"w{number}": "win" for number in range(5)}, "s": "string", "b": "bloom", "c": "cuckoo"},
            3: {"w": "win"},
            5: {"s": "string"},
        }
        assert _data.delete(server.connect(SOCKET), ["win", "bloom", "none-of-these"]) == {
            "win": 6,
            "bloom": 1,
            "none-of-these": 0,
        }
        assert server.databases == {0: {"s": "string", "c": "cuckoo"}, 3: {}, 5: {"s": "string"}}

    def test_also_where_a_database_is_empty_after_the_first_type(self, server: Any) -> None:
        server.databases = {0: {"b": "bloom"}, 3: {"w": "win"}}
        assert _data.delete(server.connect(SOCKET), ["win", "bloom"]) == {"win": 1, "bloom": 1}
        assert server.databases == {0: {}, 3: {}}

    def test_on_a_server_of_a_cluster_where_keys_are_in_several_slots(self, server: Any) -> None:
        server.info["redis_mode"] = "cluster"
        server.databases = {0: {"s": "string", "w1": "win", "w2": "win", "w3": "win"}}
        assert _data.delete(server.connect(SOCKET), ["win"]) == {"win": 3}
        assert server.databases == {0: {"s": "string"}}

    def test_a_key_that_went_meanwhile_does_not_count(self, server: Any) -> None:
        server.databases = {0: {"w1": "win"}}
        server.answers["UNLINK"] = 0
        assert _data.delete(server.connect(SOCKET), ["win"]) == {"win": 0}
