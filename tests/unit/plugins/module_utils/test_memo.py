# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered, for how long, and by what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _memo,
    _rehearsal,
    _trial,
    _unit,
)


def test_outside_nothing_is_remembered() -> None:
    asked: list[int] = []
    for _time in range(2):
        _memo.once("key", lambda: asked.append(1))
    _memo.keep("other", 1)
    assert len(asked) == 2
    assert _memo.kept("other") is None


def test_inside_it_is_until_the_end_of_the_outermost_block() -> None:
    with _memo.shared():
        with _memo.shared():
            assert _memo.once("key", lambda: 1) == 1
        assert _memo.once("key", lambda: 2) == 1
    with _memo.shared():
        assert _memo.once("key", lambda: 3) == 3
    assert not _memo.is_shared()


def test_an_error_is_not_remembered() -> None:
    def fail() -> int:
        raise OSError("gone")

    with _memo.shared():
        with pytest.raises(OSError, match="gone"):
            _memo.once("key", fail)
        assert _memo.once("key", lambda: 1) == 1


def test_a_file_is_read_once_and_again_where_another_one_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    true = _host._read_digest
    monkeypatch.setattr(_host, "_read_digest", lambda path: read.append(path) or true(path))
    path = tmp_path / "a.so"
    path.write_bytes(b"one")
    with _memo.shared():
        first = _host.sha256_of(str(path))
        assert _host.sha256_of(str(path)) == first
        assert len(read) == 1
        (tmp_path / "new").write_bytes(b"two")
        (tmp_path / "new").rename(path)
        assert _host.sha256_of(str(path)) != first
        path.write_bytes(b"longer")
        assert _host.sha256_of(str(path)) == true(str(path))


def test_a_drop_in_is_verified_once_and_again_where_it_differs(tmp_path: Path) -> None:
    fragment = tmp_path / "unit"
    fragment.write_text("[Service]\n")
    ran: list[Any] = []

    def run(words: Any, **_options: Any) -> Any:
        ran.append(words)
        return 0, "", ""

    with _memo.shared():
        for text in ("[Service]\nA=1\n", "[Service]\nA=1\n", "[Service]\nA=2\n"):
            _unit.faults(run, "r.service", str(fragment), text)
        assert len(ran) == 2
        fragment.write_text("[Service]\nUser=x\n")
        _unit.faults(run, "r.service", str(fragment), "[Service]\nA=2\n")
    assert len(ran) == 3


SERVICE = _trial.Service("redis-server.service", "[Service]\n", "/usr/bin/redis-server", "redis")
DIRECTIVES = _conf.parse("maxmemory 1mb\nsave 60 1\nloadmodule /m/a.so\n")


def test_the_switch_knows_what_the_trial_has_shown_of_the_same_content(tmp_path: Path) -> None:
    """The file that was tried lay elsewhere."""
    tried, placed = tmp_path / "tried.so", tmp_path / "placed.so"
    tried.write_bytes(b"code")
    placed.write_bytes(b"code")
    loaded = [_client.LoadedModule("a", 1, str(tried), ())]
    shown = _trial.Trial("", loaded, {"maxmemory": "1048576"}, [], True, {"default": []})
    _trial.keep(SERVICE, DIRECTIVES, {"/m/a.so": str(tried)}, shown)
    assert _trial.kept(SERVICE, DIRECTIVES, {"/m/a.so": str(placed)}) is None
    with _memo.shared():
        _trial.keep(SERVICE, DIRECTIVES, {"/m/a.so": str(tried)}, shown)
        found = _trial.kept(SERVICE, DIRECTIVES, {"/m/a.so": str(placed)})
        assert found is not None
        assert (found.settings, found.found) == (shown.settings, shown.found)
        assert found.modules == [_client.LoadedModule("a", 1, "/m/a.so", ())]
        others: list[Any] = [
            (SERVICE._replace(dropin="[Service]\nA=1\n"), DIRECTIVES, str(placed)),
            (SERVICE._replace(user="other"), DIRECTIVES, str(placed)),
            (SERVICE, DIRECTIVES[1:], str(placed)),
        ]
        for service, directives, file in others:
            assert _trial.kept(service, directives, {"/m/a.so": file}) is None
        placed.write_bytes(b"other code")
        assert _trial.kept(SERVICE, DIRECTIVES, {"/m/a.so": str(placed)}) is None


@pytest.mark.parametrize(
    ("conf", "save", "appendonly"),
    [
        ("save 60 1\nsave 300 10\n", "60 1 300 10", "no"),
        ("save 60 1 300 10\nappendonly yes\n", "60 1 300 10", "yes"),
        ('save ""\nappendonly no\n', "", "no"),
        ('save 60 1\nsave ""\nsave 5 1\n', "5 1", "no"),
    ],
)
def test_what_a_trial_switches_off_is_told_as_redis_conf_has_it(conf: str, save: str, appendonly: str) -> None:
    settings = {"save": "", "appendonly": "no", "maxmemory": "1"}
    told = _rehearsal.unquiet(settings, _conf.parse(conf))
    assert told == {"save": save, "appendonly": appendonly, "maxmemory": "1"}


@pytest.mark.parametrize("conf", ["", "save 060 1\n", "save 60 1\nappendonly maybe\n"])
def test_where_nobody_can_say_how_the_server_would_write_it(conf: str) -> None:
    assert _rehearsal.unquiet({}, _conf.parse(conf)) is None
