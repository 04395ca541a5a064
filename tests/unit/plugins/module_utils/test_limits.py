# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The drop-in's limits and hardening, as text."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _limits
from ansible_collections.edgeops.redis_modules.plugins.module_utils._settings import SettingError

GOOD: dict[str, Any] = {
    "cpu_quota": "150%",
    "cpu_affinity": "0-1,3",
    "cpu_weight": 200,
    "memory_max": "2G",
    "tasks_max": "64",
    "maxmemory": "1gb",
    "io_threads": "auto",
}
SERVICE: dict[str, Any] = {
    "modules_dir": "/var/lib/redis/modules",
    "dir": "/var/lib/redis",
    "conf_path": "/etc/redis/redis.conf",
    "files": ["/var/log/redis/redis-server.log", "/run/redis/redis-server.pid", ""],
    "hardening": True,
    "limits": dict.fromkeys(GOOD, ""),
}


def test_good_limits_become_lines() -> None:
    assert _limits.limit_lines(GOOD, "0-3") == [
        "CPUQuota=150%",
        "CPUAffinity=0-1,3",
        "CPUWeight=200",
        "MemoryMax=2G",
        "TasksMax=64",
    ]
    assert _limits.limit_warnings(GOOD) == []


def test_what_is_empty_is_not_set() -> None:
    assert _limits.limit_lines({**dict.fromkeys(GOOD, ""), "maxmemory": "0"}) == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"cpu_quota": "80"}, "redis_server_cpu_quota must be a share of one CPU as 80%"),
        ({"cpu_quota": "0%"}, "redis_server_cpu_quota must"),
        ({"cpu_affinity": "0-"}, "redis_server_cpu_affinity must be a list of CPUs"),
        ({"cpu_affinity": "3-1"}, "redis_server_cpu_affinity must be a list of CPUs"),
        ({"cpu_affinity": "2-5"}, "redis_server_cpu_affinity names CPU 4, 5; this host has 0-3"),
        ({"cpu_weight": "0"}, "redis_server_cpu_weight must"),
        ({"cpu_weight": "10001"}, "redis_server_cpu_weight must"),
        ({"memory_max": "2gb"}, "redis_server_memory_max must be as 512M"),
        ({"memory_max": "101%"}, "redis_server_memory_max must be as 512M"),
        ({"memory_max": "1023M"}, "redis_server_memory_max is 1023M, less than redis_server_maxmemory (1gb)"),
        ({"memory_max": "0", "maxmemory": "0"}, "redis_server_memory_max is 0, less than"),
        ({"tasks_max": "15"}, "redis_server_tasks_max must be 16 or more"),
        ({"tasks_max": "20", "io_threads": "16"}, "redis_server_tasks_max must be 24 or more"),
        ({"tasks_max": "infinity"}, "redis_server_tasks_max must"),
    ],
)
def test_a_fault_is_named(wrong: dict[str, str], says: str) -> None:
    (fault,) = _limits.limit_faults({**GOOD, **wrong}, "0-3")
    assert says in fault


def test_all_faults_at_once() -> None:
    with pytest.raises(SettingError) as raised:
        _limits.limit_lines({**GOOD, "cpu_quota": "x", "memory_max": "1M", "tasks_max": "1"})
    assert [name in str(raised.value) for name in ("cpu_quota", "memory_max", "tasks_max")] == [True] * 3


@pytest.mark.parametrize(
    ("memory_max", "maxmemory", "warned"),
    [
        ("1536M", "1gb", ""),
        ("1535M", "1gb", "less than 1.5 times redis_server_maxmemory (1gb)"),
        ("1G", "1gb", "less than 1.5 times"),
        ("1G", "0", "redis_server_maxmemory is 0"),
        ("75%", "1gb", ""),
        ("", "0", ""),
        ("1G", "nonsense", ""),
    ],
)
def test_too_little_room_to_save_is_warned_of(memory_max: str, maxmemory: str, warned: str) -> None:
    warnings = _limits.limit_warnings({"memory_max": memory_max, "maxmemory": maxmemory})
    assert (warned in warnings[0]) if warned else warnings == []
    assert _limits.limit_faults({"memory_max": memory_max, "maxmemory": maxmemory}) == []


def test_redis_and_systemd_write_sizes_their_own_way() -> None:
    assert [_limits.redis_size(text) for text in ("1k", "1kb", "2GB", "5", "5b", "1t", "x")] == [
        1000,
        1024,
        2 << 30,
        5,
        5,
        None,
        None,
    ]
    assert [_limits.size(text) for text in ("1K", "3T", "5", "1k", "50%")] == [1024, 3 << 40, 5, None, None]


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, 8),
        ({"cpu_affinity": "0-3"}, 4),
        ({"cpu_affinity": "8-11", "cpu_quota": "250%"}, 2),
        ({"cpu_quota": "50%"}, 1),
        ({"cpu_quota": "1600%"}, 8),
        ({"cpu_affinity": "nonsense", "cpu_quota": "x"}, 8),
    ],
)
def test_io_threads_follow_the_cores_that_the_service_gets(limits: dict[str, str], cores: int) -> None:
    assert _limits.usable_cores(8, limits) == cores


def test_a_line_is_left_out_where_systemd_does_not_know_it() -> None:
    def keys(systemd: int) -> set[str]:
        return {line.split("=")[0] for line in _limits.hardening_lines(systemd, [])}

    assert keys(257) - keys(239) == {
        "ProtectHostname",
        "ProtectKernelLogs",
        "ProtectClock",
        "ProtectProc",
        "RestrictSUIDSGID",
    }
    assert keys(247) == keys(257)
    assert "ProtectProc" not in keys(246)


def test_the_server_writes_where_its_files_lie() -> None:
    places = _limits.written_places("/data/redis/", "/etc/redis.conf", ["/var/log/redis/r.log", "", "stdout"])
    assert places == ["/data/redis", "/etc/redis.conf", "/var/log/redis"]


@pytest.mark.parametrize(
    ("folder", "systemd", "lines"),
    [
        ("/var/lib/redis/modules", 247, ["ReadOnlyPaths"]),
        ("/var/lib/redis/modules", 252, ["ReadOnlyPaths", "ExecPaths"]),
        # Below what is read-only anyway, systemd would drop both of the above.
        ("/opt/redis/modules", 247, ["BindReadOnlyPaths"]),
        ("/opt/redis/modules", 252, ["BindReadOnlyPaths", "ExecPaths"]),
        ("/var/lib/redis-modules", 252, ["BindReadOnlyPaths", "ExecPaths"]),
    ],
)
def test_the_module_folder_is_read_only_and_runs(folder: str, systemd: int, lines: list[str]) -> None:
    made = _limits.folder_lines(folder, systemd, ["/var/lib/redis"])
    assert made == [f"{key}=-{folder}" for key in lines]


def test_the_whole_drop_in() -> None:
    lines = _limits.dropin_lines(SERVICE, 252)
    assert "ReadWritePaths=-/run/redis" in lines
    assert lines.index("ReadOnlyPaths=-/var/lib/redis/modules") < lines.index("ProtectSystem=strict")
    plain = _limits.dropin_lines({**SERVICE, "hardening": "no", "limits": GOOD}, 247)
    assert [line for line in plain if not line.startswith("#")][:2] == [
        "ReadOnlyPaths=-/var/lib/redis/modules",
        "CPUQuota=150%",
    ]
    with pytest.raises(SettingError):
        _limits.dropin_lines({**SERVICE, "limits": {**GOOD, "cpu_affinity": "7"}}, 247, "0-3")
