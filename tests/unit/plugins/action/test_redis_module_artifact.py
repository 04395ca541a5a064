# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part: sources and artifacts are found, checked, and sent only where the host asks."""

from __future__ import annotations

import hashlib
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.action import redis_module_artifact as action
from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build


class TestSourceFaults:
    """What an entry names and its folder does not have."""

    def faults(self, folder: Path, **entry: Any) -> list[str]:
        return action.source_faults(entry, str(folder), _build.source_files(str(folder)))

    def test_no_c_sources(self, tmp_path: Path) -> None:
        (tmp_path / "a.cc").write_text("")
        assert self.faults(tmp_path) == [f"there are no C sources in {tmp_path}; name them in sources"]

    def test_a_source_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.c").write_text("")
        assert self.faults(tmp_path, sources=["a.c", "b.c"]) == [f"source b.c is not in {tmp_path}"]
        assert self.faults(tmp_path, sources=["./a.c"]) == []
        assert self.faults(tmp_path) == []

    def test_a_folder_of_headers_that_is_not_there(self, tmp_path: Path) -> None:
        (tmp_path / "a.c").write_text("")
        (tmp_path / "inc").mkdir()
        assert self.faults(tmp_path, include_dirs=["inc", "none"]) == [
            f"include_dirs: there is no folder none in {tmp_path}"
        ]

    @pytest.mark.parametrize("name", ["Makefile", "makefile", "GNUmakefile"])
    def test_make_needs_its_makefile_at_the_top_and_nothing_else(self, tmp_path: Path, name: str) -> None:
        (tmp_path / "sub").mkdir()
        (tmp_path / "sub" / name).write_text("")
        assert self.faults(tmp_path, make_target="all") == [f"make_target needs a Makefile in {tmp_path}"]
        (tmp_path / name).write_text("")
        assert self.faults(tmp_path, make_target="all") == []


class Shell:
    """Stands for the connection's shell."""

    tmpdir = "/remote/tmp"

    def join_path(self, *parts: str) -> str:
        return "/".join(parts)


class Host:
    """A host that answers as it is told; remembers how the module was run and what was sent."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.ran: list[dict[str, Any]] = []
        self.sent: list[tuple[str, list[str]]] = []
        self.readable: list[Any] = []

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module_name == "edgeops.redis_modules.redis_module_artifact"
        self.ran.append(dict(module_args))
        return self.answers.pop(0)

    def transfer(self, local: str, remote: str) -> None:
        names = []
        if tarfile.is_tarfile(local):
            with tarfile.open(local) as archive:
                names = archive.getnames()
        self.sent.append((remote, names))


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def act(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that runs the action with these arguments."""
    monkeypatch.setattr(ActionBase, "run", lambda self, tmp=None, task_vars=None: {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "inventory").mkdir()
    (tmp_path / "playbook").mkdir()

    def run(**args: Any) -> dict[str, Any]:
        plugin = action.ActionModule.__new__(action.ActionModule)
        plugin._task = type("Task", (), {"args": args})()
        plugin._connection = type("Connection", (), {"_shell": Shell()})()
        plugin._execute_module = host.execute
        plugin._transfer_file = host.transfer
        plugin._fixup_perms2 = host.readable.append
        result: dict[str, Any] = plugin.run(
            None, {"inventory_dir": str(tmp_path / "inventory"), "playbook_dir": str(tmp_path / "playbook")}
        )
        return result

    return run


def sources(folder: Path, text: str = "int a;") -> Path:
    """Make a source folder."""
    folder.mkdir(parents=True)
    (folder / "a.c").write_text(text)
    return folder


def test_nothing_is_sent_where_the_host_has_it(act: Any, host: Host, tmp_path: Path) -> None:
    folder = sources(tmp_path / "inventory" / "src")
    host.answers = [{"changed": False, "path": "/cache/a.so"}]
    assert act(name="a", src="src") == {"changed": False, "path": "/cache/a.so"}
    assert host.sent == []
    assert host.ran == [
        {"name": "a", "src": "src", "_source": {"files": ["a.c"], "digest": _build.tree_digest(str(folder), ["a.c"])}}
    ]


def test_sources_are_sent_in_one_archive_where_the_host_asks(act: Any, host: Host, tmp_path: Path) -> None:
    folder = sources(tmp_path / "inventory" / "src")
    (folder / "b.h").write_text("")
    (folder / "a.o").write_text("")
    host.answers = [{"changed": True, "needs": "source"}, {"changed": True, "path": "/cache/a.so"}]
    assert act(name="a", src="src", cflags=["-O0"]) == {"changed": True, "path": "/cache/a.so"}
    assert host.sent == [("/remote/tmp/source", ["a.c", "b.h"])]
    assert host.ran[1] == {**host.ran[0], "_archive": "/remote/tmp/source"}
    assert host.readable == [("/remote/tmp", "/remote/tmp/source")]


def test_an_artifact_is_checked_here_and_sent_where_the_host_asks(act: Any, host: Host, tmp_path: Path) -> None:
    (tmp_path / "playbook" / "a.so").write_bytes(b"so")
    digest = hashlib.sha256(b"so").hexdigest()
    host.answers = [{"needs": "artifact"}, {"changed": True}]
    assert act(name="a", artifact="a.so", sha256=digest.upper()) == {"changed": True}
    assert [remote for remote, _names in host.sent] == ["/remote/tmp/artifact"]
    assert host.ran[1] == {"name": "a", "artifact": "a.so", "sha256": digest, "_upload": "/remote/tmp/artifact"}


def test_a_url_is_the_hosts_business(act: Any, host: Host) -> None:
    host.answers = [{"changed": True}]
    act(name="a", artifact="https://files.example.com/a.so", sha256="0" * 64)
    assert host.sent == []


def test_a_failure_of_the_host_is_passed_on(act: Any, host: Host, tmp_path: Path) -> None:
    sources(tmp_path / "inventory" / "src")
    host.answers = [{"failed": True, "msg": "no"}]
    assert act(name="a", src="src") == {"failed": True, "msg": "no"}
    assert host.sent == []


def test_the_inventory_goes_before_the_playbook_and_that_before_the_current_folder(
    act: Any, host: Host, tmp_path: Path
) -> None:
    digests = []
    for place in (tmp_path / "src", tmp_path / "playbook" / "src", tmp_path / "inventory" / "src"):
        sources(place, f"int a; /* {place} */")
        host.answers = [{}]
        act(name="a", src="src")
        digests.append(host.ran[-1]["_source"]["digest"])
        assert digests[-1] == _build.tree_digest(str(place), ["a.c"])
    assert len(set(digests)) == 3


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"name": "a", "src": "none"}, "module a: there is no none on the controller; looked in "),
        ({"name": "a", "src": "/nowhere"}, "module a: there is no /nowhere on the controller"),
        ({"name": "a", "src": "file"}, "must be a folder; name the files in sources"),
        ({"name": "a", "src": "empty"}, "module a: there are no C sources in "),
        ({"name": "a", "src": "src", "sources": ["b.c"]}, "module a: source b.c is not in "),
        (
            {"name": "a", "artifact": "file", "sha256": "0" * 64},
            f"declared is {'0' * 64}; correct the one that is wrong",
        ),
        ({"name": "a", "artifact": "none.so", "sha256": "0" * 64}, "module a: there is no none.so on the controller"),
        ({"name": "a"}, "module a: give exactly one of src"),
        ({"name": "a b", "src": "src"}, "name 'a b' must be letters"),
        ({"name": "a", "artifact": "a.so"}, "artifact needs its sha256"),
    ],
)
def test_bad_input_is_told_before_any_host_is_asked(
    act: Any, host: Host, tmp_path: Path, args: dict[str, Any], message: str
) -> None:
    sources(tmp_path / "inventory" / "src")
    (tmp_path / "inventory" / "empty").mkdir()
    (tmp_path / "inventory" / "file").write_text("x")
    with pytest.raises(AnsibleActionFail) as caught:
        act(**args)
    assert message in str(caught.value)
    assert host.ran == []
