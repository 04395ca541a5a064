# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read and write redis.conf as Redis itself does.

Nothing here touches a file or a server: text in, text or values out.
The quoting rules are those of C(sdssplitargs) in Redis' own source: they are not shell rules.
"""

from __future__ import annotations

import hashlib
import posixpath
import re
from typing import Iterable, NamedTuple, Sequence

SECRET_DIRECTIVES = frozenset({"requirepass", "masterauth", "tls-key-file-pass", "tls-client-key-file-pass", "user"})
"""Directives whose arguments must never be shown."""

START_ONLY_DIRECTIVES = frozenset({"rename-command", "loadmodule", "include"})
"""Directives that a running server cannot be asked about, on any version."""

PLACE_BOUND_DIRECTIVES = frozenset(
    {
        "bind",
        "cluster-config-file",
        "cluster-enabled",
        "daemonize",
        "dir",
        "aclfile",
        "logfile",
        "maxclients",
        "pidfile",
        "port",
        "proc-title-template",
        "replicaof",
        "slaveof",
        "supervised",
        "syslog-enabled",
        "tls-port",
        "tls-replication",
        "unixsocket",
        "unixsocketperm",
    }
)
"""Directives that tie a server to its place on the host: a second server beside it must not have them."""

TRIAL_USER = "edgeops-trial"
"""Whom a throwaway server with users lets in; nobody but its own user reaches its socket."""

_BLANKS = " \t\n\v\f\r"
"""What C's isspace() knows; Python's str.isspace() knows more, and would split where Redis does not."""

_ENDS = " \t\n\r\0"
"""What ends a word outside quotes in Redis: fewer than what it skips between words."""

_NEEDS_QUOTES = re.compile(r"""[\s"'\\\x00-\x1f\x7f]""")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "b": "\b", "a": "\a"}
_REVERSE_ESCAPES = {"\n": "\\n", "\r": "\\r", "\t": "\\t", "\b": "\\b", "\a": "\\a"}


class ConfError(ValueError):
    """A line that Redis would not read, with its number."""


class Directive(NamedTuple):
    """One line of redis.conf: its name in lower case and its arguments, unquoted."""

    name: str
    args: tuple[str, ...]


def quote(value: str) -> str:
    """Return I(value) so that Redis reads it back as one argument, unchanged."""
    if value and not _NEEDS_QUOTES.search(value):
        return value
    out = []
    for char in value:
        if char in ('"', "\\"):
            out.append("\\" + char)
        elif char in _REVERSE_ESCAPES:
            out.append(_REVERSE_ESCAPES[char])
        elif ord(char) < 0x20 or ord(char) == 0x7F:
            out.append(f"\\x{ord(char):02x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


def split(line: str) -> list[str]:
    """Split one line into its arguments, as Redis does.

    Raises ConfError where Redis would say "Unbalanced quotes in configuration line".
    """
    args: list[str] = []
    position, end = 0, len(line)
    while True:
        while position < end and line[position] in _BLANKS:
            position += 1
        if position >= end:
            return args
        current: list[str] = []
        while position < end and line[position] not in _ENDS:
            char = line[position]
            # A closing quote ends the word.
            if char == '"':
                text, position = _double_quoted(line, position + 1)
                current.append(text)
                break
            if char == "'":
                text, position = _single_quoted(line, position + 1)
                current.append(text)
                break
            current.append(char)
            position += 1
        # An escape gives a byte; several of them may be one character.
        args.append("".join(current).encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape"))


def _double_quoted(line: str, position: int) -> tuple[str, int]:
    out: list[str] = []
    while position < len(line):
        char = line[position]
        if char == "\\" and re.match(r"x[0-9a-fA-F]{2}", line[position + 1 :]):
            byte = bytes([int(line[position + 2 : position + 4], 16)])
            out.append(byte.decode("ascii", "surrogateescape"))
            position += 4
        elif char == "\\" and position + 1 < len(line):
            following = line[position + 1]
            out.append(_ESCAPES.get(following, following))
            position += 2
        elif char == '"':
            return "".join(out), _closed(line, position + 1)
        else:
            out.append(char)
            position += 1
    raise ConfError("a double quote is not closed")


def _single_quoted(line: str, position: int) -> tuple[str, int]:
    out: list[str] = []
    while position < len(line):
        char = line[position]
        if char == "\\" and line[position + 1 : position + 2] == "'":
            out.append("'")
            position += 2
        elif char == "'":
            return "".join(out), _closed(line, position + 1)
        else:
            out.append(char)
            position += 1
    raise ConfError("a single quote is not closed")


def _closed(line: str, position: int) -> int:
    if position < len(line) and line[position] not in _BLANKS:
        raise ConfError("a closing quote is followed by text without a space")
    return position


def parse(text: str) -> list[Directive]:
    """Read a redis.conf into its directives, in order; comments and empty lines are dropped."""
    directives = []
    for number, raw in enumerate(text.split("\n"), start=1):
        line = raw.strip(_BLANKS)
        if not line or line.startswith("#"):
            continue
        try:
            words = split(line)
        except ConfError as error:
            raise ConfError(f"line {number}: {error}") from error
        directives.append(Directive(words[0].lower(), tuple(words[1:])))
    return directives


def read(path: str) -> list[Directive]:
    """Return the directives of the file at I(path). Raises OSError and ConfError."""
    with open(path, encoding="utf-8", errors="surrogateescape") as stream:
        return parse(stream.read())


def directives_of(path: str) -> list[Directive]:
    """Return what the redis.conf at I(path) says; nothing where there is none, or Redis itself could not read it."""
    try:
        return read(path)
    except (OSError, ConfError):
        return []


MARK = "Written by the role edgeops.redis_modules"
"""In the first comment of each redis.conf that this collection writes; CONFIG REWRITE leaves comments alone."""


def is_ours(path: str) -> bool:
    """Whether this collection wrote the redis.conf at I(path)."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as stream:
            return MARK in stream.read()
    except OSError:
        return False


def render(directives: Iterable[Directive]) -> str:
    """Write directives as redis.conf text, one a line, each argument quoted where it needs to be."""
    return "".join(" ".join([d.name, *(quote(arg) for arg in d.args)]) + "\n" for d in directives)


def masked(text: str) -> str:
    """Return the directives of a redis.conf as they may be shown: without comments, secret arguments replaced.

    The user's name of an ACL rule and the type of a Sentinel setting stay readable. A rename-command's new
    name is a secret too: whoever knows it can run the command.
    """
    lines = []
    for raw in text.split("\n"):
        line = raw.strip(_BLANKS)
        if line and not line.startswith("#"):
            lines.append(_masked_line(line))
    return "".join(line + "\n" for line in lines)


def _masked_line(line: str) -> str:
    try:
        words = split(line)
    except ConfError:
        # What Redis could not read either may be a secret with a quote in it.
        return re.split(f"[{_BLANKS}]", line, maxsplit=1)[0] + " (hidden)"
    # Redis reads a quoted name as well.
    name = words[0].lower()
    if name == "user" and len(words) > 2:
        return f"user {quote(words[1])} (hidden)"
    if name == "rename-command" and len(words) > 2 and words[2]:
        return f"rename-command {quote(words[1])} (hidden)"
    if name == "sentinel" and len(words) > 2 and words[1].lower() in ("auth-pass", "sentinel-pass", "rename-command"):
        primary = f" {quote(words[2])}" if len(words) > 3 else ""
        return f"sentinel {words[1]}{primary} (hidden)"
    return f"{name} (hidden)" if name in SECRET_DIRECTIVES else line


def for_trial(directives: Sequence[Directive], folder: str, socket: str) -> list[Directive]:
    """Return what a throwaway server gets: the same settings, none of the ties to the real one's place.

    I(folder) is an empty folder of its own, I(socket) the unix socket to listen on. It has no TCP port,
    follows no primary and logs to standard output.
    """
    kept = [d for d in directives if d.name not in PLACE_BOUND_DIRECTIVES]
    own = [
        Directive("port", ("0",)),
        Directive("unixsocket", (socket,)),
        Directive("unixsocketperm", ("700",)),
        Directive("dir", (folder,)),
        Directive("daemonize", ("no",)),
        Directive("logfile", ("",)),
    ]
    if uses_tls(directives):
        # With no TLS port, only this lets the server look at the certificates.
        own.append(Directive("tls-replication", ("yes",)))
    if has_users(directives):
        # The default user may be closed, and what it may do is not to be touched.
        own.append(Directive("user", (TRIAL_USER, "on", "nopass", "~*", "+@all")))
    return own + kept


def has_users(directives: Iterable[Directive]) -> bool:
    """Whether a redis.conf names the server's users."""
    return any(directive.name == "user" for directive in directives)


def uses_tls(directives: Sequence[Directive]) -> bool:
    """Whether a server with this configuration speaks TLS, to clients or to its primary."""
    return value(directives, "tls-port", "0") != "0" or value(directives, "tls-replication", "no") == "yes"


def with_module_paths(directives: Sequence[Directive], paths: dict[str, str]) -> list[Directive]:
    """Return the directives with each loadmodule path that I(paths) knows replaced by its value."""
    return [
        d._replace(args=(paths[d.args[0]], *d.args[1:]))
        if d.name == "loadmodule" and d.args and d.args[0] in paths
        else d
        for d in directives
    ]


KEPT = "#: "
"""What a comment begins with that holds a C(loadmodule) line as it was declared."""


def rewrite_spoils(directives: Iterable[Directive]) -> bool:
    """Whether CONFIG REWRITE would spoil the C(loadmodule) lines: from 7.0 on it drops quotes, and their order."""
    lines = [d for d in directives if d.name == "loadmodule"]
    return len(lines) > 1 or any(quote(arg) != arg for line in lines for arg in line.args)


def value(directives: Iterable[Directive], name: str, default: str) -> str:
    """Return the arguments of the last directive of that name as one text, or Redis' own default."""
    found = default
    for directive in directives:
        if directive.name == name:
            found = " ".join(directive.args)
    return found


def rdb_path(directives: Sequence[Directive]) -> str:
    """Return where a server with this configuration keeps its RDB."""
    return posixpath.join(value(directives, "dir", "."), value(directives, "dbfilename", "dump.rdb"))


def aof_paths(directives: Sequence[Directive]) -> list[str]:
    """Return the file by which a server with this configuration knows its AOF: up to Redis 6.2, and from 7.0 on."""
    folder, name = value(directives, "dir", "."), value(directives, "appendfilename", "appendonly.aof")
    subfolder = value(directives, "appenddirname", "appendonlydir")
    return [posixpath.join(folder, name), posixpath.join(folder, subfolder, name + ".manifest")]


def listening_ports(directives: Sequence[Directive]) -> list[int]:
    """Return the TCP ports that a server with these directives listens on; a cluster's node talks on a second one."""
    texts = (value(directives, "port", "6379"), value(directives, "tls-port", "0"))
    found = [int(text) for text in texts if text.isdigit() and int(text)]
    if found and value(directives, "cluster-enabled", "no") == "yes":
        bus = value(directives, "cluster-port", "0")
        found.append(int(bus) if bus.isdigit() and int(bus) else found[0] + 10000)
    return found


def renamed_command(directives: Iterable[Directive], command: str) -> str:
    """Return the name under which I(command) can be called; empty where it was taken away."""
    name = command
    for directive in directives:
        if (
            directive.name == "rename-command"
            and len(directive.args) == 2
            and directive.args[0].upper() == command.upper()
        ):
            name = directive.args[1]
    return name


def line_digest(line: Directive) -> str:
    """Return a digest of one line of redis.conf."""
    return hashlib.sha256(render([line]).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def start_digest(directives: Iterable[Directive], dropin: str) -> str:
    """Return a digest of all that only a start can change and that no running server can be asked about.

    Each start leaves it on the host, so that a run can see what the running server was started with. The new names
    of renamed commands go into it only hashed together with everything else. Each loadmodule line has a digest of its
    own behind that, as modules may be changed without a start.
    """
    lines = [d for d in directives if d.name in START_ONLY_DIRECTIVES]
    rest = render(d for d in lines if d.name != "loadmodule") + "\0" + dropin
    first = hashlib.sha256(rest.encode("utf-8", "surrogateescape")).hexdigest()[:32]
    return "-".join([first, *(line_digest(d) for d in lines if d.name == "loadmodule")])


def started_rest(digest: str) -> str:
    """Return the part of a start digest that no change of modules changes; empty where there is no digest."""
    return digest.split("-", maxsplit=1)[0]


def started_modules(digest: str) -> frozenset[str] | None:
    """Return the digests of the loadmodule lines in a start digest; None where there is none."""
    return frozenset(digest.split("-")[1:]) if digest else None
