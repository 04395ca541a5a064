#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keep all users of a server from the commands of modules that are about to leave."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_withhold
short_description: Keep all users of a server from the commands of modules that are about to leave
version_added: 0.1.0
description:
  - A copy of the data that has lost a module drops what is still written by it, and nobody is told. So before the first
    copy loses it, no client may use it any more.
  - Denies the module's commands to each user of the running server, the default user too, by C(ACL SETUSER). What the
    primary sends its replicas is not concerned.
  - Nothing is written to redis.conf, as the next start is one without the module. A server that starts again with it
    has its users as its redis.conf says.
  - Before Redis 7.0 a server does not tell whose a command is; then nothing is done, and RV(commands) is empty.
author:
  - edgeops contributors (@edgeops)
options:
  modules:
    description: The names of the modules, as MODULE LIST reports them.
    type: list
    elements: str
    required: true
  conf_path:
    description: Where redis.conf lies, which may have renamed ACL.
    type: path
    default: /etc/redis/redis.conf
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show but names.
    support: none
"""

EXAMPLES = r"""
- name: Let nobody use a module that is about to leave
  edgeops.redis_modules.redis_withhold:
    modules: [sensorwindow]
"""

RETURN = r"""
commands:
  description: The commands that are denied to all users now.
  returned: success
  type: list
  elements: str
  sample: [sensorwindow.add]
users:
  description: The names of the users whose rules were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_withhold


def main() -> None:
    """Entry point."""
    _step_withhold.run(AnsibleModule(**_step_withhold.SPEC))


if __name__ == "__main__":
    main()
