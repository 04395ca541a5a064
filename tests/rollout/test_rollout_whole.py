# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, with the oldest and the newest ansible-core; every origin of a module."""

from __future__ import annotations

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Built
from rollout_kit import EXAMPLE, FOLDER, MODULES, Entry, Host, Lab, artifact, probe

NASTY = [
    "with spaces",
    'it\'s "quoted" both ways',
    "back\\slash \\n \\x41",
    "# no comment",
    "$HOME ${HOME} $(id) `id`",
    "",
    "gr\u00fc\u00dfe \u96fb\u529b \u26a1",
    "tab\there",
    "{ braces } [0] %s ; | & > *",
    " both ends ",
]


def sensorwindow(release: int = 2) -> Entry:
    """Return the example module as an entry."""
    return {
        "name": "sensorwindow",
        "src": str(EXAMPLE),
        "sources": ["sensorwindow.c", "window.c"],
        "libraries": ["m", "pthread"],
        "defines": [f"SENSORWINDOW_RELEASE={release}"],
    }


# The newest one on all Redis versions, from hosts with nothing at all, is molecule's scenario default.
@pytest.mark.parametrize(("core", "names"), [("2.14", ("r11", "r12", "r13")), ("newest", ("r12",))])
def test_a_fleet_converges_in_one_run(lab: Lab, core: str, names: tuple[str, ...]) -> None:
    """Check mode forecasts and changes nothing; then all is there; then nothing is left to change."""
    fleet = lab.reset(*names)
    modules = [probe(args=NASTY), sensorwindow()]
    before = [host.snapshot() for host in fleet]
    forecast = lab.ansible(fleet, modules, "--check", "--diff", core=core).good()
    assert [host.snapshot() for host in fleet] == before
    for host in fleet:
        assert forecast.recap(host)["changed"] > 0
    assert f"+loadmodule {FOLDER}/sensorwindow.so" in forecast.output
    assert f"+ReadOnlyPaths=-{FOLDER}" in forecast.output

    lab.ansible(fleet, modules, core=core).good()
    for host in fleet:
        assert host.modules() == {"probe": 1, "sensorwindow": 20000}
        assert host.texts("probe.args") == NASTY
        assert host.sha256(f"{FOLDER}/probe.so") == host.live_sha256(f"{FOLDER}/probe.so")

    after = [host.snapshot() for host in fleet]
    lab.ansible(fleet, modules, core=core).unchanged()
    lab.ansible(fleet, modules, "--check", "--diff", core=core).unchanged()
    assert [host.snapshot() for host in fleet] == after
    verified = lab.ansible(fleet, modules, playbook="verify", core=core).unchanged()
    assert verified.output.count("loaded") >= 2 * len(fleet)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and does not tell of it."""

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


@pytest.fixture
def website(lab: Lab, built: dict[str, Built]) -> Iterator[str]:
    """Serve the built artifacts on the lab's bridge, and give the address."""
    handler = functools.partial(Quiet, directory=str(built["fetched"].path.parent))
    with http.server.ThreadingHTTPServer((lab.bridge, 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://{lab.bridge}:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def with_leftovers(target: Path) -> Path:
    """Copy the module with a Makefile, beside what a build elsewhere left: newer than the sources, and useless."""
    shutil.copytree(MODULES / "made", target)
    (target / "out").mkdir()
    for name in ("made.o", "out/made.so"):
        (target / name).write_text("left over from another machine", encoding="utf-8")
    return target


def in_a_tree(target: Path) -> Path:
    """Copy the module of Redis' own tree to a place with no header above it."""
    shutil.copytree(MODULES / "treelike", target / "modules")
    return target / "modules"


def with_own_header(target: Path, header: str) -> Path:
    """Copy the probe with a redismodule.h of its own, that it can tell from the server's."""
    shutil.copytree(MODULES / "probe", target)
    (target / "redismodule.h").write_text(f'#define OWN_HEADER_MARK "my own"\n{header}', encoding="utf-8")
    return target


def test_every_origin_of_a_module(lab: Lab, built: dict[str, Built], header: str, website: str, tmp_path: Path) -> None:
    """Sources of one and several files, a Makefile, three ways to the header, a path and a URL; in this order."""
    hosts = lab.reset("r12", "r13")
    fetched = built["fetched"]
    modules: list[Entry] = [
        probe("single"),
        {
            "name": "parts",
            "src": str(MODULES / "parts"),
            "sources": ["parts.c", "lib/area.c"],
            "include_dirs": ["include"],
            "defines": ["PARTS_SCALE=100", 'PARTS_LABEL="in two parts"'],
            "libraries": ["m"],
            "version": 3,
        },
        {
            "name": "made",
            "src": str(with_leftovers(tmp_path / "made")),
            "make_target": "module",
            "make_args": ["TEXT=told by make"],
            "make_output": "out/made.so",
        },
        {"name": "treelike", "src": str(in_a_tree(tmp_path / "tree"))},
        {**probe("ownheader"), "src": str(with_own_header(tmp_path / "ownheader", header))},
        built["handed"].entry(args=["by", "path"]),
        artifact("fetched", f"{website}/fetched.so", fetched.sha256),
    ]
    lab.ansible(hosts, modules).good()
    for host in hosts:
        versions = {"single": 1, "parts": 3, "made": 4, "treelike": 5, "ownheader": 1, "handed": 1, "fetched": 1}
        assert host.modules() == versions
        assert host.cli("single.header") == "the server's header"
        assert host.cli("parts.area", "2") == "(integer) 1256"
        assert host.cli("parts.label") == "in two parts"
        assert host.cli("made.text") == "told by make"
        assert host.cli("treelike.ping") == "treelike"
        assert host.cli("ownheader.header") == "my own"
        assert host.texts("handed.args") == ["by", "path"]
        assert host.sha256(f"{FOLDER}/handed.so") == built["handed"].sha256
        assert host.sha256(f"{FOLDER}/fetched.so") == fetched.sha256
        lines = host.sh("grep ^loadmodule /etc/redis/redis.conf").splitlines()
        assert [line.split()[1] for line in lines] == [f"{FOLDER}/{entry['name']}.so" for entry in modules]
    after = [host.snapshot() for host in hosts]
    lab.ansible(hosts, modules).unchanged()
    assert [host.snapshot() for host in hosts] == after


def test_sources_are_found_beside_the_inventory(lab: Lab, r12: Host) -> None:
    """A relative src, as a user writes it."""
    shutil.copytree(MODULES / "probe", lab.ansible.folder / "beside")
    lab.ansible([r12], [{"name": "probe", "src": "beside"}]).good()
    assert r12.modules() == {"probe": 1}
