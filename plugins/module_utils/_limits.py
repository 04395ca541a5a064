# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the drop-in says of the service: how much it may use, and what it may not do. Pure functions."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Mapping, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils._settings import SettingError

SIZES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
"""systemd's units of memory."""

REDIS_SIZES = {
    "": 1,
    "b": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "kb": 1 << 10,
    "mb": 1 << 20,
    "gb": 1 << 30,
}
"""Those of redis.conf."""

ROOM_TO_SAVE = 1.5
"""Times maxmemory: while a fork saves, each page that is written meanwhile is there twice."""

OWN_TASKS = 8
"""What Redis has beside its I/O threads: the main one, those in the background, jemalloc's, and a fork that saves."""

HARDENING: tuple[tuple[str, int], ...] = (
    ("NoNewPrivileges=yes", 0),
    ("CapabilityBoundingSet=", 0),
    ("PrivateDevices=yes", 0),
    ("PrivateTmp=yes", 0),
    ("PrivateUsers=yes", 0),
    ("ProtectHome=yes", 0),
    ("ProtectKernelModules=yes", 0),
    ("ProtectKernelTunables=yes", 0),
    ("ProtectControlGroups=yes", 0),
    ("ProtectHostname=yes", 242),
    ("ProtectKernelLogs=yes", 244),
    ("ProtectClock=yes", 245),
    ("ProtectProc=invisible", 247),
    ("LockPersonality=yes", 0),
    ("MemoryDenyWriteExecute=yes", 0),
    ("RemoveIPC=yes", 0),
    ("RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX", 0),
    ("RestrictNamespaces=yes", 0),
    ("RestrictRealtime=yes", 0),
    ("RestrictSUIDSGID=yes", 242),
    ("SystemCallArchitectures=native", 0),
    ("SystemCallFilter=@system-service", 0),
    ("SystemCallFilter=~@privileged @resources", 0),
)
"""What Debian 12's packaged unit has, each line with the systemd that knows it first. A line twice counts once."""


def hardening_lines(systemd: int, writable: Sequence[str]) -> list[str]:
    """Return the lines that let the service write to I(writable) alone, and do nothing that Redis does not need."""
    known = [line for line, since in HARDENING if systemd >= since]
    return ["ProtectSystem=strict", *[f"ReadWritePaths=-{path}" for path in writable], *known]


def written_places(dir: str, conf_path: str, files: Sequence[str]) -> list[str]:
    """Return what the server writes to: its data, and the folders of redis.conf (CONFIG REWRITE), log, pid and socket.

    A file of a system folder, as /etc/redis.conf, stands for itself.
    """
    places = [dir]
    for file in (conf_path, *files):
        folder = os.path.dirname(file)
        if file.startswith("/"):
            places.append(file if folder.count("/") < 2 else folder)
    return list(dict.fromkeys(os.path.normpath(place) for place in places))


def below(path: str, places: Sequence[str]) -> bool:
    """Whether a path lies in one of I(places)."""
    return any(os.path.normpath(path).startswith(place.rstrip("/") + "/") for place in places)


def folder_lines(folder: str, systemd: int, writable: Sequence[str]) -> list[str]:
    """Return the lines that let the server run code from the module folder, and change nothing in it.

    Below what is read-only anyway, systemd drops a ReadOnlyPaths= and the ExecPaths= of the same path with it; with
    ExecPaths= alone, the folder is writable there. A bind mount is dropped by none.
    """
    lines = [f"{'ReadOnlyPaths' if below(folder, writable) else 'BindReadOnlyPaths'}=-{folder}"]
    return lines + ([f"ExecPaths=-{folder}"] if systemd >= 248 else [])


def cpus(text: str) -> set[int]:
    """Return the CPUs of a list as C(0-3,6). Raises ValueError."""
    found: set[int] = set()
    for part in text.replace(",", " ").split():
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part)
        if not match:
            raise ValueError(part)
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        if last < first:
            raise ValueError(part)
        found.update(range(first, last + 1))
    return found


def size(text: str) -> int | None:
    """Return systemd's notation of memory in bytes; None where it is none, or a share of the host's."""
    match = re.fullmatch(r"(\d+)([KMGT]?)", text)
    return int(match.group(1)) * SIZES[match.group(2)] if match else None


def redis_size(text: str) -> int | None:
    """Return redis.conf's notation of memory in bytes; None where it is none."""
    match = re.fullmatch(r"(\d+)([a-z]*)", text.strip().lower())
    return int(match.group(1)) * REDIS_SIZES[match.group(2)] if match and match.group(2) in REDIS_SIZES else None


def _share(text: str) -> bool:
    return bool(re.fullmatch(r"[1-9]\d?%|100%", text))


def limit_faults(limits: Mapping[str, Any], online: str = "") -> list[str]:
    """Return all that is wrong with the limits, a sentence each.

    I(limits) has the role's variables without their prefix, maxmemory and io_threads too; what is empty is not set.
    I(online) are the CPUs of the host, as C(0-3), where they are known.
    """
    faults = []
    given = {key: str(value).strip() for key, value in limits.items()}
    quota, affinity, weight = (given.get(key, "") for key in ("cpu_quota", "cpu_affinity", "cpu_weight"))
    memory, tasks = given.get("memory_max", ""), given.get("tasks_max", "")
    if quota and not re.fullmatch(r"[1-9]\d*%", quota):
        faults.append(f"redis_server_cpu_quota must be a share of one CPU as 80%, or 200% for two, not {quota!r}")
    if affinity:
        try:
            missing = cpus(affinity) - cpus(online) if online else set()
        except ValueError:
            faults.append(f"redis_server_cpu_affinity must be a list of CPUs as 0-3,6, not {affinity!r}")
        else:
            if missing:
                names = ", ".join(str(cpu) for cpu in sorted(missing))
                faults.append(f"redis_server_cpu_affinity names CPU {names}; this host has {online}")
    if weight and not (re.fullmatch(r"\d{1,5}", weight) and 1 <= int(weight) <= 10000):
        faults.append(f"redis_server_cpu_weight must lie between 1 and 10000, not {weight!r}")
    if memory and size(memory) is None and not _share(memory):
        faults.append(f"redis_server_memory_max must be as 512M or 2G, or a share of the host as 75%, not {memory!r}")
    most, wanted = size(memory), redis_size(given.get("maxmemory", ""))
    if most is not None and wanted is not None and most < max(wanted, 1):
        faults.append(
            f"redis_server_memory_max is {memory}, less than redis_server_maxmemory ({given['maxmemory']}): the kernel "
            "would end Redis before it evicts or refuses anything"
        )
    threads = given.get("io_threads", "")
    least = OWN_TASKS + (int(threads) if threads.isdigit() else OWN_TASKS)
    if tasks and not _share(tasks) and not (tasks.isdigit() and int(tasks) >= least):
        faults.append(
            f"redis_server_tasks_max must be {least} or more, for Redis' threads and the fork that saves, not {tasks!r}"
        )
    return faults


def limit_warnings(limits: Mapping[str, Any]) -> list[str]:
    """Return what works, and may end badly."""
    memory, maxmemory = (str(limits.get(key, "")).strip() for key in ("memory_max", "maxmemory"))
    most, wanted = size(memory), redis_size(maxmemory)
    if most is None or wanted is None:
        return []
    if wanted == 0:
        why = "so the kernel ends Redis there. Set redis_server_maxmemory, to two thirds of it or less"
        return [f"redis_server_memory_max is {memory} and redis_server_maxmemory is 0, {why}"]
    if wanted <= most < ROOM_TO_SAVE * wanted:
        why = "a fork that saves copies what is written meanwhile, and the kernel may end Redis then"
        less = f"less than {ROOM_TO_SAVE} times redis_server_maxmemory ({maxmemory})"
        return [f"redis_server_memory_max is {memory}, {less}: {why}"]
    return []


def limit_lines(limits: Mapping[str, Any], online: str = "") -> list[str]:
    """Return the lines of the drop-in. Raises SettingError with all that is wrong."""
    faults = limit_faults(limits, online)
    if faults:
        raise SettingError("; ".join(faults))
    keys = {
        "CPUQuota": "cpu_quota",
        "CPUAffinity": "cpu_affinity",
        "CPUWeight": "cpu_weight",
        "MemoryMax": "memory_max",
        "TasksMax": "tasks_max",
    }
    given = {key: str(limits.get(name, "")).strip() for key, name in keys.items()}
    return [f"{key}={value}" for key, value in given.items() if value]


def usable_cores(cores: int, limits: Mapping[str, Any]) -> int:
    """Return how many of a host's cores the service gets: I/O threads on others only take turns.

    CPUs that the kernel keeps free (isolcpus) are not among the I(cores), and may be named all the same.
    """
    affinity, quota = (str(limits.get(key, "")).strip() for key in ("cpu_affinity", "cpu_quota"))
    with contextlib.suppress(ValueError):
        cores = len(cpus(affinity)) or cores
    if re.fullmatch(r"\d+%", quota):
        cores = min(cores, max(1, int(quota.rstrip("%")) // 100))
    return cores


def dropin_lines(service: Mapping[str, Any], systemd: int, online: str = "") -> list[str]:
    """Return the lines of the drop-in that follow from the role's variables, with a comment for each part.

    I(service) has modules_dir, dir, conf_path, files (that it writes), hardening and limits. Raises SettingError.
    """
    hardened = str(service["hardening"]).lower() in ("true", "yes", "1")
    writable = written_places(service["dir"], service["conf_path"], service["files"])
    lines = ["# The server may run code from the module folder, and change nothing in it."]
    lines += folder_lines(service["modules_dir"], systemd, writable)
    if hardened:
        lines.append("# It may write where its own files lie, and do what Redis needs.")
        lines += hardening_lines(systemd, writable)
    limited = limit_lines(service["limits"], online)
    return [*lines, *(["# It may use this much of the host.", *limited] if limited else [])]
