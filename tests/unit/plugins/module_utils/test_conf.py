# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""redis.conf is read and written as Redis does it, and never shown with a secret in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf
from ansible_collections.edgeops.redis_modules.plugins.module_utils._conf import ConfError, Directive

ANY_TEXT = st.text() | st.text(alphabet=" \t\"'\\#xn0a\n\r\x00\x0b\x0c\x1c\x7f\x85\xa0\u2028\u2029é\U0001f600")
LINES = st.text(alphabet=" \t\v\f\"'\\#xXnrtba0fFg\x1f\x7f\x85\xa0\u3000é")
NAMES = st.from_regex(r"[a-z][a-z0-9-]*(\.[a-z0-9-]+)?", fullmatch=True)
DIRECTIVES = st.lists(st.builds(Directive, NAMES, st.lists(ANY_TEXT, max_size=4).map(tuple)))


SPACES = b" \t\n\v\f\r"
ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
IN_DOUBLE_QUOTES = re.compile(rb"\\x([0-9a-fA-F]{2})|\\(.)|([^\"])", re.DOTALL)
IN_SINGLE_QUOTES = re.compile(rb"(?!)()|\\(')|([^'])", re.DOTALL)


def split_as_redis_does(line: bytes) -> list[bytes] | None:
    """Follow sdssplitargs of src/sds.c, on bytes; None for its unbalanced quotes."""
    args: list[bytes] = []
    rest = line.lstrip(SPACES)
    while rest:
        # Without quotes, a word ends at fewer characters than those that are skipped before it.
        plain = re.match(rb"[^ \n\r\t\"']*", rest)
        assert plain
        word, rest = plain.group(), rest[plain.end() :]
        if rest[:1] in (b'"', b"'"):
            quoted = unquoted(rest[:1], rest[1:])
            if quoted is None:
                return None
            word, rest = word + quoted[0], quoted[1]
        args.append(word)
        rest = rest.lstrip(SPACES)
    return args


def unquoted(quote: bytes, rest: bytes) -> tuple[bytes, bytes] | None:
    """Return what is in quotes and what comes behind them."""
    word = b""
    while not rest.startswith(quote):
        match = (IN_DOUBLE_QUOTES if quote == b'"' else IN_SINGLE_QUOTES).match(rest)
        if not match:
            return None
        code, escaped, plain = match.groups()
        word += bytes([int(code, 16)]) if code else ESCAPES.get(escaped, escaped) if escaped else plain
        rest = rest[match.end() :]
    rest = rest[1:]
    return None if rest[:1] and rest[:1] not in SPACES else (word, rest)


class TestQuoting:
    """quote() and split() are each other's reverse, and split() is Redis' own."""

    @given(ANY_TEXT)
    def test_any_text_survives_being_quoted_and_split(self, value: str) -> None:
        assert _conf.split(_conf.quote(value)) == [value]

    @given(st.lists(ANY_TEXT))
    def test_any_arguments_survive_on_one_line(self, values: list[str]) -> None:
        assert _conf.split(" ".join(_conf.quote(value) for value in values)) == values

    @given(ANY_TEXT)
    def test_what_is_quoted_stays_on_one_line_of_the_file(self, value: str) -> None:
        assert "\n" not in _conf.quote(value)
        assert "\r" not in _conf.quote(value)
        assert "\0" not in _conf.quote(value)

    @pytest.mark.parametrize("value", ["100mb", "/var/lib/redis/modules/x.so", "#5", "a#b", "é", "-::1", "50%"])
    def test_what_needs_no_quotes_gets_none(self, value: str) -> None:
        assert _conf.quote(value) == value

    @pytest.mark.parametrize(
        ("value", "written"),
        [
            ("", '""'),
            ("a b", '"a b"'),
            ('say "hi"', r'"say \"hi\""'),
            ("it's", '"it\'s"'),
            ("back\\slash", r'"back\\slash"'),
            ("two\nlines", r'"two\nlines"'),
            ("\x00\x7f", r'"\x00\x7f"'),
        ],
    )
    def test_how_the_rest_is_written(self, value: str, written: str) -> None:
        assert _conf.quote(value) == written

    @given(LINES)
    @example('"\\xc3\\xa9"')
    @example("a\xa0b")
    @example("a\x1fb")
    def test_split_agrees_with_redis_on_any_line(self, line: str) -> None:
        wanted = split_as_redis_does(line.encode())
        if wanted is None:
            with pytest.raises(ConfError):
                _conf.split(line)
        else:
            assert _conf.split(line) == [word.decode("utf-8", "surrogateescape") for word in wanted]

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("", []),
            ("   ", []),
            ("a  b\tc", ["a", "b", "c"]),
            (r'"\x41\x4a"', ["AJ"]),
            (r'"\xzz"', ["xzz"]),
            (r'"\n\r\t\b\a\q"', ["\n\r\t\b\aq"]),
            (r"'\n\x41'", [r"\n\x41"]),
            (r"'it\'s'", ["it's"]),
            ("\"\" ''", ["", ""]),
            (r"un\quoted", [r"un\quoted"]),
            ('half"way in"', ["halfway in"]),
        ],
    )
    def test_splitting_by_example(self, line: str, words: list[str]) -> None:
        assert _conf.split(line) == words

    @pytest.mark.parametrize(
        ("line", "why"),
        [
            ('"open', "a double quote is not closed"),
            ('"open\\"', "a double quote is not closed"),
            ("'open", "a single quote is not closed"),
            ("'open\\'", "a single quote is not closed"),
            ('"a"b', "a closing quote is followed by text"),
            ("'a'b", "a closing quote is followed by text"),
            ("\"a\"'b'", "a closing quote is followed by text"),
        ],
    )
    def test_unbalanced_quotes_are_refused(self, line: str, why: str) -> None:
        with pytest.raises(ConfError, match=why):
            _conf.split(line)


class TestParsing:
    """A redis.conf and its directives."""

    @given(DIRECTIVES)
    def test_what_is_written_is_read_back(self, directives: list[Directive]) -> None:
        assert _conf.parse(_conf.render(directives)) == directives

    def test_comments_and_empty_lines_are_dropped(self) -> None:
        assert _conf.parse("# port 1\n\n  \n   # more\nport 2\n") == [Directive("port", ("2",))]

    def test_a_hash_behind_a_value_is_part_of_the_line(self) -> None:
        assert _conf.parse("requirepass a#b # c") == [Directive("requirepass", ("a#b", "#", "c"))]

    def test_names_are_lower_case_and_arguments_are_as_written(self) -> None:
        assert _conf.parse("MaxMemory-Policy AllKeys") == [Directive("maxmemory-policy", ("AllKeys",))]

    def test_the_order_and_repetitions_are_kept(self) -> None:
        names = [d.args for d in _conf.parse("save 1 1\nport 1\nsave 2 2\n")]
        assert names == [("1", "1"), ("1",), ("2", "2")]

    def test_a_fault_names_its_line(self) -> None:
        with pytest.raises(ConfError, match="line 3: a double quote"):
            _conf.parse('# one\nport 1\ndir "x\n')


def test_a_file_is_read_as_its_text(tmp_path: Path) -> None:
    path = tmp_path / "redis.conf"
    path.write_bytes(b"# \xff\nrequirepass \xe9 # no comment\n")
    assert _conf.read(str(path)) == _conf.parse("requirepass \udce9 # no comment\n")
    path.write_text('port 1\nrequirepass "x\n')
    with pytest.raises(ConfError, match=r"^line 2"):
        _conf.read(str(path))
    with pytest.raises(FileNotFoundError):
        _conf.read(str(tmp_path / "none"))


def secrets_in(line: str) -> st.SearchStrategy[str]:
    """Return lines with a secret of any kind at SECRET; whatever is in it, it has MARKER at both ends."""
    return st.text().map(lambda text: line.replace("SECRET", _conf.quote(f"MARKER{text}MARKER")))


class TestMasking:
    """What is shown of a redis.conf."""

    @pytest.mark.parametrize(
        "line",
        [
            "requirepass SECRET",
            "RequirePass SECRET",
            "  masterauth SECRET",
            "tls-key-file-pass SECRET",
            "tls-client-key-file-pass SECRET",
            "user alice on >SECRET +@all",
            "user alice on SECRET",
            "USER SECRET",
            "rename-command CONFIG SECRET",
            "rename-command config SECRET",
            '"requirepass" SECRET',
            "'rename-command' CONFIG SECRET",
            '"sentinel" auth-pass mymaster SECRET',
            "sentinel auth-pass mymaster SECRET",
            "SENTINEL AUTH-PASS mymaster SECRET",
            "sentinel sentinel-pass SECRET",
            "sentinel rename-command mymaster CONFIG SECRET",
            "# requirepass SECRET",
        ],
    )
    def test_no_secret_is_ever_shown(self, line: str) -> None:
        @given(secrets_in(line))
        def check(text: str) -> None:
            assert "MARKER" not in _conf.masked(f"port 1\n{text}\ndir /x\n")

        check()

    @pytest.mark.parametrize(
        "line",
        [
            'requirepass "MARKER',
            "masterauth 'MARKER",
            'user alice on ">MARKER',
            'requirepass "MARKER"MARKER',
            'rename-command CONFIG "MARKER',
        ],
    )
    def test_not_even_where_its_quotes_are_unbalanced(self, line: str) -> None:
        assert "MARKER" not in _conf.masked(line)

    @pytest.mark.parametrize(
        ("line", "shown"),
        [
            ("requirepass x", "requirepass (hidden)"),
            ("user alice on >x", "user alice (hidden)"),
            ("rename-command CONFIG x", "rename-command CONFIG (hidden)"),
            ("sentinel auth-pass mymaster x", "sentinel auth-pass mymaster (hidden)"),
            ('rename-command CONFIG ""', 'rename-command CONFIG ""'),
            ("sentinel monitor mymaster 127.0.0.1 6379 2", "sentinel monitor mymaster 127.0.0.1 6379 2"),
            ("masteruser replica", "masteruser replica"),
            ("port 6379", "port 6379"),
        ],
    )
    def test_the_rest_of_the_line_stays_readable(self, line: str, shown: str) -> None:
        assert _conf.masked(line) == shown + "\n"

    def test_the_lines_that_hide_nothing_are_as_written_and_in_order(self) -> None:
        assert _conf.masked("port 1\n# why\n\ndir  '/x'\n") == "port 1\ndir  '/x'\n"


class TestTrial:
    """What a throwaway server gets of a redis.conf."""

    LIVE = """
        port 6379
        tls-port 6380
        bind 0.0.0.0
        unixsocket /run/redis/redis.sock
        unixsocketperm 770
        dir /var/lib/redis
        logfile /var/log/redis/redis-server.log
        pidfile /run/redis/redis-server.pid
        daemonize yes
        supervised systemd
        syslog-enabled yes
        replicaof 10.0.0.1 6379
        slaveof 10.0.0.1 6379
        cluster-enabled yes
        cluster-config-file nodes.conf
        aclfile /etc/redis/users.acl
        maxclients 100000
        proc-title-template x
        maxmemory 100mb
        requirepass secret
        rename-command DEBUG x
        loadmodule /m/a.so one
        loadmodule /m/b.so
        a.level 3
    """

    def trial(self) -> list[Directive]:
        return _conf.for_trial(_conf.parse(self.LIVE), "/run/trial", "/run/trial/s")

    def test_it_has_no_tie_to_the_live_servers_place(self) -> None:
        text = _conf.render(self.trial())
        for tie in (
            "6379",
            "6380",
            "0.0.0.0",
            "/run/redis/",
            "/var/lib",
            "/var/log",
            "10.0.0.1",
            "systemd",
            "nodes.conf",
            "users.acl",
            "100000",
        ):
            assert tie not in text
        for name in (
            "replicaof",
            "slaveof",
            "cluster-enabled",
            "supervised",
            "syslog-enabled",
            "proc-title-template",
            "pidfile",
        ):
            assert name not in [d.name for d in self.trial()]

    def test_it_listens_on_its_own_socket_only_and_works_in_its_own_folder(self) -> None:
        last = {d.name: d.args for d in self.trial()}
        assert last["port"] == ("0",)
        assert last["unixsocket"] == ("/run/trial/s",)
        assert last["unixsocketperm"] == ("700",)
        assert last["dir"] == ("/run/trial",)
        assert last["daemonize"] == ("no",)
        assert last["logfile"] == ("",)
        names = [d.name for d in self.trial()]
        assert all(
            names.count(name) == 1 for name in ("port", "unixsocket", "unixsocketperm", "dir", "daemonize", "logfile")
        )

    def test_it_keeps_all_other_settings_in_their_order(self) -> None:
        kept = _conf.parse(
            "maxmemory 100mb\nrequirepass secret\nrename-command DEBUG x\n"
            "loadmodule /m/a.so one\nloadmodule /m/b.so\na.level 3"
        )
        assert self.trial()[-len(kept) :] == kept

    def test_it_works_in_its_folder_before_a_module_is_loaded(self) -> None:
        names = [d.name for d in self.trial()]
        assert names.index("dir") < names.index("loadmodule")

    def test_module_paths_are_replaced_and_arguments_are_kept(self) -> None:
        changed = _conf.with_module_paths(
            _conf.parse("loadmodule /m/a.so x y\nloadmodule /m/b.so\ndir /m/a.so\nloadmodule\n"), {"/m/a.so": "/new.so"}
        )
        assert _conf.render(changed) == "loadmodule /new.so x y\nloadmodule /m/b.so\ndir /m/a.so\nloadmodule\n"


class TestRenamedCommand:
    """Under which name a command can be called."""

    @pytest.mark.parametrize(
        ("conf", "name"),
        [
            ("port 1", "CONFIG"),
            ("rename-command DEBUG x", "CONFIG"),
            ("rename-command CONFIG hidden", "hidden"),
            ("rename-command config hidden", "hidden"),
            ('rename-command CONFIG ""', ""),
            ("rename-command CONFIG", "CONFIG"),
        ],
    )
    def test_where(self, conf: str, name: str) -> None:
        assert _conf.renamed_command(_conf.parse(conf), "CONFIG") == name


class TestStartDigest:
    """It changes with all that only a start can change, and with nothing else."""

    BASE = "port 1\nloadmodule /m/a.so x\nrename-command DEBUG y\ninclude /z\nmaxmemory 1\n"

    def digest(self, conf: str, dropin: str = "[Service]\n") -> str:
        return _conf.start_digest(_conf.parse(conf), dropin)

    @pytest.mark.parametrize(
        "other",
        [
            BASE.replace("port 1", "port 2"),
            BASE.replace("maxmemory 1", "maxmemory 2"),
            BASE + "a.level 3\n",
            "# a comment\n" + BASE,
            BASE.replace("/m/a.so", '"/m/a.so"'),
            "loadmodule /m/a.so x\nrename-command DEBUG y\ninclude /z\n",
        ],
    )
    def test_it_stays_where_a_running_server_can_be_asked(self, other: str) -> None:
        assert self.digest(other) == self.digest(self.BASE)

    @pytest.mark.parametrize(
        "other",
        [
            BASE.replace("a.so x", "a.so"),
            BASE.replace("a.so x", "a.so z"),
            BASE.replace("/m/a.so", "/m/b.so"),
            BASE.replace("DEBUG y", "DEBUG z"),
            BASE.replace("include /z", "include /y"),
            BASE + "loadmodule /m/b.so\n",
            BASE.replace("loadmodule /m/a.so x\n", ""),
            BASE.replace("a.so x", '"a.so x"'),
        ],
    )
    def test_it_changes_where_only_a_start_can(self, other: str) -> None:
        assert self.digest(other) != self.digest(self.BASE)

    def test_it_changes_with_the_order_of_modules(self) -> None:
        assert self.digest("loadmodule /a.so\nloadmodule /b.so") != self.digest("loadmodule /b.so\nloadmodule /a.so")

    def test_it_changes_with_the_dropin(self) -> None:
        assert self.digest(self.BASE, "[Service]\nMemoryMax=1G\n") != self.digest(self.BASE)

    def test_a_line_can_not_move_between_configuration_and_dropin_unseen(self) -> None:
        assert self.digest("loadmodule /a.so", "") != self.digest("", "loadmodule /a.so\n")

    def test_it_is_short_and_tells_nothing(self) -> None:
        assert len(self.digest(self.BASE)) == 32 + 1 + 16
        assert set(self.digest(self.BASE)) <= set("0123456789abcdef-")

    def test_modules_have_a_part_of_their_own(self) -> None:
        two = self.digest(self.BASE + "loadmodule /m/b.so\n")
        lines = {_conf.line_digest(_conf.Directive("loadmodule", args)) for args in (("/m/a.so", "x"), ("/m/b.so",))}
        assert _conf.started_modules(two) == lines
        assert _conf.started_rest(two) == _conf.started_rest(self.digest(self.BASE))
        assert _conf.started_rest(two) != _conf.started_rest(self.digest(self.BASE.replace("DEBUG y", "DEBUG z")))
        assert _conf.started_rest(two) != _conf.started_rest(self.digest(self.BASE, ""))

    def test_a_server_that_nobody_here_started_tells_nothing_of_its_modules(self) -> None:
        assert _conf.started_modules("") is None
        assert _conf.started_modules(self.digest("")) == frozenset()
        assert _conf.started_rest("") == ""


class TestForTrial:
    """What a throwaway server gets beside the settings."""

    def test_tls_makes_it_look_at_the_certificates(self) -> None:
        for text in ("tls-port 6380\n", "tls-replication yes\n"):
            trial = _conf.for_trial(_conf.parse(text), "/f", "/f/s")
            assert _conf.value(trial, "tls-replication", "no") == "yes"
            assert _conf.value(trial, "tls-port", "0") == "0"
        assert not _conf.uses_tls(_conf.parse("tls-port 0\ntls-cert-file /c\n"))

    def test_users_let_us_in_beside_them(self) -> None:
        trial = _conf.for_trial(_conf.parse("user default off\n"), "/f", "/f/s")
        assert [d.args[0] for d in trial if d.name == "user"] == [_conf.TRIAL_USER, "default"]
        assert "user" not in {d.name for d in _conf.for_trial(_conf.parse("hz 1\n"), "/f", "/f/s")}

    def test_who_wrote_it(self, tmp_path: Path) -> None:
        path = tmp_path / "redis.conf"
        assert not _conf.is_ours(str(path))
        path.write_text("port 1\n")
        assert not _conf.is_ours(str(path))
        path.write_text(f"# {_conf.MARK}.redis_server.\nport 1\n")
        assert _conf.is_ours(str(path))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("", [6379]),
        ("port 7000", [7000]),
        ("port 0", []),
        ("port 7000\ntls-port 7443", [7000, 7443]),
        ("port 7000\ncluster-enabled yes", [7000, 17000]),
        ("port 7000\ncluster-enabled yes\ncluster-port 9000", [7000, 9000]),
    ],
)
def test_the_ports_that_a_server_listens_on(text: str, ports: list[int]) -> None:
    assert _conf.listening_ports(_conf.parse(text)) == ports
