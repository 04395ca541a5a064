# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Try a configuration and its modules in a throwaway server."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import Any, Iterator, NoReturn, Sequence

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _access,
    _calls,
    _client,
    _conf,
    _data_trial,
    _declaration,
    _elf,
    _host,
    _linker,
    _rehearsal,
    _release,
    _sandbox,
    _scratch,
    _selinux,
    _smoke,
    _trial,
    _unit,
)


class Rehearsal:
    """The trial of one configuration on one host, from reading the files to loading the host's data."""

    def __init__(self, module: AnsibleModule, version: str, directives: Sequence[_conf.Directive]) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.version = version
        self.directives = directives
        self.modules = [{**entry, "artifact": entry["artifact"] or entry["path"]} for entry in self.params["modules"]]
        self.service = _trial.Service(*(self.params[key] for key in _trial.Service._fields))
        self.inspections: dict[str, _elf.Inspection] = {}
        self.calls: dict[str, _calls.Calls | None] = {}
        self.save = _conf.renamed_command(directives, "SAVE")
        self.have = _calls.server_functions(self.params["binary"])

    def run(self) -> dict[str, Any]:
        """Run all of it and return the result. Raises TrialError, OSError, KeyError and SandboxError."""
        _rehearsal.refuse(version_faults(self.version, self.params["minimum_version"], self.modules))
        _rehearsal.refuse(self.place_faults())
        self.inspect()
        _rehearsal.refuse(dropin_faults(self.module, self.directives))
        with self.staged() as modules:
            _rehearsal.refuse(self.linker_faults(modules))
            loaded, found = self.bare(modules)
            data, delete = self.with_data(modules)
        told = {"modules": self.described(loaded, found), "data": data._asdict()}
        return {**told, "delete": delete, "delete_types": sorted(delete)}

    def with_data(self, modules: Sequence[dict[str, Any]]) -> tuple[_data_trial.Told, dict[str, int]]:
        """Try the host's own data. Raises TrialError."""
        types = {name: [kind for kind, _version in calls.types] for name, calls in self.calls.items() if calls}
        return _data_trial.DataTrial(self.module, self.service, self.directives, modules, types).run()

    # Reading, before anything runs

    def place_faults(self) -> list[str]:
        """Return why the module folders can't be trusted, whatever lies in them."""
        data_folder = _conf.value(self.directives, "dir", "/var/lib/redis")
        return [
            fault
            for folder in dict.fromkeys(os.path.dirname(entry["path"]) for entry in self.modules)
            for fault in _access.place_faults(folder, self.params["user"], data_folder, _release.INNER)
        ]

    def inspect(self) -> None:
        """Read each file. Raises TrialError."""
        platform = _host.facts_of_platform()
        faults = []
        for entry in self.modules:
            name, path = entry["name"], entry["artifact"]
            if not os.path.isfile(path):
                faults.append(f"module {name}: there is no file at {path}")
                continue
            inspection = self.inspections[name] = _elf.inspect(path)
            wrong = _elf.misfits(inspection, platform["architecture"], platform["libc"])
            if not wrong:
                calls = self.calls[name] = _calls.read(path)
                wrong = inspection_faults(entry, inspection, _calls.missing(calls, self.have) if calls else [])
            faults += [f"module {name}: {fault} ({path})" for fault in wrong]
        _rehearsal.refuse(faults)
        unread = [name for name, calls in self.calls.items() if calls is None]
        if unread:
            self.module.warn(
                f"module {', '.join(unread)}: which API functions its code calls is not known, so that this server has "
                "them all is not known either"
            )
        for name, inspection in self.inspections.items():
            if inspection.allocators:
                self.module.warn(
                    f"module {name}: it asks the system for memory ({', '.join(inspection.allocators)}), which "
                    "maxmemory does not see"
                )

    @contextlib.contextmanager
    def staged(self) -> Iterator[list[dict[str, Any]]]:
        """Lay each new file beside its path, with its owner and mode, until the block ends; return where they are."""
        staged: list[dict[str, Any]] = []
        folders: list[str] = []
        made: list[str] = []
        freed = contextlib.ExitStack()
        try:
            for entry in self.modules:
                if self.in_place(entry):
                    staged.append({**entry, "artifact": entry["path"]})
                    continue
                if self.module.check_mode or entry["artifact"] == entry["path"]:
                    staged.append(entry)
                    continue
                # Its name is its own, as a run that lost its controller may still be at work beside us.
                folder = os.path.join(os.path.dirname(entry["path"]), _release.STAGED, str(os.getpid()))
                if folder not in folders:
                    freed.enter_context(_access.freed(os.path.dirname(entry["path"])))
                    folders.append(folder)
                    made += _release.missing_folders(os.path.dirname(os.path.dirname(folder)))
                    _release.make_folders(folder)
                uid, gid = _release.owner_ids(self.params["owner"], self.params["group"])
                target = os.path.join(folder, os.path.basename(entry["path"]))
                _release.replace(entry["artifact"], target, uid, gid, int(self.params["mode"], 8))
                _selinux.label_as_code(target)
                staged.append({**entry, "artifact": target})
            yield staged
        finally:
            for folder in folders:
                shutil.rmtree(folder, ignore_errors=True)
                with contextlib.suppress(OSError):
                    os.rmdir(os.path.dirname(folder))
            # Where this is the first module of the host, the module folder was made for the trial.
            for folder in made:
                with contextlib.suppress(OSError):
                    os.rmdir(folder)
            freed.close()

    def in_place(self, entry: dict[str, Any]) -> bool:
        """Whether the file to try is what lies at its path already."""
        found = _host.file_state(entry["path"])
        wanted = tuple(self.params[key] for key in ("owner", "group", "mode"))
        return (
            found is not None
            and (found.owner, found.group, found.mode) == wanted
            and found.sha256 == _host.sha256_of(entry["artifact"])
        )

    def linker_faults(self, modules: Sequence[dict[str, Any]]) -> list[str]:
        """Return what this host's dynamic linker does not find."""
        return [
            f"module {entry['name']}: {fault}"
            for entry in modules
            for fault in _linker.faults(
                self.module.run_command, self.params["binary"], entry["artifact"], self.params["user"]
            )
        ]

    # An empty server

    def bare(self, modules: Sequence[dict[str, Any]]) -> tuple[_trial.Trial, _rehearsal.Found]:
        """Start a server without data, send the smoke commands, save, start again. Raises TrialError."""
        paths = {entry["path"]: entry["artifact"] for entry in modules}
        directives = [*_conf.with_module_paths(self.directives, paths), *_rehearsal.QUIET]
        acl = _conf.renamed_command(self.directives, "ACL") if _conf.has_users(self.directives) else ""
        visit = _rehearsal.Visit(modules, self.save, acl)
        with _trial.Workshop(_trial.sandboxed(self.module.run_command, self.service, paths), self.service) as shop:
            trial = shop.run(directives, visit)
            number = _trial.silent(trial, modules)
            if number is not None:
                fault = f"{_trial.startup_fault(trial, modules)}; {self.collisions(shop, directives, modules, number)}"
                _rehearsal.refuse(fault, trial.log)
            self.judge(trial, modules, visit.doing)
            found: _rehearsal.Found = trial.found
            allocators = {name: inspection.allocators for name, inspection in self.inspections.items()}
            starters = {name: inspection.starters for name, inspection in self.inspections.items()}
            _rehearsal.refuse(found.fault, trial.log)
            _rehearsal.refuse(_rehearsal.burdens(found, modules, allocators, starters), trial.log)
            # Also where nothing reads: what was written has to load.
            if found.answers:
                revisit = _rehearsal.Return(found.answers)
                again = shop.run(directives, revisit)
                if again.error and not again.came_up:
                    names = ", ".join(dict.fromkeys(answer.module for answer in found.answers))
                    why = f"module {names}: a server does not start from what it saved ({again.error})"
                    _rehearsal.refuse(f"{why}: {_rehearsal.reason(again)}", again.log)
                self.judge(again, modules, revisit.doing)
                _rehearsal.refuse(again.found, again.log)
        # Where the server is switched over in this process, its settings are compared with these.
        files = {entry["path"]: entry["artifact"] for entry in modules}
        settings = _rehearsal.unquiet(trial.settings, self.directives)
        if settings is not None:
            told = trial._replace(settings=settings, found=found.users)
            _trial.keep(self.service, self.directives, files, told)
        return trial, found

    def collisions(
        self,
        shop: _trial.Workshop,
        directives: Sequence[_conf.Directive],
        modules: Sequence[dict[str, Any]],
        number: int,
    ) -> str:
        """Return why a module may give up that does not say it: ask a server with those before it alone."""
        later = {entry["artifact"] for entry in modules[number:]}
        owners = {entry["name"] for entry in modules[number:]}
        before = [
            d
            for d in directives
            if not (d.name == "loadmodule" and d.args[0] in later) and d.name.split(".")[0] not in owners
        ]
        used = dict(shop.run(before, _rehearsal.names_in_use).found or {})
        types = [self.calls.get(entry["name"]) for entry in modules[:number]]
        used["data type"] = [kind for calls in types if calls for kind, _version in calls.types]
        return _rehearsal.collisions(modules[number]["artifact"], used)

    def judge(self, trial: _trial.Trial, modules: Sequence[dict[str, Any]], doing: tuple[str, str]) -> None:
        """Refuse a server that did not come up, or did not stay, or is not as declared. Raises TrialError."""
        ended = _rehearsal.ended(trial, doing)
        _rehearsal.refuse(ended, trial.log)
        aclfile = _conf.value(self.directives, "aclfile", "")
        if trial.error and aclfile and os.path.isfile(aclfile):
            with open(aclfile, encoding="utf-8", errors="surrogateescape") as stream:
                _rehearsal.refuse(_rehearsal.acl_faults(trial.log, aclfile, stream.read()), ())
        _rehearsal.refuse(_trial.faults(trial, modules), trial.log)

    # The result

    def described(self, trial: _trial.Trial, found: _rehearsal.Found) -> list[dict[str, Any]]:
        """Return the C(modules) of the result."""
        described = []
        for module in trial.modules:
            calls = self.calls.get(module.name)
            api = "not known" if calls is None else "missing" if _calls.missing(calls, self.have) else "complete"
            described.append(
                {
                    "name": module.name,
                    "version": module.version,
                    "commands": found.commands.get(module.name, []),
                    "types": dict(calls.types) if calls else None,
                    "config": {k: v for k, v in trial.settings.items() if k.startswith(module.name + ".")},
                    "api": api,
                }
            )
        return described


def inspection_faults(entry: dict[str, Any], inspection: _elf.Inspection, missing: Sequence[str]) -> list[str]:
    """Return what is wrong with a file that a server might still load, unless the entry accepts it."""
    found = []
    if inspection.executable_stack:
        found.append(("executable_stack", "it asks for an executable stack; link it with -z noexecstack"))
    if inspection.text_relocations:
        found.append(("text_relocations", "its code is changed while it is loaded; compile it with -fPIC"))
    if missing:
        found.append(
            (
                "missing_api",
                f"it calls {', '.join(missing)}, which this redis-server does not have: the first call would crash it",
            )
        )
    return [f"{what}, or accept: [{risk}] in its entry" for risk, what in found if risk not in entry["accept"]]


def version_faults(version: str, minimum: str, modules: list[dict[str, Any]]) -> list[str]:
    """Return what this version of Redis is too old for."""
    have = _host.version_tuple(version)
    if have < _host.version_tuple(minimum):
        return [f"Redis {version} is older than {minimum}, the oldest that this collection knows"]
    return [
        f"module {m['name']}: config needs Redis 7.0 or later, this host has {version}; give it as args instead"
        for m in modules
        if m["config"] and have < (7,)
    ]


def dropin_faults(module: AnsibleModule, directives: Sequence[_conf.Directive]) -> list[str]:
    """Return what systemd finds wrong with the drop-in that the unit is going to have."""
    unit, dropin = module.params["unit"], module.params["dropin"]
    if not dropin or _unit.is_there(unit, dropin):
        return []
    fragment = _host.unit_state(module.run_command, unit).get("FragmentPath")
    if not fragment:
        return []
    whole = _unit.completed(dropin, unit, directives, module.params["conf_path"])
    found = _unit.faults(module.run_command, unit, fragment, whole)
    return [f"systemd does not accept the drop-in; correct redis_server_dropin_lines: {fault}" for fault in found]


ENTRY_OPTIONS = {
    key: _declaration.MODULE_OPTIONS[key] for key in ("name", "args", "version", "config", "smoke", "accept")
}


SPEC: dict[str, Any] = {
    "argument_spec": {
        "conf": {"type": "str", "required": True, "no_log": True},
        "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
        "modules": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                **ENTRY_OPTIONS,
                "path": {"type": "path", "required": True},
                "artifact": {"type": "path"},
            },
        },
        "absent": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {key: ENTRY_OPTIONS[key] for key in ("name", "accept")},
        },
        "data_limit": {"type": "int", "default": 1024},
        "data_folder": {"type": "path", "default": "/var/lib/edgeops-redis-modules"},
        "data_timeout": {"type": "int", "default": 300},
        "binary": {"type": "path", "default": "/usr/bin/redis-server"},
        "unit": {"type": "str", "default": "redis-server.service"},
        "dropin": {"type": "str", "default": ""},
        "user": {"type": "str", "default": "redis"},
        "owner": {"type": "str", "default": "redis"},
        "group": {"type": "str", "default": "redis"},
        "mode": {"type": "str", "default": "0555"},
        "minimum_version": {"type": "str", "default": "4.0"},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    params = module.params
    version = _host.server_version(module.run_command, params["binary"])
    if not version:
        if module.check_mode:
            module.exit_json(changed=False, skipped_reason=f"there is no {params['binary']} yet to try it with")
        module.fail_json(msg=f"there is no redis-server at {params['binary']}; install Redis first (role redis_server)")
    libraries = [("redis", _client.REDIS_IMPORT_ERROR), ("pyelftools", _elf.ELFTOOLS_IMPORT_ERROR)]
    if any(smoke.get("query") for entry in params["modules"] for smoke in entry["smoke"]):
        libraries.append(("jmespath", _smoke.JMESPATH_IMPORT_ERROR))
    for library, missing in libraries:
        if missing and module.check_mode:
            module.exit_json(
                changed=False, version=version, skipped_reason=f"the Python library {library} is not installed yet"
            )
        if missing:
            module.fail_json(msg=missing_required_lib(library), exception=missing)
    unbuilt = [m["name"] for m in params["modules"] if not os.path.exists(m["artifact"] or m["path"])]
    if unbuilt and module.check_mode:
        module.exit_json(changed=False, version=version, skipped_reason=f"{', '.join(unbuilt)} is not built yet")
    try:
        directives = _conf.parse(params["conf"])
    except _conf.ConfError as error:
        module.fail_json(msg=f"redis.conf: {error}", version=version)
    _scratch.clear_left(module.run_command)
    try:
        result = Rehearsal(module, version, directives).run()
    except _rehearsal.TrialError as refused:
        fail(module, version, refused)
    except (OSError, KeyError, _sandbox.SandboxError) as error:
        module.fail_json(msg=f"the trial could not be run: {error}", version=version)
    module.exit_json(changed=False, version=version, **result)


def fail(module: AnsibleModule, version: str, refused: _rehearsal.TrialError) -> NoReturn:
    """End with what is wrong and the throwaway server's last lines."""
    log = refused.log[-_trial.LOG_LINES :]
    lines = [str(refused)]
    if log:
        lines += ["the live server was not touched; the throwaway server's last lines:", *log]
    module.fail_json(msg="\n".join(lines), version=version, log=log)
    raise AssertionError("fail_json ends the process")
