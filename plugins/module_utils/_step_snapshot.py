# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remember the state before a rollout, and put it back."""

from __future__ import annotations

import contextlib
from typing import Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _acl,
    _client,
    _conf,
    _host,
    _observe,
    _places,
    _release,
    _service,
    _snapshot,
    _topology,
    _trial,
)

READY_SECONDS = 5
"""How long to try the logins of a server that systemd says is ready."""


class Keeper:
    """Takes, puts back and forgets the snapshot of one server."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.directives: list[_conf.Directive] = []
        self.restored: list[str] = []

    def unit(self) -> dict[str, str]:
        """Return what systemd knows of the unit."""
        return _host.unit_state(self.module.run_command, self.params["unit"])

    def started(self, unit: dict[str, str]) -> str:
        """Return what names the start of the unit's process, and what it was given since; empty where none runs."""
        if not _host.main_pid(unit):
            return ""
        return f"{unit.get('InvocationID')} {_host.started_with(self.params['unit'])}"

    def connect(self) -> _client.Client:
        """Open a connection with whichever login is right by now. Raises ServerError, that of the declared login."""
        errors = []
        for login in _snapshot.logins(self.params, self.directives):
            try:
                return _client.connect(login, _conf.renamed_command(self.directives, "CONFIG"))
            except _client.ServerError as error:
                errors.append(error)
        raise errors[0]

    def ask(self) -> tuple[dict[str, int], dict[str, str] | None, dict[str, list[str]] | None]:
        """Return name to version of the modules that run, the settings where CONFIG may be used, and the users.

        Raises ServerError.
        """
        client = self.connect()
        try:
            modules = {module.name: module.version for module in _observe.running(client, self.params).modules}
            return modules, client.settings() if client.config_command else None, self.users(client)
        finally:
            client.close()

    def users(self, client: _client.Client) -> dict[str, list[str]] | None:
        """Return the server's users; None where it has none (before 6.0), or does not tell."""
        acl = _conf.renamed_command(self.directives, "ACL")
        with contextlib.suppress(_client.ServerError):
            return client.users(acl) if acl else None
        return None

    def take(self) -> dict[str, Any]:
        """Take a snapshot unless one is open."""
        found = _snapshot.load(self.params["folder"])
        if found is not None:
            if not self.module.check_mode:
                # What a run that died has noted here has not passed its gates.
                _release.remove(_places.noted(self.params["folder"]))
            return {"modules": found.modules or {}}
        unit = self.unit()
        self.directives = _conf.directives_of(self.params["conf_path"])
        modules: dict[str, int] | None = None
        settings: dict[str, str] | None = None
        users: dict[str, list[str]] | None = None
        with contextlib.suppress(_client.ServerError):
            modules, settings, users = self.ask()
        if not self.module.check_mode:
            paths, images = self.params["paths"], live(unit, self.params["paths"])
            _snapshot.take(self.params["folder"], paths, self.started(unit), images, modules, settings, users)
        # Remembering is no change of the host: it is undone by the time the run ends.
        return {"modules": modules or {}}

    def restore(self) -> dict[str, Any]:
        """Put the snapshot back and confirm it."""
        snapshot = _snapshot.load(self.params["folder"])
        if snapshot is None or self.module.check_mode:
            return {"changed": snapshot is not None, "summary": "nothing was changed"}
        self.directives = _snapshot.former_directives(snapshot, self.params["conf_path"])
        start = self.has_to_start(snapshot)
        if start and not self.params["may_start"]:
            return {"left": True, "summary": "nothing was put back, as the server may not start anew"}
        follows = self.follows()
        self.restored = _snapshot.put_back(snapshot)
        if follows is not None and _snapshot.keep_primary(self.params["conf_path"], follows):
            self.restored.append(f"{self.params['conf_path']} (but for whom it follows)")
        names: list[str] = []
        if start:
            self.start_again(snapshot)
        else:
            self.module.run_command(["systemctl", "daemon-reload"])
            names = self.set_back(snapshot)
        modules = self.confirmed(snapshot, start)
        _snapshot.close(self.params["folder"])
        return {
            "changed": bool(self.restored or start or names),
            "restored": self.restored,
            "restarted": start,
            "set": names,
            "modules": modules,
            "summary": summary(self.restored, names, start, modules, runs=bool(self.started(self.unit()))),
        }

    def follows(self) -> str | None:
        """Return whom the server follows by now, as a failover may have changed that; None where nobody can say."""
        try:
            client = self.connect()
        except _client.ServerError:
            return None
        try:
            info = client.info()
        finally:
            client.close()
        return None if _topology.is_clustered(info) else _topology.followed(info)

    def has_to_start(self, snapshot: _snapshot.Snapshot) -> bool:
        """Whether the server has to be started to be what it was."""
        unit = self.unit()
        if _snapshot.has_to_start(snapshot, unit, self.started(unit), live(unit, _snapshot.module_paths(snapshot))):
            return True
        try:
            return snapshot.modules not in (None, self.ask()[0])
        except _client.ServerError:
            return False

    def start_again(self, snapshot: _snapshot.Snapshot) -> None:
        """Start the server with the files of before."""
        unit = self.params["unit"]
        try:
            _service.restart(self.module.run_command, unit)
        except _service.ServiceError as error:
            if snapshot.start:
                self.fail(str(error))
            # It did not run before either; systemd must not go on trying, and must take the next start.
            self.module.run_command(["systemctl", "stop", unit])
            self.module.run_command(["systemctl", "reset-failed", unit])
            return
        # systemd's word is enough where the service gives it: then only the login is left to try.
        ready = self.unit().get("Type") == "notify"
        limit = min(READY_SECONDS, self.params["start_timeout"]) if ready else self.params["start_timeout"]
        try:
            _service.await_ready(self.module.run_command, unit, self.connect, limit)
        except _service.ServiceError as error:
            if not ready or self.unit().get("ActiveState") != "active":
                self.fail(str(error))

    def set_back(self, snapshot: _snapshot.Snapshot) -> list[str]:
        """Set the settings of the running server to what they were, and return the names of those that differed."""
        if not snapshot.start or not snapshot.settings:
            return []
        try:
            client = self.connect()
        except _client.ServerError as error:
            self.fail(f"nobody can look whether the server's settings are those of before: {error}")
        refused = []
        try:
            changed = _snapshot.changed_settings(snapshot.settings, client.settings())
            for name, value in changed.items():
                try:
                    client.set(name, value)
                except _client.ServerError:
                    # Without the server's words, which may repeat a secret.
                    refused.append(name)
            if changed.get("appendonly") == "yes" and not _service.aof_written(client, self.params["start_timeout"]):
                refused.append("appendonly (its AOF was not written in time)")
            users = self.set_users_back(client, snapshot)
        except _client.ServerError as error:
            self.fail(f"the server's settings or users can't be set back: {str(error).rsplit(': ', maxsplit=1)[-1]}")
        finally:
            client.close()
        if refused:
            self.fail(f"the running server did not take these settings of before: {', '.join(refused)}")
        return sorted(changed) + [f"user {name}" for name in users]

    def set_users_back(self, client: _client.Client, snapshot: _snapshot.Snapshot) -> list[str]:
        """Set the users of the running server to what they were, and return their names. Raises ServerError."""
        now = self.users(client)
        if snapshot.users is None or now is None:
            return []
        changes = _acl.back(snapshot.users, now)
        for words in _acl.commands(changes):
            client.call(_conf.renamed_command(self.directives, "ACL"), *words)
        return changes.names

    def confirmed(self, snapshot: _snapshot.Snapshot, start: bool) -> dict[str, int]:
        """Return the modules that run, or fail where they are not those of before."""
        unit = self.unit()
        if not snapshot.start:
            return {}
        if not self.started(unit):
            self.fail("the server does not run")
        if start:
            expected = _snapshot.expected_images(snapshot, self.directives)
            mapped = live(unit, list(expected))
            if not _snapshot.same_images(expected, mapped):
                self.fail(f"it has mapped {sorted(mapped)}, and should have {sorted(expected)}, each as it is on disk")
        try:
            modules = self.ask()[0]
        except _client.ServerError:
            # The files that it has mapped have told enough.
            return snapshot.modules or {}
        if snapshot.modules is not None and modules != snapshot.modules:
            self.fail(f"it runs {modules}, before it ran {snapshot.modules}")
        return modules

    def fail(self, why: str) -> NoReturn:
        """End with the reason and the server's log; the snapshot stays open for the next attempt."""
        log = _host.log_excerpt(self.module.run_command, self.params["unit"], self.params["logfile"])
        lines = [
            f"the files of before are back in place ({', '.join(self.restored) or 'none had changed'}), but {why}",
            "the server's last log lines:",
            *_trial.telling_lines(log)[-_trial.LOG_LINES :],
        ]
        self.module.fail_json(msg="\n".join(lines), restored=self.restored, log=log)
        raise AssertionError("fail_json ends the process")


def live(unit: dict[str, str], paths: list[str]) -> dict[str, str]:
    """Return the digests of those files that the unit's process has mapped."""
    pid = _host.main_pid(unit)
    return {path: image.sha256 for path, image in _host.live_images(pid, paths).items()} if pid else {}


def summary(restored: list[str], names: list[str], start: bool, modules: dict[str, int], runs: bool) -> str:
    """Return what became of it as a sentence."""
    said = [f"{len(restored)} files were put back"]
    if names:
        said.append(f"{', '.join(names)} {'was' if len(names) == 1 else 'were'} set back")
    if not runs:
        return ", ".join([*said, "the server did not run before and does not run now"])
    what = "was restarted and runs" if start else "runs"
    return ", ".join([*said, f"the server {what} {', '.join(modules) or 'no modules'}"])


SPEC: dict[str, Any] = {
    "argument_spec": {
        "state": {"type": "str", "choices": ["taken", "restored", "closed"], "required": True},
        "folder": {"type": "path"},
        "paths": {"type": "list", "elements": "path", "default": []},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "unit": {"type": "str", "default": "redis-server.service"},
        "logfile": {"type": "path", "default": "/var/log/redis/redis-server.log"},
        "may_start": {"type": "bool", "default": True},
        "start_timeout": {"type": "int", "default": 300},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    module.params["folder"] = module.params["folder"] or _snapshot.folder_of(module.params["unit"])
    keeper = Keeper(module)
    result: dict[str, Any] = {
        "changed": False,
        "restored": [],
        "left": False,
        "restarted": False,
        "set": [],
        "modules": {},
        "summary": "",
    }
    if _client.REDIS_IMPORT_ERROR:
        if module.check_mode:
            module.exit_json(**result)
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    try:
        if module.params["state"] == "taken":
            result.update(keeper.take())
        elif module.params["state"] == "restored":
            result.update(keeper.restore())
        elif not module.check_mode:
            _places.keep_noted(module.params["folder"], module.params["unit"])
            _snapshot.close(module.params["folder"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        module.fail_json(msg=f"the snapshot in {module.params['folder']}: {error}")
    module.exit_json(**result)
