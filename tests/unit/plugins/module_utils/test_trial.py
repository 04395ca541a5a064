# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a throwaway server showed, in the operator's words."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, Sequence

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _sandbox, _scratch, _trial
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial

LOG = "812:M 22 Nov 2026 12:00:00.123 "


def module(name: str = "a", args: tuple[str, ...] = (), version: int | None = None) -> dict[str, Any]:
    """Return a declared module that was tried from /m/NAME.so."""
    return {"name": name, "artifact": f"/m/{name}.so", "args": list(args), "version": version}


def showed(*modules: LoadedModule) -> Trial:
    """Return a trial that came up with these modules."""
    return Trial("", list(modules), {}, [])


class TestFaults:
    """A server that came up, but not as declared."""

    def test_none_where_all_is_as_declared(self) -> None:
        trial = showed(LoadedModule("a", 2, "/m/a.so", ("x y",)), LoadedModule("vectorset", 1, "", ()))
        assert _trial.faults(trial, [module(args=("x y",), version=2)]) == []
        assert _trial.faults(trial, [module(args=("x y",))]) == []

    def test_another_name(self) -> None:
        assert _trial.faults(showed(LoadedModule("b", 1, "/m/a.so", ())), [module()]) == [
            (
                "module a: it loads, but MODULE LIST does not report this name;"
                " the file calls itself b: declare it by that name"
            )
        ]

    def test_another_name_before_7_0_where_no_path_is_told(self) -> None:
        (fault,) = _trial.faults(showed(LoadedModule("b", 1, None, None)), [module()])
        assert "the file calls itself b" in fault

    def test_a_name_of_another_file_is_no_hint(self) -> None:
        trial = showed(
            LoadedModule("b", 1, "/m/b.so", ()),
            LoadedModule("c", 1, "/m/else.so", ()),
            LoadedModule("vectorset", 1, "", ()),
        )
        assert _trial.faults(trial, [module("a"), module("b")]) == [
            "module a: it loads, but MODULE LIST does not report this name"
        ]

    def test_another_version(self) -> None:
        trial = showed(LoadedModule("a", 1, "/m/a.so", ()))
        assert _trial.faults(trial, [module(version=2)]) == ["module a: MODULE LIST reports version 1, declared is 2"]
        assert _trial.faults(trial, [module(version=0)]) == ["module a: MODULE LIST reports version 1, declared is 0"]

    def test_other_arguments(self) -> None:
        assert _trial.faults(showed(LoadedModule("a", 1, "/m/a.so", ("x",))), [module(args=("x", "y"))]) == [
            "module a: it received the arguments ['x'], declared are ['x', 'y']"
        ]

    def test_arguments_that_are_not_told_are_not_compared(self) -> None:
        assert _trial.faults(showed(LoadedModule("a", 1, None, None)), [module(args=("x",))]) == []

    def test_every_fault_of_every_module(self) -> None:
        trial = showed(LoadedModule("a", 1, "/m/a.so", ("x",)))
        assert len(_trial.faults(trial, [module("a", version=2), module("b")])) == 3


class TestStartup:
    """A server that did not come up."""

    def fault(self, *log: str, error: str = "exit status 1") -> str:
        (fault,) = _trial.faults(Trial(error, [], {}, list(log)), [module("a"), module("b")])
        return fault

    def test_it_names_the_module_that_the_log_names_and_its_reason(self) -> None:
        # At loglevel warning, Redis does not say that module a was loaded.
        assert (
            self.fault(
                LOG + "# Module /m/b.so failed to load: It does not have execute permissions.",
                LOG + "# Can't load module from /m/b.so: server aborting",
            )
            == "module b: a server with it does not start (exit status 1):"
            " Module /m/b.so failed to load: It does not have execute permissions."
        )

    def test_the_modules_own_words_come_before_those_of_redis(self) -> None:
        fault = self.fault(
            LOG + "# <a> bad argument", LOG + "# Module /m/a.so initialization failed. Module not loaded"
        )
        assert fault.endswith(": <a> bad argument; Module /m/a.so initialization failed. Module not loaded")

    def test_a_crash_in_the_first_module_that_is_not_loaded_is_its_crash(self) -> None:
        fault = self.fault(
            LOG + "* Module 'a' loaded from /m/a.so", LOG + "# Redis 7.0.15 crashed by signal: 11, si_code: 1"
        )
        assert fault.startswith("module b: ")
        assert "crashed by signal: 11" in fault

    def test_a_module_that_was_loaded_is_not_blamed_for_a_crash_at_loglevel_warning(self) -> None:
        fault = self.fault(
            LOG + "# Redis 7.0.15 crashed by signal: 11, si_code: 1", "/m/b.so(RedisModule_OnLoad+0x1c)[0x7f0000001000]"
        )
        assert not fault.startswith("module a: ")

    @pytest.mark.parametrize("printed", [[], ["no license for this host"]])
    def test_a_module_that_ends_the_server_without_a_line_of_redis_is_named(self, printed: list[str]) -> None:
        loaded = [LOG + "* Running mode=standalone, port=0.", LOG + "* Module 'a' loaded from /m/a.so"]
        for log, name in ((loaded, "b"), (loaded[:1], "a")):
            fault = self.fault(*log, *printed, error="exit status 0")
            assert fault == (
                f"module {name}: a server with it does not start (exit status 0): "
                + (*printed, "it ends when it loads it, its log does not say why")[0]
            )

    def test_a_directive_of_its_own_that_a_module_does_not_know(self) -> None:
        log = [LOG + "# Module Configuration detected without loadmodule directive or no ApplyConfig call: aborting"]
        modules = [module("a"), {**module("b"), "config": {"b.speed": "7", "b.x": "1"}}]
        (fault,) = _trial.faults(Trial("exit status 1", [], {}, log), modules)
        assert fault == (
            "module b (b.speed, b.x): it does not know all directives in config of its entry (exit status 1)"
        )
        (fault,) = _trial.faults(Trial("exit status 1", [], {}, log), modules[:1])
        assert fault.startswith("a server with this configuration does not start (exit status 1): Module Configuration")

    def test_who_gives_up_without_a_word(self) -> None:
        log = [
            LOG + "* Module 'a' loaded from /m/a.so",
            LOG + "# Module /m/b.so initialization failed. Module not loaded",
        ]
        modules = [module("a"), module("b")]
        assert _trial.silent(Trial("exit status 1", [], {}, log), modules) == 1
        assert _trial.silent(Trial("exit status 1", [], {}, [LOG + "# <b> sorry", *log]), modules) is None
        assert _trial.silent(Trial("exit status 1", [], {}, log[:1]), modules) is None

    def test_a_module_that_fills_the_log_is_named(self) -> None:
        log = _trial.telling_lines([LOG + "* Module 'a' loaded from /m/a.so", *["on and on"] * 1000])
        assert self.fault(*log) == "module b: a server with it does not start (exit status 1): on and on"

    def test_a_module_that_does_not_come_back_is_named(self) -> None:
        fault = self.fault(LOG + "* Module 'a' loaded from /m/a.so", error=_trial.NOT_READY + " after 30 seconds")
        assert fault.startswith("module b: ")
        assert "its OnLoad does not return" in fault

    def test_a_module_that_was_loaded_before_it_is_not_blamed(self) -> None:
        fault = self.fault(
            LOG + "* Module 'a' loaded from /m/a.so",
            LOG + "# Module /m/b.so initialization failed. Module not loaded",
            LOG + "# Can't load module from /m/b.so: server aborting",
        )
        assert fault.startswith("module b: ")
        assert "initialization failed" in fault

    def test_a_configuration_that_is_refused_blames_no_module(self) -> None:
        fault = self.fault(
            "*** FATAL CONFIG FILE ERROR (Redis 7.0.15) ***",
            ">>> 'nonsense 1'",
            "Bad directive or wrong number of arguments",
        )
        assert fault == (
            "a server with this configuration does not start (exit status 1):"
            " Bad directive or wrong number of arguments"
        )

    def test_a_server_that_dies_after_its_modules_are_loaded_blames_none(self) -> None:
        loaded = [LOG + f"* Module '{name}' loaded from /m/{name}.so" for name in "ab"]
        fault = self.fault(*loaded, LOG + "# Failed listening on unix socket, aborting.")
        assert fault.startswith("a server with this configuration does not start")

    def test_what_ends_it_before_its_modules_is_not_their_fault(self) -> None:
        fault = self.fault(
            LOG + "* Running mode=standalone, port=0.",
            LOG + "# Failed to load certificate: /crt: error:80000002",
            LOG + "# Failed to configure TLS. Check logs for more info.",
        )
        assert fault == (
            "a server with this configuration does not start (exit status 1): Failed to load certificate: /crt: "
            "error:80000002"
        )
        fault = self.fault(">>> 'rename-command a.get (hidden)'", "No such command in rename-command")
        assert "rename-command a.get (hidden)" in fault
        assert "restricted_commands" in fault

    def test_without_a_log(self) -> None:
        assert self.fault(error="killed by signal 7").endswith("(killed by signal 7): it wrote no log")

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (LOG + "# Module x failed", "Module x failed"),
            ("1:C 01 Jan 2026 00:00:00.000 * oO0", "oO0"),
            ("99999:S 1 Jan 2026 00:00:00.000 - Accepted", "Accepted"),
            ("  *** FATAL CONFIG FILE ERROR ***  ", "*** FATAL CONFIG FILE ERROR ***"),
            ("", ""),
        ],
    )
    def test_the_message_of_a_line(self, line: str, message: str) -> None:
        assert _trial.message_of(line) == message


class TestLines:
    """The lines of its log that say something."""

    def test_pictures_and_notices_are_dropped(self) -> None:
        lines = [
            "1:C 1 # oO0OoO0OoO0Oo Redis is starting oO0OoO0OoO0Oo",
            "1:C 1 # Redis version=7.0.15, bits=64",
            "1:C 1 # Configuration loaded",
            "1:M 1 * monotonic clock: POSIX clock_gettime",
            "1:C 1 # WARNING Memory overcommit must be enabled! vm.overcommit_memory",
            "1:M 1 * Increased maximum number of open files to 10032",
            "",
            "   ",
            "1:M 1 # Module x failed",
        ]
        assert _trial.telling_lines(lines) == ["1:M 1 # Module x failed"]

    def test_of_a_crash_the_signal_and_the_frames_stay_and_the_dumps_go(self) -> None:
        telling = [
            "=== REDIS BUG REPORT START: Cut & paste starting from here ===",
            "1:M 1 # Redis 7.0.15 crashed by signal: 11, si_code: 1",
            "1:M 1 # Accessing address: (nil)",
            "/m/a.so(RedisModule_OnLoad+0x1c)[0x7f0000001000]",
        ]
        dumps = ["------ REGISTERS ------", "1:M 1 # RAX:0000 RBX:0000", "redis_version:7.0.15"]
        assert _trial.telling_lines(["before", *telling, *dumps]) == ["before", *telling]

    def test_of_the_check_of_an_rdb_what_is_well_goes(self) -> None:
        check = ["[offset 0] Checking RDB file", "[info] 3 keys read", "[additional info] While doing: read-type"]
        telling = ["--- RDB ERROR DETECTED ---", "[offsets] of a module", LOG + "# <a> [info] bad data [offset 12]"]
        assert _trial.telling_lines([*check, *telling]) == telling

    def test_a_very_long_line_is_cut(self) -> None:
        assert _trial.telling_lines(["x" * 5000]) == ["x" * _trial.LINE_LENGTH]

    def test_the_line_of_redis_conf_that_redis_quotes_shows_no_secret(self) -> None:
        lines = [">>> 'masterauth one two'", ">>> 'requirepass \"a b'", ">>> 'maxmemory lots'"]
        assert _trial.telling_lines(lines) == [
            ">>> 'masterauth (hidden)'",
            ">>> 'requirepass (hidden)'",
            ">>> 'maxmemory lots'",
        ]

    def test_the_last_ones_are_kept(self) -> None:
        lines = [str(number) for number in range(1000)]
        assert _trial.telling_lines(lines) == lines[-_trial.KEPT_LINES :]


class ScriptServer:
    """A script in the place of a transient unit."""

    def __init__(self) -> None:
        self.process: Any = None
        self.limits: list[int] = []

    def start(self, command: Sequence[str], folder: str, log: str, limit: int) -> None:
        """Start it in its folder."""
        assert not os.path.exists(log)
        self.limits.append(limit)
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)

    def ended(self) -> str:
        """Return how it ended."""
        code = self.process.poll()
        return "" if code is None else f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """End it."""
        if self.process:
            self.process.kill()
            self.process.wait()


USER = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def script(tmp_path: Path) -> Any:
    """Return a function that writes a shell script to be the server, and gives the service."""

    def write(text: str, user: str = USER) -> _trial.Service:
        binary = tmp_path / "server"
        binary.write_text("#!/bin/sh\n" + text)
        binary.chmod(0o755)
        return _trial.Service("redis.service", "", str(binary), user)

    return write


class TestWorkshop:
    """The throwaway servers themselves, with a script in the place of redis-server."""

    @pytest.fixture
    def outcome(self, tmp_path: Path, script: Any) -> Any:
        """Return a function that runs a shell script as the server and gives the trial."""

        def run(text: str, conf: str = "requirepass pw\nport 1\n", limit: Any = 30) -> Trial:
            with _trial.Workshop(ScriptServer(), script(text), str(tmp_path)) as shop:
                return shop.run(_conf.parse(conf), None, limit)

        return run

    def test_one_that_ends_at_once(self, outcome: Any, tmp_path: Path) -> None:
        trial = outcome("echo it fails; exit 3\n")
        assert trial == Trial("exit status 3", [], {}, ["it fails"])
        assert [path.name for path in tmp_path.iterdir()] == ["server"]

    def test_its_folder_is_not_taken_for_what_a_dead_one_left(self, script: Any, tmp_path: Path) -> None:
        with _trial.Workshop(ScriptServer(), script(""), str(tmp_path)) as shop:
            assert not _scratch.is_left(shop.folder)

    def test_one_that_is_killed(self, outcome: Any) -> None:
        assert outcome("kill -11 $$\n").error == "killed by signal 11"

    def test_one_that_never_listens_is_ended(self, outcome: Any, tmp_path: Path) -> None:
        trial = outcome("echo $$ > ../pid; exec sleep 60\n", limit=0.2)
        assert trial.error == "it was not ready after 0.2 seconds"
        assert not trial.came_up
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_its_configuration_is_a_file_that_only_its_user_can_read(self, outcome: Any, tmp_path: Path) -> None:
        outcome('stat -c "%a" "$1" . > ../modes; cat "$1" > ../conf; echo "$@" > ../words; exit 1\n')
        assert (tmp_path / "modes").read_text().split() == ["600", "700"]
        assert "requirepass pw" in (tmp_path / "conf").read_text()
        assert "port 1\n" not in (tmp_path / "conf").read_text()
        assert "pw" not in (tmp_path / "words").read_text().replace(str(tmp_path), "")

    def test_it_does_not_leave_what_one_server_left_to_the_next_but_its_data(self, tmp_path: Path, script: Any) -> None:
        service = script("ls > ../seen; touch dump.rdb; echo one; exit 1\n")
        with _trial.Workshop(ScriptServer(), service, str(tmp_path)) as shop:
            shop.run([])
            assert (tmp_path / "seen").read_text().split() == ["log", "redis.conf"]
            os.symlink("nowhere", shop.path("s"))
            script("ls > ../seen; echo two; exit 2\n")
            trial = shop.run([])
            assert (tmp_path / "seen").read_text().split() == ["dump.rdb", "log", "redis.conf"]
        assert trial.log == ["two"]

    def test_the_second_configuration_is_whole_where_it_is_shorter(self, tmp_path: Path, script: Any) -> None:
        service = script('cat "$1"; exit 1\n')
        with _trial.Workshop(ScriptServer(), service, str(tmp_path)) as shop:
            shop.run(_conf.parse("proc-title 1\nmaxmemory 100\n"))
            trial = shop.run(_conf.parse("maxmemory 1\n"))
        assert trial.log[-1] == "maxmemory 1"

    def test_the_limit_holds_from_outside_too(self, tmp_path: Path, script: Any) -> None:
        server = ScriptServer()
        with _trial.Workshop(server, script("exit 1\n"), str(tmp_path)) as shop:
            shop.run([])
            shop.run([], limit=300)
        assert server.limits == [60, 330]

    def test_an_unknown_user_is_a_keyerror(self, tmp_path: Path, script: Any) -> None:
        with pytest.raises(KeyError, match="no-such-user"):
            _trial.Workshop(ScriptServer(), script("", "no-such-user"), str(tmp_path)).__enter__()
        assert [path.name for path in tmp_path.iterdir()] == ["server"]

    def test_nothing_stays_where_something_else_fails(self, tmp_path: Path, script: Any) -> None:
        server = ScriptServer()

        def interrupted() -> None:
            with _trial.Workshop(server, script("exec sleep 60\n"), str(tmp_path)) as shop:
                server.start([shop.service.binary], shop.folder, shop.path("log"), 1)
                raise OSError("no space")

        with pytest.raises(OSError, match="no space"):
            interrupted()
        assert server.process.returncode == -9
        assert [path.name for path in tmp_path.iterdir()] == ["server"]

    def test_the_server_is_ended_where_it_can_not_be_started(self, tmp_path: Path, script: Any) -> None:
        class Refusing(ScriptServer):
            over = 0

            def start(self, command: Any, folder: str, log: str, limit: int) -> None:
                raise _sandbox.SandboxError("no")

            def end(self) -> None:
                self.over += 1

        server = Refusing()
        with _trial.Workshop(server, script(""), str(tmp_path)) as shop:
            with pytest.raises(_sandbox.SandboxError):
                shop.run([])
            assert server.over == 1

    def test_the_acl_file_is_judged_as_a_copy(self, tmp_path: Path, script: Any) -> None:
        acl = tmp_path / "users.acl"
        acl.write_bytes(b"user default off\nuser \xff on\n")
        service = script('stat -c %a users.acl; cp "$1" ../conf; cp users.acl ../copy; exit 1\n')
        with _trial.Workshop(ScriptServer(), service, str(tmp_path)) as shop:
            trial = shop.run(_conf.parse(f"aclfile {acl}\n"))
            assert f"aclfile {shop.folder}/users.acl\n" in (tmp_path / "conf").read_text()
        assert trial.log == ["600"]
        assert (tmp_path / "copy").read_bytes() == b"user default off on nopass ~* +@all\nuser \xff on\n"
        assert acl.read_bytes() == b"user default off\nuser \xff on\n"

    @pytest.mark.parametrize("conf", ["maxmemory 1\n", "aclfile /nowhere/users.acl\n", 'aclfile ""\n'])
    def test_without_an_acl_file(self, outcome: Any, tmp_path: Path, conf: str) -> None:
        outcome('cp "$1" ../conf; exit 1\n', conf=conf)
        assert "aclfile" not in (tmp_path / "conf").read_text()


class TestLook:
    """A server that answers."""

    @pytest.fixture
    def shop(self, tmp_path: Path, script: Any, server: Any) -> Any:
        server.modules = ["modules"]
        server.settings = {"a": "b"}
        service = script("echo up; echo >s; exec sleep 60\n")
        with _trial.Workshop(ScriptServer(), service, str(tmp_path)) as shop:
            yield shop

    def test_what_it_showed_and_what_the_visit_found(self, shop: Any, server: Any) -> None:
        trial = shop.run([], lambda client, loaded: (client.settings(), loaded, 7))
        assert trial == Trial("", ["modules"], {"a": "b"}, ["up"], True, ({"a": "b"}, ["modules"], 7))  # type: ignore[list-item]
        assert shop.server.process.returncode == -9
        assert shop.run([]).found is None

    def test_it_looks_with_the_password_and_the_names_of_its_own_configuration(
        self, shop: Any, server: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        def connect(params: Any, config: str) -> Any:
            asked.append((params, config))
            return server.connect(params, config)

        monkeypatch.setattr(_trial._client, "connect", connect)
        shop.run(_conf.parse("requirepass one\nrequirepass two\nrename-command CONFIG hidden\n"))
        ((params, config),) = asked
        assert params == {"login_unix_socket": shop.path("s"), "login_timeout": 5.0, "login_password": "two"}
        assert config == "hidden"

    def test_no_settings_where_config_was_taken_away(self, shop: Any) -> None:
        trial = shop.run(_conf.parse('rename-command CONFIG ""'))
        assert (trial.error, trial.came_up, trial.settings) == ("", True, {})

    def test_a_server_that_ends_in_the_visit(self, shop: Any) -> None:
        def visit(client: Any, loaded: Any) -> None:
            shop.server.process.terminate()
            raise _client.NotReachedError("Connection closed by server.")

        trial = shop.run([], visit)
        assert (trial.error, trial.came_up, trial.modules) == ("killed by signal 15", True, ["modules"])

    def test_one_that_only_falls_silent(self, shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = iter(range(1000))
        monkeypatch.setattr(_trial.time, "monotonic", lambda: next(clock))

        def visit(client: Any, loaded: Any) -> None:
            raise _client.NotReachedError("Timeout reading from socket")

        trial = shop.run([], visit)
        assert (trial.error, trial.came_up) == ("it does not answer within 5 seconds", True)

    def test_what_else_a_visit_raises_is_its_own(self, shop: Any) -> None:
        def visit(client: Any, loaded: Any) -> None:
            raise LookupError("mine")

        with pytest.raises(LookupError, match="mine"):
            shop.run([], visit)
        assert shop.server.process.returncode == -9

    @pytest.mark.parametrize(
        "not_yet",
        [
            _client.NotReachedError("Connection refused"),
            _client.ServerError("MODULE LIST: LOADING Redis is loading"),
            _client.ServerError("Redis is loading the dataset in memory"),
        ],
    )
    def test_it_asks_until_its_data_is_loaded(
        self, shop: Any, server: Any, monkeypatch: pytest.MonkeyPatch, not_yet: Exception
    ) -> None:
        answers = iter([not_yet, not_yet])

        def connect(params: Any, config: str) -> Any:
            for answer in answers:
                raise answer
            return server.connect(params, config)

        monkeypatch.setattr(_trial._client, "connect", connect)
        assert shop.run([]).error == ""

    def test_a_refusal_is_told(self, shop: Any, server: Any) -> None:
        server.down = "/s: NOAUTH Authentication required"
        trial = shop.run([])
        assert (trial.error, trial.came_up) == ("it started, but /s: NOAUTH Authentication required", False)

    @pytest.mark.parametrize("conf", ["port 1", 'requirepass ""', 'requirepass one\nrequirepass ""'])
    def test_no_password_where_it_has_none(self, conf: str) -> None:
        assert _trial._login(_conf.parse(conf)) == {}


class TestOpenToUs:
    """An ACL file for a throwaway server."""

    OPEN = " on nopass ~* +@all"

    @pytest.mark.parametrize(
        ("acl", "opened"),
        [
            ("", "user default{}\n"),
            ("user app on >pw ~a:* +get\n", "user app on >pw ~a:* +get\nuser default{}\n"),
            ("user default off -@all", "user default off -@all{}\n"),
            ("user a off\n\nuser default off\nuser b off\n", "user a off\n\nuser default off{}\nuser b off\n"),
            ("  user   default on", "  user   default on{}\n"),
            ("user defaults on\n", "user defaults on\nuser default{}\n"),
            ("user app -default\n", "user app -default\nuser default{}\n"),
        ],
    )
    def test_only_the_default_user_changes_and_no_line_moves(self, acl: str, opened: str) -> None:
        assert _trial.open_to_us(acl) == opened.format(self.OPEN)


class TestSandboxed:
    """What starts a throwaway server as the service would."""

    SERVICE = _trial.Service("redis.service", "[Service]\nReadOnlyPaths=/m\nExecPaths=/m\n", "/bin/true", USER)

    @pytest.fixture
    def settings(self, commands: Any, tmp_path: Path) -> Any:
        """Return a function that gives the settings of its transient unit."""
        (tmp_path / "unit").write_text("[Service]\nUser=redis\n")
        commands.answer("systemctl", "show", out=f"FragmentPath={tmp_path}/unit\nDropInPaths=\n")

        def run(artifacts: dict[str, str], *data: bool) -> list[str]:
            server = _trial.sandboxed(commands, self.SERVICE, artifacts, *data)
            server.start(["/bin/true"], "/f/x", "/f/x/log", 1)
            words = commands.ran[-1]
            return [words[number + 1] for number, word in enumerate(words) if word == "-p"]

        return run

    def test_files_in_the_module_folder_or_below_need_no_more(self, settings: Any) -> None:
        files = {"/m/a.so": "/m/.trial/a.so", "/m/b.so": "/m/b.so"}
        assert [s for s in settings(files) if "Exec" in s] == ["ExecPaths=/m"]

    def test_files_elsewhere_may_be_run_from_there(self, settings: Any) -> None:
        files = {"/m/a.so": "/cache/a/a.so", "/m/b.so": "/mm/b.so", "/m/c.so": "/cache/a/c.so"}
        assert [s for s in settings(files) if "Exec" in s] == ["ExecPaths=/m", "ExecPaths=/cache/a", "ExecPaths=/mm"]

    def test_it_may_write_little_unless_it_holds_data(self, settings: Any) -> None:
        assert "LimitFSIZE=33554432" in settings({})
        assert "User=redis" in settings({})
        assert not [s for s in settings({}, True) if "FSIZE" in s]

    def test_in_the_place_of_a_service(self, commands: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        ran: list[Any] = []

        def run(shop: Any, directives: Any, visit: Any) -> Trial:
            assert visit is None
            ran.append((shop.base, _conf.render(directives)))
            return showed()

        monkeypatch.setattr(_trial.Workshop, "run", run)
        monkeypatch.setattr(_trial.Workshop, "__enter__", lambda shop: shop)
        trial = _trial.in_place_of(
            commands, self.SERVICE, _conf.parse("loadmodule /m/a.so x\n"), {"/m/a.so": "/cache/a.so"}
        )
        assert trial == showed()
        assert ran == [("/run", "loadmodule /cache/a.so x\n")]
