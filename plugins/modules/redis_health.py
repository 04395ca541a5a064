#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a server and the shard that it is a copy of are well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_health
short_description: Wait until a server and the shard that it is a copy of are well
version_added: 0.1.0
description:
  - Asks the server, and over the network the primary that it follows, with the same login.
  - A server is well when it has loaded its data, its link to its primary is up, the primary has as many replicas in
    sync as it should have, all of them have what the primary had when the wait began, the cluster is whole
    (C(cluster_state) is C(ok), all slots are covered, no node is taken for failed), and a PING is answered in time.
  - Given what was counted before a change (O(before)), the errors of the server and its primary may not have risen
    since - errors that a replica meets in what its primary sends it (C(unexpected_error_replies)), calls that are
    rejected, and starts that nobody asked for.
  - It waits for all of that, and fails with what is not so when the time is over. It changes nothing.
author:
  - edgeops contributors (@edgeops)
options:
  timeout:
    description: How many seconds to wait.
    type: int
    default: 60
  replicas:
    description: How many replicas the primary of the shard has to have in sync.
    type: int
    default: 0
  longest_ping:
    description: How many milliseconds the slowest of some PINGs may take; V(0) is no bound.
    type: float
    default: 100
  before:
    description: RV(counters) of an earlier run of this module; without it, nothing is compared.
    type: list
    elements: dict
    default: []
  withheld:
    description: Commands that nobody may run for now; that they are rejected is no error.
    type: list
    elements: str
    default: []
  may_be_down:
    description: Whether it is no fault that the server itself is down, or not in sync, as it is about to be mended.
    type: bool
    default: false
  modules:
    description:
      - The modules that the server is about to go back to, name to version; without it, nothing is compared.
      - A primary that runs a newer release of one of them, or one more, is a fault, as the server might not read its
        data, and a full sync would end it.
    type: dict
  fail:
    description: Whether to fail where something is not well when the time is over; RV(faults) tells it anyway.
    type: bool
    default: true
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
"""

EXAMPLES = r"""
- name: Remember what was counted, and see that the shard can do without this server for a moment
  edgeops.redis_modules.redis_health:
    replicas: 2
  register: before

- name: Restart it
  ansible.builtin.systemd_service:
    name: redis-server
    state: restarted

- name: Wait until all is well again
  edgeops.redis_modules.redis_health:
    replicas: 2
    before: "{{ before.counters }}"
    timeout: 120
"""

RETURN = r"""
counters:
  description: What the server, and then its primary, have counted since they started; empty where it is down.
  returned: success
  type: list
  elements: dict
  contains:
    run_id:
      description: Names the start of the server.
      type: str
    uptime:
      description: How long ago that was, in seconds.
      type: int
    unexpected:
      description: Errors that it met in what its primary sent.
      type: int
    rejected:
      description: Calls that it rejected before they ran; from Redis 6.2 on.
      type: int
role:
  description: C(primary) or C(replica); empty where it is down.
  returned: success
  type: str
latency:
  description: How long the slowest PING took, in milliseconds.
  returned: success
  type: float
  sample: 0.4
waited:
  description: How long it took until all was well, in seconds.
  returned: success
  type: float
  sample: 1.2
sound:
  description: Whether the server itself is a copy that the others could rely on - it answers, and it is in sync.
  returned: always
  type: bool
faults:
  description: What was not well when the time was over, a sentence each.
  returned: always
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_health


def main() -> None:
    """Entry point."""
    _step_health.run(AnsibleModule(**_step_health.SPEC))


if __name__ == "__main__":
    main()
