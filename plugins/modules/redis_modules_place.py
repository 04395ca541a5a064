#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Place modules in the module folder of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_modules_place
short_description: Place modules under their owner and mode by rename, and keep the releases before
version_added: 0.1.0
description:
  - Puts each artifact at its path in the module folder, or takes it away, without ever writing a file in place,
    as a running server dies when its mapped file changes under it.
  - Takes an ACL or a bit of C(chattr) off the folder and off each file that it places, and makes a file with a second
    name (a hard link) one of its own.
  - Where SELinux is on, gives the folder a type that Redis may run code from (C(lib_t)), by C(semanage) and
    C(restorecon).
  - The file that was there before is kept in C(.releases/NAME/) in the module folder.
  - Does not restart anything.
author:
  - edgeops contributors (@edgeops)
options:
  folder:
    description: The module folder. It is made if it is not there, with owner C(root), O(group) and mode V(0755).
    type: path
    default: /var/lib/redis/modules
  owner:
    description: Who owns each module's file.
    type: str
    default: redis
  group:
    description: The group of the folder and of each module's file.
    type: str
    default: redis
  mode:
    description: The mode of each module's file. One x bit is needed, or Redis refuses to load it.
    type: str
    default: "0555"
  keep:
    description: How many releases of each module to keep beside the current one.
    type: int
    default: 3
  modules:
    description: What to place or take away.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The module's name, which is that of its folder of releases.
        type: str
        required: true
      state:
        description: Whether the file has to be there, or must not.
        type: str
        choices: [present, absent]
        default: present
      path:
        description: Where its file lies, in O(folder).
        type: path
        required: true
      artifact:
        description:
          - The file on the host to place. Without it, only owner and mode of the file that is there are mended.
        type: path
      sha256:
        description: The digest that O(modules[].artifact) must have.
        type: str
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Place a built module
  edgeops.redis_modules.redis_modules_place:
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        artifact: /root/sensorwindow.so
"""

RETURN = r"""
placed:
  description: What was done, or would be in check mode; a sentence for each thing.
  returned: always
  type: list
  elements: str
  sample: ["module sensorwindow: placed 3f2a9c01d4e5b677 at /var/lib/redis/modules/sensorwindow.so"]
releases:
  description: Where the releases before are kept now, by module, oldest first.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_place


def main() -> None:
    """Entry point."""
    _step_modules_place.run(AnsibleModule(**_step_modules_place.SPEC))


if __name__ == "__main__":
    main()
