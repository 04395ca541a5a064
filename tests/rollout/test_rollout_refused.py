# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input: a message that names what is wrong and the mend, and nothing touched.

All cases go to the hosts in one run of ansible-playbook, each under an inventory name of its own, on a host that
runs a good module; and what the host is like is compared before and after.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Built
from rollout_kit import MODULES, Done, Entry, Host, Lab, artifact, probe, variant

GOOD = "handed"
"""The module that runs on the hosts before."""


@dataclass(frozen=True)
class Ground:
    """What a case is made from."""

    folder: Path
    good: Built
    other: Built

    def spoiled(self, name: str, spoil: Callable[[bytes], bytes]) -> Entry:
        """Return an entry for the good file, spoiled, with its right digest."""
        path = self.folder / f"{name}.so"
        path.write_bytes(spoil(self.other.path.read_bytes()))
        return Built(name, path).entry()

    def source(self, name: str, **files: str) -> str:
        """Return a source folder with these files; a dot in a name is written as two underscores."""
        folder = self.folder / f"src-{name}"
        folder.mkdir()
        for file, text in files.items():
            (folder / file.replace("__", ".")).write_text(text, encoding="utf-8")
        return str(folder)


@dataclass(frozen=True)
class Case:
    """One kind of bad input: the entries beside the good one, and what the message must say."""

    modules: Callable[[Ground], list[Entry]] = lambda ground: []
    says: tuple[str, ...] = ()
    host: str = "r12"
    with_good: bool = True
    variables: dict[str, Any] = field(default_factory=dict)


def for_aarch64(content: bytes) -> bytes:
    """Return an ELF file with another e_machine."""
    return content[:18] + struct.pack("<H", 183) + content[20:]


UNDECLARED_CALL = """
#include "redismodule.h"
int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_NotInThisHeader(ctx);
    return RedisModule_Init(ctx, "newapi", 1, REDISMODULE_APIVER_1);
}
"""

CASES: dict[str, Case] = {
    # ------------------------------------------------ what is declared
    "not_a_list": Case(with_good=False, variables={"redis_modules": {"probe": {}}}, says=("must be a list",)),
    "duplicate": Case(lambda g: [g.good.entry()], says=(f"module name {GOOD}", "declared 2 times", "one entry")),
    "same_path": Case(lambda g: [g.other.entry(path=f"{GOOD}.so")], says=(f"path .*{GOOD}.so", "declared 2 times")),
    "typo": Case(
        lambda g: [probe("typo", argz=["x"])], says=("module typo", "unknown key 'argz'", "the keys are .*args")
    ),
    "no_origin": Case(lambda g: [{"name": "nowhere"}], says=("module nowhere", "exactly one of src .* or artifact")),
    "two_origins": Case(lambda g: [{**g.other.entry(), "src": "x"}], says=("module fetched", "exactly one of src")),
    "outside": Case(
        lambda g: [g.other.entry(path="/opt/fetched.so")], says=("module fetched", "outside the module folder")
    ),
    "climbing": Case(
        lambda g: [g.other.entry(path="../fetched.so")], says=("module fetched", "outside the module folder")
    ),
    "bad_name": Case(lambda g: [probe("a b")], says=("name 'a b'", "as MODULE LIST reports it")),
    "no_sha256": Case(
        lambda g: [{"name": "fetched", "artifact": str(g.other.path)}],
        says=("module fetched", "needs its sha256", "sha256sum"),
    ),
    "args_as_text": Case(lambda g: [probe("astext", args="a b")], says=("module astext", "args must be a list")),
    "sources_outside": Case(
        lambda g: [probe("below", sources=["../x.c"])], says=("module below", "must lie below src")
    ),
    "loadmodule": Case(
        variables={"redis_server_extra_directives": {"loadmodule": "/tmp/x.so"}},
        says=("loadmodule", "declare the module in redis_modules"),
    ),
    "include": Case(
        variables={"redis_server_extra_directives": {"include": "/etc/redis/more.conf"}},
        says=("include", "give its directives here"),
    ),
    "own_variable": Case(
        variables={"redis_server_extra_directives": {"maxmemory": "1gb"}}, says=("maxmemory", "redis_server_maxmemory")
    ),
    "io_threads": Case(
        variables={"redis_server_io_threads": "many"}, says=("redis_server_io_threads", "auto or a number")
    ),
    # ------------------------------------------------ what is on the controller
    "missing_src": Case(
        lambda g: [probe("nosrc", src="/no/such/folder")], says=("module nosrc", "no /no/such/folder on the controller")
    ),
    "no_sources": Case(
        lambda g: [{"name": "empty", "src": g.source("empty", README__md="nothing")}],
        says=("module empty", "no C sources in", "name them in sources"),
    ),
    "missing_source": Case(
        lambda g: [probe("lacks", sources=["other.c"])], says=("module lacks", "source other.c is not in")
    ),
    "no_makefile": Case(
        lambda g: [{"name": "nomake", "src": str(MODULES / "probe"), "make_target": "all", "make_output": "x.so"}],
        says=("module nomake", "needs a Makefile in"),
    ),
    "wrong_sha256": Case(
        lambda g: [artifact("fetched", g.other.path, "0" * 64)],
        says=("module fetched", "has the digest", "correct the one that is wrong"),
    ),
    "missing_artifact": Case(
        lambda g: [artifact("fetched", "/no/such/file.so", "0" * 64)],
        says=("module fetched", "no /no/such/file.so on the controller"),
    ),
    # ------------------------------------------------ what does not build
    "does_not_compile": Case(
        lambda g: [{"name": "broken", "src": str(MODULES / "broken")}],
        says=("module broken", r"broken\.c:6:\d+: error: .this_is_not_declared_anywhere. undeclared"),
    ),
    "unknown_api": Case(
        lambda g: [{"name": "newapi", "src": g.source("newapi", newapi__c=UNDECLARED_CALL)}],
        says=("module newapi", "implicit declaration of function .RedisModule_NotInThisHeader"),
    ),
    "does_not_link": Case(
        lambda g: [probe("nolink", libraries=["nosuchlib"])], says=("module nolink", "cannot find -lnosuchlib")
    ),
    "make_fails": Case(
        lambda g: [
            {
                "name": "makefails",
                "src": g.source("makefails", Makefile="all:\n\t@echo it can not be >&2; exit 3\n"),
                "make_target": "all",
                "make_output": "x.so",
            }
        ],
        says=("module makefails", "it can not be"),
    ),
    "make_leaves_nothing": Case(
        lambda g: [
            {
                "name": "leaves",
                "src": g.source("leaves", Makefile="all:\n\ttrue\n"),
                "make_target": "all",
                "make_output": "x.so",
            }
        ],
        says=("module leaves", "left no x.so", "correct make_output"),
    ),
    # ------------------------------------------------ what can not be loaded, by its file
    "other_architecture": Case(
        lambda g: [g.spoiled("arm", for_aarch64)],
        says=("module arm", "built for aarch64, this host is x86_64"),
        host="r13",
    ),
    "truncated": Case(
        lambda g: [g.spoiled("short", lambda c: c[: len(c) // 2])], says=("module short", "cut off"), host="r11"
    ),
    "empty": Case(lambda g: [g.spoiled("void", lambda c: b"")], says=("module void", "empty"), host="r13"),
    "text": Case(
        lambda g: [g.spoiled("prose", lambda c: b"just text\n")], says=("module prose", "no shared object"), host="r11"
    ),
    "bad_url": Case(
        lambda g: [artifact("gone", "file:///no/such/file.so", "0" * 64)], says=("module gone", "file.so"), host="r13"
    ),
    "url_sha256": Case(
        lambda g: [artifact("passwd", "file:///etc/passwd", "0" * 64)],
        says=("module passwd", "has the digest"),
        host="r11",
    ),
    "no_onload": Case(
        lambda g: [{"name": "idle", "src": g.source("idle", idle__c="int nothing = 1;\n")}],
        says=("module idle", "does not export RedisModule_OnLoad"),
    ),
    # ------------------------------------------------ what a throwaway server refuses
    "other_name": Case(
        lambda g: [{**variant("misnamed"), "defines": ["PROBE_NAME=realname"]}],
        says=("module misnamed", "MODULE LIST does not report", "realname"),
        host="r13",
    ),
    "other_name_60": Case(
        lambda g: [{**variant("misnamed"), "defines": ["PROBE_NAME=realname"]}],
        says=("module misnamed", "MODULE LIST does not report", "realname"),
        host="r11",
    ),
    "other_version": Case(
        lambda g: [probe("versioned", version=9)],
        says=("module versioned", "reports version 1, declared is 9"),
        host="r11",
    ),
    "onload_error": Case(
        lambda g: [variant("unwilling", "PROBE_ERROR")],
        says=("module unwilling", "probe is built to refuse"),
        host="r13",
    ),
    "onload_crash": Case(
        lambda g: [variant("crasher", "PROBE_CRASH")], says=("module crasher", "signal 11"), host="r11"
    ),
    "onload_crash_80": Case(
        lambda g: [variant("crasher", "PROBE_CRASH")], says=("module crasher", "signal 11"), host="r13"
    ),
    "wrong_argument": Case(
        lambda g: [probe("picky", args=["fine", "refuse"])],
        says=("module picky", "probe refuses its argument number 2"),
        host="r11",
    ),
    "undeclared": Case(
        lambda g: [g.other.entry()],
        with_good=False,
        says=(GOOD, "redis_modules does not name", "state present or absent"),
        host="r13",
    ),
    "config_on_60": Case(
        lambda g: [g.other.entry(config={"x": "1"})],
        says=("module fetched", "config needs Redis 7.0", "args instead"),
        host="r11",
    ),
    "unknown_config": Case(lambda g: [g.other.entry(config={"x": "1"})], says=("fetched.x",), host="r13"),
    "bad_directive": Case(
        lambda g: [g.other.entry()],
        variables={"redis_server_extra_directives": {"no-such-directive": 1}},
        says=("no-such-directive",),
    ),
    "bad_value": Case(
        lambda g: [g.other.entry()],
        variables={"redis_server_extra_directives": {"maxmemory-samples": "some"}},
        says=("maxmemory-samples",),
        host="r11",
    ),
    "bad_dropin": Case(
        lambda g: [g.other.entry()],
        variables={"redis_server_dropin_lines": ["MemoryMax=lots"]},
        says=("drop-in", "lots", "redis_server_dropin_lines"),
    ),
    "old_redis": Case(
        lambda g: [g.other.entry()],
        variables={"redis_server_binary": "/usr/local/bin/redis-server-3.2"},
        says=("Redis 3.2.12", "4.0 or later", "upgrade Redis"),
    ),
}


@dataclass(frozen=True)
class Outcome:
    """What the one run over all cases left."""

    done: Done
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def outcome(lab: Lab, built: dict[str, Built], tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """Bring the hosts to a good state, look, try all that is bad, look again."""
    hosts = lab.reset()
    ground = Ground(tmp_path_factory.mktemp("refused"), built[GOOD], built["fetched"])
    good = [ground.good.entry()]
    # The header comes with the first module that is built here, and is no part of what is refused.
    lab.ansible(hosts, [*good, probe("warm")]).good()
    lab.ansible(hosts, [*good, {"name": "warm", "state": "absent"}]).good()
    lab.hosts["r12"].put(
        "/usr/local/bin/redis-server-3.2",
        '#!/bin/sh\necho "Redis server v=3.2.12 sha=0:0 malloc=jemalloc bits=64"\n',
        mode="0755",
    )
    before = {host.name: host.snapshot() for host in hosts}
    variables = {
        name: {
            "redis_modules": [*(good if case.with_good else []), *case.modules(ground)],
            # As if each were a machine of its own: several servers of one machine may not have the same files.
            "ansible_ssh_extra_args": f"-o SendEnv=CASE_{name}",
            **case.variables,
        }
        for name, case in CASES.items()
    }
    aliases: dict[str, Host] = {name: lab.hosts[case.host] for name, case in CASES.items()}
    # Each goes as far as it can.
    done = lab.ansible(aliases, host_variables=variables, redis_rollout_allow_lost=True)
    return Outcome(done, before, {host.name: host.snapshot() for host in hosts})


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_refused(outcome: Outcome, name: str) -> None:
    """The run fails for this host, with a message that says what is wrong and what to do."""
    message = outcome.done.failure(name)
    assert message, f"it was accepted:\n{outcome.done.recap(name)}"
    for word in CASES[name].says:
        assert re.search(word, message), f"{word!r} is not in:\n{message}"
    assert outcome.done.recap(name)["failed"] == 1, outcome.done.output
    for leak in ("Traceback", "AnsibleUndefined", "object has no attribute"):
        assert leak not in message


@pytest.mark.parametrize("host", ["r11", "r12", "r13"])
def test_nothing_was_touched(outcome: Outcome, host: str) -> None:
    """Process, units, redis.conf, modules and settings of the host are as before all that bad input."""
    assert outcome.after[host] == outcome.before[host]


def test_what_was_good_before_still_is(lab: Lab, outcome: Outcome, built: dict[str, Built]) -> None:
    """The next good run has nothing to do."""
    assert outcome.done.code != 0
    hosts = list(lab.hosts.values())
    lab.ansible(hosts, [built[GOOD].entry(), {"name": "warm", "state": "absent"}]).unchanged()
