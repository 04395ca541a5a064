# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach Redis: the networks are checked here, and become the rules of one nftables table of our own."""

from __future__ import annotations

import ipaddress
import json
import re
from typing import Any, Iterable, Mapping, NamedTuple, Sequence, Union

FAMILY, TABLE = "inet", "edgeops_redis"
UNIT = "edgeops-redis-firewall.service"
RULES_PATH = "/etc/edgeops/redis-firewall.nft"
LOG_PREFIX = "edgeops-redis refused: "

SSH_PORT = 22
RATE = re.compile(r"[1-9][0-9]*/(second|minute|hour|day)")

Network = Union[ipaddress.IPv4Network, ipaddress.IPv6Network]


class FirewallError(ValueError):
    """What is declared can't be right; the text is for the operator, a line for each fault."""


class Wanted(NamedTuple):
    """What is declared, checked: networks by family, as nft writes them.

    I(notes) are what was left out as another network holds it, I(warnings) what is allowed and hardly meant.
    """

    allowed4: tuple[str, ...]
    allowed6: tuple[str, ...]
    ports: tuple[int, ...]
    peers4: tuple[str, ...] = ()
    peers6: tuple[str, ...] = ()
    bus_ports: tuple[int, ...] = ()
    log: bool = False
    log_rate: str = "10/minute"
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def wanted(given: Mapping[str, Any]) -> Wanted:
    """Return what is declared, by the module's option names. Raises FirewallError with all that is wrong with it."""
    allowed, faults = networks("redis_firewall_allowed_cidrs", given["allowed_cidrs"])
    if not faults and not allowed and not given.get("allow_none"):
        faults.append(
            "redis_firewall_allowed_cidrs is empty, so no other host could reach Redis; set redis_firewall_allow_none "
            "to true where that is meant"
        )
    ports, port_faults = numbers("redis_firewall_ports", given["ports"])
    if not port_faults and not ports:
        port_faults.append("redis_firewall_ports is empty, so nothing would be guarded; name the ports of the server")
    bus_ports, bus_faults = numbers("redis_firewall_cluster_bus_ports", given.get("cluster_bus_ports") or [])
    peers, peer_faults = networks("redis_firewall_cluster_peers", given.get("cluster_peers") or [])
    if bus_ports and not peers and not peer_faults:
        peer_faults.append("redis_firewall_cluster_peers is empty, so no peer could reach the cluster bus port")
    faults += port_faults + bus_faults + peer_faults
    both = sorted(set(ports) & set(bus_ports))
    if both:
        faults.append(f"port {both[0]} is both in redis_firewall_ports and in redis_firewall_cluster_bus_ports")
    rate = given.get("log_rate", "10/minute")
    if not isinstance(rate, str) or not RATE.fullmatch(rate):
        faults.append(f"redis_firewall_log_rate: {rate!r} must be a number by second, minute, hour or day")
    if faults:
        raise FirewallError("\n".join(faults))

    kept, notes = without_overlaps("redis_firewall_allowed_cidrs", allowed)
    kept_peers, _peer_notes = without_overlaps("redis_firewall_cluster_peers", peers if bus_ports else [])
    return Wanted(
        allowed4=texts(kept, 4),
        allowed6=texts(kept, 6),
        ports=tuple(ports),
        peers4=texts(kept_peers, 4),
        peers6=texts(kept_peers, 6),
        bus_ports=tuple(bus_ports),
        log=bool(given.get("log")),
        log_rate=rate,
        notes=tuple(notes),
        warnings=(*open_to_all(kept), *peers_outside(kept_peers, kept)),
    )


def networks(name: str, given: Any) -> tuple[list[Network], list[str]]:
    """Return the networks of a list of CIDRs, and what is wrong with each of the others."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return [], [f"{name} must be a list of networks, not {given!r}"]
    found, faults = [], []
    for cidr in given:
        try:
            found.append(network(cidr))
        except FirewallError as error:
            faults.append(f"{name}: {error}")
    return found, faults


def network(cidr: Any) -> Network:
    """Return the network of a CIDR, or of a single address. Raises FirewallError with what was probably meant."""
    if not isinstance(cidr, str):
        raise FirewallError(f"{cidr!r} is no text; write the network in quotes, as '10.0.0.0/8'")
    address, slash, bits = cidr.partition("/")
    if "%" in address:
        raise FirewallError(f"{cidr} names an interface; leave out what begins with %")
    # Python below 3.9.5 takes 010.0.0.1 for 10.0.0.1, others take it for 8.0.0.1 or refuse it.
    if re.search(r"(^|\.)0\d+(\.|$)", address):
        raise FirewallError(f"{cidr} has a number that begins with 0, which is read in two ways; leave that 0 out")
    try:
        host = ipaddress.ip_address(address)
    except ValueError:
        raise FirewallError(f"{cidr} is no IPv4 or IPv6 network") from None
    if isinstance(host, ipaddress.IPv6Address) and host.ipv4_mapped:
        raise FirewallError(f"{cidr} maps an IPv4 address, and no packet bears it; write {host.ipv4_mapped} as IPv4")
    if slash and not re.fullmatch(r"[0-9]{1,3}", bits):
        raise FirewallError(f"{cidr} has the mask {bits!r}; write the number of its bits{meant_by_mask(address, bits)}")
    if slash and int(bits) > host.max_prefixlen:
        raise FirewallError(f"{cidr} has {bits} bits of mask; IPv{host.version} has {host.max_prefixlen} at most")
    length = int(bits) if slash else host.max_prefixlen
    whole: Network = ipaddress.ip_network(f"{host}/{length}", strict=False)
    if whole.network_address != host:
        raise FirewallError(
            f"{cidr} has bits beyond its mask; {whole} is the network, {host}/{host.max_prefixlen} that one address"
        )
    return whole


def meant_by_mask(address: str, mask: str) -> str:
    """Return what a CIDR with a written-out mask means, to be said behind its fault; empty where that is not clear."""
    # Zeros first would be a host mask, which ip_network would take as well.
    if not mask.startswith(("255.", "128.", "192.", "224.", "240.", "248.", "252.", "254.")):
        return ""
    try:
        return f", as {ipaddress.ip_network(f'{address}/{mask}', strict=False)}"
    except ValueError:
        return ""


def numbers(name: str, given: Any) -> tuple[list[int], list[str]]:
    """Return the ports of a list, sorted and each once, and what is wrong with the others."""
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        return [], [f"{name} must be a list of ports, not {given!r}"]
    found, faults = set(), []
    for port in given:
        # From a template, a number may come as text.
        if isinstance(port, bool) or not re.fullmatch(r"[0-9]{1,5}", str(port)) or not 0 < int(port) < 65536:
            faults.append(f"{name}: {port!r} is no port from 1 to 65535")
        elif int(port) == SSH_PORT:
            faults.append(f"{name}: {port} is the port of SSH, which this table leaves as it is")
        else:
            found.add(int(port))
    return sorted(found), faults


def without_overlaps(name: str, given: Iterable[Network]) -> tuple[list[Network], list[str]]:
    """Return the networks that no other one of them holds, sorted, and a sentence for each that was left out."""
    kept: list[Network] = []
    notes = []
    for candidate in sorted(given, key=lambda one: (one.version, one.prefixlen, int(one.network_address))):
        holder = next((one for one in kept if holds(one, candidate)), None)
        if holder is None:
            kept.append(candidate)
        elif holder == candidate:
            notes.append(f"{name}: {candidate} is named more than once")
        else:
            notes.append(f"{name}: {candidate} is merged into {holder}, which holds it")
    return sorted(kept, key=lambda one: (one.version, int(one.network_address))), notes


def holds(one: Network, other: Network) -> bool:
    """Whether all of a network's addresses are in I(one)."""
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return other.subnet_of(one)
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return other.subnet_of(one)
    return False


def texts(given: Iterable[Network], version: int) -> tuple[str, ...]:
    """Return the networks of one family, as text."""
    return tuple(str(one) for one in given if one.version == version)


def open_to_all(allowed: Iterable[Network]) -> list[str]:
    """Return a warning for each network that holds every address."""
    return [
        f"redis_firewall_allowed_cidrs holds {one}: every IPv{one.version} address reaches Redis"
        for one in allowed
        if one.prefixlen == 0
    ]


def peers_outside(peers: Iterable[Network], allowed: Sequence[Network]) -> list[str]:
    """Return a warning where peers of the cluster can reach its bus, but not the server that they replicate from."""
    outside = [str(peer) for peer in peers if not any(holds(one, peer) for one in allowed)]
    if not outside:
        return []
    return [
        f"redis_firewall_allowed_cidrs does not hold the cluster's peers {', '.join(outside)}: they could not replicate"
    ]


def peers(hosts: Sequence[str], variables: Sequence[Mapping[str, Any]], limit: str = "") -> list[str]:
    """Return the address of each host, as the inventory has it or else its facts.

    Raises FirewallError with the hosts that none is known of, and where the run is limited: the hosts that it
    leaves out would be shut out of the cluster.
    """
    if limit:
        raise FirewallError(
            f"this run is limited to {limit}, so it does not know all hosts of the cluster, and would shut others "
            "out of the bus; list the cluster's addresses in redis_firewall_cluster_peers"
        )
    found: list[str] = []
    unknown: list[str] = []
    for host, known in zip(hosts, variables):
        facts = known.get("ansible_facts") or {}
        own = [str(address) for address in (known.get("ansible_host"), host) if is_address(address)][:1]
        own = own or [
            facts[key]["address"]
            for key in ("default_ipv4", "default_ipv6")
            if is_address((facts.get(key) or {}).get("address"))
        ]
        found += own
        if not own:
            unknown.append(host)
    if unknown:
        raise FirewallError(
            f"no address is known of {', '.join(unknown)}: give ansible_host as an address, or list the cluster's "
            "addresses in redis_firewall_cluster_peers"
        )
    return found


def is_address(text: Any) -> bool:
    """Whether this is an IPv4 or IPv6 address."""
    try:
        ipaddress.ip_address(text if isinstance(text, str) else "")
    except ValueError:
        return False
    return True


def rules(firewall: Wanted) -> str:
    """Return what C(nft -f) loads in one transaction: our table as it is to be, in the place of the one that is there.

    One statement a line: older nft can't read a whole chain on one.
    """
    bus = bool(firewall.bus_ports)
    lines = [
        "#!/usr/sbin/nft -f",
        "# Written by the role edgeops.redis_modules.redis_firewall: set its variables instead of changing this file.",
        "# This table can only close: what it accepts, others may still drop; what it drops is gone.",
        "",
        "# Made first, so that it can be deleted whether it was there or not.",
        f"table {FAMILY} {TABLE} {{",
        "}",
        f"delete table {FAMILY} {TABLE}",
        f"table {FAMILY} {TABLE} {{",
        *named_set("allowed4", "ipv4_addr", firewall.allowed4),
        *named_set("allowed6", "ipv6_addr", firewall.allowed6),
        *(named_set("peers4", "ipv4_addr", firewall.peers4) if bus else ()),
        *(named_set("peers6", "ipv6_addr", firewall.peers6) if bus else ()),
        "    counter accepted {",
        "    }",
        "    counter refused {",
        "    }",
        "    # After the filters of others, so that what is counted as accepted gets to the server.",
        "    chain input {",
        "        type filter hook input priority 20; policy accept;",
        f"        tcp dport {{ {', '.join(map(str, firewall.ports))} }} jump clients",
        *([f"        tcp dport {{ {', '.join(map(str, firewall.bus_ports))} }} jump bus"] if bus else ()),
        "    }",
        *judging_chain("clients", "allowed"),
        *(judging_chain("bus", "peers") if bus else ()),
        "    chain refuse {",
        *([f'        limit rate {firewall.log_rate} log prefix "{LOG_PREFIX}"'] if firewall.log else ()),
        '        counter name "refused" drop',
        "    }",
        "}",
    ]
    return "\n".join(lines) + "\n"


def named_set(name: str, kind: str, elements: Sequence[str]) -> list[str]:
    """Return the lines of a set of networks; nft knows no empty list of elements."""
    inner = [f"        elements = {{ {', '.join(elements)} }}"] if elements else []
    return [f"    set {name} {{", f"        type {kind}", "        flags interval", *inner, "    }"]


def judging_chain(chain: str, prefix: str) -> list[str]:
    """Return the lines of a chain that lets the networks of two sets in, and no other.

    C(ct state) does more than it says: with it the kernel puts fragments together before any rule is asked. Without,
    IPv6 fragments could carry a connection past the rules, as no port can be read from them.
    """
    return [
        f"    chain {chain} {{",
        '        iifname "lo" accept',
        "        ct state established,related accept",
        f'        ip saddr @{prefix}4 counter name "accepted" accept',
        f'        ip6 saddr @{prefix}6 counter name "accepted" accept',
        "        jump refuse",
        "    }",
    ]


def unit(nft: str, server: str) -> str:
    """Return the systemd unit that loads the rules at boot, before the server's unit starts.

    I(server) is that unit's own name. Were an alias named here, systemd would take it for another unit for as long as
    the server's is disabled, and lose sight of the running server once it is enabled again: the next start of it would
    be of a second one. Seen with systemd 247 and 257.
    """
    return f"""\
# Written by the role edgeops.redis_modules.redis_firewall.
[Unit]
Description=Who may reach Redis (nftables table {FAMILY} {TABLE})
DefaultDependencies=no
Conflicts=shutdown.target
Wants=network-pre.target
# nftables.service may flush all tables first.
After=nftables.service
# Before the network is up and before Redis listens. No Requires= in redis-server.service: systemd would hand each stop
# and restart of this unit on to the server. So where this unit fails at boot, Redis starts all the same, behind its
# password or protected mode, and the failed unit shows in systemctl --failed and in redis_verify. The rules were tried
# before they were written: what is left is a host whose nft or kernel is broken, and there a database that stays away
# would be the greater harm.
Before=network-pre.target {server} shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
StandardInput=null
ProtectSystem=full
ProtectHome=true
ExecStart={nft} -f {RULES_PATH}
# No ExecStop=: to stop this unit must not open the ports.

[Install]
WantedBy=sysinit.target
"""


def dropin(nft: str) -> str:
    """Return the drop-in of nftables.service that loads our table again where that service has flushed it."""
    return f"""\
# Written by the role edgeops.redis_modules.redis_firewall.
# On Debian and RHEL each start, reload and stop of nftables.service flushes every table, ours included. So it is loaded
# here again, before systemctl returns. PartOf= and ReloadPropagatedFrom= in a unit of ours would not do: systemctl does
# not wait for that, a start of nftables.service leaves alone what is active, and a few restarts run into the limit.
# With "-", as a fault of ours must not make this service fail, which would flush the tables of others.
[Service]
ExecStartPost=-{nft} -f {RULES_PATH}
ExecReload=-{nft} -f {RULES_PATH}
ExecStopPost=-{nft} -f {RULES_PATH}
"""


def stateless(listing: str) -> str:
    """Return what C(nft --stateless list table) prints without what older ones print of counters all the same."""
    return re.sub(r"\s*packets \d+ bytes \d+\s*}", "\n\t}", listing).strip() + "\n"


def guarded(listing: str) -> tuple[set[int], set[int]]:
    """Return the ports that a listed table of ours guards: the server's, and the cluster bus'."""
    found: dict[str, set[int]] = {"clients": set(), "bus": set()}
    for ports, chain in re.findall(r"tcp dport (\{[^}]*\}|\d+) jump (clients|bus)\b", listing):
        found[chain] |= {int(port) for port in re.findall(r"\d+", ports)}
    return found["clients"], found["bus"]


def also_guarding(firewall: Wanted, listing: str) -> tuple[Wanted, list[int]]:
    """Return the same with the ports that the listed table guards so far, and which these are.

    A server that is going to move to another port still listens on the one before.
    """
    clients, bus = guarded(listing)
    declared = {*firewall.ports, *firewall.bus_ports}
    ports, bus_ports = clients - declared, (bus - declared if firewall.bus_ports else set())
    return (
        firewall._replace(
            ports=tuple(sorted(ports.union(firewall.ports))),
            bus_ports=tuple(sorted(bus_ports.union(firewall.bus_ports))),
        ),
        sorted(ports | bus_ports),
    )


def counters(text: str) -> dict[str, int]:
    """Return how many packets each counter of C(nft -j list counters) has seen; empty where it can't be read."""
    try:
        listed = json.loads(text)["nftables"]
        return {item["counter"]["name"]: item["counter"]["packets"] for item in listed if "counter" in item}
    except (ValueError, KeyError, TypeError):
        return {}


def ufw_enabled(conf: str) -> bool:
    """Whether /etc/ufw/ufw.conf says that ufw is in use; its unit is active in any case."""
    return re.search(r"^\s*ENABLED\s*=\s*[\"']?yes\b", conf, re.MULTILINE | re.IGNORECASE) is not None


def beside(others: Iterable[str]) -> list[str]:
    """Return a warning for each firewall that is active beside our table."""
    return [
        f"{name} is active beside the table {FAMILY} {TABLE}: a client gets through where both let it, so {name} needs "
        "to allow the Redis ports as well. See docs/firewall.md"
        for name in others
    ]


def summary(result: Mapping[str, Any]) -> str:
    """Return the result of the module redis_firewall in one line of the report."""
    if not result or result.get("skipped"):
        return ""
    if "differences" not in result:
        return f"unknown: {result.get('msg', 'it failed or could not be reached in this run')}"
    if not result["in_force"]:
        return "differs: " + "; ".join(result["differences"])
    if result.get("state") == "absent":
        return "absent"
    seen = result["counters"]
    allowed = len(result["allowed"]["ipv4"]) + len(result["allowed"]["ipv6"])
    return (
        f"ports {', '.join(map(str, result['ports']))} open to {allowed} networks; "
        f"{seen.get('accepted', 0)} accepted, {seen.get('refused', 0)} refused"
    )
