#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write redis.conf and the systemd drop-in of a server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_server_config
short_description: Write redis.conf and the systemd drop-in of a server, whole and checked
version_added: 0.1.0
description:
  - Replaces each file by rename where what it says differs from what is wanted; comments and quoting alone are no
    difference. The drop-in is checked by C(systemd-analyze verify) first. For redis.conf, run
    M(edgeops.redis_modules.redis_trial) first.
  - A redis.conf that the server has rewritten (C(CONFIG REWRITE)) stays as it is where throwaway servers come out the
    same with either. Whom the server follows by now is not compared.
  - Where SELinux is on, lets Redis listen on the ports that O(conf) names, by C(semanage port).
  - A redis.conf that was not written by this collection is kept beside it once, as C(redis.conf.before-edgeops).
  - Does not restart or reload anything; M(edgeops.redis_modules.redis_service) does.
  - Makes the folder of the data (C(dir)) for O(user) where there is none.
  - Fails, with nothing written, where the server would start without its data, as its RDB lies elsewhere, and where it
    could not save, as O(user) may not write to the folder of the data.
  - CONFIG REWRITE drops quotes and order of C(loadmodule) lines. Where that matters, a small script is put beside, and
    each start lets it put them back from comments in redis.conf.
  - Secrets are replaced in the diff.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The whole text of redis.conf. Never shown, as it may hold passwords.
    type: str
    required: true
  conf_path:
    description: Where redis.conf lies.
    type: path
    default: /etc/redis/redis.conf
  owner:
    description: Who owns redis.conf. Redis has to write it for CONFIG REWRITE.
    type: str
    default: redis
  group:
    description: The group of redis.conf.
    type: str
    default: redis
  mode:
    description: The mode of redis.conf.
    type: str
    default: "0640"
  dropin:
    description:
      - The text of the drop-in. A line is added by which each start leaves a digest in C(/run), over all that only a
        start can change. So it can be seen what a running server was started with.
    type: str
    required: true
  dropin_path:
    description: Where the drop-in lies.
    type: path
    default: /etc/systemd/system/redis-server.service.d/50-edgeops-redis-modules.conf
  unit:
    description: The systemd unit.
    type: str
    default: redis-server.service
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  user:
    description: The user that the service runs as.
    type: str
    default: redis
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Write a configuration that was tried before
  edgeops.redis_modules.redis_server_config:
    conf: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    dropin: |
      [Service]
      MemoryMax=2G
"""

RETURN = r"""
made:
  description: The folder of the data where it was made, or would be in check mode; empty where it is there.
  returned: always
  type: str
selinux:
  description: What SELinux was told, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [semanage port -a -t redis_port_t -p tcp 7000]
written:
  description: The files that were written, or would be in check mode.
  returned: always
  type: list
  elements: str
  sample: [/etc/redis/redis.conf]
backup:
  description: Where the redis.conf of before is kept.
  returned: when one was kept in this run
  type: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_server_config


def main() -> None:
    """Entry point."""
    _step_server_config.run(AnsibleModule(**_step_server_config.SPEC))


if __name__ == "__main__":
    main()
