# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout must have brought about, by its effect on each host."""

from __future__ import annotations

import re

import pytest
from conftest import DECLARED, EDGE, FOLDER, UNIT, VERSIONS, Redis

testinfra_hosts = ["all"]

ARGS = {entry["name"]: entry.get("args", []) for entry in DECLARED}
NAMES = list(ARGS)


def test_the_distribution_s_redis_runs(redis: Redis) -> None:
    """All three versions are really there."""
    assert redis.version.startswith(VERSIONS[EDGE["hosts"][redis.name]["lab_suite"]])


def test_module_list_reports_what_is_declared(redis: Redis) -> None:
    """Name and version of both, and nothing else."""
    assert redis.modules() == {"argecho": 7, "sensorwindow": 20000}


def test_arguments_arrive_byte_by_byte(redis: Redis) -> None:
    """The module itself tells what it was loaded with."""
    assert redis.texts("argecho.list") == ARGS["argecho"]


def test_module_list_tells_the_same_arguments(redis: Redis) -> None:
    """From 7.0 on the server tells them, too."""
    if redis.version.startswith("6."):
        assert '"args"' not in redis.cli("MODULE", "LIST")
        return
    listing = redis.cli("MODULE", "LIST")
    assert '"sensorwindow"' in listing
    assert all(f'"{FOLDER}/{name}.so"' in listing for name in NAMES)


def test_modules_are_loaded_in_the_declared_order(redis: Redis) -> None:
    """redis.conf and the server's log have the order of redis_modules."""
    lines = redis.sh("grep ^loadmodule /etc/redis/redis.conf").splitlines()
    assert [line.split()[1] for line in lines] == [f"{FOLDER}/{name}.so" for name in NAMES]
    logged = re.findall(r"Module '(\w+)' loaded from", redis.sh("cat /var/log/redis/redis-server.log"))
    assert [name for name in logged if name in NAMES][-2:] == NAMES


def test_the_example_module_works(redis: Redis) -> None:
    """Samples in, aggregates out; the same sample twice counts once."""
    redis.cli("DEL", "pump:7")
    for stamp, value in (("1000", "2"), ("2000", "4"), ("2000", "4"), ("3000", "9")):
        redis.cli("SENSORWINDOW.ADD", "pump:7", stamp, value)
    stats = redis.cli("SENSORWINDOW.STATS", "pump:7", "-", "+")
    assert re.search(r'"count"\n\s*\d+\) \(integer\) 3', stats), stats
    assert re.search(r'"mean"\n\s*\d+\) "5"', stats), stats


def test_the_arguments_of_the_example_module_are_in_force(redis: Redis) -> None:
    """max-samples is 1000: of 1001 samples the oldest is dropped."""
    redis.sh(
        "redis-cli DEL flood >/dev/null; "
        'i=1; while [ $i -le 1001 ]; do echo "SENSORWINDOW.ADD flood $i 1"; i=$((i+1)); done | redis-cli >/dev/null'
    )
    assert re.search(r'"count"\n\s*\d+\) \(integer\) 1000', redis.cli("SENSORWINDOW.STATS", "flood", "-", "+"))


@pytest.mark.parametrize("name", NAMES)
def test_the_file_has_its_owner_and_mode(redis: Redis, name: str) -> None:
    """redis:redis 0555, in a folder root:redis 0755."""
    assert redis.sh(f"stat -c '%U:%G %a %F' {FOLDER}/{name}.so").strip() == "redis:redis 555 regular file"
    assert redis.sh(f"stat -c '%U:%G %a %F' {FOLDER}").strip() == "root:redis 755 directory"


@pytest.mark.parametrize("name", NAMES)
def test_the_live_image_is_the_file_on_disk(redis: Redis, name: str) -> None:
    """The running process has the very inode mapped that the path names."""
    maps = redis.sh(f"grep {FOLDER}/{name}.so /proc/{redis.pid}/maps")
    assert "(deleted)" not in maps
    assert {line.split()[4] for line in maps.splitlines()} == {redis.sh(f"stat -c %i {FOLDER}/{name}.so").strip()}


ATTEMPTS = {
    "make a file": f"os.open('{FOLDER}/new.so', os.O_CREAT | os.O_WRONLY)",
    "write into it": f"os.open('{FOLDER}/argecho.so', os.O_WRONLY | os.O_APPEND)",
    "remove it": f"os.unlink('{FOLDER}/argecho.so')",
    "change its mode": f"os.chmod('{FOLDER}/argecho.so', 0o777)",
    "touch it": f"os.utime('{FOLDER}/argecho.so')",
    "rename it": f"os.rename('{FOLDER}/argecho.so', '{FOLDER}/other.so')",
    "rename something over it": f"os.rename('/var/lib/redis/own', '{FOLDER}/argecho.so')",
    "move the folder": f"os.rename('{FOLDER}', '{FOLDER}.old')",
    "open the folder up": f"os.chmod('{FOLDER}', 0o777)",
}


@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_the_service_can_not_change_its_own_code(redis: Redis, attempt: str) -> None:
    """Tried as the service's user from inside its own mount namespace, where its data folder can be written."""
    listing = redis.sh(f"find {FOLDER} -printf '%p %i %m %u:%g %s %C@\\n'")
    results = redis.as_service(
        "redis",
        "os.close(os.open('/var/lib/redis/own', os.O_CREAT | os.O_WRONLY))",
        ATTEMPTS[attempt],
        "os.unlink('/var/lib/redis/own')",
    )
    assert (results[0], results[2]) == ("done", "done")
    assert results[1] in {"EROFS", "EACCES", "EPERM", "EBUSY", "EXDEV"}
    assert redis.sh(f"find {FOLDER} -printf '%p %i %m %u:%g %s %C@\\n'") == listing


def test_even_root_inside_the_service_finds_the_folder_read_only(redis: Redis) -> None:
    """It is the mount that refuses, not only the mode: the file is the service's own, and it could change it back."""
    assert redis.as_service("root", ATTEMPTS["make a file"]) == ["EROFS"]
    assert redis.as_service("redis", ATTEMPTS["change its mode"]) == ["EROFS"]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("maxmemory", str(64 << 20)),
        ("maxmemory-policy", "allkeys-lru"),
        ("maxmemory-samples", "7"),
        ("io-threads", "2"),
    ],
)
def test_settings_are_in_force(redis: Redis, setting: str, value: str) -> None:
    """As the running server has them; from variables of their own and from the extra directives."""
    assert redis.config(setting) == value


def test_a_directive_of_several_lines_is_in_force(redis: Redis) -> None:
    """A list under one name of the extra directives."""
    assert f"pubsub {16 << 20} {4 << 20} 30" in redis.config("client-output-buffer-limit")


def test_the_service_is_enabled_and_runs(redis: Redis) -> None:
    """It comes back after a reboot, and nothing failed on the way."""
    assert redis.sh(f"systemctl is-enabled {UNIT}").strip() == "enabled"
    assert redis.sh(f"systemctl is-active {UNIT}").strip() == "active"
    assert redis.sh(f"systemctl show -p NRestarts --value {UNIT}").strip() == "0"


def test_data_of_a_module_survives_a_restart(redis: Redis) -> None:
    """SAVE, restart, ask again."""
    redis.cli("DEL", "kept")
    redis.cli("SENSORWINDOW.ADD", "kept", "5", "1.5")
    before = redis.cli("SENSORWINDOW.RANGE", "kept", "-", "+")
    redis.cli("SAVE")
    pid = redis.pid
    redis.restart()
    assert redis.pid != pid
    assert redis.modules() == {"argecho": 7, "sensorwindow": 20000}
    assert redis.cli("SENSORWINDOW.RANGE", "kept", "-", "+") == before
    assert "1.5" in before


def test_nothing_is_left_of_the_trial(redis: Redis) -> None:
    """No throwaway server, no folder of one."""
    assert redis.sh("pgrep -c redis-server").strip() == "1"
    assert not redis.sh("ls /run | grep redis-trial || true")
