# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a server and the shard that it is a copy of are well."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _health, _topology

PAUSE = 0.25
"""Seconds between two looks."""
WINDOW = 1.0
"""Seconds over which errors are watched once all else is well."""
PINGS = 20


def latency(client: _client.Client) -> float:
    """Return how long the slowest of some PINGs takes, in milliseconds. Raises ServerError."""
    slowest = 0.0
    for _number in range(PINGS):
        start = time.monotonic()
        client.call("PING")
        slowest = max(slowest, time.monotonic() - start)
    return slowest * 1000


def info_of(client: _client.Client) -> dict[str, str]:
    """Return INFO with the section of the commands. Raises ServerError."""
    return _client.parse_info(client.call("INFO", "all"))


class Watch:
    """Looks at one server and its primary, again and again, over the same connections."""

    def __init__(self, params: dict[str, Any]) -> None:
        self.params = params
        self.clients: dict[str, _client.Client] = {}
        self.sampled = ("", 0)

    def client(self, host: str = "", port: int = 0) -> _client.Client:
        """Return a connection to the server, or to the one at I(host) and I(port). Raises ServerError."""
        name = f"{host}:{port}"
        if name not in self.clients:
            there = {"login_host": host, "login_port": port, "login_unix_socket": None} if host else {}
            self.clients[name] = _client.connect({**self.params, **there})
        return self.clients[name]

    def look(self) -> _health.Seen:
        """Look once. Raises ServerError where the server itself can't be asked."""
        client = self.client()
        own = info_of(client)
        seen = _health.Seen(own, own, latency=latency(client))
        if own.get("role") == "slave":
            try:
                seen = seen._replace(primary=info_of(self.client(*_health.primary_of(own))))
            except _client.ServerError as error:
                seen = seen._replace(primary={}, primary_error=str(error))
        if _topology.is_clustered(own):
            state = _client.parse_info(client.call("CLUSTER", "INFO"))
            seen = seen._replace(state=state, nodes=str(_client.text(client.call("CLUSTER", "NODES"))))
        # What this primary had at the first look is what all have to reach; it goes on meanwhile.
        start = seen.primary.get("run_id", "")
        if self.sampled[0] != start:
            self.sampled = (start, _health.offset(seen.primary))
        return seen._replace(offset=self.sampled[1])

    def faults(self) -> tuple[_health.Seen | None, list[str]]:
        """Look once, and return what is wrong."""
        try:
            seen = self.look()
        except _client.ServerError as error:
            self.close()
            return None, [f"it can't be asked: {error}"]
        params = self.params
        return seen, _health.faults(seen, params["replicas"], params["longest_ping"], params["may_be_down"])

    def rises(self, seen: _health.Seen) -> list[str]:
        """Watch for a moment, and return which errors rose."""
        time.sleep(WINDOW)
        later, found = self.faults()
        if later is None or found:
            return found
        before = [_health.as_counters(each) for each in self.params["before"]]
        return _health.all_rises(before, seen, later, self.params["withheld"])

    def unreadable(self, seen: _health.Seen) -> list[str]:
        """Return why the server could not take over its primary's data with the modules that it is to go back to."""
        if self.params["modules"] is None or seen.own.get("role") != "slave":
            return []
        with contextlib.suppress(_client.ServerError):
            of_primary = {
                module.name: module.version for module in self.client(*_health.primary_of(seen.own)).modules()
            }
            return _health.unreadable(self.params["modules"], of_primary)
        return []

    def close(self) -> None:
        """End all connections."""
        for client in self.clients.values():
            client.close()
        self.clients.clear()


SPEC: dict[str, Any] = {
    "argument_spec": {
        "timeout": {"type": "int", "default": 60},
        "replicas": {"type": "int", "default": 0},
        "longest_ping": {"type": "float", "default": 100},
        "before": {"type": "list", "elements": "dict", "default": []},
        "withheld": {"type": "list", "elements": "str", "default": []},
        "may_be_down": {"type": "bool", "default": False},
        "modules": {"type": "dict"},
        "fail": {"type": "bool", "default": True},
        **_client.LOGIN_ARGUMENTS,
    },
    "supports_check_mode": True,
}


def run(module: AnsibleModule) -> None:
    """Do it, and end with the result."""
    result: dict[str, Any] = {"changed": False, "counters": [], "role": "", "latency": 0.0, "waited": 0.0}
    result.update(sound=False, faults=[])
    if _client.REDIS_IMPORT_ERROR:
        if module.params["may_be_down"] or module.check_mode:
            module.exit_json(**result)
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    watch, start = Watch(module.params), time.monotonic()
    while True:
        seen, faults = watch.faults()
        if seen is None and module.params["may_be_down"]:
            module.exit_json(**result)
        if seen and not faults and module.params["before"]:
            faults = watch.rises(seen)
        waited = round(time.monotonic() - start, 1)
        if not faults or waited >= module.params["timeout"]:
            break
        time.sleep(PAUSE)
    if seen:
        faults = faults + watch.unreadable(seen)
    watch.close()
    result.update(waited=waited, faults=faults)
    if seen:
        both = [_health.counters(info, module.params["withheld"]) for info in (seen.own, seen.primary)]
        counters = {counted.run_id: counted for counted in both}
        result.update(
            counters=[counted._asdict() for counted in counters.values() if counted.run_id],
            role="replica" if seen.own.get("role") == "slave" else "primary",
            sound=_health.is_sound(seen),
            latency=round(seen.latency, 2),
        )
    if faults and module.params["fail"]:
        module.fail_json(msg=f"not well after {waited} s: {'; '.join(faults)}", **result)
    module.exit_json(**result)
