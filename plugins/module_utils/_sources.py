# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a host gets its packages from, and whether a connection to there comes about."""

from __future__ import annotations

import configparser
import glob
import re
import shutil
import socket
import threading
import time
import urllib.request
from typing import Mapping, NamedTuple, Sequence
from urllib.parse import urlsplit

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host

PORTS = {"http": 80, "https": 443, "ftp": 21, "socks5h": 1080, "socks5": 1080}
LOCAL = ("file", "cdrom", "copy")
SECONDS = 3.0
"""How long all connections together may take; they are made at the same time."""


class Source(NamedTuple):
    """An address that packages come from, and the proxy that its own settings name: none where that is empty."""

    uri: str
    proxy: str = ""


class Origin(NamedTuple):
    """A source and what was found when it was tried.

    I(state) is C(reached), C(unreachable), C(local) for one that needs no network, or C(unknown) for one that was not
    tried; I(reason) says why, where it is neither reached nor local. Neither holds a login.
    """

    name: str
    state: str
    reason: str = ""


class Endpoint(NamedTuple):
    """Where a connection has to go."""

    host: str
    port: int


# ---------------------------------------------------------------- what is configured


def apt_list_uris(text: str) -> list[str]:
    """Return the addresses of a one-line apt list, without those of source packages alone."""
    found = re.findall(r"(?m)^[ \t]*deb[ \t]+(?:\[[^\]\n]*\][ \t]+)?(\S+)", text)
    return list(dict.fromkeys(found))


def deb822_uris(text: str) -> list[str]:
    """Return the addresses of a deb822 .sources file, without those that are disabled or of source packages alone."""
    found: list[str] = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, list[str]] = {}
        key = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            match = re.match(r"([A-Za-z-]+):(.*)", line)
            if match:
                key = match.group(1).lower()
            value = match.group(2) if match else line
            fields.setdefault(key, []).extend(value.split())
        enabled = " ".join(fields.get("enabled", ["yes"])).lower()
        if "deb" in fields.get("types", []) and enabled not in ("no", "false", "without", "off", "disable", "0"):
            found += fields.get("uris", [])
    return list(dict.fromkeys(found))


def dnf_sources(text: str, proxy: str = "") -> list[Source]:
    """Return the sources of a .repo file whose repository is enabled: the first address of each way it names.

    I(proxy) is that of dnf.conf, for those that name none.
    """
    found: list[Source] = []
    for section in _ini(text).values():
        if section.get("enabled", "1").strip().lower() in ("0", "no", "false", "off"):
            continue
        own = section.get("proxy", proxy).strip()
        for key in ("baseurl", "metalink", "mirrorlist"):
            uris = section.get(key, "").replace(",", " ").split()
            if uris:
                found.append(Source(uris[0], "" if own.lower() == "_none_" else own))
                break
    return list(dict.fromkeys(found))


def dnf_proxy(text: str) -> str:
    """Return the proxy that dnf.conf names; empty where it names none."""
    proxy = _ini(text).get("main", {}).get("proxy", "").strip()
    return "" if proxy.lower() == "_none_" else proxy


def _ini(text: str) -> dict[str, dict[str, str]]:
    parser = configparser.RawConfigParser(strict=False)
    try:
        parser.read_string(text)
    except configparser.Error:
        return {}
    return {name: dict(parser.items(name)) for name in parser.sections()}


def apt_settings(dump: str) -> dict[str, str]:
    """Return the settings of C(apt-config dump) by their names in lower case."""
    return {name.lower(): value for name, value in re.findall(r'(?m)^(\S+) "(.*)";$', dump)}


def apt_proxy(uri: str, settings: Mapping[str, str]) -> str | None:
    """Return the proxy that apt's own settings name for an address; empty for none, None where only a program knows."""
    scheme, host = _scheme(uri), urlsplit(uri).hostname or ""
    schemes = (scheme, "http") if scheme == "https" else (scheme,)
    for name in schemes:
        for key in (f"acquire::{name}::proxy::{host.lower()}", f"acquire::{name}::proxy"):
            if settings.get(key):
                return settings[key]
    for name in schemes:
        if settings.get(f"acquire::{name}::proxy-auto-detect") or settings.get(f"acquire::{name}::proxyautodetect"):
            return None
    return ""


def environment_proxy(uri: str) -> str:
    """Return the proxy that this process' environment names for an address; empty for none."""
    host = urlsplit(uri).hostname or ""
    proxies = urllib.request.getproxies_environment()
    if urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]
        return ""
    return proxies.get(_scheme(uri), proxies.get("all", ""))


def _scheme(uri: str) -> str:
    return urlsplit(uri).scheme.lower().split("+")[-1]


# ---------------------------------------------------------------- whether it can be reached


def endpoint(uri: str, proxy: str) -> Endpoint | None:
    """Return where the connection for an address goes; None where that can't be told."""
    direct = proxy == "" or proxy.upper() == "DIRECT"
    target = uri if direct else (proxy if "://" in proxy else f"http://{proxy}")
    try:
        parts = urlsplit(target)
        port = parts.port or PORTS.get(_scheme(target), 0)
    except ValueError:
        return None
    if not parts.hostname or not port or "$" in parts.hostname:
        return None
    return Endpoint(parts.hostname, port)


def endpoints(sources: Sequence[Source]) -> list[Endpoint]:
    """Return where connections to the sources go, each once."""
    ways = [endpoint(source.uri, source.proxy) for source in sources if _scheme(source.uri) not in LOCAL]
    return list(dict.fromkeys(way for way in ways if way))


def origins(sources: Sequence[Source], errors: Mapping[Endpoint, str]) -> list[Origin]:
    """Return what was found for each source, each name once; I(errors) is what connect_all() says."""
    found: dict[str, Origin] = {}
    for source in sources:
        origin = _origin(source, errors)
        found.setdefault(origin.name, origin)
    return list(found.values())


def _origin(source: Source, errors: Mapping[Endpoint, str]) -> Origin:
    if _scheme(source.uri) in LOCAL:
        return Origin(f"{_scheme(source.uri)}:", "local")
    name, way = urlsplit(source.uri).hostname or "an address without a host", endpoint(source.uri, source.proxy)
    if way is None:
        return Origin(name, "unknown", "it can't be told where the connection goes")
    by = "" if way.host == name else f"by the proxy {way.host}:{way.port}"
    error = errors.get(way, "")
    return Origin(name, "unreachable" if error else "reached", ": ".join(part for part in (by, error) if part))


def connect_all(endpoints: Sequence[Endpoint], seconds: float = SECONDS) -> dict[Endpoint, str]:
    """Try a TCP connection to each, all at the same time; return an error for each, empty where it came about.

    A name server that does not answer can't be hurried, so the threads are left behind rather than waited for.
    """
    errors: dict[Endpoint, str] = {}

    def try_one(target: Endpoint) -> None:
        try:
            socket.create_connection((target.host, target.port), timeout=seconds).close()
            errors[target] = ""
        except (OSError, UnicodeError) as error:
            errors[target] = str(getattr(error, "strerror", None) or error)

    threads = [threading.Thread(target=try_one, args=(target,), daemon=True) for target in endpoints]
    end = time.monotonic() + seconds
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    done = dict(errors)
    return {target: done.get(target, f"no answer in {seconds:g} s") for target in endpoints}


# ---------------------------------------------------------------- this host


def of_host(run: _host.Run, etc: str = "/etc") -> list[Source]:
    """Return the sources that this host's package manager is configured with."""
    if shutil.which("apt-config"):
        uris = apt_list_uris(_host.read_text(f"{etc}/apt/sources.list"))
        for path in sorted(glob.glob(f"{etc}/apt/sources.list.d/*")):
            if path.endswith(".list"):
                uris += apt_list_uris(_host.read_text(path))
            elif path.endswith(".sources"):
                uris += deb822_uris(_host.read_text(path))
        _code, dump, _err = run(["apt-config", "dump"])
        settings = apt_settings(dump)
        found = []
        for uri in dict.fromkeys(uris):
            proxy = apt_proxy(uri, settings)
            # No endpoint can be told from a dollar sign: see endpoint().
            found.append(Source(uri, "http://$auto-detect" if proxy is None else proxy or environment_proxy(uri)))
        return found
    proxy = dnf_proxy(_host.read_text(f"{etc}/dnf/dnf.conf"))
    repositories = [
        source
        for path in sorted(glob.glob(f"{etc}/yum.repos.d/*.repo"))
        for source in dnf_sources(_host.read_text(path), proxy)
    ]
    return [source if source.proxy else Source(source.uri, environment_proxy(source.uri)) for source in repositories]


def missing_packages(run: _host.Run, packages: Sequence[str]) -> list[str]:
    """Return which of the packages are not installed; none of them where no package manager is known."""
    there = _host.package_versions(run, packages) if packages else None
    return [] if there is None else [package for package in packages if package.split(":")[0] not in there]


def cached_packages(packages: Sequence[str], var: str = "/var") -> list[str]:
    """Return which of the packages lie in the package manager's cache on this host."""
    patterns = (f"{var}/cache/apt/archives/%s_*.deb", f"{var}/cache/dnf/*/packages/%s-[0-9]*.rpm")
    return [name for name in packages if any(glob.glob(pattern % glob.escape(name)) for pattern in patterns)]
