#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let one rollout at a time change a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_rollout_lock
short_description: Let one rollout at a time change a host
version_added: 0.1.0
description:
  - With O(state=held), the host's lock is that of this run, or the module fails and tells who holds it, and since when.
  - The lock is a file that survives a reboot, and the death of the run that holds it. A run that is known to be dead
    loses it without a word (O(gone)), any other run only where O(take_over) says so.
  - Holding the lock is no change of the host, as it is undone by the time the run ends.
author:
  - edgeops contributors (@edgeops)
options:
  state:
    description:
      - With V(read), tells who holds the lock and does nothing else.
      - With V(held), holds it. In check mode, fails likewise where another run holds it, and writes nothing.
      - With V(released), gives it back. Another run's lock stays, and that is no error.
    type: str
    choices: [read, held, released]
    required: true
  owner:
    description:
      - The run that asks, as P(edgeops.redis_modules.run_owner#filter) tells it. Needed unless O(state=read).
    type: dict
    suboptions:
      run:
        description: The id of the run.
        type: str
        required: true
      who:
        description: Who started it and where, for people.
        type: str
        required: true
      controller:
        description: The id of the controller.
        type: str
        required: true
      pid:
        description: The pid of ansible-playbook on the controller.
        type: int
        required: true
      started:
        description: When that process started, in ticks since the controller's boot; empty where it can't tell.
        type: str
        default: ''
  gone:
    description: The ids of runs that the controller knows to be dead; see P(edgeops.redis_modules.dead_runs#filter).
    type: list
    elements: str
    default: []
  take_over:
    description:
      - Whether to take the lock from whoever holds it. Two rollouts of one server at the same time can each undo what
        the other does, so only where you know that the other is dead.
    type: bool
    default: false
  path:
    description: The lock.
    type: path
    default: /var/lib/edgeops-redis-modules/rollout.lock
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show, as nothing stays changed.
    support: none
"""

EXAMPLES = r"""
- name: Ask who holds the locks
  edgeops.redis_modules.redis_rollout_lock:
    state: read
  register: found

- name: Hold them
  edgeops.redis_modules.redis_rollout_lock:
    state: held
    owner: "{{ '' | edgeops.redis_modules.run_owner }}"
    gone: >-
      {{ ansible_play_hosts | map('extract', hostvars, ['found', 'holder'])
      | edgeops.redis_modules.dead_runs(('' | edgeops.redis_modules.run_owner).controller) }}

- name: Give them back
  edgeops.redis_modules.redis_rollout_lock:
    state: released
    owner: "{{ '' | edgeops.redis_modules.run_owner }}"
"""

RETURN = r"""
holder:
  description: Who held the lock when the module came; empty where nobody did.
  returned: always
  type: dict
  contains:
    run:
      description: The id of the run; empty, as all but RV(holder.since), where the lock file can't be read any more.
      type: str
    who:
      description: Who started it and where.
      type: str
    controller:
      description: The id of its controller.
      type: str
    pid:
      description: The pid of ansible-playbook there.
      type: int
    started:
      description: When that process started, in ticks since the controller's boot.
      type: str
    since:
      description: Since when it holds the lock, by the clock of the host.
      type: str
      sample: '2026-11-23T03:12:09Z'
taken_over:
  description: Whether the lock was taken, or would be in check mode, from that holder.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_rollout_lock


def main() -> None:
    """Entry point."""
    _step_rollout_lock.run(AnsibleModule(**_step_rollout_lock.SPEC))


if __name__ == "__main__":
    main()
