# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether this machine can do it, found out before anything is changed."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from labkit.config import Config
from labkit.errors import LabError
from labkit.network import forward_drops, ipv6_usable
from labkit.plan import SUITES, IPNetwork, overlaps
from labkit.run import PATH, run

PACKAGES = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "nft": "nftables",
    "ip": "iproute2",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "mount": "mount",
    "unshare": "util-linux",
    "nsenter": "util-linux",
}
FREE_BYTES = 4 * 1024**3

# Tried in namespaces of their own, which are gone when the shell ends.
# The shell removes its folder itself, also when the lab command is killed meanwhile.
OVERLAY_TRIAL = """\
scratch=$(mktemp -d "$1/.overlay-trial-XXXXXX") || exit
trap 'cd / && rm -rf "$scratch"' EXIT
cd "$scratch" && mkdir l u w m && mount -t overlay overlay -o lowerdir=l,upperdir=u,workdir=w m && umount m
"""
NETWORK_TRIAL = (
    "ip link add trial type bridge && ip netns list >/dev/null && "
    "ip link add trial0 type veth peer name trial1 && ip link set trial0 master trial"
)
NFT_TRIAL = """\
nft -f - <<'END'
table ip trial {
    chain postrouting {
        type nat hook postrouting priority 100; policy accept;
        ip saddr 192.0.2.0/24 masquerade
    }
}
END
"""


@dataclass(frozen=True)
class Finding:
    """Something in the way, and what mends it."""

    what: str
    mend: str
    fatal: bool = True


def preflight(config: Config) -> list[Finding]:
    """Every finding, not only the first."""
    findings: list[Finding] = []
    checks: list[Callable[[], Iterable[Finding]]] = [
        check_root,
        check_commands,
        check_keyrings,
        lambda: check_disk(config.root),
        lambda: check_addresses(config),
        check_resolver,
    ]
    # Without root these would only say "not permitted", which tells nothing of the machine.
    if os.geteuid() == 0:
        checks += [check_nft, check_network_kernel, check_cgroups, lambda: check_overlay(config.root)]
    for check in checks:
        findings.extend(check())
    return findings


def check_root() -> Iterable[Finding]:
    """Mounts and namespaces need root."""
    if os.geteuid() != 0:
        yield Finding("not root", "run it as root (sudo); the kernel's facilities are only checked then")


def check_commands() -> Iterable[Finding]:
    """The commands that the lab calls."""
    for command, package in PACKAGES.items():
        if not shutil.which(command, path=PATH):
            yield Finding(f"no {command} command", f"apt-get install {package}")


def check_keyrings() -> Iterable[Finding]:
    """The archive keys of suites newer than this machine."""
    folder = Path("/usr/share/keyrings")
    missing = [s for s in SUITES if not (folder / f"debian-archive-{s}-stable.gpg").exists()]
    # Newer keyring packages have one file for all; only its absence means no keys at all.
    if missing and not (folder / "debian-archive-keyring.gpg").exists():
        yield Finding("no Debian archive keys", "apt-get install debian-archive-keyring")
    elif missing:
        what = f"no archive keys of {', '.join(missing)} in {folder}"
        yield Finding(what, "apt-get install debian-archive-keyring (an up-to-date one)", fatal=False)


def existing_parent(path: Path) -> Path:
    """The nearest folder that exists already."""
    while not path.is_dir():
        path = path.parent
    return path


def check_disk(root: Path) -> Iterable[Finding]:
    """Room for the images and the hosts' disks, on a file system that can carry them."""
    folder = existing_parent(root)
    free = shutil.disk_usage(folder).free
    if free < FREE_BYTES:
        what = f"{free / 1024**3:.1f} GiB free in {folder}, {FREE_BYTES / 1024**3:.0f} GiB needed"
        yield Finding(what, "make room, or set LAB_DIR to a folder on another disk")
    if any(character in str(root) for character in ":,\\"):
        yield Finding(
            f"{root} holds a character that overlay mounts take for their own", "set LAB_DIR to another folder"
        )
    flags = os.statvfs(folder).f_flag
    for flag, name in (
        (os.ST_NODEV, "nodev"),
        (os.ST_NOEXEC, "noexec"),
        (os.ST_NOSUID, "nosuid"),
        (os.ST_RDONLY, "ro"),
    ):
        if flags & flag:
            yield Finding(f"{folder} is mounted {name}", "set LAB_DIR to a folder on another disk")


def machine_networks() -> list[tuple[IPNetwork, str]]:
    """Addresses and routes of this machine, except those of labs."""
    held: list[tuple[IPNetwork, str]] = []
    for link in json.loads(run(["ip", "-j", "addr"]).stdout or "[]"):
        if link.get("ifname", "").startswith("edgelab"):
            continue
        for address in link.get("addr_info", []):
            text = f"{address['local']}/{address['prefixlen']}"
            held.append((ipaddress.ip_interface(text).network, f"address {text} of {link['ifname']}"))
    for family in ("-4", "-6"):
        result = run(["ip", "-j", family, "route", "show", "table", "all", "type", "unicast"], check=False)
        for route in json.loads(result.stdout or "[]") if result.returncode == 0 else []:
            if route["dst"] == "default" or route.get("dev", "").startswith("edgelab"):
                continue
            held.append(
                (ipaddress.ip_network(route["dst"], strict=False), f"route {route['dst']} dev {route.get('dev', '?')}")
            )
    return held


def nameservers() -> list[str]:
    """The name servers that hosts will ask."""
    text = resolver_file().read_text() if resolver_file().exists() else ""
    return [line.split()[1] for line in text.splitlines() if line.startswith("nameserver") and len(line.split()) > 1]


def resolver_file() -> Path:
    """The resolv.conf that is of use in a host: not that of a resolver on this machine's loopback."""
    usual, behind = Path("/etc/resolv.conf"), Path("/run/systemd/resolve/resolv.conf")
    if behind.exists() and usual.exists() and "nameserver 127." in usual.read_text():
        return behind
    return usual


def check_addresses(config: Config) -> Iterable[Finding]:
    """The lab's ranges must be nobody else's."""
    wanted: list[IPNetwork] = [config.ranges.ipv4, config.ranges.ipv6]
    if not shutil.which("ip", path=PATH):
        return
    try:
        held = machine_networks()
    except LabError as error:
        yield Finding(f"this machine's addresses can't be read: {error}", "see that `ip -j addr` works")
        return
    for server in nameservers():
        try:
            held.append((ipaddress.ip_network(server.partition("%")[0]), f"name server {server}"))
        except ValueError:
            continue
    for ours, theirs, origin in dict.fromkeys(overlaps(wanted, held)):
        mend = "set LAB_NETWORK to ranges that are free, for example LAB_NETWORK='172.29.0.0/16 fd31:7:5eed::/48'"
        yield Finding(f"the lab's range {ours} is taken: {theirs}, {origin}", mend)
    if not ipv6_usable():
        mend = "sysctl net.ipv6.conf.default.disable_ipv6=0"
        yield Finding("IPv6 is switched off on this machine: hosts get IPv4 only", mend, fatal=False)


def check_resolver() -> Iterable[Finding]:
    """Hosts use this machine's name servers."""
    servers = nameservers()
    if not servers or all(s.startswith("127.") or s == "::1" for s in servers):
        what = f"no name server in {resolver_file()} that a host could ask: apt in hosts won't work"
        yield Finding(what, "name one that is reachable from outside this machine's loopback", fatal=False)


def check_nft() -> Iterable[Finding]:
    """Nftables works here, in the kernel as well as the command."""
    if not shutil.which("nft", path=PATH):
        return
    result = run(["nft", "-j", "list", "ruleset"], check=False)
    if result.returncode:
        yield Finding(f"`nft list ruleset` fails: {result.stderr.strip()}", "a kernel with CONFIG_NF_TABLES is needed")
        return
    trial = run(["unshare", "--net", "sh", "-c", NFT_TRIAL], check=False)
    if trial.returncode:
        mend = "a kernel with CONFIG_NF_TABLES, CONFIG_NFT_NAT and CONFIG_NFT_MASQ is needed"
        yield Finding(f"an nftables masquerade rule is refused: {trial.stderr.strip()}", mend)
    for chain in forward_drops(result.stdout or "{}"):
        what = f"the chain {chain} drops forwarded packets: hosts won't reach package mirrors"
        yield Finding(what, "accept what comes from and goes to edgelab* there", fatal=False)


def check_network_kernel() -> Iterable[Finding]:
    """Network namespaces, bridges and veth pairs."""
    if not shutil.which("ip", path=PATH) or not shutil.which("unshare", path=PATH):
        return
    trial = run(["unshare", "--net", "--mount", "sh", "-c", NETWORK_TRIAL], check=False)
    if trial.returncode:
        mend = "a kernel with network namespaces, bridge and veth is needed, and the right to use them (no container)"
        yield Finding(f"no bridge or veth in a network namespace: {trial.stderr.strip()}", mend)


def cgroup_roots(mounts: str) -> list[str]:
    """The cgroup trees that systemd keeps its units in, from the text of /proc/mounts."""
    roots = []
    for line in mounts.splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup2" or (kind == "cgroup" and "name=systemd" in options.split(",")):
            roots.append(point)
    return roots


def check_cgroups() -> Iterable[Finding]:
    """Each host needs a cgroup of its own."""
    roots = cgroup_roots(Path("/proc/mounts").read_text())
    mend = "mount cgroup2 on /sys/fs/cgroup, writable; inside a container that is the outer side's choice"
    if not roots:
        yield Finding("no cgroup tree that systemd could use", mend)
    for root in roots:
        if os.statvfs(root).f_flag & os.ST_RDONLY:
            yield Finding(f"{root} is mounted read-only", mend)


def check_overlay(root: Path) -> Iterable[Finding]:
    """An overlay mount on the very disk that the hosts will lie on."""
    if not shutil.which("unshare", path=PATH):
        return
    folder = existing_parent(root)
    trial = run(["unshare", "--mount", "sh", "-c", OVERLAY_TRIAL, "sh", str(folder)], check=False)
    if trial.returncode:
        mend = "a kernel with overlayfs is needed, and LAB_DIR on ext4 or xfs, writable (no overlay, no network share)"
        yield Finding(f"no overlay mount in {folder}: {trial.stderr.strip()}", mend)
