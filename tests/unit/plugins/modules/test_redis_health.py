# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that waits until a shard is well."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _step_health
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_health

Run = Callable[..., Any]


@pytest.fixture
def health(run_module: Run, server: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run it on a primary that is well; time passes only where somebody waits."""
    now = [0.0]
    monkeypatch.setattr(_step_health.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(_step_health.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    server.info.update(role="master", run_id="a", uptime_in_seconds="10")
    server.answers["INFO all"] = lambda *_words: "\n".join(f"{key}:{value}" for key, value in server.info.items())

    def run(**params: Any) -> Any:
        return run_module(redis_health.main, {"timeout": 5, **params})

    return run


def test_a_primary_that_is_well(health: Run) -> None:
    said = health()
    assert (said["changed"], said["role"], said["waited"]) == (False, "primary", 0.0)
    assert said["counters"] == [{"run_id": "a", "uptime": 10, "unexpected": 0, "rejected": 0}]


def test_a_replica_and_its_primary_over_the_network(health: Run, server: Any) -> None:
    server.info.update(role="slave", master_link_status="up", master_host="192.0.2.9", master_port="7000")
    said = health(login_password="secret", login_unix_socket="/run/r.sock")
    assert said["role"] == "replica"
    there = [(p["login_host"], p["login_port"], p["login_unix_socket"]) for p in server.connections]
    assert there == [("127.0.0.1", 6379, "/run/r.sock"), ("192.0.2.9", 7000, None)]
    assert {p["login_password"] for p in server.connections} == {"secret"}


def test_it_waits(health: Run, server: Any) -> None:
    replies = iter(["0", "0", "1"])

    def info(*_words: str) -> str:
        online = next(replies, "1") == "1"
        more = "slave0:ip=192.0.2.2,port=1,state=online,offset=0,lag=0" if online else ""
        return f"role:master\nrun_id:a\n{more}"

    server.answers["INFO all"] = info
    assert health(replicas=1)["waited"] == 0.5


def test_it_fails_when_the_time_is_over(health: Run) -> None:
    said = health(replicas=1)
    assert said["failed"]
    assert "not well after 5.0 s: the primary has 0 replicas in sync (none), and should have 1" in said["msg"]
    assert len(said["faults"]) == 1


def test_a_server_that_is_down(health: Run, server: Any) -> None:
    server.down = "127.0.0.1:6379: refused"
    assert "it can't be asked: 127.0.0.1:6379: refused" in health()["msg"]
    assert health(may_be_down=True)["counters"] == []


def test_errors_since(health: Run, server: Any) -> None:
    before = health()["counters"]
    assert not health(before=before).get("failed")
    server.info.update(unexpected_error_replies="2")
    assert "met 2 errors" in health(before=before)["msg"]


def test_the_cluster_is_asked(health: Run, server: Any) -> None:
    server.info.update(redis_mode="cluster")
    server.answers.update({"CLUSTER INFO": b"cluster_state:fail\r\ncluster_slots_ok:1\r\n", "CLUSTER NODES": b""})
    assert "cluster_state is fail; 1 of 16384 slots" in health()["msg"]
    server.answers["CLUSTER INFO"] = b"cluster_state:ok\r\ncluster_slots_ok:16384\r\n"
    assert not health().get("failed")


def test_without_redis_py(health: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_step_health._client, "REDIS_IMPORT_ERROR", "no redis")
    assert health(may_be_down=True)["counters"] == []
    assert health()["failed"]


def test_it_can_tell_without_failing(health: Run, server: Any) -> None:
    said = health(replicas=1, fail=False)
    assert not said.get("failed")
    assert (said["sound"], said["role"], len(said["faults"])) == (True, "primary", 1)
    # One that is out of sync is no copy that others could rely on.
    server.info.update(role="slave", master_link_status="down")
    assert health(replicas=1, fail=False)["sound"] is False
    server.down = "refused"
    assert health(fail=False)["sound"] is False


def test_what_is_withheld_may_be_rejected(health: Run, server: Any) -> None:
    before = health()["counters"]
    asked = iter(range(1000, 100000, 1000))
    server.answers["INFO all"] = lambda *_words: (
        f"role:master\nrun_id:a\ncmdstat_x.y:calls=0,rejected_calls={next(asked)}"
    )
    assert "rejects 1000 calls a second" in health(before=before)["msg"]
    assert not health(before=before, withheld=["x.y"]).get("failed")


def test_a_primary_with_a_newer_release_than_the_one_to_go_back_to(health: Run, server: Any) -> None:
    server.modules.append(_client.LoadedModule("pump", 2, None, None))
    former = {"modules": {"pump": 1}, "may_be_down": True, "fail": False}
    assert health(**former)["faults"] == [], "a primary follows nobody"
    server.info.update(role="slave", master_link_status="up", master_host="192.0.2.9", master_port="7000")
    found = health(**former)
    assert found["faults"] == ["its primary runs pump 2, whose data 1 may not read"]
    assert found["waited"] == 0.0, "it would not go away by waiting"
    assert health(**{**former, "modules": {"pump": 2}})["faults"] == []
    assert health()["faults"] == []
