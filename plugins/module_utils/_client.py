# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Talk to a Redis server by redis-py, from 3.5.3 (Debian 11) to the newest.

Answers are taken raw wherever releases of redis-py parse them differently.
"""

from __future__ import annotations

import contextlib
import re
import time
import traceback
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

REDIS_IMPORT_ERROR: str | None
try:
    import redis
except ImportError:
    REDIS_IMPORT_ERROR = traceback.format_exc()
else:
    REDIS_IMPORT_ERROR = None

LOGIN_ARGUMENTS: dict[str, dict[str, Any]] = {
    "login_host": {"type": "str", "default": "127.0.0.1"},
    "login_port": {"type": "int", "default": 6379},
    "login_user": {"type": "str"},
    "login_password": {"type": "str", "no_log": True},
    "login_current_password": {"type": "str", "no_log": True},
    "login_unix_socket": {"type": "path"},
    "tls": {"type": "bool", "default": False},
    "validate_certs": {"type": "bool", "default": True},
    "ca_certs": {"type": "path"},
    "client_cert_file": {"type": "path"},
    "client_key_file": {"type": "path"},
    "login_timeout": {"type": "float", "default": 5.0},
}
"""What every module that talks to a server takes; documented in doc_fragments/redis.py."""


class ServerError(Exception):
    """The server can't be reached, or refuses; the text is for the operator."""


class NotReachedError(ServerError):
    """Nobody answers at all; a server that is starting may answer later."""

    @property
    def nobody_listens(self) -> bool:
        """Whether there is no server at that place, rather than one that is busy or full."""
        return bool(re.search(r"Error (2|111) connecting|Connection refused|No such file", str(self)))


class LoadedModule(NamedTuple):
    """One line of MODULE LIST. I(path) and I(args) are None where the server does not tell (before 7.0)."""

    name: str
    version: int
    path: str | None
    args: tuple[str, ...] | None

    @property
    def built_in(self) -> bool:
        """Whether the module is part of the server itself (Redis 8 lists C(vectorset) with an empty path)."""
        return self.path == ""


def without_command(error: Exception | str) -> str:
    """Return the server's words without the command, whose new name may be a secret."""
    return str(error).split(": ", 1)[-1]


def end_of(error: Exception) -> str:
    """Return the end of the server's words: what comes before may quote the digest of a password."""
    return str(error).rsplit(": ", maxsplit=1)[-1]


def text(value: Any) -> Any:
    """Decode what the server sent; bytes that are no UTF-8 survive as surrogates."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else value


def pairs(reply: Any) -> dict[str, Any]:
    """Return a flat list of names and values, or a map, as a dict with text names."""
    if isinstance(reply, Mapping):
        return {text(key): value for key, value in reply.items()}
    items = list(reply)
    return {text(items[i]): items[i + 1] for i in range(0, len(items) - 1, 2)}


def parse_module_list(reply: Any) -> list[LoadedModule]:
    """Read the answer of MODULE LIST, or the C(modules) field of HELLO, of any version; sorted by name."""
    modules = []
    for entry in reply:
        fields = pairs(entry)
        path, args = fields.get("path"), fields.get("args")
        modules.append(
            LoadedModule(
                name=text(fields["name"]),
                version=int(fields["ver"]),
                path=None if path is None else text(path),
                args=None if args is None else tuple(str(text(arg)) for arg in args),
            )
        )
    return sorted(modules)


def parse_info(reply: Any) -> dict[str, str]:
    """Read the raw text of INFO into a flat dict; repeated fields (C(module)) keep the last, as nobody needs them."""
    fields = {}
    for line in str(text(reply)).splitlines():
        if line and not line.startswith("#") and ":" in line:
            name, value = line.split(":", 1)
            fields[name] = value
    return fields


@contextlib.contextmanager
def _as_server_error(what: str) -> Iterator[None]:
    """Raise what redis-py and the network raise as errors of our own."""
    try:
        yield
    except redis.exceptions.AuthenticationError as error:
        raise ServerError(f"{what}: {error}") from error
    except (redis.exceptions.ConnectionError, redis.exceptions.TimeoutError, OSError) as error:
        raise NotReachedError(f"{what}: {error}") from error
    except redis.exceptions.RedisError as error:
        raise ServerError(f"{what}: {error}") from error


class Client:
    """A connection to one server, with the few commands that this collection needs.

    I(config_command) is the name of CONFIG where rename-command changed it; empty where it was taken away.
    I(user) and I(password) are those that the server took.
    """

    def __init__(
        self,
        connection: Any,
        where: str,
        config_command: str = "CONFIG",
        password: str | None = None,
        user: str | None = None,
    ) -> None:
        self._connection = connection
        self.where = where
        self.config_command = config_command
        self.password = password
        self.user = user

    def call(self, *words: str) -> Any:
        """Send one command and return the raw answer.

        Raises ServerError with the server's own words.
        """
        # The new name of a renamed CONFIG is a secret of its own.
        name = "CONFIG" if words[0] == self.config_command else words[0]
        with _as_server_error(f"{' '.join([name, *words[1:2]])} at {self.where}"):
            self._connection.send_command(*words)
            return self._connection.read_response()

    def many(self, commands: Sequence[Sequence[str | bytes]]) -> list[Any]:
        """Send several commands at once and return the raw answers; an error among them is raised as ServerError."""
        with _as_server_error(f"{text(commands[0][0])} at {self.where}" if commands else self.where):
            self._connection.send_packed_command(self._connection.pack_commands(commands))
            return [self._connection.read_response() for _command in commands]

    def commands(self) -> dict[str, frozenset[str]]:
        """COMMAND: the name of each command in lower case, with its flags.

        A module's command has the flag C(module), which is added here before Redis 6.2: it is in no ACL category there.
        """
        found = {}
        for entry in self.call("COMMAND"):
            flags = {str(text(flag)) for flag in entry[2]}
            if len(entry) == 7 and not entry[6]:
                flags.add("module")
            found[str(text(entry[0])).lower()] = frozenset(flags)
        return found

    def info(self) -> dict[str, str]:
        """INFO, all default sections, as a flat dict of text."""
        return parse_info(self.call("INFO"))

    def modules(self) -> list[LoadedModule]:
        """What MODULE LIST reports, or HELLO, which gives the same list to a user that may not run MODULE LIST."""
        asks: list[Callable[[], Any]] = [
            lambda: self.call("MODULE", "LIST"),
            lambda: pairs(self.call("HELLO", "2"))["modules"],
        ]
        if self.user:
            # Least privilege is the rule for a named user, and each refusal would be a line of the server's ACL LOG.
            asks.reverse()
        refused: ServerError | None = None
        for ask in asks:
            try:
                return parse_module_list(ask())
            except ServerError as error:
                refused = refused or error
            except KeyError:
                continue
        raise refused or ServerError(f"{self.where}: it does not list its modules")

    def settings(self) -> dict[str, str]:
        """CONFIG GET *: every setting as the server itself writes it."""
        if not self.config_command:
            raise ServerError(f"{self.where}: CONFIG is renamed away, so its settings cannot be read")
        reply = pairs(self.call(self.config_command, "GET", "*"))
        return {name: str(text(value)) for name, value in reply.items()}

    def users(self, acl_command: str = "ACL") -> dict[str, list[str]]:
        """ACL LIST: the words of each user's rule; Redis before 8.0 may change their order from one time to the next.

        I(acl_command) is the name of ACL where rename-command changed it; empty where it was taken away. Raises
        ServerError.
        """
        if not acl_command:
            raise ServerError(f"{self.where}: ACL is renamed away, so its users cannot be read")
        try:
            rules = [str(text(line)).split() for line in self.call(acl_command, "LIST")]
        except ServerError as error:
            # Its new name is a secret.
            raise type(error)(f"ACL LIST at {self.where}: {without_command(error)}") from error
        # Everybody's rule but that of the default user that nobody has touched has this one; its contrary tells.
        return {words[1]: [word for word in words[2:] if word != "sanitize-payload"] for words in rules}

    def set(self, name: str, value: str) -> None:
        """CONFIG SET. Raises ServerError where the server refuses."""
        self.call(self.config_command, "SET", name, value)

    def heard(self, channel: str, seconds: float) -> Iterator[str]:
        """Subscribe, and give each message that comes within this time; the connection is of no other use then."""
        self.call("SUBSCRIBE", channel)
        end = time.monotonic() + seconds
        with _as_server_error(f"SUBSCRIBE {channel} at {self.where}"):
            while self._connection.can_read(timeout=max(0.0, end - time.monotonic())):
                yield str(text(self._connection.read_response()[2]))

    def close(self) -> None:
        """End the connection; never raises."""
        with contextlib.suppress(OSError, redis.exceptions.RedisError):
            self._connection.disconnect()


def connect(params: Mapping[str, Any], config_command: str = "CONFIG") -> Client:
    """Open a connection as the module's arguments say (see LOGIN_ARGUMENTS).

    Where I(login_password) is refused, others are tried, as this may be the run that brings the login in:
    I(login_current_password); the default user, where I(login_user) is not there yet; and no password at all where the
    server itself has none, as it lets everybody in. Raises ServerError where nobody answers, or no login is right.
    """
    try:
        return _connect(params, params.get("login_password"), config_command)
    except NotReachedError:
        raise
    except ServerError as refused:
        for login in _other_logins(params, str(refused)):
            with contextlib.suppress(ServerError):
                client = _connect(login, login["login_password"], config_command)
                # Without a password nothing was sent yet, and the server may ask for one all the same.
                client.call("PING")
                return client
        raise


def _other_logins(params: Mapping[str, Any], refused: str) -> list[dict[str, Any]]:
    """Return the logins to try where the declared one was refused with these words."""
    passwords = [params["login_current_password"]] if params.get("login_current_password") else []
    others = [{**params, "login_password": password} for password in passwords]
    if params.get("login_user"):
        others += [{**params, "login_user": None, "login_password": password} for password in [*passwords, None]]
    elif re.search("without any password configured|no password is set", refused):
        others = [{**params, "login_password": None}]
    return others


def _connect(params: Mapping[str, Any], password: str | None, config_command: str) -> Client:
    common: dict[str, Any] = {
        "username": params.get("login_user"),
        "password": password,
        "socket_timeout": params.get("login_timeout") or 5.0,
        "socket_connect_timeout": params.get("login_timeout") or 5.0,
    }
    if int(redis.__version__.split(".")[0]) >= 5:
        # Its newest releases would speak RESP3, whose answers have other shapes.
        common["protocol"] = 2
    if params.get("login_unix_socket"):
        where = params["login_unix_socket"]
        common.pop("socket_connect_timeout")
        connection = redis.connection.UnixDomainSocketConnection(path=where, **common)
    else:
        where = f"{params['login_host']}:{params['login_port']}"
        common.update(host=params["login_host"], port=params["login_port"])
        if params.get("tls"):
            connection = redis.connection.SSLConnection(
                ssl_ca_certs=params.get("ca_certs"),
                ssl_certfile=params.get("client_cert_file"),
                ssl_keyfile=params.get("client_key_file"),
                ssl_cert_reqs="required" if params.get("validate_certs") else "none",
                # Newer releases of redis-py compare the name by themselves; a host reaches its own server by an
                # address that no certificate needs to name.
                ssl_check_hostname=False,
                **common,
            )
        else:
            connection = redis.connection.Connection(**common)
    # From 5.1 on, redis-py introduces itself by CLIENT SETINFO; a user of least privilege would be refused, and each
    # refusal is a line of the server's ACL LOG. Which of these it reads differs from release to release.
    connection.lib_name = connection.lib_version = connection.driver_info = None
    with _as_server_error(where):
        connection.connect()
    return Client(connection, where, config_command, password, params.get("login_user"))
