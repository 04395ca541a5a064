# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Remember the files that a rollout is going to change, so that they can be put back.

A snapshot is open from before the first change until the new state is confirmed. One that is still open when the next
run begins is kept: it is the last state that is known to have been whole.
"""

from __future__ import annotations

import glob
import io
import json
import os
import re
import shutil
from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _conf,
    _host,
    _places,
    _release,
    _scratch,
    _topology,
)

FOLDER = _places.SNAPSHOT
INDEX = "index.json"
EVERYWHERE = ("*", "0.0.0.0", "::", "::*")  # noqa: S104


class Kept(NamedTuple):
    """One file as it was: where its copy is, empty where there was none, and its owner, group and mode."""

    path: str
    copy: str
    owner: str
    group: str
    mode: str


class Snapshot(NamedTuple):
    """What a host was before a rollout.

    I(start) names the start of the server's process by systemd's InvocationID and its start digest, and is empty
    where none ran: a pid may come again after a boot. I(images) maps the modules' files to the digests of what the
    process has mapped. I(modules) maps its modules to their versions, I(settings) is its CONFIG GET *, with secrets,
    and I(users) are the words of its users' rules by name; None where nobody could ask.
    """

    files: list[Kept]
    start: str
    images: dict[str, str]
    modules: dict[str, int] | None
    settings: dict[str, str] | None
    users: dict[str, list[str]] | None = None


def folder_of(unit: str) -> str:
    """Return where the snapshot of a unit's server is kept: several on one host have one each."""
    return FOLDER + _places.instance(unit)


def load(folder: str) -> Snapshot | None:
    """Return the open snapshot in I(folder); None where there is none."""
    try:
        with open(os.path.join(folder, INDEX), encoding="utf-8") as stream:
            index = json.load(stream)
    except FileNotFoundError:
        return None
    return Snapshot(**{**index, "files": [Kept(*kept) for kept in index["files"]]})


def take(
    folder: str,
    paths: list[str],
    start: str,
    images: dict[str, str],
    modules: dict[str, int] | None,
    settings: dict[str, str] | None,
    users: dict[str, list[str]] | None = None,
) -> Snapshot:
    """Copy the files at I(paths) and open a snapshot; the index comes last, as it says that all is whole.

    Raises OSError.
    """
    shutil.rmtree(folder, ignore_errors=True)
    _release.make_folders(os.path.dirname(folder))
    os.mkdir(folder, 0o700)
    _release.sync_folder(os.path.dirname(folder))
    files = []
    for number, path in enumerate(paths):
        found = _host.file_state(path)
        if found is None:
            files.append(Kept(path, "", "", "", ""))
            continue
        copy = os.path.join(folder, f"{number}-{os.path.basename(path)}")
        _release.replace(path, copy, 0, 0, 0o600, keep_time=True)
        files.append(Kept(path, copy, found.owner, found.group, found.mode))
    snapshot = Snapshot(files, start, images, modules, settings, users)
    _release.write(io.BytesIO(json.dumps(snapshot._asdict()).encode()), os.path.join(folder, INDEX), 0, 0, 0o600)
    return snapshot


def close(folder: str) -> None:
    """Forget the snapshot, as what is there now is confirmed, and what runs that died left beside its files.

    The index goes first. Raises OSError, and KeyError or ValueError where it can't be read.
    """
    snapshot = load(folder)
    if snapshot is None:
        return
    os.unlink(os.path.join(folder, INDEX))
    _release.sync_folder(folder)
    shutil.rmtree(folder, ignore_errors=True)
    for kept in snapshot.files:
        for temporary in _release.temporaries(kept.path):
            _release.remove(temporary)
    trials = [os.path.join(os.path.dirname(path), _release.STAGED) for path in module_paths(snapshot)]
    # A trial on the host's own data has a copy of them. One that another instance's rollout is at lives on.
    beside = glob.glob(f"{glob.escape(os.path.dirname(folder))}/{_scratch.TRIAL}*")
    trials += [path for path in beside if _scratch.is_left(path)]
    for path in trials:
        shutil.rmtree(path, ignore_errors=True)


def put_back(snapshot: Snapshot) -> list[str]:
    """Put every file back that is not as it was, by rename, and return their paths. Raises OSError and KeyError.

    What was not there before goes last, after redis.conf no longer names it.
    """
    done = []
    for kept in sorted(snapshot.files, key=lambda kept: not kept.copy):
        found = _host.file_state(kept.path)
        if not kept.copy:
            if found is not None:
                os.unlink(kept.path)
                _release.sync_folder(os.path.dirname(kept.path))
                done.append(kept.path)
            continue
        before = _host.FileState(
            kept.path, kept.owner, kept.group, kept.mode, _host.sha256_of(kept.copy), os.path.getsize(kept.copy)
        )
        if found != before:
            uid, gid = _release.owner_ids(kept.owner, kept.group)
            _release.make_folders(os.path.dirname(kept.path))
            _release.replace(kept.copy, kept.path, uid, gid, int(kept.mode, 8), keep_time=True)
            done.append(kept.path)
    return done


def keep_primary(conf_path: str, follows: str) -> bool:
    """Let the redis.conf that was put back name whom the server follows by now, and return whether it did not.

    I(follows) is C(HOST PORT), empty for nobody. A failover may have changed that since, and a start must not undo it.
    Only in a redis.conf that this collection wrote: from then on failovers decide. Raises OSError and KeyError.
    """
    if not _conf.is_ours(conf_path) or _topology.declared_primary(_conf.directives_of(conf_path)) == follows:
        return False
    found = _host.file_state(conf_path)
    if found is None:
        return False
    with open(conf_path, encoding="utf-8", errors="surrogateescape") as stream:
        lines = stream.read().rstrip("\n").split("\n")
    lines = [line for line in lines if not re.match(r"\s*(replicaof|slaveof)\s", line, re.IGNORECASE)]
    text = "\n".join([*lines, *([f"replicaof {follows}"] if follows else [])]) + "\n"
    uid, gid = _release.owner_ids(found.owner, found.group)
    _release.write(io.BytesIO(text.encode("utf-8", "surrogateescape")), conf_path, uid, gid, int(found.mode, 8))
    return True


def former_directives(snapshot: Snapshot, conf_path: str) -> list[_conf.Directive]:
    """Return what the redis.conf of before says, as _conf.directives_of() does."""
    return _conf.directives_of(next((kept.copy for kept in snapshot.files if kept.path == conf_path), ""))


def module_paths(snapshot: Snapshot) -> list[str]:
    """Return where the modules' files lie or would have lain."""
    return [kept.path for kept in snapshot.files if kept.path.endswith(".so")]


def expected_images(snapshot: Snapshot, directives: Sequence[_conf.Directive]) -> dict[str, str]:
    """Return path and digest of the files that a start with the redis.conf of before maps. Raises OSError."""
    loaded = {d.args[0] for d in directives if d.name == "loadmodule" and d.args}
    return {kept.path: _host.sha256_of(kept.copy) for kept in snapshot.files if kept.copy and kept.path in loaded}


def same_images(expected: Mapping[str, str], live: Mapping[str, str]) -> bool:
    """Whether a process has mapped what it should; a digest that can't be read (empty) is no difference."""
    return set(expected) == set(live) and all(
        not live[path] or not digest or live[path] == digest for path, digest in expected.items()
    )


def has_to_start(snapshot: Snapshot, unit: Mapping[str, str], start: str, live: Mapping[str, str]) -> bool:
    """Whether the server has to be started to be what it was: it was started since, or other modules are in it.

    I(unit) is what systemd says of it, I(start) and I(live) are the snapshot's I(start) and I(images) by now.
    """
    if not snapshot.start:
        return unit.get("ActiveState") != "inactive"
    return start != snapshot.start or not same_images(snapshot.images, live)


def changed_settings(before: Mapping[str, str], now: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of a running server that are not as before, with their values of before.

    Whom it follows is a failover's business.
    """
    return {
        name: value
        for name, value in sorted(before.items())
        if name in now and now[name] != value and name not in ("replicaof", "slaveof")
    }


def logins(params: Mapping[str, Any], directives: Sequence[_conf.Directive]) -> list[dict[str, Any]]:
    """Return the logins to try, in this order: the declared one, then as the redis.conf of before has the server.

    I(params) are a module's arguments (see _client.LOGIN_ARGUMENTS). Each place goes with the declared user and
    password, and with the password of the redis.conf.
    """
    places: list[dict[str, Any]] = [{}]
    listens = (_conf.value(directives, "bind", "127.0.0.1").split() or ["127.0.0.1"])[0].lstrip("-")
    tcp = {
        "login_unix_socket": None,
        "login_host": "127.0.0.1" if listens in EVERYWHERE else listens,
    }
    port, tls_port = _conf.value(directives, "port", "6379"), _conf.value(directives, "tls-port", "0")
    if port != "0":
        places.append({**tcp, "login_port": int(port), "tls": False})
    if tls_port != "0":
        certificates = {
            key: params.get(key) or _conf.value(directives, name, "") or None
            for key, name in (
                ("ca_certs", "tls-ca-cert-file"),
                ("client_cert_file", "tls-cert-file"),
                ("client_key_file", "tls-key-file"),
            )
        }
        places.append({**tcp, "login_port": int(tls_port), "tls": True, **certificates})
    if _conf.value(directives, "unixsocket", ""):
        places.append({"login_unix_socket": _conf.value(directives, "unixsocket", "")})
    own_password = {"login_user": None, "login_password": _conf.value(directives, "requirepass", "") or None}
    found: list[dict[str, Any]] = []
    for place in places:
        for credentials in ({}, own_password):
            login = {**params, **place, **credentials}
            if login not in found:
                found.append(login)
    return found
