# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against a rollout, judged over what hosts are really like."""

from __future__ import annotations

import re
from typing import Any, Sequence

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _preflight, _survey
from ansible_collections.edgeops.redis_modules.plugins.module_utils._preflight import FAULT, WARNING, Finding
from ansible_collections.edgeops.redis_modules.plugins.module_utils._sources import Origin
from ansible_collections.edgeops.redis_modules.plugins.module_utils._survey import Facts, Mount, Place
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_preflight

MIB, GIB = 1 << 20, 1 << 30

DEBIAN_11 = {"ID": "debian", "VERSION_ID": "11", "PRETTY_NAME": "Debian GNU/Linux 11 (bullseye)"}
DEBIAN_12 = {"ID": "debian", "VERSION_ID": "12", "PRETTY_NAME": "Debian GNU/Linux 12 (bookworm)"}
DEBIAN_13 = {"ID": "debian", "VERSION_ID": "13", "PRETTY_NAME": "Debian GNU/Linux 13 (trixie)"}
UBUNTU_20 = {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "20.04", "PRETTY_NAME": "Ubuntu 20.04.6 LTS"}
RHEL_8 = {
    "ID": "rhel",
    "ID_LIKE": "fedora",
    "VERSION_ID": "8.10",
    "PRETTY_NAME": "Red Hat Enterprise Linux 8.10",
}
ROCKY_9 = {"ID": "rocky", "ID_LIKE": "rhel centos fedora", "VERSION_ID": "9.4", "PRETTY_NAME": "Rocky Linux 9.4"}
ALPINE = {"ID": "alpine", "VERSION_ID": "3.20.1", "PRETTY_NAME": "Alpine Linux v3.20"}

ROOT = Mount("/", "259:2", "ext4", frozenset({"rw", "relatime"}))
USES = {
    "module folder": "/var/lib/redis/modules",
    "data": "/var/lib/redis",
    "cache": "/var/cache/edgeops-redis-modules",
    "snapshots": "/var/lib/edgeops-redis-modules",
}


def places(*others: Place) -> tuple[Place, ...]:
    """Return places on one healthy file system, but for others."""
    named = {other.use for other in others}
    return (*others, *(Place(use, path, ROOT, 40 * GIB, 900_000) for use, path in USES.items() if use not in named))


def place(use: str, available: int = 40 * GIB, inodes: int | None = 900_000, *options: str) -> Place:
    """Return a place on a file system of its own."""
    return Place(use, USES[use], Mount(USES[use], "253:3", "xfs", frozenset(options or ("rw",))), available, inodes)


HEALTHY = Facts(
    kernel="6.1.0-18-amd64",
    os_release=DEBIAN_12,
    booted_by_systemd=True,
    first_process="systemd",
    systemd=252,
    binary_there=True,
    redis="7.0.15",
    cores=4.0,
    memory=16 * GIB,
    places=places(),
    thp="madvise",
    overcommit="1",
    synchronised=True,
    unit={"ProtectHome": "yes", "PrivateTmp": "yes"},
)
WANTED = _survey.Wanted(
    folder="/var/lib/redis/modules",
    data="/var/lib/redis",
    cache="/var/cache/edgeops-redis-modules",
    conf_path="/etc/redis/redis.conf",
    binary="/usr/bin/redis-server",
    unit="redis-server.service",
    io_threads="auto",
    packages=("redis-server",),
    header="",
    header_sha256="",
)


def found(wanted: dict[str, Any] | None = None, **facts: Any) -> list[Finding]:
    """Return the findings of a host that is healthy but for these facts."""
    return _preflight.judge(HEALTHY._replace(**facts), WANTED._replace(**(wanted or {})))


def levels(findings: Sequence[Finding]) -> list[tuple[str, str]]:
    """Return what is told, in short."""
    return [(finding.level, finding.subject) for finding in findings]


@pytest.mark.parametrize("os_release", [DEBIAN_11, DEBIAN_12, DEBIAN_13])
def test_nothing_is_said_of_a_healthy_host(os_release: dict[str, str]) -> None:
    assert found(os_release=os_release) == []


def test_nothing_is_said_of_a_bare_host_whose_packages_can_be_had() -> None:
    bare = {"binary_there": False, "redis": "", "missing": ("redis-server",), "unit": {"LoadState": "not-found"}}
    assert found(origins=(Origin("deb.debian.org", "reached"),), **bare) == []
    assert found(origins=(Origin("file:", "local"),), **bare) == []


def test_what_is_not_known_is_no_finding() -> None:
    facts = HEALTHY._replace(cores=None, memory=None, places=(), thp="", overcommit="", synchronised=None, unit={})
    assert _preflight.judge(facts, WANTED) == []


def test_every_finding_is_whole_and_its_subject_is_known() -> None:
    worst = Facts(
        kernel="3.10.0-1160.el7.x86_64",
        os_release={"ID": "centos", "VERSION_ID": "7"},
        first_process="runsv",
        binary_there=True,
        redis="3.2.12",
        cores=1.0,
        memory=GIB,
        places=(place("module folder", 3 * MIB, 3, "ro", "noexec"),),
        thp="always",
        overcommit="0",
        synchronised=False,
        unit={"ProtectHome": "yes"},
        missing=("python3-redis",),
        origins=(Origin("mirror", "unreachable", "No route to host"),),
        header_needed=True,
    )
    wanted = WANTED._replace(header="distribution", folder="/home/modules", io_threads="4")
    findings = _preflight.judge(worst, wanted)
    assert {finding.subject for finding in findings} == set(_preflight.SUBJECTS)
    assert [finding.level for finding in findings] == sorted(finding.level for finding in findings), "faults first"
    assert all(all(finding) for finding in findings)
    assert not any("\n" in text for finding in findings for text in finding)


def test_the_subjects_are_documented() -> None:
    text = redis_preflight.DOCUMENTATION
    assert tuple(re.findall(r"V\(([a-z-]+)\)", text[text.index("  ignore:") :])) == _preflight.SUBJECTS


class TestSystem:
    """Kernel, distribution, systemd, Redis, size."""

    @pytest.mark.parametrize("kernel", ["4.15.0", "4.18.0-553.el8_10.x86_64", "5.4.0-26-generic", "6.18.44-fc", "10.1"])
    def test_a_kernel_that_will_do(self, kernel: str) -> None:
        assert found(kernel=kernel) == []

    @pytest.mark.parametrize("kernel", ["3.10.0-1160.el7.x86_64", "4.9.0-19-amd64", "4.14.355", "odd", ""])
    def test_a_kernel_that_will_not(self, kernel: str) -> None:
        (finding,) = found(kernel=kernel)
        assert finding[:4] == (FAULT, "kernel", kernel or "not known", "4.15 or later")

    @pytest.mark.parametrize(
        ("os_release", "level"),
        [
            (UBUNTU_20, WARNING),
            ({**UBUNTU_20, "VERSION_ID": "24.04"}, WARNING),
            ({**UBUNTU_20, "VERSION_ID": "18.04"}, FAULT),
            (RHEL_8, WARNING),
            (ROCKY_9, WARNING),
            ({"ID": "almalinux", "ID_LIKE": "rhel centos fedora", "VERSION_ID": "10.0"}, WARNING),
            ({"ID": "ol", "ID_LIKE": "fedora", "VERSION_ID": "7.9"}, FAULT),
            ({"ID": "centos", "ID_LIKE": "rhel fedora", "VERSION_ID": "7"}, FAULT),
            ({"ID": "fedora", "VERSION_ID": "41"}, WARNING),
            ({"ID": "amzn", "ID_LIKE": "fedora", "VERSION_ID": "2023"}, WARNING),
            ({**DEBIAN_12, "VERSION_ID": "10"}, FAULT),
            ({**DEBIAN_12, "VERSION_ID": "14"}, WARNING),
            ({"ID": "debian", "PRETTY_NAME": "Debian GNU/Linux forky/sid"}, WARNING),
            ({"ID": "raspbian", "ID_LIKE": "debian", "VERSION_ID": "11"}, WARNING),
            ({"ID": "linuxmint", "ID_LIKE": "ubuntu debian", "VERSION_ID": "6"}, WARNING),
            (ALPINE, FAULT),
            ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse", "VERSION_ID": "15.6"}, FAULT),
            ({}, FAULT),
        ],
    )
    def test_distributions(self, os_release: dict[str, str], level: str) -> None:
        assert levels(found(os_release=os_release)) == [(level, "distribution")]

    def test_a_container_that_systemd_has_not_booted(self) -> None:
        (finding,) = found(booted_by_systemd=False, first_process="redis-server", systemd=0, container="docker")
        assert finding[:3] == (FAULT, "systemd", "PID 1 is redis-server")

    def test_versions_of_systemd(self) -> None:
        assert found(systemd=239) == []
        assert levels(found(systemd=238)) == [(FAULT, "systemd")]
        assert levels(found(systemd=0)) == [(WARNING, "systemd")]

    def test_versions_of_redis(self) -> None:
        for version in ("4.0.0", "4.0.14", "5.0.3", "6.0.16", "7.0.15", "8.0.2"):
            assert found(redis=version) == []
        (finding,) = found(redis="3.2.12")
        assert finding[:4] == (FAULT, "redis", "Redis 3.2.12 (/usr/bin/redis-server)", "4.0 or later")
        (finding,) = found(redis="")
        assert finding[:3] == (FAULT, "redis", "/usr/bin/redis-server --version tells no version")

    def test_io_threads_come_with_redis_6(self) -> None:
        assert levels(found({"io_threads": "4"}, redis="5.0.3")) == [(FAULT, "io-threads")]
        assert found({"io_threads": "4"}, redis="6.0.16") == []
        assert found({"io_threads": "4"}, redis="", binary_there=False) == []
        for count in ("1", "auto", "many"):
            assert found({"io_threads": count}, redis="5.0.3") == []

    def test_a_small_machine(self) -> None:
        assert levels(found(cores=1.0)) == [(WARNING, "cores")]
        assert found(cores=1.5)[0].found == "1.5", "a container's quota"
        assert found(cores=2.0) == []
        (finding,) = found(memory=1993 * MIB)
        assert finding[:3] == (WARNING, "memory", "1993 MiB")
        assert found(memory=7_600_000 * 1024) == [], "what is left of 8 GB"


class TestFileSystems:
    """What the rollout writes to."""

    def test_a_full_disk(self) -> None:
        (finding,) = found(places=places(place("module folder", 20 * MIB)))
        assert finding == Finding(
            FAULT,
            "disk",
            "20 MiB free in /var/lib/redis/modules (module folder /var/lib/redis/modules)",
            "64 MiB at the least, 1024 MiB to be safe",
            "make room (du -xh /var/lib/redis/modules | sort -h), or enlarge it",
        )

    @pytest.mark.parametrize(
        ("available", "modules", "level"),
        [
            (64, 0, WARNING),
            (63, 0, FAULT),
            (663, 200, FAULT),
            (664, 200, WARNING),
            (1024, 200, None),
            (1023, 0, WARNING),
        ],
    )
    def test_the_floor_grows_with_the_modules(self, available: int, modules: int, level: str | None) -> None:
        findings = found(places=places(place("module folder", available * MIB)), modules_bytes=modules * MIB)
        assert levels(findings) == ([(level, "disk")] if level else [])

    def test_the_data_has_to_fit_once_more(self) -> None:
        full = places(place("data", 5 * GIB))
        assert found(places=full, server_bytes=4 * GIB) == []
        (finding,) = found(places=full, server_bytes=6 * GIB)
        assert (finding.level, finding.wanted) == (
            WARNING,
            "64 MiB at the least, 6144 MiB to be safe, which is what the server holds and would save",
        )
        assert found(places=places(place("cache", 5 * GIB)), server_bytes=6 * GIB) == []

    def test_one_file_system_is_told_once(self) -> None:
        full = tuple(Place(use, path, ROOT, 0, 0) for use, path in USES.items())
        findings = found(places=full)
        assert levels(findings) == [(FAULT, "disk"), (FAULT, "inodes")]
        assert all(path in finding.found for path in USES.values() for finding in findings)

    def test_inodes(self) -> None:
        for free, expected in ((199, [(FAULT, "inodes")]), (200, [(WARNING, "inodes")]), (2000, []), (None, [])):
            assert levels(found(places=places(place("cache", 40 * GIB, free)))) == expected

    def test_a_read_only_mount(self) -> None:
        (finding,) = found(places=places(place("cache", 40 * GIB, None, "ro", "relatime")))
        assert finding[:2] == (FAULT, "read-only")
        assert "mount -o remount,rw /var/cache/edgeops-redis-modules" in finding.mend

    @pytest.mark.parametrize(("systemd", "lifted"), [(239, False), (247, False), (248, True), (252, True), (257, True)])
    def test_a_noexec_mount(self, systemd: int, lifted: bool) -> None:
        shut = place("module folder", 40 * GIB, None, "rw", "noexec", "nosuid")
        assert levels(found(places=places(shut), systemd=systemd)) == ([] if lifted else [(FAULT, "noexec")])

    def test_noexec_elsewhere_and_nosuid_do_not_matter(self) -> None:
        assert found(places=places(place("data", 40 * GIB, None, "rw", "noexec")), systemd=247) == []
        assert found(places=places(place("module folder", 40 * GIB, None, "rw", "nosuid")), systemd=247) == []

    @pytest.mark.parametrize(
        ("folder", "hidden"),
        [
            ("/home/redis/modules", True),
            ("/tmp/modules", True),
            ("/var/tmp", True),
            ("/homes/modules", False),
            ("/opt/modules", False),
        ],
    )
    def test_what_the_unit_hides(self, folder: str, hidden: bool) -> None:
        expected = [(WARNING, "sandbox")] if hidden else []
        assert levels(found({"folder": folder})) == expected
        assert found({"folder": folder}, unit={"ProtectHome": "read-only", "PrivateTmp": "no"}) == []


class TestSettings:
    """The kernel's settings, and the clock."""

    def test_transparent_huge_pages_matter_before_redis_6_2(self) -> None:
        for version in ("6.0.16", ""):
            (finding,) = found(redis=version, binary_there=bool(version), thp="always")
            assert finding[:2] == (WARNING, "thp")
            assert "> /etc/tmpfiles.d/redis-thp.conf" in finding.mend, "it has to last"
        assert found(redis="6.2.0", thp="always") == []
        assert found(redis="6.0.16", thp="never") == []

    def test_overcommit(self) -> None:
        (finding,) = found(overcommit="0")
        assert finding[:2] == (WARNING, "overcommit")
        assert finding.mend.startswith("echo 'vm.overcommit_memory = 1' > /etc/sysctl.d/")
        assert found(overcommit="2") == []

    def test_a_container_can_not_mend_its_kernel(self) -> None:
        for finding in found(overcommit="0", thp="always", redis="6.0.16", container="lxc", synchronised=False):
            assert finding.mend.startswith("on the machine that this container runs on: ")

    def test_the_clock(self) -> None:
        assert levels(found(synchronised=False)) == [(WARNING, "clock")]


UP = Origin("deb.debian.org", "reached")
DOWN = Origin("security.debian.org", "unreachable", "No route to host")
AUTO = Origin("auto.example.com", "unknown", "it can't be told where the connection goes")


class TestFetched:
    """Packages and headers that are missing."""

    def test_no_source_can_be_reached(self) -> None:
        (finding,) = found(missing=("python3-redis", "gcc"), cached=("gcc",), origins=(DOWN,))
        assert finding[:2] == (FAULT, "packages")
        assert finding.found == (
            "python3-redis, gcc missing, and no package source can be reached: security.debian.org (No route to host)"
        )

    def test_all_is_in_the_cache(self) -> None:
        (finding,) = found(missing=("gcc",), cached=("gcc",), origins=(DOWN,))
        assert finding[:2] == (WARNING, "packages")
        assert found(missing=("gcc",), cached=("gcc",)) == []

    def test_one_of_two_can_be_reached(self) -> None:
        (finding,) = found(missing=("gcc",), origins=(UP, DOWN))
        assert finding[:3] == (WARNING, "packages", "not reached: security.debian.org (No route to host)")

    def test_a_source_that_could_not_be_tried_may_work(self) -> None:
        assert levels(found(missing=("gcc",), origins=(AUTO, DOWN))) == [(WARNING, "packages")]

    def test_no_source_at_all(self) -> None:
        (finding,) = found(missing=("gcc",))
        assert finding[:3] == (FAULT, "packages", "gcc missing, and no package source is configured")

    def test_the_distributions_header(self) -> None:
        wanted = {"header": "distribution"}
        assert found(wanted, header_needed=True, origins=(UP,)) == []
        assert levels(found(wanted, header_needed=True, origins=(UP, DOWN))) == [(WARNING, "packages")]
        assert levels(found(wanted, header_needed=True, origins=(DOWN,))) == [(FAULT, "header")]
        assert levels(found(wanted, header_needed=True)) == [(FAULT, "header")]
        assert found(wanted, header_needed=False) == []

    def test_a_header_by_url(self) -> None:
        wanted = {"header": "https://deb.debian.org/redismodule.h"}
        for origin, expected in ((UP, []), (DOWN, [(FAULT, "header")]), (AUTO, [(WARNING, "header")])):
            assert levels(found(wanted, header_needed=True, header_origins=(origin,))) == expected


def test_what_is_taken_knowingly() -> None:
    findings = found(kernel="4.9.0", overcommit="0", cores=1.0, redis="3.2.12")
    assert levels(findings) == [(FAULT, "kernel"), (FAULT, "redis"), (WARNING, "cores"), (WARNING, "overcommit")]
    kept = _preflight.knowingly(findings, ["kernel", "overcommit"])
    assert levels(kept) == [(FAULT, "redis"), (WARNING, "kernel"), (WARNING, "cores")]
    assert kept[1].found == "4.9.0 (ignored knowingly)"
    assert _preflight.knowingly(findings, []) == findings


def test_the_faults_as_sentences() -> None:
    findings = found(kernel="4.9.0", overcommit="0")
    assert _preflight.lines(findings) == [
        "kernel: 4.9.0; wanted is 4.15 or later. To mend it: boot a newer kernel, which a supported distribution has"
    ]


class TestTable:
    """One table for the fleet."""

    def results(self, **findings: list[Finding]) -> dict[str, Any]:
        return {host: {"findings": [finding._asdict() for finding in own]} for host, own in findings.items()}

    def test_it_is_empty_where_nothing_was_found(self) -> None:
        assert _preflight.table({"a": {"findings": []}, "b": {}}, ["a", "b", "unreachable"]) == ""

    def test_faults_come_first_and_what_is_alike_is_one_row(self) -> None:
        small, old = found(cores=1.0, overcommit="0"), found(kernel="4.9.0", overcommit="0")
        drawn = _preflight.table(self.results(b=small, a=old, c=[]), ["a", "b", "c"])
        rows = [line.split("  ") for line in drawn.splitlines()]
        assert [row[0].split() for row in rows[:2]] == [["host"], ["----"]]
        assert [" ".join(" ".join(row).split()[:5]) for row in rows[2:]] == [
            "a fault kernel 4.9.0 boot",
            "b warning cores 1 give",
            "a, b warning overcommit vm.overcommit_memory",
        ]
        column = drawn.splitlines()[0].index("mend")
        assert all(line[column - 2 : column] == "  " for line in drawn.splitlines())

    def test_many_hosts_are_named_below(self) -> None:
        hosts = [f"h{number}" for number in range(4)]
        drawn = _preflight.table(self.results(**{host: found(overcommit="0") for host in hosts}), hosts).splitlines()
        assert drawn[2].startswith("4 hosts  warning  overcommit")
        assert drawn[3:] == ["overcommit, vm.overcommit_memory is 0: h0, h1, h2, h3"]
