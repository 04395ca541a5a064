#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tell whom the server of a host follows, who follows it, and which cluster it is a node of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_topology_info
short_description: Tell whom a server follows, who follows it, and which cluster it is a node of
version_added: 0.1.0
description:
  - Asks the running server alone (C(INFO), C(MODULE LIST), C(PUBSUB NUMSUB), C(CLUSTER NODES)); the inventory has no
    say in it. Where it does not answer as declared, it is asked as its redis.conf has it.
  - A server that does not run, or does not answer, is no error; whom it would follow, its redis.conf tells.
  - The filter P(edgeops.redis_modules.rollout_plan#filter) makes an order of it, in which a fleet can be changed.
author:
  - edgeops contributors (@edgeops)
options:
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
  modules:
    description: The names of the modules that are declared to be present.
    type: list
    elements: str
    default: []
  absent:
    description: The names of the modules that are declared to be gone.
    type: list
    elements: str
    default: []
  unit:
    description: The systemd unit, which tells a server that is stopped from one that does not answer.
    type: str
    default: redis-server.service
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
"""

EXAMPLES = r"""
- name: See whom each server follows
  edgeops.redis_modules.redis_topology_info:
    login_password: "{{ vaulted_password }}"
  register: topology
"""

RETURN = r"""
server:
  description: What the server tells.
  returned: always
  type: dict
  contains:
    running:
      description: Whether it answers; where not, only its process, error, addresses, port and primary follow.
      type: bool
    process:
      description: Whether systemd knows a process of the unit.
      type: bool
    error:
      description: Why it does not.
      type: str
    addresses:
      description: The addresses of the host, the one that it is reached from elsewhere by first.
      type: list
      elements: str
      sample: [192.0.2.11]
    port:
      description: Its TCP port, that of TLS where it has no other.
      type: int
      sample: 6379
    version:
      description: Its version.
      type: str
      sample: 7.0.15
    primary:
      description: Whom it follows, as C(HOST PORT); empty for a primary, and in a cluster.
      type: str
    link_up:
      description: Whether the link to its primary is up; true for a primary.
      type: bool
    syncing:
      description: Whether it takes over its primary's data just now.
      type: bool
    priority:
      description: Its replica-priority.
      type: int
      sample: 100
    offset:
      description: How far it is in the stream of replication, in bytes.
      type: int
      sample: 48213
    lacks:
      description: Those of O(modules) that it does not run.
      type: list
      elements: str
      sample: [sensorwindow]
    leaves:
      description: Those of O(absent) that it still runs.
      type: list
      elements: str
    replicas:
      description: Who follows it, each with C(ip), C(port), C(state), C(offset) and C(lag), as INFO tells it.
      type: list
      elements: dict
    sentinels:
      description: How many Sentinels watch it.
      type: int
      sample: 3
    cluster:
      description: Whether it is a node of a cluster.
      type: bool
    cluster_state:
      description: The cluster's state as this node sees it; empty outside of one.
      type: str
      sample: ok
    node_id:
      description: Its id in the cluster; empty outside of one.
      type: str
    nodes:
      description: The answer of C(CLUSTER NODES); empty outside of one.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_topology_info


def main() -> None:
    """Entry point."""
    _step_topology_info.run(AnsibleModule(**_step_topology_info.SPEC))


if __name__ == "__main__":
    main()
