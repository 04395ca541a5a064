# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host knows of its Redis: files, versions, the unit, and above all the code that a process really runs."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host
from ansible_collections.edgeops.redis_modules.plugins.module_utils._host import LiveImage

MAPS = """\
55d0c0000000-55d0c0001000 r--p 00000000 08:01 100                        /usr/bin/redis-check-rdb
55d0c0001000-55d0c0002000 r-xp 00001000 08:01 100                        /usr/bin/redis-check-rdb
7f0000000000-7f0000001000 r--p 00000000 08:01 200                        /m/sensor.so
7f0000001000-7f0000002000 r-xp 00001000 08:01 200                        /m/sensor.so
7f0000003000-7f0000004000 r-xp 00001000 08:01 201                        /m/old one.so (deleted)
7f0000005000-7f0000006000 rw-p 00001000 08:01 202                        /m/data-only.so
7f0000007000-7f0000008000 r-xp 00000000 00:00 0                          [vdso]
7f0000009000-7f000000a000 rwxp 00000000 00:00 0
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
"""


def digest(path: Any) -> str:
    """Return a digest by other means."""
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


class TestMaps:
    """/proc/PID/maps."""

    def test_only_files_with_code_count(self) -> None:
        assert _host.parse_maps(MAPS) == {
            "/usr/bin/redis-check-rdb": (100, False, "55d0c0001000-55d0c0002000"),
            "/m/sensor.so": (200, False, "7f0000001000-7f0000002000"),
            "/m/old one.so": (201, True, "7f0000003000-7f0000004000"),
        }

    def test_no_text_no_images(self) -> None:
        assert _host.parse_maps("") == {}

    @pytest.mark.parametrize("order", [(0, 1), (1, 0)])
    def test_where_old_and_new_are_both_mapped_the_one_that_has_the_name_counts(self, order: Any) -> None:
        lines = [
            "7f0000000000-7f0000001000 r-xp 0 08:01 200 /m/sensor.so (deleted)\n",
            "7f0000002000-7f0000003000 r-xp 0 08:01 201 /m/sensor.so\n",
        ]
        assert _host.parse_maps("".join(lines[n] for n in order))["/m/sensor.so"][:2] == (201, False)


class TestLiveImages:
    """The code that this very process runs, of a library that it has loaded."""

    def readable(self, path: str) -> bool:
        """Whether this user may read /proc/PID/map_files at all."""
        with open("/proc/self/maps", encoding="utf-8") as stream:
            addresses = _host.parse_maps(stream.read())[path][2]
        try:
            with open(f"/proc/self/map_files/{addresses}", "rb"):
                return True
        except OSError:
            return False

    def test_a_file_that_was_replaced_is_known_by_the_content_it_had(self, build_so: Callable[..., str]) -> None:
        path = build_so()
        ctypes.CDLL(path)
        old, inode = digest(path), os.stat(path).st_ino
        known = old if self.readable(path) else ""
        image = _host.live_images(os.getpid(), [path])[path]
        assert image._replace(file="") == LiveImage(path, inode, False, known)

        Path(path + ".new").write_bytes(b"something else")
        os.rename(path + ".new", path)
        image = _host.live_images(os.getpid(), [path])[path]
        assert image._replace(file="") == LiveImage(path, inode, True, known)
        assert digest(path) != old
        # What runs can still be had.
        assert (digest(image.file) if image.file else "") == known

        os.unlink(path)
        assert _host.live_images(os.getpid(), [path])[path].deleted

    def test_a_path_through_a_link_is_found_under_the_name_that_was_asked(
        self, build_so: Callable[..., str], tmp_path: Path
    ) -> None:
        path = build_so(name="linked.so")
        ctypes.CDLL(path)
        os.symlink(tmp_path, tmp_path / "link")
        asked = str(tmp_path / "link" / "linked.so")
        assert list(_host.live_images(os.getpid(), [asked])) == [asked]

    def test_what_is_not_mapped_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "x.so").write_bytes(b"x")
        assert _host.live_images(os.getpid(), [str(tmp_path / "x.so"), "/nowhere.so"]) == {}

    def test_a_process_that_is_gone_has_none(self) -> None:
        assert _host.live_images(2**22 + 1, [sys.executable]) == {}


class TestFiles:
    """A file on disk."""

    def test_its_state(self, tmp_path: Path) -> None:
        path = tmp_path / "x.so"
        path.write_bytes(b"content")
        path.chmod(0o4555)
        state = _host.file_state(str(path))
        assert state is not None
        assert (state.path, state.mode, state.size, state.sha256) == (str(path), "4555", 7, digest(path))
        assert state.owner == _host.owner_name(os.geteuid())
        assert state.group == _host.group_name(os.stat(path).st_gid)

    def test_a_mode_has_four_digits(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"")
        (tmp_path / "x").chmod(0o040)
        state = _host.file_state(str(tmp_path / "x")) if os.geteuid() == 0 else None
        assert state is None or state.mode == "0040"

    def test_a_link_a_folder_and_nothing_are_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"")
        os.symlink(tmp_path / "x", tmp_path / "link")
        assert _host.file_state(str(tmp_path / "link")) is None
        assert _host.file_state(str(tmp_path)) is None
        assert _host.file_state(str(tmp_path / "nothing")) is None

    def test_a_digest_of_a_large_file(self, tmp_path: Path) -> None:
        (tmp_path / "x").write_bytes(b"x" * (3 << 20))
        assert _host.sha256_of(str(tmp_path / "x")) == digest(tmp_path / "x")

    def test_an_unknown_owner_is_a_number(self) -> None:
        assert _host.owner_name(0) == "root"
        assert _host.owner_name(4000000) == "4000000"
        assert _host.group_name(0) == "root"
        assert _host.group_name(4000000) == "4000000"


class TestVersions:
    """Versions of the binary."""

    @pytest.mark.parametrize(
        ("output", "version"),
        [
            ("Redis server v=6.0.16 sha=00000000:0 malloc=jemalloc-5.2.1 bits=64 build=6d95e1af3a2c082a\n", "6.0.16"),
            ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64 build=1\n", "7.0.15"),
            ("Redis server v=8.0.2 sha=00000000:1", "8.0.2"),
            ("Valkey server v=8.1.1 sha=0", "8.1.1"),
            ("Redis server version 2.4.5 (00000000:0)", ""),
            ("", ""),
            ("bash: command not found", ""),
        ],
    )
    def test_out_of_what_the_server_prints(self, output: str, version: str) -> None:
        assert _host.parse_version(output) == version

    @pytest.mark.parametrize(("version", "numbers"), [("7.0.15", (7, 0, 15)), ("10.2", (10, 2)), ("", ())])
    def test_as_numbers(self, version: str, numbers: Any) -> None:
        assert _host.version_tuple(version) == numbers

    def test_ten_is_more_than_nine(self) -> None:
        assert _host.version_tuple("10.0") > _host.version_tuple("9.9")

    def test_of_the_server_on_this_host(self, tmp_path: Path) -> None:
        (tmp_path / "redis-server").write_text("")
        ran: list[Any] = []

        def run(words: list[str]) -> Any:
            ran.append(words)
            return 0, "Redis server v=7.0.15", ""

        assert _host.server_version(run, str(tmp_path / "redis-server")) == "7.0.15"
        assert ran == [[str(tmp_path / "redis-server"), "--version"]]
        assert _host.server_version(run, "/nowhere/redis-server") == ""
        assert len(ran) == 1

    @pytest.mark.parametrize(
        ("out", "version"), [("systemd 252 (252.39-1~deb12u1)\n+PAM", 252), ("", 0), ("upstart", 0)]
    )
    def test_of_systemd(self, out: str, version: int) -> None:
        assert _host.systemd_version(lambda words: (0, out, "")) == version


class TestPackages:
    """What the package manager knows."""

    def versions(self, monkeypatch: pytest.MonkeyPatch, tool: str, out: str, *names: str) -> Any:
        ran: list[Any] = []

        def run(words: list[str]) -> Any:
            ran.append(words)
            return 1, out, "no packages found"

        monkeypatch.setattr(_host.shutil, "which", lambda name: name if name == tool else None)
        found = _host.package_versions(run, names)
        assert [(words[0], tuple(words[-len(names) :])) for words in ran] == ([(tool, names)] if tool else [])
        return found

    def test_of_dpkg_only_what_is_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out = (
            "redis-server installed 5:7.0.15-1~deb12u1\n"
            "python3-redis config-files 4.3.4-1\n"
            "libssl-dev installed 3.0.1\n"
            "half half-installed 1\n"
            "never not-installed \n"
        )
        names = ("redis-server", "python3-redis", "libssl-dev:amd64", "half", "never", "unheard-of")
        assert self.versions(monkeypatch, "dpkg-query", out, *names) == {
            "redis-server": "5:7.0.15-1~deb12u1",
            "libssl-dev": "3.0.1",
        }

    def test_of_rpm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        out = "redis 6.2.7-1.el9\npackage gcc is not installed\nglibc-devel 2.34-100.el9\n"
        assert self.versions(monkeypatch, "rpm", out, "redis", "gcc", "glibc-devel") == {
            "redis": "6.2.7-1.el9",
            "glibc-devel": "2.34-100.el9",
        }

    def test_of_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.versions(monkeypatch, "", "", "redis") is None
        assert self.versions(monkeypatch, "dpkg-query", "", "redis") == {}


class TestUnit:
    """The systemd unit."""

    def test_its_state(self) -> None:
        out = "LoadState=loaded\nMainPID=812\nEnvironment=A=b C=d\n\nnonsense\n"
        state = _host.unit_state(lambda words: (0, out, ""), "redis-server.service")
        assert state == {"LoadState": "loaded", "MainPID": "812", "Environment": "A=b C=d"}
        assert _host.main_pid(state) == 812

    def test_without_systemd(self) -> None:
        state = _host.unit_state(lambda words: (1, "", "no systemd\n"), "x")
        assert state == {"LoadState": "unknown", "error": "no systemd"}
        assert _host.main_pid(state) == 0
        assert _host.main_pid({"MainPID": "[not set]"}) == 0

    def test_what_it_was_started_with(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert _host.started_record("redis-server.service") == "/run/redis-server.service.started-with"
        monkeypatch.setattr(_host, "started_record", lambda unit: str(tmp_path / unit))
        assert _host.started_with("u") == ""
        os.symlink("0123abcd", tmp_path / "u")
        assert _host.started_with("u") == "0123abcd"
        (tmp_path / "file").write_text("0123abcd")
        assert _host.started_with("file") == ""
        _host.leave_started_with("u", "another")
        assert _host.started_with("u") == "another"
        assert sorted(os.listdir(tmp_path)) == ["file", "u"]


class TestLog:
    """The server's own last lines."""

    def test_the_journal_first_then_its_file(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(b"three \xff\nfour\n")
        ran: list[Any] = []

        def run(words: list[str]) -> Any:
            ran.append(words)
            return 0, "-- Journal begins --\none\n\ntwo\n", ""

        assert _host.log_excerpt(run, "u.service", str(tmp_path / "log")) == ["one", "two", "three \ufffd", "four"]
        assert ran[0][:3] == ["journalctl", "-u", "u.service"]
        assert "--since" in ran[0]

    def test_only_the_end_of_a_large_file_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "log").write_bytes(b"x" * 1000000 + b"\nlast\n")
        lines = _host.log_excerpt(lambda words: (1, "ignored", ""), "u", str(tmp_path / "log"))
        assert lines[-1] == "last"
        assert "ignored" not in lines
        assert len("".join(lines)) <= 65536

    @pytest.mark.parametrize("logfile", ["", "/nowhere/log"])
    def test_no_file_and_no_journal(self, logfile: str) -> None:
        assert _host.log_excerpt(lambda words: (1, "", "no journal"), "u", logfile) == []


def test_what_a_binary_depends_on_here() -> None:
    facts = _host.facts_of_platform()
    assert facts["architecture"] == os.uname().machine
    assert facts["cores"] == len(os.sched_getaffinity(0))
    assert facts["libc"].startswith("glibc ") or facts["libc"] == "unknown"


def test_a_servers_modules_are_the_shared_objects_that_are_no_system_libraries() -> None:
    lines = [
        "7f00-7f01 r-xp 00000000 08:01 11 /usr/lib/x86_64-linux-gnu/libc.so.6",
        "7f01-7f02 r-xp 00000000 08:01 12 /lib64/ld-linux.so",
        "7f02-7f03 r-xp 00000000 08:01 13 /usr/lib/redis/modules/packaged.so",
        "7f03-7f04 r-xp 00000000 08:01 14 /var/lib/redis/modules/old.so (deleted)",
        "7f04-7f05 r--p 00000000 08:01 15 /var/lib/redis/modules/data.so",
        "7f05-7f06 r-xp 00000000 08:01 16 /usr/bin/redis-check-rdb",
    ]
    assert _host.mapped_modules("\n".join(lines)) == [
        "/usr/lib/redis/modules/packaged.so",
        "/var/lib/redis/modules/old.so",
    ]
