# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role decides about redis.conf."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _declaration, _settings
from ansible_collections.edgeops.redis_modules.plugins.module_utils._settings import SettingError


class TestIoThreads:
    """redis.conf's own guidance."""

    @pytest.mark.parametrize(
        ("cores", "before_8", "from_8"),
        [
            (1, 1, 1),
            (2, 1, 1),
            (3, 1, 1),
            (4, 2, 2),
            (5, 3, 3),
            (6, 4, 4),
            (7, 5, 5),
            (8, 6, 7),
            (9, 7, 8),
            (10, 8, 8),
            (16, 8, 8),
            (128, 8, 8),
        ],
    )
    def test_auto(self, cores: int, before_8: int, from_8: int) -> None:
        assert _settings.io_threads("auto", cores, "7.0.15") == before_8
        assert _settings.io_threads("auto", cores, "6.0.16") == before_8
        assert _settings.io_threads("auto", cores, "8.0.2") == from_8

    def test_auto_before_6_0_is_one_and_without_a_version_as_7_0(self) -> None:
        assert _settings.io_threads("auto", 16, "5.0.14") == 1
        assert _settings.io_threads("auto", 8, "") == 6

    @pytest.mark.parametrize(("wanted", "number"), [(1, 1), ("3", 3), (128, 128)])
    def test_a_number_is_taken_as_it_is(self, wanted: Any, number: int) -> None:
        assert _settings.io_threads(wanted, 2, "7.0.15") == number

    @pytest.mark.parametrize("wanted", [0, -1, 129, "many", None, "", [4]])
    def test_what_can_not_be(self, wanted: Any) -> None:
        with pytest.raises(SettingError, match="redis_server_io_threads must"):
            _settings.io_threads(wanted, 8, "7.0.15")

    def test_more_than_one_needs_6_0(self) -> None:
        assert _settings.io_threads(1, 8, "5.0.14") == 1
        with pytest.raises(SettingError, match=r"Redis 5.0.14 has none; they come with 6.0"):
            _settings.io_threads(2, 8, "5.0.14")


class TestExtraLines:
    """Everything else that redis.conf knows, checked."""

    def test_a_value_is_the_rest_of_a_line_and_a_list_is_several_lines(self) -> None:
        extra = {
            "Hz": 20,
            "lazyfree-lazy-eviction": True,
            "activedefrag": False,
            "client-output-buffer-limit": ["normal 0 0 0", "pubsub 32mb 8mb 60"],
            "notify-keyspace-events": '""',
        }
        assert _settings.extra_lines(extra, ["port"]) == [
            "hz 20",
            "lazyfree-lazy-eviction yes",
            "activedefrag no",
            "client-output-buffer-limit normal 0 0 0",
            "client-output-buffer-limit pubsub 32mb 8mb 60",
            'notify-keyspace-events ""',
        ]

    @pytest.mark.parametrize("name", ["loadmodule", "LoadModule", "include", "user", "daemonize", "supervised"])
    def test_what_would_break_the_rest_is_refused_with_what_to_do(self, name: str) -> None:
        with pytest.raises(SettingError, match=f"{name.lower()} can't be an extra directive: ."):
            _settings.extra_lines({name: "x"}, [])

    def test_what_has_a_variable_is_refused_with_its_name(self) -> None:
        with pytest.raises(SettingError, match="set redis_server_tcp_backlog"):
            _settings.extra_lines({"TCP-Backlog": 5}, ["tcp-backlog"])

    @pytest.mark.parametrize(
        ("extra", "why"),
        [
            ({"hz 20\nport": 1}, "is no name of a directive"),
            ({"two words": 1}, "is no name of a directive"),
            ({"": 1}, "is no name of a directive"),
            ({"#hz": 1}, "is no name of a directive"),
            ({"hz": "20\nport 1"}, "it needs a value"),
            ({"hz": ""}, "hz: it needs a value"),
            ({"hz": "  "}, "hz: it needs a value"),
            ({"hz": None}, "hz: it needs a value"),
            ({"hz": '"20'}, "hz: a double quote is not closed"),
            ({"hz": ["20", ""]}, "hz: it needs a value"),
            ({"hz": {"a": 1}}, "hz: "),
        ],
    )
    def test_what_redis_could_not_read(self, extra: Any, why: str) -> None:
        with pytest.raises(SettingError, match=why):
            _settings.extra_lines(extra, [])

    def test_all_faults_at_once(self) -> None:
        with pytest.raises(SettingError) as caught:
            _settings.extra_lines({"hz": "", "include": "x", "port": 1}, ["port"])
        assert all(name in str(caught.value) for name in ("hz", "include", "port"))


class TestLines:
    """Lines that the template writes."""

    @given(st.lists(st.text(), min_size=1))
    def test_every_argument_arrives_as_it_is(self, args: list[str]) -> None:
        line = _settings.conf_line("loadmodule", args)
        assert "\n" not in line
        assert _conf.split(line) == ["loadmodule", *args]

    @pytest.mark.parametrize(
        ("args", "line"),
        [
            ("a b", 'x "a b"'),
            (["a", "b"], "x a b"),
            (("a", 1), "x a 1"),
            (True, "x yes"),
            ("", 'x ""'),
            (5, "x 5"),
            ([], "x"),
        ],
    )
    def test_one_argument_or_several(self, args: Any, line: str) -> None:
        assert _settings.conf_line("x", args) == line

    def test_modules_in_their_order_each_with_its_directives(self) -> None:
        entries = [
            {"name": "b", "src": "x", "args": ["one two", "#3"], "config": {"level": 3, "on": True}},
            {"name": "gone", "state": "absent"},
            {"name": "a", "src": "y"},
        ]
        assert _settings.module_lines(_declaration.declared(entries, "/m")) == [
            '#: loadmodule /m/b.so "one two" #3',
            'loadmodule /m/b.so "one two" #3',
            "b.level 3",
            "b.on yes",
            "#: loadmodule /m/a.so",
            "loadmodule /m/a.so",
        ]


class TestRenames:
    """rename-command."""

    def test_lines(self) -> None:
        assert _settings.rename_lines({"FLUSHALL": "", "CONFIG": "a b"}, [{"name": "m"}]) == [
            'rename-command FLUSHALL ""',
            'rename-command CONFIG "a b"',
        ]

    def test_a_modules_command_is_refused_with_what_to_do(self) -> None:
        with pytest.raises(_settings.SettingError, match=r"SENSOR\.RESET is a command.*sensor.*restricted_"):
            _settings.rename_lines({"SENSOR.RESET": "x"}, [{"name": "other"}, {"name": "sensor"}])
        assert _settings.rename_lines({"SENSORS": "x"}, [{"name": "sensor"}])


class TestOwnLogin:
    """How our plugins get in where nobody says otherwise."""

    TLS: ClassVar[dict[str, Any]] = {"tls_port": 6380, "ca_certs": "/ca", "cert_file": "/crt", "key_file": ""}

    def test_the_port_goes_first(self) -> None:
        login = _settings.own_login({"port": "6379", "unixsocket": "/s", "password": "pw", **self.TLS})
        assert login == {"login_port": 6379, "login_password": "pw"}

    def test_then_tls_with_the_servers_own_certificate(self) -> None:
        login = _settings.own_login({"port": 0, "unixsocket": "/s", "current_password": "old", **self.TLS})
        assert login == {
            "login_port": 6380,
            "tls": True,
            "ca_certs": "/ca",
            "client_cert_file": "/crt",
            "login_current_password": "old",
        }

    def test_then_the_socket(self) -> None:
        assert _settings.own_login({"port": "0", "tls_port": "0", "unixsocket": "/s"}) == {"login_unix_socket": "/s"}
