# SPDX-License-Identifier: GPL-3.0-or-later
"""Every way to log in, by every module of the collection; and that no secret comes to light on the way."""

from __future__ import annotations

import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from rollout_kit import CONF, LOG, Host, Lab, probe

TLS = "/etc/redis/tls"


def certificates(host: Host) -> None:
    """Make a CA, a server's and a client's certificate on the host."""
    host.sh(
        f"mkdir -p {TLS} && cd {TLS} && exec 2>/dev/null && "
        "new='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes' && "
        "openssl req -x509 $new -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca "
        "-addext keyUsage=critical,keyCertSign,cRLSign && "
        "for who in server client; do "
        "openssl req $new -keyout $who.key -out $who.csr -subj /CN=127.0.0.1 && "
        # From Python 3.13 on, a certificate without these is refused.
        "printf 'subjectAltName=IP:127.0.0.1\\nauthorityKeyIdentifier=keyid\\nsubjectKeyIdentifier=hash\\n' > ext && "
        "openssl x509 -req -in $who.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $who.crt "
        "|| exit 1; done && "
        f"chown -R redis:redis {TLS}"
    )


@pytest.mark.usefixtures("roles_alone")
def test_password_acl_user_and_tls(lab: Lab, fleet: list[Host]) -> None:
    """A password that is changed later, an ACL user over the unix socket, TLS with a client's certificate."""
    by_password, by_acl, by_tls = fleet
    by_acl.put(
        "/etc/redis/users.acl",
        "user default off\nuser operator on >s3cret-of-the-operator ~* &* +@all\n",
        owner="redis:redis",
        mode="0640",
    )
    certificates(by_tls)
    socket = "/run/redis/redis.sock"
    host_variables: dict[str, dict[str, Any]] = {
        by_password.name: {"redis_server_requirepass": 'first "pass" #1'},
        by_acl.name: {
            "redis_server_aclfile": "/etc/redis/users.acl",
            "redis_server_unixsocket": socket,
            "redis_modules_login": {
                "login_unix_socket": socket,
                "login_user": "operator",
                "login_password": "s3cret-of-the-operator",
            },
        },
        by_tls.name: {
            "redis_server_port": 0,
            "redis_server_tls_port": 6380,
            "redis_server_tls_cert_file": f"{TLS}/server.crt",
            "redis_server_tls_key_file": f"{TLS}/server.key",
            "redis_server_tls_ca_cert_file": f"{TLS}/ca.crt",
        },
    }
    logins = {
        by_password.name: ("-a", 'first "pass" #1'),
        by_acl.name: ("-s", socket, "--user", "operator", "--pass", "s3cret-of-the-operator"),
        by_tls.name: (
            "-p",
            "6380",
            "--tls",
            "--cacert",
            f"{TLS}/ca.crt",
            "--cert",
            f"{TLS}/client.crt",
            "--key",
            f"{TLS}/client.key",
        ),
    }
    # The packaged servers do not listen where they will, so nobody can ask them yet which modules they run.
    lab.ansible(fleet, [probe()], host_variables=host_variables).good()
    for host in fleet:
        assert host.modules(login=logins[host.name]) == {"probe": 1}
    assert "NOAUTH" in by_password.cli("MODULE", "LIST")
    assert "NOAUTH" in by_acl.cli("MODULE", "LIST")
    assert "refused" in by_tls.sh("redis-cli PING 2>&1", check=False)
    lab.ansible(fleet, [probe()], host_variables=host_variables).unchanged()
    lab.ansible(fleet, [probe()], playbook="verify", host_variables=host_variables).unchanged()

    # A wrong password is told as such, without the password; a rollout then touches nothing, as it can't see what runs.
    wrong = {by_password.name: {"redis_server_requirepass": "not-the-right-one"}}
    before = by_password.snapshot()
    for playbook in ("verify", "rollout"):
        refused = lab.ansible([by_password], [probe()], playbook=playbook, host_variables=wrong)
        assert refused.code != 0
        assert re.search("WRONGPASS|invalid", refused.failure(by_password)), refused.output
        assert "not-the-right-one" not in refused.output
    assert by_password.snapshot() == before

    changed = {
        by_password.name: {"redis_server_requirepass": "second", "redis_server_current_password": 'first "pass" #1'}
    }
    pid = by_password.pid
    lab.ansible([by_password], [probe()], host_variables=changed).good()
    assert by_password.modules(login=("-a", "second")) == {"probe": 1}
    assert "AUTH failed" in by_password.sh("redis-cli -a 'first \"pass\" #1' PING 2>&1", check=False)
    assert by_password.pid == pid, "a password can change at run time"
    lab.ansible(
        [by_password], [probe()], host_variables={by_password.name: {"redis_server_requirepass": "second"}}
    ).unchanged()


@contextmanager
def watched(*needles: str) -> Iterator[list[str]]:
    """Look at the command line of every new process, again and again: those in the hosts are seen from here, too."""
    found: list[str] = []
    over = threading.Event()
    wanted = [needle.encode() for needle in needles]

    def look() -> None:
        began: dict[str, float] = {}
        while not over.wait(0.01):
            now = time.monotonic()
            pids = [name for name in os.listdir("/proc") if name.isdigit()]
            began = {pid: began.get(pid, now) for pid in pids}
            # A process that has just begun may become another program yet; an older one does not.
            for pid in (pid for pid in pids if now - began[pid] < 1.0):
                try:
                    line = Path("/proc", pid, "cmdline").read_bytes()
                except OSError:
                    continue
                if any(needle in line for needle in wanted):
                    found.append(line.replace(b"\0", b" ").decode(errors="replace"))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def test_no_secret_comes_to_light(lab: Lab, fleet: list[Host]) -> None:
    """Not in the output at -vvv --diff, on no command line, in no journal or log, in no file that others may read."""
    secret = f"s{secrets.token_hex(12)}"
    another = f"a{secrets.token_hex(12)}"
    variables: dict[str, Any] = {
        "redis_server_requirepass": secret,
        "redis_server_masterauth": another,
        "redis_server_acl_users": [{"name": "dashboard", "passwords": [another], "rules": ["~*", "+@read"]}],
        "redis_server_probe_password": another,
    }
    outputs = []
    with watched("a word to be seen") as seen:
        fleet[0].sh("sleep 0.1 # a word to be seen")
    assert seen
    with watched(secret, another) as seen:
        outputs.append(lab.ansible(fleet, [probe()], "-vvv", "--diff", "--check", **variables).good())
        outputs.append(lab.ansible(fleet, [probe()], "-vvv", "--diff", **variables).good())
        outputs.append(lab.ansible(fleet, [probe()], "-vvv", "--diff", core="2.14", **variables).unchanged())
        # A failure tells much: the server's log, the module's arguments.
        outputs.append(lab.ansible(fleet, [probe(args=["refuse"])], "-vvv", "--diff", **variables))
        outputs.append(lab.ansible(fleet, [probe()], "-vvv", playbook="verify", **variables).good())
        # Redis itself repeats a line that it can't read.
        unreadable = {**variables, "redis_server_extra_directives": {"tls-key-file-pass": f"{another} {another}"}}
        outputs.append(lab.ansible(fleet[1:2], [probe()], "-vvv", **unreadable))
    assert outputs[3].code != 0
    assert outputs[5].code != 0
    assert not seen
    for host in fleet:
        assert host.config("masterauth", login=("-a", secret)) == another  # it was really there to be seen
        assert host.sh(f"stat -c '%U:%G %a' {CONF}").strip() == "redis:redis 640"
    for value in (secret, another):
        for done in outputs:
            lines = [line for line in done.output.splitlines() if value in line]
            assert not lines, f"{value} in {lines[:3]}"
        for host in fleet:
            assert not host.sh(f"journalctl --no-pager | grep -F {value} || true")
            assert not host.sh(f"grep -F {value} {LOG} || true")
            readable = "find / -xdev -type f -perm -o=r -not -path '/proc/*' -not -path '/sys/*'"
            readable += " -newer /root/packaged.conf -print0"
            assert not host.sh(f"{readable} | xargs -0 -r grep -lF {value} || true")
            assert not host.sh(f"find /run /tmp /root -type f -print0 | xargs -0 -r grep -lsF {value} || true")
