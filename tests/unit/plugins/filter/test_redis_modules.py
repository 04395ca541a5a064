# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters are thin covers: each gives what module_utils decides, and an error that a template shows as it is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible.executor.process.worker import WorkerProcess
from ansible.utils.multiprocessing import context

from ansible_collections.edgeops.redis_modules.plugins.filter import redis_modules

FILTERS = redis_modules.FilterModule().filters()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: FILTERS["declared_modules"]([{"name": "a"}], "/m"), "module a: give exactly one of src"),
        (lambda: FILTERS["extra_lines"]({"include": "x"}, []), "redis_server_extra_directives: include can't be"),
        (lambda: FILTERS["io_threads"]("many", 4, "7.0.15"), "redis_server_io_threads must be auto or a number"),
        (
            lambda: FILTERS["on_controller"]("none", ["/nowhere"]),
            "there is no none on the controller; looked in /nowhere, ",
        ),
        (
            lambda: FILTERS["firewall_wanted"]({"allowed_cidrs": ["10.0.0.1/8"], "ports": [6379]}),
            "10.0.0.1/8 has bits beyond its mask",
        ),
        (lambda: FILTERS["firewall_peers"](["a"], [{}]), "no address is known of a"),
    ],
)
def test_a_wrong_input_reaches_the_operator_in_words(call: Any, message: str) -> None:
    with pytest.raises(AnsibleFilterError, match=message.replace("(", r"\(")):
        call()


def test_what_is_right_comes_through() -> None:
    assert FILTERS["declared_modules"]([{"name": "a", "src": "x"}], "/m")[0]["path"] == "/m/a.so"
    assert FILTERS["extra_lines"]({"hz": 20}, []) == ["hz 20"]
    assert FILTERS["io_threads"]("auto", 8, "7.0.15") == 6
    assert FILTERS["firewall_wanted"]({"allowed_cidrs": ["10.0.0.0/8"], "ports": [6379]})["ports"] == (6379,)
    assert FILTERS["firewall_peers"](["10.0.0.1"], [{}]) == ["10.0.0.1"]
    assert FILTERS["conf_line"]("bind", ["a", "b c"]) == 'bind a "b c"'
    assert FILTERS["module_lines"](FILTERS["declared_modules"]([{"name": "a", "src": "x"}], "/m")) == [
        "loadmodule /m/a.so"
    ]


def test_only_keys_that_are_there() -> None:
    assert FILTERS["only_keys"]([{"a": 1, "b": 2}, {"b": 3}], "a", "c") == [{"a": 1}, {}]


def test_each_module_gets_the_artifact_of_its_name() -> None:
    modules = [{"name": "a", "sha256": None}, {"name": "b", "sha256": "declared"}]
    merged = FILTERS["with_artifacts"](
        modules, {"a": {"path": "/a.so", "sha256": "1"}, "b": {"path": "", "sha256": ""}}
    )
    assert merged == [
        {"name": "a", "artifact": "/a.so", "sha256": "1"},
        {"name": "b", "artifact": None, "sha256": "declared"},
    ]
    assert FILTERS["with_artifacts"](modules, {})[0] == {"name": "a", "artifact": None, "sha256": None}
    assert "artifact" not in modules[0]


def test_modules_whose_sources_have_no_header(tmp_path: Path) -> None:
    for name in ("own", "deep/inc", "none"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "own" / "redismodule.h").write_text("")
    (tmp_path / "deep" / "inc" / "redismodule.h").write_text("")
    modules = [{"name": name, "src": name} for name in ("own", "deep", "none", "nowhere")]
    assert FILTERS["without_header"](modules, [str(tmp_path)]) == ["none", "nowhere"]


def test_a_file_on_the_controller(tmp_path: Path) -> None:
    (tmp_path / "x.h").write_text("")
    assert FILTERS["on_controller"]("x.h", [str(tmp_path)]) == str(tmp_path / "x.h")


def test_the_report() -> None:
    rows = FILTERS["report_rows"]({"a": {"verdicts": []}}, ["a", "b"])
    assert [row["verdict"] for row in rows] == ["no modules declared", "unconfirmed"]
    assert "unconfirmed" in FILTERS["report_table"](rows)


def test_limits_are_refused_and_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(redis_modules.Display, "warning", lambda _self, text: warned.append(text))
    assert FILTERS["limit_lines"]({"memory_max": "1G", "maxmemory": "1gb"}) == ["MemoryMax=1G"]
    assert "less than 1.5 times" in warned[0]
    with pytest.raises(AnsibleFilterError, match="redis_server_cpu_quota must be a share"):
        FILTERS["limit_lines"]({"cpu_quota": "1"})


def test_io_threads_follow_the_cores_of_the_service() -> None:
    assert FILTERS["io_threads"]("auto", 8, "7.0.15") == 6
    assert FILTERS["io_threads"]("auto", 8, "7.0.15", {"cpu_affinity": "0-3"}) == 2


def test_every_filter_is_documented_and_every_document_is_of_a_filter() -> None:
    folder = Path(redis_modules.__file__).parent
    documents = {path.stem: yaml.safe_load(path.read_text(encoding="utf-8")) for path in folder.glob("*.yml")}
    assert set(documents) == set(FILTERS)
    assert all(document["DOCUMENTATION"]["name"] == name for name, document in documents.items())


def test_a_module_that_goes_back_is_declared_without_its_version() -> None:
    modules = [{"name": "a", "src": "x", "version": 2}, {"name": "b", "src": "y", "version": 3}]
    found = FILTERS["going_back"](modules, {"a": "previous"}, "/m")
    assert [module["version"] for module in found] == [None, 3]
    assert FILTERS["going_back"](modules, {}, "/m") == modules
    with pytest.raises(AnsibleFilterError, match="module c: it is not declared"):
        FILTERS["going_back"](modules, {"c": "previous"}, "/m")
    with pytest.raises(AnsibleFilterError, match="this host does not have it yet"):
        FILTERS["release_artifacts"](FILTERS["declared_modules"](modules, "/m"), {}, {})


class Worker(WorkerProcess):
    """A worker of ansible-playbook without a task: it says whose it is."""

    def __init__(self, tell: Any) -> None:
        context.Process.__init__(self)
        self.tell = tell

    def run(self) -> None:
        """Say it."""
        self.tell.put(FILTERS["run_owner"](""))


def test_a_run_is_the_same_in_all_its_workers_and_in_itself() -> None:
    tell = context.Queue()
    workers = [Worker(tell), Worker(tell)]
    for worker in workers:
        worker.start()
    told = [tell.get(timeout=30) for _worker in workers]
    for worker in workers:
        worker.join(30)
    mine = FILTERS["run_owner"]("")
    assert mine["pid"] == os.getpid()
    assert told == [mine, mine]
    assert FILTERS["dead_runs"]([mine], mine["controller"]) == []


def test_a_process_that_is_no_worker_is_a_run_of_its_own() -> None:
    tell = context.Queue()
    process = context.Process(target=lambda: tell.put(FILTERS["run_owner"]("")))
    process.start()
    other = tell.get(timeout=30)
    process.join(30)
    mine = FILTERS["run_owner"]("")
    assert other["pid"] == process.pid
    assert FILTERS["dead_runs"]([other, mine], mine["controller"]) == [other["run"]]


def test_group_pattern_is_nobody_without_the_group():
    pattern = FILTERS["group_pattern"]
    assert pattern("changed", {"all": ["a"]}) == "all:!all"
    assert pattern("changed", {"all": ["a"], "changed": ["a"]}) == "changed"


def test_host_pattern_joins_a_list_and_refuses_nobody():
    pattern = FILTERS["host_pattern"]
    assert pattern("pumps:&north") == "pumps:&north"
    assert pattern(["pumps", "valves"]) == "pumps,valves"
    for nobody in ("", " ", []):
        with pytest.raises(AnsibleFilterError, match="redis_hosts names nobody"):
            pattern(nobody)


PROGRAM = """
import sys
from ansible_collections.edgeops.redis_modules.plugins.filter import redis_modules

package = redis_modules.PACKAGE + "."
filters = redis_modules.FilterModule().filters()
print(*sorted(name[len(package) :] for name in sys.modules if name.startswith(package)))
filters["conf_line"]("port", "6379")
print(*sorted(name[len(package) :] for name in sys.modules if name.startswith(package)))
"""


def test_a_filter_brings_in_what_it_stands_on_when_it_is_called_and_no_sooner() -> None:
    root = Path(redis_modules.__file__).resolve().parents[5]
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM],
        env={**os.environ, "PYTHONPATH": str(root)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    before, after = done.stdout.split("\n")[:2]
    assert before == ""
    assert "_settings" in after.split()
    assert not {"_waves", "_pull", "_firewall", "_report"} & set(after.split())


def test_a_cover_gives_on_what_its_function_says() -> None:
    part = redis_modules.Part("_settings")
    assert part.SettingError.__name__ == "SettingError"
    assert not hasattr(part, "nothing_of_that_name")
    assert redis_modules.cover(part, "conf_line")("port", "1") == "port 1"

    def fails(error: Exception) -> Any:
        raise error

    # Its own errors are for the operator; a fault in it is a fault.
    with pytest.raises(AnsibleFilterError, match="no such port"):
        redis_modules.speaking(fails)(part.SettingError("no such port"))
    with pytest.raises(ValueError, match="a fault"):
        redis_modules.speaking(fails)(ValueError("a fault"))


GOOD = {
    "as_wanted": True,
    "differences": [],
    "reached": "2026-11-28T03:12:09Z",
    "confirmation": {
        "confirmed": True,
        "error": "",
        "server_version": "7.0.15",
        "exposure": 1.1,
        "verdicts": [{"name": "a", "verdict": "loaded", "differences": [], "version": 1, "path": "/m/a.so"}],
    },
    "firewall": {},
    "topology": {"running": True},
}
BAD = {"as_wanted": False, "differences": ["something else is declared since"], "reached": "2026-11-01T00:00:00Z"}


def test_where_all_hosts_are_as_wanted_the_first_look_is_the_report() -> None:
    guarded = {
        "differences": [],
        "in_force": True,
        "ports": [6379],
        "allowed": {"ipv4": ["10.0.0.0/8"], "ipv6": []},
        "counters": {"accepted": 5, "refused": 6},
    }
    hostvars = {
        "b": {"redis_receipt_found": {**GOOD, "firewall": guarded}},
        "a": {"redis_receipt_found": GOOD},
        "of another play": {},
    }
    told = FILTERS["receipts_told"](["b", "a"], hostvars)
    assert told["others"] == []
    rows = FILTERS["report_rows"](dict.fromkeys("ba", GOOD["confirmation"]), ["b", "a"], None, {"b": guarded})
    assert told["lines"] == [
        *FILTERS["report_table"](rows).splitlines(),
        "2 of 2 hosts are as wanted, confirmed 2026-11-28T03:12:09Z",
    ]
    assert "b, firewall: ports 6379 open to 1 networks; 5 accepted, 6 refused" in told["lines"]


def test_where_others_are_there_is_no_report_yet() -> None:
    hostvars = {"a": {"redis_receipt_found": GOOD}, "b": {"redis_receipt_found": BAD}, "c": {}}
    assert FILTERS["receipts_told"](["a", "b", "c"], hostvars) == {
        "others": ["b", "c"],
        "lines": [
            "1 of 3 hosts are as wanted, confirmed 2026-11-28T03:12:09Z",
            "b: something else is declared since",
            "c: it failed or could not be reached",
        ],
    }


def test_the_result_of_a_host_or_what_its_receipt_told() -> None:
    own = {"confirmed": True, "verdicts": []}
    variables = [
        {"found": own, "redis_receipt_found": BAD},
        {"redis_receipt_found": GOOD},
        {"redis_receipt_found": BAD},
        {},
    ]
    first = FILTERS["first_results"]
    confirmations = first(variables, "found", "redis_receipt_found.confirmation")
    assert confirmations == [own, GOOD["confirmation"], {}, {}]
    assert first(variables, "redis_receipt_found.topology") == [{}, {"running": True}, {}, {}]


def served(number: int, **more: Any) -> dict[str, Any]:
    """Return what a server at 192.0.2.NUMBER tells."""
    return {
        "running": True,
        "addresses": [f"192.0.2.{number}"],
        "port": 6379,
        "version": "7.0.15",
        "primary": "",
        "link_up": True,
        "syncing": False,
        "priority": 100,
        "lacks": [],
        "leaves": [],
        "replicas": [],
        "sentinels": 0,
        "cluster": False,
        **more,
    }


def test_the_plan_knows_of_hosts_that_stay_as_they_are() -> None:
    primary = served(1, replicas=[{"ip": "192.0.2.2", "port": "6379", "state": "online"}])
    replica = served(2, primary="192.0.2.1 6379")
    for told in ({"one": primary}, {"one": primary, "two": {}}):
        planned = FILTERS["rollout_plan"](told, settled={"two": replica})
        assert [[step["host"] for step in wave] for wave in planned["waves"]] == [["one"]]
        assert planned["waves"][0][0]["handover_to"] == "two"
        assert (planned["faults"], planned["warnings"]) == ([], [])
    # Of one that nobody knows anything of, nothing is made up.
    assert FILTERS["rollout_plan"]({"one": served(1)}, settled={"two": {}})["faults"] == []
    for settled in ({}, None):
        planned = FILTERS["rollout_plan"]({"one": primary}, settled=settled)
        assert "no replica could take over" in planned["faults"][0]
    assert FILTERS["rollout_plan"]({"one": served(1)}, sizes=["1"])["lines"] == ["wave 1: one (standalone)"]
