# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands against a rollout on a host, all of it and before anything is touched: it judges what _survey saw."""

from __future__ import annotations

import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _survey

FAULT = "fault"
WARNING = "warning"

MIB = 1 << 20
GIB = 1 << 30

KERNEL = (4, 15)
SYSTEMD = 239
"""That of RHEL 8, the oldest of any supported distribution."""
EXEC_PATHS = 248
"""The systemd that brought ExecPaths=, by which our drop-in takes noexec away for the service alone."""
REDIS = (4, 0)
REDIS_IO_THREADS = (6, 0)
REDIS_OWN_THP = (6, 2)
"""From here on, Redis turns transparent huge pages off for itself (disable-thp)."""

CORES = 2
MEMORY = 8 * 10**9 * 9 // 10
"""8 GB, less a tenth: firmware and kernel keep some of it to themselves."""

DISK_FLOOR = 64 * MIB
"""For redis.conf, logs, headers, build folders and the work of package managers; what modules need comes on top."""
DISK_ENOUGH = GIB
MODULE_COPIES = 3
"""While a module changes, its new file, the one in trial and the one in the snapshot are there beside what was."""
INODES_FLOOR = 200
"""A rollout makes some dozens of files, a sources' tree included."""
INODES_ENOUGH = 2000

OLDEST = {"debian": (11,), "ubuntu": (20, 4), "rhel": (8,)}
TESTED = {("debian", 11), ("debian", 12), ("debian", 13)}
REDHATS = ("rhel", "centos", "rocky", "almalinux", "ol")

HIDDEN = {"ProtectHome": ("/home", "/root", "/run/user"), "PrivateTmp": ("/tmp", "/var/tmp")}  # noqa: S108
"""What a unit's properties hide from its service."""

SUBJECTS = (
    "kernel",
    "distribution",
    "systemd",
    "redis",
    "io-threads",
    "cores",
    "memory",
    "disk",
    "inodes",
    "read-only",
    "noexec",
    "sandbox",
    "thp",
    "overcommit",
    "clock",
    "packages",
    "header",
)


class Finding(NamedTuple):
    """One thing that is not as it should be, and how to mend it."""

    level: str
    subject: str
    found: str
    wanted: str
    mend: str


def judge(facts: _survey.Facts, wanted: _survey.Wanted) -> list[Finding]:
    """Return all findings of a host: the faults first, each in the order of SUBJECTS."""
    found = [
        *kernel(facts),
        *distribution(facts),
        *systemd(facts),
        *redis(facts, wanted),
        *cores(facts),
        *memory(facts),
        *disk(facts),
        *inodes(facts),
        *read_only(facts),
        *noexec(facts),
        *sandbox(facts, wanted),
        *thp(facts),
        *overcommit(facts),
        *clock(facts),
        *packages(facts),
        *header(facts, wanted),
    ]
    return sorted(found, key=lambda finding: finding.level != FAULT)


def knowingly(findings: Iterable[Finding], ignored: Sequence[str]) -> list[Finding]:
    """Return the findings with the faults of I(ignored) subjects turned to warnings, and without their warnings."""
    kept = []
    for finding in findings:
        if finding.subject not in ignored:
            kept.append(finding)
        elif finding.level == FAULT:
            kept.append(finding._replace(level=WARNING, found=finding.found + " (ignored knowingly)"))
    return sorted(kept, key=lambda finding: finding.level != FAULT)


# ---------------------------------------------------------------- the system


def kernel(facts: _survey.Facts) -> list[Finding]:
    """Judge the version of the kernel."""
    match = re.match(r"(\d+)\.(\d+)", facts.kernel)
    if match and (int(match.group(1)), int(match.group(2))) >= KERNEL:
        return []
    mend = "boot a newer kernel, which a supported distribution has"
    return [Finding(FAULT, "kernel", facts.kernel or "not known", "4.15 or later", mend)]


def family(os_release: Mapping[str, str]) -> str:
    """Return the supported family that a distribution belongs to: debian, ubuntu or rhel; empty for another one."""
    own = os_release.get("ID", "").lower()
    if own in ("debian", "ubuntu"):
        return own
    names = [own, *os_release.get("ID_LIKE", "").lower().split()]
    if any(name in (*REDHATS, "fedora") for name in names):
        return "rhel"
    # A derivative numbers its releases by itself; which of Debian's it is, its number does not tell.
    return "debian" if "debian" in names or "ubuntu" in names else ""


def distribution(facts: _survey.Facts) -> list[Finding]:
    """Judge the distribution and its version."""
    fields = facts.os_release
    own, number = fields.get("ID", "").lower(), _host.version_tuple(fields.get("VERSION_ID", ""))
    found = fields.get("PRETTY_NAME") or own or "not known"
    wanted = "Debian 11, Ubuntu 20.04 or RHEL 8, or a later one"
    belongs = family(fields)
    if not belongs:
        return [Finding(FAULT, "distribution", found, wanted, "use a host with one of these")]
    numbered_alike = own in ("debian", "ubuntu", *REDHATS)
    if numbered_alike and number and number < OLDEST[belongs]:
        return [Finding(FAULT, "distribution", found, wanted, "upgrade it")]
    if number and (own, number[0]) in TESTED:
        return []
    mend = "roll out to one host first; then redis_preflight_ignore: [distribution] leaves this out"
    return [Finding(WARNING, "distribution", found, "one that our tests run on: Debian 11 to 13", mend)]


def systemd(facts: _survey.Facts) -> list[Finding]:
    """Judge who is PID 1, and its version."""
    if not facts.booted_by_systemd:
        found = f"PID 1 is {facts.first_process or 'not known'}"
        mend = "use a host, or a container, that systemd has booted: it starts Redis and makes the trial's sandbox"
        return [Finding(FAULT, "systemd", found, "systemd as PID 1", mend)]
    if facts.systemd == 0:
        mend = "see why systemctl --version does not tell it"
        return [Finding(WARNING, "systemd", "its version is not known", f"{SYSTEMD} or later", mend)]
    if facts.systemd < SYSTEMD:
        return [Finding(FAULT, "systemd", str(facts.systemd), f"{SYSTEMD} or later", "upgrade the distribution")]
    return []


def redis(facts: _survey.Facts, wanted: _survey.Wanted) -> list[Finding]:
    """Judge the installed Redis; one that is not there yet will be installed."""
    if not facts.binary_there:
        return []
    if not facts.redis:
        found = f"{wanted.binary} --version tells no version"
        return [Finding(FAULT, "redis", found, "Redis 4.0 or later", "install a whole one, or set redis_server_binary")]
    version, findings = _host.version_tuple(facts.redis), []
    if version < REDIS:
        mend = "upgrade Redis: modules came with 4.0"
        findings.append(Finding(FAULT, "redis", f"Redis {facts.redis} ({wanted.binary})", "4.0 or later", mend))
    if wanted.io_threads.isdigit() and int(wanted.io_threads) > 1 and version < REDIS_IO_THREADS:
        found = f"redis_server_io_threads is {wanted.io_threads}, Redis is {facts.redis}"
        findings.append(
            Finding(FAULT, "io-threads", found, "Redis 6.0 or later", "set it to auto or 1, or upgrade Redis")
        )
    return findings


def cores(facts: _survey.Facts) -> list[Finding]:
    """Judge the number of cores."""
    if facts.cores is None or facts.cores >= CORES:
        return []
    mend = "give it more: what Redis saves, and what its modules do in threads, takes turns with its commands"
    return [Finding(WARNING, "cores", f"{facts.cores:g}", f"{CORES} are recommended", mend)]


def memory(facts: _survey.Facts) -> list[Finding]:
    """Judge the size of the memory."""
    if facts.memory is None or facts.memory >= MEMORY:
        return []
    mend = "give it more, or set redis_server_maxmemory to what there is room for, saving included"
    return [Finding(WARNING, "memory", size(facts.memory), "8 GB are recommended", mend)]


# ---------------------------------------------------------------- file systems


def disk(facts: _survey.Facts) -> list[Finding]:
    """Judge the free space of each file system that is written to."""
    findings = []
    for places in by_file_system(facts.places):
        available, uses = places[0].available, {place.use for place in places}
        floor = DISK_FLOOR + (MODULE_COPIES * facts.modules_bytes if "module folder" in uses else 0)
        enough = max(DISK_ENOUGH, floor, facts.server_bytes if "data" in uses else 0)
        if available >= enough:
            continue
        wanted = f"{size(floor)} at the least, {size(enough)} to be safe"
        if enough == facts.server_bytes:
            wanted += ", which is what the server holds and would save"
        level = FAULT if available < floor else WARNING
        found = f"{size(available)} free in {where(places)}"
        mend = f"make room (du -xh {point(places)} | sort -h), or enlarge it"
        findings.append(Finding(level, "disk", found, wanted, mend))
    return findings


def inodes(facts: _survey.Facts) -> list[Finding]:
    """Judge the free inodes of each file system that is written to."""
    findings = []
    for places in by_file_system(facts.places):
        free = places[0].inodes
        if free is not None and free < INODES_ENOUGH:
            level = FAULT if free < INODES_FLOOR else WARNING
            wanted = f"{INODES_FLOOR} at the least, {INODES_ENOUGH} to be safe"
            mend = f"delete files (du -x --inodes {point(places)} | sort -n), or make the file system anew with more"
            findings.append(Finding(level, "inodes", f"{free} free in {where(places)}", wanted, mend))
    return findings


def read_only(facts: _survey.Facts) -> list[Finding]:
    """Judge whether what has to be written can be."""
    findings = []
    for places in by_file_system(facts.places):
        # Of one file system, a mount can be read-only and another one not.
        shut = [place for place in places if place.mount and "ro" in place.mount.options]
        if shut:
            mend = (
                f"mount -o remount,rw {point(shut)}; where it was not meant so, see dmesg for errors of the disk first"
            )
            findings.append(Finding(FAULT, "read-only", f"{where(shut)} is mounted read-only", "a writable one", mend))
    return findings


def noexec(facts: _survey.Facts) -> list[Finding]:
    """Judge whether code can run from the module folder.

    From systemd 248 on, our drop-in's ExecPaths= lifts a mount's noexec for the service, so there it is none.
    """
    if facts.systemd >= EXEC_PATHS:
        return []
    wanted = (
        f"a mount with exec, as systemd {facts.systemd} can't lift that for the service (from {EXEC_PATHS} on it can)"
    )
    findings = []
    for place in facts.places:
        if place.use == "module folder" and place.mount and "noexec" in place.mount.options:
            mend = f"mount -o remount,exec {place.mount.point}, also in /etc/fstab; or set redis_modules_dir elsewhere"
            findings.append(Finding(FAULT, "noexec", f"{where([place])} is mounted noexec", wanted, mend))
    return findings


def sandbox(facts: _survey.Facts, wanted: _survey.Wanted) -> list[Finding]:
    """Judge whether the service, as its unit is now, sees the module folder at all."""
    findings = []
    for name, folders in HIDDEN.items():
        value = facts.unit.get(name, "no")
        if value in ("", "no", "read-only"):
            continue
        if any(wanted.folder == folder or wanted.folder.startswith(folder + "/") for folder in folders):
            found = f"{wanted.unit} has {name}={value}, so the service does not see {wanted.folder}"
            mend = "set redis_modules_dir to a folder elsewhere, as /var/lib/redis/modules"
            findings.append(Finding(WARNING, "sandbox", found, "a folder that the service sees", mend))
    return findings


def by_file_system(places: Sequence[_survey.Place]) -> list[list[_survey.Place]]:
    """Return the places in groups of one file system each; where that is not known, each for itself."""
    groups: dict[str, list[_survey.Place]] = {}
    for place in places:
        groups.setdefault(place.mount.device if place.mount else place.path, []).append(place)
    return list(groups.values())


def point(places: Sequence[_survey.Place]) -> str:
    """Return where the file system of places is mounted."""
    mount = places[0].mount
    return mount.point if mount else places[0].path


def where(places: Sequence[_survey.Place]) -> str:
    """Return a file system and what of us lies there, for a person."""
    return f"{point(places)} ({', '.join(f'{place.use} {place.path}' for place in places)})"


def size(number: int) -> str:
    """Return a number of bytes for a person, never more than it is."""
    if number < 10 * GIB:
        return f"{number // MIB} MiB"
    return f"{number // GIB} GiB"


# ---------------------------------------------------------------- settings of the kernel, and the clock


def thp(facts: _survey.Facts) -> list[Finding]:
    """Judge transparent huge pages, which make forks slow and memory grow; from 6.2 on, Redis sees to it by itself."""
    if facts.thp != "always" or _host.version_tuple(facts.redis) >= REDIS_OWN_THP:
        return []
    file = "/etc/tmpfiles.d/redis-thp.conf"
    setting = "w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise"
    mend = f"{outside(facts)}echo '{setting}' > {file} && systemd-tmpfiles --create {file}"
    return [Finding(WARNING, "thp", "transparent huge pages: always", "madvise or never", mend)]


def overcommit(facts: _survey.Facts) -> list[Finding]:
    """Judge whether a fork, which every save needs, can fail although there is memory."""
    if facts.overcommit != "0":
        return []
    mend = f"{outside(facts)}echo 'vm.overcommit_memory = 1' > /etc/sysctl.d/60-redis.conf && sysctl --system"
    return [Finding(WARNING, "overcommit", "vm.overcommit_memory is 0", "1, or saving can fail", mend)]


def outside(facts: _survey.Facts) -> str:
    """Return where a setting of the kernel has to be changed, where that is not on the host itself."""
    return "on the machine that this container runs on: " if facts.container else ""


def clock(facts: _survey.Facts) -> list[Finding]:
    """Judge whether the clock is synchronised: times of keys, certificates and releases depend on it."""
    if facts.synchronised is not False:
        return []
    mend = f"{outside(facts)}timedatectl set-ntp true, with systemd-timesyncd or chrony installed"
    return [Finding(WARNING, "clock", "it is not synchronised", "a synchronised clock", mend)]


# ---------------------------------------------------------------- what has to be fetched


def packages(facts: _survey.Facts) -> list[Finding]:
    """Judge whether the packages that are missing can be had."""
    if not facts.missing:
        return _partly(facts)
    missing = f"{', '.join(facts.missing)} missing, and "
    uncached = [name for name in facts.missing if name not in facts.cached]
    if not facts.origins:
        if not uncached:
            return []
        mend = "configure one in /etc/apt or /etc/yum.repos.d, or install the packages by hand"
        return [Finding(FAULT, "packages", missing + "no package source is configured", "a package source", mend)]
    if not _unreachable(facts):
        return _partly(facts)
    mend = "mend the way there (name server, firewall, proxy), or the source; or install the packages by hand"
    found = missing + "no package source can be reached: " + _reasons(facts)
    if uncached:
        return [Finding(FAULT, "packages", found, "a package source that can be reached", mend)]
    found += "; they are in the package cache"
    return [Finding(WARNING, "packages", found, "a package source that can be reached", mend)]


def header(facts: _survey.Facts, wanted: _survey.Wanted) -> list[Finding]:
    """Judge whether the redismodule.h that is missing can be had."""
    if not facts.header_needed:
        return []
    mend = "mend the way there, or give redis_toolchain_header a path on the controller with its sha256"
    if wanted.header == "distribution":
        if facts.origins and not _unreachable(facts):
            return []
        reason = f"can be reached: {_reasons(facts)}" if facts.origins else "is configured"
        found = f"redismodule.h has to come from the distribution's source package, and no package source {reason}"
        return [Finding(FAULT, "header", found, "a package source that can be reached", mend)]
    return [
        Finding(
            FAULT if origin.state == "unreachable" else WARNING,
            "header",
            f"redismodule.h has to come from {origin.name}: {origin.reason}",
            "an origin that can be reached",
            mend,
        )
        for origin in facts.header_origins
        if origin.state in ("unreachable", "unknown")
    ]


def _unreachable(facts: _survey.Facts) -> bool:
    return all(origin.state == "unreachable" for origin in facts.origins)


def _reasons(facts: _survey.Facts) -> str:
    told = [f"{o.name} ({o.reason})" for o in facts.origins if o.state in ("unreachable", "unknown")]
    return ", ".join(told)


def _partly(facts: _survey.Facts) -> list[Finding]:
    """Return a warning of the package sources that could not be reached, or not be tried, beside others."""
    if _unreachable(facts) or not _reasons(facts):
        return []
    mend = "mend the way there, or take the source away; where a proxy's own program decides, nothing can be said"
    return [Finding(WARNING, "packages", f"not reached: {_reasons(facts)}", "every package source to be reached", mend)]


# ---------------------------------------------------------------- for people


def lines(findings: Iterable[Finding]) -> list[str]:
    """Return the faults among the findings as sentences."""
    return [f"{f.subject}: {f.found}; wanted is {f.wanted}. To mend it: {f.mend}" for f in findings if f.level == FAULT]


def refusal(host: str, faults: Sequence[str]) -> str:
    """Return why a rollout does not begin on this host."""
    head = f"{host}: nothing was touched, as this stands against it:"
    return "\n".join([head, *faults, "What you take knowingly, name in redis_preflight_ignore."])


COLUMNS = ("host", "level", "subject", "found", "mend")
NAMED = 3
"""So many hosts with the same finding are named in its row, more of them below the table."""


def table(results: Mapping[str, Any], hosts: Sequence[str]) -> str:
    """Return the findings of all hosts as one text table, the faults first; empty where there are none.

    I(results) maps a host to the result of redis_preflight. What several hosts have alike is one row.
    """
    alike: dict[tuple[str, ...], list[str]] = {}
    for host in hosts:
        for finding in (results.get(host) or {}).get("findings") or []:
            alike.setdefault(tuple(str(finding[column]) for column in COLUMNS[1:]), []).append(host)
    if not alike:
        return ""
    order = sorted(alike, key=lambda row: (row[0] != FAULT, SUBJECTS.index(row[1])))
    rows = [COLUMNS, *((_named(alike[row]), *row) for row in order)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS) - 1)]
    drawn = ["  ".join([*(c.ljust(w) for c, w in zip(row, widths)), row[-1]]) for row in rows]
    drawn.insert(1, "  ".join("-" * width for width in (*widths, len(COLUMNS[-1]))))
    many = [(row, alike[row]) for row in order if len(alike[row]) > NAMED]
    return "\n".join([*drawn, *(f"{row[1]}, {row[2]}: {', '.join(names)}" for row, names in many)])


def _named(hosts: Sequence[str]) -> str:
    return ", ".join(hosts) if len(hosts) <= NAMED else f"{len(hosts)} hosts"
