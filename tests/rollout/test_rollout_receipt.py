# SPDX-License-Identifier: GPL-3.0-or-later
"""A pass that finds nothing to do is one round trip, and sees every kind of drift that somebody makes by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import Built
from rollout_kit import CACHE, CONF, DROPIN, FOLDER, MODULES, SNAPSHOT, UNIT, Done, Entry, Host, Lab, probe, until

RECEIPT = "/var/lib/edgeops-redis-modules/receipt.json"
LOCK = "/var/lib/edgeops-redis-modules/rollout.lock"
LOOK = str(Path(__file__).with_name("look.yml"))
PASSWORD = "of-the-receipt-test"
LOGIN = ("--user", "admin", "--pass", PASSWORD)
MODULE: Entry = probe(args=["one"])
VARIABLES: dict[str, Any] = {
    "redis_server_acl_users": [
        {"name": "admin", "passwords": [PASSWORD], "rules": ["~*", "+@all"]},
        {"name": "reader", "passwords": ["of-reader"], "rules": ["~*", "+@read"]},
    ],
    "redis_modules_login": {"login_user": "admin", "login_password": PASSWORD},
    "redis_server_extra_directives": {"enable-module-command": "local"},
    "redis_firewall_allowed_cidrs": ["192.0.2.0/24"],
}


def cli(words: str) -> str:
    """Return a shell command that says this to the server."""
    return f"redis-cli --no-auth-warning --user admin --pass {PASSWORD} {words}"


SO = f"{FOLDER}/probe.so"
BUILT = f"{CACHE}/artifacts/probe"
DPKG = "/var/lib/dpkg/status"
# What redis-server is a link to.
BINARY = "/usr/bin/redis-check-rdb"
RULES = "/etc/edgeops/redis-firewall.nft"

# What somebody does by hand, what takes it back, and what the operator reads.
DRIFTS: dict[str, tuple[str, str, str]] = {
    "a package is gone": (
        f"cp -a {DPKG} /root/dpkg && sed -i '/^Package: python3-jmespath$/,/^$/s/ok installed/ok config-files/' {DPKG}",
        f"mv /root/dpkg {DPKG}",
        "package python3-jmespath is not there any more",
    ),
    "a package is another version": (
        f"cp -a {DPKG} /root/dpkg && sed -i '/^Package: build-essential$/,/^$/s/^Version: .*/Version: 99/' {DPKG}",
        f"mv /root/dpkg {DPKG}",
        "package build-essential is 99, was ",
    ),
    "the program is another": (
        f"cd /usr/bin && cp -p {BINARY} /root/binary && cp -p {BINARY} new && echo >> new && mv new {BINARY}",
        # The process runs a file that is no more, until it is started again.
        f"mv /root/binary {BINARY} && systemctl restart {UNIT}",
        "/usr/bin/redis-server is another",
    ),
    "the header is another": (
        f"cd {CACHE}/headers/7.0.15 && cp -a redismodule.h /root/header && echo >> redismodule.h",
        f"mv /root/header {CACHE}/headers/7.0.15/redismodule.h",
        f"{CACHE}/headers/7.0.15/redismodule.h is another",
    ),
    "the artifact is another": (
        f"cp -a {BUILT} /root/built && for file in {BUILT}/*/probe.so; do echo >> $file; done",
        f"rm -r {BUILT} && mv /root/built {BUILT}",
        "/probe.so is another",
    ),
    "the file is gone": (f"mv {SO} /root/so", f"mv /root/so {SO}", f"no file at {SO}"),
    "the owner": (f"chown root {SO}", f"chown redis {SO}", "owner is root, wanted redis"),
    "the group": (f"chgrp root {SO}", f"chgrp redis {SO}", "group is root, wanted redis"),
    "the mode": (f"chmod 0755 {SO}", f"chmod 0555 {SO}", "mode is 0755, wanted 0555"),
    "the folder's owner": (f"chown redis {FOLDER}", f"chown root {FOLDER}", FOLDER),
    "the folder's mode": (f"chmod 0775 {FOLDER}", f"chmod 0755 {FOLDER}", FOLDER),
    "another file than the live image": (
        f"ln {SO} /root/so && cp -p {SO} {SO}.new && echo >> {SO}.new && mv {SO}.new {SO}",
        f"mv /root/so {SO}",
        "the running server still has an older file mapped",
    ),
    "redis.conf": (f"cp -p {CONF} /root/conf && echo '# x' >> {CONF}", f"mv /root/conf {CONF}", f"{CONF} is another"),
    "the mode of redis.conf": (f"chmod 0644 {CONF}", f"chmod 0640 {CONF}", f"{CONF} is redis:redis 0644, was "),
    "the drop-in": (
        f"cp -p {DROPIN} /root/dropin && echo '# x' >> {DROPIN} && systemctl daemon-reload",
        f"mv /root/dropin {DROPIN} && systemctl daemon-reload",
        f"{DROPIN} is another",
    ),
    "a drop-in that systemd has not read": (
        f"cp -p {DROPIN} /root/dropin && sleep 1.1 && touch {DROPIN}",
        f"mv /root/dropin {DROPIN} && systemctl daemon-reload",
        f"unit {UNIT} is loaded active enabled stale",
    ),
    "somebody else's drop-in": (
        f"printf '[Service]\\nNice=5\\n' > {DROPIN}.x.conf && systemctl daemon-reload",
        f"rm {DROPIN}.x.conf && systemctl daemon-reload",
        f"{DROPIN}.x.conf was not there",
    ),
    "the unit is disabled": (
        f"systemctl disable {UNIT}",
        f"systemctl enable {UNIT}",
        f"unit {UNIT} is loaded active disabled",
    ),
    "the server is stopped": (f"systemctl stop {UNIT}", f"systemctl start {UNIT}", "Connection refused"),
    "what it was started with": (
        f"cp -P /run/{UNIT}.started-with /root/started && ln -sfn x /run/{UNIT}.started-with",
        f"mv -T /root/started /run/{UNIT}.started-with",
        "last start is x, was",
    ),
    "the nftables table is open to more": (
        "nft add element inet edgeops_redis allowed4 '{ 198.51.100.0/24 }'",
        "nft delete element inet edgeops_redis allowed4 '{ 198.51.100.0/24 }'",
        "the nftables table is another",
    ),
    "the nftables table is gone": (
        "nft delete table inet edgeops_redis",
        f"nft -f {RULES}",
        "the nftables table is not there any more",
    ),
    "the rules at boot": (
        f"cp -p {RULES} /root/rules && echo >> {RULES}",
        f"mv /root/rules {RULES}",
        f"{RULES} is another",
    ),
    "the firewall's unit": (
        "systemctl disable edgeops-redis-firewall.service",
        "systemctl enable edgeops-redis-firewall.service",
        "unit edgeops-redis-firewall.service is loaded active disabled",
    ),
    "a user may do more": (
        cli("ACL SETUSER reader +@write"),
        cli("ACL SETUSER reader -@all +@read"),
        "user reader is another",
    ),
    "a user's password": (
        cli("ACL SETUSER reader '>other'"),
        cli("ACL SETUSER reader '<other'"),
        "user reader is another",
    ),
    "a user nobody declared": (
        cli("ACL SETUSER guest on nopass"),
        cli("ACL DELUSER guest"),
        "user guest was not there",
    ),
    "a user is gone": (
        cli("ACL DELUSER reader"),
        cli("ACL SETUSER reader on '>of-reader' '~*' '+@read'"),
        "user reader is not there any more",
    ),
    "a run-time setting": (
        cli("CONFIG SET maxmemory 99mb"),
        cli("CONFIG SET maxmemory 0"),
        "setting maxmemory is another",
    ),
    "the module's arguments": (
        f"{cli('MODULE UNLOAD probe')} && {cli(f'MODULE LOAD {SO} two')}",
        f"{cli('MODULE UNLOAD probe')} && {cli(f'MODULE LOAD {SO} one')}",
        "arguments are ['two'], wanted ['one']",
    ),
    "the module is unloaded": (
        cli("MODULE UNLOAD probe"),
        cli(f"MODULE LOAD {SO} one"),
        "module probe: missing: MODULE LIST does not report it",
    ),
    "a snapshot of a run that died": (f"mkdir {SNAPSHOT}", f"rmdir {SNAPSHOT}", "has left its snapshot"),
    "a rollout that is at work": (f"touch {LOCK}", f"rm {LOCK}", "a rollout holds its lock"),
    "no receipt": (f"mv {RECEIPT} /root/receipt", f"mv /root/receipt {RECEIPT}", "no rollout has left a receipt here"),
    "a receipt of somebody else's": (
        f"chown redis {RECEIPT}",
        f"chown root {RECEIPT}",
        "no rollout has left a receipt",
    ),
    "a receipt that others can read": (
        f"chmod 0644 {RECEIPT}",
        f"chmod 0600 {RECEIPT}",
        "no rollout has left a receipt",
    ),
}
"""The drift of each kind of thing that a receipt describes."""


def look(lab: Lab, host: Host, *modules: Entry, **variables: Any) -> str:
    """Return what the first look tells of a host: empty where it is as wanted."""
    done = lab.ansible([host], list(modules) or [MODULE], playbook=LOOK, **{**VARIABLES, **variables}).unchanged()
    told: list[str] = re.findall(rf'"{host.name}: (.*)"', done.output)
    if "1 of 1 hosts are as wanted" in done.output:
        assert told == []
        return ""
    assert "0 of 1 hosts are as wanted" in done.output, done.output
    assert len(told) == 1, done.output
    return str(json.loads(f'"{told[0]}"'))


@pytest.fixture(scope="module")
def left(lab: Lab) -> Iterator[Host]:
    """Return a host that a rollout with all kinds of things has left its receipt on."""
    (host,) = lab.reset("r12")
    done = lab.ansible([host], [MODULE], **VARIABLES).good()
    assert "0 of 1 hosts are as wanted" in done.output
    yield host
    unguarded(host)


def unguarded(host: Host) -> None:
    """Take the firewall away again."""
    ours = "/etc/edgeops /etc/systemd/system/edgeops-redis-firewall.service /etc/systemd/system/nftables.service.d"
    host.sh(
        "systemctl disable --now edgeops-redis-firewall.service nftables.service; nft delete table inet edgeops_redis; "
        f"rm -rf {ours}; systemctl daemon-reload",
        check=False,
    )


@pytest.mark.parametrize("kind", DRIFTS)
def test_drift_that_somebody_makes_by_hand_is_seen(lab: Lab, left: Host, kind: str) -> None:
    """And told."""
    by_hand, back, words = DRIFTS[kind]
    left.sh(by_hand)
    try:
        said = look(lab, left)
    finally:
        left.sh(back)
        until(lambda: left.cli("PING", login=LOGIN) == "PONG", "the server answers")
    assert words in said, said


def test_once_all_of_it_is_taken_back_the_host_is_as_wanted(lab: Lab, left: Host) -> None:
    """So what was seen was seen of what was done, and the looks have changed nothing."""
    assert look(lab, left) == ""


def test_what_is_declared_otherwise_is_seen(lab: Lab, left: Host, tmp_path: Path) -> None:
    """A variable of any role, an argument, where sources lie, the collection itself. Their order is no matter."""
    for variables in (
        {"redis_server_timeout": 17},
        {"redis_firewall_log": True},
        {"redis_rollout_keep_releases": 9},
        {"redis_build_cc": "cc"},
        {"redis_server_masterauth": "other"},
    ):
        assert "something else is declared since" in look(lab, left, **variables), variables
    assert "something else is declared since" in look(lab, left, probe(args=["two"]))
    assert look(lab, left, **dict(reversed(VARIABLES.items()))) == ""
    assert look(lab, left, redis_rollout_waves=["1"], redis_verify_report_dir=str(tmp_path)) == ""

    files = lab.ansible.collections / "ansible_collections" / "edgeops" / "redis_modules" / "FILES.json"
    text = files.read_text(encoding="utf-8")
    files.write_text(text + " ", encoding="utf-8")
    try:
        assert "something else is declared since" in look(lab, left)
    finally:
        files.write_text(text, encoding="utf-8")

    source = tmp_path / "probe"
    source.mkdir()
    for file in (MODULES / "probe").iterdir():
        (source / file.name).write_bytes(file.read_bytes())
    # Where the same sources lie is declared, too.
    assert "something else is declared since" in look(lab, left, {**MODULE, "src": str(source)})
    assert look(lab, left) == ""
    needs_facts = {"redis_server_maxmemory": "{{ ansible_facts['memtotal_mb'] }}mb"}
    assert "redis_server_maxmemory can't be told without more of the host" in look(lab, left, **needs_facts)


def test_a_source_that_changes_is_seen(lab: Lab, r12: Host, tmp_path: Path) -> None:
    """By its content: a new time stamp is nothing."""
    source = tmp_path / "probe"
    source.mkdir()
    (source / "probe.c").write_bytes((MODULES / "probe" / "probe.c").read_bytes())
    module = {**probe(), "src": str(source)}
    lab.ansible([r12], [module]).good()
    (source / "probe.c").touch()
    done = lab.ansible([r12], [module]).unchanged()
    assert "1 of 1 hosts are as wanted" in done.output
    with (source / "probe.c").open("a", encoding="utf-8") as stream:
        stream.write("/* more */\n")
    assert "r12: something else is declared since" in lab.ansible([r12], [module], "--check").good().output


def executions(done: Done, host: Host) -> int:
    """Return how often ansible-playbook started something on a host, as -vvvv tells."""
    return len(re.findall(rf"^<{re.escape(host.address)}> SSH: EXEC ", done.output, re.MULTILINE))


def test_a_pass_that_finds_nothing_to_do_is_one_round_trip(
    lab: Lab, fleet: list[Host], built: dict[str, Built]
) -> None:
    """One task a host, and two for all of them, which tell and show it; in check mode and with --diff as well."""
    modules = [built["handed"].entry()]
    lab.ansible(fleet, modules).good()
    before = [host.snapshot() for host in fleet]
    for options in ([], ["--check", "--diff"]):
        done = lab.ansible(fleet, modules, "-vvvv", *options).unchanged()
        assert "3 of 3 hosts are as wanted, confirmed 20" in done.output
        for host in fleet:
            assert executions(done, host) == 1
            assert re.search(rf"{host.name}  .*  handed  .* loaded", done.output)
            counts = done.recap(host)
            assert (counts["ok"], counts["skipped"]) == (3 if host is fleet[0] else 1, 0)
    assert [host.snapshot() for host in fleet] == before


def test_hosts_that_are_as_wanted_leave_and_are_reported(
    lab: Lab, fleet: list[Host], built: dict[str, Built], tmp_path: Path
) -> None:
    """The one that drifted is mended; of the others, nothing but the one look is taken. The report has all of them."""
    modules = [built["handed"].entry()]
    lab.ansible(fleet, modules).good()
    fleet[1].sh(f"chmod 0755 {FOLDER}/handed.so")
    done = lab.ansible(fleet, modules, "-vvvv", redis_verify_report_dir=str(tmp_path)).good()
    assert "2 of 3 hosts are as wanted" in done.output
    assert "r12: module handed: drifted: mode is 0755, wanted 0555" in done.output
    assert [executions(done, host) for host in (fleet[0], fleet[2])] == [1, 1]
    assert [done.recap(host)["changed"] for host in fleet] == [0, 1, 0]
    rows = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [(row["host"], row["verdict"]) for row in rows] == [("r11", "loaded"), ("r12", "loaded"), ("r13", "loaded")]

    (tmp_path / "report.json").unlink()
    done = lab.ansible(fleet, modules, redis_verify_report_dir=str(tmp_path)).unchanged()
    assert "3 of 3 hosts are as wanted" in done.output
    assert len(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))) == 3

    closely = lab.ansible(fleet[:1], modules, redis_receipt_believe=False).unchanged()
    assert "no receipt is to be believed" in closely.output
    assert "1 of 1 hosts passed all gates" in closely.output


def test_nothing_of_a_secret_is_told_by_a_receipt(lab: Lab, left: Host) -> None:
    """Neither on the host, nor in what is printed at the highest verbosity, nor the digest that it went into."""
    text = left.sh(f"cat {RECEIPT}")
    receipt = json.loads(text)
    assert PASSWORD not in text
    assert "of-reader" not in text
    done = lab.ansible([left], [MODULE], "-vvvv", playbook=LOOK, **VARIABLES).unchanged()
    assert PASSWORD not in done.output
    assert receipt["declared"] not in done.output
    assert receipt["declared"] not in left.sh("journalctl --no-pager -o cat")


def test_a_failed_rollout_leaves_no_receipt_of_what_it_did_not_reach(
    lab: Lab, r12: Host, built: dict[str, Built]
) -> None:
    """The one of before holds on, as the host was put back."""
    one, other = [built["handed"].entry()], [built["handed"].entry(), built["fetched"].entry()]
    lab.ansible([r12], one).good()
    gates = {"redis_rollout_gates": ["server.key_count > `0`"], "redis_rollout_gate_timeout": 2}
    failed = lab.ansible([r12], other, **gates)
    assert failed.code != 0
    assert "r12 is as it was before this run" in failed.failure(r12)
    assert "1 of 1 hosts are as wanted" in lab.ansible([r12], one).unchanged().output
    assert "0 of 1 hosts are as wanted" in lab.ansible([r12], other, "--check").output


@pytest.mark.parametrize("core", ["2.14"])
def test_the_oldest_core_looks_once_as_well(lab: Lab, r13: Host, built: dict[str, Built], core: str) -> None:
    """What it leaves, the newest believes; what it works out of the variables is the same."""
    modules = [built["handed"].entry(args=["a", 1])]
    variables = {"redis_server_maxmemory": "64mb", "redis_server_save": ["900 1"]}
    lab.ansible([r13], modules, core=core, **variables).good()
    for one in (core, "newest"):
        done = lab.ansible([r13], modules, core=one, **variables).unchanged()
        assert "1 of 1 hosts are as wanted" in done.output
        assert done.recap(r13)["ok"] == 3


def test_a_copy_that_is_as_wanted_counts_for_the_one_that_is_not(lab: Lab, built: dict[str, Built]) -> None:
    """It leaves the run after one look, and is a copy, and an heir, in the plan all the same."""
    primary, replica = lab.reset("r12", "r13")
    # Another test's would keep the replica out.
    unguarded(primary)
    modules = [built["handed"].entry()]
    open_: dict[str, Any] = {
        "redis_server_bind": ["0.0.0.0"],
        "redis_server_protected_mode": False,
        "host_variables": {"r13": {"redis_server_replicaof": f"{primary.address} 6379"}},
    }
    lab.ansible([primary, replica], modules, **open_).good()
    until(lambda: "master_link_status:up" in replica.cli("INFO", "replication"), "the replica follows")
    assert "2 of 2 hosts are as wanted" in lab.ansible([primary, replica], modules, **open_).unchanged().output

    replica.sh(f"chmod 0755 {FOLDER}/handed.so")
    done = lab.ansible([primary, replica], modules, "-vvvv", **open_).good()
    assert "wave 1: r13 (replication of r12)" in done.output
    assert executions(done, primary) == 1
    assert "1 of 1 hosts passed all gates" in done.output

    primary.sh(f"chmod 0755 {FOLDER}/handed.so")
    forecast = lab.ansible([primary, replica], modules, "--check", **open_).good()
    assert "wave 1: r12 (replication of r12), after it has handed over to r13 (FAILOVER)" in forecast.output
    assert "wave 2" not in forecast.output
