#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try a configuration and its modules in a throwaway server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_trial
short_description: Try a redis.conf and its modules in a throwaway server on the host itself
version_added: 0.1.0
description:
  - Starts the host's own redis-server binary in a transient unit with the user, the sandbox and the limits of the
    service, in an empty folder, on a unix socket only, with the given configuration and modules; looks at MODULE LIST;
    ends it. Unlike the service it reaches no network and writes to its own folder alone, so the live server and its
    files are not touched.
  - Refuses a module folder below one that others than root can write, but for the service's own data folder.
  - Reads each artifact first without running it, so that a damaged file, one for another machine, or one that needs
    what this host does not have is named as such.
  - Sends each module's smoke commands, saves, starts again, and asks again what only reads.
  - Where modules change, loads a copy of the host's own data under the new ones and saves it. The RDB file that lies
    there is copied where the server holds nothing else, or can't be asked; else the server streams its data as to a
    replica, for which it forks. Its own RDB file is not written.
  - Fails, with that server's own log lines, where anything is not as declared.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The text of the redis.conf to try. Never shown, as it may hold passwords.
    type: str
    required: true
  conf_path:
    description: Where the redis.conf of now lies; what it loads, and where its RDB is, is what the data is of.
    type: path
    default: /etc/redis/redis.conf
  modules:
    description: The modules that O(conf) loads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST has to report it.
        type: str
        required: true
      path:
        description: The path that O(conf) names.
        type: path
        required: true
      artifact:
        description:
          - The file to try in its place; O(modules[].path) itself where nothing is given. It is laid beside
            O(modules[].path) for as long as the trial lasts, so that owner, mode and mount count as they will.
        type: path
      args:
        description: The arguments that it has to receive.
        type: list
        elements: str
        default: []
      version:
        description: The version that it has to report.
        type: int
      config:
        description: Its own directives in O(conf), which need Redis 7.0 or later.
        type: dict
        default: {}
      smoke:
        description: Commands to send, in order.
        type: list
        elements: dict
        default: []
        suboptions:
          command:
            description: The command's words.
            type: list
            elements: str
            required: true
          expect:
            description: The answer; numbers compare as text. Where nothing is given, every answer but an error will do.
            type: raw
          query:
            description: A JMESPath expression over the answer, whose result is compared in its place.
            type: str
          after_restart:
            description: Whether to ask again after the start; by default what has the flag C(readonly).
            type: bool
      accept:
        description: What is refused unless it is named here; see the role P(edgeops.redis_modules.redis_rollout#role).
        type: list
        elements: str
        choices: [delete_keys, executable_stack, missing_api, outside_memory, processes, text_relocations]
        default: []
  absent:
    description: The modules that are meant to go.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST reports it.
        type: str
        required: true
      accept:
        description: V(delete_keys) where the keys of its types may go with it.
        type: list
        elements: str
        choices: [delete_keys, executable_stack, missing_api, outside_memory, processes, text_relocations]
        default: []
  data_limit:
    description:
      - The most data, in MiB of the server's memory, that is tried; V(0) tries none.
      - Within it, a lack of disk or memory for the copy is an error, seen before anything starts.
    type: int
    default: 1024
  data_folder:
    description: Where the copy of the data lies for as long as the trial lasts.
    type: path
    default: /var/lib/edgeops-redis-modules
  data_timeout:
    description: How many seconds a server may take to load the data.
    type: int
    default: 300
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  unit:
    description: The systemd unit whose sandbox the throwaway server gets.
    type: str
    default: redis-server.service
  dropin:
    description: The text of the drop-in that the unit is going to have, in place of the one it has.
    type: str
    default: ""
  user:
    description: The user that the service runs as.
    type: str
    default: redis
  owner:
    description: Who is going to own each module's file.
    type: str
    default: redis
  group:
    description: The group that each module's file is going to have.
    type: str
    default: redis
  mode:
    description: The mode that each module's file is going to have.
    type: str
    default: "0555"
  minimum_version:
    description: The oldest Redis that is accepted.
    type: str
    default: "4.0"
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
requirements:
  - pyelftools on the host (the package C(python3-pyelftools))
  - jmespath on the host, where a smoke command has a query (the package C(python3-jmespath))
"""

EXAMPLES = r"""
- name: Try a built module before the live server meets it
  edgeops.redis_modules.redis_trial:
    conf: |
      maxmemory 100mb
      loadmodule /var/lib/redis/modules/sensorwindow.so retention-ms 3600000
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        artifact: /root/sensorwindow.so
        args: [retention-ms, "3600000"]
        smoke:
          - command: [SENSORWINDOW.ADD, pump:7, "1000", "21.5"]
            expect: added
          - command: [SENSORWINDOW.RANGE, pump:7, "-", "+"]
            query: "[0][1]"
            expect: 21.5
"""

RETURN = r"""
version:
  description: The version of the binary that judged.
  returned: when there is one
  type: str
  sample: 7.0.15
modules:
  description: What the throwaway server reported; the server's built-in modules too.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: The module's name.
      type: str
    version:
      description: The module's version.
      type: int
    commands:
      description: The commands that it registers, in lower case.
      type: list
      elements: str
    types:
      description:
        - The data types that its code registers, with their encoding versions (V(null) where that can't be read).
        - V(null) where its code can't be read.
      type: dict
    config:
      description: Its own directives with their values, on Redis 7.0 and later.
      type: dict
    api:
      description: Whether all API functions that it calls are there; V(not known) where its code can't be read.
      type: str
      choices: [complete, missing, not known]
data:
  description: How the host's data was tried.
  returned: success
  type: dict
  contains:
    tried:
      description: Whether it was.
      type: bool
    reason:
      description: Why not, or where the data came from.
      type: str
    bytes:
      description: The size of the RDB, in bytes.
      type: int
delete:
  description: The data types whose keys have to be deleted before the switch, with the number of keys.
  returned: success
  type: dict
delete_types:
  description: The names of those types.
  returned: success
  type: list
  elements: str
skipped_reason:
  description: Why nothing could be tried, in check mode on a host that has no Redis yet.
  returned: when nothing was tried
  type: str
log:
  description: The throwaway server's last log lines.
  returned: failure
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_trial


def main() -> None:
    """Entry point."""
    _step_trial.run(AnsibleModule(**_step_trial.SPEC))


if __name__ == "__main__":
    main()
