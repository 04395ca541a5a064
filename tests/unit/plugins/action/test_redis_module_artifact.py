# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's part: sources and artifacts are found, checked, and sent only where the host asks."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

from ansible_collections.edgeops.redis_modules.plugins.action import redis_module_artifact as action
from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _builders,
    _cache,
    _declaration,
    _workshop,
)
from ansible_collections.edgeops.redis_modules.plugins.plugin_utils import _looking

GOOD_MODULE = "int RedisModule_OnLoad(void *c, void **v, int n) { (void)c; (void)v; (void)n; return 0; }\n"


class TestSourceFaults:
    """What an entry names and its folder does not have."""

    def faults(self, folder: Path, **entry: Any) -> list[str]:
        return _looking.source_faults(entry, str(folder), _build.source_files(str(folder)))

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
        self.answers: list[Any] = []
        self.ran: list[dict[str, Any]] = []
        self.sent: list[str] = []
        self.files: list[list[str]] = []
        self.fetched: dict[str, Path] = {}

    def execute(self, module_name: str, module_args: dict[str, Any], task_vars: Any) -> dict[str, Any]:
        assert module_name == "edgeops.redis_modules.redis_module_artifact"
        self.files.append(self.names(base64.b64decode(module_args.get("_content", ""))))
        self.ran.append({key: value for key, value in module_args.items() if key != "_content"})
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    @staticmethod
    def names(archive: bytes) -> list[str]:
        """Return the files of an archive."""
        if not archive:
            return []
        with tarfile.open(fileobj=io.BytesIO(archive)) as stream:
            return stream.getnames()

    def transfer(self, local: str, remote: str) -> None:
        self.sent.append(remote)

    def fetch_file(self, remote: str, local: str) -> None:
        shutil.copyfile(self.fetched[remote], local)


ENTRY = _build.options_of(_declaration.completed({"name": "a", "src": "src"}, "/"))
LOOK: dict[str, Any] = {
    "platform": {"architecture": "x86_64", "libc": "glibc 2.36"},
    "redis": "7.0.15",
    "compiler": "gcc 12",
    "headers": {},
    "artifacts": {},
}


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

    def run(step: str = "look", check: bool = False, **args: Any) -> dict[str, Any]:
        plugin = action.ActionModule.__new__(action.ActionModule)
        args = {"step": step, "controller_cache": str(tmp_path / "cache"), "cache": "/host", **args}
        plugin._task = type("Task", (), {"args": args, "check_mode": check})()
        plugin._connection = type("Connection", (), {"_shell": Shell(), "fetch_file": staticmethod(host.fetch_file)})()
        plugin._execute_module = host.execute
        plugin._transfer_file = host.transfer
        plugin._fixup_perms2 = lambda paths: None
        folders = {"inventory_dir": str(tmp_path / "inventory"), "playbook_dir": str(tmp_path / "playbook")}
        result: dict[str, Any] = plugin.run(None, {**folders, "inventory_hostname": "h"})
        return result

    return run


def sources(folder: Path, text: str = "int a;") -> Path:
    """Make a source folder."""
    folder.mkdir(parents=True)
    (folder / "a.c").write_text(text)
    return folder


def keep(cache: Path, name: str, inputs: str, content: bytes = b"so", **manifest: Any) -> dict[str, Any]:
    """Put an artifact into a cache; return its manifest."""
    made = {"name": name, "inputs": inputs, "sha256": hashlib.sha256(content).hexdigest(), **manifest}
    (cache / "new").parent.mkdir(parents=True, exist_ok=True)
    (cache / "new").write_bytes(content)
    _cache.store(str(cache), str(cache / "new"), made)
    return made


class TestLook:
    """All modules of a host are one question."""

    def test_one_call_asks_for_all_modules(self, act: Any, host: Host, tmp_path: Path) -> None:
        digest = _build.tree_digest(str(sources(tmp_path / "inventory" / "src")), ["a.c"])
        (tmp_path / "playbook" / "b.so").write_bytes(b"so")
        sha256 = hashlib.sha256(b"so").hexdigest()
        host.answers = [dict(LOOK)]
        seen = act(
            modules=[
                {"name": "a", "src": "src", "cflags": ["-O0"]},
                {"name": "b", "artifact": "b.so", "sha256": sha256.upper()},
                {"name": "c", "artifact": "https://files.example.com/c.so", "sha256": "0" * 64},
                {"name": "gone", "state": "absent"},
            ]
        )
        (asked,) = host.ran
        assert asked["_sources"] == {"a": [digest], "b": [sha256], "c": ["0" * 64]}
        assert asked["_headers"] == ["server"]
        assert [want["name"] for want in seen["wanted"]] == ["a", "b", "c"]
        built, given, fetched = seen["wanted"]
        assert (built["src"], built["entry"]["cflags"]) == (str(tmp_path / "inventory" / "src"), ["-O0"])
        assert (given["local"], fetched["local"]) == (str(tmp_path / "playbook" / "b.so"), "")
        assert given["inputs"] == _build.inputs_digest({"sha256": sha256})
        assert host.files == [[]]

    def test_what_the_controller_has_is_told(self, act: Any, host: Host, tmp_path: Path) -> None:
        digest = _build.tree_digest(str(sources(tmp_path / "inventory" / "src")), ["a.c"])
        keep(tmp_path / "cache", "a", "1" * 64, source_digest=digest)
        host.answers = [dict(LOOK)]
        seen = act(modules=[{"name": "a", "src": "src"}])
        assert [held["inputs"] for held in seen["held"]["a"]] == ["1" * 64]

    @pytest.mark.parametrize(
        ("own", "args", "wanted"),
        [
            (False, {}, "server"),
            (True, {}, ""),
            (True, {"header_sha256": "ab" * 32}, "given-" + "ab" * 8),
            (False, {"header": "/opt/redismodule.h", "header_sha256": "ab" * 32}, "/opt/redismodule.h"),
        ],
    )
    def test_which_header_is_asked_for(
        self, act: Any, host: Host, tmp_path: Path, own: bool, args: dict[str, Any], wanted: str
    ) -> None:
        folder = sources(tmp_path / "inventory" / "src")
        if own:
            (folder / "redismodule.h").write_text("")
        host.answers = [dict(LOOK)]
        assert act(modules=[{"name": "a", "src": "src"}], **args)["header"] == wanted
        assert host.ran[0]["_headers"] == ([wanted] if wanted else [])

    def test_a_builder_is_asked_for_what_all_hosts_want(self, act: Any, host: Host) -> None:
        of = [
            {
                "wanted": [{"name": "a", "source_digest": digest}],
                "header": "server",
                "headers": {"server": {"name": version}},
            }
            for digest, version in (("1", "7.0.15"), ("2", "6.0.16"), ("1", "7.0.15"))
        ]
        host.answers = [dict(LOOK)]
        assert act(of=of) == LOOK
        assert host.ran[0]["_sources"] == {"a": ["1", "2"]}
        assert host.ran[0]["_headers"] == ["6.0.16", "7.0.15"]

    def test_a_builder_that_can_not_be_asked_is_no_failure_yet(self, act: Any, host: Host) -> None:
        host.answers = [{"failed": True, "msg": "no Python"}, AnsibleConnectionFailure("no route")]
        assert act(of=[]) == {"changed": False, "msg": "no Python"}
        assert act(of=[]) == {"changed": False, "msg": "no route"}

    def test_the_controller_looks_at_itself(self, act: Any, host: Host, tmp_path: Path) -> None:
        sources(tmp_path / "inventory" / "src")
        host.answers = [{**LOOK, "headers": {"server": {"name": "7.0.15"}}}]
        here = act(modules=[{"name": "a", "src": "src"}], on_controller="yes")["controller"]
        assert here["platform"]["architecture"] == os.uname().machine
        assert list(here["headers"]) == ["7.0.15"]

    def test_a_failure_of_the_host_is_passed_on(self, act: Any, host: Host, tmp_path: Path) -> None:
        sources(tmp_path / "inventory" / "src")
        host.answers = [{"failed": True, "msg": "no"}]
        assert act(modules=[{"name": "a", "src": "src"}]) == {"failed": True, "msg": "no"}

    def test_the_inventory_goes_before_the_playbook_and_that_before_the_current_folder(
        self, act: Any, host: Host, tmp_path: Path
    ) -> None:
        digests = []
        for place in (tmp_path / "src", tmp_path / "playbook" / "src", tmp_path / "inventory" / "src"):
            sources(place, f"int a; /* {place} */")
            host.answers = [dict(LOOK)]
            act(modules=[{"name": "a", "src": "src"}])
            digests.append(host.ran[-1]["_sources"]["a"][0])
            assert digests[-1] == _build.tree_digest(str(place), ["a.c"])
        assert len(set(digests)) == 3


class TestBuild:
    """The sources of all jobs go in one call, and what was built comes back with it."""

    def job(self, tmp_path: Path) -> dict[str, Any]:
        folder = sources(tmp_path / "src")
        (folder / "b.h").write_text("")
        (folder / "a.o").write_text("")
        digest = _build.tree_digest(str(folder), ["a.c", "b.h"])
        return {"name": "a", "src": str(folder), "make_output": "", "source_digest": digest}

    def answer(self, tmp_path: Path, inline: bool = True) -> dict[str, Any]:
        made = keep(tmp_path / "builder", "a", "1" * 64)
        files = _cache.names_in_archive(str(tmp_path / "builder"), [("a", "1" * 64)])
        content = base64.b64encode(_build.pack(files)).decode() if inline else ""
        return {"changed": True, "_content": content, "made": [{"name": "a", "inputs": "1" * 64, "manifest": made}]}

    def test_what_was_built_is_kept_here(self, act: Any, host: Host, tmp_path: Path) -> None:
        job = self.job(tmp_path)
        host.answers = [self.answer(tmp_path)]
        result = act("build", modules=[job])
        short = job["source_digest"][:16]
        assert host.files == [[f"{short}/a.c", f"{short}/b.h"]]
        assert "_content" not in result
        assert _cache.whole(str(tmp_path / "cache"), "a", "1" * 64) == result["made"][0]["manifest"]
        assert host.sent == []

    def test_what_is_large_is_fetched(self, act: Any, host: Host, tmp_path: Path) -> None:
        host.answers = [self.answer(tmp_path, inline=False)]
        there = _cache.names_in_archive("/host", [("a", "1" * 64)])
        here = _cache.names_in_archive(str(tmp_path / "builder"), [("a", "1" * 64)])
        host.fetched = {there[name]: Path(here[name]) for name in there}
        act("build", modules=[self.job(tmp_path)])
        assert _cache.whole(str(tmp_path / "cache"), "a", "1" * 64)

    def test_large_sources_are_transferred(
        self, act: Any, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_workshop, "INLINE", 10)
        host.answers = [self.answer(tmp_path)]
        act("build", modules=[self.job(tmp_path)])
        assert host.sent == ["/remote/tmp/sent.tar.gz"]
        assert host.ran[0]["_archive"] == "/remote/tmp/sent.tar.gz"

    def test_a_header_goes_with_them(self, act: Any, host: Host, tmp_path: Path) -> None:
        host.answers = [self.answer(tmp_path)]
        header = base64.b64encode(b"header").decode()
        act("build", modules=[self.job(tmp_path)], header_name="7.0.15", header_content=header)
        assert "redismodule.h" in host.files[0]
        assert host.ran[0]["header_name"] == "7.0.15"
        assert "header_content" not in host.ran[0]

    def test_check_mode_asks_nobody(self, act: Any, host: Host, tmp_path: Path) -> None:
        assert act("build", True, modules=[self.job(tmp_path)])["changed"]
        assert host.ran == []
        assert not (tmp_path / "cache").exists()

    def test_what_comes_back_damaged_is_not_kept(self, act: Any, host: Host, tmp_path: Path) -> None:
        answer = self.answer(tmp_path)
        answer["made"][0]["inputs"] = "2" * 64
        host.answers = [answer]
        with pytest.raises(AnsibleActionFail, match="module a: what came from the builder is damaged"):
            act("build", modules=[self.job(tmp_path)])

    def test_a_cache_that_can_not_be_written_is_told(self, act: Any, host: Host, tmp_path: Path) -> None:
        host.answers = [self.answer(tmp_path)]
        (tmp_path / "cache").write_text("in the way")
        with pytest.raises(AnsibleActionFail, match="see redis_build_controller_cache"):
            act("build", modules=[self.job(tmp_path)])

    def test_the_controller_builds(self, act: Any, host: Host, tmp_path: Path) -> None:
        folder = sources(tmp_path / "src", GOOD_MODULE)
        entry = _build.options_of(_declaration.completed({"name": "a", "src": "src"}, "/"))
        digest = _build.tree_digest(str(folder), ["a.c"])
        job = {**entry, "name": "a", "src": str(folder), "header": "7.0.15", "source_digest": digest, "inputs": ""}
        header = base64.b64encode(b"/* header */").decode()
        args = {"on_controller": True, "header_name": "7.0.15", "header_content": header, "keep": 5}
        result = act("build", modules=[{**job, "request": "r"}], **args)
        (made,) = result["made"]
        assert (made["request"], made["fault"], result["changed"]) == ("r", "", True)
        assert _cache.whole(str(tmp_path / "cache"), "a", made["inputs"])["request"] == "r"
        assert (tmp_path / "cache" / "headers" / "7.0.15" / "redismodule.h").read_bytes() == b"/* header */"
        assert host.ran == []


class TestLay:
    """One call takes all that a host lacks there; none where it lacks nothing."""

    SEEN: ClassVar[dict[str, Any]] = {
        **LOOK,
        "header": "",
        "held": {"a": [{"inputs": "1" * 64}]},
        "wanted": [
            {"name": "a", "inputs": "", "artifact": "", "local": "", "source_digest": "x", "entry": ENTRY},
            {"name": "b", "inputs": "2" * 64, "artifact": "b.so", "local": "", "source_digest": "y"},
        ],
    }

    def share(self, **more: Any) -> dict[str, Any]:
        return {"builder": "other", "artifacts": {}, "lacks": {}, "fault": "", "platform": "p", **more}

    def test_all_go_in_one_call(self, act: Any, host: Host, tmp_path: Path) -> None:
        keep(tmp_path / "cache", "a", "1" * 64)
        (tmp_path / "b.so").write_bytes(b"b")
        seen = {
            **self.SEEN,
            "wanted": [self.SEEN["wanted"][0], {**self.SEEN["wanted"][1], "local": str(tmp_path / "b.so")}],
        }
        host.answers = [{"changed": True, "artifacts": {"a": {"path": "/a.so"}, "b": {"path": "/b.so"}}}]
        has = {"c": {"path": "/c.so", "sha256": "3"}}
        share = self.share(lacks={"a": "1" * 64, "b": "2" * 64}, artifacts=has)
        result = act("lay", share=share, seen=seen)
        assert sorted(result["artifacts"]) == ["a", "b", "c"]
        assert sorted(host.files[0]) == [
            f"a/{'1' * 64}/a.so",
            f"a/{'1' * 64}/manifest.json",
            f"b/{'2' * 64}/b.so",
        ]
        assert [piece["name"] for piece in host.ran[0]["modules"]] == ["a", "b"]

    def test_nothing_is_asked_of_a_host_that_has_all(self, act: Any, host: Host) -> None:
        has = {"a": {"path": "/a.so", "sha256": "1"}}
        assert act("lay", share=self.share(artifacts=has), seen=self.SEEN) == {"changed": False, "artifacts": has}
        assert host.ran == []

    def test_nor_of_the_one_that_has_built_it(self, act: Any, host: Host) -> None:
        request = _builders.request(self.SEEN["wanted"][0], self.SEEN)
        manifest = {"inputs": "9" * 64, "sha256": "s"}
        made = {"changed": True, "made": [{"name": "a", "request": request, "inputs": "9" * 64, "manifest": manifest}]}
        result = act("lay", share=self.share(builder="h", lacks={"a": ""}), seen=self.SEEN, made=made)
        path = f"/host/artifacts/a/{'9' * 16}/a.so"
        assert result == {"changed": True, "artifacts": {"a": {"path": path, "sha256": "s"}}}
        assert host.ran == []

    def test_what_could_not_be_built_fails_the_host(self, act: Any, host: Host) -> None:
        with pytest.raises(AnsibleActionFail, match="module a: other builds it for all hosts of p, and could not: no"):
            act("lay", share=self.share(lacks={"a": ""}), seen=self.SEEN, made={"msg": "no"})
        assert host.ran == []

    def test_check_mode_tells_what_is_lacking(self, act: Any, host: Host) -> None:
        result = act("lay", True, share=self.share(lacks={"a": ""}), seen=self.SEEN)
        assert result == {"changed": True, "artifacts": {"a": {"path": "", "sha256": ""}}}
        assert host.ran == []


def test_an_unknown_step_is_refused(act: Any) -> None:
    with pytest.raises(AnsibleActionFail, match="step must be look, build or lay"):
        act("run")


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
        act(modules=[args])
    assert message in str(caught.value)
    assert host.ran == []
