# SPDX-License-Identifier: GPL-3.0-or-later
"""Names and addresses: pure decisions, nothing here touches the machine."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from labkit.errors import LabError

SUITES = ("bullseye", "bookworm", "trixie")
KINDS = ("bare", "ready", "site")
# Folders of LAB_DIR that are not labs.
RESERVED_LAB_NAMES = ("images",)
DEFAULT_IPV4 = "10.213.0.0/16"
DEFAULT_IPV6 = "fdb7:213:ed9e::/48"

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
IPInterface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True)
class Ranges:
    """What LAB_NETWORK says: the ranges that labs are cut from."""

    ipv4: ipaddress.IPv4Network
    ipv6: ipaddress.IPv6Network

    def labs(self) -> int:
        """How many labs fit in."""
        return 1 << min(24 - self.ipv4.prefixlen, 64 - self.ipv6.prefixlen)


@dataclass(frozen=True)
class LabNetwork:
    """One lab's own networks, and the names of what the kernel holds for it."""

    index: int
    ipv4: ipaddress.IPv4Network
    ipv6: ipaddress.IPv6Network

    @property
    def bridge(self) -> str:
        """The bridge's name; unique on this machine, as the index is."""
        return f"edgelab{self.index}"

    @property
    def gateway(self) -> str:
        """The bridge's own IPv4 address, the hosts' default route."""
        return str(self.ipv4[1])

    def veth(self, number: int) -> str:
        """The outer end of a host's cable; at most 15 characters."""
        return f"el{self.index}-{number}"

    def machine(self, host: str) -> str:
        """The name of a host's network namespace and nspawn machine."""
        return f"{self.bridge}-{host}"

    def table(self, lab: str) -> str:
        """The lab's nftables table."""
        return f"edgeops_lab_{lab.replace('-', '_')}_{self.index}"

    def mac(self, number: int) -> str:
        """The fixed hardware address of a host, or with number 1 of the bridge.

        Left to chance it would change with each boot (the bridge's with each
        host that comes or goes), and neighbours would ask for the old one for
        half a minute.
        """
        return f"02:ed:9e:{self.index >> 8:02x}:{self.index & 255:02x}:{number:02x}"

    def host_ipv4(self, number: int) -> str:
        """A host's IPv4 address."""
        return str(self.ipv4[number])

    def host_ipv6(self, number: int) -> str:
        """A host's IPv6 address."""
        return str(self.ipv6[number])


def parse_ranges(text: str | None) -> Ranges:
    """Read LAB_NETWORK: an IPv4 range, an IPv6 range, or both."""
    ipv4 = ipaddress.IPv4Network(DEFAULT_IPV4)
    ipv6 = ipaddress.IPv6Network(DEFAULT_IPV6)
    for word in re.split(r"[,\s]+", (text or "").strip()):
        if not word:
            continue
        try:
            network = ipaddress.ip_network(word)
        except ValueError as error:
            raise LabError(f"LAB_NETWORK: {error}; give ranges such as '{DEFAULT_IPV4} {DEFAULT_IPV6}'") from error
        if isinstance(network, ipaddress.IPv4Network):
            ipv4 = network
        else:
            ipv6 = network
    if ipv4.prefixlen > 24:
        raise LabError(f"LAB_NETWORK: {ipv4} is too small, a lab needs a /24")
    if ipv6.prefixlen > 64:
        raise LabError(f"LAB_NETWORK: {ipv6} is too small, a lab needs a /64")
    return Ranges(ipv4, ipv6)


def lab_network(ranges: Ranges, index: int) -> LabNetwork:
    """The networks of the lab with this index."""
    if not 0 <= index < ranges.labs():
        raise LabError(f"no room for another lab in {ranges.ipv4} and {ranges.ipv6}; take one down")
    ipv4 = ipaddress.IPv4Network((int(ranges.ipv4[0]) + (index << 8), 24))
    ipv6 = ipaddress.IPv6Network((int(ranges.ipv6[0]) + (index << 64), 64))
    return LabNetwork(index, ipv4, ipv6)


def names_only(index: int) -> LabNetwork:
    """For a teardown: names follow from the index alone, whatever LAB_NETWORK says by now."""
    return LabNetwork(index, ipaddress.IPv4Network("0.0.0.0/24"), ipaddress.IPv6Network("::/64"))


def free_index(taken: Iterable[int], limit: int, wish: int | None = None) -> int:
    """The lab's former index where it is still free, else the lowest free one."""
    held = set(taken)
    if wish is not None and wish < limit and wish not in held:
        return wish
    for index in range(limit):
        if index not in held:
            return index
    raise LabError(f"all {limit} labs that LAB_NETWORK has room for are up; take one down")


def overlaps(
    wanted: Sequence[IPNetwork], held: Iterable[tuple[IPNetwork, str]]
) -> list[tuple[IPNetwork, IPNetwork, str]]:
    """Which of the machine's networks (with where each comes from) collide with ours."""
    return [
        (ours, network, origin)
        for network, origin in held
        for ours in wanted
        # Default routes, also in two halves as VPNs write them, cover everything and hinder nobody.
        if network.prefixlen > 1 and ours.version == network.version and ours.overlaps(network)
    ]


def check_lab_name(name: str) -> str:
    """A lab's name is a folder and part of an nftables name."""
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,19}", name) or name in RESERVED_LAB_NAMES:
        raise LabError(
            f"lab name {name!r}: 1 to 20 of a-z, 0-9 and '-', beginning with a letter, "
            f"and not {' or '.join(RESERVED_LAB_NAMES)}"
        )
    return name


def parse_hosts(words: Sequence[str]) -> dict[str, str]:
    """Read HOST=SUITE words, in their order."""
    hosts: dict[str, str] = {}
    for word in words:
        name, _, suite = word.partition("=")
        if not re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", name):
            raise LabError(f"{word!r}: a host's name is 1 to 32 of a-z, 0-9 and '-'; write HOST=SUITE")
        if suite not in SUITES:
            raise LabError(f"{word!r}: unknown suite {suite!r}; one of {', '.join(SUITES)}")
        if name in hosts:
            raise LabError(f"{word!r}: host {name} is given twice")
        hosts[name] = suite
    if not hosts:
        raise LabError("no hosts given; write HOST=SUITE, for example edge12=bookworm")
    return hosts


def assign_numbers(names: Iterable[str], taken: Mapping[str, int]) -> dict[str, int]:
    """The last part of each new host's address; edge11 gets 11 where that is free."""
    numbers = dict(taken)
    free = set(range(2, 255)) - set(numbers.values())
    rest = []
    for name in (n for n in names if n not in taken):
        digits = re.search(r"[0-9]{1,3}$", name)
        wish = int(digits[0]) if digits else 0
        if wish in free:
            numbers[name] = wish
            free.discard(wish)
        else:
            rest.append(name)
    if len(rest) > len(free):
        raise LabError("a lab has room for 253 hosts")
    return numbers | dict(zip(rest, sorted(free), strict=False))


def hosts_block(lines: Sequence[str]) -> str:
    """Our part of a host's /etc/hosts."""
    return "\n".join(["# lab: begin", *lines, "# lab: end", ""])


def replace_hosts_block(text: str, block: str) -> str:
    """Put our part into /etc/hosts and leave the rest, which a test may have written, alone."""
    pattern = re.compile(r"# lab: begin\n.*?# lab: end\n", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _match: block, text, count=1)
    if text and not text.endswith("\n"):
        text += "\n"
    return text + block
