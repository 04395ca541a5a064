#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wait until a server and the shard that it is a copy of are well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_health
short_description: Wait until a server and the shard that it is a copy of are well
version_added: 0.1.0
description:
  - Asks the server, and over the network the primary that it follows, with the same login.
  - A server is well when it has loaded its data, its link to its primary is up, the primary has as many replicas in
    sync as it should have, all of them have what the primary had when the wait began, the cluster is whole
    (C(cluster_state) is C(ok), all slots are covered, no node is taken for failed), and a PING is answered in time.
  - Given what was counted before a change (O(before)), the errors of the server and its primary may not have risen
    since - errors that a replica meets in what its primary sends it (C(unexpected_error_replies)), calls that are
    rejected, and starts that nobody asked for.
  - It waits for all of that, and fails with what is not so when the time is over. It changes nothing.
author:
  - edgeops contributors (@edgeops)
options:
  timeout:
    description: How many seconds to wait.
    type: int
    default: 60
  replicas:
    description: How many replicas the primary of the shard has to have in sync.
    type: int
    default: 0
  longest_ping:
    description: How many milliseconds the slowest of some PINGs may take; V(0) is no bound.
    type: float
    default: 100
  before:
    description: RV(counters) of an earlier run of this module; without it, nothing is compared.
    type: list
    elements: dict
    default: []
  withheld:
    description: Commands that nobody may run for now; that they are rejected is no error.
    type: list
    elements: str
    default: []
  may_be_down:
    description: Whether it is no fault that the server itself is down, or not in sync, as it is about to be mended.
    type: bool
    default: false
  modules:
    description:
      - The modules that the server is about to go back to, name to version; without it, nothing is compared.
      - A primary that runs a newer release of one of them, or one more, is a fault, as the server might not read its
        data, and a full sync would end it.
    type: dict
  fail:
    description: Whether to fail where something is not well when the time is over; RV(faults) tells it anyway.
    type: bool
    default: true
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
"""

EXAMPLES = r"""
- name: Remember what was counted, and see that the shard can do without this server for a moment
  edgeops.redis_modules.redis_health:
    replicas: 2
  register: before

- name: Restart it
  ansible.builtin.systemd_service:
    name: redis-server
    state: restarted

- name: Wait until all is well again
  edgeops.redis_modules.redis_health:
    replicas: 2
    before: "{{ before.counters }}"
    timeout: 120
"""

RETURN = r"""
counters:
  description: What the server, and then its primary, have counted since they started; empty where it is down.
  returned: success
  type: list
  elements: dict
  contains:
    run_id:
      description: Names the start of the server.
      type: str
    uptime:
      description: How long ago that was, in seconds.
      type: int
    unexpected:
      description: Errors that it met in what its primary sent.
      type: int
    rejected:
      description: Calls that it rejected before they ran; from Redis 6.2 on.
      type: int
role:
  description: C(primary) or C(replica); empty where it is down.
  returned: success
  type: str
latency:
  description: How long the slowest PING took, in milliseconds.
  returned: success
  type: float
  sample: 0.4
waited:
  description: How long it took until all was well, in seconds.
  returned: success
  type: float
  sample: 1.2
sound:
  description: Whether the server itself is a copy that the others could rely on - it answers, and it is in sync.
  returned: always
  type: bool
faults:
  description: What was not well when the time was over, a sentence each.
  returned: always
  type: list
  elements: str
"""

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


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
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
        supports_check_mode=True,
    )
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


if __name__ == "__main__":
    main()
