#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Confirm that Redis on a host runs the declared modules."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_modules_confirm
short_description: Confirm by MODULE LIST that the modules that are wanted are the ones that run
version_added: 0.1.0
description:
  - Compares what is declared with what the running server reports, with the file on disk and with the live image.
  - Fails with each difference by name, and with the server's own last log lines where it does not answer.
  - A file or folder that others can change is a difference too - by an ACL, by another name of the same file, by the
    owner or mode of a folder above - and so is what keeps root from mending it, as C(chattr +i).
  - Changes nothing.
author:
  - edgeops contributors (@edgeops)
options:
  modules:
    description: The modules, as in C(redis_modules). Name and path are needed, the rest is compared where given.
    type: list
    elements: dict
    required: true
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
  owner:
    description: Who must own each file.
    type: str
  group:
    description: The group that each file must have.
    type: str
  mode:
    description: The mode that each file must have, as V(0555).
    type: str
  folder:
    description:
      - The module folder. Where it is given, it must be root's own, of the group O(group) and mode V(0755), and nobody
        but root may be able to write a folder above it.
    type: path
  user:
    description: The user that the service runs as.
    type: str
    default: redis
  data_folder:
    description: The service's own data folder, which may belong to O(user) although O(folder) lies in it.
    type: path
    default: /var/lib/redis
  exclusive:
    description: Whether a module that runs without being declared is a failure; the server's built-in ones never are.
    type: bool
    default: true
  fail:
    description: Whether to fail on a difference. With V(false), the result says the same and the caller decides.
    type: bool
    default: true
  unit:
    description: The systemd unit of the server, for its log.
    type: str
    default: redis-server.service
  logfile:
    description: The server's log file, where it writes one.
    type: path
    default: /var/log/redis/redis-server.log
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
seealso:
  - module: edgeops.redis_modules.redis_modules_info
"""

EXAMPLES = r"""
- name: Confirm that the module of the telemetry runs, and nothing else
  edgeops.redis_modules.redis_modules_confirm:
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        args: [retention-ms, "3600000"]
        version: 20000
    owner: redis
    group: redis
    mode: "0555"

- name: Confirm that an old module is gone
  edgeops.redis_modules.redis_modules_confirm:
    modules:
      - name: oldmodule
        path: /var/lib/redis/modules/oldmodule.so
        state: absent
    exclusive: false
"""

RETURN = r"""
confirmed:
  description: Whether all is as wanted.
  returned: always
  type: bool
server_version:
  description: The version of the running server; empty where none answered.
  returned: always
  type: str
  sample: 7.0.15
exposure:
  description:
    - The overall exposure of the service, from V(0.0) to V(10.0), as C(systemd-analyze security) has it; V(null) where
      it tells none.
  returned: always
  type: float
  sample: 1.1
error:
  description: Why no server answered; empty where one did.
  returned: always
  type: str
verdicts:
  description: One for each declared module, in the given order, then one for each module that nobody declared.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: The module.
      type: str
    verdict:
      description:
        - V(loaded) or V(absent) where all is as wanted, else V(restart-pending) (the file is newer than the live
          image), V(drifted), V(missing), V(broken) (the server does not answer) or V(undeclared).
      type: str
    differences:
      description: What was found, a sentence each.
      type: list
      elements: str
    version:
      description: As MODULE LIST reports it.
      type: int
    path:
      description: Where it was loaded from.
      type: str
    sha256:
      description: Digest of the file on disk.
      type: str
    live_sha256:
      description: Digest of the live image.
      type: str
log:
  description: The server's last log lines.
  returned: when no server answered
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_confirm


def main() -> None:
    """Entry point."""
    _step_modules_confirm.run(AnsibleModule(**_step_modules_confirm.SPEC))


if __name__ == "__main__":
    main()
