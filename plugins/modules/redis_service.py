#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the running server to what its configuration says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_service
short_description: Bring the running server to what its configuration says, restarting only where it has to be
version_added: 0.1.0
description:
  - Compares the running server with its redis.conf, its drop-in and its modules, by what the process itself shows.
  - What Redis can change at run time is set at run time. Otherwise the unit is restarted, and awaited until the server
    answers and has loaded its data.
  - What a setting of redis.conf comes to is asked of a throwaway server of the same binary, so any way of writing it
    (C(100mb) or C(104857600)) compares right.
  - Where a start would come up empty, as C(appendonly) is on and there is only an RDB, it is refused.
  - Where the server does not come back, the message holds its own log lines.
author:
  - edgeops contributors (@edgeops)
options:
  conf:
    description: The whole text of redis.conf as it is on disk, or would be in check mode. Never shown.
    type: str
    required: true
  dropin:
    description: The text of the drop-in as given to M(edgeops.redis_modules.redis_server_config).
    type: str
    required: true
  modules:
    description: The modules that O(conf) loads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: As MODULE LIST reports it.
        type: str
        required: true
      path:
        description: Where its file lies.
        type: path
        required: true
      artifact:
        description: In check mode, the file that would be placed there.
        type: path
      args:
        description: Its arguments.
        type: list
        elements: str
        default: []
  unit:
    description: The systemd unit.
    type: str
    default: redis-server.service
  enabled:
    description: Whether the unit starts at boot.
    type: bool
    default: true
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  user:
    description: The user that the service runs as.
    type: str
    default: redis
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
"""

EXAMPLES = r"""
- name: Restart the server only if it runs other code or settings than it should
  edgeops.redis_modules.redis_service:
    conf: "{{ lookup('ansible.builtin.template', 'redis.conf.j2') }}"
    dropin: "{{ lookup('ansible.builtin.template', 'dropin.conf.j2') }}"
    modules:
      - name: sensorwindow
        path: /var/lib/redis/modules/sensorwindow.so
        args: [retention-ms, "3600000"]
"""

RETURN = r"""
restarted:
  description: Whether the unit was restarted or started, or would be in check mode.
  returned: success
  type: bool
reasons:
  description: Why, a sentence each.
  returned: success
  type: list
  elements: str
  sample: ["module sensorwindow: the running server still has an older file mapped; a restart loads the new one"]
set:
  description: The names of the settings that were set at run time, or would be.
  returned: success
  type: list
  elements: str
  sample: [maxmemory]
"""

import os
import time
from typing import Any, NoReturn, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _observe,
    _plan,
    _sandbox,
    _service,
    _trial,
)


class Service:
    """One unit and the server in it."""

    def __init__(self, module: AnsibleModule, directives: Sequence[_conf.Directive]) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.directives = directives
        self.unit: str = module.params["unit"]

    def connect(self) -> _client.Client:
        """Open a connection. Raises ServerError."""
        return _client.connect(self.params, _conf.renamed_command(self.directives, "CONFIG"))

    def fail(self, why: str) -> NoReturn:
        """End with a sentence and the server's last log lines."""
        log = _host.log_excerpt(self.module.run_command, self.unit, self.params["logfile"])
        self.module.fail_json(
            msg="\n".join([why, "its last log lines:", *_trial.telling_lines(log)[-_trial.LOG_LINES :]]), log=log
        )
        raise AssertionError("fail_json ends the process")

    def trial(self) -> _trial.Trial:
        """Ask a throwaway server what the configuration comes to."""
        files = [m["path"] if os.path.exists(m["path"]) else m["artifact"] or "" for m in self.params["modules"]]
        if self.module.check_mode and not all(os.path.exists(path) for path in files):
            return _trial.Trial("", [], {}, [])
        paths = {
            m["path"]: m["artifact"] for m in self.params["modules"] if m["artifact"] and not os.path.exists(m["path"])
        }
        service = _trial.Service(*(self.params[key] for key in _trial.Service._fields))
        try:
            tried = _trial.in_place_of(self.module.run_command, service, self.directives, paths)
        except (OSError, KeyError, _sandbox.SandboxError) as error:
            self.module.fail_json(msg=f"the configuration can't be tried, so nothing was restarted: {error}")
        if tried.error:
            modules = [{"name": m["name"], "artifact": m["path"]} for m in self.params["modules"]]
            lines = [
                _trial.startup_fault(tried, modules),
                "the running server was left as it is; the throwaway server's last lines:",
            ]
            self.module.fail_json(msg="\n".join(lines + tried.log[-_trial.LOG_LINES :]))
        return tried

    def wanted(self) -> list[_plan.Wanted]:
        """Return the modules to compare what runs with; owner and mode of the files are not this module's business."""
        return [_plan.Wanted(m["name"], "present", m["path"], m["args"], None) for m in self.params["modules"]]

    def decide(self, pid: int) -> tuple[list[str], list[_plan.SettingChange]]:
        """Return why the unit has to be restarted, and what is to be set at run time where it has not."""
        digest = _conf.start_digest(self.directives, self.params["dropin"])
        # Before anything else: what does not start here must not be restarted.
        tried = self.trial()
        if not pid:
            return _plan.restart_reasons(0, "", digest, [], []), []
        try:
            client = self.connect()
        except _client.NotReachedError as error:
            if not error.nobody_listens:
                self.fail(f"the running server is too busy to be asked what it runs: {error}")
            return [f"it does not listen where it should ({error})"], []
        except _client.ServerError as error:
            return [f"it does not take the password that it should ({error})"], []
        try:
            seen = _observe.running(client, self.params)._replace(pid=pid)
            verdicts = _observe.verdicts(seen, self.wanted())
            reasons = _plan.restart_reasons(
                pid,
                _host.started_with(self.unit),
                digest,
                [v for v in verdicts if v.verdict not in _plan.GOOD],
                _plan.undeclared(seen.modules, [m["name"] for m in self.params["modules"]]),
            )
            if self.module.check_mode:
                reasons += self.replaced_files(seen)
            changes = (
                _plan.setting_changes(client.settings(), tried.settings, self.directives)
                if client.config_command
                else []
            )
        except _client.ServerError as error:
            self.fail(f"the running server can't be asked what it runs: {error}")
        finally:
            client.close()
        return reasons, changes

    def replaced_files(self, seen: _observe.Running) -> list[str]:
        """Return which modules would be replaced by another file, in check mode, where they are not placed yet."""
        images = _host.live_images(seen.pid, [m["path"] for m in self.params["modules"]])
        return [
            f"module {m['name']}: another file would be placed"
            for m in self.params["modules"]
            if m["artifact"] and m["path"] in images and images[m["path"]].sha256 != _host.sha256_of(m["artifact"])
        ]

    def set(self, changes: Sequence[_plan.SettingChange]) -> tuple[list[str], list[str]]:
        """Set what can be set at run time; return the names that were set, and why the rest needs a restart."""
        names: list[str] = []
        reasons: list[str] = []
        if self.module.check_mode:
            for change in changes:
                (reasons if change.name in _plan.START_ONLY_SETTINGS else names).append(change.name)
            return names, [f"{name} can only change at a start" for name in reasons]
        client = self.connect()
        try:
            for change in changes:
                try:
                    client.set(change.name, change.wanted)
                    names.append(change.name)
                except _client.ServerError as error:
                    if change.name == "maxclients":
                        # The limit on open files decides, at a start as well.
                        self.module.warn(f"maxclients stays {change.now}: {refusal(str(error), change)}")
                        continue
                    reasons.append(f"{change.name} can only change at a start ({refusal(str(error), change)})")
            if "appendonly" in names:
                self.await_aof(client)
        finally:
            client.close()
        return names, reasons

    def await_aof(self, client: _client.Client) -> None:
        """Wait until the first AOF is written: a restart before that would come up empty."""
        deadline = time.monotonic() + self.params["start_timeout"]
        while time.monotonic() < deadline:
            info = client.info()
            if info.get("aof_rewrite_in_progress", "0") == "0" and info.get("aof_rewrite_scheduled", "0") == "0":
                return
            time.sleep(_service.POLL_SECONDS)
        self.fail(
            f"the first AOF was not written within {self.params['start_timeout']} seconds; the server was not restarted"
        )

    def restart(self) -> None:
        """Restart the unit and wait until the server answers with its data loaded."""
        unread = _plan.unread_data(self.directives, os.path.exists)
        if unread:
            self.module.fail_json(msg=f"{unread}. The server was not restarted")
        if self.module.check_mode:
            return
        try:
            _service.restart(self.module.run_command, self.unit)
            _service.await_ready(self.module.run_command, self.unit, self.connect, self.params["start_timeout"])
        except _service.ServiceError as error:
            self.fail(str(error))


def refusal(error: str, change: _plan.SettingChange) -> str:
    """Return the server's reason without the value, which may be a secret."""
    text = error.split(": ", 1)[-1]
    return text.replace(change.wanted, "...") if len(change.wanted) > 3 else text


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "conf": {"type": "str", "required": True, "no_log": True},
            "dropin": {"type": "str", "required": True},
            "modules": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "name": {"type": "str", "required": True},
                    "path": {"type": "path", "required": True},
                    "artifact": {"type": "path"},
                    "args": {"type": "list", "elements": "str", "default": []},
                },
            },
            "unit": {"type": "str", "default": "redis-server.service"},
            "enabled": {"type": "bool", "default": True},
            "binary": {"type": "path", "default": "/usr/bin/redis-server"},
            "user": {"type": "str", "default": "redis"},
            "logfile": {"type": "path", "default": "/var/log/redis/redis-server.log"},
            "start_timeout": {"type": "int", "default": 300},
            **_client.LOGIN_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    if not os.path.exists(module.params["binary"]) and module.check_mode:
        module.exit_json(changed=True, restarted=True, reasons=["Redis is not installed yet"], set=[])
    if _client.REDIS_IMPORT_ERROR:
        if module.check_mode:
            module.exit_json(
                changed=False, restarted=False, reasons=[], set=[], skipped_reason="redis-py is not installed yet"
            )
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    try:
        directives = _conf.parse(module.params["conf"])
    except _conf.ConfError as error:
        module.fail_json(msg=f"redis.conf: {error}")
    service = Service(module, directives)
    unit = _host.unit_state(module.run_command, service.unit)
    if unit.get("LoadState") == "not-found" and not module.check_mode:
        module.fail_json(msg=f"there is no unit {service.unit} on this host; install Redis first (role redis_server)")
    reasons, changes = service.decide(_host.main_pid(unit))
    # Also before a restart: appendonly has to be switched on in the running server, which has the data.
    names, refused = service.set(changes) if changes else ([], [])
    reasons += refused
    if reasons:
        service.restart()
    enable = module.params["enabled"] and unit.get("UnitFileState") not in ("enabled", "static", "alias")
    if enable and not module.check_mode:
        module.run_command(["systemctl", "enable", service.unit], check_rc=True)
    module.exit_json(changed=bool(reasons or names or enable), restarted=bool(reasons), reasons=reasons, set=names)


if __name__ == "__main__":
    main()
