# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may reach Redis: what is refused and why, what is merged, and what the rules say of it."""

from __future__ import annotations

import ipaddress
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall


def wanted(*allowed: Any, **more: Any) -> _firewall.Wanted:
    """Return what these networks are checked to."""
    return _firewall.wanted({"allowed_cidrs": list(allowed), "ports": [6379], **more})


def fault(*allowed: Any, **more: Any) -> str:
    """Return what is said of these networks."""
    with pytest.raises(_firewall.FirewallError) as error:
        wanted(*allowed, **more)
    return str(error.value)


def test_both_families_are_told_apart() -> None:
    found = wanted("192.0.2.0/24", "2001:db8::/32", "198.51.100.7", "2001:DB9::1")
    assert found.allowed4 == ("192.0.2.0/24", "198.51.100.7/32")
    assert found.allowed6 == ("2001:db8::/32", "2001:db9::1/128")
    assert (found.notes, found.warnings) == ((), ())


@pytest.mark.parametrize(
    ("cidr", "said"),
    [
        ("10.0.0.5/8", "10.0.0.5/8 has bits beyond its mask; 10.0.0.0/8 is the network, 10.0.0.5/32 that one address"),
        ("2001:db8::1/64", "has bits beyond its mask; 2001:db8::/64 is the network, 2001:db8::1/128 that one address"),
        ("10.0.0.0/33", "has 33 bits of mask; IPv4 has 32 at most"),
        ("::/129", "IPv6 has 128 at most"),
        ("10.0.0.0/255.0.0.0", "write the number of its bits, as 10.0.0.0/8"),
        ("10.0.0.0/255.0.255.0", "has the mask '255.0.255.0'; write the number of its bits"),
        ("10.0.0.0/0.255.255.255", "write the number of its bits"),
        ("10.0.0.0/", "has the mask ''"),
        ("10.0.0.0/-8", "has the mask '-8'"),
        ("010.0.0.0/8", "a number that begins with 0"),
        ("::ffff:10.0.0.1", "write 10.0.0.1 as IPv4"),
        ("::ffff:10.0.0.0/104", "write 10.0.0.0 as IPv4"),
        ("fe80::1%eth0", "leave out what begins with %"),
        ("redis1.example.com", "is no IPv4 or IPv6 network"),
        (" 10.0.0.0/8", "is no IPv4 or IPv6 network"),
        ("10.0.0/8", "is no IPv4 or IPv6 network"),
        ("", "is no IPv4 or IPv6 network"),
        (10, "10 is no text"),
        (None, "None is no text"),
        (["10.0.0.0/8"], "is no text"),
    ],
)
def test_a_network_that_is_refused(cidr: Any, said: str) -> None:
    assert said in fault(cidr)
    assert fault(cidr).startswith("redis_firewall_allowed_cidrs: ")


def test_all_faults_are_told_at_once() -> None:
    said = fault(
        "10.0.0.5/8",
        "nonsense",
        ports=[0, "x", 22, True],
        cluster_bus_ports=[70000],
        cluster_peers=["10.0.0.1/24"],
        log_rate="10",
    ).splitlines()
    assert [line.split(":")[0] for line in said] == [
        "redis_firewall_allowed_cidrs",
        "redis_firewall_allowed_cidrs",
        "redis_firewall_ports",
        "redis_firewall_ports",
        "redis_firewall_ports",
        "redis_firewall_ports",
        "redis_firewall_cluster_bus_ports",
        "redis_firewall_cluster_peers",
        "redis_firewall_log_rate",
    ]


@pytest.mark.parametrize("allowed", ["10.0.0.0/8", {"10.0.0.0/8": None}, None])
def test_no_list(allowed: Any) -> None:
    with pytest.raises(_firewall.FirewallError, match="must be a list of networks"):
        _firewall.wanted({"allowed_cidrs": allowed, "ports": [6379]})
    with pytest.raises(_firewall.FirewallError, match="must be a list of ports"):
        _firewall.wanted({"allowed_cidrs": ["10.0.0.0/8"], "ports": "6379"})


def test_an_empty_list_has_to_be_meant() -> None:
    assert "set redis_firewall_allow_none to true where that is meant" in fault()
    found = wanted(allow_none=True)
    assert (found.allowed4, found.allowed6) == ((), ())


def test_a_list_of_faults_is_not_also_called_empty() -> None:
    assert "is empty" not in fault("nonsense")


def test_overlaps_are_merged_and_told() -> None:
    found = wanted("10.1.2.0/24", "10.0.0.0/8", "10.0.0.0/8", "2001:db8::1", "2001:db8::/32", "11.0.0.0/8")
    assert (found.allowed4, found.allowed6) == (("10.0.0.0/8", "11.0.0.0/8"), ("2001:db8::/32",))
    assert found.notes == (
        "redis_firewall_allowed_cidrs: 10.0.0.0/8 is named more than once",
        "redis_firewall_allowed_cidrs: 10.1.2.0/24 is merged into 10.0.0.0/8, which holds it",
        "redis_firewall_allowed_cidrs: 2001:db8::1/128 is merged into 2001:db8::/32, which holds it",
    )


ADDRESSES4 = st.integers(0, 2**32 - 1)
NETWORKS4 = st.builds(
    lambda address, bits: str(ipaddress.IPv4Network((address, bits), strict=False)),
    # Some that have much in common, so that they overlap.
    st.integers(0, 15).map(lambda few: few << 28 | few) | ADDRESSES4,
    st.integers(0, 32),
)


@given(st.lists(NETWORKS4, min_size=1, max_size=8), ADDRESSES4)
def test_merging_changes_nothing_of_who_gets_in_and_leaves_no_overlap(cidrs: list[str], number: int) -> None:
    address = ipaddress.IPv4Address(number)
    kept = [ipaddress.IPv4Network(one) for one in wanted(*cidrs).allowed4]
    assert any(address in one for one in kept) == any(address in ipaddress.IPv4Network(one) for one in cidrs)
    for one in kept:
        assert not any(one.overlaps(other) for other in kept if other is not one)


@pytest.mark.parametrize(("cidr", "family"), [("0.0.0.0/0", "IPv4"), ("::/0", "IPv6")])
def test_everybody_is_allowed_with_a_warning(cidr: str, family: str) -> None:
    (said,) = wanted(cidr).warnings
    assert said == f"redis_firewall_allowed_cidrs holds {cidr}: every {family} address reaches Redis"


def test_ports_are_sorted_and_each_once_also_from_text() -> None:
    assert wanted("10.0.0.0/8", ports=["6380", 6379, 6379]).ports == (6379, 6380)
    assert "redis_firewall_ports is empty" in fault("10.0.0.0/8", ports=[])


def test_the_bus_needs_peers_that_reach_the_server_too() -> None:
    assert "no peer could reach the cluster bus port" in fault("10.0.0.0/8", cluster_bus_ports=[16379])
    assert "port 6379 is both in" in fault("10.0.0.0/8", cluster_bus_ports=[6379], cluster_peers=["10.0.0.1"])
    inside = wanted("10.0.0.0/8", cluster_bus_ports=[16379], cluster_peers=["10.0.0.1", "10.0.0.1"])
    assert (inside.peers4, inside.warnings) == (("10.0.0.1/32",), ())
    outside = wanted("10.0.0.0/8", cluster_bus_ports=[16379], cluster_peers=["10.0.0.1", "2001:db8::1"])
    assert "does not hold the cluster's peers 2001:db8::1/128" in outside.warnings[0]
    assert wanted("10.0.0.0/8", cluster_peers=["192.0.2.1"]).warnings == ()


def test_the_peers_of_the_play() -> None:
    facts = {"default_ipv4": {"address": "10.0.0.3"}, "default_ipv6": {"address": "2001:db8::3"}}
    variables: list[dict[str, Any]] = [
        {"ansible_host": "10.0.0.1", "ansible_facts": facts},
        {"ansible_host": "name.example.com"},
        {"ansible_facts": facts},
    ]
    assert _firewall.peers(["a", "10.0.0.2", "c"], variables) == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "2001:db8::3"]
    with pytest.raises(_firewall.FirewallError, match="no address is known of b, d: give ansible_host"):
        _firewall.peers(["a", "b", "d"], [variables[0], variables[1], {"ansible_facts": {"default_ipv4": {}}}])
    with pytest.raises(_firewall.FirewallError, match="limited to a, so it does not know all hosts"):
        _firewall.peers(["a"], variables[:1], "a")


def test_the_rules_replace_our_table_and_no_other() -> None:
    text = _firewall.rules(wanted("10.0.0.0/8", "192.0.2.1", "2001:db8::/32"))
    assert "flush" not in text
    assert [line for line in text.splitlines() if line.startswith(("table", "delete"))] == [
        "table inet edgeops_redis {",
        "delete table inet edgeops_redis",
        "table inet edgeops_redis {",
    ]
    assert "elements = { 10.0.0.0/8, 192.0.2.1/32 }" in text
    assert "elements = { 2001:db8::/32 }" in text
    assert "policy accept;" in text
    assert "tcp dport { 6379 } jump clients" in text
    assert [line for line in text.splitlines() if line.endswith("drop")] == ['        counter name "refused" drop']
    assert "bus" not in text
    assert "log" not in text


def test_the_rules_of_an_empty_list_have_no_elements() -> None:
    assert "elements" not in _firewall.rules(wanted(allow_none=True))


def test_the_rules_of_a_cluster_with_a_log() -> None:
    text = _firewall.rules(
        wanted("10.0.0.0/8", cluster_bus_ports=[16379], cluster_peers=["10.0.0.1"], log=True, log_rate="5/second")
    )
    assert "tcp dport { 16379 } jump bus" in text
    assert "ip6 saddr @peers6" in text
    assert 'limit rate 5/second log prefix "edgeops-redis refused: "\n        counter name "refused" drop\n' in text


def test_the_units_load_our_file_and_never_stop_the_server() -> None:
    unit, dropin = _firewall.unit("/usr/sbin/nft", "redis.service"), _firewall.dropin("/usr/sbin/nft")
    directives = [line for line in unit.splitlines() if line and not line.startswith("#")]
    assert "ExecStart=/usr/sbin/nft -f /etc/edgeops/redis-firewall.nft" in directives
    assert "Before=network-pre.target redis.service shutdown.target" in directives
    assert not [line for line in directives if line.startswith(("ExecStop", "RequiredBy", "PartOf"))]
    loads = [line for line in dropin.splitlines() if line.startswith("Exec")]
    assert [line.split("=")[0] for line in loads] == ["ExecStartPost", "ExecReload", "ExecStopPost"]
    assert all("=-/usr/sbin/nft -f /etc/edgeops/redis-firewall.nft" in line for line in loads)


OLD_NFT = """table inet edgeops_redis {
>counter refused {
>>packets 7 bytes 420>}

>chain input {
>>tcp dport { 6379, 6380 } jump clients
>>tcp dport { 16379,
>>            16380 } jump bus
>}
}
""".replace(">", "\t")
NEW_NFT = OLD_NFT.replace("\n\t\tpackets 7 bytes 420\t}", "\n\t}")


def test_what_older_nft_lists_of_counters_is_no_difference() -> None:
    assert _firewall.stateless(OLD_NFT) == _firewall.stateless(NEW_NFT)
    assert _firewall.stateless(NEW_NFT) == NEW_NFT


def test_the_ports_that_a_table_guards() -> None:
    assert _firewall.guarded(OLD_NFT) == ({6379, 6380}, {16379, 16380})
    assert _firewall.guarded("\t\ttcp dport 6379 jump clients\n") == ({6379}, set())
    assert _firewall.guarded("") == (set(), set())


def test_ports_stay_guarded_until_the_server_has_left_them() -> None:
    moved, kept = _firewall.also_guarding(wanted("10.0.0.0/8", ports=[6380, 7000]), OLD_NFT)
    assert (moved.ports, moved.bus_ports, kept) == ((6379, 6380, 7000), (), [6379])
    cluster = wanted("10.0.0.0/8", ports=[6379], cluster_bus_ports=[6380, 16380], cluster_peers=["10.0.0.1"])
    moved, kept = _firewall.also_guarding(cluster, OLD_NFT)
    assert (moved.ports, moved.bus_ports, kept) == ((6379,), (6380, 16379, 16380), [16379])
    assert _firewall.also_guarding(cluster, "") == (cluster, [])


def test_the_counters() -> None:
    listed = [{"metainfo": {}}, {"counter": {"name": "refused", "packets": 3, "bytes": 180}}]
    assert _firewall.counters(json.dumps({"nftables": listed})) == {"refused": 3}
    for text in ("", "[]", "{}", '{"nftables": [{"counter": {}}]}'):
        assert _firewall.counters(text) == {}


def test_other_firewalls() -> None:
    assert _firewall.ufw_enabled("# x\nENABLED=yes\n")
    assert not _firewall.ufw_enabled("#ENABLED=yes\nENABLED=no\n")
    (said,) = _firewall.beside(["firewalld"])
    assert said.startswith("firewalld is active beside the table inet edgeops_redis: a client gets through where both")


RESULT: dict[str, Any] = {
    "differences": ["the table inet edgeops_redis is missing"],
    "in_force": True,
    "state": "present",
    "ports": [6379, 16379],
    "allowed": {"ipv4": ["10.0.0.0/8"], "ipv6": []},
    "counters": {"accepted": 12, "refused": 3},
}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (RESULT, "ports 6379, 16379 open to 1 networks; 12 accepted, 3 refused"),
        ({**RESULT, "in_force": False}, "differs: the table inet edgeops_redis is missing"),
        ({**RESULT, "state": "absent"}, "absent"),
        ({"failed": True, "msg": "nft is not installed"}, "unknown: nft is not installed"),
        ({"skipped": True}, ""),
        ({}, ""),
    ],
)
def test_a_line_of_the_report(result: dict[str, Any], said: str) -> None:
    assert _firewall.summary(result) == said
