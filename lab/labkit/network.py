# SPDX-License-Identifier: GPL-3.0-or-later
"""A lab's bridge, the hosts' cables and the way out."""

from __future__ import annotations

import json
from pathlib import Path

from labkit.plan import LabNetwork
from labkit.run import run

NETNS_FOLDER = Path("/run/netns")
LINKS = Path("/sys/class/net")


def read_sysctl(name: str) -> str:
    """A sysctl's value."""
    return Path("/proc/sys", *name.split(".")).read_text().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl."""
    Path("/proc/sys", *name.split(".")).write_text(value)


def ipv6_usable() -> bool:
    """Whether this machine's kernel lets an interface have IPv6 addresses."""
    switch = Path("/proc/sys/net/ipv6/conf/default/disable_ipv6")
    return switch.exists() and switch.read_text().strip() == "0"


def ruleset(network: LabNetwork, lab: str) -> str:
    """The lab's own table: hosts reach package mirrors under the machine's address."""
    # Empty first, then fill: loading it twice gives the same table.
    return f"""\
table ip {network.table(lab)} {{
}}
delete table ip {network.table(lab)}
table ip {network.table(lab)} {{
    chain postrouting {{
        type nat hook postrouting priority 100; policy accept;
        ip saddr {network.ipv4} ip daddr != {network.ipv4} masquerade
    }}
}}
"""


def ensure_bridge(network: LabNetwork) -> None:
    """The bridge with the lab's first addresses."""
    if not (LINKS / network.bridge).exists():
        run(["ip", "link", "add", network.bridge, "address", network.mac(1), "type", "bridge"])
    # Each part again, for a bridge that a crashed call left half done.
    run(["ip", "addr", "replace", f"{network.gateway}/{network.ipv4.prefixlen}", "dev", network.bridge])
    if ipv6_usable():
        address = f"{network.host_ipv6(1)}/{network.ipv6.prefixlen}"
        run(["ip", "addr", "replace", address, "dev", network.bridge, "nodad"])
    run(["ip", "link", "set", network.bridge, "up"])


def ensure_table(network: LabNetwork, lab: str) -> None:
    """The lab's nftables table."""
    run(["nft", "-f", "-"], stdin=ruleset(network, lab))


def plug_in(network: LabNetwork, host: str, number: int) -> None:
    """Give a host that is off a new network namespace with one cable to the bridge."""
    unplug(network, host, number)
    name, veth = network.machine(host), network.veth(number)
    run(["ip", "netns", "add", name])
    outside = [
        f"link add {veth} type veth peer name eth0 address {network.mac(number)} netns {name}",
        f"link set {veth} master {network.bridge} up",
    ]
    inside = [
        "link set lo up",
        f"addr add {network.host_ipv4(number)}/{network.ipv4.prefixlen} dev eth0",
        "link set eth0 up",
        f"route add default via {network.gateway}",
    ]
    if ipv6_usable():
        # Without the wait for duplicate address detection the address can be used at once.
        inside.insert(2, f"addr add {network.host_ipv6(number)}/{network.ipv6.prefixlen} dev eth0 nodad")
    run(["ip", "-batch", "-"], stdin="\n".join([*outside, ""]))
    run(["ip", "-n", name, "-batch", "-"], stdin="\n".join([*inside, ""]))


def unplug(network: LabNetwork, host: str, number: int) -> None:
    """Remove a host's network namespace and cable, as far as they exist."""
    if (LINKS / network.veth(number)).exists():
        run(["ip", "link", "del", network.veth(number)], check=False)
    if (NETNS_FOLDER / network.machine(host)).exists():
        run(["ip", "netns", "del", network.machine(host)])


def remove_lab_network(network: LabNetwork, lab: str) -> None:
    """Remove a lab's table and bridge, and any cable or namespace that is left."""
    if run(["nft", "list", "table", "ip", network.table(lab)], check=False).returncode == 0:
        run(["nft", "delete", "table", "ip", network.table(lab)])
    for link in sorted(LINKS.glob(f"el{network.index}-*")):
        run(["ip", "link", "del", link.name], check=False)
    for name in sorted(NETNS_FOLDER.glob(f"{network.bridge}-*")):
        run(["ip", "netns", "del", name.name])
    if (LINKS / network.bridge).exists():
        run(["ip", "link", "del", network.bridge])


def forward_drops(ruleset_json: str) -> list[str]:
    """The base chains that drop forwarded packets by policy: hosts would reach nothing."""
    chains = (item.get("chain", {}) for item in json.loads(ruleset_json).get("nftables", []))
    return [
        f"{c['family']} {c['table']} {c['name']}"
        for c in chains
        if c.get("hook") == "forward" and c.get("policy") == "drop"
    ]
