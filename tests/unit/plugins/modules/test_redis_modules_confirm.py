# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirming fails with each difference by name, and tells the same where it must not fail."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _host
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_modules_confirm


@pytest.fixture
def confirm(
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
    server: Any,
    commands: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a function that confirms module a, which is on disk and runs."""
    path = tmp_path / "a.so"
    path.write_bytes(b"one")
    server.modules = [LoadedModule("a", 2, str(path), ("x y",)), LoadedModule("vectorset", 1, "", ())]
    live = _host.LiveImage(str(path), 1, False, hashlib.sha256(b"one").hexdigest())
    monkeypatch.setattr(_host, "live_images", lambda pid, paths: {str(path): live})
    commands.answer("journalctl", out="a line of the journal\n")

    def run(check: bool = False, modules: Any = None, **args: Any) -> dict[str, Any]:
        entry = {"name": "a", "path": str(path), "args": ["x y"], "version": 2, **args.pop("entry", {})}
        given = {"modules": [entry] if modules is None else modules, "logfile": "/nowhere/log", **args}
        return run_module(redis_modules_confirm.main, given, check)

    return run


@pytest.mark.parametrize("check", [True, False])
def test_all_as_wanted(confirm: Any, check: bool) -> None:
    result = confirm(check)
    assert (result["changed"], result["confirmed"], result["error"], result["server_version"]) == (
        False,
        True,
        "",
        "7.0.15",
    )
    assert [(v["name"], v["verdict"]) for v in result["verdicts"]] == [("a", "loaded")]


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"version": 3}, "module a: drifted: version is 2, wanted 3"),
        ({"args": []}, "module a: drifted: arguments are ['x y'], wanted []"),
        ({"name": "b"}, "module b: missing: MODULE LIST does not report it"),
        ({"state": "absent"}, "module a: drifted: MODULE LIST still reports it; its file is still at"),
        ({"sha256": "0" * 64}, "module a: drifted: sha256 is "),
    ],
)
def test_each_difference_fails_by_name(confirm: Any, entry: dict[str, Any], message: str) -> None:
    failed = confirm(entry=entry)
    assert failed["failed"]
    assert message in failed["msg"]
    told = confirm(entry=entry, fail=False)
    assert not told.get("failed")
    assert (told["confirmed"], told["verdicts"]) == (False, failed["verdicts"])


def test_a_file_that_was_replaced_without_a_restart(confirm: Any, tmp_path: Path) -> None:
    (tmp_path / "a.so").write_bytes(b"two")
    failed = confirm()
    assert "module a: restart-pending: the running server still has an older file mapped" in failed["msg"]


def test_owner_and_mode_are_compared_where_they_are_asked(confirm: Any) -> None:
    assert confirm(owner="nobody-here")["failed"]
    assert confirm(mode="0000")["failed"]


def test_who_else_can_change_the_file_is_a_difference(confirm: Any, tmp_path: Path) -> None:
    os.link(tmp_path / "a.so", tmp_path / "b.so")
    assert "module a: drifted: it has 2 names (hard links)" in confirm()["msg"]


def test_the_folder_is_compared_where_it_is_asked(confirm: Any, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert confirm()["confirmed"]
    failed = confirm(folder=str(tmp_path))
    assert f"module a: drifted: its folder {tmp_path}: mode is 0777, wanted 0755" in failed["msg"]


def test_the_exposure_is_told_and_does_not_decide(confirm: Any, commands: Any) -> None:
    assert confirm()["exposure"] is None
    commands.answer("systemd-analyze", out="-> Overall exposure level for redis-server.service: 9.2 UNSAFE :-(\n")
    result = confirm()
    assert (result["exposure"], result["confirmed"]) == (9.2, True)


def test_a_stranger_fails_and_a_built_in_module_does_not(confirm: Any, server: Any) -> None:
    server.modules.append(LoadedModule("stranger", 1, "/x.so", ()))
    failed = confirm()
    assert failed["msg"] == "module stranger: undeclared: it runs, but nobody declared it"
    assert confirm(exclusive=False)["confirmed"]


def test_no_server(confirm: Any, server: Any) -> None:
    server.down = "127.0.0.1:6379: Connection refused"
    failed = confirm()
    assert failed["failed"]
    lines = failed["msg"].splitlines()
    assert lines[0] == "the server does not answer: 127.0.0.1:6379: Connection refused"
    assert lines[1].startswith("module a: broken: the server does not run")
    assert lines[-2:] == ["its last log lines:", "a line of the journal"]
    assert confirm(fail=False)["error"] == "127.0.0.1:6379: Connection refused"


def test_no_server_is_not_confirmed_even_where_nothing_is_wanted(confirm: Any, server: Any) -> None:
    server.down = "refused"
    assert confirm(modules=[], fail=False)["confirmed"] is False


def test_without_redis_py(confirm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback: no redis")
    failed = confirm()
    assert failed["failed"]
    assert "Python library (redis)" in failed["msg"]
