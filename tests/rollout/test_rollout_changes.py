# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens when the declaration changes: what is restarted, what is kept, what is put back."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from rollout_kit import CACHE, CONF, DROPIN, EXAMPLE, FOLDER, MODULES, Entry, Host, Lab, probe, variant

pytestmark = pytest.mark.usefixtures("roles_alone")


def test_an_absent_module_is_taken_away(lab: Lab, r12: Host) -> None:
    """Its file is gone, the server runs without it, the release is kept, the others stay as they are."""
    names = ["aaa", "ccc", "bbb"]
    lab.ansible([r12], [probe(name) for name in names]).good()
    assert r12.modules() == dict.fromkeys(names, 1)
    digest = r12.sha256(f"{FOLDER}/ccc.so")

    modules: list[Entry] = [probe("aaa"), {"name": "ccc", "state": "absent"}, probe("bbb")]
    before = r12.snapshot()
    forecast = lab.ansible([r12], modules, "--check", "--diff").good()
    assert f"-loadmodule {FOLDER}/ccc.so" in forecast.output
    assert r12.snapshot() == before

    lab.ansible([r12], modules).good()
    assert r12.modules() == {"aaa": 1, "bbb": 1}
    assert "unknown command" in r12.cli("ccc.text").lower()
    assert r12.sh(f"ls {FOLDER}").split() == ["aaa.so", "bbb.so"]
    assert r12.sha256(f"{FOLDER}/.releases/ccc/{digest[:16]}.so") == digest
    after = r12.snapshot()
    lab.ansible([r12], modules).unchanged()
    assert r12.snapshot() == after


def example(release: int) -> Entry:
    """Return the example module in its first or second release."""
    return {
        "name": "sensorwindow",
        "src": str(EXAMPLE),
        "libraries": ["m", "pthread"],
        "defines": [f"SENSORWINDOW_RELEASE={release}"],
        "version": release * 10000,
    }


def test_an_upgrade_restarts_once_and_keeps_the_data(lab: Lab) -> None:
    """The second release reads what the first saved; the first is kept as a release."""
    fleet = lab.reset("r11", "r13")
    lab.ansible(fleet, [example(1)]).good()
    digests = {}
    for host in fleet:
        assert host.modules() == {"sensorwindow": 10000}
        host.cli("SENSORWINDOW.ADD", "pump", "1000", "2.5")
        host.cli("SET", "plain", "text")
        digests[host.name] = host.sha256(f"{FOLDER}/sensorwindow.so")
    starts = {host.name: host.starts for host in fleet}

    lab.ansible(fleet, [example(2)]).good()
    for host in fleet:
        assert host.modules() == {"sensorwindow": 20000}
        assert host.starts == starts[host.name] + 1
        assert "2.5" in host.cli("SENSORWINDOW.RANGE", "pump", "-", "+")
        assert host.cli("GET", "plain") == '"text"'
        digest = digests[host.name]
        assert host.sha256(f"{FOLDER}/.releases/sensorwindow/{digest[:16]}.so") == digest
        assert host.sha256(f"{FOLDER}/sensorwindow.so") == host.live_sha256(f"{FOLDER}/sensorwindow.so") != digest


def test_only_the_number_of_releases_that_is_wanted_is_kept(lab: Lab, r13: Host) -> None:
    """Three builds, one release kept."""
    for text in ("one", "two", "three"):
        lab.ansible([r13], [variant("probe", f"PROBE_TEXT={text}")], redis_rollout_keep_releases=1).good()
        assert r13.cli("probe.text") == text
    assert len(r13.sh(f"ls {FOLDER}/.releases/probe").split()) == 1


def configured(greeting: str) -> Entry:
    """Return the module with a directive of its own."""
    return {"name": "configured", "src": str(MODULES / "configured"), "config": {"greeting": greeting}}


def test_a_restart_only_where_the_server_needs_it(lab: Lab, r12: Host) -> None:
    """Run-time settings are set in the running server; what only a start can change restarts it once."""
    lab.ansible([r12], [configured("good day, all")], redis_server_maxmemory="64mb").good()
    assert r12.config("maxmemory") == str(64 << 20)
    assert r12.cli("configured.greet") == '"good day, all"'
    pid, starts = r12.pid, r12.starts

    extra = {"maxmemory-samples": 7}
    run_time: dict[str, Any] = {
        "redis_server_maxmemory": "96mb",
        "redis_server_maxmemory_policy": "allkeys-lru",
        "redis_server_extra_directives": extra,
    }
    lab.ansible([r12], [configured("good day, all")], **run_time).good()
    assert (r12.pid, r12.starts) == (pid, starts)
    settings = ("maxmemory", "maxmemory-policy", "maxmemory-samples")
    assert [r12.config(name) for name in settings] == [str(96 << 20), "allkeys-lru", "7"]

    # A module's own setting, and one that goes back to the default as it is no longer given.
    lab.ansible([r12], [configured("good evening")], redis_server_maxmemory="96mb").good()
    assert r12.cli("configured.greet") == '"good evening"'
    assert r12.config("maxmemory-policy") == "noeviction"
    assert r12.starts - starts <= 1
    starts = r12.starts

    lab.ansible([r12], [configured("good evening")], redis_server_maxmemory="96mb", redis_server_io_threads=2).good()
    assert r12.config("io-threads") == "2"
    assert r12.starts == starts + 1
    after = r12.snapshot()
    lab.ansible(
        [r12], [configured("good evening")], redis_server_maxmemory="96mb", redis_server_io_threads=2
    ).unchanged()
    assert r12.snapshot() == after


def test_new_arguments_reach_the_running_server_on_every_version(lab: Lab, fleet: list[Host]) -> None:
    """Before 7.0, no server tells its modules' arguments; the change must be seen all the same."""
    lab.ansible(fleet, [probe(args=["one"])]).good()
    lab.ansible(fleet, [probe(args=["two words"])]).good()
    assert [host.texts("probe.args") for host in fleet] == [["two words"]] * 3


def test_builds_are_reproducible_and_judged_by_content(lab: Lab, r12: Host, tmp_path: Path) -> None:
    """The same bytes from an empty cache; a new time stamp builds nothing; a changed header builds anew."""
    source = tmp_path / "parts"
    shutil.copytree(MODULES / "parts", source)
    module: Entry = {
        "name": "parts",
        "src": str(source),
        "sources": ["parts.c", "lib/area.c"],
        "include_dirs": ["include"],
        "defines": ["PARTS_SCALE=1", 'PARTS_LABEL="x"'],
        "libraries": ["m"],
    }
    by_make: Entry = {
        "name": "made",
        "src": str(MODULES / "made"),
        "make_target": "module",
        "make_output": "out/made.so",
    }
    lab.ansible([r12], [module, by_make]).good()
    paths = [f"{FOLDER}/{name}.so" for name in ("parts", "made")]
    digests = [r12.sha256(path) for path in paths]
    after = r12.snapshot()

    for path in (source / "parts.c", source / "include/area.h"):
        os.utime(path, (2_000_000_000, 2_000_000_000))
    lab.ansible([r12], [module, by_make]).unchanged()

    # From another folder of the controller, with nothing in the host's cache.
    moved = tmp_path / "elsewhere" / "under another name"
    shutil.copytree(source, moved)
    r12.sh(f"rm -r {CACHE}/artifacts")
    rebuilt = lab.ansible([r12], [{**module, "src": str(moved)}, by_make]).good()
    assert rebuilt.recap(r12)["changed"] == 1
    assert [r12.sha256(path) for path in paths] == digests
    assert r12.snapshot() == after

    header = source / "include/area.h"
    header.write_text(header.read_text(encoding="utf-8").replace("AREA_FACTOR 1", "AREA_FACTOR 10"), encoding="utf-8")
    lab.ansible([r12], [module, by_make]).good()
    assert r12.cli("parts.area", "2") == "(integer) 125"
    assert r12.sha256(paths[0]) != digests[0]
    assert r12.sha256(paths[1]) == digests[1]


def test_redis_conf_belongs_to_the_rollout(lab: Lab, fleet: list[Host]) -> None:
    """Edits by hand are undone, the packaged file is kept once, and CONFIG REWRITE does no harm."""
    modules = [probe(args=["a b", 'say "x"']), probe("second")]
    packaged = {host.name: host.sha256(CONF) for host in fleet}
    lab.ansible(fleet, modules).good()
    for host in fleet:
        assert host.sha256(f"{CONF}.before-edgeops") == packaged[host.name]
    written = {host.name: host.sha256(CONF) for host in fleet}
    pids = {host.name: host.pid for host in fleet}

    # By hand: a setting on disk, one in the running server, one that is both; and the drop-in.
    fleet[0].sh(f"sed -i 's/^maxclients .*/maxclients 77/' {CONF}")
    fleet[1].cli("CONFIG", "SET", "maxmemory-policy", "volatile-ttl")
    fleet[2].sh(f"printf 'slowlog-max-len 5\\n' >> {CONF}; sed -i '/ReadOnlyPaths/d' {DROPIN}")
    lab.ansible(fleet, modules).good()
    for host in fleet:
        assert host.sha256(CONF) == written[host.name]
        assert host.sha256(f"{CONF}.before-edgeops") == packaged[host.name]
    assert fleet[1].config("maxmemory-policy") == "noeviction"
    assert f"ReadOnlyPaths=-{FOLDER}" in fleet[2].sh(f"cat {DROPIN}")
    # The first needed no restart: the running server never read the edit. The second was set at run time.
    assert [fleet[0].pid, fleet[1].pid] == [pids["r11"], pids["r12"]]

    for host in fleet:
        host.cli("CONFIG", "SET", "maxmemory", "99mb")
        assert host.cli("CONFIG", "REWRITE") == "OK"
        host.sh("systemctl restart redis-server")
        assert host.modules() == {"probe": 1, "second": 1}
        assert host.sh(f"grep -c ^loadmodule {CONF}").strip() == "2"
    lab.ansible(fleet, modules).good()
    for host in fleet:
        assert host.config("maxmemory") == "0"
        assert host.texts("probe.args") == ["a b", 'say "x"']
        assert host.sha256(CONF) == written[host.name]
    lab.ansible(fleet, modules).unchanged()
