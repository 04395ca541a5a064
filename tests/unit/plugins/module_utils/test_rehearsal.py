# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A throwaway server that is up is looked at; what is wrong there, and how it ended, is said by module and command."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _rehearsal, _smoke
from ansible_collections.edgeops.redis_modules.plugins.module_utils._rehearsal import Found, TrialError
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial

LOG = "812:M 22 Nov 2026 12:00:00.123 "
GONE = _client.NotReachedError("/s: Connection closed by server")
MIB = 1 << 20


def smoke(*command: str, **more: Any) -> dict[str, Any]:
    return {"command": list(command), **more}


def entry(name: str, *smokes: dict[str, Any], accept: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"name": name, "artifact": f"/nowhere/{name}.so", "smoke": list(smokes), "accept": list(accept)}


class Proc:
    """A /proc and a /sys of our own."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        there = _rehearsal.glob.glob
        monkeypatch.setattr(_rehearsal, "open", self.open, raising=False)
        monkeypatch.setattr(
            _rehearsal.glob, "glob", lambda pattern: [found[len(str(root)) :] for found in there(str(root) + pattern)]
        )

    def open(self, path: str, *mode: str, **options: Any) -> Any:
        return open(str(self.root) + path if path.startswith(("/proc/", "/sys/")) else path, *mode, **options)

    def write(self, path: str, text: str) -> None:
        place = Path(str(self.root) + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Proc:
    monkeypatch.setattr(_rehearsal, "CRON_SECONDS", 0)
    return Proc(tmp_path, monkeypatch)


class TestRefuse:
    """Faults become an error of their own."""

    @pytest.mark.parametrize("nothing", ["", [], ()])
    def test_nothing(self, nothing: Any) -> None:
        _rehearsal.refuse(nothing, ["log"])

    @pytest.mark.parametrize(("faults", "text"), [("a b", "a b"), (["one", "two"], "one\ntwo")])
    def test_one_a_line_with_the_log(self, faults: Any, text: str) -> None:
        with pytest.raises(TrialError) as caught:
            _rehearsal.refuse(faults, ("l1", "l2"))
        assert (str(caught.value), caught.value.log) == (text, ["l1", "l2"])


class TestVisit:
    """A server with new modules."""

    @pytest.fixture
    def visit(self, server: Any, proc: Proc) -> Any:
        """Return a function that visits the server and gives the visit and what it found."""
        server.answers["COMMAND LIST FILTERBY MODULE"] = lambda *words: [f"{words[-1]}.GET".encode()]

        def run(*modules: dict[str, Any], save: str = "SAVE") -> Any:
            made = _rehearsal.Visit(modules, save)
            return made, made(server.connect({}), [])

        return run

    def sent(self, server: Any) -> list[str]:
        return [said for said in server.sent if not said.startswith("COMMAND")]

    def test_the_smoke_commands_and_save(self, visit: Any, server: Any) -> None:
        server.commands = {"a.get": frozenset({"module", "readonly"})}
        server.answers.update({"A.ADD": b"added", "A.GET": b"1"})
        _visit, found = visit(entry("a", smoke("A.ADD", "k", expect="added"), smoke("A.GET", "k")), entry("b"))
        assert self.sent(server) == ["A.ADD k", "A.GET k", "SAVE"]
        assert found.commands == {"a": ["a.get"], "b": ["b.get"]}
        assert [(a.module, a.value, a.again) for a in found.answers] == [("a", "added", False), ("a", "1", True)]
        assert (found.outside_memory, found.processes, found.fault) == (0, [], "")

    def test_no_save_where_nothing_was_sent_or_save_was_taken_away(self, visit: Any, server: Any) -> None:
        visit(entry("a"))
        assert self.sent(server) == []
        visit(entry("a", smoke("A.GET")), save="")
        assert self.sent(server) == ["A.GET"]

    def test_save_by_its_new_name(self, visit: Any, server: Any) -> None:
        visited, _found = visit(entry("a", smoke("A.GET")), save="hidden")
        assert self.sent(server) == ["A.GET", "hidden"]
        # Who knows the new name can run it, so nobody is told.
        assert visited.doing == ("a", "SAVE")

    def test_the_first_fault_is_found_and_nothing_is_sent_after_it(self, visit: Any, server: Any) -> None:
        _visit, found = visit(
            entry("a", smoke("A.GET")), entry("b", smoke("B.GET", expect="no")), entry("c", smoke("C.GET"))
        )
        assert found.fault == "module b: B.GET answers 'OK'; expected is 'no'"
        assert self.sent(server) == ["A.GET", "B.GET"]

    def test_what_was_being_done_when_the_server_ended_is_known(self, server: Any, proc: Proc) -> None:
        server.answers["B.GET"] = GONE
        visit = _rehearsal.Visit([entry("a", smoke("A.GET")), entry("b", smoke("B.GET", "k 1"))], "SAVE")
        with pytest.raises(_client.NotReachedError):
            visit(server.connect({}), [])
        assert visit.doing == ("b", "B.GET k 1")

    def test_so_it_is_of_save_with_those_who_had_commands_sent(self, server: Any, proc: Proc) -> None:
        server.answers["SAVE"] = GONE
        smokes = [entry("a", smoke("A"), smoke("A")), entry("b"), entry("c", smoke("C"))]
        visit = _rehearsal.Visit(smokes, "SAVE")
        with pytest.raises(_client.NotReachedError):
            visit(server.connect({}), [])
        assert visit.doing == ("a, c", "SAVE")

    def test_so_it_is_of_a_server_that_dies_by_itself(self, visit: Any, server: Any) -> None:
        visited, _found = visit(entry("a"))
        assert visited.doing == ("", "INFO")

    @pytest.mark.parametrize(("commands", "of_module"), [(GONE, []), ({}, GONE)])
    def test_a_server_that_ends_before_the_smoke_commands(
        self, server: Any, proc: Proc, commands: Any, of_module: Any
    ) -> None:
        server.commands = commands
        server.answers["COMMAND LIST"] = of_module
        visit = _rehearsal.Visit([entry("a")], "SAVE")
        with pytest.raises(_client.NotReachedError):
            visit(server.connect({}), [])
        assert visit.doing == ("", "COMMAND")

    def test_a_server_that_tells_no_commands(self, visit: Any, server: Any) -> None:
        server.commands = _client.ServerError("unknown command")
        server.answers.clear()
        server.answers["COMMAND"] = _client.ServerError("unknown command")
        _visit, found = visit(entry("a", smoke("A.GET")))
        assert found.commands == {"a": []}
        assert [answer.again for answer in found.answers] == [False]

    def test_memory_and_processes(self, visit: Any, server: Any, proc: Proc) -> None:
        server.info.update(process_id="7", used_memory=str(10 * MIB), allocator_resident=str(12 * MIB))
        proc.write("/proc/7/status", f"RssAnon:\t{200 << 10} kB\n")
        proc.write("/proc/7/cgroup", "0::/t.service\n")
        proc.write("/sys/fs/cgroup/t.service/cgroup.procs", "7\n8\n")
        proc.write("/proc/8/comm", "sleep\n")
        _visit, found = visit(entry("a"))
        assert (found.outside_memory, found.processes) == (188 * MIB, ["sleep (8)"])


class TestReturn:
    """The same server, started again."""

    ANSWERS = (
        _smoke.Answer("a", smoke("A.ADD"), "added", False),
        _smoke.Answer("a", smoke("A.GET", "k"), "1", True),
        _smoke.Answer("b", smoke("B.GET"), None, True),
    )

    def test_the_same(self, server: Any) -> None:
        server.answers.update({"A.GET": b"1", "B.GET": None})
        assert _rehearsal.Return(self.ANSWERS)(server.connect({}), []) == ""
        assert server.sent == ["A.GET k", "B.GET"]

    def test_lost(self, server: Any) -> None:
        server.answers.update({"A.GET": None, "B.GET": None})
        said = _rehearsal.Return(self.ANSWERS)(server.connect({}), [])
        assert said.startswith("module a: after SAVE and a start, A.GET k answers None, before it was '1'")
        assert server.sent == ["A.GET k"]

    def test_a_server_that_ends(self, server: Any) -> None:
        server.answers.update({"A.GET": b"1", "B.GET": GONE})
        visit = _rehearsal.Return(self.ANSWERS)
        with pytest.raises(_client.NotReachedError):
            visit(server.connect({}), [])
        assert visit.doing == ("b", "B.GET")


@pytest.mark.parametrize(("save", "sent"), [("SAVE", ["SAVE"]), ("hidden", ["hidden"]), ("", [])])
def test_saving_what_is_loaded(server: Any, save: str, sent: list[str]) -> None:
    _rehearsal.Save(save)(server.connect({}), [])
    assert server.sent == sent


class TestCommands:
    """The commands of each module."""

    OLD = _client.ServerError("COMMAND LIST: ERR Unknown subcommand or wrong number of arguments for 'LIST'")

    def test_as_the_server_tells(self, server: Any) -> None:
        server.answers["COMMAND LIST FILTERBY MODULE a"] = [b"A.Set", b"a.get"]
        server.answers["COMMAND LIST FILTERBY MODULE b"] = []
        found = _rehearsal.commands_by_module(server.connect({}), {}, [entry("a"), entry("b")])
        assert found == {"a": ["a.get", "a.set"], "b": []}

    def test_before_7_0_by_what_the_files_name(self, server: Any, tmp_path: Path) -> None:
        server.answers["COMMAND LIST"] = self.OLD
        (tmp_path / "a.so").write_bytes(b"\x7fELF\0A.Get\0write fast\0both.of.us\0xa.set\0set\0")
        (tmp_path / "b.so").write_bytes(b"a.set\0both.of.us\0\xff\0b.get")
        module, core = frozenset({"module"}), frozenset({"write"})
        flags = {"set": core, "a.get": module, "a.set": module, "b.get": module, "both.of.us": module, "x": module}
        modules = [{**entry(name), "artifact": str(tmp_path / f"{name}.so")} for name in ("a", "b", "c")]
        assert _rehearsal.commands_by_module(server.connect({}), flags, modules) == {
            "a": ["a.get", "both.of.us"],
            "b": ["a.set", "b.get"],
            "c": [],
        }

    def test_a_server_that_ends(self, server: Any) -> None:
        server.answers["COMMAND LIST"] = GONE
        with pytest.raises(_client.NotReachedError):
            _rehearsal.commands_by_module(server.connect({}), {}, [entry("a")])


class TestCollisions:
    """Why a module may give up that does not say it."""

    def test_names_in_its_file_that_are_in_use(self, server: Any, tmp_path: Path) -> None:
        server.commands = dict.fromkeys(("get", "a.get", "other", "readonly"), frozenset())
        used = _rehearsal.names_in_use(server.connect({}), [_client.LoadedModule("Bloom", 1, None, ())])
        assert used == {"module": ["Bloom"], "command": ["a.get", "get", "other"]}
        path = tmp_path / "x.so"
        path.write_bytes(b"x\0A.GET\0Bloom\0x.get\0readonly\0")
        assert _rehearsal.collisions(str(path), used) == (
            "it does not say why, but its file names the module Bloom, the command a.get, which this server has already"
        )
        path.write_bytes(b"x")
        assert _rehearsal.collisions(str(path), used) == "it does not say why: it may want other arguments"

    def test_a_server_that_tells_no_commands(self, server: Any) -> None:
        server.commands = _client.ServerError("unknown command")
        server.answers["COMMAND"] = _client.ServerError("unknown command")
        assert _rehearsal.names_in_use(server.connect({}), []) == {"module": [], "command": []}

    def test_a_server_that_ends(self, server: Any) -> None:
        server.commands = GONE
        server.answers["COMMAND"] = GONE
        with pytest.raises(_client.NotReachedError):
            _rehearsal.names_in_use(server.connect({}), [])


class TestOutsideMemory:
    """Memory beside that of Redis' allocator."""

    @pytest.fixture
    def outside(self, server: Any, proc: Proc) -> Any:
        """Return a function that gives the bytes outside, all given in MiB and bytes."""

        def measured(anonymous: int, used: int, resident: int, more: int = 0) -> int:
            server.info.update(used_memory=str(used * MIB - more), allocator_resident=str(resident * MIB - more))
            proc.write("/proc/4242/status", f"VmRSS:\t 1 kB\nRssAnon:\t  {anonymous << 10} kB\nRssFile: 9 kB\n")
            return _rehearsal.outside_memory(server.connect({}))

        return measured

    def test_beyond_the_limit(self, outside: Any) -> None:
        assert outside(64 + 10, 10, 10) == 64 * MIB
        assert outside(64 + 10, 10, 10, more=-1) == 0
        assert outside(200, 5, 10) == 190 * MIB

    def test_what_the_allocator_keeps_for_later_is_redis_own(self, outside: Any) -> None:
        assert outside(200, 5, 190) == 0

    def test_what_others_took_from_the_allocator_is_outside(self, outside: Any, server: Any) -> None:
        server.info["allocator_allocated"] = str(230 * MIB)
        assert outside(207, 1, 240) == 206 * MIB
        server.info["allocator_allocated"] = str(64 * MIB)
        assert outside(207, 1, 240) == 0

    def test_the_allocator_has_never_less_than_what_is_used(self, outside: Any) -> None:
        assert outside(200, 110, 5) == 90 * MIB

    def test_what_can_not_be_read_is_nothing(self, server: Any, proc: Proc) -> None:
        assert _rehearsal.outside_memory(server.connect({})) == 0
        proc.write("/proc/4242/status", "VmRSS:\t 900000 kB\n")
        assert _rehearsal.outside_memory(server.connect({})) == 0
        for pid in ("none", None):
            server.info.update(process_id=pid) if pid else server.info.pop("process_id")
            assert _rehearsal.outside_memory(server.connect({})) == 0


class TestProcesses:
    """Other processes of the server's control group."""

    @pytest.mark.parametrize(
        ("cgroup", "place"),
        [
            ("0::/system.slice/redis-trial-x.service\n", "/sys/fs/cgroup/system.slice/redis-trial-x.service"),
            (
                "5:memory:/other\n1:name=systemd:/system.slice/t.service\n",
                "/sys/fs/cgroup/systemd/system.slice/t.service",
            ),
            ("1:name=systemd:/t.service\n0::/t.service\n", "/sys/fs/cgroup/unified/t.service"),
        ],
        ids=["unified", "of systemd", "hybrid"],
    )
    def test_by_name_and_pid(self, proc: Proc, cgroup: str, place: str) -> None:
        proc.write("/proc/70/cgroup", cgroup)
        proc.write(f"{place}/cgroup.procs", "70\n9\n71\n")
        proc.write("/sys/fs/cgroup/other/cgroup.procs", "70\n1\n")
        proc.write("/proc/71/comm", "a helper\n")
        assert _rehearsal.child_processes(70) == ["9", "a helper (71)"]

    def test_none(self, proc: Proc) -> None:
        assert _rehearsal.child_processes(70) == []
        proc.write("/proc/70/cgroup", "0::/t.service\n")
        assert _rehearsal.child_processes(70) == []
        proc.write("/sys/fs/cgroup/t.service/cgroup.procs", "70\n")
        assert _rehearsal.child_processes(70) == []

    def test_the_root_group_is_everybodys(self, proc: Proc) -> None:
        proc.write("/proc/70/cgroup", "0::/\n")
        proc.write("/sys/fs/cgroup/cgroup.procs", "1\n2\n70\n")
        assert _rehearsal.child_processes(70) == []


class TestEnded:
    """How a server ended that was up."""

    def test_not_at_all_or_never_up(self) -> None:
        assert _rehearsal.ended(Trial("", [], {}, [], True), ("a", "A.GET")) == ""
        assert _rehearsal.ended(Trial("exit status 1", [], {}, []), ("a", "A.GET")) == ""

    def test_with_module_and_command_and_its_own_words(self) -> None:
        log = [LOG + "# Redis 7.0.15 crashed by signal: 11, si_code: 1", LOG + "# Accessing address: (nil)"]
        assert _rehearsal.ended(Trial("killed by signal 11", [], {}, log, True), ("a", "A.GET k")) == (
            "module a: a server with it ends at A.GET k (killed by signal 11): "
            "Redis 7.0.15 crashed by signal: 11, si_code: 1"
        )

    def test_without_a_module_and_without_words(self) -> None:
        assert _rehearsal.ended(Trial("exit status 0", [], {}, ["noise"], True), ("", "INFO")) == (
            "a server with it ends at INFO (exit status 0)"
        )

    @pytest.mark.parametrize("save", ["SAVE", "save"])
    def test_at_save_it_says_what_does_that(self, save: str) -> None:
        assert _rehearsal.ended(Trial("killed by signal 11", [], {}, [], True), ("a, b", save)) == (
            f"module a, b: a server with it ends at {save} (killed by signal 11): "
            "a data type without rdb_save does that"
        )
        log = [LOG + "# crashed by signal: 11"]
        assert _rehearsal.ended(Trial("killed", [], {}, log, True), ("a", save)).endswith(
            ": crashed by signal: 11; a data type without rdb_save does that"
        )


class TestBurdens:
    """What a server with the modules takes beside Redis' own."""

    ALLOCATORS: ClassVar[Any] = {"a": (), "b": ("malloc",), "c": ()}
    STARTERS: ClassVar[Any] = {"a": (), "b": (), "c": ("fork",)}

    def faults(self, outside: int = 0, processes: Any = (), allocators: Any = None, **accept: Any) -> list[str]:
        modules = [entry(name, accept=accept.get(name, ())) for name in "abc"]
        own = self.ALLOCATORS if allocators is None else allocators
        return _rehearsal.burdens(Found({}, outside, list(processes), [], ""), modules, own, self.STARTERS)

    def test_none(self) -> None:
        assert self.faults() == []

    def test_memory_is_that_of_whoever_asks_the_system_for_it(self) -> None:
        (fault,) = self.faults(200 * MIB)
        assert fault.startswith("module b: 200 MiB of the server's memory are taken past Redis' allocator")
        assert "accept: [outside_memory]" in fault

    def test_or_of_any_where_none_is_seen_to(self) -> None:
        (fault,) = self.faults(64 * MIB, allocators={"a": (), "b": ()})
        assert fault.startswith("module a or b: 64 MiB")

    def test_children(self) -> None:
        (fault,) = self.faults(processes=["sleep (8)", "9"])
        assert fault.startswith("module c: the server has child processes, sleep (8), 9;")

    def test_children_of_any_where_none_is_seen_to_start_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(self), "STARTERS", {"a": (), "b": ()})
        assert self.faults(processes=["9"])[0].startswith("module a or b: ")
        assert self.faults(processes=["9"], b=("processes",)) == []

    def test_both(self) -> None:
        assert len(self.faults(64 * MIB, ["9"])) == 2

    def test_what_an_entry_accepts(self) -> None:
        assert self.faults(200 * MIB, b=("outside_memory",)) == []
        assert self.faults(processes=["9"], c=("processes",)) == []
        assert len(self.faults(200 * MIB, ["9"], b=("outside_memory",))) == 1

    def test_what_the_entry_of_another_module_accepts_is_not(self) -> None:
        assert len(self.faults(200 * MIB, a=("outside_memory",))) == 1
        assert len(self.faults(200 * MIB, b=("processes", "delete_keys"))) == 1
        assert len(self.faults(processes=["9"], b=("processes",))) == 1


@pytest.mark.parametrize(
    ("names", "risk", "accepted"),
    [
        (["a"], "delete_keys", True),
        (["a", "b"], "delete_keys", True),
        (["b"], "delete_keys", False),
        (["a"], "processes", False),
        ([], "delete_keys", False),
        (["c"], "delete_keys", False),
    ],
)
def test_a_risk_counts_in_the_modules_own_entry(names: list[str], risk: str, accepted: bool) -> None:
    modules = [entry("a", accept=("delete_keys",)), entry("b"), {"name": "c"}, {"name": "d", "accept": None}]
    assert _rehearsal.accepted(modules, names, risk) is accepted


class TestAcl:
    """What Redis does not take in the ACL file."""

    BEGIN = LOG + "# Aborting Redis startup because of ACL errors: "
    OF_6_0 = "/run/t1/users.acl:3: Unknown command or category name in ACL. "
    OF_7_0 = (
        "/run/t1/users.acl:3: Error in applying operation '-sensorwindow.addx': "
        "Unknown command or category name in ACL. "
    )
    WARNING = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
    TEXT = "user default on nopass ~* +@all\nuser ops on >pw ~* +get\nuser app on >pw ~* +@read -sensorwindow.addx +x\n"
    ADVICE = "A server does not start with a rule that names a command of no loaded module: change the rule first"

    def faults(self, *words: str) -> list[str]:
        return _rehearsal.acl_faults([LOG + "# Server", self.BEGIN + "".join(words)], "/etc/users.acl", self.TEXT)

    def test_the_user_and_the_rule_as_7_0_tells_it(self) -> None:
        assert self.faults(self.OF_7_0, self.WARNING) == [
            "/etc/users.acl line 3, user app: -sensorwindow.addx: Unknown command or category name in ACL. "
            + self.ADVICE
        ]

    def test_the_user_and_all_of_its_rules_as_6_0_tells_it(self) -> None:
        assert self.faults(self.OF_6_0, self.WARNING) == [
            "/etc/users.acl line 3, user app: -sensorwindow.addx, +x: Unknown command or category name in ACL. "
            + self.ADVICE
        ]

    def test_every_user(self) -> None:
        faults = self.faults(self.OF_6_0, self.OF_7_0.replace(":3:", ":2:"), self.WARNING)
        assert [re.findall("line (.), user ([a-z]+)", fault) for fault in faults] == [[("3", "app")], [("2", "ops")]]

    @pytest.mark.parametrize("number", ["0", "4", "99"])
    def test_a_line_that_is_not_there(self, number: str) -> None:
        (fault,) = self.faults(self.OF_7_0.replace(":3:", f":{number}:"))
        assert fault.startswith(f"/etc/users.acl line {number}, user ?: -sensorwindow.addx: Unknown command")

    def test_another_end_is_none_of_it(self) -> None:
        log = [LOG + "# Can't load module from /m/a.so:3: server aborting.", "/run/t1/users.acl:3: no such thing."]
        assert _rehearsal.acl_faults(log, "/etc/users.acl", self.TEXT) == []


class TestData:
    """Why data does not load."""

    LOST = LOG + "# The RDB file contains module data I can't load: no matching module type 'sensorwin'"
    LOST_IN_6_0 = LOG + "# The RDB file contains module data I can't load: no matching module 'bloom-tst'"
    LOST_AUX = LOG + "# The RDB file contains AUX module data I can't load: no matching module 'auxonly-t'"

    def test_types_and_aux_fields_are_told_apart(self) -> None:
        log = [LOG + "* Ready", self.LOST, self.LOST_IN_6_0, self.LOST_AUX, self.LOST]
        assert _rehearsal.lost_types(log) == ["bloom-tst", "sensorwin"]
        assert _rehearsal.lost_aux(log) == ["auxonly-t"]

    def test_aux_fields_only(self) -> None:
        assert _rehearsal.lost_types([self.LOST_AUX]) == []
        assert _rehearsal.lost_aux([self.LOST]) == []
        silent = "The RDB file contains module AUX data, but the module 'auxonly-t' doesn't seem to support it."
        assert _rehearsal.lost_aux([LOG + "# " + silent]) == ["auxonly-t"]

    @pytest.mark.parametrize(
        ("log", "reason"),
        [
            ((LOST, "[offset 12] Checking RDB file"), LOST[len(LOG) + 2 :]),
            (
                (LOG + "# <sensorwindow> encoding version 3 is too new", LOG + "# end"),
                "<sensorwindow> encoding version",
            ),
            ((LOST, LOG + "# <a> sorry", LOG + "* Fatal"), "<a> sorry"),
            ((LOG + "# one", LOG + "# two"), "two"),
            (
                (LOG + "# Guru Meditation: short read #rdb.c:1", LOG + "# crashed by signal: 11", "/x(+0x1)[0x2]"),
                "Guru",
            ),
            ((LOG + "# it doesn't seem to support it.",), "it doesn't seem to support it"),
            ((LOG + "# x: server aborting", LOG + "# two"), "x: server aborting"),
            ((LOG + "# 1 < 2 and 3 > 2", LOG + "# two"), "two"),
            ((), "exit status 1"),
        ],
    )
    def test_the_reason_in_the_servers_own_words(self, log: Any, reason: str) -> None:
        found = _rehearsal.reason(Trial("exit status 1", [], {}, list(log)))
        assert found.startswith(reason)
        assert not found.endswith(".")


def test_the_modules_whose_files_are_there(tmp_path: Path) -> None:
    there = tmp_path / "a.so"
    there.write_text("")
    lines = _conf.parse(f"loadmodule {there} x\nloadmodule {tmp_path}/b.so\nloadmodule {tmp_path}\nport {there}\n")
    bare = [*lines, _conf.Directive("loadmodule", ())]
    assert _rehearsal.module_lines(bare) == [_conf.Directive("loadmodule", (str(there), "x"))]


def test_a_throwaway_server_writes_nothing_unless_it_is_asked() -> None:
    assert _conf.render(_rehearsal.QUIET) == 'appendonly no\nsave ""\n'


def test_the_real_process_of_a_test_has_no_memory_outside(server: Any) -> None:
    server.info["process_id"] = str(os.getpid())
    server.info["used_memory"] = server.info["allocator_resident"] = str(1 << 40)
    assert _rehearsal.outside_memory(server.connect({})) == 0
