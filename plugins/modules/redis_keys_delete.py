#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Delete the keys of data types that no module is going to read any more."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_keys_delete
short_description: Back up the RDB of a running server, then delete the keys of given data types
version_added: 0.1.0
description:
  - For the way through a one-way door. A server does not start from an RDB with data that none of its modules can
    read, so such keys have to go before the modules change.
  - The backup is streamed by the server as to a replica; where that or its disk space fails, nothing is deleted.
author:
  - edgeops contributors (@edgeops)
options:
  types:
    description: The data types as TYPE answers them. Types of the server itself are refused.
    type: list
    elements: str
    required: true
  folder:
    description: Where the backup is kept, readable by root alone.
    type: path
    default: /var/lib/edgeops-redis-modules/backups
  conf_path:
    description: Where the server's redis.conf lies, for the names of renamed commands.
    type: path
    default: /etc/redis/redis.conf
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show but the number of keys.
    support: none
"""

EXAMPLES = r"""
- name: Give up the windows of sensorwindow
  edgeops.redis_modules.redis_keys_delete:
    types: [sensorwin]
"""

RETURN = r"""
backup:
  description: The RDB file with all data as it was before.
  returned: when there was something to delete
  type: str
  sample: /var/lib/edgeops-redis-modules/backups/20261123T031500Z.rdb
deleted:
  description: How many keys of each type were deleted, or would be in check mode.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_keys_delete


def main() -> None:
    """Entry point."""
    _step_keys_delete.run(AnsibleModule(**_step_keys_delete.SPEC))


if __name__ == "__main__":
    main()
