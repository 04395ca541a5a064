# SPDX-License-Identifier: GPL-3.0-or-later
"""Several Redis on one host, each an inventory host of its own: what is of one is never of another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from rollout_kit import Done, Entry, Host, Lab, probe, until, variant

NAMES = {"a": 6391, "b": 6392}

# As docs/instances.md says it.
VARIABLES = {
    "redis_server_unit": "redis-server@{{ redis_instance }}.service",
    "redis_server_conf_path": "/etc/redis/redis-{{ redis_instance }}.conf",
    "redis_server_pidfile": "/run/redis-{{ redis_instance }}/redis-server.pid",
    "redis_server_logfile": "/var/log/redis/redis-server-{{ redis_instance }}.log",
    "redis_server_dir": "/var/lib/redis/{{ redis_instance }}",
    "redis_modules_dir": "/usr/lib/redis/{{ redis_instance }}",
}
# The packaged unit lets its service write below /var/lib/redis; elsewhere, the drop-in has to.
FOLDERS = {"r11": "/var/lib/redis/{{ redis_instance }}", "r12": "/var/lib/redis-{{ redis_instance }}"}


@dataclass
class Pair:
    """Two instances of one host."""

    lab: Lab
    host: Host

    def rollout(self, *options: str, only: str = "", each: dict[str, Any] | None = None, **more: Any) -> Done:
        """Roll out to both, or to one; I(each) has variables of theirs."""
        own = {
            self.name(key): {"redis_instance": key, "redis_server_port": port, **(each or {}).get(key, {})}
            for key, port in NAMES.items()
            if only in ("", key)
        }
        if self.replicates:
            own.get(self.name("b"), {})["redis_server_replicaof"] = f"127.0.0.1 {NAMES['a']}"
        variables = {**VARIABLES, "redis_server_dir": FOLDERS[self.host.name], **more}
        return self.lab.ansible(dict.fromkeys(own, self.host), None, *options, host_variables=own, **variables)

    @property
    def replicates(self) -> bool:
        """Whether the second is a replica of the first: 6.0 has no command by which a primary hands over."""
        return self.host.suite != "bullseye"

    def name(self, key: str) -> str:
        """Return the inventory name of an instance."""
        return f"{self.host.name}-{key}"

    def unit(self, key: str) -> str:
        """Return the unit of an instance."""
        return f"redis-server@{key}.service"

    def modules(self, key: str) -> dict[str, int]:
        """Return the modules that an instance runs."""
        return self.host.modules(login=("-p", str(NAMES[key])))

    def cli(self, key: str, *words: str) -> str:
        """Ask an instance."""
        return self.host.cli(*words, login=("-p", str(NAMES[key])))

    def pid(self, key: str) -> int:
        """Return the pid of an instance's server."""
        return int(self.host.sh(f"systemctl show -p MainPID --value {self.unit(key)}"))

    def folder(self, key: str) -> str:
        """Return where the data of an instance lies."""
        return FOLDERS[self.host.name].replace("{{ redis_instance }}", key)

    def touched(self) -> str:
        """Return the times of all that a rollout writes."""
        return self.host.sh(
            "find /etc/redis /etc/systemd/system /usr/lib/redis /var/lib/redis /var/lib/redis-* -type f "
            "-printf '%p %T@ %i\\n' 2>/dev/null | grep -v dump.rdb | sort",
            check=False,
        )

    def clear(self) -> None:
        """Take both away."""
        for key in NAMES:
            unit = self.unit(key)
            # Without its folder, a server that can't save does not stop either.
            self.host.sh(
                f"systemctl disable {unit}; timeout 10 systemctl stop {unit} || systemctl kill -s KILL {unit}; "
                f"systemctl reset-failed {unit}; "
                f"rm -rf /etc/systemd/system/{unit}.d /run/{unit}.started-with /etc/redis/redis-{key}.conf* "
                f"/var/lib/redis-{key} /var/lib/redis/{key} /usr/lib/redis "
                f"/var/lib/edgeops-redis-modules/before* /var/log/redis/redis-server-{key}.log; "
                "systemctl daemon-reload",
                check=False,
            )


@pytest.fixture(params=FOLDERS)
def pair(request: pytest.FixtureRequest, lab: Lab) -> Iterator[Pair]:
    """Return two instances that are not there yet, beside the packaged server."""
    made = Pair(lab, lab.hosts[request.param])
    made.clear()
    lab.reset(request.param)
    yield made
    made.clear()


def test_two_instances_on_one_host(pair: Pair) -> None:
    """Both come up beside the packaged server, in one run, each with files, folders and a sandbox of its own."""
    host, packaged = pair.host, pair.host.pid
    modules: list[Entry] = [probe()]
    pair.rollout(redis_modules=modules).good()
    assert [pair.modules(key) for key in NAMES] == [{"probe": 1}] * 2
    assert (host.modules(), host.pid) == ({}, packaged)
    for key in NAMES:
        assert host.sh(f"systemctl is-enabled {pair.unit(key)}").strip() == "enabled"
        # It can save where its data lies, and change nothing where its modules lie.
        assert pair.cli(key, "SAVE") == "OK"
        folder = pair.folder(key)
        assert host.sh(f"stat -c '%U:%G %a' {folder}").strip() == "redis:redis 750"
        mounts = host.sh(f"grep -F ' /usr/lib/redis/{key} ' /proc/{pair.pid(key)}/mountinfo")
        assert mounts.split()[5].startswith("ro")
    assert not host.sh("ls -d /var/lib/edgeops-redis-modules/before*", check=False)

    pids, touched = [pair.pid(key) for key in NAMES], pair.touched()
    pair.rollout(redis_modules=modules).unchanged()
    assert ([pair.pid(key) for key in NAMES], pair.touched()) == (pids, touched)

    planned = pair.rollout(redis_modules=modules, playbook="plan").unchanged().output
    a, b = pair.name("a"), pair.name("b")
    if pair.replicates:
        assert f"wave 1: {b} (replication of {a})" in planned
        assert f"wave 2: {a} (replication of {a}), after it has handed over to {b}" in planned
        pair.cli("a", "SET", "key", "value")
        until(lambda: pair.cli("b", "GET", "key") == '"value"', "the replica has the key")
    else:
        assert f"{a} (standalone)" in planned
        assert f"{b} (standalone)" in planned

    # One gives the module up, the other keeps it, also over a restart.
    dropped = {"b": {"redis_modules": [{"name": "probe", "state": "absent"}]}}
    pair.rollout(each=dropped, redis_modules=modules).good()
    assert [pair.modules(key) for key in NAMES] == [{"probe": 1}, {}]
    assert pair.pid("a") == pids[0]
    assert not host.sh("ls /usr/lib/redis/b/*.so", check=False)
    host.sh(f"systemctl restart {pair.unit('a')}")
    assert pair.modules("a") == {"probe": 1}
    assert host.pid == packaged


def test_one_fails_and_each_is_put_back_by_its_own_snapshot(pair: Pair) -> None:
    """Two that stand alone fall together, as they are one wave; a primary is not reached, as its replica failed."""
    pair.rollout(redis_modules=[probe()]).good()
    pair.cli("b" if not pair.replicates else "a", "SET", "key", "value")
    until(lambda: pair.cli("b", "GET", "key") == '"value"', "it has its data")
    each = {"b": {"redis_modules": [variant("probe", "PROBE_LIVE_ONLY")]}}
    done = pair.rollout(each=each, redis_modules=[variant("probe", "PROBE_VERSION=2")])
    assert done.code != 0
    assert "probe refuses the live server" in done.failure(pair.name("b"))
    assert f"{pair.name('b')} is as it was before this run" in done.failure(pair.name("b"))
    if not pair.replicates:
        assert f"{pair.name('a')} is as it was before this run" in done.failure(pair.name("a"))
    assert [pair.modules(key) for key in NAMES] == [{"probe": 1}, {"probe": 1}]
    assert pair.cli("b", "GET", "key") == '"value"'
    assert not pair.host.sh("ls -d /var/lib/edgeops-redis-modules/before*", check=False)


def test_what_both_would_write_is_refused(pair: Pair) -> None:
    """Before anything is touched, and with the variable's name."""
    touched = pair.touched()
    done = pair.rollout(redis_modules=[probe()], redis_modules_dir="/var/lib/redis/modules")
    assert done.code != 0
    a, b = pair.name("a"), pair.name("b")
    said = (
        f"{a} and {b} are one host ({pair.host.address}) and have redis_modules_dir /var/lib/redis/modules; give each"
    )
    assert said in done.failure(a)
    assert pair.touched() == touched
