# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches Redis, told by plain sockets from addresses inside and outside of the declared networks.

What is in force is asked of nft itself. The clients are addresses of this machine on the lab's bridge, and the hosts.
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from rollout_kit import CORES, Done, Host, Lab, run
from test_rollout_power_cut import Power

PASSWORD = "sesame-of-the-firewall-test"
PORT = 7000
SERVER = {
    "redis_server_bind": ["0.0.0.0", "::"],
    "redis_server_port": PORT,
    "redis_server_requirepass": PASSWORD,
}
RULES = "/etc/edgeops/redis-firewall.nft"
OURS = (
    f"{RULES} /etc/systemd/system/edgeops-redis-firewall.service "
    "/etc/systemd/system/nftables.service.d/50-edgeops-redis-firewall.conf"
)
WAIT = 0.5
"""Seconds without an answer after which a client counts as shut out."""

BY_HAND = """\
table inet byhand {
    chain input {
        type filter hook input priority 0; policy accept;
        tcp dport 22 counter accept
    }
}
"""


def knock(address: str, port: int = PORT, source: str = "") -> str:
    """Return how a connection attempt goes: C(answer), C(refused) by a port without a server, or C(dropped)."""
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as client:
        client.settimeout(WAIT)
        try:
            if source:
                client.bind((source, 0))
            client.connect((address, port))
            client.sendall(b"PING\r\n")
            return "answer" if client.recv(10) else "closed"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "dropped"


@dataclass
class Clients:
    """Addresses of this machine: one of each family inside of the declared networks, one of each outside."""

    inside: tuple[str, str]
    outside: tuple[str, str]
    allowed: list[str]
    ipv6: dict[str, str]
    """The hosts' addresses."""

    def reach(self, hosts: list[Host], port: int = PORT) -> dict[str, list[str]]:
        """Return how it goes for each host from inside (IPv4, IPv6) and from outside (IPv4, IPv6)."""
        sources = [*self.inside, *self.outside]
        with ThreadPoolExecutor(len(hosts) * len(sources)) as pool:
            found = {
                host.name: [
                    pool.submit(knock, self.ipv6[host.name] if ":" in source else host.address, port, source)
                    for source in sources
                ]
                for host in hosts
            }
            return {name: [one.result() for one in results] for name, results in found.items()}


CLOSED = ["answer", "answer", "dropped", "dropped"]
OPEN = ["answer"] * 4


@pytest.fixture
def clients(lab: Lab, fleet: list[Host]) -> Iterator[Clients]:
    """Give this machine two more addresses on the lab's bridge, and leave no firewall on the hosts."""
    network = lab.bridge.rsplit(".", 1)[0]
    ipv6 = {host.name: host.sh("ip -6 -o addr show dev eth0 scope global").split()[3].split("/")[0] for host in fleet}
    prefix = ipv6[fleet[0].name].rsplit(":", 1)[0]
    listing = json.loads(run("ip", "-j", "-4", "addr", "show", "to", lab.bridge).stdout)
    bridge = next(link["ifname"] for link in listing if link.get("ifname"))
    made = Clients(
        (lab.bridge, f"{prefix}:1"),
        (f"{network}.250", f"{prefix}:fa"),
        # The first is held by the second.
        [lab.bridge, f"{network}.0/30", f"{prefix}:/125"],
        ipv6,
    )
    extra = ([f"{made.outside[0]}/32"], [f"{made.outside[1]}/128", "nodad"])
    for words in extra:
        assert run("ip", "addr", "add", *words, "dev", bridge).returncode == 0
    try:
        yield made
    finally:
        for words in extra:
            run("ip", "addr", "del", words[0], "dev", bridge)
        for host in fleet:
            host.sh(
                f"systemctl disable --now edgeops-redis-firewall nftables 2>/dev/null; rm -rf /etc/edgeops {OURS}; "
                "systemctl daemon-reload; nft flush ruleset; "
                "test ! -e /root/nftables.conf || mv /root/nftables.conf /etc/nftables.conf",
                check=False,
            )


class Alone:
    """Runs the role by itself, as a playbook of the user does."""

    def __init__(self, lab: Lab, hosts: list[Host]) -> None:
        self.lab, self.hosts = lab, hosts
        self.playbook = lab.folder / "firewall.yml"
        play = {
            "hosts": "all",
            "become": True,
            "gather_facts": False,
            "roles": ["edgeops.redis_modules.redis_firewall"],
        }
        self.playbook.write_text(yaml.safe_dump([play]), encoding="utf-8")

    def __call__(self, *options: str, **variables: Any) -> Done:
        """Run it to its end."""
        inventory = self.lab.ansible.inventory(self.hosts, variables)
        words = (CORES["newest"] / "bin" / "ansible-playbook", self.playbook, "-i", inventory, *options)
        done = run(*words, env=self.lab.ansible.environment("newest"), cwd=self.lab.folder)
        return Done(done.returncode, done.stdout + done.stderr)


def tables(host: Host) -> str:
    """Return what nft lists of this host, without what counts."""
    listed = re.sub(r"packets \d+ bytes \d+", "", host.sh("nft list ruleset"))
    return "\n".join(line.rstrip() for line in listed.splitlines())


def ours(host: Host) -> str:
    """Return our table with its counters."""
    return host.sh("nft list table inet edgeops_redis")


def counted(host: Host, name: str) -> int:
    """Return what a counter of our table has seen."""
    listed = json.loads(host.sh(f"nft -j list counter inet edgeops_redis {name}"))["nftables"]
    return next(int(item["counter"]["packets"]) for item in listed if "counter" in item)


@contextmanager
def connected(host: Host, source: str) -> Iterator[socket.socket]:
    """Hold a connection that is logged in."""
    with socket.socket() as client:
        client.settimeout(5)
        client.bind((source, 0))
        client.connect((host.address, PORT))
        assert asked(client, f"AUTH {PASSWORD}") == "+OK"
        yield client


def asked(client: socket.socket, command: str) -> str:
    """Send a command on a connection that is held."""
    client.sendall(f"{command}\r\n".encode())
    return client.recv(100).decode().strip()


def every(hosts: list[Host], result: list[str]) -> dict[str, list[str]]:
    """Return the same for each host."""
    return {host.name: result for host in hosts}


def flush_by_service(host: Host, clients: Clients) -> None:
    """Let nftables.service flush all tables in every way it can; ours is back when systemctl returns."""
    pid = host.pid
    for verb in ("enable --now", "reload", "restart", "stop", "start"):
        host.sh(f"systemctl {verb} nftables 2>&1")
        found = [knock(host.address, source=source) for source in (clients.inside[0], clients.outside[0])]
        assert found == ["answer", "dropped"], f"{host.name}: after systemctl {verb} nftables"
    assert host.pid == pid
    assert "table inet byhand" in tables(host)


@contextmanager
def shut_out(fleet: list[Host], clients: Clients) -> Iterator[None]:
    """Knock from outside all the while, and assert that no host's server ever answered."""
    ended = threading.Event()
    answers: set[str] = set()

    def knocking(host: Host) -> None:
        while not ended.is_set():
            try:
                answers.add(knock(host.address, source=clients.outside[0]))
            except OSError:
                answers.add("unreachable")
            time.sleep(0.01)

    with ThreadPoolExecutor(len(fleet)) as pool:
        knockers = [pool.submit(knocking, host) for host in fleet]
        try:
            yield
        finally:
            ended.set()
    for knocker in knockers:
        knocker.result()
    assert "dropped" in answers
    assert "answer" not in answers


def boot(lab: Lab, fleet: list[Host], clients: Clients) -> None:
    """Cut the power of all hosts and boot them."""
    power = [Power(lab, host) for host in fleet]
    for one in power:
        one.cut()
    with shut_out(fleet, clients):
        for one in power:
            one.back()
        assert clients.reach(fleet) == every(fleet, CLOSED)


def test_only_the_declared_networks_reach_redis(lab: Lab, fleet: list[Host], clients: Clients) -> None:
    """From bad input over a rollout, a boot and drift to absent, on all three versions of Redis and of nft."""
    r11, r12, r13 = fleet
    alone = Alone(lab, fleet)
    allowed = {"redis_firewall_allowed_cidrs": clients.allowed}
    wider = {"redis_firewall_allowed_cidrs": [*clients.allowed, clients.outside[0]]}
    port = {"redis_server_port": PORT, "redis_firewall_log": True}

    # Bad input: all of it told, nothing touched.
    before = r12.snapshot()
    bad = lab.ansible(fleet, [], **SERVER, redis_firewall_allowed_cidrs=["10.0.0.5/8", "nonsense"])
    for host in fleet:
        assert "10.0.0.0/8 is the network, 10.0.0.5/32 that one address" in bad.failure(host)
        assert "nonsense is no IPv4 or IPv6 network" in bad.failure(host)
    assert r12.snapshot() == before

    # What others have made, for now and for each boot. One host has no nft yet.
    for host in fleet:
        host.sh("cp /etc/nftables.conf /root/nftables.conf")
        host.put("/etc/nftables.conf", f"#!/usr/sbin/nft -f\nflush ruleset\n{BY_HAND}", mode="0755")
        host.sh("nft -f /etc/nftables.conf")
    others = {host.name: tables(host) for host in fleet}
    r13.sh("dpkg --remove nftables >/dev/null 2>&1; ! test -e /usr/sbin/nft")

    # Check mode says what the run does, and the run does it.
    said = alone("--check", "--diff", **allowed).good()
    assert [said.recap(host)["changed"] for host in fleet] == [1, 1, 1]
    assert "+        elements = { " in said.output
    for host in fleet:
        assert host.sh(f"ls -d /etc/edgeops {OURS} 2>/dev/null", check=False) == ""
    assert tables(r12) == others["r12"]
    alone(**allowed).good()
    for host in fleet:
        assert "tcp dport" in ours(host)

    # The rollout moves the server to another port, and closes that one before the server listens on it.
    with shut_out(fleet, clients):
        lab.ansible(fleet, [], **SERVER, **allowed, redis_firewall_log=True).good()
    assert clients.reach(fleet) == every(fleet, CLOSED)
    for host in fleet:
        assert "6379" not in ours(host), "a port that the server has left"
        assert knock(host.address, 22, clients.outside[0]) == "answer", "SSH"
        assert host.cli("PING", login=("-h", host.address, "-p", str(PORT), "-a", PASSWORD)) == "PONG", "from itself"
        assert 'log prefix "edgeops-redis refused: "' in ours(host)
        assert tables(host).startswith(others[host.name]), "the table of others"

    # Another list: who stays allowed stays connected. The cluster's bus is for the play's hosts alone.
    with connected(r11, clients.inside[0]) as first, connected(r13, clients.inside[0]) as second:
        alone(**wider, **port, redis_firewall_cluster_bus_ports=[16379]).good()
        assert asked(first, "PING") == asked(second, "PING") == "+PONG"
        assert clients.reach(fleet) == every(fleet, ["answer", "answer", "answer", "dropped"])
        assert knock(r12.address, 16379, clients.inside[0]) == "dropped"
        # Nobody listens there, so a packet that gets through is answered by the kernel.
        assert "refused" in r11.sh(f"timeout 3 bash -c 'echo > /dev/tcp/{r12.address}/16379' 2>&1; true")

        # Drift by hand: told by verify, mended by the next run.
        r11.sh("nft delete table inet edgeops_redis")
        r13.sh(f"nft add rule inet edgeops_redis input tcp dport {PORT} accept; rm {RULES}")
        looking = {**SERVER, **wider, **port, "redis_firewall_cluster_bus_ports": [16379]}
        drifted = lab.ansible(fleet, [], playbook="verify", **looking)
        assert "the table inet edgeops_redis is missing; a rollout mends it" in drifted.failure(r11)
        assert drifted.recap(r12)["failed"] == 0
        assert f"the table inet edgeops_redis is not as declared; {RULES} is missing" in drifted.failure(r13)
        r12.sh("nft add element inet edgeops_redis allowed6 '{ ::/0 }'; nft flush chain inet edgeops_redis bus")
        alone(**allowed, **port).good()
        assert asked(first, "PING") == asked(second, "PING") == "+PONG"
    assert clients.reach(fleet) == every(fleet, CLOSED)

    # What nft does not take leaves the rules of before.
    listed = {host.name: ours(host) for host in fleet}
    refused = alone(**allowed, **port, redis_firewall_log_rate="9" * 30 + "/minute")
    for host in fleet:
        assert "those of before stay in force:\nrules:" in refused.failure(host)
        assert "Error: " in refused.failure(host)
        assert ours(host) == listed[host.name]

    # nftables.service flushes all tables; a boot; and then a run that finds nothing to do, and loads nothing again.
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda host: flush_by_service(host, clients), fleet))
    boot(lab, fleet, clients)
    seen = {host.name: (counted(host, "accepted"), counted(host, "refused")) for host in fleet}
    assert min(min(both) for both in seen.values()) >= 2
    alone(**allowed, **port).unchanged()
    report = lab.folder / "firewall-report"
    report.mkdir()
    more = {"redis_firewall_log": True, "redis_verify_report_dir": str(report)}
    lab.ansible(fleet, [], playbook="verify", **SERVER, **allowed, **more).unchanged()
    rows = json.loads((report / "report.json").read_text(encoding="utf-8"))
    for row, (accepted, refused_ones) in zip(rows, seen.values(), strict=True):
        assert row["firewall"] == f"ports {PORT} open to 2 networks; {accepted} accepted, {refused_ones} refused"

    # A rollout that moves the server and fails: the port that it did not leave is guarded still.
    moving = {**SERVER, **allowed, "redis_server_port": 7001, "redis_server_extra_directives": {"no-such-directive": 1}}
    assert lab.ansible([r12], [], **moving).code != 0
    assert clients.reach([r12]) == {"r12": CLOSED}
    assert [knock(r12.address, 7001, one) for one in (clients.inside[0], clients.outside[0])] == ["refused", "dropped"]

    # Away with it, and with nothing else.
    alone(**allowed, **port, redis_firewall_state="absent").good()
    assert clients.reach(fleet) == every(fleet, OPEN)
    for host in fleet:
        assert host.sh(f"ls -d /etc/edgeops {OURS} 2>/dev/null", check=False) == ""
        assert tables(host) == others[host.name]
