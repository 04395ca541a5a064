#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""See in one round trip whether a host is as wanted, by the receipt that the last rollout left."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_receipt
short_description: See in one round trip whether a host is as wanted, by the receipt that the last rollout left
version_added: 0.1.0
description:
  - A rollout that has confirmed a host leaves a receipt there, for root alone. It holds a digest of all that was
    declared (the variables of the roles, the modules' sources, the collection itself), where to look, and what was
    seen. It is noted at once, with O(state=noted), in the snapshot of M(edgeops.redis_modules.redis_snapshot), and
    counts once that is closed, when all gates have passed.
  - With O(state=compared), what is declared now is compared with that, and what is there now with what was seen then.
    So no template has to be rendered to know that there is nothing to do. A receipt is believed only as long as all
    that it describes is still so.
  - Looked at are packages, C(redismodule.h), artifacts, owner, mode and digest of each file, the module folder and
    those above it, redis.conf, the unit and all its drop-ins, the nftables table, the users, each setting of the
    running server, its program, its last start, and its modules with their arguments and live images.
  - It never fails because of what it finds. What can't be seen is a difference.
author:
  - edgeops contributors (@edgeops)
options:
  state:
    description: Whether to compare, or to note a new receipt.
    type: str
    choices: [compared, noted]
    default: compared
  unit:
    description: The systemd unit of the server.
    type: str
    default: redis-server.service
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  folder:
    description: The module folder.
    type: path
    default: /var/lib/redis/modules
  owner:
    description: Who owns each module's file.
    type: str
    default: redis
  group:
    description: The group of each module's file.
    type: str
    default: redis
  mode:
    description: The mode of each module's file.
    type: str
    default: "0555"
  user:
    description: The user that the service runs as.
    type: str
    default: redis
  data_folder:
    description: The service's data folder.
    type: path
    default: /var/lib/redis
  modules:
    description: The modules, as M(edgeops.redis_modules.redis_modules_confirm) takes them.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST reports it.
        type: str
        required: true
      state:
        description: Whether it has to run, or must not.
        type: str
        choices: [present, absent]
        default: present
      path:
        description: Where its file lies.
        type: path
        required: true
      args:
        description: The arguments that it must have been loaded with. Redis before 7.0 does not tell.
        type: list
        elements: str
        default: []
      version:
        description: The version that MODULE LIST must report.
        type: int
      sha256:
        description: The digest that the file on disk must have.
        type: str
  packages:
    description: The packages whose versions are described, beside that of systemd.
    type: list
    elements: str
    default: []
  files:
    description: More files that are described, as a C(redismodule.h) and artifacts. Empty ones are left out.
    type: list
    elements: str
    default: []
  firewall:
    description: What M(edgeops.redis_modules.redis_firewall) has returned; empty where the table is nobody's business.
    type: dict
    default: {}
  believe:
    description: With V(false), no receipt is believed, so the host does not count as wanted.
    type: bool
    default: true
  _declared:
    description: The action's own - the digest of all that is declared.
    type: str
  _unknown:
    description: The action's own - why that can't be told.
    type: str
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
  - ansible.builtin.action_common_attributes.facts
attributes:
  check_mode:
    details: No receipt is noted.
  diff_mode:
    support: none
  facts:
    support: full
notes:
  - But for O(state), O(unit), O(believe) and the login, the options are for O(state=noted); what they say is kept in
    the receipt.
  - O(state=noted) needs that O(state=compared) came before it in the same run, as what was declared is remembered from
    there.
"""

EXAMPLES = r"""
- name: See whether there is anything to do
  edgeops.redis_modules.redis_receipt:
  register: receipt

- name: Note a receipt of a host that was confirmed
  edgeops.redis_modules.redis_receipt:
    state: noted
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        args: [retention-ms, "3600000"]
    packages: [redis-server, python3-redis]
"""

RETURN = r"""
as_wanted:
  description: Whether there is nothing to do on this host.
  returned: with O(state=compared)
  type: bool
differences:
  description: Why there may be something to do, a sentence each. With O(state=noted), why no receipt was noted.
  returned: always
  type: list
  elements: str
  sample: [/etc/redis/redis.conf is another, setting maxmemory is another]
reached:
  description: When the receipt was left; empty where there is none.
  returned: always
  type: str
  sample: '2026-11-28T03:12:09Z'
ansible_facts:
  description:
    - C(os_family), C(distribution), its version and C(architecture), by which the roles go next; to gather these facts
      would be one more round trip.
  returned: where RV(as_wanted) is false
  type: dict
confirmation:
  description: As M(edgeops.redis_modules.redis_modules_confirm) would return it.
  returned: where RV(as_wanted)
  type: dict
firewall:
  description: As M(edgeops.redis_modules.redis_firewall) would return it; empty where the table is nobody's business.
  returned: where RV(as_wanted)
  type: dict
topology:
  description: The C(server) of M(edgeops.redis_modules.redis_topology_info).
  returned: where RV(as_wanted)
  type: dict
noted:
  description: Whether a receipt was noted, or would be in check mode. It is no failure where none was.
  returned: with O(state=noted)
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_receipt


def main() -> None:
    """Entry point."""
    _step_receipt.run(AnsibleModule(**_step_receipt.SPEC))


if __name__ == "__main__":
    main()
