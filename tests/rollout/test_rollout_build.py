# SPDX-License-Identifier: GPL-3.0-or-later
"""A module is built once a platform and laid on all of its hosts, wherever it is built and whatever was lost."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from rollout_kit import CACHE, MODULES, ROOT, Done, Entry, Host, Lab, probe, run, until

LAB = os.environ.get("ROLLOUT_LAB", "rollout") + "b"
SUITES = {"b12": "bookworm", "c12": "bookworm", "b13": "trixie"}
LEFT = "/root/compiled"
THEY = "--limit=c12,b13"

BUILD = """
- hosts: "{{ build_hosts | default('all') }}"
  become: true
  gather_facts: true
  gather_subset: ["!all", "!min", distribution, pkg_mgr]
  tasks:
    - ansible.builtin.import_role:
        name: edgeops.redis_modules.redis_build
"""

# A line for each file that is compiled.
COUNTING = f"""#!/bin/sh
case " $* " in *" -c "*) echo "$*" >> {LEFT} ;; esac
exec gcc "$@"
"""

# One that cuts its host off as it begins, and ends the session that it was called by.
CUTTING = """#!/bin/sh
case " $* " in *" -c "*) ;; *) exec gcc "$@" ;; esac
systemd-run --quiet --timer-property=AccuracySec=100ms --on-active=60 nft delete table inet cut
nft 'table inet cut { chain in { type filter hook input priority -300; tcp dport 22 reject with tcp reset; }; }'
p=$$
while [ "$(cat /proc/$p/comm)" != sshd ]; do p=$(cut -d ' ' -f 4 /proc/$p/stat); done
kill -9 "$p"
"""


class Fleet:
    """Two hosts of one platform, and one of another."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.b12, self.c12, self.b13 = (lab.hosts[name] for name in SUITES)
        self.hosts = list(lab.hosts.values())
        self.playbook = lab.folder / "build.yml"
        self.playbook.write_text(BUILD, encoding="utf-8")

    def build(self, modules: list[Entry] | None, *options: str, **variables: Any) -> Done:
        """Run the role alone on all hosts, or on those of build_hosts."""
        given = {"redis_build_cc": "counting-cc", **variables}
        return self.lab.ansible(self.hosts, modules, *options, playbook=str(self.playbook), **given)

    def clear(self, headers: bool = True) -> None:
        """Take all away that was built, and what the tests did to the hosts; leave I(headers), which come from afar."""
        for host in self.hosts:
            host.sh(f"rm -rf {CACHE}" + ("/artifacts " + CACHE + "/build" if headers else ""))
            host.sh(f"rm -f {LEFT}; if [ -L /root/gcc ]; then mv /root/gcc /usr/bin/gcc; fi")
            host.put("/usr/local/bin/counting-cc", COUNTING, mode="0755")
        self.forget()

    def forget(self) -> None:
        """Wipe the controller's cache."""
        shutil.rmtree(self.kept, ignore_errors=True)

    @property
    def kept(self) -> Any:
        """The controller's cache."""
        return self.lab.folder / "home-newest" / "edgeops-redis-modules"

    def compiled(self) -> dict[str, int]:
        """Return how many files each host has compiled since this was asked last."""
        counts = {host.name: int(host.sh(f"cat {LEFT} 2>/dev/null | wc -l")) for host in self.hosts}
        for host in self.hosts:
            host.sh(f"rm -f {LEFT}")
        return {name: count for name, count in counts.items() if count}


def without_compiler(*hosts: Host) -> None:
    """Hide the compiler."""
    for host in hosts:
        host.sh("mv /usr/bin/gcc /root/gcc")


def artifacts(host: Host, name: str = "probe") -> dict[str, str]:
    """Return the digests of a module's artifacts in a host's cache, by their folders."""
    listed = host.sh(f"cd {CACHE}/artifacts/{name} && sha256sum */{name}.so", check=False)
    return {path.split("/")[0]: digest for digest, path in (line.split() for line in listed.splitlines())}


@pytest.fixture(scope="module")
def own(lab: Lab) -> Iterator[Fleet]:
    """Boot hosts of our own: those of the others are of three platforms."""
    script = ROOT / "lab" / "lab.py"
    try:
        up = run(script, "up", "--lab", LAB, "--image", "ready", *(f"{host}={suite}" for host, suite in SUITES.items()))
        assert up.returncode == 0, up.stdout + up.stderr
        inventory = ROOT / "build" / "lab" / LAB / "inventory.yml"
        folder = lab.folder / "build-lab"
        folder.mkdir()
        made = Lab.read(LAB, inventory, folder, lab.ansible.collections, SUITES)
        for host in made.hosts.values():
            host.keep_packaged_state()
        yield Fleet(made)
    finally:
        if not os.environ.get("ROLLOUT_KEEP_LAB"):
            down = run(script, "down", "--lab", LAB)
            print(down.stdout + down.stderr)


@pytest.fixture
def fleet(own: Fleet) -> Fleet:
    """Return the hosts with nothing built anywhere."""
    own.clear()
    return own


def made_by_make() -> Entry:
    """Return a module with a Makefile of its own."""
    return {"name": "made", "src": str(MODULES / "made"), "make_target": "module", "make_output": "out/made.so"}


def test_one_host_of_a_platform_builds_for_all_of_it(fleet: Fleet) -> None:
    """The other one has no compiler, and gets no header and no sources; a forecast comes first and changes nothing."""
    fleet.clear(headers=False)
    without_compiler(fleet.c12)
    modules = [probe(), made_by_make()]
    forecast = fleet.build(modules, "--check").good()
    assert forecast.recap("c12")["changed"] == 1
    assert [host.sh(f"ls {CACHE} 2>/dev/null", check=False) for host in fleet.hosts] == [""] * 3

    first = fleet.build(modules).good()
    assert fleet.compiled() == {"b12": 1, "b13": 1}
    for name in ("probe", "made"):
        assert artifacts(fleet.c12, name) == artifacts(fleet.b12, name)
        assert artifacts(fleet.c12, name) != artifacts(fleet.b13, name)
    assert "Have the header" in first.output
    assert fleet.c12.sh(f"find {CACHE} -name '*.h' -o -name '*.c'") == ""
    assert fleet.c12.sh(f"find {CACHE}/artifacts ! -user root -o ! -group root -o -perm /022") == ""

    again = fleet.build(modules).unchanged()
    assert fleet.compiled() == {}
    # Its look is all that a host is asked for.
    assert again.recap("c12")["ok"] == 3  # its arguments, the look, the paths
    fleet.build(modules, "--limit=c12").unchanged()


def test_a_cache_that_is_lost_is_filled_again_without_a_compiler(fleet: Fleet) -> None:
    """On a host, on the one that builds, on the controller, and on two of them."""
    fleet.build([probe()]).good()
    built = artifacts(fleet.b12)
    fleet.compiled()
    for lost in ((fleet.c12,), (fleet.b12,), (), (fleet.c12, None)):
        for host in lost:
            if host:
                host.sh(f"rm -r {CACHE}/artifacts")
        if not lost or None in lost:
            fleet.forget()
        done = fleet.build([probe()]).good()
        assert [artifacts(host) for host in (fleet.b12, fleet.c12)] == [built] * 2
        changed = [name for name in SUITES if done.recap(name)["changed"]]
        assert changed == [host.name for host in lost if host]
    assert fleet.compiled() == {}
    # With all of them gone, it is built again, to the same bytes.
    fleet.forget()
    for host in fleet.hosts:
        host.sh(f"rm -r {CACHE}/artifacts")
    fleet.build([probe()]).good()
    assert fleet.compiled() == {"b12": 1, "b13": 1}
    assert artifacts(fleet.c12) == built


def test_an_artifact_that_was_tampered_with_is_replaced(fleet: Fleet) -> None:
    """On any host, and in the controller's cache: there it is not laid, but had anew."""
    fleet.build([probe()]).good()
    built = artifacts(fleet.b12)
    for host in (fleet.b12, fleet.c12):
        host.sh(f"echo >> {CACHE}/artifacts/probe/*/probe.so")
        assert artifacts(host) != built
        done = fleet.build([probe()]).good()
        assert artifacts(host) == built
        assert [name for name in SUITES if done.recap(name)["changed"]] == [host.name]
    for path in fleet.kept.glob("artifacts/probe/*/probe.so"):
        path.write_bytes(b"tampered with")
    fleet.c12.sh(f"rm -r {CACHE}/artifacts")
    fleet.build([probe()]).good()
    assert artifacts(fleet.c12) == built
    assert fleet.compiled() == {"b12": 1, "b13": 1}


def test_one_that_does_not_build_fails_the_hosts_of_its_platform(fleet: Fleet) -> None:
    """In the compiler's words, with who said so; another platform, and what else was to be built, go on."""
    broken = {"name": "broken", "src": str(MODULES / "broken")}
    each: Mapping[str, Mapping[str, Any]] = {
        name: {"redis_modules": [probe(), *([broken] if name != "b13" else [])]} for name in SUITES
    }
    done = fleet.build(None, host_variables=each)
    assert done.code != 0
    for name in ("b12", "c12"):
        said = done.failure(name)
        assert "module broken: " in said
        assert "error: 'this_is_not_declared_anywhere' undeclared" in said
    assert "b12 builds it for all hosts of x86_64, glibc 2.36, Redis 7.0.15, and could not:" in done.failure("c12")
    assert done.failure("b13") == ""
    assert artifacts(fleet.b13)


def test_the_next_one_builds_where_the_first_is_lost(fleet: Fleet) -> None:
    """Before anything was asked of it, and while it compiles."""
    fleet.b12.cut_off(60)
    done = fleet.build([probe()])
    assert (done.recap("b12")["unreachable"], done.recap("c12")["failed"]) == (1, 0)
    until(lambda: not fleet.b12.is_cut_off(), "b12 is back", 120)
    assert fleet.compiled() == {"c12": 1, "b13": 1}
    assert artifacts(fleet.c12)

    fleet.clear()
    fleet.b12.put("/usr/local/bin/counting-cc", CUTTING, mode="0755")
    done = fleet.build([probe()])
    until(lambda: not fleet.b12.is_cut_off(), "b12 is back", 120)
    assert (done.recap("b12")["unreachable"], done.recap("c12")["failed"]) == (1, 0)
    assert fleet.compiled() == {"c12": 1, "b13": 1}
    assert artifacts(fleet.c12)


def test_a_builder_builds_for_hosts_without_a_compiler(fleet: Fleet) -> None:
    """Its C library is that of the one, and older than that of the other; the header is that of the hosts' Redis."""
    targets = fleet.lab.reset("c12", "b13")
    without_compiler(*targets)
    variables = {"redis_build_on": "b12", "redis_build_cc": "counting-cc"}
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, "--check", **variables).good()
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, **variables).good()
    assert [host.modules() for host in targets] == [{"probe": 1}] * 2
    # Once with each of two headers.
    assert fleet.compiled() == {"b12": 2}
    assert fleet.b12.sh(f"ls {CACHE}/headers").split() == ["7.0.15", "8.0.2"]
    assert fleet.c12.sh(f"find {CACHE} -name '*.c'") == ""
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, **variables).unchanged()

    # A platform that none of the builders has, and a builder that is away.
    fleet.forget()
    other = [probe("other")]
    done = fleet.build(other, build_hosts="c12,b13", redis_build_on="b13")
    said = done.failure("c12")
    assert "module other: no builder of redis_build_on is of this platform (x86_64, glibc 2.36 or older)" in said
    assert "b13 is x86_64, glibc 2.41" in said
    assert "redis_build_on 'typo' must be target, controller, or a host or a group" in fleet.build(
        other, build_hosts="c12", redis_build_on="typo"
    ).failure("c12")
    fleet.b12.cut_off(60)
    done = fleet.build(other, build_hosts="c12", redis_build_on="b12")
    until(lambda: not fleet.b12.is_cut_off(), "b12 is back", 120)
    assert "b12 can't be reached" in done.failure("c12")


def test_the_controller_builds_for_hosts_without_a_compiler(fleet: Fleet) -> None:
    """Its C library is not newer than theirs, so what it builds loads."""
    targets = fleet.lab.reset("c12", "b13")
    without_compiler(*targets)
    variables = {"redis_build_on": "controller"}
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, "--check", **variables).good()
    assert not fleet.kept.exists()
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, **variables).good()
    assert [host.modules() for host in targets] == [{"probe": 1}] * 2
    fleet.lab.ansible(fleet.hosts, [probe()], THEY, **variables).unchanged()


def test_two_names_of_one_machine_build_once(fleet: Fleet) -> None:
    """Instances of Redis on one host share its cache."""
    names = dict.fromkeys(("c12-a", "c12-b"), fleet.c12)
    args = {"playbook": str(fleet.playbook), "redis_build_cc": "counting-cc"}
    fleet.lab.ansible(names, [probe()], **args).good()
    assert fleet.compiled() == {"c12": 1}
    fleet.lab.ansible(names, [probe()], **args).unchanged()


def test_the_oldest_core_does_it_alike(fleet: Fleet) -> None:
    """A build for two platforms, and a pass that finds nothing to do."""
    fleet.build([probe()], core="2.14").good()
    assert fleet.compiled() == {"b12": 1, "b13": 1}
    assert artifacts(fleet.c12) == artifacts(fleet.b12)
    fleet.build([probe()], core="2.14").unchanged()
    fleet.build([probe("other")], build_hosts="c12,b13", redis_build_on="b12", core="2.14").good()
    assert fleet.compiled() == {"b12": 2}
