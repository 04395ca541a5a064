# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration and its modules are tried; every reason not to is told by module."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _elf, _trial
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_trial


@pytest.fixture
def ran() -> list[Any]:
    return []


@pytest.fixture
def trial(
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
    commands: Any,
    build_so: Any,
    ran: list[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Return a function that tries module a, which is good and loads."""
    binary, artifact = tmp_path / "redis-server", build_so()
    binary.write_text("")
    outcome: dict[str, Any] = {"trial": Trial("", [LoadedModule("a", 2, artifact, ("x",))], {}, [])}

    def fake(server: Any, binary: str, user: str, directives: Any) -> Any:
        ran.append((user, _conf.render(directives)))
        found: Any = outcome.get("trial")
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr(_trial, "run", fake)

    def run(
        check: bool = False, shows: Any = None, version: str = "7.0.15", entry: Any = None, **args: Any
    ) -> dict[str, Any]:
        if shows is not None:
            outcome["trial"] = shows
        commands.answer(str(binary), "--version", out=f"Redis server v={version}")
        module = {"name": "a", "path": "/m/a.so", "artifact": artifact, "args": ["x"], **(entry or {})}
        return run_module(
            redis_trial.main,
            {"conf": "loadmodule /m/a.so x\n", "modules": [module], "binary": str(binary), **args},
            check,
        )

    return run


@pytest.mark.parametrize("check", [True, False])
def test_what_loads_as_declared_passes_and_changes_nothing(
    trial: Any, ran: list[Any], tmp_path: Path, check: bool
) -> None:
    result = trial(check)
    assert (result["changed"], result["version"], result["modules"]) == (False, "7.0.15", [{"name": "a", "version": 2}])
    assert ran == [("redis", f"loadmodule {tmp_path}/good.so x\n")]


def test_the_file_itself_is_tried_where_there_is_no_artifact(trial: Any, ran: list[Any]) -> None:
    assert "module a: there is no file at /m/a.so" in trial(entry={"artifact": None})["msg"]
    assert ran == []


def test_what_it_shows_to_be_wrong_is_told_with_the_log(trial: Any) -> None:
    failed = trial(shows=Trial("exit status 1", [], {}, ["a log line"]))
    assert failed["failed"]
    assert failed["msg"].splitlines()[-2:] == [
        "the live server was not touched; the throwaway server's last lines:",
        "a log line",
    ]
    assert failed["log"] == ["a log line"]


def test_another_version_than_declared(trial: Any) -> None:
    assert "module a: MODULE LIST reports version 2, declared is 3" in trial(entry={"version": 3})["msg"]


def test_a_damaged_artifact_is_never_run(trial: Any, ran: list[Any], tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_bytes(b"\x7fELF")
    assert trial(entry={"artifact": str(tmp_path / "bad.so")})["msg"].startswith(
        "module a: its ELF structure is damaged or cut off"
    )
    assert ran == []


@pytest.mark.parametrize(
    ("version", "entry", "why"),
    [
        ("3.2.12", {}, "Redis 3.2.12 is older than 4.0, the oldest that this collection knows"),
        (
            "6.0.16",
            {"config": {"a.level": "3"}},
            "module a: config needs Redis 7.0 or later, this host has 6.0.16; give it as args instead",
        ),
    ],
)
def test_a_redis_that_is_too_old(trial: Any, ran: list[Any], version: str, entry: Any, why: str) -> None:
    assert trial(version=version, entry=entry)["msg"] == why
    assert ran == []


@pytest.mark.parametrize("version", ["4.0", "4.0.1", "7.0.15", "10.0.0"])
def test_a_redis_that_is_not(trial: Any, version: str) -> None:
    assert not trial(version=version).get("failed")


def test_config_is_fine_from_7_0(trial: Any) -> None:
    assert not trial(version="7.0.0", entry={"config": {"a.level": "3"}}).get("failed")


def test_an_unbalanced_quote_is_told_without_the_line(trial: Any) -> None:
    assert trial(conf='requirepass "secret\n')["msg"] == "redis.conf: line 1: a double quote is not closed"


@pytest.mark.parametrize("error", [OSError("no space"), KeyError("no such user redis")])
def test_a_trial_that_can_not_be_run(trial: Any, error: Exception) -> None:
    assert trial(shows=error)["msg"].startswith("the trial could not be run: ")


def test_a_host_without_redis(trial: Any) -> None:
    assert "install Redis first" in trial(binary="/nowhere/redis-server")["msg"]
    assert (
        "there is no /nowhere/redis-server yet" in trial(check=True, binary="/nowhere/redis-server")["skipped_reason"]
    )


@pytest.mark.parametrize(
    ("module", "name", "library"),
    [(_client, "REDIS_IMPORT_ERROR", "redis"), (_elf, "ELFTOOLS_IMPORT_ERROR", "pyelftools")],
)
def test_a_missing_library(trial: Any, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, library: str) -> None:
    monkeypatch.setattr(module, name, "Traceback")
    assert f"Python library ({library})" in trial()["msg"]
    assert library in trial(check=True)["skipped_reason"]


def test_check_mode_before_anything_is_built(trial: Any, ran: list[Any]) -> None:
    assert trial(check=True, entry={"artifact": "/not/built.so"})["skipped_reason"] == "a is not built yet"
    assert ran == []
