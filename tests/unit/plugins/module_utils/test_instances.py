# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Two instances of one host are told where one would write over the other's."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _instances


def instance(key: str, port: int, **more: Any) -> dict[str, Any]:
    """The variables of an instance, as docs/instances.md says."""
    return {
        "ansible_host": "192.0.2.1",
        "redis_server_unit": f"redis-server@{key}.service",
        "redis_server_conf_path": f"/etc/redis/redis-{key}.conf",
        "redis_server_port": port,
        "redis_server_dir": f"/var/lib/redis/{key}",
        "redis_server_pidfile": f"/run/redis-{key}/redis-server.pid",
        "redis_server_logfile": f"/var/log/redis/redis-server-{key}.log",
        "redis_modules_dir": f"/var/lib/redis/modules-{key}",
        **more,
    }


A, B = instance("a", 6391), instance("b", 6392)


def said(*variables: dict[str, Any]) -> list[str]:
    """What stands against these together."""
    return _instances.faults(["a", "b", "c"][: len(variables)], variables)


def test_instances_that_have_all_for_themselves_are_fine() -> None:
    # The third is the packaged server, which says nothing of itself.
    assert said(A, B, {"ansible_host": "192.0.2.1"}) == []


@pytest.mark.parametrize("variable", sorted(_instances.OWN))
def test_what_two_have_alike_is_named(variable: str) -> None:
    assert said(A, {**B, variable: A[variable]}) == [
        f"a and b are one host (192.0.2.1) and have {variable} {A[variable]}; give each its own"
    ]
    without_a, without_b = ({k: v for k, v in own.items() if k != variable} for own in (A, B))
    (fault,) = said(without_a, without_b)
    unset = _instances.OWN[variable]
    assert (f"have {variable} {unset};" if unset else f"have no {variable} of their own;") in fault


def test_the_default_counts_as_what_it_is() -> None:
    (fault,) = said(A, {**B, "redis_server_dir": "/var/lib/redis"}, {"ansible_host": "192.0.2.1"})
    assert fault.startswith("b and c are one host (192.0.2.1) and have redis_server_dir /var/lib/redis;")


def test_no_port_and_no_log_file_may_be_had_by_all() -> None:
    nothing = {"redis_server_port": 0, "redis_server_logfile": ""}
    assert said({**A, **nothing}, {**B, **nothing}) == []


@pytest.mark.parametrize(
    "more",
    [
        {"ansible_host": "192.0.2.2"},
        {"ansible_port": 2222},
        {"ansible_ssh_common_args": "-J other"},
        {"ansible_connection": "docker"},
    ],
)
def test_other_machines_have_what_they_like(more: dict[str, Any]) -> None:
    assert said({"ansible_host": "192.0.2.1"}, {"ansible_host": "192.0.2.1", **more}) == []
    assert len(said({"ansible_host": "192.0.2.1"}, {"ansible_host": "192.0.2.1"})) == len(_instances.OWN)


def test_one_firewall_for_all_ports() -> None:
    wall = {"redis_firewall_allowed_cidrs": ["10.0.0.0/8"], "redis_firewall_ports": [6391, 6392]}
    assert said({**A, **wall}, {**B, **wall}) == []
    cidrs = {"redis_firewall_allowed_cidrs": ["10.0.0.0/8"]}
    (fault,) = said({**A, **cidrs}, {**B, **cidrs})
    assert "name the ports of all of them in redis_firewall_ports, as [6391, 6392]" in fault
    (fault,) = said({**A, **wall}, {**B, **wall, "redis_firewall_log": True})
    assert fault.endswith("which has one firewall; give all the same redis_firewall_log")
    faults = said({**A, **wall}, B)
    assert [fault.rpartition(" ")[2] for fault in faults[:2]] == [
        "redis_firewall_allowed_cidrs",
        "redis_firewall_ports",
    ]
