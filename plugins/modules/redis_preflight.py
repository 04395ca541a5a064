#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look whether anything stands against a rollout on a host, before it is touched."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_preflight
short_description: Tell everything that stands against a rollout on a host, before it is touched
version_added: 0.1.0
description:
  - Looks once at the system, its file systems, Redis and the way to the package sources, and returns all that is not as
    it should be, each with its mend. It needs nothing on the host but Python, and fails because of what it finds only
    where O(fail_as) is given.
  - The network is used only where a package or the C(redismodule.h) is missing.
author:
  - edgeops contributors (@edgeops)
options:
  folder:
    description: The module folder.
    type: path
    default: /var/lib/redis/modules
  data:
    description: The folder of Redis' data.
    type: path
    default: /var/lib/redis
  cache:
    description: Where headers and artifacts are kept.
    type: path
    default: /var/cache/edgeops-redis-modules
  conf_path:
    description: Where redis.conf lies, or is going to.
    type: path
    default: /etc/redis/redis.conf
  binary:
    description: The path of redis-server on the host. It may be missing.
    type: path
    default: /usr/bin/redis-server
  unit:
    description: The systemd unit of the server.
    type: str
    default: redis-server.service
  io_threads:
    description: The number of I/O threads that is asked for, or V(auto).
    type: str
    default: auto
  packages:
    description: The packages that the rollout installs where they are missing.
    type: list
    elements: str
    default: []
  header:
    description:
      - Where the C(redismodule.h) comes from that modules are built with - V(distribution) for the source package of
        the installed version, a URL, or nothing where none has to be fetched.
    type: str
    default: ""
  header_sha256:
    description: The digest of a header that comes from a URL, by which it is kept.
    type: str
    default: ""
  ignore:
    description:
      - Subjects whose faults count as warnings, and whose warnings are left out. They are V(kernel), V(distribution),
        V(systemd), V(redis), V(io-threads), V(cores), V(memory), V(disk), V(inodes), V(read-only), V(noexec),
        V(sandbox), V(thp), V(overcommit), V(clock), V(packages) and V(header).
    type: list
    elements: str
    default: []
  fail_as:
    description: Fail where there is a fault, with a message that calls the host so.
    type: str
extends_documentation_fragment:
  - edgeops.redis_modules.redis.info
"""

EXAMPLES = r"""
- name: See what stands against a rollout
  edgeops.redis_modules.redis_preflight:
    packages: [redis-server, python3-redis]
  register: preflight

- name: Show the faults
  ansible.builtin.debug:
    msg: "{{ preflight.faults }}"
"""

RETURN = r"""
findings:
  description: All that was found, the faults first.
  returned: always
  type: list
  elements: dict
  contains:
    level:
      description: V(fault) where the rollout would fail, or leave Redis unable to run; V(warning) for anything else.
      type: str
      sample: warning
    subject:
      description: What it is about, as O(ignore) takes it.
      type: str
      sample: overcommit
    found:
      description: What is there.
      type: str
      sample: vm.overcommit_memory is 0
    wanted:
      description: What should be there.
      type: str
      sample: 1, or saving can fail
    mend:
      description: What to do.
      type: str
      sample: echo 'vm.overcommit_memory = 1' > /etc/sysctl.d/60-redis.conf && sysctl --system
faults:
  description: The faults as sentences.
  returned: always
  type: list
  elements: str
installed:
  description: Those of O(packages) that are there.
  returned: always
  type: list
  elements: str
runs:
  description: Whether the unit runs already; packages may start it by themselves later.
  returned: always
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_preflight


def main() -> None:
    """Entry point."""
    _step_preflight.run(AnsibleModule(**_step_preflight.SPEC))


if __name__ == "__main__":
    main()
