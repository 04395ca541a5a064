# SPDX-License-Identifier: GPL-3.0-or-later
"""Before anything is touched: all that is wrong with all hosts is in one table, and a host that is whole goes on.

What the table says is compared with what stat, findmnt, nproc and /proc say on the host.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from conftest import Built
from rollout_kit import CACHE, FOLDER, Done, Lab, probe

MISSING = "edgeops-there-is-no-such-package"
STUB = "/usr/local/bin/redis-server-3.2.12"
ALONE = """
- hosts: all
  become: true
  gather_facts: false
  roles: [edgeops.redis_modules.redis_preflight]
"""

SPOIL = f"""
mkdir -p {FOLDER} {CACHE}
mount -t tmpfs -o noexec,size=20m,nr_inodes=100 full {FOLDER}
mount -t tmpfs -o ro,size=3g shut {CACHE}
printf '#!/bin/sh\\necho Redis server v=3.2.12 sha=00000000:0 malloc=libc bits=64\\n' > {STUB}
chmod 0755 {STUB}
echo 'deb http://BRIDGE:9/debian bullseye main' > /root/unreachable.list
mount --bind /root/unreachable.list /etc/apt/sources.list
"""
MEND = f"""
umount {FOLDER} {CACHE} /etc/apt/sources.list
rm -f {STUB} /root/unreachable.list /root/before
"""
NOEXEC = f"mkdir -p {FOLDER} && mount -t tmpfs -o noexec,size=3g noexec {FOLDER}"
TOUCHED = (
    "find / -xdev -newercm /root/before -type f "
    "! -path '/root/*' ! -path '/var/log/*' ! -path '/run/*' ! -path '/tmp/*' ! -path '/var/tmp/*' | sort"
)
"""Files of the host's disk that are new or written since."""


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    hosts: list[str]
    level: str
    subject: str
    found: str
    mend: str


FAULTS = ("redis", "io-threads", "disk", "inodes", "read-only", "noexec", "packages", "header")
"""What is wrong with the spoiled host."""


def table(done: Done) -> list[Row]:
    """Return the rows of the one table that a run shows."""
    shown = re.findall(
        r'^ok: \[\w+\] => \{\n    "msg": (\[\n        "host +level .*?\n    \])$', done.output, re.MULTILINE | re.DOTALL
    )
    assert len(shown) == 1, done.output
    head, _line, *lines = json.loads(shown[0])
    starts = [head.index(name) for name in ("host", "level", "subject", "found", "mend")]
    cells = [[line[a:b].strip() for a, b in zip(starts, [*starts[1:], None], strict=True)] for line in lines]
    return [Row(row[0].split(", "), *row[1:]) for row in cells]


def told(rows: list[Row], host: str) -> dict[str, Row]:
    """Return what is told of a host, by level and subject."""
    return {f"{row.level} {row.subject}": row for row in rows if host in row.hosts}


@dataclass(frozen=True)
class Outcome:
    """What the two runs left: the role alone in check mode on all hosts, then a rollout to the first two."""

    checked: Done
    rolled: Done
    before: str
    after: str
    touched: str
    free: int
    mounts: dict[str, str]
    machine: dict[str, int]
    noexec: str
    modules: dict[str, int]


@pytest.fixture(scope="module")
def outcome(lab: Lab, built: dict[str, Built]) -> Iterator[Outcome]:
    """Spoil a host in many ways at once, give another a noexec module folder, leave the third one whole."""
    r11, r12, r13 = hosts = lab.reset()
    alone = lab.folder / "preflight.yml"
    alone.write_text(ALONE, encoding="utf-8")
    spoiled: dict[str, Any] = {
        "redis_modules": [probe()],
        "redis_server_binary": STUB,
        "redis_server_io_threads": "4",
        "redis_server_packages": ["redis-server", MISSING],
    }
    variables: dict[str, dict[str, Any]] = {
        r11.name: spoiled,
        r13.name: {"redis_preflight_ignore": ["overcommit", "thp"]},
    }
    modules = [built["handed"].entry()]
    try:
        r11.sh(SPOIL.replace("BRIDGE", lab.bridge))
        r12.sh(NOEXEC)
        r11.sh("sync; touch /root/before; sleep 0.01")
        before = r11.snapshot()
        checked = lab.ansible(hosts, modules, "--check", playbook=str(alone), host_variables=variables)
        rolled = lab.ansible([r11, r12], modules, host_variables=variables, redis_rollout_allow_lost=True)
        yield Outcome(
            checked,
            rolled,
            before,
            r11.snapshot(),
            r11.sh(TOUCHED),
            int(r11.sh(f"echo $(( $(stat -f -c '%a * %S' {FOLDER}) ))")),
            {path: r11.sh(f"findmnt -no OPTIONS {path}") for path in (FOLDER, CACHE)},
            {
                "cores": int(r12.sh("nproc")),
                "memory": int(r12.sh("awk '/^MemTotal/ {print $2}' /proc/meminfo")) * 1024,
                "overcommit": int(r12.sh("cat /proc/sys/vm/overcommit_memory")),
            },
            r12.sh(f"findmnt -no OPTIONS {FOLDER}"),
            r12.modules(),
        )
    finally:
        r11.sh(MEND, check=False)
        r12.sh(f"systemctl stop redis-server; umount {FOLDER}", check=False)
        lab.reset(r11.name, r12.name)


def test_all_that_is_wrong_is_in_one_table(outcome: Outcome, lab: Lab) -> None:
    rows = told(table(outcome.checked), "r11")
    faults = {key: row for key, row in rows.items() if row.level == "fault"}
    assert set(faults) == {f"fault {subject}" for subject in FAULTS}
    assert "Redis 3.2.12" in faults["fault redis"].found
    assert faults["fault packages"].found.startswith(f"{MISSING} missing, and no package source can be reached: ")
    assert lab.bridge in faults["fault packages"].found
    assert all(row.mend for row in faults.values())


def test_it_says_what_stat_and_findmnt_say(outcome: Outcome) -> None:
    faults = told(table(outcome.checked), "r11")
    assert faults["fault disk"].found.startswith(f"{outcome.free >> 20} MiB free in {FOLDER} ")
    assert outcome.free >> 20 == 20
    assert "noexec" in outcome.mounts[FOLDER]
    assert faults["fault noexec"].found.startswith(f"{FOLDER} ")
    assert re.match(r"ro\b", outcome.mounts[CACHE])
    assert faults["fault read-only"].found.startswith(f"{CACHE} ")
    assert "warning disk" not in faults, "3 GiB are enough"


def test_the_machine_is_told_as_nproc_and_proc_have_it(outcome: Outcome) -> None:
    rows = told(table(outcome.checked), "r12")
    assert ("warning cores" in rows) == (outcome.machine["cores"] < 2)
    assert ("warning memory" in rows) == (outcome.machine["memory"] < 7_200_000_000)
    assert ("warning overcommit" in rows) == (outcome.machine["overcommit"] == 0)


def test_the_host_fails_with_all_of_it_and_nothing_on_it_is_changed(outcome: Outcome) -> None:
    for done in (outcome.checked, outcome.rolled):
        assert (done.recap("r11")["failed"], done.recap("r11")["changed"]) == (1, 0)
        message = done.failure("r11")
        for subject in FAULTS:
            assert f"\n{subject}: " in message
    assert outcome.before == outcome.after
    assert outcome.touched == ""


def test_check_mode_says_the_same(outcome: Outcome) -> None:
    assert told(table(outcome.checked), "r11").keys() == told(table(outcome.rolled), "r11").keys()


def test_a_whole_host_is_clean_and_the_others_go_on(outcome: Outcome) -> None:
    # What the machine itself is like (its size) is no concern of this test.
    assert told(table(outcome.checked), "r13").keys() <= {"warning cores", "warning memory", "warning clock"}
    assert outcome.checked.recap("r13")["failed"] == 0
    assert outcome.rolled.recap("r12")["failed"] == 0


def test_noexec_is_lifted_by_a_newer_systemd(outcome: Outcome) -> None:
    assert "noexec" in outcome.noexec
    assert "fault noexec" not in told(table(outcome.checked), "r12")
    assert outcome.modules.keys() == {"handed"}
