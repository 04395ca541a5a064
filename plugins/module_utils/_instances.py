# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several Redis on one host, each an inventory host of its own: what each must have for itself, and what they share.

Pure functions over the variables of inventory hosts. They touch nothing.
"""

from __future__ import annotations

from typing import Any, Mapping, Sequence

CONNECTION = (
    "ansible_connection",
    "ansible_port",
    "ansible_ssh_port",
    "ansible_ssh_common_args",
    "ansible_ssh_extra_args",
)
"""What leads to another machine behind the same address."""

OWN: dict[str, Any] = {
    "redis_server_unit": "",
    "redis_server_conf_path": "",
    "redis_server_port": 6379,
    "redis_server_dir": "/var/lib/redis",
    "redis_server_pidfile": "",
    "redis_server_logfile": "",
    "redis_modules_dir": "/var/lib/redis/modules",
}
"""What an instance has for itself, and what it is where it is not set; empty for what the distribution says."""

SHARED: dict[str, Any] = {
    "redis_firewall_allowed_cidrs": None,
    "redis_firewall_state": "present",
    "redis_firewall_allow_none": False,
    "redis_firewall_ports": None,
    "redis_firewall_cluster_bus_ports": None,
    "redis_firewall_cluster_peers": [],
    "redis_firewall_log": False,
    "redis_firewall_log_rate": "10/minute",
}
"""What makes the one firewall table of a host."""

NONE_OF_THEM = {"redis_server_port": (0,), "redis_server_logfile": ("",)}
"""What several may have alike: it stands for no port, no log file."""


def faults(names: Sequence[str], variables: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what inventory hosts that are one machine declare in each other's way, a sentence each."""
    machines: dict[tuple[str, ...], dict[str, Mapping[str, Any]]] = {}
    for name, own in zip(names, variables):
        where = (str(own.get("ansible_host", name)), *(str(own.get(key, "")) for key in CONNECTION))
        machines.setdefault(where, {})[name] = own
    found = []
    for where, instances in machines.items():
        if len(instances) > 1:
            found += _alike(where[0], instances) + _firewalls(where[0], instances)
    return found


def _alike(machine: str, instances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return which instances have the same where each needs its own."""
    found = []
    for variable, unset in OWN.items():
        having: dict[str, list[str]] = {}
        for name, own in instances.items():
            value = own.get(variable, unset)
            if variable not in own or str(value) not in map(str, NONE_OF_THEM.get(variable, ())):
                having.setdefault(str(value), []).append(name)
        for value, names in having.items():
            if len(names) > 1:
                said = f"{variable} {value}" if value else f"no {variable} of their own"
                found.append(f"{' and '.join(names)} are one host ({machine}) and have {said}; give each its own")
    return found


def _firewalls(machine: str, instances: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return where instances declare several firewalls, as their host has one for all its ports."""
    if not any("redis_firewall_allowed_cidrs" in own for own in instances.values()):
        return []
    names, found = " and ".join(instances), []
    for variable, unset in SHARED.items():
        if len({repr(own.get(variable, unset)) for own in instances.values()}) > 1:
            found.append(f"{names} are one host ({machine}), which has one firewall; give all the same {variable}")
    if not all("redis_firewall_ports" in own for own in instances.values()):
        ports = sorted({int(own.get("redis_server_port", 6379)) for own in instances.values()})
        found.append(
            f"{names} are one host ({machine}), which has one firewall; name the ports of all of them in "
            f"redis_firewall_ports, as {ports}"
        )
    return found
