# SPDX-License-Identifier: GPL-3.0-or-later
"""An upgrade that changes everything a rollout can change, to be interrupted at every step of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from conftest import Built
from rollout_kit import CONF, DROPIN, FOLDER, SNAPSHOT, UNIT, Entry, Host, until

MOMENTS = (
    ("redis_trial", 0.0),
    ("redis_trial", 0.05),
    ("redis_trial", 0.1),
    ("redis_trial", 0.5),
    ("redis_snapshot state=taken", 0.0),
    ("redis_modules_place 'present'", 0.0),
    ("redis_modules_place 'present'", 0.02),
    ("redis_server_config", 0.0),
    ("redis_server_config", 0.3),
    ("redis_service", 0.0),
    ("redis_service", 0.4),
    ("redis_service", 0.8),
    ("redis_modules_place 'absent'", 0.0),
    ("redis_modules_confirm", 0.0),
    ("redis_health before=[{", 0.0),
    ("redis_snapshot state=closed", 0.0),
    ("redis_snapshot state=closed", 0.02),
)
"""Every step that changes something on a host, as it logs its beginning, and the seconds after it."""

TRIALS = "/var/lib/edgeops-redis-modules/redis-trial-*"
DATA = {"redis_server_appendonly": True, "redis_server_appendfsync": "always"}


class Upgrade:
    """The declaration number I(number); between two that follow each other, all differs."""

    def __init__(self, probes: Callable[..., Built], extra: Built, number: int) -> None:
        self.text = ("one", "two")[number % 2]
        self.release = probes(self.text)
        self.args = [f"declaration {number}"]
        self.extra_is_there = number % 2 == 0
        self.modules: list[Entry] = [
            self.release.entry(args=self.args),
            extra.entry() if self.extra_is_there else {"name": extra.name, "state": "absent"},
        ]
        self.hz = 10 + number
        self.core = f"LimitCORE={number}"
        self.variables: dict[str, Any] = {
            **DATA,
            "redis_server_extra_directives": {"hz": self.hz},
            "redis_server_dropin_lines": [self.core],
        }
        self.extra = extra

    def check(self, host: Host, when: str) -> None:
        """All is as declared: files, configuration, what the process runs; and nothing is left over."""
        path = f"{FOLDER}/probe.so"
        extra = {self.extra.name} if self.extra_is_there else set()
        left = host.sh(
            f"find /etc/redis {FOLDER} /etc/systemd/system -name '.*.new' -o -name 'tmp*'; "
            f"find /etc/redis -type f -perm 600 -not -name '*.before-edgeops'; "
            f"ls -d /run/redis-trial-* /run/redis-dropin-* /run/redis-conf-* {SNAPSHOT} {TRIALS} 2>/dev/null; "
            "systemctl list-units --all --plain --no-legend 'redis-trial-*'",
            check=False,
        )
        state = [
            ("text", host.cli("probe.text"), self.text),
            ("arguments", host.texts("probe.args"), self.args),
            ("file", host.sha256(path), self.release.sha256),
            ("live image", host.live_sha256(path), self.release.sha256),
            ("modules", set(host.modules()), {"probe"} | extra),
            ("hz", host.config("hz"), str(self.hz)),
            ("hz in redis.conf", f"hz {self.hz}\n" in host.sh(f"cat {CONF}"), True),
            ("LimitCORE in the drop-in", self.core in host.sh(f"cat {DROPIN}"), True),
            ("LimitCORE", host.sh(f"systemctl show -p LimitCORE --value {UNIT}").strip(), self.core.split("=")[1]),
            (
                "module folder",
                set(host.sh(f"ls -A {FOLDER}").split()),
                {".releases", "probe.so"} | {f"{name}.so" for name in extra},
            ),
            ("left over", left, ""),
        ]
        other = [f"{what}: {found!r}, not {wanted!r}" for what, found, wanted in state if found != wanted]
        assert not other, "\n".join([when, *other])


def runs(host: Host, when: str) -> None:
    """The server is up, or comes up by itself, and has loaded its data."""
    until(lambda: "loading:0" in host.sh("redis-cli INFO persistence", check=False), f"up after {when}")


def acknowledged(host: Host) -> list[str]:
    """Return the numbers of the keys that the server has acknowledged."""
    return host.sh("cat /root/acknowledged 2>/dev/null", check=False).split()


def nothing_lost(host: Host, when: str) -> None:
    """Every key that was saved or acknowledged is there."""
    assert host.cli("GET", "saved") == '"value"', when
    numbers = acknowledged(host)
    assert numbers, when
    script = "sort -u /root/acknowledged | sed 's/.*/EXISTS key:&/' | redis-cli | grep -c '^1$'"
    assert int(host.sh(script)) == len(set(numbers)), when


@contextmanager
def writing(host: Host) -> Iterator[None]:
    """Write keys all the time, and note on the host's disk which of them the server has acknowledged."""
    loop = (
        "n=$(wc -l < /root/acknowledged); while :; do n=$((n + 1)); "
        '[ "$(redis-cli SET key:$n v 2>/dev/null)" = OK ] && echo $n >> /root/acknowledged; sleep 0.01; done'
    )
    host.sh(f"touch /root/acknowledged; setsid sh -c {loop!r} >/dev/null 2>&1 </dev/null & echo $! > /run/writer")
    try:
        yield
    finally:
        # After a power cut, there is none.
        host.sh("test -e /run/writer && kill -- -$(cat /run/writer); rm -f /run/writer", check=False)
