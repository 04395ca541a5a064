# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds for whom, what is built at all, and what hosts are told where it can't be."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _builders, _declaration, _workshop
from ansible_collections.edgeops.redis_modules.plugins.module_utils._builders import CONTROLLER, Wishes

OLD, NEW = "glibc 2.31", "glibc 2.36"
GCC = "gcc 12"


def want(name: str = "m", source: str = "s", **entry: Any) -> dict[str, Any]:
    """Return a module that is built, as a look tells it."""
    options = _build.options_of(_declaration.completed({"name": name, "src": name, **entry}, "/"))
    return {
        "name": name,
        "src": f"/src/{name}",
        "entry": options,
        "artifact": "",
        "local": "",
        "source_digest": source,
        "inputs": "",
        "own_header": False,
    }


def given(name: str = "g") -> dict[str, Any]:
    """Return a module that was built elsewhere."""
    return {**want(name, "d"), "artifact": "g.so", "inputs": "given"}


class Machine:
    """What is seen of a machine, and what it would make of a module."""

    def __init__(
        self, libc: str = NEW, redis: str = "7.0.15", gcc: str = GCC, header: str = "h", architecture: str = "x86_64"
    ) -> None:
        self.platform = {"architecture": architecture, "libc": libc}
        self.redis, self.gcc, self.header = redis, gcc, header

    def side(self, *has: tuple[dict[str, Any], str], versions: tuple[str, ...] = ("7.0.15",)) -> dict[str, Any]:
        """Return what is seen of it as a builder, with these artifacts: modules and their inputs."""
        headers = {name: {"name": name, "sha256": self.header, "path": ""} for name in versions}
        return {**self.look(), "headers": headers, "artifacts": self.held(*has)}

    def look(self, *wanted: dict[str, Any], has: Any = (), held: Any = (), **more: Any) -> dict[str, Any]:
        """Return what is seen of it as a host."""
        server = {"name": self.redis, "sha256": self.header, "path": ""}
        return {
            "platform": self.platform,
            "redis": self.redis,
            "compiler": self.gcc,
            "headers": {_workshop.SERVER: server},
            "header": _workshop.SERVER,
            "wanted": list(wanted),
            "artifacts": self.held(*has),
            "held": self.held(*held),
            **more,
        }

    def held(self, *has: tuple[dict[str, Any], str]) -> dict[str, Any]:
        """Return artifacts as a cache tells them, by their names."""
        return {
            module["name"]: [
                {
                    "inputs": inputs,
                    "request": self.request(module),
                    "sha256": "x",
                    "path": f"/{inputs}",
                    **self.platform,
                }
            ]
            for module, inputs in has
        }

    def request(self, module: dict[str, Any]) -> str:
        return _build.request_of(module["entry"], module["source_digest"], self.redis)

    def makes(self, module: dict[str, Any]) -> str:
        """Return the inputs of what it makes."""
        return _build.inputs_digest(
            _build.inputs_of(module["entry"], module["source_digest"], self.header, self.gcc, self.platform)
        )


M = want()
HOST, BARE = Machine(), Machine(gcc="", header="")
MADE = HOST.makes(M)


def leaders(plan: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return who leads which jobs."""
    return {host: [job["name"] for job in share["jobs"]] for host, share in plan.items() if share["jobs"]}


class TestTarget:
    """Hosts of the play build, one of each platform."""

    def test_one_of_each_platform_builds_for_all_of_it(self) -> None:
        looks = {
            "a1": Machine(OLD, "6.0.16").look(M),
            "b1": HOST.look(M),
            "a2": Machine(OLD, "6.0.16").look(M),
            "b2": HOST.look(M),
            "c1": Machine(NEW, "8.0.2").look(M),
            "d1": Machine(NEW, architecture="aarch64").look(M),
        }
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {host: ["m"] for host in ("a1", "b1", "c1", "d1")}
        assert {host: share["leader"] for host, share in plan.items()} == {
            "a1": "a1",
            "a2": "a1",
            "b1": "b1",
            "b2": "b1",
            "c1": "c1",
            "d1": "d1",
        }
        assert plan["b2"]["lacks"] == {"m": MADE}
        assert plan["a1"]["platform"] == "x86_64, glibc 2.31, Redis 6.0.16"

    def test_the_first_that_has_a_compiler_goes_before_the_first(self) -> None:
        looks = {"a": BARE.look(M), "b": HOST.look(M), "c": HOST.look(M)}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {"b": ["m"]}
        assert not plan["b"]["fetches_header"]
        assert leaders(_builders.plan({"a": BARE.look(M), "c": BARE.look(M)}, Wishes())) == {"a": ["m"]}

    def test_nothing_is_done_where_all_have_it(self) -> None:
        looks = {host: HOST.look(M, has=[(M, MADE)]) for host in "ab"}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {}
        assert plan["b"]["lacks"] == {}
        assert plan["b"]["artifacts"] == {"m": {"path": f"/{MADE}", "sha256": "x"}}

    def test_what_the_controller_has_is_not_built_again(self) -> None:
        looks = {"a": HOST.look(M, held=[(M, MADE)]), "b": HOST.look(M, has=[(M, MADE)], held=[(M, MADE)])}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {}
        assert plan["a"]["lacks"] == {"m": MADE}
        assert _builders.settled("a", plan["a"], looks["a"], {}) == ({"m": MADE}, [])

    def test_a_builder_that_has_it_hands_it_out_and_compiles_nothing(self) -> None:
        looks = {"a": HOST.look(M, has=[(M, MADE)]), "b": HOST.look(M)}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {"a": ["m"]}
        assert plan["a"]["lacks"] == {}
        assert plan["a"]["jobs"][0]["inputs"] == MADE
        assert not plan["a"]["compiles"]

    @pytest.mark.parametrize("other", [want(source="t"), want(cflags=["-O0"])])
    def test_other_sources_or_options_are_another_job(self, other: dict[str, Any]) -> None:
        plan = _builders.plan({"a": HOST.look(M), "b": HOST.look(other)}, Wishes())
        assert leaders(plan) == {"a": ["m", "m"]}
        assert plan["a"]["compiles"]

    def test_another_compiler_or_header_builds_anew(self) -> None:
        for changed in (Machine(gcc="gcc 14"), Machine(header="i")):
            plan = _builders.plan({"a": changed.look(M, has=[(M, MADE)])}, Wishes())
            assert leaders(plan) == {"a": ["m"]}

    def test_no_compiler_is_installed_only_to_learn_that_there_is_nothing_to_do(self) -> None:
        """A run with -l on hosts that never built."""
        looks = {"b": BARE.look(M, has=[(M, MADE)]), "c": BARE.look(M, held=[(M, MADE)])}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {}
        assert plan["b"]["artifacts"] == {"m": {"path": f"/{MADE}", "sha256": "x"}}
        assert plan["c"]["lacks"] == {"m": MADE}
        # Of another C library, it is none of theirs.
        newer = Machine("glibc 2.41")
        plan = _builders.plan({"c": {**BARE.look(M), "held": newer.held((M, MADE))}}, Wishes())
        assert leaders(plan) == {"c": ["m"]}

    def test_once_a_compiler_comes_all_is_built_with_it(self) -> None:
        """Else the next run would judge by that compiler what this one took as it was, and build it then."""
        other = want("o")
        looks = {"a": BARE.look(M, other, has=[(M, MADE)]), "b": BARE.look(M, has=[(M, MADE)])}
        plan = _builders.plan(looks, Wishes())
        assert leaders(plan) == {"a": ["m", "o"]}
        assert plan["b"]["lacks"] == {"m": ""}
        assert (plan["a"]["compiles"], plan["a"]["fetches_header"]) == (True, True)

    def test_modules_that_were_built_elsewhere_need_nobody(self) -> None:
        plan = _builders.plan({"a": BARE.look(given(), header="")}, Wishes())
        assert leaders(plan) == {}
        assert plan["a"]["lacks"] == {"g": "given"}

    def test_a_host_without_redis_yet_is_a_forecast(self) -> None:
        look = Machine(redis="", header="").look(M)
        plan = _builders.plan({"a": look}, Wishes())
        assert plan["a"]["lacks"] == {"m": ""}
        assert plan["a"]["fetches_header"]
        assert _builders.settled("a", plan["a"], look, {}, forecast=True) == ({}, [])

    def test_others_take_over_from_one_that_was_lost(self) -> None:
        looks = {**{host: HOST.look(M) for host in "abc"}, "x": Machine(OLD).look(M)}
        before = _builders.plan(looks, Wishes())
        del looks["a"]
        plan = _builders.anew(before, looks, Wishes())
        assert leaders(plan) == {"b": ["m"]}
        assert {host: (share["leader"], share["again"]) for host, share in plan.items()} == {
            "b": ("b", True),
            "c": ("b", True),
            "x": ("x", False),
        }


class TestBuilder:
    """Others build."""

    def test_the_nearest_platform_builds(self) -> None:
        sides = {
            "older": Machine("glibc 2.28").side(),
            "same": HOST.side(),
            "newer": Machine("glibc 2.41").side(),
            "arm": Machine(OLD, architecture="aarch64").side(),
        }
        looks = {
            "a": HOST.look(M),
            "b": Machine(OLD).look(M),
            "c": Machine("glibc 2.27").look(M),
            "d": Machine(architecture="aarch64").look(M),
            "e": Machine(architecture="riscv64").look(M),
        }
        wishes = Wishes("builders", sides)
        assert _builders.builders(looks, wishes) == {"a": "same", "b": "older", "c": "", "d": "arm", "e": ""}
        plan = _builders.plan(looks, wishes)
        assert leaders(plan) == {"a": ["m"], "b": ["m"], "d": ["m"]}
        _nothing, (fault,) = _builders.settled("c", plan["c"], looks["c"], {})
        assert fault.startswith(
            "module m: no builder of redis_build_on is of this platform (x86_64, glibc 2.27 or older): older is x86_64"
        )

    def test_each_version_of_redis_has_a_leader_of_its_own_at_one_builder(self) -> None:
        wishes = Wishes("one", {"one": Machine(OLD, redis="").side()})
        looks = {"a": HOST.look(M), "b": Machine(redis="8.0.2").look(M), "c": HOST.look(M)}
        plan = _builders.plan(looks, wishes)
        assert leaders(plan) == {"a": ["m"], "b": ["m"]}
        assert plan["c"]["leader"] == "a"
        # The builder has the header of the one, and not of the other.
        assert [plan[host]["fetches_header"] for host in "ab"] == [False, True]

    def test_one_that_can_not_be_reached_is_told(self) -> None:
        plan = _builders.plan({"a": HOST.look(M)}, Wishes("far", {}, {"far": "no route"}))
        _nothing, (fault,) = _builders.settled("a", plan["a"], HOST.look(M), {})
        assert "far can't be reached: no route" in fault

    def test_none_is_needed_where_hosts_have_it(self) -> None:
        looks = {"a": HOST.look(M, has=[(M, MADE)]), "b": HOST.look(M, held=[(M, MADE)])}
        plan = _builders.plan(looks, Wishes("far", {}, {"far": "no route"}))
        assert leaders(plan) == {}
        assert [plan[host]["fault"] for host in "ab"] == ["", ""]

    def test_its_name(self) -> None:
        groups = {"all": ["a", "b"], "builders": ["b"], "none": []}
        assert _builders.named("target", groups) == _builders.named("controller", groups) == []
        assert _builders.named("a", groups) == ["a"]
        assert _builders.named("builders", groups) == ["b"]
        assert _builders.named("none", groups) == _builders.named("typo", groups) == []
        plan = _builders.plan({"a": HOST.look(M)}, Wishes("typo"))
        _nothing, (fault,) = _builders.settled("a", plan["a"], HOST.look(M), {})
        assert fault.startswith("module m: redis_build_on 'typo' must be target, controller, or a host or a group")


class TestController:
    """The machine that runs Ansible builds."""

    def test_it_builds_for_its_architecture(self) -> None:
        here = Machine("glibc 2.41").side()
        looks = {
            "a": HOST.look(M, controller=here),
            "b": Machine(architecture="aarch64").look(M, controller=here),
        }
        plan = _builders.plan(looks, Wishes(CONTROLLER))
        assert leaders(plan) == {"a": ["m"]}
        assert plan["a"]["builder"] == CONTROLLER
        _nothing, (fault,) = _builders.settled("b", plan["b"], looks["b"], {})
        assert fault.startswith("module m: the controller is x86_64 and can't build for aarch64; set redis_build_on to")


class TestSettled:
    """What a host hears of what its builder did."""

    def settle(self, host: str, made: dict[str, Any]) -> tuple[dict[str, str], list[str]]:
        looks = {name: HOST.look(M) for name in "ab"}
        return _builders.settled(host, _builders.plan(looks, Wishes())[host], looks[host], made)

    def test_it_was_made(self) -> None:
        item = {"name": "m", "request": HOST.request(M), "inputs": "made", "fault": ""}
        assert self.settle("b", {"made": [item]}) == ({"m": "made"}, [])

    def test_it_could_not_be_made(self) -> None:
        item = {"name": "m", "request": HOST.request(M), "inputs": "", "fault": "it does not build: words"}
        assert self.settle("a", {"made": [item]}) == ({}, ["module m: it does not build: words"])
        told = "module m: a builds it for all hosts of x86_64, glibc 2.36, Redis 7.0.15, and could not: "
        assert self.settle("b", {"made": [item]}) == ({}, [told + item["fault"]])

    def test_nothing_could_be_made(self) -> None:
        assert self.settle("a", {"msg": "apt failed"}) == ({}, ["module m: apt failed"])

    def test_the_builder_was_lost(self) -> None:
        told = "module m: a was to build it for x86_64, glibc 2.36, Redis 7.0.15, and was lost on the way; run again"
        assert self.settle("b", {}) == ({}, [told])


def test_who_may_build_as_far_as_facts_tell() -> None:
    debian = {"distribution": "Debian", "distribution_version": "12.9"}
    facts = {"a": debian, "b": dict(debian), "c": {**debian, "distribution_version": "13.1"}, "d": {}, "e": {}}
    assert _builders.likely(facts) == ["a", "c", "d", "e"]
