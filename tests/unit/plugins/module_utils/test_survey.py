# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host says of itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _sources, _survey
from ansible_collections.edgeops.redis_modules.plugins.module_utils._survey import Mount

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('NAME="Ubuntu"\nVERSION_ID="20.04"\nID=ubuntu\nID_LIKE=debian\n', ("ubuntu", "debian", "20.04")),
        ('ID="rhel"\nID_LIKE="fedora"\nVERSION_ID="8.10"\n', ("rhel", "fedora", "8.10")),
        ("ID='rocky'\nID_LIKE='rhel centos fedora'\nVERSION_ID='9.4'\n", ("rocky", "rhel centos fedora", "9.4")),
        ('# comment\nID=debian\nPRETTY_NAME="Debian"\nVERSION_ID="13" \n', ("debian", None, "13")),
        ("", (None, None, None)),
    ],
)
def test_os_release(text: str, found: tuple[str | None, ...]) -> None:
    fields = _survey.parse_os_release(text)
    assert (fields.get("ID"), fields.get("ID_LIKE"), fields.get("VERSION_ID")) == found


def test_a_quoted_name() -> None:
    assert _survey.parse_os_release('PRETTY_NAME="An \\"odd\\" one"\n')["PRETTY_NAME"] == 'An "odd" one'


MEMINFO = """MemTotal:        8026312 kB
MemFree:          221104 kB
Active(anon):     812300 kB
HugePages_Total:       0
Hugepagesize:       2048 kB
"""


def test_meminfo() -> None:
    found = _survey.parse_meminfo(MEMINFO)
    assert found["MemTotal"] == 8026312 * 1024
    assert found["Active(anon)"] == 812300 * 1024
    assert "HugePages_Total" not in found
    assert _survey.parse_meminfo("Name:\tredis-server\nVmRSS:\t    9204 kB\nThreads:\t5\n") == {"VmRSS": 9204 * 1024}


def test_memory_is_the_least_of_host_and_control_group() -> None:
    total = 8026312 * 1024
    assert _survey.memory_of(MEMINFO, ("", "")) == total
    assert _survey.memory_of(MEMINFO, ("max\n", "")) == total
    assert _survey.memory_of(MEMINFO, ("536870912\n", "")) == 512 << 20
    assert _survey.memory_of(MEMINFO, ("", "9223372036854771712\n")) == total
    assert _survey.memory_of("", ("", "")) is None


def test_cores_of_a_control_group() -> None:
    assert _survey.parse_cpu_quota("150000 100000\n") == 1.5
    assert _survey.parse_cpu_quota("max 100000\n") is None
    assert _survey.parse_cpu_quota("", "-1\n", "100000\n") is None
    assert _survey.parse_cpu_quota("", "400000\n", "100000\n") == 4
    assert _survey.parse_cpu_quota("", "", "") is None


def test_mountinfo() -> None:
    text = r"""22 28 0:21 / /proc rw,nosuid,nodev,noexec,relatime shared:12 - proc proc rw
28 1 259:2 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p2 rw,errors=remount-ro
41 28 253:3 / /var/lib/redis rw,noexec - xfs /dev/mapper/vg-redis ro,attr2
57 28 0:45 /@data /srv/with\040blank\134 ro,nosuid shared:9 master:3 - btrfs /dev/sdb rw,subvol=/@data
nonsense
"""
    mounts = _survey.parse_mountinfo(text)
    assert set(mounts) == {22, 28, 41, 57}
    assert mounts[28] == Mount("/", "259:2", "ext4", frozenset({"rw", "relatime"}))
    assert mounts[41] == Mount("/var/lib/redis", "253:3", "xfs", frozenset({"rw", "noexec", "ro"}))
    assert (mounts[57].point, mounts[57].kind) == ("/srv/with blank\\", "btrfs")
    assert "ro" in mounts[57].options


def test_what_is_chosen() -> None:
    assert _survey.parse_chosen("always [madvise] never\n") == "madvise"
    assert _survey.parse_chosen("[always] madvise never\n") == "always"
    assert _survey.parse_chosen("") == ""


@pytest.mark.parametrize(
    ("answer", "error", "found"), [(0, 1500, True), (5, 16_000_000, False), (5, 15_999_999, True), (-1, 0, None)]
)
def test_the_clock_as_timedatectl_has_it(
    monkeypatch: pytest.MonkeyPatch, answer: int, error: int, found: bool | None
) -> None:
    class Library:
        """Stands for the C library."""

        def adjtimex(self, timex: Any) -> int:
            """Answer as the kernel does; -1 where a container may not ask."""
            assert timex._obj.modes == 0, "it only asks"
            timex._obj.maxerror = error
            return answer

    monkeypatch.setattr(_survey.ctypes, "CDLL", lambda name: Library())
    assert _survey.clock_synchronised() is found


def test_the_clock_of_this_machine() -> None:
    assert _survey.clock_synchronised() in (True, False, None)


WANTED = _survey.Wanted(
    folder="/var/lib/redis/modules",
    data="/var/lib/redis",
    cache="/cache",
    conf_path="/etc/redis/redis.conf",
    binary="/usr/bin/redis-server",
    unit="redis-server.service",
    io_threads="auto",
    packages=(),
    header="",
    header_sha256="",
)


class TestLook:
    """The look at this machine: all of it is asked, nothing of it is changed."""

    @pytest.fixture
    def look(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
        binary, folder, cache = tmp_path / "redis-server", tmp_path / "data" / "modules", tmp_path / "cache"
        binary.write_text("")
        (cache / "headers" / "7.0.15").mkdir(parents=True)
        tried: list[Any] = []
        monkeypatch.setattr(_sources, "missing_packages", lambda run, packages: list(packages))
        monkeypatch.setattr(_sources, "of_host", lambda run: [_sources.Source("http://packages/")])
        monkeypatch.setattr(_sources, "environment_proxy", lambda uri: "")
        monkeypatch.setattr(_sources, "connect_all", lambda ends: tried.extend(ends) or dict.fromkeys(ends, ""))

        def run(words: list[str]) -> tuple[int, str, str]:
            if words[0] == str(binary):
                return 0, "Redis server v=7.0.15 sha=0", ""
            if words[:2] == ["systemctl", "show"]:
                return 0, f"LoadState=loaded\nMainPID={os.getpid()}\nProtectHome=yes\n", ""
            return 0, "systemd 252 (252.39)\n", ""

        def looked(**more: Any) -> tuple[_survey.Facts, list[str]]:
            own = {"folder": str(folder), "data": str(folder.parent), "cache": str(cache), "binary": str(binary)}
            return _survey.look(run, WANTED._replace(**own, **more)), [end.host for end in tried]

        return looked

    def test_nothing_is_fetched_where_nothing_is_missing(self, look: Any, tmp_path: Path) -> None:
        facts, tried = look()
        assert tried == []
        assert (facts.redis, facts.binary_there, facts.missing, facts.origins) == ("7.0.15", True, (), ())
        assert facts.kernel == os.uname().release
        assert facts.memory is not None
        assert facts.memory > 0
        assert 0 < facts.cores <= (os.cpu_count() or 1)
        assert not (tmp_path / "data").exists()

    def test_a_folder_that_is_not_there_yet_lies_where_the_one_above_does(self, look: Any, tmp_path: Path) -> None:
        place = look()[0].places[0]
        free = os.statvfs(tmp_path)
        assert (place.use, place.path) == ("module folder", str(tmp_path / "data" / "modules"))
        assert place.mount is not None
        assert os.path.ismount(place.mount.point)
        assert str(tmp_path).startswith(place.mount.point)
        assert abs(place.available - free.f_bavail * free.f_frsize) < GIB

    def test_a_file_system_that_does_not_count_inodes(self, look: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        class Btrfs:
            """Stands for the answer of statvfs."""

            f_bavail, f_frsize, f_files, f_favail = 100, 4096, 0, 0

        monkeypatch.setattr(_survey.os, "fstatvfs", lambda handle: Btrfs)
        assert {(place.available, place.inodes) for place in look()[0].places} == {(409600, None)}

    def test_the_sizes_of_modules(self, look: Any, tmp_path: Path) -> None:
        (tmp_path / "data" / "modules").mkdir(parents=True)
        (tmp_path / "data" / "modules" / "a.so").write_bytes(b"x" * 1000)
        (tmp_path / "data" / "modules" / "b.txt").write_bytes(b"x" * 10)
        assert look()[0].modules_bytes == 1000

    def test_packages_are_asked_for_where_one_is_missing(self, look: Any) -> None:
        facts, tried = look(packages=("redis-server",))
        assert (facts.missing, tried) == (("redis-server",), ["packages"])
        assert facts.origins == (_sources.Origin("packages", "reached"),)
        assert "packages" in [place.use for place in facts.places]

    def test_the_header_is_asked_for_where_its_version_is_not_kept(self, look: Any, tmp_path: Path) -> None:
        facts, tried = look(header="distribution")
        assert (facts.header_needed, tried) == (True, ["packages"])
        (tmp_path / "cache" / "headers" / "7.0.15" / "redismodule.h").write_text("")
        assert not look(header="distribution")[0].header_needed

    def test_which_header_fits_is_not_known_before_redis_is_there(self, look: Any, tmp_path: Path) -> None:
        (tmp_path / "redis-server").unlink()
        (tmp_path / "cache" / "headers" / "redismodule.h").write_text("")
        facts, _tried = look(header="distribution")
        assert (facts.binary_there, facts.redis, facts.header_needed) == (False, "", True)

    def test_a_header_by_url_is_kept_by_its_digest(self, look: Any, tmp_path: Path) -> None:
        given = {"header": "https://files.example.com/redismodule.h", "header_sha256": "AB" * 32}
        facts, tried = look(**given)
        assert (tried, facts.origins) == (["files.example.com"], ())
        assert facts.header_origins == (_sources.Origin("files.example.com", "reached"),)
        folder = tmp_path / "cache" / "headers" / ("given-" + "ab" * 8)
        folder.mkdir()
        (folder / "redismodule.h").write_text("")
        assert not look(**given)[0].header_needed
