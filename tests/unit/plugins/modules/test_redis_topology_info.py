# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a server tells of its place in a fleet."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _step_topology_info
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_topology_info


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return tmp_path / "redis.conf"


@pytest.fixture
def told(
    run_module: Callable[..., dict[str, Any]], server: Any, commands: Any, conf: Path
) -> Callable[[], dict[str, Any]]:
    commands.answer("hostname", "-I", out="192.0.2.1 127.0.1.1 fe80::1 2001:db8::1\n")
    server.info.update(tcp_port="6379", role="master")
    server.answers["PUBSUB NUMSUB"] = [b"__sentinel__:hello", 2]

    def tell() -> dict[str, Any]:
        result = run_module(redis_topology_info.main, {"conf_path": str(conf)}, True)
        assert result["changed"] is False
        return dict(result["server"])

    return tell


def test_a_primary(told: Any, server: Any) -> None:
    server.info.update(slave0="ip=192.0.2.2,port=6379,state=online,offset=3,lag=1", master_repl_offset="9")
    found = told()
    assert found["addresses"] == ["192.0.2.1", "2001:db8::1"]
    assert (found["port"], found["version"], found["primary"], found["link_up"]) == (6379, "7.0.15", "", True)
    assert found["replicas"] == [
        {"ip": "192.0.2.2", "port": "6379", "state": "online", "offset": "3", "lag": "1"},
    ]
    assert (found["sentinels"], found["offset"], found["cluster"]) == (2, 9, False)


def test_a_replica(told: Any, server: Any) -> None:
    server.info.update(role="slave", master_host="192.0.2.9", master_port="7000", master_link_status="down")
    server.info.update(master_sync_in_progress="1", slave_priority="0")
    found = told()
    assert (found["primary"], found["link_up"], found["syncing"]) == ("192.0.2.9 7000", False, True)
    assert found["priority"] == 0


def test_a_node(told: Any, server: Any) -> None:
    server.info.update(cluster_enabled="1", role="slave", master_host="192.0.2.9", master_port="7000")
    server.answers.update(
        {
            "CLUSTER INFO": b"cluster_state:ok\r\n",
            "CLUSTER MYID": b"aaa",
            "CLUSTER NODES": b"aaa 192.0.2.1:6379@16379\n",
        }
    )
    found = told()
    assert (found["cluster"], found["cluster_state"], found["node_id"]) == (True, "ok", "aaa")
    assert (found["primary"], found["nodes"]) == ("", "aaa 192.0.2.1:6379@16379\n")


def test_nobody_answers(told: Any, server: Any, conf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    server.down = "127.0.0.1:6379: refused"
    found = {
        "running": False,
        "process": False,
        "error": server.down,
        "addresses": ["192.0.2.1", "2001:db8::1"],
        "port": 6379,
    }
    assert told() == {**found, "primary": ""}
    # Whose copy it is, its redis.conf tells.
    conf.write_text("replicaof 192.0.2.9 7000\nport 7001\n")
    assert told() == {**found, "port": 7001, "primary": "192.0.2.9 7000"}
    monkeypatch.setattr(_step_topology_info._client, "REDIS_IMPORT_ERROR", "no redis")
    assert told()["running"] is False


def test_a_server_that_runs_and_does_not_answer_is_told_from_one_that_is_stopped(
    told: Any, server: Any, commands: Any
) -> None:
    server.down = "127.0.0.1:6379: refused"
    commands.answer("systemctl", "show", out="MainPID=4711\n")
    found = told()
    assert (found["running"], found["process"]) == (False, True)


def test_it_is_asked_as_its_own_redis_conf_has_it_where_the_declared_login_is_new(
    told: Any, server: Any, conf: Path
) -> None:
    conf.write_text("requirepass until-now\n")
    server.password = "until-now"
    assert told()["running"] is True


def test_which_declared_modules_it_lacks(
    run_module: Callable[..., dict[str, Any]], told: Any, server: Any, conf: Path
) -> None:
    server.modules = [_client.LoadedModule("sensorwindow", 2, "/m/sensorwindow.so", ())]
    params = {"conf_path": str(conf), "modules": ["sensorwindow", "new"], "absent": ["old"]}
    found = run_module(redis_topology_info.main, params)["server"]
    assert (found["lacks"], found["leaves"]) == (["new"], [])
    found = run_module(redis_topology_info.main, {"conf_path": str(conf), "absent": ["sensorwindow"]})["server"]
    assert (found["lacks"], found["leaves"]) == ([], ["sensorwindow"])
    assert told()["lacks"] == []
