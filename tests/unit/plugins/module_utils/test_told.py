# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a running server tells of its place in a fleet; the module redis_topology_info tests the rest of it."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _told
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import ServerError


def test_the_addresses_of_a_host_without_its_loopback_and_those_of_a_link() -> None:
    out = "192.0.2.1 127.0.1.1 ::1 fe80::1%eth0 2001:db8::1 \n"
    assert _told.addresses(lambda words: (0, out, "")) == ["192.0.2.1", "2001:db8::1"]


def test_without_that_command_they_are_those_of_its_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_told.socket, "gethostname", lambda: "me")
    monkeypatch.setattr(
        _told.socket, "gethostbyname_ex", lambda name: (name, [], ["127.0.1.1", "192.0.2.1"] if name == "me" else [])
    )
    assert _told.addresses(lambda words: (1, "ignored", "hostname: invalid option -- 'I'")) == ["192.0.2.1"]


class TestTell:
    """INFO and what is asked beside it."""

    def tell(self, server: Any, *running: str, **info: str) -> dict[str, Any]:
        server.answers.setdefault("PUBSUB NUMSUB", [b"__sentinel__:hello", 0])
        server.info.update(info)
        client = server.connect({})
        return _told.tell(client, client.info(), running, ["a", "new"], ["old"], ["192.0.2.1"])

    def test_a_server_that_says_little(self, server: Any) -> None:
        server.info.clear()
        assert self.tell(server) == {
            "running": True,
            "error": "",
            "addresses": ["192.0.2.1"],
            "port": 0,
            "version": "",
            "primary": "",
            "link_up": True,
            "syncing": False,
            "priority": 100,
            "offset": 0,
            "lacks": ["a", "new"],
            "leaves": [],
            "replicas": [],
            "sentinels": 0,
            "cluster": False,
            "cluster_state": "",
            "node_id": "",
            "nodes": "",
        }

    def test_a_replica_counts_what_it_has_read(self, server: Any) -> None:
        found = self.tell(
            server,
            "a",
            "old",
            role="slave",
            master_host="192.0.2.9",
            master_port="6379",
            master_link_status="up",
            slave_repl_offset="7",
            master_repl_offset="9",
        )
        assert (found["primary"], found["link_up"], found["offset"]) == ("192.0.2.9 6379", True, 7)
        assert (found["lacks"], found["leaves"]) == (["new"], ["old"])

    def test_only_a_node_is_asked_for_its_cluster(self, server: Any) -> None:
        self.tell(server)
        assert server.sent == ["PUBSUB NUMSUB __sentinel__:hello"]
        server.answers.update({"CLUSTER INFO": b"cluster_state:fail\r\n", "CLUSTER MYID": b"me", "CLUSTER NODES": b"n"})
        found = self.tell(server, cluster_enabled="1", slave0="ip=192.0.2.2,port=1,state=online,offset=1,lag=0")
        assert (found["cluster_state"], found["node_id"], found["nodes"]) == ("fail", "me", "n")
        assert found["replicas"] == []

    def test_a_server_that_refuses_to_tell_is_an_error(self, server: Any) -> None:
        server.answers["PUBSUB NUMSUB"] = ServerError("PUBSUB at 127.0.0.1:6379: NOPERM")
        with pytest.raises(ServerError, match="NOPERM"):
            self.tell(server)
