# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Of runs that want a host at the same time one gets it, and a lock is nobody's who may still live."""

from __future__ import annotations

import json
import multiprocessing
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _lock, _pull, _release

FORK = multiprocessing.get_context("fork")
RUNS = 12


def owner(run: str = "mine", **more: Any) -> dict[str, Any]:
    """What a run says of itself."""
    return {"run": run, "who": f"{run}@deploy", "controller": "c", "pid": 4242, "started": "7", **more}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "state" / "rollout.lock")


def hold(path: str, run: str = "mine", gone: Any = (), take_over: bool = False, check: bool = False) -> _lock.Taken:
    """Hold the lock."""
    return _lock.hold(path, owner(run), gone, take_over, check)


def test_the_first_has_it_until_it_gives_it_back(path: str) -> None:
    assert _lock.read(path) is None
    assert hold(path) == (None, False)
    found = _lock.read(path)
    assert found is not None
    assert (found.run, found.who, found.pid, found.started) == ("mine", "mine@deploy", 4242, "7")
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    # Again, by the same run: as it was, with the time of the first.
    assert hold(path) == (found, False)
    with pytest.raises(_lock.LockError, match=r"by mine@deploy \(process 4242 there\), since 20.*Z, [0-9] seconds ago"):
        hold(path, "other")
    assert _lock.release(path, "other") == found
    assert _lock.read(path) == found
    assert _lock.release(path, "mine") == found
    assert _lock.read(path) is None
    assert _lock.release(path, "mine") is None
    assert os.listdir(os.path.dirname(path)) == []


def test_check_mode_refuses_likewise_and_writes_nothing(path: str) -> None:
    assert hold(path, check=True) == (None, False)
    assert not os.path.exists(os.path.dirname(path))
    hold(path, "other")
    with pytest.raises(_lock.LockError):
        hold(path, check=True)
    assert hold(path, take_over=True, check=True).taken_over
    assert json.loads(Path(path).read_text())["run"] == "other"


def test_it_is_taken_from_a_dead_run_and_knowingly_from_any(path: str) -> None:
    hold(path, "dead")
    with pytest.raises(_lock.LockError):
        hold(path, gone=["another"])
    taken = hold(path, gone=["dead"])
    assert taken.taken_over
    assert taken.found is not None
    assert taken.found.run == "dead"
    taken = hold(path, "next", take_over=True)
    assert taken.taken_over
    # The one that lost it leaves it alone.
    assert _lock.release(path, "mine")
    held = _lock.read(path)
    assert held is not None
    assert held.run == "next"
    assert os.listdir(os.path.dirname(path)) == ["rollout.lock"]


@pytest.mark.parametrize(
    "text", ["", "\0" * 200, "{}", "[]", '{"run": "mine"', json.dumps({**owner(run=""), "since": 1}), '"mine"']
)
def test_what_a_power_cut_left_is_held_by_nobody_knows_whom(path: str, text: str) -> None:
    os.mkdir(os.path.dirname(path))
    Path(path).write_text(text)
    os.utime(path, (86400, 86400))
    with pytest.raises(_lock.LockError) as caught:
        hold(path, gone=["", "mine"])
    assert "held by nobody knows whom, as " in str(caught.value)
    assert "since 1970-01-02T00:00:00Z" in str(caught.value)
    assert "redis_rollout_take_over_lock=true" in str(caught.value)
    assert caught.value.found == ("", "", "", 0, "", 86400)
    assert _lock.release(path, "mine") is not None
    assert os.path.exists(path)
    assert hold(path, take_over=True).taken_over
    assert _lock.read(path) is not None


def test_what_is_no_file_is_an_error_in_words(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(_lock.LockError, match=r"the lock .*/link can't be used: Too many levels of symbolic links"):
        hold(str(tmp_path / "link"), take_over=True)
    (tmp_path / "folder").mkdir()
    with pytest.raises(_lock.LockError, match="can't be used: Is a directory"):
        hold(str(tmp_path / "folder"), take_over=True)


def test_what_killed_runs_left_beside_it_goes_with_it(path: str) -> None:
    hold(path)
    Path(path).with_name(".rollout.lock.x1.new").write_text("")
    Path(path).with_name(".other.lock.x1.new").write_text("")
    _lock.release(path, "mine")
    assert os.listdir(os.path.dirname(path)) == [".other.lock.x1.new"]


def compete(path: str, number: int, gone: list[str], start: Any, won: Any) -> None:
    """Try to get the lock at the same moment as others."""
    start.wait()
    try:
        hold(path, f"run{number}", gone=gone)
    except _lock.LockError:
        return
    won.put(number)


@pytest.mark.parametrize("former", ["", "dead"])
def test_of_runs_at_the_same_moment_exactly_one_wins(path: str, former: str) -> None:
    for _attempt in range(10):
        if former:
            hold(path, former)
        start, won = FORK.Barrier(RUNS), FORK.Queue()
        all_of_them = [FORK.Process(target=compete, args=(path, n, ["dead"], start, won)) for n in range(RUNS)]
        for process in all_of_them:
            process.start()
        for process in all_of_them:
            process.join(30)
            assert process.exitcode == 0
        winner = won.get(timeout=5)
        assert won.empty()
        found = _lock.read(path)
        assert found is not None
        assert found.run == f"run{winner}"
        _lock.release(path, found.run)


def test_one_that_another_run_takes_over_meanwhile_is_looked_at_again(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(path, "dead")
    flock = _lock.fcntl.flock

    def faster(descriptor: int, how: int) -> None:
        monkeypatch.setattr(_lock.fcntl, "flock", flock)
        hold(path, "faster", gone=["dead"])
        flock(descriptor, how)

    monkeypatch.setattr(_lock.fcntl, "flock", faster)
    with pytest.raises(_lock.LockError, match="held by faster@deploy"):
        hold(path, gone=["dead"])


def test_one_that_another_run_takes_over_meanwhile_is_not_given_back(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(path)
    flock = _lock.fcntl.flock

    def faster(descriptor: int, how: int) -> None:
        monkeypatch.setattr(_lock.fcntl, "flock", flock)
        hold(path, "faster", take_over=True)
        flock(descriptor, how)

    monkeypatch.setattr(_lock.fcntl, "flock", faster)
    _lock.release(path, "mine")
    found = _lock.read(path)
    assert found is not None
    assert found.run == "faster"


def test_it_is_on_the_disk_before_it_has_its_name(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    done = []
    fsync, link = os.fsync, os.link
    monkeypatch.setattr(_lock.os, "fsync", lambda descriptor: done.append("fsync") or fsync(descriptor))
    monkeypatch.setattr(_lock.os, "link", lambda *words: done.append("link") or link(*words))
    monkeypatch.setattr(_release, "sync_folder", lambda folder: done.append("folder"))
    hold(path)
    assert done == ["folder", "fsync", "link", "folder"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 seconds ago"),
        (119, "119 seconds ago"),
        (120, "2 minutes ago"),
        (7199, "119 minutes ago"),
        (7200, "2 hours ago"),
        (172799, "47 hours ago"),
        (400000, "4 days ago"),
    ],
)
def test_how_long_ago(seconds: int, text: str) -> None:
    assert _lock.ago(seconds) == text


# ---------------------------------------------------------------- the controller


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """A process of this machine, until it is killed."""
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_run_is_known_by_its_process(child: subprocess.Popen[bytes]) -> None:
    mine = _lock.run_owner(child.pid)
    assert mine == _lock.run_owner(child.pid)
    assert mine["run"] != _lock.run_owner(os.getpid())["run"]
    assert mine["started"].isdigit()
    assert mine["run"] == f"{mine['controller']}-{child.pid}-{mine['started']}"


@pytest.mark.parametrize(
    ("environment", "given", "who"),
    [({"SUDO_USER": "ops"}, "", "ops@deploy1"), ({}, "", "me@deploy1"), ({"SUDO_USER": "ops"}, "job 7", "job 7")],
)
def test_who_it_is_for_people(monkeypatch: pytest.MonkeyPatch, environment: Any, given: str, who: str) -> None:
    monkeypatch.delenv("SUDO_USER", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_lock.getpass, "getuser", lambda: "me")
    monkeypatch.setattr(_lock.socket, "gethostname", lambda: "deploy1")
    assert _lock.run_owner(1, given)["who"] == who


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.delenv("SUDO_USER", raising=False)
    monkeypatch.setattr(_lock.getpass, "getuser", nameless)
    assert _lock.run_owner(1)["who"].startswith(f"{os.getuid()}@")


def test_clones_and_containers_are_other_controllers(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(machine: str, name: str, namespace: str) -> str:
        monkeypatch.setattr(_lock._host, "read_text", lambda path: machine if path == "/etc/machine-id" else "")
        monkeypatch.setattr(_lock.socket, "gethostname", lambda: name)
        monkeypatch.setattr(_lock.os, "readlink", lambda path: namespace)
        return _lock.controller_id()

    first = seen("1234\n", "a", _lock.INITIAL_NAMESPACE)
    assert seen("1234", "a", _lock.INITIAL_NAMESPACE) == first
    others = {first, seen("5678", "a", ""), seen("1234", "b", ""), seen("1234", "a", "pid:[4026532000]")}
    assert len(others) == 4
    assert "1234" not in first


def test_an_edge_agent_knows_its_own_runs_after_the_boot_of_its_container(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock.os, "readlink", lambda path: "pid:[4026532000]")
    by_hand = _lock.controller_id()
    # The agent's one file can't import the name.
    assert _pull.SITE_VARIABLE == _lock.SITE_VARIABLE
    monkeypatch.setenv(_pull.SITE_VARIABLE, "pump7")
    agent = _lock.controller_id()
    monkeypatch.setattr(_lock.os, "readlink", lambda path: "pid:[4026532001]")
    assert _lock.controller_id() == agent != by_hand
    monkeypatch.setenv(_pull.SITE_VARIABLE, "pump8")
    assert _lock.controller_id() not in (agent, by_hand)


def test_a_run_is_dead_when_its_process_is_over_or_another_by_now(child: subprocess.Popen[bytes]) -> None:
    mine = _lock.run_owner(child.pid)
    here = mine["controller"]
    reused = {**mine, "started": "1", "run": _lock.run_id(here, child.pid, "1")}
    elsewhere = {**mine, "controller": "elsewhere"}
    assert _lock.dead_runs([mine, {}, elsewhere], here) == []
    assert _lock.dead_runs([reused, mine, reused], here) == [reused["run"]]
    child.kill()
    # Nobody has asked for its end yet: it still has its pid, and runs no more.
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert _lock.dead_runs([mine], here) == [mine["run"]]
    child.wait()
    assert _lock.dead_runs([mine, elsewhere], here) == [mine["run"]]


def test_a_host_that_lies_declares_nobody_dead(child: subprocess.Popen[bytes]) -> None:
    mine = _lock.run_owner(child.pid)
    lie = {**mine, "started": "1"}
    assert _lock.dead_runs([lie, {**mine, "pid": 0}], mine["controller"]) == []


def test_without_proc_the_pid_alone_tells(child: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lock._host, "read_text", lambda path: "")
    monkeypatch.setattr(_lock.os.path, "exists", lambda path: False)
    assert _lock.runs(child.pid, "")
    assert _lock.runs(child.pid, "7")
    child.kill()
    child.wait()
    assert not _lock.runs(child.pid, "")
    assert not _lock.runs(0, "")


def test_a_process_of_another_user_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(pid: int, signum: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(_lock.os, "kill", refused)
    assert _lock.runs(os.getpid(), _lock.process_started(os.getpid()))


def test_a_program_may_have_any_name(monkeypatch: pytest.MonkeyPatch) -> None:
    fields = " ".join(str(number) for number in range(4, 53))
    monkeypatch.setattr(_lock._host, "read_text", lambda path: f"42 (a) R 1 (b)) S {fields}\n")
    assert _lock.process_started(42) == "22"
