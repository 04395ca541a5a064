# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The redismodule.h of the very version that is installed, out of the distribution's source package."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _header
from ansible_collections.edgeops.redis_modules.plugins.module_utils._header import HeaderError


def tarball(path: Path, *members: str, mode: str = "w:gz") -> None:
    """Write a tarball; each member's content is its name."""
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name in members:
            info = tarfile.TarInfo(name)
            info.size = len(name)
            archive.addfile(info, io.BytesIO(name.encode()))


@pytest.mark.parametrize(
    ("version", "upstream"),
    [
        ("5:7.0.15-1~deb12u6", "7.0.15"),
        ("5:6.0.16-1+deb11u8", "6.0.16"),
        ("5:8.0.2-3+deb13u1", "8.0.2"),
        ("5:8.0.2-3", "8.0.2"),
        ("8.0.2", "8.0.2"),
        ("5:7.0.15+ds-1", "7.0.15"),
        ("5:7.2~rc1-1", "7.2"),
        ("6:7.0.8-4build1", "7.0.8"),
    ],
)
def test_the_upstream_part_of_a_debian_version(version: str, upstream: str) -> None:
    assert _header.upstream(version) == upstream


@pytest.mark.parametrize("name", ["redis_7.0.15.orig.tar.gz.asc", "redis_7.0.15.orig.tar.gz"])
def test_a_file_that_is_no_tarball_is_told_and_not_thrown(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("-----BEGIN PGP SIGNATURE-----")
    with pytest.raises(HeaderError):
        _header.from_tarballs(str(tmp_path), "7.0.15")


class TestSources:
    """Sources of binary packages turned into sources of source packages."""

    def test_one_line_form(self) -> None:
        text = """# deb http://commented/ x main
deb http://mirror.example.com/debian bookworm main contrib
deb-src http://mirror.example.com/debian bookworm main contrib
deb [signed-by=/k.gpg arch=amd64] https://x/ stable main  # why
  deb http://indented/ x main

nonsense
"""
        assert _header.deb_src_lines(text).splitlines() == [
            "deb-src http://mirror.example.com/debian bookworm main contrib",
            "deb-src [signed-by=/k.gpg arch=amd64] https://x/ stable main  # why",
            "deb-src http://indented/ x main",
        ]

    def test_nothing_stays_nothing(self) -> None:
        assert _header.deb_src_lines("# only a comment\n") == ""
        assert _header.deb_src_stanzas("# only a comment\n") == ""
        assert _header.deb_src_stanzas("") == ""

    def test_deb822_form(self) -> None:
        text = """# Debian
Types: deb
URIs: http://mirror.example.com/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://security.example.com
Suites: trixie-security
Components: main
# a comment inside
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
types: deb
URIs: http://disabled/
"""
        assert (
            _header.deb_src_stanzas(text)
            == """Types: deb-src
URIs: http://mirror.example.com/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://security.example.com
Suites: trixie-security
Components: main
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
 -----END PGP PUBLIC KEY BLOCK-----
"""
        )

    def test_an_enabled_stanza_stays(self) -> None:
        assert "deb-src" in _header.deb_src_stanzas("Enabled: yes\nTypes: deb\nURIs: x\n")


class TestVersions:
    """Which source packages have the wanted upstream version."""

    SHOWSRC = """Package: redis
Version: 5:7.0.15-1~deb12u6
Standards-Version: 4.6.2

Package: redis
Version: 5:7.0.15-1~deb12u5

Package: redis
Version: 5:7.0.15-1~deb12u6

Package: redis
Version: 5:7.0.1-1
Build-Depends: x (>= 1)
"""

    def test_all_that_fit_each_once_in_the_given_order(self) -> None:
        assert _header.source_versions(self.SHOWSRC, "7.0.15") == ["5:7.0.15-1~deb12u6", "5:7.0.15-1~deb12u5"]

    def test_the_whole_version_counts(self) -> None:
        assert _header.source_versions(self.SHOWSRC, "7.0.1") == ["5:7.0.1-1"]
        assert _header.source_versions(self.SHOWSRC, "7.0") == []
        assert _header.source_versions("", "7.0.15") == []


class TestTarballs:
    """The header out of the upstream tarball."""

    @pytest.mark.parametrize(("name", "mode"), [("redis_7.0.15.orig.tar.gz", "w:gz"), ("redis-7.0.15.tar.xz", "w:xz")])
    def test_it_is_found_beside_other_tarballs(self, tmp_path: Path, name: str, mode: str) -> None:
        tarball(tmp_path / "redis_7.0.15-1.debian.tar.xz", "debian/rules", mode="w:xz")
        tarball(tmp_path / name, "redis-7.0.15/src/server.h", "redis-7.0.15/src/redismodule.h", mode=mode)
        (tmp_path / "redis_7.0.15-1.dsc").write_text("x")
        assert _header.from_tarballs(str(tmp_path), "7.0.15") == b"redis-7.0.15/src/redismodule.h"

    @pytest.mark.parametrize(
        "member",
        ["redis-7.0.15/redismodule.h", "redis-7.0.15/deps/src/redismodule.h", "redis-7.0.15/src/redismodule.hpp"],
    )
    def test_only_the_one_in_src_counts(self, tmp_path: Path, member: str) -> None:
        tarball(tmp_path / "x.tar.gz", member)
        with pytest.raises(HeaderError, match=r"the source package of Redis 7.0.15 holds no src/redismodule.h"):
            _header.from_tarballs(str(tmp_path), "7.0.15")


class TestDebian:
    """apt is asked by a configuration of its own."""

    def fetch(
        self, tmp_path: Path, *downloads: int, update: int = 0, versions: tuple[str, ...] = ("5:7.0.15-2", "5:7.0.15-1")
    ) -> tuple[bytes, list[Any]]:
        etc, work = tmp_path / "etc", tmp_path / "work"
        (etc / "sources.list.d").mkdir(parents=True)
        work.mkdir()
        (etc / "sources.list").write_text("deb http://one/ x main\n")
        (etc / "sources.list.d" / "two.list").write_text("deb http://two/ x main\n")
        (etc / "sources.list.d" / "three.sources").write_text("Types: deb\nURIs: http://three/\n")
        (etc / "sources.list.d" / "four.sources").write_text("Types: deb\nURIs: http://four/\n")
        codes, ran = list(downloads), []

        def run(words: list[str], cwd: str = "") -> tuple[int, str, str]:
            ran.append(words)
            if "update" in words:
                return update, "", "Hit:1\nE: no network\n"
            if "showsrc" in words:
                return 0, "".join(f"Version: {version}\n" for version in versions), ""
            code = codes.pop(0)
            if code == 0:
                tarball(Path(cwd) / "redis.orig.tar.gz", "redis/src/redismodule.h")
            return code, "", "E: 404 Not Found\n\n"

        return _header.from_debian(run, "7.0.15", str(work), str(etc)), ran

    def test_the_first_candidate_is_taken(self, tmp_path: Path) -> None:
        content, ran = self.fetch(tmp_path, 0)
        assert content == b"redis/src/redismodule.h"
        assert [word for word in ran[-1] if word.startswith("redis=")] == ["redis=5:7.0.15-2"]
        assert "--download-only" in ran[-1]

    def test_the_next_one_where_a_mirror_lacks_it(self, tmp_path: Path) -> None:
        content, ran = self.fetch(tmp_path, 100, 0)
        assert content == b"redis/src/redismodule.h"
        assert ran[-1][-1] == "redis=5:7.0.15-1"

    def test_upstream_s_own_file_is_enough_where_a_mirror_lacks_debian_s(self, tmp_path: Path) -> None:
        tarball(tmp_path / "redis_7.0.15.orig.tar.gz", "redis/src/redismodule.h")
        known = hashlib.sha256((tmp_path / "redis_7.0.15.orig.tar.gz").read_bytes()).hexdigest()
        line = " {} 3860 redis_7.0.15.orig.tar.gz\n"
        assert _header.has_upstream(str(tmp_path), "Checksums-Sha256:\n" + line.format(known))
        # Another file than the one that the index names is none.
        assert not _header.has_upstream(str(tmp_path), line.format("0" * 64))
        assert not _header.has_upstream(str(tmp_path / "work"), line.format(known))

    def test_the_hosts_own_apt_is_not_touched(self, tmp_path: Path) -> None:
        _content, ran = self.fetch(tmp_path, 0)
        work = str(tmp_path / "work")
        for words in ran:
            options = dict(word.split("=", 1) for word in words if "::" in word)
            assert options["Dir::Etc::sourcelist"] == "/dev/null"
            assert options["Dir::Etc::sourceparts"].startswith(work)
            assert options["Dir::State::lists"].startswith(work)
            assert options["Dir::Cache"].startswith(work)

    def test_every_source_of_the_host_becomes_one_of_source_packages(self, tmp_path: Path) -> None:
        self.fetch(tmp_path, 0)
        parts = tmp_path / "work" / "parts"
        assert (parts / "host.list").read_text() == "deb-src http://one/ x main\ndeb-src http://two/ x main\n"
        stanzas = (parts / "host.sources").read_text().strip().split("\n\n")
        assert sorted(stanzas) == ["Types: deb-src\nURIs: http://four/", "Types: deb-src\nURIs: http://three/"]

    def test_no_network(self, tmp_path: Path) -> None:
        with pytest.raises(HeaderError, match="the index of source packages can't be fetched: E: no network"):
            self.fetch(tmp_path, update=100)

    def test_no_such_version(self, tmp_path: Path) -> None:
        with pytest.raises(HeaderError, match=r"the distribution has no source package of Redis 7.0.15"):
            self.fetch(tmp_path, versions=("5:7.0.14-1",))

    def test_no_candidate_can_be_fetched(self, tmp_path: Path) -> None:
        with pytest.raises(HeaderError, match=r"Redis 7.0.15 can't be fetched: E: 404 Not Found"):
            self.fetch(tmp_path, 100, 100)


class TestRedHat:
    """dnf brings the source RPM, rpm2cpio opens it."""

    def fetch(self, tmp_path: Path, download: int = 0, unpack: int = 0, brings: bool = True) -> tuple[bytes, list[Any]]:
        folder, ran = tmp_path / "it's here", []
        folder.mkdir()

        def run(words: Any, **options: Any) -> tuple[int, str, str]:
            ran.append((words, options))
            if words[0] == "dnf":
                if brings:
                    (folder / "redis-6.2.7-1.el9.src.rpm").write_text("")
                return download, "", "Error: no such package\n"
            tarball(folder / "redis-6.2.7.tar.gz", "redis-6.2.7/src/redismodule.h")
            return unpack, "", "cpio: premature end\n"

        return _header.from_redhat(run, "6.2.7", str(folder)), ran

    def test_it(self, tmp_path: Path) -> None:
        content, ran = self.fetch(tmp_path)
        assert content == b"redis-6.2.7/src/redismodule.h"
        assert ran[0][0][-1] == "redis-6.2.7"
        assert "'\"'\"'s here/redis-6.2.7-1.el9.src.rpm' |" in ran[1][0]
        assert ran[1][1]["cwd"] == str(tmp_path / "it's here")

    @pytest.mark.parametrize("how", [{"download": 1}, {"brings": False}])
    def test_dnf_has_none(self, tmp_path: Path, how: Any) -> None:
        with pytest.raises(
            HeaderError, match=r"dnf can't download the source package of Redis 6.2.7: Error: no such package"
        ):
            self.fetch(tmp_path, **how)

    def test_it_can_not_be_unpacked(self, tmp_path: Path) -> None:
        with pytest.raises(HeaderError, match="can't be unpacked: cpio: premature end"):
            self.fetch(tmp_path, unpack=1)
