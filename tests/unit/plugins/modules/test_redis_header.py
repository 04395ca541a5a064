# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The redismodule.h of a host, fetched once for each version or taken as given."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _header
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_header

CONTENT = b"/* a header */ int RedisModule_Init(void);\n"
DIGEST = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def header(
    tmp_path: Path, run_module: Callable[..., dict[str, Any]], commands: Any, monkeypatch: pytest.MonkeyPatch
) -> Any:
    binary = tmp_path / "redis-server"
    binary.write_text("")
    commands.answer(str(binary), "--version", out="Redis server v=7.0.15 sha=0")
    monkeypatch.setattr(redis_header.shutil, "which", lambda name: "/usr/bin/apt-get" if name == "apt-get" else None)
    monkeypatch.setattr(_header, "from_debian", lambda run, version, work: CONTENT)
    (tmp_path / "given.h").write_bytes(CONTENT)
    return lambda check=False, **args: run_module(
        redis_header.main, {"binary": str(binary), "cache": str(tmp_path / "cache"), **args}, check
    )


def test_it_is_fetched_once_for_each_version(header: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = header()
    path = tmp_path / "cache" / "7.0.15" / "redismodule.h"
    assert (first["changed"], first["path"], first["sha256"], first["version"]) == (True, str(path), DIGEST, "7.0.15")
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(_header, "from_debian", None)
    for check in (True, False):
        second = header(check)
        assert (second["changed"], second["path"], second["sha256"]) == (False, str(path), DIGEST)


def test_a_module_of_redis_own_tree_finds_it_one_folder_up(header: Any) -> None:
    folder = Path(header()["path"]).parent
    assert (folder / "modules" / ".." / "redismodule.h").read_bytes() == CONTENT


def test_check_mode_fetches_nothing(header: Any, tmp_path: Path) -> None:
    said = header(check=True)
    assert (said["changed"], said["path"], said["version"]) == (True, "", "7.0.15")
    assert not (tmp_path / "cache").exists()


def test_a_given_one_is_kept_beside_the_fetched_ones(header: Any, tmp_path: Path) -> None:
    given = {"src": str(tmp_path / "given.h"), "sha256": DIGEST}
    first = header(**given)
    assert (first["changed"], first["sha256"]) == (True, DIGEST)
    assert first["path"] == str(tmp_path / "cache" / f"given-{DIGEST[:16]}" / "redismodule.h")
    assert not header(**given)["changed"]


def test_a_digest_may_be_written_in_upper_case(header: Any, tmp_path: Path) -> None:
    given = {"src": str(tmp_path / "given.h"), "sha256": DIGEST.upper()}
    assert header(**given)["sha256"] == DIGEST
    assert not header(**given)["changed"]


def test_another_digest_than_declared_leaves_nothing_in_the_cache(header: Any, tmp_path: Path) -> None:
    failed = header(src=str(tmp_path / "given.h"), sha256="0" * 64)
    assert failed["failed"]
    assert f"has the digest {DIGEST}, wanted is {'0' * 64}" in failed["msg"]
    assert list((tmp_path / "cache").rglob("redismodule.h")) == []


@pytest.mark.parametrize("args", [{"src": "/x"}, {"sha256": "0" * 64}])
def test_src_and_digest_need_each_other(header: Any, args: Any) -> None:
    failed = header(**args)
    assert failed["failed"]
    assert "missing parameter" in failed["msg"]


def test_something_else_than_a_header_is_refused(header: Any, tmp_path: Path) -> None:
    (tmp_path / "given.h").write_text("<html>404</html>")
    failed = header(src=str(tmp_path / "given.h"), sha256="0" * 64)
    assert "is no redismodule.h" in failed["msg"]


@pytest.mark.parametrize("why", ["no network", "no such version"])
def test_the_error_says_how_to_mend_it(header: Any, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def fail(*_: Any) -> None:
        raise _header.HeaderError(why)

    monkeypatch.setattr(_header, "from_debian", fail)
    failed = header()
    assert failed["msg"] == f"no redismodule.h for Redis 7.0.15: {why}. To mend it, {_header.MEND}"


def test_a_host_with_neither_apt_nor_dnf(header: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_header.shutil, "which", lambda name: None)
    assert "this host has neither apt-get nor dnf" in header()["msg"]


def test_a_host_with_dnf(header: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_header.shutil, "which", lambda name: "/usr/bin/dnf" if name == "dnf" else None)
    monkeypatch.setattr(_header, "from_redhat", lambda run, version, work: b"RedisModule_ of " + version.encode())
    assert Path(header()["path"]).read_bytes() == b"RedisModule_ of 7.0.15"


def test_a_host_without_redis(header: Any) -> None:
    failed = header(binary="/nowhere/redis-server")
    assert "install Redis first" in failed["msg"]
    said = header(check=True, binary="/nowhere/redis-server")
    assert (said["changed"], said["path"], said["version"]) == (True, "", "")
