# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may do what on a server: as every kind of user, through a client; and CONFIG REWRITE at any time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from rollout_kit import CONF, Host, Lab, probe, until

pytestmark = pytest.mark.usefixtures("roles_alone")

RENAMES = {"CONFIG": "", "MODULE": "", "FLUSHALL": ""}
NASTY = ["with spaces", 'say "x"', "it's", "back\\slash", "#no comment", ""]


def user(name: str, password: str) -> tuple[str, ...]:
    """Return how redis-cli logs in."""
    return ("--user", name, "--pass", password)


ADMIN = user("admin", "of-admin")
LOGIN = {"login_user": "admin", "login_password": "of-admin"}
USERS: list[dict[str, Any]] = [
    {"name": "admin", "passwords": ["of-admin"], "rules": ["~*", "+@all"]},
    {"name": "reader", "passwords": ["of-reader", "older"], "rules": ["~pump:*", "+@read", "+probe.args"]},
    {"name": "broad", "passwords": ["of-broad"], "rules": ["~*", "+@all"]},
    {"name": "away", "enabled": False, "rules": ["~*", "+@all"]},
    {"name": "default", "enabled": False},
]


def test_every_kind_of_user(lab: Lab, fleet: list[Host]) -> None:
    """Declared users may do what they are given, a restricted command is for named ones, and all others stay out."""
    module = probe(restricted_commands=["probe.text"], restricted_to=["admin"])
    variables: dict[str, Any] = {
        "redis_server_acl_users": USERS,
        "redis_server_probe_password": "of-probe",
        "redis_modules_login": LOGIN,
    }
    # In check mode first, on servers that have none of it yet.
    lab.ansible(fleet, [module], "--check", **variables).good()
    for host in fleet:
        assert host.cli("PING") == "PONG"
    lab.ansible(fleet, [module], **variables).good()
    for host in fleet:
        assert "NOAUTH" in host.cli("PING")
        assert "AUTH failed" in host.sh("redis-cli --user away --pass x PING 2>&1", check=False)
        assert host.cli("probe.text", login=ADMIN) == "first"
        assert "NOPERM" in host.cli("probe.text", login=user("broad", "of-broad"))
        assert host.cli("SET", "a", "1", login=user("broad", "of-broad")) == "OK"
        reader = user("reader", "of-reader")
        assert host.cli("GET", "pump:1", login=reader) == "(nil)"
        for words in (("GET", "valve:1"), ("SET", "pump:1", "1"), ("CONFIG", "GET", "*"), ("probe.text",)):
            assert "NOPERM" in host.cli(*words, login=reader), words
        assert host.cli("GET", "pump:1", login=user("reader", "older")) == "(nil)"
        probed = user("edgeops-probe", "of-probe")
        assert "redis_version" in host.cli("INFO", "server", login=probed)
        for words in (("MODULE", "LIST"), ("CONFIG", "GET", "*"), ("PING",), ("GET", "a"), ("ACL", "LIST")):
            assert "NOPERM" in host.cli(*words, login=probed), words
        # Digests alone are kept.
        assert not host.sh(f"grep -E 'of-(admin|reader|broad|probe)' {CONF} || true")
        host.cli("ACL", "LOG", "RESET", login=ADMIN)
    pids = [host.pid for host in fleet]
    lab.ansible(fleet, [module], **variables).unchanged()

    # Verify needs the probe user alone, and no command that it may not run: the server's ACL LOG stays empty.
    alone = {key: value for key, value in variables.items() if key != "redis_modules_login"}
    lab.ansible(fleet, [module], playbook="verify", **alone).unchanged()
    for host in fleet:
        assert host.cli("ACL", "LOG", login=ADMIN) == "(empty array)"

    # A change comes without a restart; what somebody changed by hand is mended, and a new user is not deleted unasked.
    fleet[0].cli("ACL", "SETUSER", "reader", "+set", login=ADMIN)
    fleet[2].cli("ACL", "SETUSER", "guest", "on", "nopass", "+@all", "~*", login=ADMIN)
    changed = [{**item, "rules": ["~*", "+@read"]} if item["name"] == "reader" else item for item in USERS]
    refused = lab.ansible(fleet, [module], **{**variables, "redis_server_acl_users": changed})
    assert "r13: the server has the users guest" in refused.failure("r13")
    assert "NOPERM" in fleet[0].cli("SET", "pump:1", "1", login=user("reader", "of-reader"))
    assert fleet[1].cli("GET", "valve:1", login=user("reader", "of-reader")) == "(nil)"
    assert fleet[2].cli("PING", login=user("guest", "any")) == "PONG"
    changed.append({"name": "guest", "state": "absent"})
    lab.ansible(fleet, [module], **{**variables, "redis_server_acl_users": changed}).good()
    assert "WRONGPASS" in fleet[2].sh("redis-cli --user guest --pass any PING 2>&1", check=False)
    assert fleet[2].cli("GET", "valve:1", login=user("reader", "of-reader")) == "(nil)"
    assert [host.pid for host in fleet] == pids

    # Without the module, its commands are in no rule any more, or the server would not start.
    lab.ansible(
        fleet, [{"name": "probe", "state": "absent"}], **{**variables, "redis_server_acl_users": changed}
    ).good()
    for host in fleet:
        assert host.modules(login=ADMIN) == {}
        assert "probe" not in host.sh(f"grep ^user {CONF} | grep -v '^user edgeops-probe'").replace("+probe.args", "")


def test_verify_where_module_and_config_are_renamed_away(lab: Lab) -> None:
    """The probe user needs neither; the rollout goes on without CONFIG as well."""
    fleet = lab.reset("r11", "r13")
    variables: dict[str, Any] = {"redis_server_rename_commands": RENAMES, "redis_server_probe_password": "of-probe"}
    lab.ansible(fleet, [probe()], **variables).good()
    for host in fleet:
        for command in RENAMES:
            assert "unknown command" in host.cli(command, "LIST")
    lab.ansible(fleet, [probe()], playbook="verify", **variables).unchanged()
    lab.ansible(fleet, [probe()], **variables).unchanged()
    # It sees what is wrong as well.
    fleet[1].sh("chmod 0755 /var/lib/redis/modules/probe.so")
    wrong = lab.ansible(fleet, [probe()], playbook="verify", **variables)
    assert "probe differs" in wrong.failure("r13")


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"redis_server_rename_commands": {"probe.text": "x"}}, "can't be renamed"),
    ({"redis_server_acl_users": [{"name": "a", "rules": [">open-secret"]}]}, "a password rule"),
    ({"redis_server_acl_users": [{"name": "a", "paswords": ["open-secret"]}]}, "paswords"),
    (
        {"redis_server_acl_users": [{"name": "a", "nopass": True}], "redis_server_aclfile": "/etc/redis/users.acl"},
        "from one place only",
    ),
    (
        {"redis_server_acl_users": [{"name": "default", "enabled": False}]},
        "a rollout logs in as it, and it is disabled",
    ),
    (
        {
            "redis_server_tls_port": 6380,
            "redis_server_tls_cert_file": "/nowhere/server.crt",
            "redis_server_tls_key_file": "/nowhere/server.key",
            "redis_server_tls_ca_cert_file": "/nowhere/ca.crt",
        },
        "does not start (exit status 1): Failed to load certificate: /nowhere/server.crt",
    ),
]


def test_what_is_refused_before_anything_is_touched(lab: Lab, r12: Host) -> None:
    """Bad users and new names, each under an inventory name of its own."""
    before = r12.snapshot()
    cases = {
        # As if each were a machine of its own: several servers of one machine may not have the same files.
        f"case{number}": {**variables, "ansible_ssh_extra_args": f"-o SendEnv=CASE{number}"}
        for number, (variables, _words) in enumerate(REFUSED)
    }
    refused = lab.ansible(dict.fromkeys(cases, r12), [probe()], host_variables=cases)
    for case, (_variables, words) in zip(cases, REFUSED, strict=True):
        assert words in refused.failure(case), refused.output
    assert "open-secret" not in refused.output
    assert r12.snapshot() == before


def test_rules_that_the_server_does_not_take(lab: Lab, fleet: list[Host]) -> None:
    """The trial tells, and the running server keeps its users."""
    before = [host.snapshot() for host in fleet]
    users = [{"name": "a", "nopass": True, "rules": ["~*", "+nosuch.command"]}]
    refused = lab.ansible(fleet, [probe()], redis_server_acl_users=users)
    for host, state in zip(fleet, before, strict=True):
        assert "nosuch.command" in refused.failure(host) or "Unknown command" in refused.failure(host)
        assert host.snapshot() == state
    refused = lab.ansible(fleet[:1], [probe()], redis_server_rename_commands={"OTHER.CMD": "x"})
    assert "core has no such command" in refused.failure("r11")


def test_config_rewrite_is_survived(lab: Lab, fleet: list[Host]) -> None:
    """Afterwards the server starts with the same arguments in the same order, and the next run finds nothing to do."""
    modules = [probe(args=NASTY), probe("second"), probe("athird", args=["plain"])]
    variables: dict[str, Any] = {
        "redis_server_requirepass": "of-default",
        "redis_server_acl_users": [USERS[1]],
        "redis_server_rename_commands": {"FLUSHALL": "", "DEBUG": "dbg"},
        "redis_server_save": ["3600 1", "300 100"],
    }
    login = ("-a", "of-default")
    lab.ansible(fleet, modules, **variables).good()
    pids = [host.pid for host in fleet]
    for host in fleet:
        assert host.cli("CONFIG", "REWRITE", login=login) == "OK"
    lab.ansible(fleet, modules, **variables).unchanged()
    assert [host.pid for host in fleet] == pids
    for host in fleet:
        host.sh("systemctl restart redis-server")
        assert host.modules(login=login) == {"probe": 1, "second": 1, "athird": 1}
        assert host.texts("probe.args", login=login) == NASTY
        loaded = [line.split()[1] for line in host.sh(f"grep ^loadmodule {CONF}").splitlines()]
        assert [path.rsplit("/", 1)[1] for path in loaded] == ["probe.so", "second.so", "athird.so"]
        assert host.sh(f"stat -c '%U:%G %a' {CONF}").strip() == "redis:redis 640"
    lab.ansible(fleet, modules, **variables).unchanged()

    # What somebody has changed on purpose in an emergency is not undone by a start, and is by the next rollout.
    for host in fleet:
        host.sh(f"sed -i 's/^loadmodule .*second.so/#&/' {CONF} && systemctl restart redis-server")
        assert set(host.modules(login=login)) == {"probe", "athird"}
        host.cli("CONFIG", "SET", "maxmemory", "99mb", login=login)
        assert host.cli("CONFIG", "REWRITE", login=login) == "OK"
    lab.ansible(fleet, modules, **variables).good()
    for host in fleet:
        assert set(host.modules(login=login)) == {"probe", "second", "athird"}
        assert host.config("maxmemory", login=login) == "0"
        assert host.texts("probe.args", login=login) == NASTY


@contextmanager
def sentinel(host: Host, primary: Host) -> Iterator[None]:
    """Run a Sentinel on a host until the block ends; it knows the primary and its replica by then."""
    host.put(
        "/root/sentinel.conf",
        f"port 26379\nbind 127.0.0.1\nsentinel monitor site {primary.address} 6379 1\n"
        "sentinel auth-pass site of-default\nsentinel down-after-milliseconds site 60000\n",
    )
    host.sh("systemd-run --quiet --unit=test-sentinel redis-server /root/sentinel.conf --sentinel")
    try:
        until(
            lambda: host.address in host.cli("SENTINEL", "SLAVES", "site", login=("-p", "26379")),
            "Sentinel knows the replica",
        )
        yield
    finally:
        host.sh("systemctl stop test-sentinel; rm -f /root/sentinel.conf")


ALONE = """\
- hosts: all
  become: true
  tasks:
    - ansible.builtin.import_role:
        name: edgeops.redis_modules.redis_server
"""


def test_a_failover_is_not_undone(lab: Lab, fleet: list[Host]) -> None:
    """A primary is followed as declared at first; from then on, whomever Sentinel promotes stays so."""
    primary, replica, other = fleet
    common: dict[str, Any] = {"redis_server_bind": ["0.0.0.0"], "redis_server_requirepass": "of-default"}
    common["redis_server_masterauth"] = "of-default"
    # An older server follows no newer one: 6.0 is the primary, 7.0 its replica.
    following = {replica.name: {"redis_server_replicaof": f"{primary.address} 6379"}}
    login = ("-a", "of-default")
    lab.ansible([primary, replica], [probe()], host_variables=following, **common).good()

    def role(host: Host) -> str:
        return host.texts("ROLE", login=login)[0] if host.pid else ""

    until(lambda: "master_link_status:up" in replica.cli("INFO", "replication", login=login), "the replica follows")
    with sentinel(replica, primary):
        # Until it has heard from the replica, it has none to promote.
        until(lambda: replica.cli("SENTINEL", "FAILOVER", "site", login=("-p", "26379")) == "OK", "Sentinel begins")
        until(lambda: [role(primary), role(replica)] == ["slave", "master"], "the failover")
        # It has both rewrite their configuration.
        until(lambda: replica.address in primary.sh(f"grep ^replicaof {CONF} || true"), "CONFIG REWRITE")
    # A 6.0 can't take over the data of a 7.0, so the shard is not well and a rollout is refused; the role does not ask.
    refused = lab.ansible([primary, replica], [probe()], playbook="rollout", host_variables=following, **common)
    assert "no replica could take over (r11: its link to the primary is down)" in refused.output
    alone = lab.folder / "server.yml"
    alone.write_text(ALONE, encoding="utf-8")
    role_only: dict[str, Any] = {"playbook": str(alone), "host_variables": following, **common}
    lab.ansible([primary, replica], [probe()], **role_only).unchanged()
    assert [role(primary), role(replica)] == ["slave", "master"]
    # Not even where a change needs a restart.
    lab.ansible([primary, replica], [probe(args=["x"])], **role_only).good()
    assert [role(primary), role(replica)] == ["slave", "master"]
    assert primary.sh(f"grep ^replicaof {CONF}").split()[1] == replica.address

    # A server with data of its own does not give it up for a variable.
    other.cli("SET", "mine", "1")
    refused = lab.ansible(
        [other], [probe()], host_variables={other.name: {"redis_server_replicaof": f"{primary.address} 6379"}}, **common
    )
    assert "holds 1 keys of its own" in refused.failure(other)
    assert other.cli("GET", "mine") == '"1"'


def test_a_node_of_a_cluster(lab: Lab, r12: Host) -> None:
    """cluster-enabled comes with a start, the bus listens, and a rewritten configuration is the same."""
    variables: dict[str, Any] = {"redis_server_cluster_enabled": True, "redis_server_cluster_node_timeout": 5000}
    lab.ansible([r12], [probe()], **variables).good()
    assert "cluster_enabled:1" in r12.cli("INFO", "cluster")
    assert r12.config("cluster-node-timeout") == "5000"
    assert ":16379 " in r12.sh("ss -Hltn")
    node = r12.cli("CLUSTER", "MYID")
    assert r12.cli("CONFIG", "REWRITE") == "OK"
    lab.ansible([r12], [probe()], **variables).unchanged()
    lab.ansible([r12], [probe(args=["x"])], **variables).good()
    assert r12.cli("CLUSTER", "MYID") == node
