# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered before a rollout, and put back."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path
from typing import Any, Callable, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _release, _snapshot


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a folder with a redis.conf; whoever runs the tests owns everything."""
    (tmp_path / "redis.conf").write_text("port 1\n")
    (tmp_path / "redis.conf").chmod(0o640)
    user = (tmp_path / "redis.conf").owner()
    group = (tmp_path / "redis.conf").group()
    ids = _release.owner_ids(user, group)
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    monkeypatch.setattr(_release, "owner_ids", lambda *_words: ids)
    return tmp_path


def take(host: Path, *more: str) -> _snapshot.Snapshot:
    """Take a snapshot of a file that is there and of one that is not."""
    paths = [str(host / name) for name in ("redis.conf", "new.so", *more)]
    return _snapshot.take(str(host / "kept" / "before"), paths, "start", {"/m/a.so": "digest"}, {"a": 1}, {"hz": "10"})


def test_what_is_taken_is_read_back(host: Path) -> None:
    taken = take(host)
    assert _snapshot.load(str(host / "kept" / "before")) == taken
    assert taken[1:] == ("start", {"/m/a.so": "digest"}, {"a": 1}, {"hz": "10"}, None)


def test_only_root_can_read_it_for_it_may_hold_passwords(host: Path) -> None:
    taken = take(host)
    assert stat.S_IMODE((host / "kept" / "before").stat().st_mode) == 0o700
    for path in (Path(taken.files[0].copy), host / "kept" / "before" / _snapshot.INDEX):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_changed_is_put_back_and_what_is_new_taken_away(host: Path) -> None:
    taken = take(host)
    (host / "redis.conf").write_text("port 2\n")
    (host / "redis.conf").chmod(0o600)
    (host / "new.so").write_text("new")
    assert _snapshot.put_back(taken) == [str(host / "redis.conf"), str(host / "new.so")]
    assert (host / "redis.conf").read_text() == "port 1\n"
    assert stat.S_IMODE((host / "redis.conf").stat().st_mode) == 0o640
    assert not (host / "new.so").exists()


def test_what_did_not_change_is_not_touched(host: Path) -> None:
    taken = take(host)
    inode = (host / "redis.conf").stat().st_ino
    assert _snapshot.put_back(taken) == []
    assert (host / "redis.conf").stat().st_ino == inode


def test_it_is_put_back_by_rename_for_a_server_may_have_it_mapped(host: Path) -> None:
    taken = take(host)
    (host / "redis.conf").write_text("port 2\n")
    with (host / "redis.conf").open() as held:
        _snapshot.put_back(taken)
        assert held.read() == "port 2\n"


def test_a_folder_that_is_gone_is_made_again(host: Path) -> None:
    path = host / "service.d" / "own.conf"
    path.parent.mkdir()
    path.write_text("old")
    taken = _snapshot.take(str(host / "kept" / "before"), [str(path)], "", {}, None, None)
    path.unlink()
    path.parent.rmdir()
    assert _snapshot.put_back(taken) == [str(path)]
    assert path.read_text() == "old"


def test_a_closed_one_is_gone(host: Path) -> None:
    take(host)
    _snapshot.close(str(host / "kept" / "before"))
    assert _snapshot.load(str(host / "kept" / "before")) is None
    assert not (host / "kept" / "before").exists()
    _snapshot.close(str(host / "kept" / "before"))


def test_one_that_was_not_finished_does_not_count(host: Path) -> None:
    take(host)
    (host / "kept" / "before" / _snapshot.INDEX).unlink()
    assert _snapshot.load(str(host / "kept" / "before")) is None


def test_a_file_comes_back_with_its_time_for_that_is_the_age_of_a_release(host: Path) -> None:
    os.utime(host / "redis.conf", (1000, 1000))
    taken = take(host)
    (host / "redis.conf").write_text("port 2\n")
    _snapshot.put_back(taken)
    assert (host / "redis.conf").stat().st_mtime == 1000


def test_what_a_power_cut_left_beside_the_files_goes_when_it_is_closed(host: Path) -> None:
    releases = host / _release.RELEASES / "a"
    releases.mkdir(parents=True)
    left = [
        host / ".redis.conf.x.new",
        host / ".redis.conf.before.x.new",
        host / ".new.so.x.new",
        releases / ".0123.so.x.new",
    ]
    for path in left:
        path.write_text("half")
    (releases / "0123.so").write_text("whole")
    (host / ".other.new").write_text("somebody else's")
    trials = [host / _release.STAGED, host / "kept" / "redis-trial-abc"]
    for folder in trials:
        folder.mkdir(parents=True)
        (folder / "dump.rdb").write_text("a copy")
    take(host)
    _snapshot.close(str(host / "kept" / "before"))
    assert not [path for path in left + trials if path.exists()]
    assert sorted(os.listdir(host)) == [".other.new", _release.RELEASES, "kept", "redis.conf"]
    assert os.listdir(releases) == ["0123.so"]


def test_a_trial_that_another_rollout_is_at_stays_when_it_is_closed(host: Path) -> None:
    (host / "kept").mkdir(exist_ok=True)
    trials = [host / "kept" / "redis-trial-live", host / "kept" / "redis-trial-dead"]
    for folder in trials:
        folder.mkdir(parents=True)
    live = os.open(trials[0], os.O_RDONLY)
    fcntl.flock(live, fcntl.LOCK_SH)
    take(host)
    _snapshot.close(str(host / "kept" / "before"))
    assert [path.exists() for path in trials] == [True, False]
    os.close(live)


def test_each_server_of_a_host_has_a_snapshot_of_its_own() -> None:
    packaged = [_snapshot.folder_of(unit) for unit in ("redis-server", "redis-server.service", "redis.service")]
    assert packaged == [_snapshot.FOLDER] * 3
    assert _snapshot.folder_of("redis-server@a") == _snapshot.folder_of("redis-server@a.service")
    assert _snapshot.folder_of("redis-server@a") == f"{_snapshot.FOLDER}-redis-server@a.service"


def dying(step: Callable[[], object], at: int) -> bool:
    """Run I(step) in a process that is gone, as by SIGKILL, before its call number I(at) that changes a disk.

    Return whether it died of that.
    """
    child = os.fork()
    if child:
        return os.WEXITSTATUS(os.waitpid(child, 0)[1]) == 9
    count = 0
    for name in ("rename", "unlink", "rmdir", "mkdir", "fsync", "utime", "open"):
        real = getattr(os, name)

        def counted(*words: Any, real: Any = real, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count > at:
                os._exit(9)
            return real(*words, **options)

        setattr(os, name, counted)
    try:
        step()
    finally:
        os._exit(0)


def moments(step: Callable[[], object], check: Callable[[], None]) -> int:
    """Let I(step) die at each of its moments, and I(check) after each; return how many there were."""
    for at in range(200):
        died = dying(step, at)
        check()
        if not died:
            return at
    raise AssertionError("it does not end")


def test_a_run_that_dies_at_any_moment_leaves_whole_files(host: Path) -> None:
    """Taken, changed and put back again, with a death at each call: a file is the old or the new one, never half."""
    folder = str(host / "kept" / "before")
    module = host / "m" / "a.so"
    module.parent.mkdir()
    module.write_text("old")

    def taking() -> None:
        if _snapshot.load(folder) is None:
            take(host, "m/a.so")

    def unchanged() -> None:
        assert (module.read_text(), (host / "redis.conf").read_text()) == ("old", "port 1\n")
        found = _snapshot.load(folder)
        assert found is None or all(Path(kept.copy).exists() for kept in found.files if kept.copy)

    assert moments(taking, unchanged) > 10
    taken = _snapshot.load(folder)
    assert taken is not None

    (host / "next").write_text("new")

    def placing() -> None:
        _release.keep(str(host / "m"), "a", str(module))
        _release.replace(str(host / "next"), str(module), 0, 0, 0o555)

    def whole() -> None:
        assert module.read_text() in ("old", "new")
        kept = [path.read_text() for path in (host / "m").glob(".releases/a/*.so")]
        assert set(kept) <= {"old", "new"}
        assert module.read_text() == "old" or "old" in kept

    assert moments(placing, whole) > 5
    assert module.read_text() == "new"

    assert moments(lambda: _snapshot.put_back(taken), whole) > 3
    assert module.read_text() == "old"

    assert moments(lambda: _snapshot.close(folder), unchanged) > 1
    # A run that died at the end leaves nothing that counts, and the next good one takes away what does not.
    take(host, "m/a.so")
    _snapshot.close(folder)
    assert not os.path.exists(folder)
    assert not [path for path in host.rglob(".*") if path.name.endswith(".new")]


CONF = "bind 10.0.0.1 -::1\nport 7000\nrequirepass old\nloadmodule /m/a.so x\nloadmodule /m/elsewhere.so\n"


def snapshot(**more: Any) -> _snapshot.Snapshot:
    """Return one of a server that ran one module."""
    return _snapshot.Snapshot(
        **{"files": [], "start": "one", "images": {"/m/a.so": "1"}, "modules": {"a": 1}, "settings": {}, **more}
    )


class TestStart:
    """has_to_start() and what it goes by."""

    @pytest.mark.parametrize(
        ("start", "live", "needed"),
        [
            ("one", {"/m/a.so": "1"}, False),
            ("one", {"/m/a.so": ""}, False),  # it can't be read
            ("two", {"/m/a.so": "1"}, True),
            ("", {}, True),
            ("one", {"/m/a.so": "2"}, True),
            ("one", {}, True),
            ("one", {"/m/a.so": "1", "/m/new.so": "3"}, True),
        ],
    )
    def test_a_server_that_ran(self, start: str, live: dict[str, str], needed: bool) -> None:
        assert _snapshot.has_to_start(snapshot(), {"ActiveState": "active"}, start, live) is needed

    @pytest.mark.parametrize(("state", "needed"), [("inactive", False), ("failed", True), ("active", True)])
    def test_one_that_did_not_is_left_alone_unless_something_started_it(self, state: str, needed: bool) -> None:
        assert _snapshot.has_to_start(snapshot(start=""), {"ActiveState": state}, "", {}) is needed

    def test_what_a_start_with_the_former_redis_conf_maps(self, host: Path) -> None:
        (host / "a.so").write_text("code")
        files = [
            _snapshot.Kept("/m/a.so", str(host / "a.so"), "", "", ""),
            _snapshot.Kept("/m/not-loaded.so", str(host / "a.so"), "", "", ""),
            _snapshot.Kept("/m/elsewhere.so", "", "", "", ""),
        ]
        assert list(_snapshot.expected_images(snapshot(files=files), _conf.parse(CONF))) == ["/m/a.so"]
        assert _snapshot.module_paths(snapshot(files=files)) == ["/m/a.so", "/m/not-loaded.so", "/m/elsewhere.so"]

    def test_the_former_redis_conf(self, host: Path) -> None:
        files = [_snapshot.Kept("/etc/redis.conf", str(host / "redis.conf"), "", "", "")]
        assert _snapshot.former_directives(snapshot(files=files), "/etc/redis.conf") == _conf.parse("port 1")
        assert _snapshot.former_directives(snapshot(), "/etc/redis.conf") == []
        (host / "redis.conf").write_text("port 'unbalanced\n")
        assert _snapshot.former_directives(snapshot(files=files), "/etc/redis.conf") == []


def test_settings_are_those_that_differ_with_their_former_value() -> None:
    before = {"hz": "10", "maxmemory": "0", "gone": "x", "replicaof": "", "slaveof": ""}
    now = {"hz": "10", "maxmemory": "100", "new": "y", "replicaof": "h 1", "slaveof": "h 1"}
    assert _snapshot.changed_settings(before, now) == {"maxmemory": "0"}


class TestLogins:
    """logins()."""

    declared: ClassVar[dict[str, Any]] = {
        "login_host": "127.0.0.1",
        "login_port": 6379,
        "login_user": None,
        "login_password": "new",
        "login_unix_socket": None,
        "tls": False,
        "ca_certs": None,
        "client_cert_file": None,
        "client_key_file": None,
    }

    def found(self, conf: str, **more: Any) -> list[tuple[Any, ...]]:
        """Return socket or host and port, TLS, user and password of each login."""
        logins = _snapshot.logins({**self.declared, **more}, _conf.parse(conf))
        return [
            (
                login["login_unix_socket"] or f"{login['login_host']}:{login['login_port']}",
                login["tls"],
                login["login_user"],
                login["login_password"],
            )
            for login in logins
        ]

    def test_the_declared_one_comes_first_then_the_former_password_then_the_former_place(self) -> None:
        assert self.found(CONF) == [
            ("127.0.0.1:6379", False, None, "new"),
            ("127.0.0.1:6379", False, None, "old"),
            ("10.0.0.1:7000", False, None, "new"),
            ("10.0.0.1:7000", False, None, "old"),
        ]

    def test_a_former_socket_and_tls_with_the_certificates_of_the_redis_conf(self) -> None:
        conf = "port 0\ntls-port 6380\nbind * -::*\ntls-ca-cert-file /ca\nunixsocket /s\n"
        assert self.found(conf, login_user="me") == [
            ("127.0.0.1:6379", False, "me", "new"),
            ("127.0.0.1:6379", False, None, None),
            ("127.0.0.1:6380", True, "me", "new"),
            ("127.0.0.1:6380", True, None, None),
            ("/s", False, "me", "new"),
            ("/s", False, None, None),
        ]
        logins = _snapshot.logins(self.declared, _conf.parse(conf))
        assert [login["ca_certs"] for login in logins if login["tls"]] == ["/ca", "/ca"]

    def test_from_a_socket_back_to_the_default_port(self) -> None:
        places = [place for place, *_rest in self.found("", login_unix_socket="/new")]
        assert places == ["/new", "/new", "127.0.0.1:6379", "127.0.0.1:6379"]


@pytest.mark.parametrize(
    ("text", "follows", "now"),
    [
        ("port 1\nreplicaof 192.0.2.1 6379\n", "192.0.2.9 6379", "port 1\nreplicaof 192.0.2.9 6379\n"),
        ("port 1\nslaveof 192.0.2.1 6379\n", "", "port 1\n"),
        ("port 1\n", "192.0.2.9 6379", "port 1\nreplicaof 192.0.2.9 6379\n"),
        ("port 1\nreplicaof 192.0.2.1 6379\n", "192.0.2.1 6379", None),
    ],
)
def test_a_redis_conf_that_is_put_back_undoes_no_failover(
    tmp_path: Path, text: str, follows: str, now: str | None
) -> None:
    conf, ours = tmp_path / "redis.conf", f"# {_conf.MARK}\n"
    conf.write_text(ours + text)
    conf.chmod(0o640)
    assert _snapshot.keep_primary(str(conf), follows) is (now is not None)
    assert conf.read_text() == ours + (text if now is None else now)
    assert conf.stat().st_mode & 0o777 == 0o640
    # One that somebody else wrote goes back as it was: it was this run that made the server follow.
    conf.write_text(text)
    assert not _snapshot.keep_primary(str(conf), follows)
    assert conf.read_text() == text
