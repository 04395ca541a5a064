# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load a copy of a host's own data under new modules, before the live server does.

What can't be read is a one-way door: a server with such an RDB does not start. It is refused, unless an entry accepts
that the keys are deleted; then that is rehearsed on the copy as well.
"""

from __future__ import annotations

import os
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _data,
    _host,
    _observe,
    _plan,
    _rehearsal,
    _release,
    _trial,
)

COUNT_SECONDS = 20.0
"""How long the live server's keys are counted for, where the message needs it."""


class Told(NamedTuple):
    """Whether the data was tried; why not, or where it came from; the bytes of its RDB."""

    tried: bool
    reason: str
    bytes: int = 0


class DataTrial:
    """The trial of a host's data under new modules.

    I(module) is the AnsibleModule with the options of redis_trial, I(directives) the new redis.conf, I(modules) its
    modules with the files to try as C(artifact), and I(types) the data types of each, where they are known.
    """

    def __init__(
        self,
        module: Any,
        service: _trial.Service,
        directives: Sequence[_conf.Directive],
        modules: Sequence[Mapping[str, Any]],
        types: Mapping[str, Sequence[str]],
    ) -> None:
        self.module = module
        self.params: dict[str, Any] = module.params
        self.service = service
        self.directives = directives
        self.modules = modules
        self.types = types
        self.save = _conf.renamed_command(directives, "SAVE")
        self.now = _conf.directives_of(self.params["conf_path"])
        self.rdb = _conf.rdb_path(self.now)
        self.going: list[str] = []
        self.changed: list[str] = []

    def run(self) -> tuple[Told, dict[str, int]]:
        """Return what was tried, and how many keys of which types have to be deleted before the switch.

        Raises TrialError, OSError and SandboxError.
        """
        try:
            client = _client.connect(self.params, _conf.renamed_command(self.now, "CONFIG"))
        except _client.ServerError as error:
            return self.of_file(str(error))
        try:
            return self.of_server(client)
        except _client.ServerError as error:
            raise _rehearsal.TrialError([f"the running server can't be asked for its data: {error}"]) from error
        finally:
            client.close()

    @property
    def blamed(self) -> str:
        """The modules by which the data can be hurt, for a message."""
        return "module " + ", ".join(self.going or self.changed)

    def of_server(self, client: _client.Client) -> tuple[Told, dict[str, int]]:
        """Try the data of the running server, where its modules change."""
        seen = _observe.running(client, self.params)
        self.going = [m.name for m in _plan.undeclared(seen.modules, [entry["name"] for entry in self.modules])]
        self.changed = _plan.changed_modules(
            seen.modules,
            _host.live_images(seen.pid, [entry["path"] for entry in self.modules]),
            self.modules,
            {entry["path"]: _host.sha256_of(entry["artifact"]) for entry in self.modules},
        )
        if not self.going and not self.changed:
            return Told(False, "no module changes"), {}
        size = _data.size(seen.info)
        beyond = self.beyond_limit(size)
        if beyond:
            self.refuse_blind(client, beyond)
            return Told(False, beyond), {}

        def fetch(target: str) -> str:
            saved = _data.is_saved(seen.info)
            if saved or self.module.check_mode:
                why = "nothing has changed since" if saved else "check mode does not have the server stream"
                source = self.copy_file(target, why)
                if (source and _data.is_whole(target)) or self.module.check_mode:
                    return source
            try:
                _data.fetch(self.module.run_command, client, self.params, target)
            except (_data.DataError, _client.ServerError) as error:
                return self.copy_file(target, f"the server could not stream its data ({error})")
            return "streamed by the running server"

        return self.of_copy(size, fetch, client)

    def of_file(self, why: str) -> tuple[Told, dict[str, int]]:
        """Try the RDB file that lies there, as no server answers."""
        if not os.path.isfile(self.rdb):
            return Told(False, f"no server answers ({why}), and there is no {self.rdb}"), {}
        size = os.path.getsize(self.rdb)
        beyond = self.beyond_limit(size)
        if beyond:
            self.module.warn(f"the modules were not tried on the data of this host: {beyond}")
            return Told(False, beyond), {}
        self.changed = [entry["name"] for entry in self.modules]
        return self.of_copy(size, lambda target: self.copy_file(target, "no server answers"), None)

    def beyond_limit(self, size: int) -> str:
        """Return why data of this size is not to be tried; empty where it is."""
        limit = int(self.params["data_limit"])
        return f"the data takes {_data.mib(size)}, the limit is {limit} MiB" if size > limit << 20 or not limit else ""

    def copy_file(self, target: str, why: str) -> str:
        """Copy the RDB file that lies there; return where the data came from, empty where there is none."""
        try:
            age = _data.copy_file(self.rdb, target)
        except FileNotFoundError:
            return ""
        return f"{self.rdb}, {age} s old; {why}"

    def refuse_blind(self, client: _client.Client, why: str) -> None:
        """Refuse to take a module away untried while there are keys that may be its own; else warn."""
        keys = _data.module_keys(client, COUNT_SECONDS) if self.going else _data.Keys({}, True)
        if keys.counts or not keys.complete:
            _rehearsal.refuse(
                f"{self.blamed}: it is to go, and the keyspace has keys of modules' types: {keys}. Whose they are is "
                f"not known, as the data is not tried ({why}). Raise redis_server_trial_data_limit, or delete them"
            )
        self.module.warn(f"the modules were not tried on the data of this host: {why}")

    def refuse_without_room(self, size: int, folder: str) -> None:
        """Refuse where there is no room for a trial on data of this size in I(folder)."""
        with open("/proc/meminfo", encoding="ascii") as stream:
            memory = _data.free_memory(stream.read())
        fault = _data.room_fault(size, _data.free_disk(folder), memory)
        if fault:
            _rehearsal.refuse(
                f"there is no room to try the modules on this host's data: {fault}. Make room, or lower "
                "redis_server_trial_data_limit below the size of the data to go on untried"
            )

    def of_copy(
        self, size: int, fetch: Callable[[str], str], client: _client.Client | None
    ) -> tuple[Told, dict[str, int]]:
        """Load a copy under the new modules and save it; see whether deletions that are accepted mend what fails."""
        folder = self.params["data_folder"]
        if not self.module.check_mode:
            _release.make_folders(folder)
        while not os.path.isdir(folder):
            folder = os.path.dirname(folder)
        self.refuse_without_room(size, folder)
        paths = {entry["path"]: entry["artifact"] for entry in self.modules}
        directives = [*_conf.with_module_paths(self.directives, paths), *_rehearsal.QUIET]
        server = _trial.sandboxed(self.module.run_command, self.service, paths, data=True)
        visit = _rehearsal.Save(self.save)
        limit = self.params["data_timeout"]
        delete: dict[str, int] = {}
        with _trial.Workshop(server, self.service, folder) as shop:
            rdb = os.path.basename(_conf.value(self.directives, "dbfilename", "dump.rdb"))
            source = fetch(shop.path(rdb))
            if not source:
                return Told(False, "there is no RDB to copy"), {}
            shop.give(rdb)
            told = Told(True, source, os.path.getsize(shop.path(rdb)))
            trial = shop.run(directives, visit, limit, limit)
            while trial.error and not trial.came_up:
                # A server stops at the first type that it can't read, and a module may have several.
                more = self.given_up(trial, client, delete)
                self.delete_in_copy(shop, list(more), limit)
                delete.update(more)
                trial = shop.run(directives, visit, limit, limit)
            ended = _rehearsal.ended(trial, (", ".join(self.going or self.changed), "SAVE"))
            _rehearsal.refuse(f"{ended}, with this host's data" if ended else "", trial.log)
        return told, delete

    def given_up(self, trial: _trial.Trial, client: _client.Client | None, before: Mapping[str, int]) -> dict[str, int]:
        """Return the types that the data does not load with and whose keys may be deleted; refuse other ones."""
        keys = _data.module_keys(client, COUNT_SECONDS) if client else _data.Keys({}, False)
        lost = self.lost(trial)
        found = {kind: count for kind, count in keys.counts.items() if kind in lost and kind not in before}
        accepts = all(self.accepts(kind) for kind in lost) if lost else self.accepts("")
        if accepts and found and client and keys.complete:
            return found
        fault = (
            f"{self.blamed}: this host's data does not load with the new modules ({trial.error}): "
            f"{_rehearsal.reason(trial)}. Keys of modules' types in the keyspace: {keys}. Keep the release that runs"
        )
        aux = _rehearsal.lost_aux(trial.log)
        if aux:
            fault += f": the RDB has AUX fields of {', '.join(aux)}, which deleting keys does not mend"
        elif not accepts:
            fault += (
                "; or, to lose them, name delete_keys in accept of its entry: they are deleted once the RDB is saved"
            )
        elif not found:
            fault += ": which keys to delete is not known"
        raise _rehearsal.TrialError([fault], trial.log)

    def lost(self, trial: _trial.Trial) -> set[str]:
        """Return the types that the data does not load with: by the log, or those of the one module that misreads them.

        What may have another reason, too little time or memory above all, gives up nothing.
        """
        named = set(_rehearsal.lost_types(trial.log))
        if named or self.going or not _rehearsal.misread(trial.log):
            return named
        owners = [name for name in self.changed if self.types.get(name)]
        told = [name for name in _rehearsal.lost_modules(trial.log) if name in owners]
        (owner,) = told if len(told) == 1 else owners if len(owners) == 1 else [""]
        return set(self.types.get(owner, ()))

    def accepts(self, kind: str) -> bool:
        """Whether the entry of the module of this type accepts that its keys go; of all that may be its, if unknown."""
        owners = [name for name in self.changed if kind in self.types.get(name, ())] or self.going or self.changed
        entries = [*self.params["modules"], *self.params["absent"]]
        return all(_rehearsal.accepted(entries, [owner], "delete_keys") for owner in owners)

    def delete_in_copy(self, shop: _trial.Workshop, types: Sequence[str], limit: int) -> None:
        """Delete the keys in the copy, with the modules that run now."""

        def visit(client: _client.Client, loaded: Sequence[_client.LoadedModule]) -> None:
            _data.delete(client, types)
            client.call("SAVE")

        ours = ("loadmodule", "rename-command", "aclfile", "user")
        plain = [d for d in self.directives if d.name not in ours and "." not in d.name]
        trial = shop.run([*plain, *_rehearsal.module_lines(self.now), *_rehearsal.QUIET], visit, limit, limit)
        if trial.error:
            why = f"a copy of this host's data does not load with the modules of now ({trial.error})"
            _rehearsal.refuse(f"{why}: {_rehearsal.reason(trial)}", trial.log)
