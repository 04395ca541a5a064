# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Package sources out of what a host is configured with, and whether they can be reached."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _sources
from ansible_collections.edgeops.redis_modules.plugins.module_utils._sources import Endpoint, Origin, Source

BOOKWORM = """# See https://wiki.example.com
deb http://deb.debian.org/debian bookworm main contrib  # all of it
deb-src http://deb.debian.org/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://packages.example.com/redis bookworm main
  deb\thttp://security.debian.org/debian-security bookworm-security main
#deb http://disabled.example.com/ x main
deb http://deb.debian.org/debian bookworm-updates main
deb cdrom:[Debian GNU/Linux 12]/ bookworm main
"""

TRIXIE = """Types: deb deb-src
URIs: http://deb.debian.org/debian
 https://second.example.com/debian
# URIs: http://commented.example.com/
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://source.example.com/debian
Suites: trixie

Enabled: no
Types: deb
URIs: http://disabled.example.com/

Types: deb
URIs: http://security.debian.org/debian-security
Suites: trixie-security
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 URIs: http://key.example.com/
 -----END PGP PUBLIC KEY BLOCK-----
"""

ROCKY = """[baseos]
name=Rocky Linux $releasever - BaseOS
mirrorlist=https://mirrors.example.org/mirrorlist?arch=$basearch&repo=BaseOS-$releasever
#baseurl=http://dl.example.org/$contentdir/$releasever/BaseOS/$basearch/os/
enabled=1

[baseos-source]
baseurl=http://source.example.org/
enabled=0

[own]
baseurl=https://repo.example.com/a,
  https://other.example.com/b
proxy=http://proxy.example.com:3128

[straight]
baseurl=ftp://straight.example.com/c
proxy=_none_

[cdn]
metalink=https://$infra.example.org/metalink?x=%d
enabled = yes
"""


def test_a_one_line_list() -> None:
    assert _sources.apt_list_uris(BOOKWORM) == [
        "http://deb.debian.org/debian",
        "https://packages.example.com/redis",
        "http://security.debian.org/debian-security",
        "cdrom:[Debian",
    ]
    assert _sources.apt_list_uris("") == []


def test_a_deb822_file() -> None:
    assert _sources.deb822_uris(TRIXIE) == [
        "http://deb.debian.org/debian",
        "https://second.example.com/debian",
        "http://security.debian.org/debian-security",
    ]
    assert _sources.deb822_uris("# nothing\n") == []


def test_a_repo_file_of_dnf() -> None:
    general = "http://general.example.com:8080"
    assert _sources.dnf_sources(ROCKY, general) == [
        Source("https://mirrors.example.org/mirrorlist?arch=$basearch&repo=BaseOS-$releasever", general),
        Source("https://repo.example.com/a", "http://proxy.example.com:3128"),
        Source("ftp://straight.example.com/c", ""),
        Source("https://$infra.example.org/metalink?x=%d", general),
    ]
    assert _sources.dnf_sources("no ini file at all") == []


def test_the_proxy_of_dnf_conf() -> None:
    assert _sources.dnf_proxy("[main]\ngpgcheck=1\nproxy=http://p:1\n") == "http://p:1"
    assert _sources.dnf_proxy("[main]\nproxy=_none_\n") == ""
    assert _sources.dnf_proxy("[main]\nbest=True\n") == _sources.dnf_proxy("") == ""


class TestProxies:
    """The proxies of apt."""

    DUMP = """APT "";
Acquire "";
Acquire::http "";
Acquire::http::Proxy "http://user:secret@proxy.example.com:3128/";
Acquire::http::Proxy::straight.example.com "DIRECT";
Acquire::ftp::Proxy "";
"""

    def test_by_scheme_and_by_host(self) -> None:
        settings = _sources.apt_settings(self.DUMP)
        proxy = "http://user:secret@proxy.example.com:3128/"
        assert _sources.apt_proxy("http://deb.debian.org/debian", settings) == proxy
        assert _sources.apt_proxy("https://deb.debian.org/debian", settings) == proxy, "https takes http's"
        assert _sources.apt_proxy("http://Straight.example.com/x", settings) == "DIRECT"
        assert _sources.apt_proxy("ftp://deb.debian.org/", settings) == ""
        assert _sources.apt_proxy("tor+http://deb.debian.org/", settings) == proxy

    def test_a_program_that_finds_the_proxy_is_not_run(self) -> None:
        settings = _sources.apt_settings('Acquire::http::Proxy-Auto-Detect "/usr/bin/find-proxy";\n')
        assert _sources.apt_proxy("http://deb.debian.org/", settings) is None
        assert _sources.apt_proxy("ftp://deb.debian.org/", settings) == ""

    def test_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert _sources.environment_proxy("http://a.example.com/") == ""
        monkeypatch.setenv("http_proxy", "http://p:1")
        monkeypatch.setenv("no_proxy", ".inside.example.com")
        assert _sources.environment_proxy("http://a.example.com/") == "http://p:1"
        assert _sources.environment_proxy("https://a.example.com/") == ""
        assert _sources.environment_proxy("http://a.inside.example.com/") == ""


@pytest.mark.parametrize(
    ("uri", "proxy", "found"),
    [
        ("http://a/x", "", Endpoint("a", 80)),
        ("https://a:8443/x", "", Endpoint("a", 8443)),
        ("mirror+https://a/list", "", Endpoint("a", 443)),
        ("ftp://a", "", Endpoint("a", 21)),
        ("https://a", "DIRECT", Endpoint("a", 443)),
        ("http://a", "http://u:p@b:3128/", Endpoint("b", 3128)),
        ("http://a", "b:3128", Endpoint("b", 3128)),
        ("http://a", "socks5h://b", Endpoint("b", 1080)),
        ("http://[2001:db8::1]/x", "", Endpoint("2001:db8::1", 80)),
        ("http://$infra.example.org/x", "", None),
        ("http://a:port/x", "", None),
        ("s3://a/x", "", None),
        ("nonsense", "", None),
    ],
)
def test_where_a_connection_goes(uri: str, proxy: str, found: Endpoint | None) -> None:
    assert _sources.endpoint(uri, proxy) == found


def test_what_became_of_each_source() -> None:
    sources = [
        Source("http://a/x"),
        Source("http://a/y"),
        Source("https://b/"),
        Source("http://c/", "http://user:secret@p:3128"),
        Source("http://d/", "http://$auto-detect"),
        Source("file:/srv/debian"),
        Source("cdrom:[Debian"),
    ]
    assert _sources.endpoints(sources) == [Endpoint("a", 80), Endpoint("b", 443), Endpoint("p", 3128)]
    errors = {Endpoint("a", 80): "", Endpoint("b", 443): "no answer in 3 s", Endpoint("p", 3128): "refused"}
    found = _sources.origins(sources, errors)
    assert found == [
        Origin("a", "reached"),
        Origin("b", "unreachable", "no answer in 3 s"),
        Origin("c", "unreachable", "by the proxy p:3128: refused"),
        Origin("d", "unknown", "it can't be told where the connection goes"),
        Origin("file:", "local"),
        Origin("cdrom:", "local"),
    ]
    assert "secret" not in str(found)


def test_connections_are_tried_at_the_same_time_and_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listening, socket.socket() as closed:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        closed.bind(("127.0.0.1", 0))
        there, shut = Endpoint("127.0.0.1", listening.getsockname()[1]), Endpoint("127.0.0.1", closed.getsockname()[1])
        silent = Endpoint("a.name.server.that.is.silent", 80)
        real, release = socket.create_connection, threading.Event()

        def connect(target: Any, timeout: float) -> Any:
            if target[0] == silent.host:
                release.wait(20)
                raise OSError("too late")
            return real(target, timeout=timeout)

        monkeypatch.setattr(_sources.socket, "create_connection", connect)
        found = _sources.connect_all([there, shut, silent], seconds=1.0)
        release.set()
    assert found == {there: "", shut: "Connection refused", silent: "no answer in 1 s"}
    assert _sources.connect_all([]) == {}


class TestHost:
    """What this host's package manager says."""

    def which(self, monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
        monkeypatch.setattr(_sources.shutil, "which", lambda name: name if name in names else None)
        monkeypatch.setattr(_sources, "environment_proxy", lambda uri: "http://env:1" if uri.startswith("ftp") else "")

    def test_all_of_apts_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.which(monkeypatch, "apt-config")
        parts = tmp_path / "apt" / "sources.list.d"
        parts.mkdir(parents=True)
        (tmp_path / "apt" / "sources.list").write_text("deb http://one/ x main\n")
        (parts / "two.list").write_text("deb ftp://two/ x main\n")
        (parts / "three.sources").write_text("Types: deb\nURIs: https://three/\n")
        (parts / "four.list.save").write_text("deb http://four/ x main\n")
        dump = 'Acquire::https::Proxy-Auto-Detect "/x";\nAcquire::http::Proxy::one "http://p:1";\n'
        found = _sources.of_host(lambda words: (0, dump, ""), str(tmp_path))
        assert [source.uri for source in found] == ["http://one/", "https://three/", "ftp://two/"]
        assert [_sources.endpoint(*source) for source in found] == [Endpoint("p", 1), None, Endpoint("env", 1)]

    def test_all_of_dnfs_files(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        self.which(monkeypatch, "rpm")
        (tmp_path / "yum.repos.d").mkdir()
        (tmp_path / "dnf").mkdir()
        (tmp_path / "dnf" / "dnf.conf").write_text("[main]\nproxy=http://p:1\n")
        (tmp_path / "yum.repos.d" / "a.repo").write_text("[a]\nbaseurl=http://one/\n[b]\nmetalink=http://two/\n")
        (tmp_path / "yum.repos.d" / "c.repo").write_text("[c]\nbaseurl=ftp://three/\nproxy=_none_\n")
        assert _sources.of_host(lambda words: (1, "", ""), str(tmp_path)) == [
            Source("http://one/", "http://p:1"),
            Source("http://two/", "http://p:1"),
            Source("ftp://three/", "http://env:1"),
        ]

    def test_packages_that_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.which(monkeypatch, "dpkg-query")
        shown = "redis-server installed 5:7.0.15-1\npython3-redis config-files 4.3.4-1\nlibssl-dev installed 3.0.1\n"
        wanted = ["redis-server", "python3-redis", "libssl-dev:amd64", "build-essential"]
        missing = _sources.missing_packages(lambda words: (1, shown, "no packages found"), wanted)
        assert missing == ["python3-redis", "build-essential"]
        assert _sources.missing_packages(lambda words: 1 / 0, []) == []
        self.which(monkeypatch, "rpm")
        shown = "redis 6.2.7-1.el9\npackage gcc is not installed\n"
        assert _sources.missing_packages(lambda words: (1, shown, ""), ["redis", "gcc"]) == ["gcc"]
        self.which(monkeypatch)
        assert _sources.missing_packages(lambda words: (0, "", ""), ["redis"]) == []

    def test_packages_in_the_cache(self, tmp_path: Path) -> None:
        apt, dnf = tmp_path / "cache/apt/archives", tmp_path / "cache/dnf/base-1/packages"
        for folder in (apt, dnf):
            folder.mkdir(parents=True)
        (apt / "redis-server_5%3a7.0.15-1_amd64.deb").write_text("")
        (dnf / "redis-6.2.7-1.el9.x86_64.rpm").write_text("")
        (dnf / "gcc-c++-11.4.1-3.el9.x86_64.rpm").write_text("")
        names = ["redis-server", "redis", "gcc", "python3-redis"]
        assert _sources.cached_packages(names, str(tmp_path)) == ["redis-server", "redis"]
