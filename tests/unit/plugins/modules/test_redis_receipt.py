# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A host that was left with a receipt is as wanted for as long as nothing of it is another."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _firewall,
    _host,
    _places,
    _receipt,
    _release,
    _unit,
)
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import (
    LoadedModule,
    NotReachedError,
    ServerError,
)
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_receipt

NFT = "/usr/sbin/nft"
FIREWALL = {
    "changed": False,
    "differences": ["the table was not there"],
    "in_force": False,
    "state": "present",
    "ports": [6379],
    "allowed": {"ipv4": ["10.0.0.0/8"], "ipv6": []},
    "counters": {"accepted": 0, "refused": 0},
}
SECRETS = ("a secret of the settings", "5ec0de" * 10)


class Os:
    """Stands for the os of a module that is root on this host; what process 4242 runs is as the host has it."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fstat(self, descriptor: int) -> os.stat_result:
        found = list(os.fstat(descriptor))
        found[stat.ST_UID] = 0
        return os.stat_result(found)

    def readlink(self, path: str) -> str:
        if path == "/proc/4242/exe" and self._host.program:
            return self._host.program
        raise FileNotFoundError(path)


class Host:
    """A host with a server, a module, a unit with a drop-in, packages, and a firewall if somebody asks for one."""

    def __init__(self, root: Path, server: Any, commands: Any, run: Callable[..., dict[str, Any]]) -> None:
        self.root, self.server, self.commands, self._run = root, server, commands, run
        self.declared = "a digest of all that is declared"
        self.receipt = root / "state" / "receipt.json"
        self.platform = {
            "architecture": "x86_64",
            "libc": "glibc 2.36",
            "cores": 4,
            "online_cpus": "0-3",
            "kernel": "6",
        }
        self.packages = {"systemd": "252", "redis-server": "7.0.15-1", "libssl-dev": "3.0"}
        self.tools = {"dpkg-query"}
        self.program = "/usr/bin/redis-check-rdb"
        self.images: dict[str, str] = {}
        self.asked: list[int] = []
        self.table = ""
        self.counters = {"accepted": 3, "refused": 4}
        self.args: dict[str, Any] = {}
        for name in ("redis.conf", "redis-server", "redismodule.h", "a.artifact", "unit", "drop-in", "rules"):
            self.write(name, name)
        self.write("modules/a.so", "the code")
        (root / "modules").chmod(0o755)
        self.so = str(root / "modules" / "a.so")
        self.images[self.so] = _host.sha256_of(self.so)
        self.units = {
            "redis-server.service": {
                "Id": "redis-server.service",
                "LoadState": "loaded",
                "ActiveState": "active",
                "UnitFileState": "enabled",
                "NeedDaemonReload": "no",
                "MainPID": "4242",
                "FragmentPath": str(root / "unit"),
                "DropInPaths": str(root / "drop-in"),
            },
            _firewall.UNIT: {"LoadState": "loaded", "ActiveState": "active", "UnitFileState": "enabled"},
            "nftables.service": {"LoadState": "loaded", "ActiveState": "inactive", "UnitFileState": "disabled"},
        }
        server.modules = [LoadedModule("a", 2, self.so, ("x y",)), LoadedModule("vectorset", 1, "", ())]
        server.settings = {"maxmemory": "0", "requirepass": SECRETS[0], "replicaof": "", "slaveof": "", "hz": "10"}
        server.info.update(tcp_port="6379")
        server.answers["PUBSUB NUMSUB"] = [b"__sentinel__:hello", 0]
        self.users(f"user default on #{SECRETS[1]} ~* +@all", "user probe on nopass +info +hello")

    def write(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o640)
        return path

    def users(self, *lines: str) -> None:
        self.server.answers["ACL LIST"] = [line.encode() for line in lines]

    def start(self, digest: str) -> None:
        """Let the unit's last start have left this digest; empty for none."""
        record = self.root / "started-with"
        if record.is_symlink():
            record.unlink()
        if digest:
            record.symlink_to(digest)

    def guard(self) -> None:
        """Have a firewall."""
        self.tools.add("nft")
        self.table = "table inet edgeops_redis {\n}\n"
        self.args["firewall"] = FIREWALL

    def live_images(self, pid: int, paths: list[str]) -> dict[str, _host.LiveImage]:
        """Stand for _host.live_images."""
        self.asked.append(pid)
        return {path: _host.LiveImage(path, 1, False, self.images[path]) for path in paths if path in self.images}

    def answer(self, words: Any, **options: Any) -> tuple[int, str, str]:
        """Run a command: what depends on the state of the host is answered here."""
        words = [str(word) for word in words]
        known: tuple[int, str, str] = self.commands(words, **options)
        if words[:2] == ["systemctl", "show"] and known[0] == 0:
            blocks = ("".join(f"{key}={value}\n" for key, value in self.units[name].items()) for name in words[4:])
            return 0, "\n".join(blocks), ""
        if words[0] == "dpkg-query":
            return 1, "".join(f"{name} installed {version}\n" for name, version in self.packages.items()), ""
        if words[:3] == [NFT, "--stateless", "list"]:
            return (0, self.table, "") if self.table else (1, "", "No such file or directory")
        if words[:3] == [NFT, "-j", "list"]:
            listed = [{"counter": {"name": name, "packets": seen}} for name, seen in self.counters.items()]
            return 0, json.dumps({"nftables": listed}), ""
        return known

    def _call(self, check: bool, **args: Any) -> dict[str, Any]:
        result = self._run(redis_receipt.main, {"_declared": self.declared, **args}, check)
        assert result.get("changed", False) is False
        assert self.declared not in json.dumps(result)
        return result

    def note(self, check: bool = False, **args: Any) -> dict[str, Any]:
        """Note a receipt."""
        gid = (self.root / "modules").stat().st_gid
        given = {
            "conf_path": str(self.root / "redis.conf"),
            "binary": str(self.root / "redis-server"),
            "folder": str(self.root / "modules"),
            "owner": "root",
            "group": _host.group_name(gid),
            "mode": "0640",
            "modules": [{"name": "a", "path": self.so, "args": ["x y"], "version": 2, "sha256": None}],
            "packages": ["redis-server", "systemd", "libssl-dev:amd64", "python3-redis", "redis-server"],
            "files": ["", str(self.root / "redismodule.h"), str(self.root / "a.artifact")],
            **self.args,
        }
        return self._call(check, state="noted", **{**given, **args})

    def leave(self, **args: Any) -> dict[str, Any]:
        """Note a receipt and let it count, as a rollout does."""
        unit = args.get("unit", "redis-server.service")
        folder = _places.snapshot(unit)
        os.makedirs(folder, exist_ok=True)
        result = self.note(**args)
        assert (result["noted"], result["differences"]) == (True, [])
        _places.keep_noted(folder, unit)
        os.rmdir(folder)
        return result

    def compare(self, check: bool = False, **args: Any) -> dict[str, Any]:
        """Compare the host with its receipt."""
        return self._call(check, **args)


@pytest.fixture
def host(
    tmp_path: Path,
    server: Any,
    commands: Any,
    run_module: Callable[..., dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> Host:
    made = Host(tmp_path / "host", server, commands, run_module)
    state, me, owner_name = made.root / "state", os.geteuid(), _host.owner_name
    monkeypatch.setattr(_places, "STATE", str(state))
    monkeypatch.setattr(_places, "LOCK", str(state / "rollout.lock"))
    monkeypatch.setattr(_places, "SNAPSHOT", str(state / "before"))
    monkeypatch.setattr(_receipt, "os", Os(made))
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    # Whoever runs this is root here.
    monkeypatch.setattr(_host, "owner_name", lambda uid: "root" if uid == me else owner_name(uid))
    monkeypatch.setattr(_host, "facts_of_platform", lambda: made.platform)
    monkeypatch.setattr(_host, "started_record", lambda unit: str(made.root / "started-with"))
    monkeypatch.setattr(_host, "live_images", made.live_images)
    monkeypatch.setattr(_host.shutil, "which", lambda name, **_o: f"/usr/sbin/{name}" if name in made.tools else None)
    monkeypatch.setattr(_unit, "KEEPER", str(made.root / "keep-loadmodule"))
    monkeypatch.setattr(_firewall, "RULES_PATH", str(made.root / "rules"))
    monkeypatch.setattr(
        redis_receipt.AnsibleModule, "run_command", lambda _self, words, **options: made.answer(words, **options)
    )
    made.start("0123456789abcdef")
    return made


# ---------------------------------------------------------------- as wanted


@pytest.mark.parametrize("guarded", [False, True])
def test_a_host_that_was_left_is_as_wanted_until_something_changes(host: Host, guarded: bool) -> None:
    if guarded:
        host.guard()
    host.commands.answer("systemd-analyze", out="-> Overall exposure level for redis-server.service: 1.1 OK\n")
    left = host.leave()
    for check in (False, True):
        found = host.compare(check)
        assert (found["as_wanted"], found["differences"], found["reached"]) == (True, [], left["reached"])
    verdicts = found["confirmation"].pop("verdicts")
    assert [(verdict["name"], verdict["verdict"]) for verdict in verdicts] == [("a", "loaded")]
    assert found["confirmation"] == {
        "confirmed": True,
        "error": "",
        "server_version": "7.0.15",
        "exposure": 1.1,
    }
    told = {**FIREWALL, "differences": [], "in_force": True, "counters": host.counters}
    assert found["firewall"] == (told if guarded else {})
    topology = found["topology"]
    assert (topology["running"], topology["process"], topology["port"]) == (True, True, 6379)
    assert (topology["lacks"], topology["leaves"], topology["primary"]) == ([], [], "")


def test_no_receipt_and_nobody_is_asked(host: Host) -> None:
    assert host.compare()["differences"] == ["no rollout has left a receipt here"]
    host.leave()
    host.receipt.chmod(0o644)
    host.commands.ran.clear()
    host.server.connections.clear()
    found = host.compare()
    assert (found["as_wanted"], found["differences"]) == (False, ["no rollout has left a receipt here"])
    assert found["reached"] == ""
    assert (host.server.connections, host.commands.ran) == ([], [])


def test_where_something_else_is_declared_nobody_is_asked(host: Host) -> None:
    left = host.leave()
    host.commands.ran.clear()
    host.server.connections.clear()
    host.declared = "another digest of all that is declared"
    found = host.compare()
    assert (found["as_wanted"], found["differences"]) == (False, ["something else is declared since"])
    assert found["reached"] == left["reached"]
    assert (host.server.connections, host.commands.ran) == ([], [])
    assert "confirmation" not in found


def test_what_a_rollout_left_that_did_not_come_to_its_end(host: Host) -> None:
    host.leave()
    (host.root / "state" / "before").mkdir()
    (host.root / "state" / "rollout.lock").write_text("")
    host.server.connections.clear()
    found = host.compare()
    assert found["as_wanted"] is False
    assert found["differences"] == [
        "a rollout that did not come to its end has left its snapshot",
        "a rollout holds its lock",
    ]
    assert host.server.connections == []


def test_the_receipt_of_another_unit_is_another(host: Host) -> None:
    host.units["redis-two.service"] = host.units["redis-server.service"]
    host.leave(unit="redis-two.service")
    assert host.compare()["differences"] == ["no rollout has left a receipt here"]
    assert host.compare(unit="redis-two.service")["as_wanted"] is True
    assert os.listdir(host.root / "state") == ["receipt-redis-two.service.json"]


def test_where_to_look_is_known_from_the_receipt(host: Host) -> None:
    host.leave()
    found = host.compare(conf_path="/nowhere", folder="/nowhere", modules=[], packages=["none"], files=["/nowhere"])
    assert found["as_wanted"] is True


def test_a_server_on_another_address_is_known_by_the_units_process(host: Host) -> None:
    host.units["redis-server.service"]["MainPID"] = "4242"
    host.server.info["process_id"] = "1"
    host.leave(login_host="192.0.2.1")
    host.asked.clear()
    assert host.compare(login_host="192.0.2.1")["as_wanted"] is True
    assert host.asked == [4242]


# ---------------------------------------------------------------- what differs


def edit(name: str, text: str = "edited") -> Callable[[Host], Any]:
    return lambda host: (host.root / name).write_text(text)


def chmod(name: str) -> Callable[[Host], Any]:
    return lambda host: (host.root / name).chmod(0o644)


def unlink(name: str) -> Callable[[Host], Any]:
    return lambda host: (host.root / name).unlink()


def unit(**state: str) -> Callable[[Host], Any]:
    return lambda host: host.units["redis-server.service"].update(state)


def lay_a_dropin(host: Host) -> None:
    host.write("another", "[Service]\n")
    host.units["redis-server.service"]["DropInPaths"] += f" {host.root / 'another'}"


def has_a_link(host: Host) -> None:
    """The same content, by another file."""
    (host.root / "drop-in").rename(host.root / "elsewhere")
    (host.root / "drop-in").symlink_to(host.root / "elsewhere")


OWN = "user default on #" + SECRETS[1] + " ~* +@all"

CHANGES: list[tuple[str, Callable[[Host], Any]]] = [
    ("package redis-server is 7.0.15-2, was 7.0.15-1", lambda h: h.packages.update({"redis-server": "7.0.15-2"})),
    ("package libssl-dev:amd64 is not there any more", lambda h: h.packages.pop("libssl-dev")),
    ("package systemd is 253, was 252", lambda h: h.packages.update(systemd="253")),
    ("package python3-redis was not there", lambda h: h.packages.update({"python3-redis": "4"})),
    ("architecture is aarch64, was x86_64", lambda h: h.platform.update(architecture="aarch64")),
    ("libc is glibc 2.41, was glibc 2.36", lambda h: h.platform.update(libc="glibc 2.41")),
    ("cores is 2, was 4", lambda h: h.platform.update(cores=2)),
    ("online_cpus is 0-1, was 0-3", lambda h: h.platform.update(online_cpus="0-1")),
    ("ROOT/redis.conf is another", edit("redis.conf")),
    ("ROOT/redis.conf is OWNER 0644, was OWNER 0640", chmod("redis.conf")),
    ("ROOT/redis.conf is not there any more", unlink("redis.conf")),
    ("ROOT/redis-server is another", edit("redis-server")),
    ("ROOT/redismodule.h is not there any more", unlink("redismodule.h")),
    ("ROOT/a.artifact is another", edit("a.artifact")),
    ("ROOT/keep-loadmodule was not there", lambda h: h.write("keep-loadmodule", "")),
    ("ROOT/unit is another", edit("unit")),
    ("ROOT/drop-in is another", edit("drop-in")),
    ("ROOT/drop-in is a link to ROOT/elsewhere OWNER 0640, was OWNER 0640", has_a_link),
    ("ROOT/drop-in is not there any more", unit(DropInPaths="")),
    ("ROOT/another was not there", lay_a_dropin),
    ("unit redis-server.service is loaded active disabled, was loaded active enabled", unit(UnitFileState="disabled")),
    ("unit redis-server.service is loaded failed enabled, was loaded active enabled", unit(ActiveState="failed")),
    ("unit redis-server.service is masked active enabled, was loaded active enabled", unit(LoadState="masked")),
    (
        "unit redis-server.service is loaded active enabled stale, was loaded active enabled",
        unit(NeedDaemonReload="yes"),
    ),
    (
        "program of the running server is /usr/bin/redis-check-rdb (deleted), was /usr/bin/redis-check-rdb",
        lambda h: setattr(h, "program", "/usr/bin/redis-check-rdb (deleted)"),
    ),
    ("last start is another", lambda h: h.start("fedcba9876543210")),
    ("last start is not there any more", lambda h: h.start("")),
    ("setting maxmemory is another", lambda h: h.server.settings.update(maxmemory="100")),
    ("setting requirepass is another", lambda h: h.server.settings.update(requirepass="another secret")),
    ("setting hz is not there any more", lambda h: h.server.settings.pop("hz")),
    ("setting a.retention was not there", lambda h: h.server.settings.update({"a.retention": "1"})),
    ("user probe is another", lambda h: h.users(OWN, "user probe on nopass +info +hello +get")),
    ("user default is another", lambda h: h.users("user default on #0 ~* +@all", "user probe on nopass +info +hello")),
    ("user probe is not there any more", lambda h: h.users(OWN)),
    ("user new was not there", lambda h: h.users(OWN, "user probe on nopass +info +hello", "user new off")),
    (
        "module a: drifted: arguments are [], wanted ['x y']",
        lambda h: h.server.modules.__setitem__(0, LoadedModule("a", 2, h.so, ())),
    ),
    (
        "module a: drifted: version is 3, wanted 2",
        lambda h: h.server.modules.__setitem__(0, LoadedModule("a", 3, h.so, ("x y",))),
    ),
    (
        "module stranger: undeclared: it runs, but nobody declared it",
        lambda h: h.server.modules.append(LoadedModule("stranger", 1, "/x.so", ())),
    ),
    (
        "module a: restart-pending: the running server still has an older file mapped; a restart loads the new one",
        lambda h: h.images.update({h.so: "0" * 64}),
    ),
    ("module a: drifted: mode is 0644, wanted 0640", chmod("modules/a.so")),
    (
        "module a: drifted: its folder ROOT/modules: mode is 0750, wanted 0755",
        lambda h: (h.root / "modules").chmod(0o750),
    ),
]


def say(host: Host, sentence: str) -> str:
    """Return a sentence with what this host is in it."""
    found = (host.root / "redis.conf").stat() if (host.root / "redis.conf").exists() else host.root.stat()
    owner = f"{_host.owner_name(found.st_uid)}:{_host.group_name(found.st_gid)}"
    return sentence.replace("ROOT", str(host.root)).replace("OWNER", owner)


@pytest.mark.parametrize(("sentence", "change"), CHANGES, ids=[sentence for sentence, _change in CHANGES])
def test_each_thing_that_is_another_is_said_and_enough(
    host: Host, sentence: str, change: Callable[[Host], Any]
) -> None:
    left = host.leave()
    change(host)
    found = host.compare()
    assert found["as_wanted"] is False
    assert found["differences"] == [say(host, sentence)]
    assert found["reached"] == left["reached"]
    assert not {"confirmation", "firewall", "topology"} & set(found)


GUARDED: list[tuple[str, Callable[[Host], Any]]] = [
    ("the nftables table is another", lambda h: setattr(h, "table", "table inet edgeops_redis {\n\tset x\n}\n")),
    ("the nftables table is not there any more", lambda h: setattr(h, "table", "")),
    ("the nftables table is not there any more", lambda h: h.tools.discard("nft")),
    ("ROOT/rules is another", edit("rules")),
    (
        f"unit {_firewall.UNIT} is loaded failed enabled, was loaded active enabled",
        lambda h: h.units[_firewall.UNIT].update(ActiveState="failed"),
    ),
    (
        "unit nftables.service is loaded active disabled, was loaded inactive disabled",
        lambda h: h.units["nftables.service"].update(ActiveState="active"),
    ),
    ("ROOT/drop-in was not there", lambda h: h.units["nftables.service"].update(DropInPaths=str(h.root / "drop-in"))),
]


@pytest.mark.parametrize(("sentence", "change"), GUARDED)
def test_the_firewall_is_looked_at_where_there_is_one(host: Host, sentence: str, change: Callable[[Host], Any]) -> None:
    host.units["redis-server.service"]["DropInPaths"] = ""
    host.guard()
    host.leave()
    assert host.compare()["as_wanted"] is True
    change(host)
    assert host.compare()["differences"] == [say(host, sentence)]


def test_and_is_nobodys_business_where_there_is_none(host: Host) -> None:
    host.leave()
    host.tools.add("nft")
    host.table = "table inet edgeops_redis {\n}\n"
    host.units.pop(_firewall.UNIT)
    host.commands.ran.clear()
    assert host.compare()["as_wanted"] is True
    assert host.commands.with_start(NFT) == []


def test_what_the_counters_count_is_no_difference(host: Host) -> None:
    host.guard()
    host.table = "table inet edgeops_redis {\n\tcounter accepted {\n\t\tpackets 1 bytes 60 }\n}\n"
    host.leave()
    host.table = host.table.replace("1 bytes 60", "2 bytes 120")
    host.counters["accepted"] = 9
    assert host.compare()["firewall"]["counters"] == {"accepted": 9, "refused": 4}


def test_what_is_gone_or_changed_is_said_of_all_at_once(host: Host) -> None:
    host.leave()
    host.packages.pop("redis-server")
    host.server.settings["hz"] = "20"
    host.server.modules.pop(0)
    assert host.compare()["differences"] == [
        "module a: missing: MODULE LIST does not report it",
        "package redis-server is not there any more",
        "setting hz is another",
    ]


@pytest.mark.parametrize("name", ["replicaof", "slaveof"])
def test_whom_a_server_follows_is_for_failovers_to_decide(host: Host, name: str) -> None:
    host.leave()
    host.server.settings[name] = "192.0.2.9 6379"
    host.server.info.update(role="slave", master_host="192.0.2.9", master_port="6379", master_link_status="up")
    found = host.compare()
    assert (found["as_wanted"], found["topology"]["primary"]) == (True, "192.0.2.9 6379")
    host.server.settings.pop(name)
    assert host.compare()["as_wanted"] is True
    assert f"setting {name}" not in host.receipt.read_text()


def test_the_order_of_a_users_words_is_no_difference(host: Host) -> None:
    host.leave()
    host.users(OWN, "user probe nopass on +hello +info")
    assert host.compare()["as_wanted"] is True


def test_the_kernel_is_no_difference(host: Host) -> None:
    host.leave()
    host.platform["kernel"] = "7"
    assert host.compare()["as_wanted"] is True


def test_a_file_by_a_link_is_the_file_that_it_leads_to(host: Host) -> None:
    (host.root / "redis-server").rename(host.root / "redis-check-rdb")
    (host.root / "redis-server").symlink_to("redis-check-rdb")
    host.leave()
    assert host.compare()["as_wanted"] is True
    (host.root / "redis-check-rdb").write_text("another program")
    assert host.compare()["differences"] == [f"{host.root}/redis-server is another"]
    (host.root / "redis-check-rdb").unlink()
    assert host.compare()["differences"] == [f"{host.root}/redis-server is not there any more"]


# ---------------------------------------------------------------- what can't be seen


def test_settings_that_can_not_be_read_are_a_subject_of_their_own(host: Host) -> None:
    host.write("redis.conf", 'rename-command CONFIG ""\n')
    host.leave()
    seen = json.loads(host.receipt.read_text())["seen"]
    assert seen["settings"] == _receipt.UNREADABLE
    assert not [subject for subject in seen if subject.startswith("setting ")]
    assert host.compare()["as_wanted"] is True
    host.write("redis.conf", "")
    different = host.compare()["differences"]
    assert different[0] == f"{host.root}/redis.conf is another"
    assert "settings is not there any more" in different
    assert "setting maxmemory was not there" in different


def test_and_so_are_users_where_there_are_none_yet_or_acl_is_renamed_away(host: Host) -> None:
    host.server.answers["ACL LIST"] = ServerError("ACL LIST: unknown command 'ACL'")
    host.leave()
    assert json.loads(host.receipt.read_text())["seen"]["users"] == _receipt.UNREADABLE
    assert host.compare()["as_wanted"] is True
    host.users(OWN)
    assert host.compare()["differences"] == ["user default was not there", "users is not there any more"]
    host.write("redis.conf", 'rename-command ACL ""\n')
    host.leave()
    assert json.loads(host.receipt.read_text())["seen"]["users"] == _receipt.UNREADABLE


def test_commands_that_have_other_names_are_called_by_these(host: Host) -> None:
    host.write("redis.conf", "rename-command CONFIG hidden\nrename-command ACL hush\n")
    host.server.answers["hush LIST"] = [b"user other on"]
    host.leave()
    assert "user other" in json.loads(host.receipt.read_text())["seen"]
    assert not [said for said in host.server.sent if said.startswith("ACL")]


def test_a_program_that_can_not_be_read(host: Host) -> None:
    host.program = ""
    host.leave()
    assert json.loads(host.receipt.read_text())["seen"]["program of the running server"] == _receipt.UNREADABLE
    assert host.compare()["as_wanted"] is True


def test_a_server_that_does_not_answer_is_a_difference(host: Host) -> None:
    left = host.leave()
    host.server.down = "127.0.0.1:6379: Connection refused"
    found = host.compare()
    assert (found["as_wanted"], found["differences"]) == (False, ["127.0.0.1:6379: Connection refused"])
    assert found["reached"] == left["reached"]


@pytest.mark.parametrize("name", ["settings", "users"])
def test_one_that_stops_to_answer_under_way_is_too(host: Host, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    host.leave()

    def gone(*_words: Any) -> Any:
        raise NotReachedError("127.0.0.1:6379: Connection reset by peer")

    monkeypatch.setattr(type(host.server.connect({})), name, gone)
    assert host.compare()["differences"] == ["127.0.0.1:6379: Connection reset by peer"]


def test_a_systemd_that_does_not_tell_is_a_difference(host: Host) -> None:
    host.leave()
    host.commands.answer("systemctl", "show", code=1, err="Failed to connect to bus\n")
    assert host.compare()["differences"] == ["systemctl show: Failed to connect to bus"]


def test_without_redis_py_nothing_is_known(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.leave()
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    found = host.compare()
    assert (found["as_wanted"], found["differences"]) == (False, ["redis-py is not there (package python3-redis)"])
    (host.root / "state" / "before").mkdir()
    assert host.note()["differences"] == found["differences"]


def test_without_a_package_manager_no_package_is_there(host: Host) -> None:
    host.leave()
    host.tools.clear()
    assert host.compare()["differences"] == [
        "package libssl-dev:amd64 is not there any more",
        "package redis-server is not there any more",
        "package systemd is not there any more",
    ]


# ---------------------------------------------------------------- what is noted


def test_a_receipt_is_for_root_alone_and_holds_no_secret_as_it_is(host: Host) -> None:
    host.guard()
    host.leave(login_password="a secret of the login")
    text = host.receipt.read_text()
    assert stat.S_IMODE(host.receipt.stat().st_mode) == 0o600
    assert os.listdir(host.receipt.parent) == ["receipt.json"]
    for secret in (*SECRETS, "a secret of the login", "nopass", "+hello"):
        assert secret not in text
    # A setting of two servers is not known to be the same by their receipts, nor can it be looked up.
    first = json.loads(text)
    host.leave()
    second = json.loads(host.receipt.read_text())
    assert len(first["salt"]) == 32
    assert first["salt"] != second["salt"]
    for subject in ("setting requirepass", "setting maxmemory", "user default", "user probe", _receipt.NFT_TABLE):
        assert first["seen"][subject] != second["seen"][subject]
    assert first["look"] == second["look"]


def test_what_is_looked_at(host: Host) -> None:
    host.leave()
    look = json.loads(host.receipt.read_text())["look"]
    assert look["packages"] == ["systemd", "redis-server", "libssl-dev:amd64", "python3-redis"]
    names = ["redis.conf", "redis-server", "keep-loadmodule", "redismodule.h", "a.artifact"]
    assert look["files"] == [str(host.root / name) for name in names]
    assert (look["units"], look["exposure"], look["firewall"]) == ([], None, {})
    host.guard()
    host.leave()
    look = json.loads(host.receipt.read_text())["look"]
    assert look["files"] == [str(host.root / name) for name in [*names, "rules"]]
    assert look["units"] == [_firewall.UNIT, "nftables.service"]
    assert look["firewall"] == FIREWALL


NOT_AS_WANTED: list[tuple[str, Callable[[Host], Any]]] = [
    ("module a: drifted: mode is 0644, wanted 0640", chmod("modules/a.so")),
    ("127.0.0.1:6379: Connection refused", lambda h: setattr(h.server, "down", "127.0.0.1:6379: Connection refused")),
    ("systemctl show: no bus", lambda h: h.commands.answer("systemctl", "show", code=1, err="no bus")),
]


@pytest.fixture
def waiting(host: Host) -> Path:
    """Return where a receipt waits; a former one is there."""
    host.leave()
    (host.root / "state" / "before").mkdir()
    return host.root / "state" / "before" / "receipt.json"


@pytest.mark.parametrize(("sentence", "change"), NOT_AS_WANTED)
def test_no_receipt_is_noted_of_what_is_not_as_wanted(
    host: Host, waiting: Path, sentence: str, change: Callable[[Host], Any]
) -> None:
    former = host.receipt.read_bytes()
    change(host)
    for check in (True, False):
        found = host.note(check)
        assert (found["noted"], found["differences"], found["reached"]) == (False, [sentence], "")
    assert not waiting.exists()
    # What a former one says is still so, or is not and then is no longer believed.
    assert host.receipt.read_bytes() == former


def test_a_receipt_waits_until_the_snapshot_is_closed(host: Host, waiting: Path) -> None:
    former = host.receipt.read_bytes()
    host.server.settings["hz"] = "20"
    found = host.note()
    assert (found["noted"], found["differences"]) == (True, [])
    assert stat.S_IMODE(waiting.stat().st_mode) == 0o600
    assert json.loads(waiting.read_text())["reached"] > 0
    assert host.receipt.read_bytes() == former


def test_without_an_open_snapshot_there_is_nowhere_to_wait(host: Host) -> None:
    found = host.note()
    assert (found["noted"], found["differences"]) == (False, ["no snapshot is open in which it could wait"])
    # In check mode, none is taken; a true run would have one.
    assert host.note(check=True)["noted"] is True
    assert not (host.root / "state").exists()
    (host.root / "modules" / "a.so").chmod(0o644)
    assert host.note()["differences"] == [
        "module a: drifted: mode is 0644, wanted 0640",
        "no snapshot is open in which it could wait",
    ]


def test_what_a_run_that_died_has_noted_goes_whatever_comes_of_this_one(host: Host, waiting: Path) -> None:
    assert host.note()["noted"] is True
    assert host.note(check=True)["noted"] is True
    assert waiting.exists()
    (host.root / "modules" / "a.so").chmod(0o644)
    assert host.note()["noted"] is False
    assert not waiting.exists()


def test_check_mode_writes_nothing(host: Host, waiting: Path) -> None:
    former = host.receipt.read_bytes()
    host.server.settings["hz"] = "20"
    assert host.note(check=True)["noted"] is True
    host.compare(check=True)
    assert not waiting.exists()
    assert host.receipt.read_bytes() == former


def test_a_receipt_that_can_not_be_written_is_no_reason_to_put_a_host_back(
    host: Host, waiting: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(_receipt, "note", full)
    result = host.note()
    assert (result["noted"], "failed" in result) == (False, False)
    assert "No space left on device" in result["differences"][0]
    assert not waiting.exists()


def test_no_receipt_is_believed_where_that_is_asked(host: Host) -> None:
    result = host._run(redis_receipt.main, {"_declared": host.declared, "believe": False})
    assert (result["as_wanted"], result["differences"]) == (
        False,
        ["no receipt is to be believed (redis_receipt_believe)"],
    )


def test_what_can_not_be_told_on_the_controller_is_the_difference_and_the_facts_come_all_the_same(host: Host) -> None:
    result = host._run(redis_receipt.main, {"_unknown": "a can't be told"})
    assert (result["as_wanted"], result["differences"]) == (False, ["a can't be told"])
    assert result["ansible_facts"]["ansible_architecture"] == os.uname().machine
    assert result["ansible_facts"]["ansible_os_family"] in ("Debian", "RedHat")


def test_the_digest_of_what_is_declared_is_shown_by_nobody(host: Host) -> None:
    host.server.down = f"refused: {host.declared}"
    # As _call() sees to it.
    (said,) = host.note()["differences"][:1]
    assert said.startswith("refused: ")


def test_nothing_goes_without_what_is_declared(host: Host) -> None:
    result = host._run(redis_receipt.main, {})
    assert result["failed"]
    assert "_declared" in result["msg"]
