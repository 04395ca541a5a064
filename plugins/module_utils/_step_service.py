# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bring the running server to what its configuration says."""

from __future__ import annotations

import contextlib
import os
from typing import Any, Iterable, NamedTuple, NoReturn, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _acl,
    _calls,
    _client,
    _conf,
    _declaration,
    _elf,
    _host,
    _hot,
    _observe,
    _plan,
    _release,
    _sandbox,
    _service,
    _snapshot,
    _trial,
)


class Decision(NamedTuple):
    """What is to be done: I(reasons) are all that keep the running server from being as wanted.

    I(beside) are those of them that no change of a module mends. I(settings) can be tried to be set at run time,
    I(changes) are the modules that are not as wanted, I(seen) is what was found running, and I(users) are set and
    deleted at run time.
    """

    reasons: list[str]
    beside: list[str]
    settings: list[_plan.SettingChange]
    changes: list[_hot.Change]
    seen: _observe.Running
    users: _acl.Changes = _acl.Changes([], [])


class Service:
    """One unit and the server in it."""

    def __init__(self, module: AnsibleModule, directives: Sequence[_conf.Directive]) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.directives = directives
        self.unit: str = module.params["unit"]
        self.entries: dict[str, dict[str, Any]] = {
            **{m["name"]: {**m, "state": "present"} for m in module.params["modules"]},
            **{m["name"]: {**m, "state": "absent"} for m in module.params["absent"]},
        }
        self.tried = _trial.Trial("", [], {}, [])

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
        files = {m["path"]: self.new_file(m) for m in self.params["modules"]}
        if self.module.check_mode and not all(os.path.exists(file) for file in files.values()):
            return _trial.Trial("", [], {}, [])
        paths = {path: file for path, file in files.items() if file != path}
        service = _trial.Service(*(self.params[key] for key in _trial.Service._fields))
        try:
            known = _trial.kept(service, self.directives, files)
            if known is not None:
                return known
            visit = self.tried_users if _conf.has_users(self.directives) else None
            tried = _trial.in_place_of(self.module.run_command, service, self.directives, paths, visit)
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

    def tried_users(self, client: _client.Client, _loaded: Sequence[_client.LoadedModule]) -> Any:
        """Return the users of a throwaway server; None where ACL is renamed away."""
        acl = _conf.renamed_command(self.directives, "ACL")
        return client.users(acl) if acl else None

    def users(self, client: _client.Client) -> _acl.Changes:
        """Return what the users of the running server lack. Raises ServerError."""
        wanted = _acl.users_of(self.directives)
        if not wanted or self.tried.found is None:
            return _acl.Changes([], [])
        return _acl.changes(wanted, self.tried.found, client.users(self.command("ACL")))

    def set_users(self, users: _acl.Changes) -> None:
        """Make the users of the running server those of its redis.conf."""
        if self.module.check_mode or not users.names:
            return
        try:
            client = self.connect()
            try:
                for words in _acl.commands(users):
                    client.call(self.command("ACL"), *words)
            finally:
                client.close()
        except _client.ServerError as error:
            self.fail(f"the running server did not take the users {', '.join(users.names)}: {_client.end_of(error)}")

    def new_file(self, entry: dict[str, Any]) -> str:
        """Return the file that the server is to run: in check mode, it may not have been placed yet."""
        path: str = entry["path"]
        artifact: str | None = entry["artifact"]
        return artifact if artifact and (self.module.check_mode or not os.path.exists(path)) else path

    def wanted(self) -> list[_plan.Wanted]:
        """Return the modules to compare what runs with; owner and mode of the files are not this module's business."""
        return [_plan.Wanted(m["name"], "present", m["path"], m["args"], None) for m in self.params["modules"]]

    def decide(self, pid: int) -> Decision:
        """Return what the running server lacks to be what is wanted."""
        digest = _conf.start_digest(self.directives, self.params["dropin"])
        # Before anything else: what does not start here must not be restarted.
        self.tried = self.trial()
        if not pid:
            reasons = _plan.restart_reasons(0, "", digest, [], [])
            return Decision(reasons, reasons, [], [], _observe.Running({}, [], 0))
        try:
            client = self.connect()
        except _client.NotReachedError as error:
            if not error.nobody_listens:
                self.fail(f"the running server is too busy to be asked what it runs: {error}")
            return self.unseen(pid, f"it does not listen where it should ({error})")
        except _client.ServerError as error:
            return self.unseen(pid, f"it does not take the password that it should ({error})")
        try:
            seen = _observe.running(client, self.params)._replace(pid=pid)
            verdicts = _observe.verdicts(seen, self.wanted())
            bad = [v for v in verdicts if v.verdict not in _plan.GOOD]
            replaced = self.replaced_files(seen) if self.module.check_mode else {}
            record = _host.started_with(self.unit)
            reasons = _plan.restart_reasons(
                pid,
                record,
                digest,
                bad,
                _plan.undeclared(seen.modules, [m["name"] for m in self.params["modules"]]),
            )
            settings = (
                _plan.setting_changes(client.settings(), self.tried.settings, self.directives)
                if client.config_command
                else []
            )
            users = self.users(client)
        except _client.ServerError as error:
            self.fail(f"the running server can't be asked what it runs: {error}")
        finally:
            client.close()
        return Decision(
            reasons + list(replaced.values()),
            self.beside(record, digest),
            settings,
            self.changes(seen, [*(v.name for v in bad), *replaced], record),
            seen,
            users,
        )

    def unseen(self, pid: int, why: str) -> Decision:
        """Decide where the server can't be asked: what its process has mapped tells of its modules."""
        images = _host.live_images(pid, [entry["path"] for entry in self.entries.values()])
        loaded = [_client.LoadedModule(n, -1, None, None) for n, m in self.entries.items() if m["path"] in images]
        seen = _observe.Running({}, loaded, pid)
        bad = [v.name for v in _observe.verdicts(seen, self.wanted()) if v.verdict not in _plan.GOOD]
        changes = self.changes(seen, [*bad, *self.replaced_files(seen)], _host.started_with(self.unit))
        return Decision([why], [why], [], changes, seen)

    @staticmethod
    def beside(record: str, digest: str) -> list[str]:
        """Return what only a start mends of all that a start leaves word of."""
        if _conf.started_rest(record) == _conf.started_rest(digest):
            return []
        return ["the running server was started with another drop-in or with other renamed commands"]

    def changes(self, seen: _observe.Running, differing: Iterable[str], record: str) -> list[_hot.Change]:
        """Return the modules that do not run as declared."""
        loaded = [module.name for module in seen.modules if not module.built_in]
        return _hot.changes(list(self.entries.values()), loaded, differing, record)

    def replaced_files(self, seen: _observe.Running) -> dict[str, str]:
        """Return which modules would be replaced by another file, in check mode, where they are not placed yet."""
        images = _host.live_images(seen.pid, [m["path"] for m in self.params["modules"]])
        return {
            m["name"]: f"module {m['name']}: another file would be placed"
            for m in self.params["modules"]
            if m["artifact"] and m["path"] in images and images[m["path"]].sha256 != _host.sha256_of(m["artifact"])
        }

    def set(self, changes: Sequence[_plan.SettingChange], restart_comes: bool) -> tuple[list[str], list[str]]:
        """Set what can be set at run time; return the names that were set, and why the rest needs a restart.

        With a restart to come, persistence is not given up before: the start may fail, or the shutdown not save.
        """
        changes = sorted(changes, key=lambda change: change.name not in _plan.START_ONLY_SETTINGS)
        names: list[str] = []
        reasons: list[str] = []
        if self.module.check_mode:
            for change in changes:
                (reasons if change.name in _plan.START_ONLY_SETTINGS else names).append(change.name)
            return names, [f"{name} can only change at a start" for name in reasons]
        client = self.connect()
        try:
            for change in changes:
                if (restart_comes or reasons) and _plan.gives_up_persistence(change):
                    continue
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
        if not _service.aof_written(client, self.params["start_timeout"]):
            limit = self.params["start_timeout"]
            self.fail(f"the first AOF was not written within {limit} seconds; the server was not restarted")

    def obstacles(self, decision: Decision) -> list[str]:
        """Return why the modules can't be changed without a restart, a sentence each; empty where they can."""
        found = list(decision.beside)
        if found:
            return found
        version = _host.version_tuple(decision.seen.info.get("redis_version", ""))
        try:
            client = self.connect()
            try:
                settings = client.settings() if client.config_command else {}
                fallback = _conf.value(self.directives, "enable-module-command", "no")
                enabled = settings.get("enable-module-command", fallback)
                found += filter(None, [_hot.command_obstacle(version, enabled, _observe.is_local(self.params))])
                rules = [str(_client.text(rule)) for rule in client.call(self.command("ACL"), "LIST")]
                used_by = _hot.used_by(client.call("INFO", "modules"))
                for change in decision.changes:
                    seen = self.look(change, decision.seen, version)
                    named = self.named(client, change, rules, version) if change.step != _hot.LOAD else []
                    seen = seen._replace(used_by=used_by.get(change.name, []), named=named)
                    found += _hot.obstacles(change, seen, version)
            finally:
                client.close()
        except _client.ServerError as error:
            found.append(
                f"what a change without a restart depends on can't be asked ({_client.without_command(error)})"
            )
        except OSError as error:
            found.append(f"what a change without a restart depends on can't be read ({error})")
        return found

    def command(self, name: str) -> str:
        """Return the name that a command has here. Raises ServerError where rename-command took it away."""
        renamed = _conf.renamed_command(self.directives, name)
        if not renamed:
            raise _client.ServerError(f"{name} is renamed away")
        return renamed

    def named(
        self, client: _client.Client, change: _hot.Change, rules: Sequence[str], version: tuple[int, ...]
    ) -> list[str]:
        """Return which ACL users name a command of the module. Raises ServerError."""
        if version >= _hot.MODULE_COMMAND_SINCE:
            listed = client.call(self.command("COMMAND"), "LIST", "FILTERBY", "MODULE", change.name)
            return _hot.named_by(rules, [str(_client.text(name)) for name in listed], "its")
        # Redis 6 does not tell which module a command is of.
        commands = [name for name, flags in client.commands().items() if "module" in flags]
        return _hot.named_by(rules, commands, "the module")

    def look(self, change: _hot.Change, seen: _observe.Running, version: tuple[int, ...]) -> _hot.Seen:
        """Return what the files of a module say. Raises OSError."""
        entry = self.entries.get(change.name)
        if entry is None:
            return _hot.Seen()
        running, args, new = None, None, None
        if change.step != _hot.LOAD:
            _path, args, file = self.runs(change.name, seen)
            running = code_of(file) if file else None
        if change.step != _hot.UNLOAD and os.path.exists(self.new_file(entry)):
            new = code_of(self.new_file(entry))
        return _hot.Seen(running, new, args)

    def runs(self, name: str, seen: _observe.Running) -> tuple[str, Sequence[str] | None, str]:
        """Return of a running module its path, its arguments (None where nobody knows) and where its file can be read.

        The file is empty where it can't.
        """
        (loaded,) = [module for module in seen.modules if module.name == name]
        path = self.entries[name]["path"] if loaded.path is None else loaded.path
        args: Sequence[str] | None = loaded.args
        if args is None:
            args = _hot.arguments(path, _host.started_with(self.unit), self.confs())
        image = _host.live_images(seen.pid, [path]).get(path)
        return path, args, image.file if image else ""

    def confs(self) -> list[Sequence[_conf.Directive]]:
        """Return the redis.conf that the server may have been started with: the wanted, the present and the former."""
        found: list[Sequence[_conf.Directive]] = [self.directives]
        with contextlib.suppress(OSError, _conf.ConfError):
            found.append(_conf.read(self.params["conf_path"]))
        snapshot = _snapshot.load(_snapshot.folder_of(self.unit))
        return [*found, _snapshot.former_directives(snapshot, self.params["conf_path"])] if snapshot else found

    def refuse(self, changes: Sequence[_hot.Change], obstacles: Sequence[str]) -> None:
        """End where modules may only be changed without a restart, and can't be."""
        strict = [change.name for change in changes if change.strategy == _hot.HOT]
        if strict and obstacles:
            lines = [
                f"module {', '.join(strict)}: strategy is hot, but a change without a restart is not possible:",
                *obstacles,
                "the running server was left as it is; mend that, or set strategy to hot_or_restart",
            ]
            self.module.fail_json(msg="\n".join(lines))

    def switch(self, decision: Decision) -> list[str]:
        """Change the modules of the running server; return why it has to be restarted instead, where it refuses."""
        # The server answers when the module's OnLoad is through.
        client = _client.connect(
            {**self.params, "login_timeout": float(self.params["start_timeout"])},
            _conf.renamed_command(self.directives, "CONFIG"),
        )

        def call(*words: str) -> Any:
            try:
                return client.call(self.command("MODULE"), *words)
            except _client.ServerError as error:
                raise type(error)(_client.without_command(error)) from error

        switch = _hot.Switch(call, lambda name: self.confirm(client, name, decision.seen.pid))
        try:
            settings = client.settings() if client.config_command else {}
            switch.run([self.step(change, decision.seen, settings) for change in decision.changes])
        except _hot.RefusedError as error:
            if all(change.strategy == _hot.HOT_OR_RESTART for change in decision.changes):
                return [str(error)]
            self.take_back(switch, error)
        except (_hot.HotError, _client.ServerError, OSError) as error:
            self.take_back(switch, error)
        finally:
            client.close()
        # The unit's own record for the next start, then that of this process.
        self.module.run_command(["systemctl", "daemon-reload"])
        _host.leave_started_with(self.unit, _conf.start_digest(self.directives, self.params["dropin"]))
        return []

    def step(self, change: _hot.Change, seen: _observe.Running, settings: dict[str, str]) -> _hot.Step:
        """Return how one module is changed, with a kept file to go back to. Raises OSError."""
        entry = self.entries[change.name]
        new = former = None
        if change.step != _hot.UNLOAD:
            new = _hot.Loading(entry["path"], entry["args"], entry["config"])
        if change.step != _hot.LOAD:
            path, args, file = self.runs(change.name, seen)
            own = {name: value for name, value in settings.items() if name.startswith(change.name + ".")}
            former = _hot.Loading(path, args or [], own, _release.keep(os.path.dirname(path), change.name, file))
        return _hot.Step(change.name, former, new)

    def confirm(self, client: _client.Client, name: str, pid: int) -> None:
        """Raise HotError where a module that was loaded does not run as it did in the trial. Raises ServerError."""
        versions = {module.name: module.version for module in self.tried.modules}
        wanted = [w._replace(version=versions.get(name)) for w in self.wanted() if w.name == name]
        seen = _observe.running(client, self.params)._replace(pid=pid)
        for verdict in _observe.verdicts(seen, wanted):
            if verdict.verdict not in _plan.GOOD:
                raise _hot.HotError(f"module {name}: it was loaded, but {'; '.join(verdict.differences)}")

    def take_back(self, switch: _hot.Switch, why: Exception) -> NoReturn:
        """Bring back the modules that ran before, and end with what was done."""
        try:
            done = switch.take_back()
        except (_hot.HotError, OSError) as error:
            done = f"what ran before could not be loaded again: {error}"
        self.fail(f"{why}\n{done}")

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


def code_of(path: str) -> _hot.Code:
    """Return what is known of a module's file without running it. Raises OSError."""
    calls = None if _elf.ELFTOOLS_IMPORT_ERROR else _calls.read(path)
    nodelete = not _elf.ELFTOOLS_IMPORT_ERROR and _elf.inspect(path).nodelete
    return _hot.code(path, calls.functions | calls.guarded if calls else None, nodelete)


def refusal(error: str, change: _plan.SettingChange) -> str:
    """Return the server's reason without the value, which may be a secret."""
    text = _client.without_command(error)
    return text.replace(change.wanted, "...") if len(change.wanted) > 3 else text


STRATEGY = _declaration.MODULE_OPTIONS["strategy"]


SPEC: dict[str, Any] = {
    "argument_spec": {
        "conf": {"type": "str", "required": True, "no_log": True},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
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
                "config": {"type": "dict", "default": {}},
                "strategy": STRATEGY,
            },
        },
        "absent": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "path": {"type": "path", "required": True},
                "strategy": STRATEGY,
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
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    if not os.path.exists(module.params["binary"]) and module.check_mode:
        module.exit_json(changed=True, restarted=True, reasons=["Redis is not installed yet"], hot=[], set=[], users=[])
    if _client.REDIS_IMPORT_ERROR:
        if module.check_mode:
            none: dict[str, Any] = {"reasons": [], "hot": [], "set": [], "users": []}
            module.exit_json(changed=False, restarted=False, skipped_reason="redis-py is not installed yet", **none)
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    try:
        directives = _conf.parse(module.params["conf"])
    except _conf.ConfError as error:
        module.fail_json(msg=f"redis.conf: {error}")
    service = Service(module, directives)
    unit = _host.unit_state(module.run_command, service.unit)
    if unit.get("LoadState") == "not-found" and not module.check_mode:
        module.fail_json(msg=f"there is no unit {service.unit} on this host; install Redis first (role redis_server)")
    decision = service.decide(_host.main_pid(unit))
    reasons, changes = decision.reasons, decision.changes
    wished = any(change.strategy != _hot.RESTART for change in changes)
    obstacles = service.obstacles(decision) if wished else []
    service.refuse(changes, obstacles)
    # A module that is loaded anew comes with its settings.
    settings = [s for s in decision.settings if not s.name.startswith(tuple(c.name + "." for c in changes))]
    if _conf.has_users(directives):
        # To set it would set the default user's password as well, and an empty one would let everybody in.
        settings = [setting for setting in settings if setting.name != "requirepass"]
    # Also before a restart: appendonly has to be switched on in the running server, which has the data.
    comes = bool(reasons) and not (wished and not obstacles)
    names, refused = service.set(settings, comes) if settings else ([], [])
    reasons += refused
    if wished:
        service.refuse(changes, refused)
        if not obstacles + refused and not module.check_mode:
            obstacles = service.switch(decision)
        reasons += [obstacle for obstacle in obstacles if obstacle not in reasons]
    hot = [change.name for change in changes] if wished and not obstacles + refused else []
    restarted = bool(reasons) and not hot
    if restarted:
        service.restart()
    else:
        service.set_users(decision.users)
    # A start reads them from redis.conf.
    users = [] if restarted else decision.users.names
    enable = module.params["enabled"] and unit.get("UnitFileState") not in ("enabled", "static", "alias")
    if enable and not module.check_mode:
        module.run_command(["systemctl", "enable", service.unit], check_rc=True)
    changed = bool(reasons or names or users or enable)
    module.exit_json(changed=changed, restarted=restarted, reasons=reasons, hot=hot, set=names, users=users)
