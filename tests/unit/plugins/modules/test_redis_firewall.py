# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The firewall of a host: what is there decides, new rules are tried first, and nothing is left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible.module_utils import basic

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_firewall

NFT = "/usr/sbin/nft"
NO_TABLE = "Error: No such file or directory\nlist table inet edgeops_redis\n"
ALLOWED = ["10.0.0.0/8", "2001:db8::/32"]


class Host:
    """A host with an nft whose listing of rules is their text, and a systemd that does what it is told."""

    def __init__(self, root: Path, commands: Any, run: Callable[..., dict[str, Any]]) -> None:
        self.root, self.commands, self._run = root, commands, run
        self.rules = root / "etc" / "edgeops" / "redis-firewall.nft"
        self.unit = root / "systemd" / "edgeops-redis-firewall.service"
        self.dropin = root / "systemd" / "nftables.service.d" / "50-edgeops-redis-firewall.conf"
        self.table = ""
        self.units: dict[str, dict[str, str]] = {
            _firewall.UNIT: {"LoadState": "not-found"},
            redis_firewall.FLUSHER: {"ActiveState": "active"},
        }
        commands.answer(NFT, "-f", do=self.load)
        commands.answer(
            "systemctl",
            "reenable",
            do=lambda *_, **_options: self.units[_firewall.UNIT].update(UnitFileState="enabled"),
        )
        commands.answer("systemctl", "restart", do=lambda *_, **_options: self.unit_is(ActiveState="active"))
        commands.answer("systemctl", "daemon-reload", do=self.reread)
        commands.answer("systemctl", "disable", do=lambda *_, **_options: self.units[_firewall.UNIT].clear())

    def load(self, command: list[str], **_options: Any) -> None:
        self.table = Path(command[-1]).read_text()

    def unit_is(self, **state: str) -> None:
        self.units[_firewall.UNIT].update(state)

    def reread(self, *_: Any, **_options: Any) -> None:
        self.units[redis_firewall.FLUSHER]["DropInPaths"] = str(self.dropin) if self.dropin.exists() else ""

    def answer(self, words: Any, **options: Any) -> tuple[int, str, str]:
        """Run a command: what depends on the state of the host is answered here."""
        words = [str(word) for word in words]
        known: tuple[int, str, str] = self.commands(words, **options)
        if words[:3] == [NFT, "--stateless", "list"]:
            return (0, self.table, "") if self.table else (1, "", NO_TABLE)
        if words[0] == "unshare" and known[0] == 0:
            return 0, Path(words[-1]).read_text(), ""
        if words[:2] == ["systemctl", "show"]:
            return 0, "".join(f"{key}={value}\n" for key, value in self.units.get(words[2], {}).items()), ""
        return known

    def __call__(self, check: bool = False, **args: Any) -> dict[str, Any]:
        self.commands.ran.clear()
        return self._run(redis_firewall.main, {"allowed_cidrs": ALLOWED, **args}, check)

    def tree(self) -> list[Any]:
        """Return all that is there."""
        files = [path for path in self.root.rglob("*") if path.is_file()]
        return [self.table, sorted((str(path), path.stat().st_ino, path.read_text()) for path in files)]


@pytest.fixture
def host(
    tmp_path: Path, commands: Any, run_module: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> Host:
    made = Host(tmp_path / "host", commands, run_module)
    monkeypatch.setattr(_firewall, "RULES_PATH", str(made.rules))
    monkeypatch.setattr(redis_firewall, "UNIT_PATH", str(made.unit))
    monkeypatch.setattr(redis_firewall, "DROPIN_PATH", str(made.dropin))
    monkeypatch.setattr(redis_firewall, "UFW_CONF", str(tmp_path / "ufw.conf"))
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda *_args, **_options: NFT)
    monkeypatch.setattr(basic.AnsibleModule, "run_command", lambda _self, words, **more: made.answer(words, **more))
    return made


def test_the_first_run_closes_and_the_second_does_nothing(host: Host) -> None:
    first = host()
    assert first["differences"] == [
        "the table inet edgeops_redis is missing",
        f"{host.rules} is missing",
        f"{host.unit} is missing",
        f"{host.dropin} is missing",
        "edgeops-redis-firewall.service is not enabled",
        "edgeops-redis-firewall.service is not active",
    ]
    assert first["allowed"] == {"ipv4": ["10.0.0.0/8"], "ipv6": ["2001:db8::/32"]}
    assert host.table == host.rules.read_text()
    before = host.tree()
    second = host()
    assert (second["changed"], second["differences"], second["diff"], second["in_force"]) == (False, [], [], True)
    assert host.tree() == before
    assert host.commands.with_start(NFT, "-f") == host.commands.with_start("systemctl", "restart") == []


@pytest.mark.parametrize(("debian", "server"), [(True, "redis-server.service"), (False, "redis.service")])
def test_the_unit_names_the_servers_by_its_own_name(
    host: Host, debian: bool, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_firewall.shutil, "which", lambda _name: "/usr/bin/dpkg-query" if debian else None)
    host()
    assert f"Before=network-pre.target {server} shutdown.target\n" in host.unit.read_text()


def test_check_mode_says_the_same_and_changes_nothing(host: Host) -> None:
    said = host(check=True)
    assert (host.tree(), said["in_force"]) == (["", []], False)
    done = host()
    assert (said["changed"], said["differences"], said["diff"]) == (True, done["differences"], done["diff"])


def test_the_rules_are_tried_before_they_come_into_force(host: Host) -> None:
    host()
    nft = [command[1] for command in host.commands.ran if command[0] == NFT]
    assert nft.index("--check") < nft.index("-f")


@pytest.mark.parametrize("refusing", [("unshare",), (NFT, "--check"), (NFT, "-f")])
def test_rules_that_nft_refuses_leave_those_of_before(host: Host, refusing: tuple[str, ...]) -> None:
    host()
    before = host.tree()
    host.commands.answer(*refusing, code=1, err="rules.nft:3:1-2: Error: syntax error")
    failed = host(allowed_cidrs=["192.0.2.0/24"])
    assert failed["failed"]
    assert failed["msg"].startswith("nft does not take the rules, those of before stay in force:\n")
    assert "Error: syntax error" in failed["msg"]
    assert host.tree() == before


def test_drift_by_hand_is_found_and_mended(host: Host) -> None:
    host()
    wanted = host.tree()
    host.table = host.table.replace("10.0.0.0/8", "0.0.0.0/0")
    assert host(check=True)["differences"] == ["the table inet edgeops_redis is not as declared"]
    assert host()["diff"][0]["before_header"] == "table inet edgeops_redis"
    host.table = ""
    assert host()["differences"] == ["the table inet edgeops_redis is missing"]
    assert host.tree() == wanted
    host.rules.chmod(0o666)
    assert host()["differences"] == [f"{host.rules} is not root's 0644"]
    host.dropin.unlink()
    assert host()["differences"] == [f"{host.dropin} is missing"]
    host.units[_firewall.UNIT]["ActiveState"] = "failed"
    assert host()["differences"] == ["edgeops-redis-firewall.service is not active"]
    assert not host()["changed"]


def test_systemd_reads_what_a_run_that_died_has_written(host: Host) -> None:
    host()
    host.units[redis_firewall.FLUSHER]["DropInPaths"] = ""
    assert not host()["changed"]
    assert host.commands.with_start("systemctl", "daemon-reload")


def test_an_nft_that_fails_is_not_taken_for_a_missing_table(host: Host) -> None:
    host()
    host.table = ""
    host.answer = lambda words, **_options: (  # type: ignore[method-assign]
        (1, "", "Operation not permitted") if NFT in words else (0, "", "")
    )
    assert "Operation not permitted" in host()["msg"]


def test_absent_takes_away_what_is_ours(host: Host) -> None:
    host()
    other = host.dropin.parent / "other.conf"
    other.write_text("")
    before = host.tree()
    said = host(check=True, state="absent")
    assert host.tree() == before
    done = host(state="absent", allowed_cidrs=[])
    assert said["differences"] == done["differences"]
    assert len(done["differences"]) == 4
    assert host.commands.with_start(NFT, "delete") == [[NFT, "delete", "table", "inet", "edgeops_redis"]]
    assert [path for path in host.root.rglob("*") if path.is_file()] == [other]
    assert not host.rules.parent.exists()
    host.table = ""
    assert not host(state="absent")["changed"]


def test_a_host_without_nft(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(basic.AnsibleModule, "get_bin_path", lambda *_args, **_options: None)
    said = host(check=True)
    assert (said["changed"], said["missing"], len(said["differences"])) == (True, True, 6)
    failed = host()
    assert failed["failed"]
    assert failed["missing"]
    assert "install nftables" in failed["msg"]
    assert host.tree() == ["", []]
    assert not host(state="absent")["changed"]


def test_bad_input_is_refused_before_anything_is_looked_at(host: Host) -> None:
    failed = host(allowed_cidrs=["10.0.0.1/8", "x"])
    assert len(failed["msg"].splitlines()) == 2
    assert host.commands.ran == []


def test_a_port_that_the_server_leaves_stays_guarded(host: Host) -> None:
    host(ports=[6379])
    moving = host(ports=[6380], keep_ports=True)
    assert (moving["ports"], moving["kept_ports"]) == ([6379, 6380], [6379])
    moved = host(ports=[6380])
    assert (moved["ports"], moved["kept_ports"], moved["changed"]) == ([6380], [], True)


def test_what_is_active_beside_it_is_told(host: Host, tmp_path: Path) -> None:
    host.units["firewalld.service"] = host.units["ufw.service"] = {"ActiveState": "active"}
    (tmp_path / "ufw.conf").write_text("ENABLED=no\n")
    found = host(allowed_cidrs=["0.0.0.0/0", "10.0.0.0/8"])
    assert found["others"] == ["firewalld"]
    merged, open_to_all, beside = found["warnings"]
    assert "10.0.0.0/8 is merged into 0.0.0.0/0" in merged
    assert "every IPv4 address reaches Redis" in open_to_all
    assert beside.startswith("firewalld is active")
    (tmp_path / "ufw.conf").write_text("ENABLED=yes\n")
    assert host()["others"] == ["firewalld", "ufw"]


def test_the_counters_are_returned(host: Host) -> None:
    host.commands.answer(NFT, "-j", out='{"nftables": [{"counter": {"name": "refused", "packets": 3}}]}')
    assert host()["counters"] == {"refused": 3}
