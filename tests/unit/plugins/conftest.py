# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the unit tests of the plugins share: settings of hypothesis, and a way to run a module's main()."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import Any, Callable, Tuple

import pytest
from ansible.module_utils import basic
from hypothesis import settings

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client

settings.register_profile("gate", database=None, deadline=None, derandomize=True)
settings.register_profile("search", database=None, deadline=None, max_examples=3000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "gate"))

Answer = Tuple[int, str, str]


def pytest_configure(config: pytest.Config) -> None:
    """Let cryptography's farewell to Python 3.8 be; ansible.module_utils.urls imports it where it is there."""
    config.addinivalue_line("filterwarnings", "ignore:Python 3.8 is no longer supported")


class Commands:
    """Stands for AnsibleModule.run_command: answers by the first words of a command, remembers all of them."""

    def __init__(self) -> None:
        self.ran: list[list[str]] = []
        self.options: list[dict[str, Any]] = []
        self._answers: list[tuple[tuple[str, ...], Any]] = []

    def answer(
        self, *start: str, code: int = 0, out: str = "", err: str = "", do: Callable[..., Any] | None = None
    ) -> None:
        """From now on, give this answer to commands that start so; I(do) is called with the command first."""
        self._answers.insert(0, (start, (do, (code, out, err))))

    def __call__(self, words: Any, **options: Any) -> Answer:
        """Run nothing."""
        command = [words] if isinstance(words, str) else [str(word) for word in words]
        self.ran.append(command)
        self.options.append(options)
        for start, (do, answer) in self._answers:
            if tuple(command[: len(start)]) == start:
                if do:
                    do(command, **options)
                return answer  # type: ignore[no-any-return]
        return 0, "", ""

    def with_start(self, *start: str) -> list[list[str]]:
        """Return the commands that were run and start so."""
        return [command for command in self.ran if tuple(command[: len(start)]) == start]


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> Commands:
    """Every command that a module runs goes here, none is run."""
    fake = Commands()
    monkeypatch.setattr(basic.AnsibleModule, "run_command", lambda _self, words, **options: fake(words, **options))
    return fake


@pytest.fixture
def run_module(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> Callable[..., dict[str, Any]]:
    """Return a function that runs a module's main() and gives back what it prints: the true output, no_log applied."""

    def run(main: Callable[[], None], args: dict[str, Any], check: bool = False) -> dict[str, Any]:
        own = {"_ansible_check_mode": check, "_ansible_diff": True, "_ansible_remote_tmp": str(tmp_path)}
        text = json.dumps({"ANSIBLE_MODULE_ARGS": {**args, **own}})
        monkeypatch.setattr(basic, "_ANSIBLE_ARGS", text.encode())
        monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)
        # Ansible keeps warnings for the whole process, and sends them elsewhere where its controller is loaded too.
        warnings: list[str] = []
        monkeypatch.setattr(basic.AnsibleModule, "warn", lambda _self, warning: warnings.append(warning))
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return {**result, "warnings": warnings} if warnings else result

    return run


class Server:
    """Stands for a Redis server behind _client.connect."""

    def __init__(self) -> None:
        self.down = ""
        self.info: dict[str, str] = {
            "redis_version": "7.0.15",
            "redis_mode": "standalone",
            "role": "master",
            "process_id": "4242",
            "loading": "0",
        }
        self.modules: list[_client.LoadedModule] = []
        self.settings: dict[str, str] = {}
        self.refuses: dict[str, str] = {}
        self.password: str | None = None
        self.was_set: dict[str, str] = {}
        self.connections: list[dict[str, Any]] = []
        self.databases: dict[int, dict[str, str]] = {}
        """The type of each key, by database."""
        self.commands: Any = {}
        """The flags of each command; or the exception that asking for them raises."""
        self.answers: dict[str, Any] = {}
        """What commands that start so answer; an exception is raised, a function is called with the words."""
        self.sent: list[str] = []
        self.messages: list[str] = []
        """What is said on every channel."""

    def connect(self, params: Any, config_command: str = "CONFIG") -> FakeClient:
        """Like _client.connect."""
        self.connections.append(dict(params))
        if self.down:
            raise _client.ServerError(self.down)
        if self.password is not None and params.get("login_password") != self.password:
            raise _client.ServerError("127.0.0.1:6379: invalid username-password pair")
        return FakeClient(self, config_command)


class FakeClient:
    """Stands for _client.Client."""

    def __init__(self, server: Server, config_command: str) -> None:
        self._server = server
        self.config_command = config_command
        self.password = server.password
        self._database = 0
        self._scanned: list[str] = []

    def call(self, *words: Any) -> Any:
        """Send one command."""
        texts = [_client.text(word) for word in words]
        said = " ".join(texts)
        self._server.sent.append(said)
        for start in sorted(self._server.answers, key=len, reverse=True):
            if (said + " ").startswith(start + " "):
                answer = self._server.answers[start]
                answer = answer(*texts) if callable(answer) else answer
                if isinstance(answer, Exception):
                    raise answer
                return answer
        built_in = getattr(self, "_" + texts[0].lower(), None)
        return built_in(*texts[1:]) if built_in else b"OK"

    def many(self, commands: Any) -> list[Any]:
        """Send several commands."""
        return [self.call(*words) for words in commands]

    def commands(self) -> Any:
        """COMMAND."""
        if isinstance(self._server.commands, Exception):
            raise self._server.commands
        return self._server.commands

    def _acl(self, what: str, *_words: str) -> Any:
        answers: dict[str, Any] = {"USERS": [b"default"], "LIST": [b"user default on nopass ~* +@all"]}
        return answers.get(what, b"OK")

    def users(self, acl_command: str = "ACL") -> Any:
        """ACL LIST."""
        if not acl_command:
            raise _client.ServerError("127.0.0.1:6379: ACL is renamed away, so its users cannot be read")
        rules = [str(_client.text(line)).split() for line in self.call(acl_command, "LIST")]
        return {words[1]: words[2:] for words in rules}

    def _select(self, number: str) -> bytes:
        if self._server.info["redis_mode"] == "cluster" and number != "0":
            raise _client.ServerError("SELECT: SELECT is not allowed in cluster mode")
        self._database = int(number)
        return b"OK"

    def _scan(self, cursor: str, *words: str) -> list[Any]:
        """Two places at a time, as a hash table: what is deleted meanwhile moves nothing."""
        keys = self._server.databases.get(self._database, {})
        if cursor == "0":
            self._scanned = sorted(keys)
        kind = words[words.index("TYPE") + 1] if "TYPE" in words else None
        end = int(cursor) + 2
        names = [name for name in self._scanned[int(cursor) : end] if name in keys and kind in (None, keys[name])]
        return [str(end if end < len(self._scanned) else 0).encode(), [name.encode() for name in names]]

    def _type(self, name: str) -> bytes:
        return self._server.databases.get(self._database, {}).get(name, "none").encode()

    def _unlink(self, *names: str) -> int:
        if self._server.info["redis_mode"] == "cluster" and len(names) > 1:
            raise _client.ServerError("UNLINK: CROSSSLOT Keys in request don't hash to the same slot")
        keys = self._server.databases.get(self._database, {})
        return len([name for name in names if keys.pop(name, None)])

    def info(self) -> dict[str, str]:
        """INFO."""
        keyspace = {f"db{number}": f"keys={len(keys)}" for number, keys in self._server.databases.items() if keys}
        return {**self._server.info, **keyspace}

    def modules(self) -> list[_client.LoadedModule]:
        """MODULE LIST."""
        return self._server.modules

    def settings(self) -> dict[str, str]:
        """CONFIG GET *."""
        if not self.config_command:
            raise _client.ServerError("127.0.0.1:6379: CONFIG is renamed away, so its settings cannot be read")
        return dict(self._server.settings)

    def set(self, name: str, value: str) -> None:
        """CONFIG SET."""
        if name in self._server.refuses:
            raise _client.ServerError(f"{self.config_command} SET at 127.0.0.1:6379: {self._server.refuses[name]}")
        self._server.settings[name] = value
        self._server.was_set[name] = value

    def heard(self, _channel: str, _seconds: float) -> Any:
        """SUBSCRIBE."""
        yield from self._server.messages

    def close(self) -> None:
        """End."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    """Every connection to a server goes to this one."""
    fake = Server()
    monkeypatch.setattr(_client, "connect", fake.connect)
    monkeypatch.setattr(_client, "REDIS_IMPORT_ERROR", None)
    return fake


GOOD_MODULE = "int RedisModule_OnLoad(void *c, void **v, int n) { (void)c; (void)v; (void)n; return 0; }\n"


@pytest.fixture
def build_so(tmp_path: Any) -> Callable[..., str]:
    """Return a function that builds a small ELF file with gcc; by default a shared object that any Redis would take."""

    def build(name: str = "good.so", source: str = GOOD_MODULE, flags: tuple[str, ...] = ("-shared", "-fPIC")) -> str:
        compiler = shutil.which("gcc") or shutil.which("cc")
        assert compiler, "the tests of ELF files need a C compiler"
        code = tmp_path / (name + ".c")
        code.write_text(source)
        target = tmp_path / name
        subprocess.run([compiler, "-o", str(target), str(code), *flags], check=True)
        return str(target)

    return build
