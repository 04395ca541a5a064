# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The answers of every Redis from 6.0 to 8.0 are read the same, whatever redis-py makes of them."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest
import redis

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import (
    Client,
    LoadedModule,
    NotReachedError,
    ServerError,
)

OF_6_0 = [[b"name", b"sensor", b"ver", 20000]]
OF_7_0 = [[b"name", b"sensor", b"ver", 20000, b"path", b"/m/sensor.so", b"args", [b"a", b"b c"]]]
OF_8_0 = [
    [b"name", b"vectorset", b"ver", 1, b"path", b"", b"args", []],
    [b"name", b"sensor", b"ver", 20000, b"path", b"/m/sensor.so", b"args", []],
]


class Connection:
    """Stands for redis-py's connection."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[Any] = []
        self.ended = False

    def send_command(self, *words: str) -> None:
        self.sent.append(words)

    def pack_commands(self, commands: Any) -> list[Any]:
        return [tuple(words) for words in commands]

    def send_packed_command(self, packed: list[Any]) -> None:
        self.sent.append(packed)

    def read_response(self) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def disconnect(self) -> None:
        self.ended = True
        if self.answers:
            raise redis.exceptions.ConnectionError("gone")


def as_maps(reply: list[Any]) -> list[Any]:
    """Return the same answer as RESP3 gives it."""
    return [dict(zip(entry[::2], entry[1::2])) for entry in reply]


def as_text(reply: Any) -> Any:
    """Return the same answer with its bytes decoded."""
    if isinstance(reply, list):
        return [as_text(item) for item in reply]
    return reply.decode() if isinstance(reply, bytes) else reply


class TestModuleList:
    """MODULE LIST."""

    @pytest.mark.parametrize(
        "form", [lambda r: r, as_maps, as_text, lambda r: as_maps(as_text(r))], ids=["list", "map", "text", "text-map"]
    )
    def test_it_reads_the_same_in_every_form(self, form: Any) -> None:
        assert _client.parse_module_list(form(OF_6_0)) == [LoadedModule("sensor", 20000, None, None)]
        assert _client.parse_module_list(form(OF_7_0)) == [LoadedModule("sensor", 20000, "/m/sensor.so", ("a", "b c"))]
        assert _client.parse_module_list(form(OF_8_0)) == [
            LoadedModule("sensor", 20000, "/m/sensor.so", ()),
            LoadedModule("vectorset", 1, "", ()),
        ]

    def test_no_module_is_an_empty_list(self) -> None:
        assert _client.parse_module_list([]) == []

    def test_only_a_module_with_an_empty_path_is_built_in(self) -> None:
        sensor, vectorset = _client.parse_module_list(OF_8_0)
        assert vectorset.built_in
        assert not sensor.built_in
        assert not _client.parse_module_list(OF_6_0)[0].built_in

    def test_an_argument_that_is_no_utf8_survives(self) -> None:
        (module,) = _client.parse_module_list([[b"name", b"x", b"ver", 1, b"path", b"/x", b"args", [b"\xff"]]])
        assert module.args == ("\udcff",)

    def test_hello_is_asked_where_module_list_is_refused(self) -> None:
        refused = redis.exceptions.ResponseError("NOPERM")
        connection = Connection(refused, [b"server", b"redis", b"proto", 2, b"modules", OF_7_0])
        assert [m.name for m in Client(connection, "here").modules()] == ["sensor"]
        assert connection.sent == [("MODULE", "LIST"), ("HELLO", "2")]

    @pytest.mark.parametrize("hello", [redis.exceptions.ResponseError("unknown command"), [b"server", b"redis"]])
    def test_the_first_refusal_is_told_where_hello_does_not_help(self, hello: Any) -> None:
        connection = Connection(redis.exceptions.ResponseError("NOPERM no MODULE for you"), hello)
        with pytest.raises(ServerError, match=r"MODULE LIST at here: .*NOPERM no MODULE for you"):
            Client(connection, "here").modules()


class TestInfo:
    """INFO."""

    RAW = (
        b"# Server\r\nredis_version:7.0.15\r\nprocess_id:812\r\n\r\n"
        b"# Modules\r\nmodule:name=a,ver=1\r\nexecutable:/a:b\r\nnonsense\r\n"
    )

    def test_it_is_a_flat_dict_without_headings(self) -> None:
        assert _client.parse_info(self.RAW) == {
            "redis_version": "7.0.15",
            "process_id": "812",
            "module": "name=a,ver=1",
            "executable": "/a:b",
        }

    @pytest.mark.parametrize("answer", [RAW, RAW.decode()])
    def test_bytes_or_text(self, answer: Any) -> None:
        assert Client(Connection(answer), "here").info()["redis_version"] == "7.0.15"


class TestSettings:
    """CONFIG."""

    @pytest.mark.parametrize(
        "answer", [[b"port", b"6379", b"dir", b"/x"], {b"port": b"6379", b"dir": b"/x"}, {"port": "6379", "dir": "/x"}]
    )
    def test_all_settings_as_text(self, answer: Any) -> None:
        connection = Connection(answer)
        assert Client(connection, "here").settings() == {"port": "6379", "dir": "/x"}
        assert connection.sent == [("CONFIG", "GET", "*")]

    def test_a_renamed_command_is_called_by_its_new_name(self) -> None:
        connection = Connection([], b"OK")
        client = Client(connection, "here", "hidden")
        client.settings()
        client.set("maxmemory", "1")
        assert connection.sent == [("hidden", "GET", "*"), ("hidden", "SET", "maxmemory", "1")]

    def test_a_command_taken_away_is_told_without_asking(self) -> None:
        connection = Connection()
        with pytest.raises(ServerError, match="renamed away"):
            Client(connection, "here", "").settings()
        assert connection.sent == []

    @pytest.mark.parametrize("act", [lambda client: client.settings(), lambda client: client.set("a", "b")])
    def test_the_new_name_is_a_secret_that_no_error_shows(self, act: Any) -> None:
        connection = Connection(redis.exceptions.ResponseError("NOPERM"))
        with pytest.raises(ServerError, match="NOPERM") as caught:
            act(Client(connection, "here", "hidden-name"))
        assert "hidden-name" not in str(caught.value)


class TestCalls:
    """What goes wrong on a connection becomes one kind of error, with place and reason."""

    @pytest.mark.parametrize(
        "error",
        [
            redis.exceptions.ResponseError("NOAUTH Authentication required."),
            redis.exceptions.ConnectionError("Connection closed by server."),
            redis.exceptions.TimeoutError("Timeout reading from socket"),
            OSError("No route to host"),
        ],
    )
    def test_every_failure_names_where_and_why(self, error: Exception) -> None:
        with pytest.raises(ServerError) as caught:
            Client(Connection(error), "10.0.0.1:6379").call("INFO")
        assert "10.0.0.1:6379" in str(caught.value)
        assert str(error) in str(caught.value)

    def test_the_value_of_a_setting_is_in_no_error(self) -> None:
        with pytest.raises(ServerError) as caught:
            Client(Connection(redis.exceptions.ResponseError("ERR no")), "here").set("requirepass", "secret")
        assert "secret" not in str(caught.value)

    def test_closing_never_fails(self) -> None:
        connection = Connection("left over")
        Client(connection, "here").close()
        assert connection.ended


class Wire(threading.Thread):
    """A server at a unix socket for redis-py itself: answers each command by its first word, else +OK."""

    def __init__(self, path: str, **answers: bytes) -> None:
        super().__init__(daemon=True)
        self.answers = answers
        self.asked: list[list[bytes]] = []
        self.listening = socket.socket(socket.AF_UNIX)
        self.listening.bind(path)
        self.listening.listen(1)

    def run(self) -> None:
        connection, _address = self.listening.accept()
        with connection, connection.makefile("rb") as stream:
            for head in stream:
                words = []
                for _word in range(int(head[1:])):
                    size = int(stream.readline()[1:])
                    words.append(stream.read(size + 2)[:-2])
                self.asked.append(words)
                connection.sendall(self.answers.get(words[0].decode(), b"+OK\r\n"))
        self.listening.close()


class TestMany:
    """Several commands at once."""

    def test_the_answers_in_order(self) -> None:
        connection = Connection(b"string", 1, None)
        assert Client(connection, "here").many([("TYPE", b"\xff"), ("UNLINK", "a"), ("GET", "b")]) == [
            b"string",
            1,
            None,
        ]
        assert connection.sent == [[("TYPE", b"\xff"), ("UNLINK", "a"), ("GET", "b")]]

    def test_none(self) -> None:
        assert Client(Connection(), "here").many([]) == []

    def test_an_error_among_them_is_raised(self) -> None:
        connection = Connection(b"string", redis.exceptions.ResponseError("MOVED 1 h:1"), b"string")
        with pytest.raises(ServerError, match=r"^TYPE at here: MOVED 1 h:1"):
            Client(connection, "here").many([("TYPE", b"a"), ("TYPE", b"b"), ("TYPE", b"c")])

    @pytest.mark.parametrize("commands", [[], [(b"TYPE", b"a")]])
    def test_a_server_that_ends(self, commands: Any) -> None:
        class Gone(Connection):
            def send_packed_command(self, packed: Any) -> None:
                raise redis.exceptions.ConnectionError("gone")

        with pytest.raises(NotReachedError, match="here: gone"):
            Client(Gone(), "here").many(commands)

    def test_as_redis_py_itself_sends_them(self, tmp_path: Path) -> None:
        wire = Wire(str(tmp_path / "s"), TYPE=b"+win\r\n", UNLINK=b":2\r\n", HELLO=b"%1\r\n+proto\r\n:3\r\n")
        wire.start()
        client = _client.connect({"login_unix_socket": str(tmp_path / "s")})
        assert client.many([("TYPE", b"\xff\r\n"), ("UNLINK", "a", b"\xfe")]) == [b"win", 2]
        client.close()
        wire.join(5)
        assert wire.asked[-2:] == [[b"TYPE", b"\xff\r\n"], [b"UNLINK", b"a", b"\xfe"]]


class TestCommands:
    """COMMAND."""

    def test_names_in_lower_case_with_their_flags(self) -> None:
        of_7_0 = [
            [b"W.ADD", -3, [b"write", b"module"], 1, 1, 1, [], [], [], []],
            [b"get", 2, [], 1, 1, 1, [], [], [], []],
        ]
        connection = Connection(of_7_0)
        assert Client(connection, "here").commands() == {
            "w.add": frozenset({"write", "module"}),
            "get": frozenset(),
        }
        assert connection.sent == [("COMMAND",)]

    def test_before_6_2_what_is_in_no_category_is_a_modules(self) -> None:
        of_6_0 = [[b"w.add", -3, [b"write"], 1, 1, 1, []], [b"get", 2, [b"readonly"], 1, 1, 1, [b"@read"]]]
        assert Client(Connection(of_6_0), "here").commands() == {
            "w.add": frozenset({"write", "module"}),
            "get": frozenset({"readonly"}),
        }

    def test_before_6_0_nobody_can_tell(self) -> None:
        assert Client(Connection([["w.add", -3, ["write"], 1, 1, 1]]), "here").commands() == {
            "w.add": frozenset({"write"})
        }

    def test_resp3_gives_sets(self) -> None:
        assert Client(Connection([[b"get", 2, {b"readonly"}, 1, 1, 1, {b"@read"}]]), "here").commands() == {
            "get": frozenset({"readonly"})
        }


class TestConnecting:
    """The login arguments reach redis-py."""

    @pytest.fixture
    def made(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        made: list[Any] = []

        def kind(name: str) -> Any:
            class Recorded:
                error: Any = None

                def __init__(self, **options: Any) -> None:
                    made.append((name, options))

                def connect(self) -> None:
                    if Recorded.error:
                        raise Recorded.error

            return Recorded

        for name in ("Connection", "SSLConnection", "UnixDomainSocketConnection"):
            monkeypatch.setattr(redis.connection, name, kind(name))
        return made

    def params(self, **given: Any) -> dict[str, Any]:
        return {**{name: spec.get("default") for name, spec in _client.LOGIN_ARGUMENTS.items()}, **given}

    def test_plain(self, made: list[Any]) -> None:
        client = _client.connect(self.params(login_user="probe", login_password="pw"), "hidden")
        name, options = made[0]
        assert name == "Connection"
        assert options["host"] == "127.0.0.1"
        assert options["port"] == 6379
        assert (options["username"], options["password"]) == ("probe", "pw")
        assert options["socket_timeout"] == options["socket_connect_timeout"] == 5.0
        _client.connect(self.params(login_timeout=2.5))
        assert made[1][1]["socket_timeout"] == made[1][1]["socket_connect_timeout"] == 2.5
        assert client.where == "127.0.0.1:6379"
        assert client.password == "pw"
        assert client.config_command == "hidden"

    def test_a_unix_socket_goes_before_host_and_port(self, made: list[Any]) -> None:
        client = _client.connect(self.params(login_unix_socket="/run/s", tls=True, login_password="pw"))
        ((name, options),) = made
        assert name == "UnixDomainSocketConnection"
        assert options["path"] == "/run/s"
        assert options["password"] == "pw"
        assert "host" not in options
        assert client.where == "/run/s"

    @pytest.mark.parametrize(("validate", "asked"), [(True, "required"), (False, "none")])
    def test_tls(self, made: list[Any], validate: bool, asked: str) -> None:
        _client.connect(
            self.params(tls=True, validate_certs=validate, ca_certs="/ca", client_cert_file="/c", client_key_file="/k")
        )
        ((name, options),) = made
        assert name == "SSLConnection"
        assert options["ssl_cert_reqs"] == asked
        assert (options["ssl_ca_certs"], options["ssl_certfile"], options["ssl_keyfile"]) == ("/ca", "/c", "/k")

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (redis.exceptions.AuthenticationError("WRONGPASS"), ServerError),
            (redis.exceptions.ResponseError("LOADING"), ServerError),
            (redis.exceptions.ConnectionError("Error 111"), NotReachedError),
            (redis.exceptions.TimeoutError("Timeout"), NotReachedError),
            (ConnectionRefusedError("refused"), NotReachedError),
        ],
    )
    def test_who_refuses_is_told_from_who_is_not_there(self, made: list[Any], error: Exception, kind: Any) -> None:
        redis.connection.Connection.error = error
        with pytest.raises(ServerError, match=f"127.0.0.1:6379: .*{error}") as caught:
            _client.connect(self.params())
        assert caught.value.__class__ is kind

    def passwords(self, made: list[Any], right: Any, said: str, **params: Any) -> list[Any]:
        """Return the passwords that were tried, in order, at a server that takes I(right) only."""

        class Guarded:
            def __init__(self, **options: Any) -> None:
                made.append(options["password"])

            def connect(self) -> None:
                if made[-1] != right:
                    raise redis.exceptions.AuthenticationError(said)

            def send_command(self, *words: str) -> None:
                assert words == ("PING",)

            def read_response(self) -> bytes:
                return b"PONG"

            def disconnect(self) -> None:
                """End it."""

        redis.connection.Connection = Guarded
        self.client = _client.connect(self.params(**params))
        return made

    def test_the_password_until_now_is_tried_where_the_new_one_is_refused(self, made: list[Any]) -> None:
        given = {"login_password": "new", "login_current_password": "old"}
        assert self.passwords(made, "old", "WRONGPASS", **given) == ["new", "old"]
        assert self.client.password == "old"

    def test_the_right_password_is_the_only_one_tried(self, made: list[Any]) -> None:
        assert self.passwords(made, "new", "WRONGPASS", login_password="new", login_current_password="old") == ["new"]

    @pytest.mark.parametrize(
        "said",
        [
            "AUTH <password> called without any password configured for the default user.",
            "Client sent AUTH, but no password is set",
        ],
    )
    def test_none_is_used_where_the_server_has_none_yet(self, made: list[Any], said: str) -> None:
        assert self.passwords(made, None, said, login_password="new") == ["new", None]
        assert self.client.password is None

    def test_no_other_password_is_invented(self, made: list[Any]) -> None:
        with pytest.raises(ServerError, match="WRONGPASS"):
            self.passwords(made, None, "WRONGPASS", login_password="new")
        assert made == ["new"]

    def test_where_nobody_answers_no_other_password_is_tried(self, made: list[Any]) -> None:
        redis.connection.Connection.error = ConnectionRefusedError("refused")
        with pytest.raises(NotReachedError):
            _client.connect(self.params(login_password="new", login_current_password="old"))
        assert len(made) == 1


def test_the_passwords_are_kept_out_of_logs() -> None:
    assert {name for name in _client.LOGIN_ARGUMENTS if "password" in name} == {
        name for name, spec in _client.LOGIN_ARGUMENTS.items() if spec.get("no_log")
    }
