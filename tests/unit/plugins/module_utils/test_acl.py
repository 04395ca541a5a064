# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The users: from what is declared to lines of redis.conf, and to what a running server lacks."""

from __future__ import annotations

import hashlib
from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _acl, _conf

SHA = hashlib.sha256(b"pw").hexdigest()
MODULE = {"name": "sensor", "restricted_commands": ["Sensor.Reset"], "restricted_to": ["admin"]}
ADMIN = {"name": "admin", "passwords": ["pw"], "rules": ["~*", "+@all"]}


def refused(*words: Any, **more: Any) -> str:
    """Return what acl_lines says against it."""
    with pytest.raises(_acl.AclError) as caught:
        _acl.lines(*words, **more)
    return str(caught.value)


class TestLines:
    """What redis.conf gets."""

    def test_nobody_declares_anything(self) -> None:
        assert _acl.lines([], [{"name": "a"}, {"name": "b", "restricted_commands": []}], "secret", None) == []
        assert _acl.lines([], [], probe={"name": "p", "password": ""}, version="4.0", aclfile="/a") == []

    def test_passwords_are_kept_as_digests(self) -> None:
        user = {"name": "a", "passwords": ["pw"], "password_hashes": ["A" * 64], "rules": ["~x:* %R~y", "+@read"]}
        _default, line = _acl.lines([user], [])
        assert line == f"user a on #{SHA} #{'a' * 64} ~x:* %R~y +@read"

    @pytest.mark.parametrize(("version", "channels"), [("6.0.16", ""), ("6.2", " &*"), ("8.0.2", " &*"), ("", " &*")])
    def test_the_default_user_stays_as_it_is(self, version: str, channels: str) -> None:
        assert _acl.lines([ADMIN], [], version=version)[0] == f"user default on nopass ~*{channels} +@all"
        assert _acl.lines([ADMIN], [], "pw", version=version)[0] == f"user default on #{SHA} ~*{channels} +@all"

    def test_unless_it_is_declared(self) -> None:
        admin = {"login_user": "admin", "login_password": "pw"}
        lines = _acl.lines([{"name": "default", "enabled": False}, ADMIN], [], login=admin)
        assert lines[0] == "user default off"

    def test_absent_users_have_no_line(self) -> None:
        assert len(_acl.lines([ADMIN, {"name": "old", "state": "absent"}], [])) == 2

    def test_the_probe_may_say_hello_and_ask_info(self) -> None:
        lines = _acl.lines([], [], probe={"name": "p", "password": "pw"})
        assert lines[-1] == f"user p on #{SHA} -@all +hello +info"

    def test_withheld_commands_are_nobody_s_where_users_are_declared(self) -> None:
        users = [{"name": "admin", "nopass": True, "rules": ["+@all"]}]
        found = _acl.lines(users, [MODULE], withheld=["sensor.reset", "sensor.add"])
        assert [line.split()[1] for line in found] == ["default", "admin"]
        assert all(line.endswith(" -sensor.reset -sensor.add") for line in found)
        assert _acl.lines([], [], withheld=["sensor.add"]) == []

    def test_restricted_commands_come_last_for_everybody(self) -> None:
        lines = _acl.lines([ADMIN], [MODULE], probe={"name": "p", "password": "pw"})
        assert [line.split()[-1] for line in lines] == ["-sensor.reset", "+sensor.reset", "-sensor.reset"]
        assert _acl.lines([], [{**MODULE, "restricted_to": []}]) == ["user default on nopass ~* &* +@all -sensor.reset"]


class TestFaults:
    """What is refused, without a secret in the text."""

    @pytest.mark.parametrize(
        ("user", "words"),
        [
            ({"name": "a", "nopas": True}, "unknown key 'nopas'"),
            ({"name": "a b", "nopass": True}, "one word"),
            ({"nopass": True}, "user number 1: the name"),
            ({"name": "a"}, "no password"),
            ({"name": "a", "passwords": "pw"}, "passwords must be a list"),
            ({"name": "a", "passwords": [""]}, "a password is empty"),
            ({"name": "a", "passwords": ["pw"], "nopass": True}, "lets everybody in"),
            ({"name": "a", "password_hashes": ["secret"]}, "64 hexadecimal"),
            ({"name": "a", "nopass": "yes"}, "nopass must be true or false"),
            ({"name": "a", "state": "gone"}, "present or absent"),
            ({"name": "default", "state": "absent"}, "Redis always has it"),
            ({"name": "a", "nopass": True, "rules": ["~* >secret"]}, "a password rule"),
            ({"name": "a", "nopass": True, "rules": ["#" + "5" * 64]}, "a password rule"),
            ({"name": "a", "nopass": True, "rules": ["reset"]}, "'reset'"),
            ({"name": "a", "nopass": True, "rules": ["off"]}, "'off'"),
            ("a", "item 1 must be a dictionary"),
        ],
    )
    def test_of_one_user(self, user: Any, words: str) -> None:
        text = refused([user], [])
        assert words in text
        assert "secret" not in text
        assert "5555" not in text

    def test_all_at_once(self) -> None:
        text = refused([{"name": "a"}, {"name": "b", "nopas": 1}], [], version="5.0", aclfile="/etc/users.acl")
        assert len(text.splitlines()) == 4
        assert "Redis 5.0 knows no users" in text
        assert "from one place only" in text

    def test_no_list(self) -> None:
        assert "must be a list" in refused("admin", [])

    def test_two_of_a_name_and_two_passwords_for_the_default(self) -> None:
        assert "declared 2 times" in refused([ADMIN, ADMIN], [])
        assert "declared 2 times" in refused([ADMIN], [], probe={"name": "admin", "password": "x"})
        assert "declared twice" in refused([{"name": "default", "nopass": True}], [], "pw")

    def test_a_restricted_command_for_a_user_that_is_not_there(self) -> None:
        assert "names the user admin" in refused([], [MODULE])
        assert "names the user admin" in refused([{"name": "admin", "state": "absent"}], [MODULE])
        assert _acl.lines([], [{**MODULE, "restricted_to": ["default"]}])[0].endswith("+sensor.reset")

    def test_an_aclfile_alone_is_fine(self) -> None:
        assert _acl.lines([], [], aclfile="/a") == []


class TestLockouts:
    """The rollout's own login has to be one of the users."""

    CLOSED: ClassVar[dict[str, Any]] = {"name": "default", "enabled": False}

    @pytest.mark.parametrize(
        ("users", "login", "words"),
        [
            ([CLOSED], {}, "user default: a rollout logs in as it, and it is disabled"),
            ([ADMIN], {"login_user": "adnin", "login_password": "pw"}, "user adnin: redis_modules_login names it"),
            ([ADMIN], {"login_user": "admin", "login_password": "other"}, "none of the user's"),
            ([ADMIN], {"login_user": "admin"}, "none of the user's"),
            ([{**ADMIN, "state": "absent"}], {"login_user": "admin", "login_password": "pw"}, "nobody declares it"),
        ],
    )
    def test_it_would_be_shut_out(self, users: Any, login: Any, words: str) -> None:
        text = refused(users, [], login=login)
        assert words in text
        assert "other" not in text

    @pytest.mark.parametrize(
        ("users", "login"),
        [
            ([CLOSED, ADMIN], {"login_user": "admin", "login_password": "pw"}),
            ([ADMIN], {"login_password": "of the default user"}),
            ([{"name": "admin", "password_hashes": [SHA.upper()]}], {"login_user": "admin", "login_password": "pw"}),
            ([{"name": "default", "nopass": True}], {}),
        ],
    )
    def test_it_gets_in(self, users: Any, login: Any) -> None:
        assert _acl.lines(users, [], login=login)


class TestChanges:
    """What the users of a running server lack."""

    WANTED = _acl.users_of(_conf.parse("port 1\nuser default off\nuser a on nopass +get ~*\n"))

    def test_the_order_of_words_is_none(self) -> None:
        tried = {"default": ["off"], "a": ["on", "nopass", "+get", "~*"], _conf.TRIAL_USER: ["on"]}
        running = {"default": ["off"], "a": ["on", "~*", "nopass", "+get"]}
        assert _acl.changes(self.WANTED, tried, running) == ([], [])

    def test_what_differs_is_set_and_what_is_not_wanted_deleted(self) -> None:
        tried = {"default": ["off"], "a": ["on", "+get"]}
        changes = _acl.changes(self.WANTED, tried, {"default": ["on"], "z": ["on"], "b": []})
        assert changes.names == ["default", "a", "b", "z"]
        assert _acl.commands(changes) == [
            ["SETUSER", "default", "reset", "off"],
            ["SETUSER", "a", "reset", "on", "nopass", "+get", "~*"],
            ["DELUSER", "b"],
            ["DELUSER", "z"],
        ]

    def test_nothing_where_redis_conf_names_no_user(self) -> None:
        assert _acl.changes([], {}, {"default": ["on"], "z": ["on"]}).names == []

    def test_the_default_user_is_never_deleted(self) -> None:
        assert _acl.changes(self.WANTED[1:], {"a": ["on"]}, {"a": ["on"], "default": ["on"]}).names == []

    def test_back_to_what_was(self) -> None:
        before = {"default": ["on", "nopass"], "a": ["on", "+get"], "same": ["off"]}
        now = {"default": ["nopass", "on"], "a": ["on"], "same": ["off"], "new": ["on"]}
        assert _acl.commands(_acl.back(before, now)) == [["SETUSER", "a", "reset", "on", "+get"], ["DELUSER", "new"]]

    def test_who_is_declared_is_no_stranger(self) -> None:
        users = [{"name": "a"}, {"name": "old", "state": "absent"}]
        assert _acl.undeclared(["default", "p", "a", "old", "z"], users, "p") == ["z"]
        assert _acl.undeclared(None, users, "p") == []
