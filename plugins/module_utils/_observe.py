# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at the modules of a host: what runs, what lies on disk, what is mapped."""

from __future__ import annotations

import os
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _access, _client, _host, _plan, _release

LOOPBACK = ("127.", "::1", "localhost")


class Running(NamedTuple):
    """A running server as it reports itself; I(pid) is 0 where it is not on this host."""

    info: dict[str, str]
    modules: list[_client.LoadedModule]
    pid: int


def running(client: _client.Client, params: Mapping[str, Any]) -> Running:
    """Ask the server. Raises ServerError."""
    info = client.info()
    return Running(info, client.modules(), _local_pid(info, params))


def _local_pid(info: Mapping[str, str], params: Mapping[str, Any]) -> int:
    """Return the server's pid where the connection proves that it runs on this host, else 0."""
    return int(info.get("process_id", "0")) if is_local(params) else 0


def is_local(params: Mapping[str, Any]) -> bool:
    """Whether the connection can be to this host alone."""
    return bool(params.get("login_unix_socket")) or str(params.get("login_host")).startswith(LOOPBACK)


class Folder(NamedTuple):
    """The module folder as it has to be: I(path) is empty where nobody asks. I(user) is the service's."""

    path: str = ""
    group: str = ""
    user: str = ""
    data_folder: str = ""


NO_FOLDER = Folder()


def access(wanted: Sequence[_plan.Wanted], folder: Folder) -> dict[str, list[str]]:
    """Return what is wrong with who can change each module's file or put another in its place, by its path."""
    of_folder: list[str] = []
    if folder.path:
        of_folder = _access.folder_differences(_access.look(folder.path), folder.group)
        of_folder += _access.place_faults(folder.path, folder.user, folder.data_folder, _release.INNER)
    return {
        w.path: _access.differences(_access.look(w.path))
        + (of_folder if os.path.dirname(w.path) == os.path.normpath(folder.path or "/") else [])
        for w in wanted
    }


def verdicts(seen: Running, wanted: Sequence[_plan.Wanted], folder: Folder = NO_FOLDER) -> list[_plan.Verdict]:
    """Judge each wanted module against the running server and the files of this host."""
    loaded = {module.name: module for module in seen.modules}
    images = _host.live_images(seen.pid, [w.path for w in wanted]) if seen.pid else {}
    found = access(wanted, folder)
    return [
        _plan.judge(w, loaded.get(w.name), _host.file_state(w.path), images.get(w.path), access=found[w.path])
        for w in wanted
    ]


def verdicts_without_server(wanted: Sequence[_plan.Wanted], folder: Folder = NO_FOLDER) -> list[_plan.Verdict]:
    """Judge each wanted module where no server answers."""
    found = access(wanted, folder)
    return [
        _plan.judge(w, None, _host.file_state(w.path), None, server_runs=False, access=found[w.path]) for w in wanted
    ]


def strangers(seen: Running, wanted: Sequence[_plan.Wanted]) -> list[_plan.Verdict]:
    """Return a verdict on each module that runs and that nobody declared."""
    return [
        _plan.Verdict(m.name, _plan.UNDECLARED, ["it runs, but nobody declared it"], m.version, m.path or "", "", "")
        for m in _plan.undeclared(seen.modules, [w.name for w in wanted])
    ]
