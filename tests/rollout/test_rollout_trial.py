# SPDX-License-Identifier: GPL-3.0-or-later
"""What new modules are tried on before the live server meets them: its data, smoke commands, its users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rollout_kit import EXAMPLE, FOLDER, Entry, Host, Lab

pytestmark = pytest.mark.usefixtures("roles_alone")

BACKUPS = "/var/lib/edgeops-redis-modules/backups"
STATE = "/var/lib/edgeops-redis-modules"


def sensor(release: int = 2, /, **more: object) -> Entry:
    """Return an entry for the example module; release 1 can't read what release 2 writes."""
    return {
        "name": "sensorwindow",
        "src": str(EXAMPLE),
        "sources": ["sensorwindow.c", "window.c"],
        "defines": [f"SENSORWINDOW_RELEASE={release}"],
        **more,
    }


ADD = {"command": ["SENSORWINDOW.ADD", "pump:7", "1000", "21.5"], "expect": "added"}
RANGE = {"command": ["SENSORWINDOW.RANGE", "pump:7", "-", "+"], "query": "[0][1]", "expect": 21.5}


def untouched(host: Host) -> tuple[object, ...]:
    """Return what a trial must leave alone, the RDB file's inode and time among it."""
    return (
        host.snapshot(),
        host.sh("ls -li --time-style=full-iso /var/lib/redis/dump.rdb"),
        host.cli("DBSIZE"),
        host.sh(f"ls {STATE}", check=False),
    )


def nothing_left(host: Host) -> None:
    """Assert that no trial is left on the host."""
    assert host.sh("systemctl list-units --all --no-legend 'redis-trial-*'") == ""
    assert host.sh(f"ls -d /run/redis-trial-* {STATE}/redis-trial-* {FOLDER}/.trial 2>/dev/null || true") == ""


@pytest.fixture
def laid(lab: Lab, request: pytest.FixtureRequest) -> list[Host]:
    """Hosts (those that the test is parametrized with) with release 2 and data that is newer than their RDB files."""
    hosts = lab.reset(*request.param)
    lab.ansible(hosts, [sensor(smoke=[ADD, RANGE])]).good()
    for host in hosts:
        host.cli("SET", "plain", "kept")
        host.cli("SAVE")
        for key in ("one", "two"):
            host.cli("SENSORWINDOW.ADD", key, "1000", "1", "QUALITY", "bad")
    return hosts


def on(*hosts: str) -> pytest.MarkDecorator:
    """Say on which hosts a test needs to run: on all where the version of Redis makes a difference."""
    return pytest.mark.parametrize("laid", [hosts], indirect=True, ids=",".join)


@on("r11", "r12", "r13")
def test_data_that_the_new_modules_can_not_read_is_found_before_the_switch(
    lab: Lab, laid: list[Host], tmp_path: Path
) -> None:
    """The report says what a module registers; going back to an older encoding, or without the module, is refused."""
    whole = lab.ansible(laid, [sensor()], playbook="rollout", redis_verify_report_dir=str(tmp_path)).good()
    rows = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert [row["host"] for row in rows] == [host.name for host in laid], whole.output
    for row in rows:
        assert "sensorwindow.add" in row["commands"].split()
        assert row["types"] == "sensorwin 2"
        assert row["api"] == "complete"

    before = [untouched(host) for host in laid]
    back = lab.ansible(laid, [sensor(1)])
    gone = lab.ansible(laid, [{"name": "sensorwindow", "state": "absent"}])
    for host, was in zip(laid, before, strict=True):
        message = back.failure(host)
        assert "module sensorwindow: this host's data does not load with the new modules" in message
        assert "this release (10000) reads only up to 1" in message
        assert "Keys of modules' types in the keyspace: 2 of type sensorwin" in message
        message = gone.failure(host)
        assert "module sensorwindow: this host's data does not load with the new modules" in message
        assert "sensorwin'" in message
        assert "2 of type sensorwin" in message
        assert "delete_keys" in message
        assert untouched(host) == was
        nothing_left(host)


@on("r11")
def test_keys_go_only_where_the_entry_accepts_it_and_after_a_backup(lab: Lab, laid: list[Host]) -> None:
    """The backup loads with the module that was taken away."""
    entry = {"name": "sensorwindow", "state": "absent", "accept": ["delete_keys"]}
    check = lab.ansible(laid, [entry], "--check").good()
    assert check.recap(laid[0])["changed"] > 0
    for host in laid:
        assert host.cli("EXISTS", "one", "two") == "(integer) 2"
    lab.ansible(laid, [entry]).good()
    for host in laid:
        assert host.modules() == {}
        assert host.cli("GET", "plain") == '"kept"'
        assert host.cli("DBSIZE") == "(integer) 1"
        (backup,) = host.sh(f"ls {BACKUPS}/*.rdb").split()
        assert host.sh(f"stat -c '%U %a' {backup} {BACKUPS}").split() == ["root", "600", "root", "700"]
        assert host.sh(f"grep -c sensorwin {backup} || strings {backup} | wc -l", check=False).strip() != "0"
        nothing_left(host)
    lab.ansible(laid, [entry]).unchanged()
    lab.ansible(laid, [sensor()]).good()
    for host in laid:
        (backup,) = host.sh(f"ls {BACKUPS}/*.rdb").split()
        host.sh(
            "systemctl stop redis-server; "
            f"install -o redis -g redis -m 0660 {backup} /var/lib/redis/dump.rdb; systemctl start redis-server"
        )
        assert host.cli("EXISTS", "one", "two", "plain") == "(integer) 3"


@on("r13")
def test_a_user_who_names_a_command_of_a_module_that_goes_is_found_first(lab: Lab, laid: list[Host]) -> None:
    """Redis would not start with such a rule."""
    for host in laid:
        host.cli("DEL", "one", "two")
        host.put(
            "/etc/redis/users.acl",
            "user default on nopass ~* +@all\nuser meter on >secret ~* +get +sensorwindow.add\n",
            owner="redis:redis",
            mode="0640",
        )
    aclfile = {"redis_server_aclfile": "/etc/redis/users.acl"}
    lab.ansible(laid, [sensor()], **aclfile).good()
    before = [untouched(host) for host in laid]
    refused = lab.ansible(laid, [{"name": "sensorwindow", "state": "absent"}], **aclfile)
    for host, was in zip(laid, before, strict=True):
        message = refused.failure(host)
        assert "/etc/redis/users.acl line 2, user meter: " in message
        assert "+sensorwindow.add" in message
        assert "secret" not in message
        assert untouched(host) == was
        nothing_left(host)


@on("r12")
def test_too_little_room_is_seen_before_anything_starts(lab: Lab, laid: list[Host]) -> None:
    """A small file system in the place of the copy; and data beyond the limit is left untried, with a warning."""
    (host,) = laid
    host.sh(f"mount -t tmpfs -o size=4m,mode=0755 none {STATE}")
    try:
        host.sh("head -c 9000000 /dev/urandom | base64 -w0 | redis-cli -x SET large")
        message = lab.ansible([host], [sensor(1)]).failure(host)
        assert "there is no room to try the modules on this host's data: twice the data may take" in message
        assert "redis_server_trial_data_limit" in message
        nothing_left(host)
        host.cli("DEL", "one", "two")
        went = lab.ansible([host], [sensor(1)], redis_server_trial_data_limit=1).good()
        assert "the modules were not tried on the data of this host" in went.output
        assert host.modules() == {"sensorwindow": 10000}
    finally:
        host.sh(f"umount {STATE}")
