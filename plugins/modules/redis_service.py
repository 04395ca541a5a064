#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the running server to what its configuration says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_service
short_description: Bring the running server to what its configuration says, restarting only where it has to be
version_added: 0.1.0
description:
  - Compares the running server with its redis.conf, its drop-in and its modules, by what the process itself shows.
  - What Redis can change at run time is set at run time. Otherwise the unit is restarted, and awaited until the server
    answers and has loaded its data.
  - Where only modules keep the running server from being as wanted, and their C(strategy) is V(hot) or
    V(hot_or_restart), they are changed by MODULE UNLOAD and MODULE LOAD. All that is known to make that fail or crash
    is looked for before; with V(hot) it is refused then, with V(hot_or_restart) the unit is restarted. What fails in
    the running server is taken back at once.
  - What a setting of redis.conf comes to is asked of a throwaway server of the same binary, so any way of writing it
    (C(100mb) or C(104857600)) compares right.
  - Where a start would come up empty, as C(appendonly) is on and there is only an RDB, it is refused.
  - Where the server does not come back, the message holds its own log lines.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The whole text of redis.conf as it is on disk, or would be in check mode. Never shown.
    type: str
    required: true
  dropin:
    description: The text of the drop-in as given to M(edgeops.redis_modules.redis_server_config).
    type: str
    required: true
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
  modules:
    description: The modules that O(conf) loads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST reports it.
        type: str
        required: true
      path:
        description: Where its file lies.
        type: path
        required: true
      artifact:
        description: In check mode, the file that would be placed there.
        type: path
      args:
        description: Its arguments.
        type: list
        elements: str
        default: []
      config:
        description: Its own directives by their whole names, for a load without a restart.
        type: dict
        default: {}
      strategy:
        description: How a running server comes to it; see the role P(edgeops.redis_modules.redis_rollout#role).
        type: str
        choices: [restart, hot, hot_or_restart]
        default: restart
  absent:
    description: The modules that are declared to be gone.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST reports it.
        type: str
        required: true
      path:
        description: Where its file lies.
        type: path
        required: true
      strategy:
        description: How a running server comes to be without it.
        type: str
        choices: [restart, hot, hot_or_restart]
        default: restart
  unit:
    description: The systemd unit.
    type: str
    default: redis-server.service
  enabled:
    description: Whether the unit starts at boot.
    type: bool
    default: true
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  user:
    description: The user that the service runs as.
    type: str
    default: redis
  logfile:
    description: The server's log file, where it writes one.
    type: path
    default: /var/log/redis/redis-server.log
  start_timeout:
    description: How many seconds the server may take from its start until it has loaded its data.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Restart the server only if it runs other code or settings than it should
  edgeops.redis_modules.redis_service:
    conf: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    dropin: "{{ lookup('ansible.builtin.template', 'dropin.conf.j2') }}"
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        args: [retention-ms, "3600000"]

- name: See before anything is placed whether it can be done without a restart; what can't is refused with the reason
  edgeops.redis_modules.redis_service:
    conf: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    dropin: "{{ lookup('ansible.builtin.template', 'dropin.conf.j2') }}"
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        artifact: /var/cache/sensorwindow.so
        strategy: hot
  check_mode: true
"""

RETURN = r"""
restarted:
  description: Whether the unit was restarted or started, or would be in check mode.
  returned: success
  type: bool
reasons:
  description: Why, a sentence each.
  returned: success
  type: list
  elements: str
  sample: ["module sensorwindow: the running server still has an older file mapped; a restart loads the new one"]
hot:
  description: The names of the modules that were changed without a restart, or would be.
  returned: success
  type: list
  elements: str
set:
  description: The names of the settings that were set at run time, or would be.
  returned: success
  type: list
  elements: str
  sample: [maxmemory]
users:
  description: The names of the users that were set or deleted at run time, or would be.
  returned: success
  type: list
  elements: str
  sample: [dashboard]
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_service


def main() -> None:
    """Entry point."""
    _step_service.run(AnsibleModule(**_step_service.SPEC))


if __name__ == "__main__":
    main()
