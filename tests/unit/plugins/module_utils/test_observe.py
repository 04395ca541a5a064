# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One look at a host: the running server, the files and the live images, put together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _observe, _plan
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule


@pytest.mark.parametrize(
    ("params", "pid"),
    [
        ({"login_host": "127.0.0.1"}, 4242),
        ({"login_host": "127.0.1.1"}, 4242),
        ({"login_host": "::1"}, 4242),
        ({"login_host": "localhost"}, 4242),
        ({"login_host": "10.0.0.1", "login_unix_socket": "/run/s"}, 4242),
        ({"login_host": "10.0.0.1"}, 0),
        ({"login_host": "redis.example.com"}, 0),
    ],
)
def test_a_pid_is_only_believed_where_the_server_must_be_on_this_host(server: Any, params: Any, pid: int) -> None:
    seen = _observe.running(server.connect(params), params)
    assert seen.pid == pid
    assert seen.info["redis_version"] == "7.0.15"


def test_each_wanted_module_is_judged_by_its_own_name_and_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.so"
    path.write_bytes(b"new")
    asked = []

    def images(pid: int, paths: Any) -> Any:
        asked.append((pid, list(paths)))
        return {str(path): _host.LiveImage(str(path), 1, True, "old")}

    monkeypatch.setattr(_host, "live_images", images)
    wanted = [
        _plan.Wanted("a", "present", str(path), (), None),
        _plan.Wanted("b", "present", str(tmp_path / "b.so"), (), None),
    ]
    seen = _observe.Running({}, [LoadedModule("a", 1, str(path), ())], 7)
    assert [v.verdict for v in _observe.verdicts(seen, wanted)] == ["restart-pending", "missing"]
    assert asked == [(7, [str(path), str(tmp_path / "b.so")])]
    assert [v.verdict for v in _observe.verdicts(seen._replace(pid=0), wanted)] == ["loaded", "missing"]
    assert len(asked) == 1
    assert [v.verdict for v in _observe.verdicts_without_server(wanted)] == ["broken", "broken"]


def test_a_stranger_runs_and_is_neither_declared_nor_the_servers_own() -> None:
    running = [
        LoadedModule("a", 1, "/m/a.so", ()),
        LoadedModule("x", 2, "/x.so", ()),
        LoadedModule("old", 3, None, None),
        LoadedModule("vectorset", 1, "", ()),
    ]
    wanted = [_plan.Wanted("a", "absent", "/m/a.so", (), None)]
    seen = _observe.Running({}, running, 7)
    found = _observe.strangers(seen, wanted)
    assert [(v.name, v.verdict, v.version, v.path) for v in found] == [
        ("x", "undeclared", 2, "/x.so"),
        ("old", "undeclared", 3, ""),
    ]
    assert found[0].differences == ["it runs, but nobody declared it"]
    assert _observe.strangers(seen._replace(modules=running[-1:]), []) == []
