# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A configuration and its modules are tried; every reason not to is told by module."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Any, Callable, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _access,
    _calls,
    _client,
    _conf,
    _data_trial,
    _elf,
    _linker,
    _rehearsal,
    _sandbox,
    _smoke,
    _step_trial,
    _trial,
)
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_trial

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name
LOG = "812:M 22 Nov 2026 12:00:00.123 "
UP = Trial(
    "", [LoadedModule("a", 2, None, ("x",))], {"a.level": "3", "ab.level": "4", "maxmemory": "1"}, ["a line"], True
)
GONE = _client.NotReachedError("/s: Connection closed by server")


def own_folder() -> str:
    """Return where this process lays files to try: each test may have a process of its own."""
    return f".trial/{os.getpid()}"


def raise_if_error(outcome: object) -> None:
    """Raise what stands for an error in the place of a result."""
    error = outcome if isinstance(outcome, BaseException) else None
    if error is not None:
        raise error


class Host:
    """A host where module a, which is good and loads, is about to be placed."""

    def __init__(self, root: Path, run: Any, server: Any, commands: Any, artifact: str) -> None:
        self.root, self._run, self.server, self.commands, self.artifact = root, run, server, commands, artifact
        self.binary = root / "redis-server"
        self.binary.write_text("")
        self.path = root / "lib" / "modules" / "a.so"
        self.outcomes: list[Any] = []
        """What the servers show, one after another; each one after them comes up and is as declared."""
        self.ran: list[str] = []
        self.lay: dict[str, tuple[str, int]] = {}
        """What lay in the module folder and below while the servers ran: content and mode."""
        self.linked: list[str] = []
        self.linker_faults: list[str] = []
        self.calls: Any = _calls.Calls(frozenset({"RedisModule_Alloc"}), frozenset(), (("win", 1), ("bloom", None)))
        self.have = frozenset({"RedisModule_Alloc"})
        self.told: Any = _data_trial.Told(False, "no module changes")
        self.delete: dict[str, int] = {}
        self.data_trials: list[Any] = []
        server.commands = {"a.get": frozenset({"module", "readonly"}), "a.set": frozenset({"module", "write"})}
        server.answers["COMMAND LIST FILTERBY MODULE a"] = [b"a.set", b"a.get"]

    def __call__(
        self, check: bool = False, shows: Any = None, version: str = "7.0.15", entry: Any = None, **args: Any
    ) -> dict[str, Any]:
        if shows is not None:
            self.outcomes.append(shows)
        self.commands.answer(str(self.binary), "--version", out=f"Redis server v={version}")
        module = {"name": "a", "path": str(self.path), "artifact": self.artifact, "args": ["x"], **(entry or {})}
        given = {
            "conf": f"loadmodule {self.path} x\n",
            "conf_path": str(self.root / "redis.conf"),
            "modules": [module],
            "binary": str(self.binary),
            "user": USER,
            "owner": USER,
            "group": GROUP,
            **args,
        }
        result: dict[str, Any] = self._run(redis_trial.main, given, check)
        return result

    def seen(self) -> dict[str, tuple[str, int]]:
        """Return what lies in the module folder."""
        folder = self.path.parent
        files = [path for path in folder.rglob("*") if path.is_file()] if folder.exists() else []
        return {
            str(path.relative_to(folder)): (path.read_bytes().hex()[:8], path.stat().st_mode & 0o7777) for path in files
        }

    def run_server(self, directives: Any, visit: Any) -> Trial:
        """In the place of Workshop.run."""
        self.ran.append(_conf.render(directives))
        self.lay = self.seen()
        outcome = self.outcomes.pop(0) if self.outcomes else UP
        raise_if_error(outcome)
        assert isinstance(outcome, Trial)
        if outcome.error:
            return outcome
        try:
            found = visit(self.server.connect({}), outcome.modules)
        except _client.NotReachedError:
            return outcome._replace(error="killed by signal 11")
        return outcome._replace(found=found)

    def run_data_trial(self, trial: Any) -> Any:
        """In the place of DataTrial.run."""
        self.data_trials.append(trial)
        self.lay = self.seen()
        raise_if_error(self.told)
        return self.told, self.delete

    def find_with_linker(self, _run: Any, binary: str, artifact: str, user: str) -> list[str]:
        """In the place of _linker.faults."""
        assert (binary, user) == (str(self.binary), USER)
        assert os.path.exists(artifact)
        self.linked.append(artifact)
        return self.linker_faults

    def sent(self) -> list[str]:
        """Return what was sent to the servers besides questions about its commands."""
        return [said for said in self.server.sent if not said.startswith("COMMAND")]


@pytest.fixture
def trial(
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
    server: Any,
    commands: Any,
    build_so: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Host:
    """Return what tries module a."""
    host = Host(tmp_path, run_module, server, commands, build_so())

    def run(shop: Any, directives: Any, visit: Any = None, limit: int = 0) -> Trial:
        return host.run_server(directives, visit)

    monkeypatch.setattr(_trial.Workshop, "run", run)
    monkeypatch.setattr(_trial.Workshop, "__enter__", lambda shop: shop)
    monkeypatch.setattr(_linker, "faults", host.find_with_linker)
    monkeypatch.setattr(_access, "place_faults", lambda *_words: [])
    monkeypatch.setattr(_calls, "read", lambda path: host.calls)
    monkeypatch.setattr(_calls, "server_functions", lambda binary: host.have)

    def run_data_trial(made: Any) -> Any:
        return host.run_data_trial(made)

    monkeypatch.setattr(_data_trial.DataTrial, "run", run_data_trial)
    return host


@pytest.mark.parametrize("check", [True, False])
def test_what_loads_as_declared_passes_and_changes_nothing(trial: Host, check: bool) -> None:
    result = trial(check)
    assert (result["changed"], result["version"]) == (False, "7.0.15")
    assert result["modules"] == [
        {
            "name": "a",
            "version": 2,
            "commands": ["a.get", "a.set"],
            "types": {"win": 1, "bloom": None},
            "config": {"a.level": "3"},
            "api": "complete",
        }
    ]
    assert result["data"] == {"tried": False, "reason": "no module changes", "bytes": 0}
    assert result["delete"] == {}
    artifact = trial.artifact if check else f"{trial.path.parent}/{own_folder()}/a.so"
    assert trial.ran == [f'loadmodule {artifact} x\nappendonly no\nsave ""\n']
    assert trial.linked == [artifact]


def test_the_file_itself_is_tried_where_there_is_no_artifact(trial: Host) -> None:
    assert trial(entry={"artifact": None})["msg"] == f"module a: there is no file at {trial.path}"
    assert trial.ran == []


def test_what_it_shows_to_be_wrong_is_told_with_the_log(trial: Host) -> None:
    failed = trial(shows=Trial("exit status 1", [], {}, ["a log line"]))
    assert failed["failed"]
    assert failed["msg"].splitlines()[-2:] == [
        "the live server was not touched; the throwaway server's last lines:",
        "a log line",
    ]
    assert failed["log"] == ["a log line"]
    assert trial.data_trials == []


def test_a_module_that_gives_up_without_a_word_is_looked_at_beside_the_ones_before_it(
    trial: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_elf, "inspect", lambda path, inspect=_elf.inspect: inspect(trial.artifact))
    second = trial.root / "second.so"
    second.write_bytes(b"\0a.get\0win\0")
    mine = {"name": "a", "path": str(trial.path), "artifact": trial.artifact, "args": ["x"]}
    others = [
        {"name": name, "path": str(trial.path.parent / f"{name}.so"), "artifact": str(second)} for name in ("b", "c")
    ]
    staged = trial.path.parent / own_folder()
    log = [LOG + f"# Module {staged}/b.so initialization failed. Module not loaded"]
    failed = trial(
        shows=Trial("exit status 1", [], {}, log),
        modules=[mine, *others],
        conf="port 1\n" + "".join(f"loadmodule {m['path']} x\n" for m in [mine, *others]) + "b.speed 7\na.speed 8\n",
    )
    why = "its file names the command a.get, the data type win, which this server has already"
    assert failed["msg"].splitlines()[0].endswith(f"it does not say why, but {why}")
    assert failed["log"] == log
    assert trial.ran[1] == f'port 1\nloadmodule {staged}/a.so x\na.speed 8\nappendonly no\nsave ""\n'


def test_a_folder_that_others_could_exchange_is_refused_before_anything_runs(
    trial: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def faults(*words: Any) -> list[str]:
        asked.append(words)
        return ["/srv can be written by everybody", "/srv/x is a symbolic link"]

    monkeypatch.setattr(_access, "place_faults", faults)
    failed = trial()
    assert failed["msg"] == "/srv can be written by everybody\n/srv/x is a symbolic link"
    assert asked == [(str(trial.path.parent), USER, "/var/lib/redis", (".releases", ".trial"))]
    assert trial.ran == []


def test_no_more_of_the_log_than_an_operator_reads(trial: Host) -> None:
    lines = [str(number) for number in range(100)]
    failed = trial(shows=Trial("exit status 1", [], {}, lines))
    assert failed["log"] == lines[-_trial.LOG_LINES :]


def test_another_version_than_declared(trial: Host) -> None:
    assert "module a: MODULE LIST reports version 2, declared is 3" in trial(entry={"version": 3})["msg"]


def test_a_damaged_artifact_is_never_run(trial: Host, tmp_path: Path) -> None:
    (tmp_path / "bad.so").write_bytes(b"\x7fELF")
    failed = trial(entry={"artifact": str(tmp_path / "bad.so")})
    assert failed["msg"].startswith("module a: its ELF structure is damaged or cut off")
    assert failed["log"] == []
    assert (trial.ran, trial.linked, trial.seen()) == ([], [], {})


def test_what_the_linker_does_not_find_is_told_and_nothing_is_run(trial: Host) -> None:
    trial.linker_faults = ["it needs the library libx.so", "and another"]
    assert trial()["msg"] == "module a: it needs the library libx.so\nmodule a: and another"
    assert trial.ran == []
    assert not trial.path.parent.exists()


def test_a_drop_in_that_systemd_does_not_take(trial: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    (trial.root / "unit").write_text("[Service]\n")
    trial.commands.answer("systemctl", "show", out=f"FragmentPath={trial.root}/unit\nDropInPaths=\n")
    monkeypatch.setattr(_step_trial._unit, "faults", lambda run, unit, fragment, dropin: [f"{dropin[:3]} is wrong"])
    assert trial(dropin="X=1")["msg"] == (
        "systemd does not accept the drop-in; correct redis_server_dropin_lines: X=1 is wrong"
    )
    assert trial.ran == []


@pytest.mark.parametrize(
    ("version", "entry", "why"),
    [
        ("3.2.12", {}, "Redis 3.2.12 is older than 4.0, the oldest that this collection knows"),
        (
            "6.0.16",
            {"config": {"a.level": "3"}},
            "module a: config needs Redis 7.0 or later, this host has 6.0.16; give it as args instead",
        ),
    ],
)
def test_a_redis_that_is_too_old(trial: Host, version: str, entry: Any, why: str) -> None:
    assert trial(version=version, entry=entry)["msg"] == why
    assert trial.ran == []


@pytest.mark.parametrize("version", ["4.0", "4.0.1", "7.0.15", "10.0.0"])
def test_a_redis_that_is_not(trial: Host, version: str) -> None:
    assert not trial(version=version).get("failed")


def test_config_is_fine_from_7_0(trial: Host) -> None:
    assert not trial(version="7.0.0", entry={"config": {"a.level": "3"}}).get("failed")


def test_an_unbalanced_quote_is_told_without_the_line(trial: Host) -> None:
    assert trial(conf='requirepass "secret\n')["msg"] == "redis.conf: line 1: a double quote is not closed"


@pytest.mark.parametrize(
    "error", [OSError("no space"), KeyError("no such user redis"), _sandbox.SandboxError("no MemoryMax=lots")]
)
def test_a_trial_that_can_not_be_run(trial: Host, error: Exception) -> None:
    assert trial(shows=error)["msg"].startswith("the trial could not be run: ")
    assert not trial.path.parent.exists()


def test_a_host_without_redis(trial: Host) -> None:
    assert "install Redis first" in trial(binary="/nowhere/redis-server")["msg"]
    assert (
        "there is no /nowhere/redis-server yet" in trial(check=True, binary="/nowhere/redis-server")["skipped_reason"]
    )


QUERY = {"smoke": [{"command": ["A.GET"]}, {"command": ["A.GET"], "query": "@", "expect": "OK"}]}


@pytest.mark.parametrize(
    ("module", "name", "library", "entry"),
    [
        (_client, "REDIS_IMPORT_ERROR", "redis", {}),
        (_elf, "ELFTOOLS_IMPORT_ERROR", "pyelftools", {}),
        (_smoke, "JMESPATH_IMPORT_ERROR", "jmespath", QUERY),
    ],
)
def test_a_missing_library(
    trial: Host, monkeypatch: pytest.MonkeyPatch, module: Any, name: str, library: str, entry: Any
) -> None:
    monkeypatch.setattr(module, name, "Traceback")
    assert f"Python library ({library})" in trial(entry=entry)["msg"]
    assert library in trial(check=True, entry=entry)["skipped_reason"]
    assert trial.ran == []


def test_jmespath_is_needed_for_a_query_only(trial: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_smoke, "JMESPATH_IMPORT_ERROR", "Traceback")
    assert not trial(entry={"smoke": [{"command": ["A.GET"], "expect": "OK"}]}).get("failed")


def test_check_mode_before_anything_is_built(trial: Host) -> None:
    assert trial(check=True, entry={"artifact": "/not/built.so"})["skipped_reason"] == "a is not built yet"
    assert trial.ran == []


class TestInspection:
    """What is read before anything runs."""

    def test_a_function_that_this_server_lacks(self, trial: Host) -> None:
        trial.have = frozenset()
        failed = trial()
        assert failed["msg"] == (
            "module a: it calls RedisModule_Alloc, which this redis-server does not have: the first call would crash "
            f"it, or accept: [missing_api] in its entry ({trial.artifact})"
        )
        assert trial.ran == []

    def test_where_that_is_accepted_it_is_told(self, trial: Host) -> None:
        trial.have = frozenset()
        assert trial(entry={"accept": ["missing_api"]})["modules"][0]["api"] == "missing"

    def test_code_that_can_not_be_read_is_not_known(self, trial: Host) -> None:
        trial.calls = None
        result = trial()
        assert (result["modules"][0]["api"], result["modules"][0]["types"]) == ("not known", None)
        assert any(
            w.startswith("module a: which API functions its code calls is not known") for w in result["warnings"]
        )
        assert trial.data_trials[0].types == {}

    def test_a_module_of_the_server_itself_is_listed_too(self, trial: Host) -> None:
        result = trial(shows=UP._replace(modules=[*UP.modules, LoadedModule("vectorset", 1, "", ())]))
        assert [module["name"] for module in result["modules"]] == ["a", "vectorset"]
        own = result["modules"][1]
        assert (own["commands"], own["types"], own["config"], own["api"]) == ([], None, {}, "not known")

    @pytest.mark.parametrize(
        ("stack", "text", "accept", "faults"),
        [
            (True, True, [], ["executable stack", "its code is changed"]),
            (True, True, ["executable_stack"], ["its code is changed"]),
            (True, True, ["text_relocations"], ["executable stack"]),
            (True, True, ["text_relocations", "executable_stack"], []),
            (False, False, [], []),
        ],
    )
    def test_what_a_server_might_still_load(self, stack: bool, text: bool, accept: Any, faults: Any) -> None:
        class Inspection:
            executable_stack, text_relocations = stack, text

        found = _step_trial.inspection_faults({"accept": accept}, Inspection(), [])  # type: ignore[arg-type]
        assert len(found) == len(faults)
        assert all(words in fault and "or accept: [" in fault for words, fault in zip(faults, found))

    def test_memory_that_redis_does_not_see_is_a_warning(self, trial: Host, build_so: Any) -> None:
        source = "#include <stdlib.h>\nint RedisModule_OnLoad(void *c) { return malloc((long)c) == c; }\n"
        result = trial(entry={"artifact": build_so("m.so", source)})
        assert not result.get("failed")
        assert any("it asks the system for memory (malloc)" in warning for warning in result["warnings"])


class TestStaged:
    """A new file is tried where it is going to be."""

    NEW = "7f454c46"

    def test_beside_its_path_with_its_mode(self, trial: Host) -> None:
        trial(mode="0551")
        assert trial.lay == {f"{own_folder()}/a.so": (self.NEW, 0o551)}

    def test_with_its_owner(self, trial: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        laid: list[Any] = []
        replace = _step_trial._release.replace
        monkeypatch.setattr(_step_trial._release, "owner_ids", lambda owner, group: (owner, group))

        def spied(source: str, target: str, uid: Any, gid: Any, mode: int) -> None:
            laid.append((source, target, uid, gid, mode))
            replace(source, target, os.getuid(), os.getgid(), mode)

        monkeypatch.setattr(_step_trial._release, "replace", spied)
        trial(owner="somebody", group="some")
        assert laid == [(trial.artifact, f"{trial.path.parent}/{own_folder()}/a.so", "somebody", "some", 0o555)]

    def test_nothing_of_it_stays_nor_a_folder_that_was_not_there(self, trial: Host) -> None:
        trial.path.parent.parent.mkdir()
        assert not trial().get("failed")
        assert not trial.path.parent.exists()

    def test_what_lies_there_stays_as_it_is(self, trial: Host) -> None:
        trial.path.parent.mkdir(parents=True)
        trial.path.write_bytes(b"the one before")
        before = trial.path.stat()
        assert not trial().get("failed")
        assert f"{own_folder()}/a.so" in trial.lay
        assert os.listdir(trial.path.parent) == ["a.so"]
        after = trial.path.stat()
        assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (before.st_ino, before.st_mtime_ns, before.st_mode)

    @pytest.mark.parametrize(
        "fails",
        [
            {"shows": Trial("exit status 1", [], {}, [])},
            {"shows": OSError("no space")},
            {"owner": "no-such-user"},
            {"group": "no-such-group"},
            {"entry": {"version": 3}},
        ],
    )
    def test_nor_where_the_trial_fails(self, trial: Host, fails: Any) -> None:
        trial.path.parent.mkdir(parents=True)
        (trial.path.parent / "other.so").write_text("")
        assert trial(**fails)["failed"]
        assert os.listdir(trial.path.parent) == ["other.so"]

    def test_nor_where_the_data_does_not_load(self, trial: Host) -> None:
        trial.told = _rehearsal.TrialError(["it does not load"], ["a line"])
        failed = trial()
        assert failed["msg"].splitlines()[0] == "it does not load"
        assert failed["log"] == ["a line"]
        assert trial.lay == {f"{own_folder()}/a.so": (self.NEW, 0o555)}
        assert not trial.path.parent.exists()

    def test_a_file_that_lies_there_already_is_tried_where_it_is(self, trial: Host) -> None:
        trial.path.parent.mkdir(parents=True)
        trial.path.write_bytes(Path(trial.artifact).read_bytes())
        trial.path.chmod(0o555)
        for check in (True, False):
            assert not trial(check).get("failed")
            assert list(trial.lay) == ["a.so"]
            assert f"loadmodule {trial.path} x\n" in trial.ran[-1]

    @pytest.mark.parametrize("differs", [{"mode": "0755"}, {"owner": "daemon"}, {"group": "daemon"}])
    def test_but_not_with_another_owner_or_mode(
        self, trial: Host, differs: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_step_trial._release, "owner_ids", lambda owner, group: (os.getuid(), os.getgid()))
        trial.path.parent.mkdir(parents=True)
        trial.path.write_bytes(Path(trial.artifact).read_bytes())
        trial.path.chmod(0o555)
        assert not trial(**differs).get("failed")
        assert sorted(trial.lay) == [f"{own_folder()}/a.so", "a.so"]

    def test_nor_with_other_bytes(self, trial: Host) -> None:
        trial.path.parent.mkdir(parents=True)
        trial.path.write_bytes(Path(trial.artifact).read_bytes() + b"x")
        trial.path.chmod(0o555)
        trial()
        assert sorted(trial.lay) == [f"{own_folder()}/a.so", "a.so"]

    def test_in_check_mode_it_is_tried_from_where_it_is(self, trial: Host) -> None:
        assert not trial(check=True).get("failed")
        assert (trial.lay, trial.path.parent.exists()) == ({}, False)

    def test_the_file_itself_where_there_is_no_other(self, trial: Host) -> None:
        trial.path.parent.mkdir(parents=True)
        trial.path.write_bytes(Path(trial.artifact).read_bytes())
        assert not trial(entry={"artifact": None}).get("failed")
        assert list(trial.lay) == ["a.so"]

    def test_several_modules(self, trial: Host) -> None:
        other = {"name": "b", "path": str(trial.path.parent / "b.so"), "artifact": trial.artifact}
        mine = {"name": "a", "path": str(trial.path), "artifact": trial.artifact, "args": ["x"]}
        up = UP._replace(modules=[UP.modules[0], LoadedModule("b", 1, None, ())])
        assert not trial(shows=up, modules=[mine, other]).get("failed")
        assert sorted(trial.lay) == [f"{own_folder()}/a.so", f"{own_folder()}/b.so"]
        assert not trial.path.parent.exists()

    def test_what_a_dead_run_left_is_no_hindrance(self, trial: Host) -> None:
        (trial.path.parent / own_folder()).mkdir(parents=True)
        (trial.path.parent / own_folder() / "a.so").write_text("old")
        trial()
        assert trial.lay == {f"{own_folder()}/a.so": (self.NEW, 0o555)}
        assert not (trial.path.parent / ".trial").exists()


class TestSmoke:
    """The module's own commands."""

    SET: ClassVar[Any] = {"command": ["A.SET", "k"], "expect": "OK"}
    GET: ClassVar[Any] = {"command": ["A.GET", "k"], "expect": 1}

    def test_saved_started_again_and_asked_again_what_reads(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = 1
        assert not trial(entry={"smoke": [self.SET, self.GET]}).get("failed")
        assert trial.sent() == ["A.SET k", "A.GET k", "SAVE", "A.GET k"]
        assert len(trial.ran) == 2
        assert trial.ran[0] == trial.ran[1]

    def test_started_again_also_where_nothing_reads(self, trial: Host) -> None:
        assert not trial(entry={"smoke": [self.SET]}).get("failed")
        assert trial.sent() == ["A.SET k", "SAVE"]
        assert len(trial.ran) == 2

    def test_not_started_again_without_smoke_commands(self, trial: Host) -> None:
        assert not trial().get("failed")
        assert len(trial.ran) == 1

    def test_or_what_the_entry_says(self, trial: Host) -> None:
        smokes = [{**self.SET, "after_restart": True}, {**self.GET, "expect": "OK", "after_restart": False}]
        assert not trial(entry={"smoke": smokes}).get("failed")
        assert trial.sent() == ["A.SET k", "A.GET k", "SAVE", "A.SET k"]

    def test_another_answer(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = [b"2", None]
        failed = trial(entry={"smoke": [self.GET]})
        assert failed["msg"].splitlines()[0] == "module a: A.GET k answers ['2', None]; expected is 1"
        assert failed["log"] == ["a line"]
        assert trial.data_trials == []

    @pytest.mark.parametrize("answer", [b"anything", None, 0, []])
    def test_every_answer_where_none_is_expected(self, trial: Host, answer: Any) -> None:
        trial.server.answers["A.GET"] = answer
        assert not trial(entry={"smoke": [{"command": ["A.GET", "k"]}]}).get("failed")

    def test_a_query(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = [[b"1000", b"21.5"]]
        smoke = {"command": ["A.GET"], "query": "[0][1]", "expect": 21.5}
        assert not trial(entry={"smoke": [smoke]}).get("failed")
        assert "of which [0][1] is '21.5'" in trial(entry={"smoke": [{**smoke, "expect": 3}]})["msg"]

    def test_an_error_answer(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = _client.ServerError("A.GET k at /s: WRONGTYPE")
        assert trial(entry={"smoke": [self.GET]})["msg"].startswith("module a: A.GET k answers the error ")

    def test_the_server_dies_of_it(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = GONE
        crash = UP._replace(log=[LOG + "# Redis 7.0.15 crashed by signal: 11, si_code: 1"])
        failed = trial(shows=crash, entry={"smoke": [self.SET, self.GET]})
        assert failed["msg"].splitlines()[0] == (
            "module a: a server with it ends at A.GET k (killed by signal 11): "
            "Redis 7.0.15 crashed by signal: 11, si_code: 1"
        )

    def test_the_server_dies_of_save(self, trial: Host) -> None:
        trial.server.answers["SAVE"] = GONE
        assert trial(entry={"smoke": [self.SET]})["msg"].splitlines()[0] == (
            "module a: a server with it ends at SAVE (killed by signal 11): a data type without rdb_save does that"
        )

    def test_what_it_saved_does_not_load(self, trial: Host) -> None:
        trial.server.answers["A.GET"] = 1
        trial.outcomes = [UP, Trial("exit status 1", [], {}, [LOG + "# <a> encoding version 1 is not mine"])]
        assert trial(entry={"smoke": [self.GET]})["msg"].splitlines()[0] == (
            "module a: a server does not start from what it saved (exit status 1): <a> encoding version 1 is not mine"
        )

    def test_what_it_saved_is_not_what_comes_back(self, trial: Host) -> None:
        answers = iter([b"1", None])
        trial.server.answers["A.GET"] = lambda *words: next(answers)
        assert trial(entry={"smoke": [self.GET]})["msg"].startswith(
            "module a: after SAVE and a start, A.GET k answers None, before it was '1'"
        )

    def test_the_server_dies_when_it_is_asked_again(self, trial: Host) -> None:
        answers = iter([b"1"])

        def answer(*_words: str) -> bytes:
            for value in answers:
                return value
            raise GONE

        trial.server.answers["A.GET"] = answer
        assert trial(entry={"smoke": [self.GET]})["msg"].startswith(
            "module a: a server with it ends at A.GET k (killed"
        )

    def test_memory_and_processes_beside_redis_own(self, trial: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_rehearsal, "outside_memory", lambda client: 200 << 20)
        monkeypatch.setattr(_rehearsal, "child_processes", lambda pid: ["sleep (8)"])
        lines = trial()["msg"].splitlines()
        assert [line.split(":")[0] for line in lines[:2]] == ["module a", "module a"]
        assert not trial(entry={"accept": ["outside_memory", "processes"]}).get("failed")


class TestAcl:
    """A user's rule that names a command which no module has any more."""

    ERROR = (
        LOG + "# Aborting Redis startup because of ACL errors: /run/t1/users.acl:2: Error in applying operation "
        "'-a.gone': Unknown command or category name in ACL. WARNING: ACL errors detected"
    )

    @pytest.fixture
    def acl(self, trial: Host) -> str:
        path = trial.root / "users.acl"
        path.write_text("user default on\nuser app on -a.gone\n")
        return str(path)

    def test_is_told_by_user(self, trial: Host, acl: str) -> None:
        failed = trial(
            conf=f"loadmodule {trial.path} x\naclfile {acl}\n", shows=Trial("exit status 1", [], {}, [self.ERROR])
        )
        assert failed["msg"].startswith(f"{acl} line 2, user app: -a.gone: Unknown command or category name in ACL. ")
        assert "module a" not in failed["msg"]

    def test_other_errors_are_told_as_ever(self, trial: Host, acl: str) -> None:
        failed = trial(conf=f"aclfile {acl}\n", shows=Trial("exit status 1", [], {}, [LOG + "# it fails"]))
        assert failed["msg"].startswith("a server with this configuration does not start (exit status 1): it fails")

    def test_without_the_file_too(self, trial: Host) -> None:
        failed = trial(conf="aclfile /nowhere/acl\n", shows=Trial("exit status 1", [], {}, [self.ERROR]))
        assert failed["msg"].startswith("a server with this configuration does not start")


class TestData:
    """The host's own data."""

    def test_what_was_tried_and_what_has_to_go_is_told(self, trial: Host) -> None:
        trial.told, trial.delete = _data_trial.Told(True, "streamed by the running server", 7), {"win": 3}
        result = trial()
        assert result["data"] == {"tried": True, "reason": "streamed by the running server", "bytes": 7}
        assert result["delete"] == {"win": 3}

    def test_it_gets_the_files_that_are_tried_and_the_types_that_are_known(self, trial: Host) -> None:
        trial()
        (made,) = trial.data_trials
        assert [entry["artifact"] for entry in made.modules] == [f"{trial.path.parent}/{own_folder()}/a.so"]
        assert made.types == {"a": ["win", "bloom"]}
        assert _conf.render(made.directives) == f"loadmodule {trial.path} x\n"
        assert made.service == _trial.Service("redis-server.service", "", str(trial.binary), USER)

    def test_it_comes_after_the_empty_server(self, trial: Host) -> None:
        trial(shows=Trial("exit status 1", [], {}, []))
        assert trial.data_trials == []
