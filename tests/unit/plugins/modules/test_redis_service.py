# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server is set at run time where it can be, restarted only where it must be, and never made worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, ClassVar

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _client,
    _conf,
    _host,
    _release,
    _service,
    _snapshot,
    _step_service,
    _trial,
)
from ansible_collections.edgeops.redis_modules.plugins.module_utils._client import LoadedModule
from ansible_collections.edgeops.redis_modules.plugins.module_utils._plan import SettingChange
from ansible_collections.edgeops.redis_modules.plugins.module_utils._trial import Trial
from ansible_collections.edgeops.redis_modules.plugins.modules import redis_service

DROPIN = "[Service]\n"


class Host:
    """A host whose server runs exactly as wanted, until a test changes something."""

    def __init__(self, root: Path, run: Callable[..., dict[str, Any]], server: Any, commands: Any) -> None:
        self.server, self.commands, self._run = server, commands, run
        self.path = root / "a.so"
        self.path.write_bytes(b"one")
        self.binary = root / "redis-server"
        self.binary.write_text("")
        self.conf = f"dir {root}\nloadmodule {self.path} x\nmaxmemory 100\n"
        self.started_with = _conf.start_digest(_conf.parse(self.conf), DROPIN)
        self.tried = Trial("", [], {"maxmemory": "100", "databases": "16"}, [])
        self.images: dict[str, Any] = {}
        server.modules = [LoadedModule("a", 1, str(self.path), ("x",)), LoadedModule("vectorset", 1, "", ())]
        server.settings = {"maxmemory": "100", "databases": "16"}
        self.unit()

    def unit(self, pid: int = 4242, active: str = "active", enabled: str = "enabled", load: str = "loaded") -> None:
        self.commands.answer(
            "systemctl", "show", out=f"LoadState={load}\nActiveState={active}\nMainPID={pid}\nUnitFileState={enabled}\n"
        )

    def __call__(self, check: bool = False, **args: Any) -> dict[str, Any]:
        module = {"name": "a", "path": str(self.path), "args": ["x"], **args.pop("module", {})}
        given = {
            "conf": self.conf,
            "dropin": DROPIN,
            "modules": [module],
            "binary": str(self.binary),
            "logfile": "/nowhere",
            "start_timeout": 1,
            **args,
        }
        return self._run(redis_service.main, given, check)

    def rules(self, *rules: str) -> None:
        """Set what ACL LIST answers."""
        self.server.answers["ACL LIST"] = [rule.encode() for rule in rules]

    def acted(self) -> list[str]:
        """Return what was asked of systemd besides questions."""
        return [command[1] for command in self.commands.with_start("systemctl") if command[1] != "show"]


@pytest.fixture
def host(
    tmp_path: Path,
    run_module: Callable[..., dict[str, Any]],
    server: Any,
    commands: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> Host:
    made = Host(tmp_path, run_module, server, commands)
    monkeypatch.setattr(_trial, "in_place_of", lambda *_words: made.tried)
    monkeypatch.setattr(_host, "started_with", lambda unit: made.started_with)
    monkeypatch.setattr(_host, "live_images", lambda pid, paths: made.images)
    monkeypatch.setattr(_service, "POLL_SECONDS", 0.01)
    commands.answer("journalctl", out="a line of the journal\n")
    return made


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_done_where_all_is_as_wanted(host: Host, check: bool) -> None:
    result = host(check)
    assert (result["changed"], result["restarted"], result["reasons"], result["set"]) == (False, False, [], [])
    assert host.acted() == []
    assert host.server.was_set == {}


def test_a_setting_is_set_without_a_restart(host: Host) -> None:
    host.server.settings["maxmemory"] = "50"
    said = host(check=True)
    assert (said["changed"], said["restarted"], said["set"]) == (True, False, ["maxmemory"])
    assert host.server.was_set == {}
    done = host()
    assert (done["changed"], done["restarted"], done["set"]) == (True, False, ["maxmemory"])
    assert host.server.was_set == {"maxmemory": "100"}
    assert host.acted() == []
    assert not host()["changed"]


def test_a_setting_that_the_server_refuses_needs_a_restart(host: Host) -> None:
    host.server.settings["databases"] = "8"
    host.server.refuses["databases"] = "ERR CONFIG SET failed - can't set immutable config"
    said = host(check=True)
    assert (said["restarted"], said["reasons"]) == (True, ["databases can only change at a start"])
    assert host.acted() == []
    done = host()
    assert done["restarted"]
    assert done["reasons"] == [
        "databases can only change at a start (ERR CONFIG SET failed - can't set immutable config)"
    ]
    assert host.acted() == ["daemon-reload", "reset-failed", "restart"]


@pytest.mark.parametrize("why", ["another module", "a setting that only a start changes"])
def test_persistence_is_not_given_up_before_a_restart(host: Host, why: str) -> None:
    """The start may fail, or the shutdown not save; it comes with the new redis.conf anyway."""
    host.tried = host.tried._replace(settings={**host.tried.settings, "appendonly": "no", "save": "", "maxmemory": "9"})
    host.server.settings.update(appendonly="yes", save="3600 1")
    if why == "another module":
        host.server.modules.append(LoadedModule("b", 1, "/b.so", ()))
    else:
        host.server.settings["databases"] = "8"
        host.server.refuses["databases"] = "ERR CONFIG SET failed - can't set immutable config"
    assert host()["restarted"]
    assert host.server.was_set == {"maxmemory": "9"}


def test_persistence_is_switched_on_before_a_restart(host: Host) -> None:
    host.tried = host.tried._replace(settings={**host.tried.settings, "appendonly": "yes"})
    host.server.settings["appendonly"] = "no"
    host.server.modules.append(LoadedModule("b", 1, "/b.so", ()))
    assert host()["restarted"]
    assert host.server.was_set == {"appendonly": "yes"}


def test_no_value_and_no_new_name_of_config_is_in_a_refusal() -> None:
    change = SettingChange("requirepass", "", "topsecret")
    assert _step_service.refusal("hidden SET at 127.0.0.1:6379: ERR bad 'topsecret'", change) == "ERR bad '...'"


@pytest.mark.parametrize(
    ("disturb", "reason"),
    [
        (lambda host: setattr(host, "started_with", ""), "it was started with another drop-in"),
        (lambda host: setattr(host, "started_with", "x"), "it was started with another drop-in"),
        (lambda host: setattr(host.server, "modules", []), "module a: MODULE LIST does not report it"),
        (
            lambda host: host.server.modules.append(LoadedModule("b", 1, "/b.so", ())),
            "module b is loaded but no longer configured",
        ),
        (
            lambda host: host.images.update({str(host.path): _host.LiveImage(str(host.path), 1, True, "old")}),
            "module a: the running server still has an older file",
        ),
        (
            lambda host: setattr(host.server, "down", "127.0.0.1:6379: refused") or host.unit(pid=0),
            "the server does not run",
        ),
    ],
)
def test_what_needs_a_restart(host: Host, disturb: Any, reason: str, commands: Any) -> None:
    disturb(host)
    said = host(check=True)
    assert reason in said["reasons"][0]
    assert host.acted() == []
    commands.answer("systemctl", "restart", do=lambda *_, **__: setattr(host.server, "down", ""))
    done = host()
    assert (done["changed"], done["restarted"], done["reasons"]) == (True, True, said["reasons"])
    assert host.acted() == ["daemon-reload", "reset-failed", "restart"]


def test_check_mode_sees_a_module_that_would_be_replaced(host: Host, tmp_path: Path) -> None:
    (tmp_path / "new.so").write_bytes(b"two")
    host.images[str(host.path)] = _host.LiveImage(str(host.path), 1, False, _host.sha256_of(str(host.path)))
    said = host(check=True, module={"artifact": str(tmp_path / "new.so")})
    assert said["reasons"] == ["module a: another file would be placed"]


def test_what_does_not_start_in_a_trial_is_not_restarted(host: Host) -> None:
    host.started_with = "another"
    host.tried = Trial("exit status 1", [], {}, [f"# Module {host.path} initialization failed. Module not loaded"])
    failed = host()
    assert failed["failed"]
    assert failed["msg"].startswith("module a: a server with it does not start (exit status 1)")
    assert "the running server was left as it is" in failed["msg"]
    assert host.acted() == []


def test_a_server_that_does_not_come_back_is_told_with_its_own_lines(host: Host, commands: Any) -> None:
    host.started_with = "another"
    commands.answer("systemctl", "restart", code=1, err="Job for redis-server.service failed.\nSee status.")
    failed = host()
    assert failed["msg"].splitlines() == [
        "the server does not start: Job for redis-server.service failed.",
        "its last log lines:",
        "a line of the journal",
    ]


def test_a_server_that_ends_while_it_starts(host: Host, commands: Any) -> None:
    host.started_with = "another"
    commands.answer(
        "systemctl",
        "restart",
        do=lambda *_, **__: (host.unit(pid=0, active="failed"), setattr(host.server, "down", "refused")),
    )
    assert host()["msg"].startswith("the server ended while it was starting")


def test_a_server_is_ready_when_its_data_is_loaded_and_not_before(host: Host, commands: Any) -> None:
    host.started_with = "another"
    commands.answer("systemctl", "restart", do=lambda *_, **__: host.server.info.update(loading="1"))
    failed = host()
    assert failed["failed"]
    assert "the server was not ready 1 seconds after its start: it is still loading its data" in failed["msg"]


def test_a_start_that_would_come_up_empty_is_refused(host: Host, tmp_path: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(b"data")
    host.conf += "appendonly yes\n"
    host.unit(pid=0)
    for check in (True, False):
        failed = host(check)
        assert failed["failed"]
        assert "come up empty" in failed["msg"]
    assert host.acted() == []


def test_the_unit_is_enabled_where_it_is_not(host: Host) -> None:
    host.unit(enabled="disabled")
    said = host(check=True)
    assert said["changed"]
    assert host.acted() == []
    assert host()["changed"]
    assert host.acted() == ["enable"]
    assert not host(enabled=False)["changed"]


def test_a_host_without_redis(host: Host, commands: Any) -> None:
    host.unit(load="not-found", pid=0, enabled="")
    failed = host()
    assert failed["failed"]
    assert "install Redis first" in failed["msg"]
    said = host(check=True, binary="/nowhere/redis-server")
    assert (said["changed"], said["restarted"]) == (True, True)


def test_without_redis_py(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", "Traceback")
    assert "Python library (redis)" in host()["msg"]
    assert "redis-py is not installed yet" in host(check=True)["skipped_reason"]


def test_a_configuration_that_can_not_be_read(host: Host) -> None:
    host.conf = 'requirepass "secret\n'
    failed = host()
    assert failed["msg"] == "redis.conf: line 1: a double quote is not closed"


def test_the_passwords_are_in_no_output(host: Host) -> None:
    host.server.settings["requirepass"] = "oldsecret"
    host.tried = host.tried._replace(settings={"requirepass": "newsecret"})
    host.server.refuses["requirepass"] = "ERR bad argument 'newsecret'"
    assert "secret" not in str(host(login_password="newsecret"))


class Live:
    """Lets the fake server be asked for what a change without a restart depends on, and changed by MODULE."""

    def __init__(self, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
        self.host = host
        self.said: list[tuple[str, ...]] = []
        self.acl = [b"user default on nopass ~* &* +@all"]
        self.usedby = ""
        self.refuses: dict[str, list[Exception]] = {}
        self.left: list[str] = []
        connect = host.server.connect

        def connected(params: Any, config_command: str = "CONFIG") -> Any:
            client = connect(params, config_command)
            client.call = self.call
            client.commands = lambda: {"get": frozenset(), "a.get": frozenset(["module"])}
            return client

        monkeypatch.setattr(_client, "connect", connected)
        monkeypatch.setattr(_host, "leave_started_with", lambda unit, digest: self.left.append(digest))
        monkeypatch.setattr(_release, "keep", lambda folder, name, file: file)
        monkeypatch.setattr(_snapshot, "FOLDER", "/nowhere")
        host.server.settings["enable-module-command"] = "yes"
        host.tried.settings["enable-module-command"] = "yes"
        self.old = host.path.parent / "old.so"
        self.old.write_bytes(b"old")
        host.images[str(host.path)] = _host.LiveImage(str(host.path), 1, True, "old", str(self.old))

    def call(self, *words: str) -> Any:
        """Any command."""
        if words[:2] == ("ACL", "LIST"):
            return self.acl
        if words[:2] == ("INFO", "modules"):
            return f"module:name=a,ver=1,api=1,filters=0,usedby=[{self.usedby}],using=[]\r\n".encode()
        if words[0] == "COMMAND":
            return [b"a.get"]
        self.said.append(words)
        errors = self.refuses.get(words[1], [])
        if errors:
            raise errors.pop(0)
        path, modules = str(self.host.path), self.host.server.modules
        if words[1] == "UNLOAD":
            modules.remove(next(module for module in modules if module.name == words[2]))
        else:
            former = self.host.path.read_bytes() == b"old"
            args = tuple(words[3:] if words[1] == "LOAD" else words[words.index("ARGS") + 1 :])
            modules.append(LoadedModule("a", 1, path, args))
            digest = "old" if former else _host.sha256_of(path)
            self.host.images[path] = _host.LiveImage(path, 2, False, digest, str(self.old))
        return b"OK"


@pytest.fixture
def live(host: Host, monkeypatch: pytest.MonkeyPatch) -> Live:
    """A server that runs an older file of module a."""
    return Live(host, monkeypatch)


HOT = {"strategy": "hot"}
EITHER = {"strategy": "hot_or_restart"}


def test_a_module_is_changed_without_a_restart(host: Host, live: Live) -> None:
    said = host(check=True, module={**HOT, "artifact": str(host.path)})
    assert (said["changed"], said["restarted"], said["hot"]) == (True, False, ["a"])
    assert live.said == []
    done = host(module={**HOT, "config": {"a.level": "3"}})
    assert (done["changed"], done["restarted"], done["hot"]) == (True, False, ["a"])
    path = str(host.path)
    assert live.said == [
        ("MODULE", "UNLOAD", "a"),
        ("MODULE", "LOADEX", path, "CONFIG", "a.level", "3", "ARGS", "x"),
    ]
    # The unit's own record is read anew, and the process' is written: no later run restarts for it.
    assert host.acted() == ["daemon-reload"]
    assert live.left == [host.started_with]
    assert not host(module=HOT)["changed"]


def test_check_mode_looks_at_the_file_that_would_be_placed(
    host: Host, live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.images[str(host.path)] = host.images[str(host.path)]._replace(sha256=_host.sha256_of(str(host.path)))
    new = host.path.parent / "new.so"
    new.write_bytes(b"\0pthread_create\0")
    tried: list[dict[str, str]] = []
    monkeypatch.setattr(_trial, "in_place_of", lambda *words: tried.append(words[3]) or host.tried)
    failed = host(check=True, module={**HOT, "artifact": str(new)})
    assert "module a: the new file starts threads" in failed["msg"]
    new.write_bytes(b"harmless")
    assert host(check=True, module={**HOT, "artifact": str(new)})["hot"] == ["a"]
    # Placed by now, under its own path.
    host(module={**HOT, "artifact": str(new)})
    assert tried == [{str(host.path): str(new)}] * 2 + [{}]


def test_other_arguments_before_redis_7_are_seen_in_the_record(host: Host, live: Live) -> None:
    host.server.info["redis_version"] = "6.0.16"
    host.server.modules[:] = [LoadedModule("a", 1, None, None)]
    host.images[str(host.path)] = host.images[str(host.path)]._replace(sha256=_host.sha256_of(str(host.path)))
    conf = host.path.parent / "redis.conf"
    conf.write_text(host.conf)
    host.conf = host.conf.replace(".so x", ".so y")
    failed = host(module={**HOT, "args": ["y"]}, conf_path=str(conf))
    # The file is no ELF file, so its calls are not known; its former arguments are.
    assert "can't be read for its calls" in failed["msg"]
    assert "nobody knows the arguments" not in failed["msg"]
    assert "nobody knows the arguments" in host(module={**HOT, "args": ["y"]}, conf_path="/nowhere")["msg"]


@pytest.mark.parametrize(
    ("disturb", "words"),
    [
        (lambda live: live.acl.append(b"user u on nopass ~* -@all +a.get"), "the ACL user u names its command a.get"),
        (lambda live: setattr(live, "usedby", "b"), "module a: it is used by b"),
        (lambda live: live.host.server.settings.update({"enable-module-command": "no"}), "enable-module-command is no"),
        (lambda live: setattr(live.host, "started_with", "another"), "another drop-in"),
        (
            lambda live: live.host.images.update(
                {str(live.host.path): _host.LiveImage(str(live.host.path), 1, True, "")}
            ),
            "the file that it runs from can't be read",
        ),
        (lambda live: live.host.server.modules.append(LoadedModule("s", 1, "/s.so", ())), "module s changes as well"),
        (lambda live: setattr(live.host.server, "down", "127.0.0.1:6379: WRONGPASS"), "it does not take the password"),
    ],
)
def test_what_can_not_be_changed_without_a_restart(host: Host, live: Live, disturb: Any, words: str) -> None:
    disturb(live)
    for check in (True, False):
        failed = host(check, module=HOT)
        assert failed["failed"]
        assert failed["msg"].startswith("module a: strategy is hot, but a change without a restart is not possible:\n")
        assert words in failed["msg"]
        said = host(check=True, module=EITHER)
        assert (said["restarted"], said["hot"]) == (True, [])
        assert any(words in reason for reason in said["reasons"])
    assert live.said == []
    assert host.acted() == []


def test_a_setting_that_only_a_start_changes_hinders(host: Host, live: Live) -> None:
    host.tried.settings["io-threads"] = "4"
    host.server.settings["io-threads"] = "1"
    host.server.refuses["io-threads"] = "ERR immutable"
    for check in (True, False):
        assert "io-threads can only change at a start" in host(check, module=HOT)["msg"]
    assert host(module=EITHER)["restarted"]
    assert live.said == []


def test_a_module_that_does_not_change_is_no_hindrance(host: Host, live: Live) -> None:
    host.images.clear()
    host.started_with = _conf.start_digest(_conf.parse(host.conf), "[Service]\nMemoryMax=1G\n")
    done = host(module=HOT)
    assert (done["restarted"], done["hot"]) == (True, [])


def test_what_the_server_does_not_unload(host: Host, live: Live) -> None:
    for strategy, restarted in ((HOT, None), (EITHER, True)):
        live.refuses["UNLOAD"] = [_client.ServerError("MODULE UNLOAD at x: ERR blocked clients")]
        done = host(module=strategy)
        assert done.get("restarted") is restarted
        words = done["msg"] if restarted is None else done["reasons"][-1]
        assert "module a: the server does not unload it: ERR blocked clients" in words
        assert [module.name for module in host.server.modules] == ["a", "vectorset"]
    assert live.left == []


def test_what_the_server_does_not_load_is_taken_back_and_not_tried_by_a_restart(host: Host, live: Live) -> None:
    live.refuses["LOAD"] = [_client.ServerError("MODULE LOAD at x: ERR Error loading the extension")]
    failed = host(module={**EITHER, "args": ["x"]})
    lines = failed["msg"].splitlines()
    assert lines[0] == f"module a: the running server does not load {host.path}: ERR Error loading the extension"
    assert lines[1] == "what ran before was loaded again at once: a"
    assert lines[-1] == "a line of the journal"
    assert host.path.read_bytes() == b"old"
    assert live.said[-1] == ("MODULE", "LOAD", str(host.path), "x")
    assert (host.acted(), live.left) == ([], [])


def test_what_is_loaded_has_to_run_as_in_the_trial(host: Host, live: Live) -> None:
    host.tried = host.tried._replace(modules=[LoadedModule("a", 7, str(host.path), ("x",))])
    assert "module a: it was loaded, but version is 1, wanted 7" in host(module=HOT)["msg"]


def test_a_module_that_goes(host: Host, live: Live) -> None:
    live.host.images.clear()
    host.server.modules.append(LoadedModule("b", 1, "/m/b.so", ()))
    host.images["/m/b.so"] = _host.LiveImage("/m/b.so", 3, False, "b", str(live.old))
    gone = [{"name": "b", "path": "/m/b.so", **HOT}]
    done = host(absent=gone)
    assert (done["restarted"], done["hot"]) == (False, ["b"])
    assert live.said == [("MODULE", "UNLOAD", "b")]


def test_the_new_name_of_a_renamed_command_is_used_and_not_told(host: Host, live: Live) -> None:
    host.conf += "rename-command MODULE hidden\n"
    host.started_with = _conf.start_digest(_conf.parse(host.conf), DROPIN)
    live.refuses["UNLOAD"] = [_client.ServerError("hidden UNLOAD at x: ERR blocked clients")]
    failed = host(module=HOT)
    assert live.said == [("hidden", "UNLOAD", "a")]
    assert "hidden" not in str(failed)


class TestUsers:
    """The users of the running server are those of its redis.conf, where that names any."""

    TRIED: ClassVar[dict[str, list[str]]] = {"default": ["off"], "a": ["on", "+get"], "edgeops-trial": ["on"]}

    @pytest.fixture
    def host(self, host: Host) -> Host:
        host.conf += "requirepass pw\nuser default off\nuser a on nopass +get\n"
        host.tried = host.tried._replace(found=self.TRIED, settings={**host.tried.settings, "requirepass": ""})
        host.server.settings["requirepass"] = "older"
        host.rules("user default off", "user a +get on")
        return host

    def test_as_wanted(self, host: Host) -> None:
        assert not host()["changed"]
        assert not any("USER" in said for said in host.server.sent)
        # An empty one would let the default user in.
        assert "requirepass" not in host.server.was_set

    def test_what_differs_is_set_without_a_restart_and_without_a_digest_in_the_result(self, host: Host) -> None:
        host.rules("user default on nopass ~* +@all", "user a on +get", "user guest on nopass")
        said = host(check=True)
        assert (said["changed"], said["restarted"], said["users"]) == (True, False, ["default", "guest"])
        assert not any("USER" in sent for sent in host.server.sent)
        done = host()
        assert (done["changed"], done["restarted"], done["users"]) == (True, False, ["default", "guest"])
        assert [sent for sent in host.server.sent if "USER" in sent] == [
            "ACL SETUSER default reset off",
            "ACL DELUSER guest",
        ]

    def test_a_restart_brings_them_by_itself(self, host: Host) -> None:
        host.rules("user default off")
        host.server.modules.append(LoadedModule("b", 1, "/b.so", ()))
        done = host()
        assert (done["restarted"], done["users"]) == (True, [])
        assert not any("USER" in sent for sent in host.server.sent)

    def test_a_refusal_is_told_without_what_may_be_a_secret(self, host: Host) -> None:
        host.rules("user default off")
        host.server.answers["ACL SETUSER"] = _client.ServerError(
            "ACL SETUSER at h: Error in ACL SETUSER modifier '#digest': Syntax error"
        )
        failed = host()
        assert "did not take the users a: Syntax error" in failed["msg"]
        assert "digest" not in failed["msg"]

    def test_where_redis_conf_names_none_they_are_left_alone(self, host: Host) -> None:
        host.conf = host.conf.replace("user default off\nuser a on nopass +get\n", "").replace("requirepass pw\n", "")
        host.server.settings["requirepass"] = ""
        host.rules("user guest on")
        assert not host()["changed"]
        assert not any(sent.startswith("ACL") for sent in host.server.sent)
