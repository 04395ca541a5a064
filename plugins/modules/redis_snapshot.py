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
  - With O(state=taken), copies redis.conf, the drop-in and the modules' files, and notes which modules run. A snapshot
    that is still open from a run that died is kept, as it is the last state that is known to have been whole.
  - With O(state=restored), puts those files back, restarts the server if it was restarted since, and confirms that it
    runs the modules of before.
  - With O(state=closed), forgets the snapshot, as the new state is confirmed.
author:
  - edgeops contributors (@edgeops)
options:
  state:
    description: What to do.
    type: str
    choices: [taken, restored, closed]
    required: true
  folder:
    description: Where the snapshot is kept, readable by root alone, as redis.conf may hold passwords.
    type: path
    default: /var/lib/edgeops-redis-modules/before
  paths:
    description: The files to remember; those that are not there are taken away again. Needed for O(state=taken).
    type: list
    elements: path
    default: []
  unit:
    description: The systemd unit of the server.
    type: str
    default: redis-server.service
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
restarted:
  description: Whether the server was restarted for it.
  returned: success
  type: bool
modules:
  description: The modules that ran when the snapshot was taken, and after it was put back; name to version.
  returned: success
  type: dict
"""

from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _host,
    _observe,
    _service,
    _snapshot,
    _trial,
)


class Keeper:
    """Takes, puts back and forgets the snapshot of one server."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params

    def pid(self) -> int:
        """Return the pid of the unit's process; 0 where none runs."""
        return _host.main_pid(_host.unit_state(self.module.run_command, self.params["unit"]))

    def connect(self) -> _client.Client:
        """Open a connection with whichever password is right by now. Raises ServerError."""
        return _client.connect(self.params)

    def running_modules(self) -> dict[str, int]:
        """Return name to version of the modules that run. Raises ServerError."""
        client = self.connect()
        try:
            return {module.name: module.version for module in _observe.running(client, self.params).modules}
        finally:
            client.close()

    def take(self) -> dict[str, Any]:
        """Take a snapshot unless one is open."""
        found = _snapshot.load(self.params["folder"])
        if found is not None:
            return {"changed": False, "modules": found.modules}
        try:
            modules = self.running_modules()
        except _client.ServerError:
            modules = {}
        if not self.module.check_mode:
            _snapshot.take(self.params["folder"], self.params["paths"], self.pid(), modules)
        # Remembering is no change of the host: it is undone by the time the run ends.
        return {"changed": False, "modules": modules}

    def restore(self) -> dict[str, Any]:
        """Put the snapshot back and confirm it."""
        snapshot = _snapshot.load(self.params["folder"])
        if snapshot is None or self.module.check_mode:
            return {"changed": snapshot is not None, "modules": snapshot.modules if snapshot else {}}
        restored = _snapshot.put_back(snapshot)
        # A server that did not run before is left to whoever stopped it.
        restarted = snapshot.pid not in (0, self.pid())
        if restarted:
            self.start_again(restored)
        else:
            self.module.run_command(["systemctl", "daemon-reload"])
        modules = self.confirmed(snapshot, restored) if snapshot.pid else {}
        _snapshot.close(self.params["folder"])
        return {
            "changed": bool(restored or restarted),
            "restored": restored,
            "restarted": restarted,
            "modules": modules,
        }

    def start_again(self, restored: list[str]) -> None:
        """Restart the server with the files of before."""
        try:
            _service.restart(self.module.run_command, self.params["unit"])
            _service.await_ready(
                self.module.run_command, self.params["unit"], self.connect, self.params["start_timeout"]
            )
        except _service.ServiceError as error:
            self.fail(str(error), restored)

    def confirmed(self, snapshot: _snapshot.Snapshot, restored: list[str]) -> dict[str, int]:
        """Return the modules that run, or fail where they are not those of before."""
        try:
            modules = self.running_modules()
        except _client.ServerError as error:
            self.fail(str(error), restored)
        if modules != snapshot.modules:
            self.fail(f"it runs {modules}, before it ran {snapshot.modules}", restored)
        return modules

    def fail(self, why: str, restored: list[str]) -> NoReturn:
        """End with the reason and the server's log; the snapshot stays open for the next attempt."""
        log = _host.log_excerpt(self.module.run_command, self.params["unit"], self.params["logfile"])
        lines = [
            f"the files of before are back in place ({', '.join(restored) or 'none had changed'}), but {why}",
            "the server's last log lines:",
            *_trial.telling_lines(log)[-_trial.LOG_LINES :],
        ]
        self.module.fail_json(msg="\n".join(lines), restored=restored, log=log)
        raise AssertionError("fail_json ends the process")


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["taken", "restored", "closed"], "required": True},
            "folder": {"type": "path", "default": "/var/lib/edgeops-redis-modules/before"},
            "paths": {"type": "list", "elements": "path", "default": []},
            "unit": {"type": "str", "default": "redis-server.service"},
            "logfile": {"type": "path", "default": "/var/log/redis/redis-server.log"},
            "start_timeout": {"type": "int", "default": 300},
            **_client.LOGIN_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    keeper = Keeper(module)
    if _client.REDIS_IMPORT_ERROR:
        if module.check_mode:
            module.exit_json(changed=False, restored=[], restarted=False, modules={})
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    result: dict[str, Any] = {"changed": False, "restored": [], "restarted": False, "modules": {}}
    try:
        if module.params["state"] == "taken":
            result.update(keeper.take())
        elif module.params["state"] == "restored":
            result.update(keeper.restore())
        elif not module.check_mode:
            _snapshot.close(module.params["folder"])
    except (OSError, KeyError, ValueError) as error:
        module.fail_json(msg=f"the snapshot in {module.params['folder']}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
