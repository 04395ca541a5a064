#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remember the state before a rollout, and put it back."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_snapshot
short_description: Remember the state of a server before a rollout, and put it back where the rollout fails
version_added: 0.1.0
description:
  - With O(state=taken), copies redis.conf, the drop-in and the modules' files, and notes which modules run and the
    server's settings. A snapshot that is still open from a run that died is kept, as it is the last state that is known
    to have been whole.
  - With O(state=restored), puts those files back. A server that was started since, that does not run, or that has
    other modules in it by now, is started with them; otherwise the settings that changed at run time are set back.
    Then it confirms that the server runs the modules of before.
  - Where the server takes neither the login nor the one that its redis.conf of before has, systemd and the files that
    its process has mapped tell the same.
  - A server that did not run when the snapshot was taken is started only if something has started it since, and may
    fail to run as it did before.
  - With O(state=closed), forgets the snapshot, as the new state is confirmed, and from then on the receipt counts that
    M(edgeops.redis_modules.redis_receipt) has noted; with the snapshot goes what runs that died left beside the files.
author:
  - edgeops contributors (@edgeops)
options:
  state:
    description: What to do.
    type: str
    choices: [taken, restored, closed]
    required: true
  folder:
    description:
      - Where the snapshot is kept, readable by root alone, as redis.conf may hold passwords.
      - Without it, C(/var/lib/edgeops-redis-modules/before), followed by a dash and O(unit) where that is not the
        packaged one, as several servers on one host have a snapshot each.
    type: path
  paths:
    description: The files to remember; those that are not there are taken away again. Needed for O(state=taken).
    type: list
    elements: path
    default: []
  conf_path:
    description: Which of O(paths) is redis.conf.
    type: path
    default: /etc/redis/redis.conf
  unit:
    description: The systemd unit of the server.
    type: str
    default: redis-server.service
  logfile:
    description: The server's log file, where it writes one.
    type: path
    default: /var/log/redis/redis-server.log
  may_start:
    description:
      - Whether O(state=restored) may start the server anew. Where it would have to and may not, nothing is put back,
        and the snapshot stays open.
    type: bool
    default: true
  start_timeout:
    description: How many seconds the server may take from its start until it has loaded its data.
    type: int
    default: 300
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show but the files' names.
    support: none
"""

EXAMPLES = r"""
- name: Change something, and put it back where that fails
  block:
    - name: Remember what is there
      edgeops.redis_modules.redis_snapshot:
        state: taken
        paths: [/etc/redis/redis.conf]

    - name: Change it
      ansible.builtin.include_tasks: change.yml

    - name: Forget what was there
      edgeops.redis_modules.redis_snapshot:
        state: closed
  rescue:
    - name: Put it back
      edgeops.redis_modules.redis_snapshot:
        state: restored
"""

RETURN = r"""
restored:
  description: The files that were put back.
  returned: success
  type: list
  elements: str
left:
  description: Whether everything was left as it is, as the server would have to start for it and may not.
  returned: success
  type: bool
restarted:
  description: Whether the server was started for it.
  returned: success
  type: bool
set:
  description: The names of the settings that were set back at run time.
  returned: success
  type: list
  elements: str
modules:
  description:
    - The modules that ran when the snapshot was taken, and after it was put back; name to version. Empty where the
      server did not run, or nobody could ask it.
  returned: success
  type: dict
summary:
  description: What became of it, as a sentence; empty unless a snapshot was put back.
  returned: success
  type: str
  sample: 2 files were put back, the server was restarted and runs sensorwindow
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_snapshot


def main() -> None:
    """Entry point."""
    _step_snapshot.run(AnsibleModule(**_step_snapshot.SPEC))


if __name__ == "__main__":
    main()
