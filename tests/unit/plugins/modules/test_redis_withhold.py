# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module that keeps all users from commands of modules that leave."""

from __future__ import annotations

from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.modules import redis_withhold

USERS = [b"user default on nopass ~* +@all", b"user app on #1 ~* +@all -old.set"]


@pytest.fixture
def withhold(run_module: Callable[..., Any], server: Any, tmp_path: Any) -> Callable[..., Any]:
    """Run it on a 7.0 whose module old has two commands."""
    server.info.update(redis_version="7.0.15")
    server.answers.update({"COMMAND LIST FILTERBY MODULE old": [b"old.set", b"OLD.get"], "ACL LIST": USERS})

    def run(check: bool = False) -> Any:
        params = {"modules": ["old"], "conf_path": str(tmp_path / "redis.conf")}
        return run_module(redis_withhold.main, params, check)

    return run


def sent(server: Any) -> list[str]:
    """Return what was told to users."""
    return [said for said in server.sent if "SETUSER" in said]


def test_each_user_loses_what_it_still_may(withhold: Any, server: Any) -> None:
    assert withhold(check=True)["users"] == ["default", "app"]
    assert sent(server) == []
    said = withhold()
    assert (said["changed"], said["commands"], said["users"]) == (True, ["old.get", "old.set"], ["default", "app"])
    assert sent(server) == ["ACL SETUSER default -old.get -old.set", "ACL SETUSER app -old.get"]
    server.answers["ACL LIST"] = [b"user default on ~* +@all -old.set -old.get"]
    assert withhold()["changed"] is False


def test_acl_by_its_new_name(withhold: Any, server: Any, tmp_path: Any) -> None:
    (tmp_path / "redis.conf").write_text("rename-command ACL hush\n")
    server.answers["hush LIST"] = USERS[:1]
    withhold()
    assert server.sent[-1] == "hush SETUSER default -old.get -old.set"


def test_before_7_nobody_knows_whose_a_command_is(withhold: Any, server: Any) -> None:
    server.info.update(redis_version="6.2.6")
    said = withhold()
    assert (said["changed"], said["commands"], sent(server)) == (False, [], [])


def test_a_server_that_does_not_answer(withhold: Any, server: Any) -> None:
    server.down = "127.0.0.1:6379: refused"
    assert "can't be withheld: refused" in withhold()["msg"]
