# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the server on a host runs, on any host: with Redis, without, and without redis-py."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_modules_info


@pytest.fixture
def info(tmp_path: Path, run_module: Callable[..., dict[str, Any]], server: Any, commands: Any) -> Any:
    (tmp_path / "redis-server").write_text("")
    commands.answer(str(tmp_path / "redis-server"), "--version", out="Redis server v=7.0.15 sha=0")
    commands.answer("systemctl", "--version", out="systemd 252 (252.39)")
    commands.answer("systemctl", "show", out="LoadState=loaded\nActiveState=active\n")
    return lambda check=False, **args: run_module(
        redis_modules_info.main, {"binary": str(tmp_path / "redis-server"), **args}, check
    )


@pytest.mark.parametrize("check", [True, False])
def test_a_running_server(info: Any, server: Any, check: bool) -> None:
    server.info.update(db0="keys=1,expires=0", db3="keys=2,expires=1")
    server.info.update(used_memory="100", used_memory_rss="200", uptime_in_seconds="")
    result = info(check)
    assert result["changed"] is False
    assert result["server"] == {
        "installed_version": "7.0.15",
        "service": "active",
        "stopped": False,
        "running": True,
        "error": "",
        "files": [],
        "login_refused": False,
        "version": "7.0.15",
        "mode": "standalone",
        "role": "master",
        "pid": 4242,
        "uptime_seconds": 0,
        "used_memory_bytes": 100,
        "rss_bytes": 200,
        "configured": False,
        "key_count": 3,
        "replicaof": "",
        "users": ["default"],
    }
    assert result["host"]["systemd"] == 252


def test_its_modules_with_file_and_live_image(
    info: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "a.so")
    Path(path).write_bytes(b"new")
    Path(path).chmod(0o555)
    server.modules = [LoadedModule("a", 2, path, ("x",)), LoadedModule("vectorset", 1, "", ())]
    monkeypatch.setattr(_host, "live_images", lambda pid, paths: {path: _host.LiveImage(path, 1, True, "old")})
    a, vectorset = info()["modules"]
    assert (a["name"], a["version"], a["path"], a["args"], a["built_in"]) == ("a", 2, path, ["x"], False)
    assert (a["sha256"], a["live_sha256"], a["mode"], a["restart_pending"]) == (
        hashlib.sha256(b"new").hexdigest(),
        "old",
        "0555",
        True,
    )
    assert (vectorset["built_in"], vectorset["path"], vectorset["sha256"], vectorset["restart_pending"]) == (
        True,
        "",
        "",
        False,
    )
    Path(path).unlink()
    a, _vectorset = info()["modules"]
    assert (a["sha256"], a["restart_pending"]) == ("", True)


def test_before_7_0_the_path_can_be_given(info: Any, server: Any, tmp_path: Path) -> None:
    server.modules = [LoadedModule("a", 2, None, None)]
    (tmp_path / "a.so").write_bytes(b"x")
    (module,) = info(paths={"a": str(tmp_path / "a.so")})["modules"]
    assert (module["path"], module["args"], module["sha256"]) == (
        str(tmp_path / "a.so"),
        None,
        hashlib.sha256(b"x").hexdigest(),
    )
    (module,) = info()["modules"]
    assert module["path"] == ""


def test_no_server_is_no_failure(info: Any, server: Any) -> None:
    server.down = "127.0.0.1:6379: Connection refused"
    result = info()
    assert not result.get("failed")
    assert (result["server"]["running"], result["server"]["error"], result["modules"]) == (False, server.down, [])


def test_a_bare_host(info: Any, commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commands.answer("systemctl", "show", out="LoadState=not-found\nActiveState=inactive\n")
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    result = info(binary="/nowhere/redis-server")
    assert (result["server"]["installed_version"], result["server"]["service"], result["server"]["running"]) == (
        "",
        "not-found",
        False,
    )
    assert "python3-redis" in result["server"]["error"]
    assert "warnings" not in result


def test_redis_without_redis_py_is_a_warning(info: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    result = info()
    assert not result.get("failed")
    assert "redis" in json.dumps(result["warnings"])


def test_the_releases_of_each_module_the_last_one_rolled_out_first(info: Any, tmp_path: Path) -> None:
    kept = tmp_path / "m" / ".releases" / "a"
    kept.mkdir(parents=True)
    digests = []
    for second, content in enumerate((b"one", b"two")):
        digests.append(hashlib.sha256(content).hexdigest())
        (kept / f"{digests[-1][:16]}.so").write_bytes(content)
        os.utime(kept / f"{digests[-1][:16]}.so", (second, second))
    (tmp_path / "m" / "other.so").write_bytes(b"one")
    os.utime(tmp_path / "m" / "other.so", (9, 9))
    assert info()["releases"] == {}
    found = info(folder=str(tmp_path / "m"), paths={"a": str(tmp_path / "m" / "other.so"), "b": "/nowhere/b.so"})
    assert found["releases"]["b"] == []
    newest, previous = found["releases"]["a"]
    assert newest == {
        "sha256": digests[0],
        "path": str(tmp_path / "m" / "other.so"),
        "rolled_out": "1970-01-01T00:00:09Z",
        "size": 3,
        "current": True,
    }
    assert (previous["sha256"], previous["rolled_out"], previous["current"]) == (
        digests[1],
        "1970-01-01T00:00:01Z",
        False,
    )
    (only,) = info(folder=str(tmp_path / "m"))["releases"].values()
    assert [release["current"] for release in only] == [False, False]


@pytest.mark.parametrize(
    ("state", "stopped"),
    [
        ("LoadState=loaded\nActiveState=failed", True),
        ("LoadState=loaded\nActiveState=inactive", True),
        ("LoadState=loaded\nActiveState=activating", False),
        ("LoadState=not-found\nActiveState=inactive", False),
    ],
)
def test_a_server_that_is_stopped(info: Any, server: Any, commands: Any, state: str, stopped: bool) -> None:
    server.down = "127.0.0.1:6379: Connection refused"
    commands.answer("systemctl", "show", out=state + "\n")
    assert info(False)["server"]["stopped"] is stopped
