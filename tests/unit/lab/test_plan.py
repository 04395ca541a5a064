# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses."""

from __future__ import annotations

import ipaddress

import pytest

from labkit import plan
from labkit.errors import LabError


def test_default_ranges() -> None:
    ranges = plan.parse_ranges(None)
    assert str(ranges.ipv4) == plan.DEFAULT_IPV4
    assert str(ranges.ipv6) == plan.DEFAULT_IPV6
    assert ranges.labs() == 256


@pytest.mark.parametrize("text", ["172.29.0.0/20", "172.29.0.0/20,fd31::/56", " fd31::/56  172.29.0.0/20 "])
def test_ranges_in_any_writing(text: str) -> None:
    assert str(plan.parse_ranges(text).ipv4) == "172.29.0.0/20"
    assert plan.parse_ranges(text).labs() == 16


@pytest.mark.parametrize("text", ["10.0.0.0/25", "fd00::/65", "10.0.0.1/16", "ten", "10.0.0.0/33"])
def test_unusable_ranges_are_named(text: str) -> None:
    with pytest.raises(LabError, match="LAB_NETWORK"):
        plan.parse_ranges(text)


def test_networks_of_labs_do_not_overlap() -> None:
    ranges = plan.parse_ranges(None)
    networks = [plan.lab_network(ranges, index) for index in range(256)]
    assert len({n.ipv4 for n in networks}) == len({n.ipv6 for n in networks}) == 256
    assert all(n.ipv4.subnet_of(ranges.ipv4) and n.ipv6.subnet_of(ranges.ipv6) for n in networks)
    with pytest.raises(LabError, match="no room"):
        plan.lab_network(ranges, 256)


def test_names_fit_the_kernel() -> None:
    network = plan.lab_network(plan.parse_ranges("10.0.0.0/8 fd00::/40"), 65535)
    assert len(network.bridge) <= 15
    assert len(network.veth(254)) <= 15
    assert network.table("a-b") == "edgeops_lab_a_b_65535"
    assert network.mac(254) == "02:ed:9e:ff:ff:fe"


def test_addresses_of_a_host() -> None:
    network = plan.lab_network(plan.parse_ranges(None), 3)
    assert network.gateway == "10.213.3.1"
    assert network.host_ipv4(11) == "10.213.3.11"
    assert network.host_ipv6(11) == "fdb7:213:ed9e:3::b"


def test_names_do_not_need_the_ranges() -> None:
    network = plan.lab_network(plan.parse_ranges(None), 3)
    named = plan.names_only(3)
    assert (named.bridge, named.table("x"), named.machine("h")) == (
        network.bridge,
        network.table("x"),
        network.machine("h"),
    )


def test_index() -> None:
    assert plan.free_index([], 4) == 0
    assert plan.free_index([0, 1, 3], 4) == 2
    assert plan.free_index([0], 4, wish=3) == 3
    assert plan.free_index([3], 4, wish=3) == 0
    assert plan.free_index([], 4, wish=9) == 0
    with pytest.raises(LabError, match="take one down"):
        plan.free_index(range(4), 4)


@pytest.mark.parametrize(
    ("held", "collides"),
    [
        ("10.213.7.0/24", True),
        ("10.0.0.0/8", True),
        ("10.213.255.255/32", True),
        ("10.214.0.0/16", False),
        ("0.0.0.0/0", False),
        ("0.0.0.0/1", False),
        ("fdb7:213:ed9e:9::/64", True),
        ("fd00::/64", False),
        ("::/0", False),
    ],
)
def test_overlap(held: str, collides: bool) -> None:
    ranges = plan.parse_ranges(None)
    found = plan.overlaps([ranges.ipv4, ranges.ipv6], [(ipaddress.ip_network(held), "route")])
    assert bool(found) is collides


def test_hosts() -> None:
    assert plan.parse_hosts(["b1=trixie", "a=bullseye"]) == {"b1": "trixie", "a": "bullseye"}


@pytest.mark.parametrize("words", [[], ["a"], ["a=sid"], ["=trixie"], ["A=trixie"], ["a_b=trixie"], ["a=trixie"] * 2])
def test_wrong_hosts(words: list[str]) -> None:
    with pytest.raises(LabError):
        plan.parse_hosts(words)


@pytest.mark.parametrize("name", ["images", "", "1a", "a/b", "..", "A", "a" * 21, "a_b"])
def test_wrong_lab_names(name: str) -> None:
    with pytest.raises(LabError):
        plan.check_lab_name(name)


def test_numbers_follow_names_where_free() -> None:
    numbers = plan.assign_numbers(["edge11", "x11", "plain", "edge255", "edge1"], {})
    assert numbers["edge11"] == 11
    assert sorted(numbers.values()) == [2, 3, 4, 5, 11]


def test_numbers_are_kept() -> None:
    before = plan.assign_numbers(["a", "b"], {})
    after = plan.assign_numbers(["c2", "a", "b"], before)
    assert {n: after[n] for n in before} == before
    assert len(set(after.values())) == 3


def test_a_lab_can_be_full() -> None:
    assert len(plan.assign_numbers([f"h{i}" for i in range(253)], {})) == 253
    with pytest.raises(LabError, match="253"):
        plan.assign_numbers([f"h{i}" for i in range(254)], {})


def test_hosts_file_keeps_what_others_wrote() -> None:
    first = plan.replace_hosts_block("127.0.0.1 localhost", plan.hosts_block(["10.0.0.2 a"]))
    edited = first + "192.0.2.1 mine\n"
    second = plan.replace_hosts_block(edited, plan.hosts_block(["10.0.0.2 a", "10.0.0.3 b"]))
    assert second == "127.0.0.1 localhost\n# lab: begin\n10.0.0.2 a\n10.0.0.3 b\n# lab: end\n192.0.2.1 mine\n"
