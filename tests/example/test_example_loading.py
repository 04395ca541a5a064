# SPDX-License-Identifier: GPL-3.0-or-later
"""Module arguments, and what the built file asks of its server."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
import redis
from conftest import HEADERS, OLDEST, SOURCES, Builder, Servers, Target
from sensor import info

WRONG = {
    "no-such 1": "unknown module argument 'no-such': known are retention-ms,",
    "retention-ms": "module argument 'retention-ms' has no value",
    "max-samples 5 retention-ms": "module argument 'retention-ms' has no value",
    "retention-ms -1": "module argument 'retention-ms': '-1' is not an integer from 0 to",
    "retention-ms 1h": "module argument 'retention-ms': '1h' is not an integer from 0 to",
    "max-samples 0": "module argument 'max-samples': '0' is not an integer from 1 to 16777216",
    "max-samples 16777217": "'16777217' is not an integer from 1 to 16777216",
    "max-ahead-ms x": "module argument 'max-ahead-ms': 'x' is not",
    "max-waiting 10001": "module argument 'max-waiting': '10001' is not",
    "on-conflict newest": "module argument 'on-conflict': 'newest' is not keep or replace",
}


@pytest.mark.parametrize("arguments", WRONG)
def test_wrong_arguments_are_named_in_the_log(servers: Servers, arguments: str) -> None:
    log = servers(arguments).refused()
    assert WRONG[arguments] in log
    assert "Module /mnt/sensorwindow.so initialization failed" in log


def test_arguments_are_the_defaults_of_new_windows(servers: Servers) -> None:
    db = servers("RETENTION-MS 3600000 max-samples 12 on-conflict Replace").start()
    db.execute_command("SENSORWINDOW.ADD", "k", 1, 1)
    found = info(db, "k")
    assert (found["retention-ms"], found["max-samples"]) == (3_600_000, 12)
    assert found["on-conflict"] == "REPLACE"


def test_a_clock_far_ahead_is_refused(servers: Servers) -> None:
    db = servers("max-ahead-ms 60000").start()
    now = int(time.time() * 1000)
    assert db.execute_command("SENSORWINDOW.ADD", "k", now + 50_000, 1) == "added"
    for words in (("ADD", "k", now + 90_000, 1), ("MADD", "k", 1, 1, 2**63 - 1, 1)):
        with pytest.raises(redis.ResponseError, match="max-ahead-ms"):
            db.execute_command(f"SENSORWINDOW.{words[0]}", *words[1:])
    assert info(db, "k")["samples"] == 1


def test_without_any_extra_library(servers: Servers, target: Target, build: Builder) -> None:
    """What it needs of libm and libpthread, redis-server has loaded."""
    server = servers()
    server.place(build(target, 2, ()))
    server.start().ping()


def test_memory_comes_from_redis_only(target: Target, build: Builder) -> None:
    output = subprocess.run(
        ["nm", "-D", "--undefined-only", build(target)], check=True, text=True, capture_output=True
    ).stdout
    undefined = {line.split()[-1].split("@")[0] for line in output.splitlines()}
    assert "memmove" in undefined, output
    family = r"(m|c|re|val|pv|memalign|aligned_|posix_mem)\w*alloc\w*|memalign|posix_memalign|free"
    takers = {"strdup", "strndup", "asprintf", "vasprintf", "getline", "qsort", "fopen"}
    assert not {s for s in undefined if re.fullmatch(family, s)} | (undefined & takers)


def test_makefile_builds_both_releases(tmp_path: Path) -> None:
    for release in (1, 2):
        folder = tmp_path / str(release)
        subprocess.run(["cp", "-r", SOURCES, folder], check=True)
        done = subprocess.run(
            ["make", f"REDISMODULE_INCLUDE={HEADERS / OLDEST}", f"RELEASE={release}"],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        assert "warning" not in done.stdout
        assert (folder / "sensorwindow.so").is_file()


def test_window_alone_under_sanitizers(tmp_path: Path) -> None:
    """The data structure without Redis, against a brute-force one, with every access checked."""
    program = tmp_path / "window_test"
    sources = [Path(__file__).with_name("window_test.c"), SOURCES / "window.c"]
    command = ["gcc", "-std=gnu99", "-Wall", "-Wextra", "-Werror", "-g", "-O1"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", f"-I{SOURCES}"]
    subprocess.run([*command, *sources, "-o", program, "-lm"], check=True)
    done = subprocess.run([program], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert done.returncode == 0, done.stdout
