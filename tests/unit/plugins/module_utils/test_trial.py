# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a throwaway server showed, in the operator's words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any, Sequence

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _trial
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

    def test_a_module_that_does_not_come_back_is_named(self) -> None:
        fault = self.fault(LOG + "* Module 'a' loaded from /m/a.so", error=_trial.NOT_READY)
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

    def start(self, command: Sequence[str], folder: str, log: str) -> None:
        """Start it in its folder."""
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(command, cwd=folder, stdout=stream, stderr=stream)

    def ended(self) -> str:
        """Return how it ended."""
        code = self.process.poll()
        return "" if code is None else f"killed by signal {-code}" if code < 0 else f"exit status {code}"

    def end(self) -> None:
        """End it."""
        self.process.kill()
        self.process.wait()


class TestRun:
    """The throwaway server itself, with a script in the place of redis-server."""

    @pytest.fixture
    def outcome(self, tmp_path: Path) -> Any:
        """Return a function that runs a shell script as the server and gives the trial."""

        def run(script: str) -> Trial:
            binary = tmp_path / "server"
            binary.write_text("#!/bin/sh\n" + script)
            binary.chmod(0o755)
            return _trial.run(
                ScriptServer(), str(binary), "root", _conf.parse("requirepass pw\nport 1\n"), base=str(tmp_path)
            )

        return run

    def test_one_that_ends_at_once(self, outcome: Any, tmp_path: Path) -> None:
        trial = outcome("echo it fails; exit 3\n")
        assert trial == Trial("exit status 3", [], {}, ["it fails"])
        assert [path.name for path in tmp_path.iterdir()] == ["server"]

    def test_one_that_is_killed(self, outcome: Any) -> None:
        assert outcome("kill -11 $$\n").error == "killed by signal 11"

    def test_one_that_never_listens_is_ended(
        self, outcome: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        monkeypatch.setattr(_trial, "LIMIT", 0.2)
        trial = outcome("echo $$ > ../pid; exec sleep 60\n")
        assert trial.error == _trial.NOT_READY
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / "pid").read_text()), 0)

    def test_its_configuration_is_a_file_that_only_its_user_can_read(self, outcome: Any, tmp_path: Path) -> None:
        outcome('stat -c "%a" "$1" . > ../modes; cat "$1" > ../conf; echo "$@" > ../words; exit 1\n')
        assert (tmp_path / "modes").read_text().split() == ["600", "700"]
        assert "requirepass pw" in (tmp_path / "conf").read_text()
        assert "port 1\n" not in (tmp_path / "conf").read_text()
        assert "pw" not in (tmp_path / "words").read_text().replace(str(tmp_path), "")

    def test_an_unknown_user_is_a_keyerror(self, tmp_path: Path) -> None:
        with pytest.raises(KeyError, match="no-such-user"):
            _trial.run(ScriptServer(), "/bin/true", "no-such-user", [], base=str(tmp_path))

    def test_it_looks_with_the_password_and_the_names_of_its_own_configuration(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []

        class Client:
            config_command = "hidden"

            def modules(self) -> list[Any]:
                return ["modules"]

            def settings(self) -> dict[str, str]:
                return {"a": "b"}

            def close(self) -> None:
                asked.append("closed")

        def connect(params: Any, config: str) -> Any:
            asked.append((params, config))
            return Client()

        monkeypatch.setattr(_trial._client, "connect", connect)
        directives = _conf.parse("requirepass one\nrequirepass two\nrename-command CONFIG hidden\n")
        trial = _trial._look("/s", directives, "/nowhere")
        assert trial == Trial("", ["modules"], {"a": "b"}, [])  # type: ignore[list-item]
        ((params, config), closed) = asked
        assert params["login_unix_socket"] == "/s"
        assert params["login_password"] == "two"
        assert config == "hidden"
        assert closed == "closed"

    @pytest.mark.parametrize("conf", ["port 1", 'requirepass ""', 'requirepass one\nrequirepass ""'])
    def test_no_password_where_it_has_none(self, conf: str) -> None:
        assert _trial._login(_conf.parse(conf)) == {}
