# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host is like, as far as it matters to a rollout: looked at once, changing nothing."""

from __future__ import annotations

import ctypes
import glob
import os
import re
import shutil
from typing import Iterable, Mapping, NamedTuple

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _header, _host, _sources

STATE = "/var/lib/edgeops-redis-modules"
UNITS = "/etc/systemd/system"


class Wanted(NamedTuple):
    """What the rollout is going to need of a host.

    I(header) is empty where no redismodule.h has to be had, C(distribution) where it comes out of a source package, or
    a URL with its digest in I(header_sha256).
    """

    folder: str
    data: str
    cache: str
    conf_path: str
    binary: str
    unit: str
    io_threads: str
    packages: tuple[str, ...]
    header: str
    header_sha256: str


class Mount(NamedTuple):
    """A mounted file system; I(options) are those of the mount and of the file system together."""

    point: str
    device: str
    kind: str
    options: frozenset[str]


class Place(NamedTuple):
    """A folder that the rollout, or Redis, writes to; I(inodes) is None where the file system does not count them."""

    use: str
    path: str
    mount: Mount | None
    available: int
    inodes: int | None


class Facts(NamedTuple):
    """What was found. An empty text and None mean that it is not known or not there."""

    kernel: str = ""
    os_release: Mapping[str, str] = {}
    booted_by_systemd: bool = False
    first_process: str = ""
    systemd: int = 0
    container: str = ""
    binary_there: bool = False
    redis: str = ""
    cores: float | None = None
    memory: int | None = None
    places: tuple[Place, ...] = ()
    server_bytes: int = 0
    modules_bytes: int = 0
    thp: str = ""
    overcommit: str = ""
    synchronised: bool | None = None
    unit: Mapping[str, str] = {}
    missing: tuple[str, ...] = ()
    cached: tuple[str, ...] = ()
    header_needed: bool = False
    origins: tuple[_sources.Origin, ...] = ()
    header_origins: tuple[_sources.Origin, ...] = ()


# ---------------------------------------------------------------- what files say


def parse_os_release(text: str) -> dict[str, str]:
    """Return the fields of /etc/os-release."""
    found = re.findall(r"""(?m)^([A-Z0-9_]+)=(["']?)(.*?)\2[ \t]*$""", text)
    return {name: re.sub(r"\\(.)", r"\1", value) for name, _quote, value in found}


def parse_meminfo(text: str) -> dict[str, int]:
    """Return the fields of /proc/meminfo or /proc/PID/status that are sizes, in bytes."""
    return {name: int(number) * 1024 for name, number in re.findall(r"(?m)^([\w()]+):\s+(\d+) kB$", text)}


def parse_mountinfo(text: str) -> dict[int, Mount]:
    """Return the mounts of /proc/self/mountinfo by their ids."""
    mounts = {}
    for line in text.splitlines():
        before, _separator, after = line.partition(" - ")
        fields, kind = before.split(" "), after.split(" ")
        if len(fields) >= 6 and len(kind) >= 3:
            point = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match.group(1), 8)), fields[4])
            options = frozenset(fields[5].split(",")) | (frozenset(kind[2].split(",")) & {"ro"})
            mounts[int(fields[0])] = Mount(point, fields[2], kind[0], options)
    return mounts


def parse_cpu_quota(cpu_max: str, quota: str = "", period: str = "") -> float | None:
    """Return how many cores a control group may use: by C(cpu.max), or the older C(cpu.cfs_quota_us) and its period.

    None where there is no limit.
    """
    words = cpu_max.split() or [quota.strip(), period.strip()]
    if len(words) == 2 and all(word.isdigit() for word in words) and int(words[1]):
        return int(words[0]) / int(words[1])
    return None


def memory_of(meminfo: str, limits: Iterable[str]) -> int | None:
    """Return the memory of the host, or the least limit of its control group, in bytes; None where it is not known."""
    total = parse_meminfo(meminfo).get("MemTotal")
    known = [int(limit) for limit in limits if limit.strip().isdigit()] + ([total] if total else [])
    return min(known) if known else None


def parse_chosen(text: str) -> str:
    """Return the chosen one of C(always [madvise] never)."""
    match = re.search(r"\[(\w+)\]", text)
    return match.group(1) if match else ""


# ---------------------------------------------------------------- this host


def look(run: _host.Run, wanted: Wanted) -> Facts:
    """Return what this host is like."""
    group = "/sys/fs/cgroup"
    version = _host.server_version(run, wanted.binary)
    has_systemctl = bool(shutil.which("systemctl"))
    booted = os.path.isdir("/run/systemd/system")
    unit = _host.unit_state(run, wanted.unit) if has_systemctl and booted else {}
    pid = _host.main_pid(unit)
    missing = tuple(_sources.missing_packages(run, wanted.packages))
    header_needed = _header_needed(wanted, version)
    from_packages = bool(missing) or (header_needed and wanted.header == "distribution")
    # Everything that needs the network is tried at the same time, and nothing is where nothing has to be fetched.
    sources = _sources.of_host(run) if from_packages else []
    by_url = header_needed and wanted.header != "distribution"
    header = [_sources.Source(wanted.header, _sources.environment_proxy(wanted.header))] if by_url else []
    tried = _sources.connect_all(_sources.endpoints([*sources, *header]))
    quota = parse_cpu_quota(
        _host.read_text(f"{group}/cpu.max"),
        _host.read_text(f"{group}/cpu/cpu.cfs_quota_us"),
        _host.read_text(f"{group}/cpu/cpu.cfs_period_us"),
    )
    cores = float(_host.facts_of_platform()["cores"])
    limits = (_host.read_text(f"{group}/memory.max"), _host.read_text(f"{group}/memory/memory.limit_in_bytes"))
    return Facts(
        kernel=os.uname().release,
        os_release=parse_os_release(_host.read_text("/etc/os-release") or _host.read_text("/usr/lib/os-release")),
        booted_by_systemd=booted,
        first_process=_host.read_text("/proc/1/comm").strip(),
        systemd=_host.systemd_version(run) if has_systemctl else 0,
        container=_container(),
        binary_there=os.path.exists(wanted.binary),
        redis=version,
        cores=cores if quota is None else min(cores, quota),
        memory=memory_of(_host.read_text("/proc/meminfo"), limits),
        places=_places(wanted, bool(missing)),
        server_bytes=parse_meminfo(_host.read_text(f"/proc/{pid}/status")).get("VmRSS", 0) if pid else 0,
        modules_bytes=sum(_size(path) for path in glob.glob(os.path.join(glob.escape(wanted.folder), "*.so"))),
        thp=parse_chosen(_host.read_text("/sys/kernel/mm/transparent_hugepage/enabled")),
        overcommit=_host.read_text("/proc/sys/vm/overcommit_memory").strip(),
        synchronised=clock_synchronised(),
        unit=unit,
        missing=missing,
        cached=tuple(_sources.cached_packages(missing)),
        header_needed=header_needed,
        origins=tuple(_sources.origins(sources, tried)),
        header_origins=tuple(_sources.origins(header, tried)),
    )


class Timex(ctypes.Structure):
    """The beginning of C's struct timex, with room for the rest."""

    _fields_ = [
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("rest", ctypes.c_byte * 512),
    ]


MOST_ERROR = 16_000_000
"""Microseconds: from here on, the kernel and C(timedatectl) call a clock not synchronised."""


def clock_synchronised() -> bool | None:
    """Return whether the kernel knows its clock to be synchronised; None where it does not tell, as in a container.

    C(timedatectl) asks the same, but starts a service for it.
    """
    timex = Timex()
    try:
        if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
            return None
    except (OSError, AttributeError):
        return None
    return bool(timex.maxerror < MOST_ERROR)


def _header_needed(wanted: Wanted, version: str) -> bool:
    if not wanted.header:
        return False
    kept = version if wanted.header == "distribution" else _header.given_name(wanted.header_sha256)
    return not kept or not os.path.exists(os.path.join(wanted.cache, "headers", kept, _header.HEADER))


def _places(wanted: Wanted, packages: bool) -> tuple[Place, ...]:
    uses = {
        "module folder": wanted.folder,
        "data": wanted.data,
        "cache": wanted.cache,
        "snapshots": STATE,
        "redis.conf": os.path.dirname(wanted.conf_path),
        "drop-in": UNITS,
    }
    if packages:
        uses["packages"] = "/usr"
    mounts = parse_mountinfo(_host.read_text("/proc/self/mountinfo"))
    return tuple(place for use, path in uses.items() for place in [_place(use, path, mounts)] if place)


def _place(use: str, path: str, mounts: Mapping[int, Mount]) -> Place | None:
    """Return what the file system of a folder is like, or that of the nearest folder above which there is."""
    there = os.path.realpath(path)
    while not os.path.isdir(there) and there != os.path.dirname(there):
        there = os.path.dirname(there)
    try:
        handle = os.open(there, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # By the kernel's own number of the mount: one mount may hide another.
        match = re.search(r"(?m)^mnt_id:\s*(\d+)$", _host.read_text(f"/proc/self/fdinfo/{handle}"))
        found = os.fstatvfs(handle)
    except OSError:
        return None
    finally:
        os.close(handle)
    mount = mounts.get(int(match.group(1))) if match else None
    return Place(use, path, mount, found.f_bavail * found.f_frsize, found.f_favail if found.f_files else None)


def _container() -> str:
    for path, kind in (("/.dockerenv", "docker"), ("/run/.containerenv", "podman")):
        if os.path.exists(path):
            return kind
    return _host.read_text("/run/systemd/container").strip()


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
