# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site takes what is signed, whole and newer, and nothing else; git and ssh-keygen are the real ones."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path
from typing import Any, Callable, Sequence

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declaration, _pull

HOST = {"architecture": "x86_64", "libc": "glibc 2.31", "redis": "6.0.16"}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def tarball(text: str) -> bytes:
    """A collection of one file."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        member = tarfile.TarInfo("MANIFEST.json")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text.encode()))
    return out.getvalue()


def wheel(name: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{name}.py", "")
    return out.getvalue()


def artifact(module: str = "m", glibc: str = "2.14", redis: str = "6.0.16", **more: str) -> dict[str, str]:
    """An artifact as the manifest has it."""
    path = f"artifacts/{more.get('architecture', 'x86_64')}-{glibc}-{redis}/{module}.so"
    made = {"module": module, "recipe": _pull.recipe({"src": "x"}), "path": path, "sha256": sha256(path.encode())}
    return {**made, "architecture": "x86_64", "glibc": glibc, "redis": redis, **more}


# ---------------------------------------------------------------- decisions


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({}, ""),
        ({"glibc": "2.31"}, ""),
        ({"glibc": "2.34"}, "needs glibc 2.34"),
        ({"glibc": "2.4"}, ""),
        ({"glibc": ""}, ""),
        ({"architecture": "aarch64"}, "is for aarch64"),
        ({"redis": "6.0.99"}, ""),
        ({"redis": "6.2.0"}, "was built for Redis 6.2.0"),
        ({"redis": "5.0.3"}, ""),
        ({"redis": ""}, ""),
    ],
)
def test_what_fits_a_host(more: dict[str, str], reason: str) -> None:
    assert _pull.misfit(artifact(**more), HOST) == reason


def test_musl_takes_no_glibc() -> None:
    assert _pull.misfit(artifact(), {**HOST, "libc": "unknown"}) == "needs glibc 2.14"
    assert not _pull.misfit(artifact(glibc=""), {**HOST, "libc": "unknown"})


def test_the_nearest_is_chosen() -> None:
    offered = [artifact(redis="5.0.1"), artifact(glibc="2.4"), artifact(glibc="2.14"), artifact(redis="7.0.15")]
    assert [found["path"] for found in _pull.chosen(offered, HOST)] == ["artifacts/x86_64-2.14-6.0.16/m.so"]
    newer = {"architecture": "x86_64", "libc": "glibc 2.36", "redis": "7.0.15"}
    assert [found["redis"] for found in _pull.chosen(offered, newer)] == ["7.0.15"]


def test_the_sources_of_an_entry_become_the_artifact_of_that_entry() -> None:
    entry = {"name": "m", "src": "x", "args": ["a"], "version": 1}
    other = artifact(recipe=_pull.recipe({"src": "x", "defines": ["NEW"]}), glibc="2.30")
    found = _pull.from_repository([entry, {"name": "old", "state": "absent"}], [artifact(), other], HOST, "/tree")
    wanted = {"name": "m", "args": ["a"], "version": 1, "artifact": "/tree/" + artifact()["path"]}
    assert found == [{**wanted, "sha256": artifact()["sha256"]}, {"name": "old", "state": "absent"}]
    assert _declaration.declared(found, "/m")[0]["artifact"] == wanted["artifact"]


@pytest.mark.parametrize(
    ("artifacts", "reason"),
    [
        ([], "the repository has none of it"),
        ([artifact(glibc="2.34")], "artifacts/x86_64-2.34-6.0.16/m.so needs glibc 2.34. Build it for this platform"),
        ([artifact(recipe="0")], "the repository's artifacts are of another entry than this one"),
    ],
)
def test_an_entry_without_an_artifact_is_told(artifacts: Any, reason: str) -> None:
    with pytest.raises(
        ValueError,
        match=r"module m: no artifact fits this host \(x86_64, glibc 2.31, Redis 6.0.16\): "
        + reason.replace("(", r"\("),
    ):
        _pull.from_repository([{"name": "m", "src": "x"}], artifacts, HOST, "/tree")


def test_the_recipe_knows_all_that_a_build_takes() -> None:
    made_of = {*_declaration.ORIGINS, "sha256", *_declaration.BUILD_KEYS, *_declaration.MAKE_KEYS}
    assert set(_pull.RECIPE_KEYS) == made_of
    plain = _pull.recipe({"name": "m", "src": "x"})
    assert plain == _pull.recipe({"src": "x", "args": ["1"], "sources": [], "version": 2})
    assert plain != _pull.recipe({"src": "x", "defines": ["A"]})


def test_a_site_takes_its_own_files_alone() -> None:
    manifest = {
        "collection": {"path": "collection/c.tar.gz", "sha256": ""},
        "artifacts": [artifact(), artifact(glibc="2.36"), artifact(architecture="aarch64")],
        "wheels": {"any": [{"path": "wheels/any/a.whl"}], "cp39-x86_64": [{"path": "wheels/cp39-x86_64/b.whl"}]},
        "also": ["files"],
    }
    own = ["edgeops.json", "collection/c.tar.gz", "artifacts/x86_64-2.14-6.0.16/m.so", "wheels/any/a.whl"]
    own += ["inventory/hosts.yml", "inventory/group_vars/all.yml", "inventory/host_vars/pump1.yml"]
    own += ["inventory/host_vars/pump1/secret.yml", "files/ca.pem"]
    others = ["README.md", "collection/old.tar.gz", "inventory/host_vars/pump11.yml", "inventory/host_vars/pump2/x.yml"]
    others += ["artifacts/x86_64-2.36-6.0.16/m.so", "wheels/cp39-x86_64/b.whl", "files2/x", "sources/m.c"]
    assert _pull.wanted([*own, *others], "pump1", manifest, HOST, ["any"]) == own
    with_core = _pull.wanted([*own, *others], "pump1", manifest, HOST, ["any", "cp39-x86_64"])
    assert set(with_core) - set(own) == {"wheels/cp39-x86_64/b.whl"}


@pytest.mark.parametrize(
    ("given", "fault"),
    [
        ("{", "can't be read"),
        ("[]", "must be a dictionary"),
        ('{"site": "a", "repository": "r", "pace": 1}', "unknown key 'pace'"),
        ('{"site": "a", "repository": "r", "attempts": "few"}', "attempts must be of the kind of 5"),
        ('{"site": "a;b", "repository": "r"}', "must be this host's name"),
        ('{"site": "a"}', "nowhere to pull from"),
        ('{"site": "a", "repository": "--upload-pack=x"}', "must not begin with -"),
    ],
)
def test_a_wrong_configuration_is_told(given: str, fault: str) -> None:
    with pytest.raises(_pull.PullError, match=fault) as error:
        _pull.configured(given, "/etc")
    assert error.value.result == "misconfigured"


def test_a_configuration() -> None:
    found = _pull.configured(
        '{"media": ["/m"], "ssh_key": "/k", "attempts": "7"}', "/etc/edgeops", {"site": "b", "other": None}
    )
    assert (found["site"], found["allowed_signers"], found["ssh_key"]) == ("b", "/etc/edgeops/allowed_signers", "/k")
    assert (found["known_hosts"], found["branch"], found["attempts"]) == ("", "main", 7)


def test_signers_do_not_depend_on_a_clock() -> None:
    assert not _pull.signer_faults('# a\n\nops@x namespaces="git" ssh-ed25519 AAAA valid-words\n')
    assert _pull.signer_faults("# none\n") == ["it names no key, so no state could ever be applied"]
    for option in ('valid-before="20300101"', 'namespaces="git",valid-after="2020"', "cert-authority"):
        assert len(_pull.signer_faults(f"ops@x {option} ssh-ed25519 AAAA")) == 1


COMMIT = b"tree 1\nparent 2\nauthor a <a> 1 +0000\ncommitter a <a> 1700000000 +0100\n"
SIGNATURE = b"gpgsig -----BEGIN SSH SIGNATURE-----\n AAAA\n -----END SSH SIGNATURE-----\n"


def test_a_signature_covers_all_but_itself() -> None:
    signed, signature = _pull.signed_parts(COMMIT + SIGNATURE + b"encoding x\n\nsubject\n\ngpgsig no\n")
    assert signed == COMMIT + b"encoding x\n\nsubject\n\ngpgsig no\n"
    assert signature == b"-----BEGIN SSH SIGNATURE-----\nAAAA\n-----END SSH SIGNATURE-----\n"
    assert _pull.commit_time(signed) == 1700000000
    assert _pull.commit_time(b"tree 1\n\ncommitter a <a> 1 +0000") == 0


@pytest.mark.parametrize(
    ("commit", "reason"),
    [
        (COMMIT + b"\ngpgsig -----BEGIN SSH SIGNATURE-----\n", "not signed"),
        (COMMIT + SIGNATURE + SIGNATURE + b"\nx", "more than one"),
        (COMMIT + b"gpgsig -----BEGIN PGP SIGNATURE-----\n\nx", "not signed with an SSH key"),
    ],
)
def test_no_signature_to_go_by(commit: bytes, reason: str) -> None:
    with pytest.raises(_pull.PullError, match=reason):
        _pull.signed_parts(commit)


def test_pauses_grow_and_differ() -> None:
    assert [_pull.pause(n, 0.5) for n in range(5)] == [5, 15, 45, 135, 300]
    assert _pull.pause(1, 0.0) == 7.5


def test_what_ansible_says() -> None:
    assert _pull.hosts_listed("  hosts (1):\n    pump1\n") == ["pump1"]
    assert _pull.hosts_listed("[WARNING]: Could not match\n  hosts (0):\n") == []
    log = 'fatal: [p]: FAILED! => {"msg": "first"}\n...\nfatal: [p]: FAILED! => {"a": 1, "msg": "why"}\nfatal: x'
    assert _pull.reason_of(log) == "why"
    assert _pull.reason_of("ERROR! no inventory\n") == "ERROR! no inventory"
    assert _pull.reason_of("") == "the playbook failed; its log says more"


def test_a_status_for_prometheus() -> None:
    times = dict.fromkeys(("last_run", "last_success", "last_contact", "commit_time"), 1700000001)
    rows = [{"module": 'a"b', "verdict": "drifted"}]
    text = _pull.prometheus({"site": "p", "result": "refused", "applied": "ab", "modules": rows, **times})
    assert 'edgeops_pull_result{result="refused"} 1\n' in text
    assert 'edgeops_pull_result{result="converged"} 0\n' in text
    assert "edgeops_pull_last_success_timestamp_seconds 1700000001\n" in text
    assert 'edgeops_pull_module_ok{module="a\\"b",verdict="drifted"} 0\n' in text


# ---------------------------------------------------------------- by effect


class Central:
    """The central side: a repository with signed states, and a server's copy of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.work, self.server = folder / "work", folder / "server.git"
        for name in ("ops", "stranger"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(folder / name)], check=True
            )
        self.signers = folder / "allowed_signers"
        self.signers.write_text(f"ops@example.com {(folder / 'ops.pub').read_text()}")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.server)], check=True)
        subprocess.run(["git", "init", "-q", "-b", "main", str(self.work)], check=True)
        self.git("config", "user.name", "ops")
        self.git("config", "user.email", "ops@example.com")
        self.git("config", "gpg.format", "ssh")
        self.git("remote", "add", "origin", str(self.server))
        self.on_server("config", "uploadpack.allowFilter", "true")

    def git(self, *words: str) -> str:
        environment = {**os.environ, "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(self.folder)}
        done = subprocess.run(
            ["git", *words], cwd=self.work, env=environment, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def on_server(self, *words: str) -> str:
        done = subprocess.run(["git", *words], cwd=self.server, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def state(self, text: str = "1", key: str = "ops", push: bool = True, **manifest: Any) -> str:
        """Commit a state of the fleet, signed with a key or not, and return the commit."""
        offered = [artifact(), artifact(architecture="aarch64")]
        files = {
            "collection/c.tar.gz": tarball(text),
            "inventory/hosts.yml": f"all: {{hosts: {{pump1: {{text: {text}}}}}}}\n".encode(),
            "inventory/host_vars/pump2.yml": b"secret: 1\n",
            "wheels/any/a.whl": wheel("a"),
            **{found["path"]: found["path"].encode() for found in offered},
        }
        told = {
            "format": 1,
            "branch": "main",
            "collection": {"path": "collection/c.tar.gz", "sha256": sha256(files["collection/c.tar.gz"])},
            "wheels": {"any": [{"path": "wheels/any/a.whl", "sha256": sha256(files["wheels/any/a.whl"])}]},
            "artifacts": offered,
            **manifest,
        }
        files["edgeops.json"] = json.dumps(told).encode()
        for path, content in files.items():
            (self.work / path).parent.mkdir(parents=True, exist_ok=True)
            (self.work / path).write_bytes(content)
        self.git("add", "--all")
        sign = [f"-S{self.folder / key}"] if key else ["--no-gpg-sign"]
        self.git("commit", "-q", "--allow-empty", "-m", text, *sign)
        if push:
            self.git("push", "-q", "--force", "origin", "main")
        return self.git("rev-parse", "HEAD")

    def bundle(self, *what: str) -> str:
        path = self.folder / "fleet.bundle"
        self.git("bundle", "create", "-q", str(path), *(what or ("main",)))
        return str(path)


@pytest.fixture
def central(tmp_path: Path) -> Central:
    return Central(tmp_path)


@pytest.fixture
def site(central: Central, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Return a function that runs the agent of the site pump1, and returns its status."""
    applied: list[str] = []
    outcome = ["converged", ""]
    monkeypatch.setattr(_pull.Agent, "own_core", (2, 14))
    monkeypatch.setattr(_pull, "this_host", lambda _binary: HOST)
    monkeypatch.setattr(_pull.Agent, "apply", lambda _self, tip: (applied.append(tip), tuple(outcome))[1])
    monkeypatch.setattr(time, "sleep", lambda _seconds: None)
    monkeypatch.setattr(os, "sync", lambda: None)  # of the whole machine, which may be busy
    config = tmp_path / "pull.json"
    given = {"site": "pump1", "repository": f"file://{central.server}", "state": str(tmp_path / "state"), "free_mb": 1}

    def run(carried: Sequence[str] = (), **more: Any) -> dict[str, Any]:
        config.write_text(json.dumps({**given, **more}))
        applied.clear()
        medium = [word for path in carried for word in ("--medium", path)]
        code = _pull.main(["run", "--config", str(config), *medium])
        status: dict[str, Any] = json.loads((tmp_path / "state" / "status.json").read_text())
        assert code == (0 if status["result"] in ("converged", "unknown") else 1)
        return {**status, "ran": list(applied)}

    run.outcome = outcome  # type: ignore[attr-defined]
    return run


def tree(tmp_path: Path, commit: str) -> list[str]:
    top = tmp_path / "state" / "trees" / commit
    return sorted(str(path.relative_to(top)) for path in top.rglob("*") if path.is_file())


def test_a_signed_state_is_applied_and_only_what_the_host_needs_comes(
    central: Central, site: Any, tmp_path: Path
) -> None:
    commit = central.state()
    status = site()
    assert (status["result"], status["applied"], status["ran"]) == ("converged", commit, [commit])
    assert tree(tmp_path, commit) == [
        "artifacts/x86_64-2.14-6.0.16/m.so",
        "collection/c.tar.gz",
        "collections/ansible_collections/edgeops/redis_modules/MANIFEST.json",
        "edgeops.json",
        "inventory/hosts.yml",
        "wheels/any/a.whl",
    ]
    # Not even in the repository: what is for another platform, or another host's own.
    kept = [
        "git",
        "--git-dir",
        str(tmp_path / "state" / "repository.git"),
        "rev-list",
        "--objects",
        "--missing=print",
        commit,
    ]
    missing = subprocess.run(kept, check=True, capture_output=True, text=True).stdout.count("?")
    assert missing == 2
    assert status["last_success"] >= status["last_contact"] > 0


def test_the_next_state_takes_its_place(central: Central, site: Any, tmp_path: Path) -> None:
    central.state("1")
    site()
    second = central.state("2")
    status = site()
    assert (status["applied"], status["ran"]) == (second, [second])
    assert os.listdir(tmp_path / "state" / "trees") == [second]
    assert site()["ran"] == [second]


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda central: central.state("2", key=""), "it is not signed"),
        (lambda central: central.state("2", key="stranger"), "a key that allowed_signers does not name"),
        (lambda central: central.state("2", branch="staging"), "it was made for the branch 'staging'"),
        (lambda central: central.state("2", format=2), "edgeops.json is not of the format 1"),
        (
            lambda central: central.state("2", collection={"path": "collection/c.tar.gz", "sha256": "0" * 64}),
            "collection/c.tar.gz is not what edgeops.json says",
        ),
    ],
)
def test_what_is_not_signed_for_this_site_is_refused(
    central: Central, site: Any, tmp_path: Path, spoil: Any, reason: str
) -> None:
    first = central.state("1")
    site()
    bad = spoil(central)
    status = site()
    assert (status["result"], status["accepted"], status["ran"]) == ("refused", first, [])
    assert status["reason"].startswith(f"commit {bad[:12]}: ")
    assert reason in status["reason"]
    assert os.listdir(tmp_path / "state" / "trees") in ([first], [first, bad + ".new"], [bad + ".new", first])


def test_a_signature_of_another_commit_is_refused(central: Central, site: Any) -> None:
    """The signature is real, the commit under it is not."""
    first = central.state("1")
    forged = central.git("cat-file", "commit", first).replace("\n\n1", "\n\n2")
    (central.folder / "forged").write_text(forged + "\n")
    commit = central.git("hash-object", "-t", "commit", "-w", str(central.folder / "forged"))
    central.git("push", "-q", "--force", "origin", f"{commit}:refs/heads/main")
    status = site()
    assert (status["result"], status["ran"]) == ("refused", [])
    assert "its signature does not verify" in status["reason"]


def test_a_signature_for_another_purpose_is_refused(central: Central, site: Any) -> None:
    """Of the right key over the right bytes, but made with C(-n file)."""
    first = central.state("1", key="")
    commit = central.git("cat-file", "commit", first) + "\n"
    signing = ["ssh-keygen", "-q", "-Y", "sign", "-n", "file", "-f", str(central.folder / "ops")]
    signature = subprocess.run(signing, input=commit, text=True, capture_output=True, check=True).stdout.strip()
    header = "gpgsig " + signature.replace("\n", "\n ")
    (central.folder / "odd").write_text(commit.replace("\n\n", f"\n{header}\n\n", 1))
    odd = central.git("hash-object", "-t", "commit", "-w", str(central.folder / "odd"))
    central.git("push", "-q", "--force", "origin", f"{odd}:refs/heads/main")
    assert "its signature does not verify" in site()["reason"]


def test_history_goes_forward_only(central: Central, site: Any) -> None:
    first = central.state("1")
    second = central.state("2")
    site()
    central.git("push", "-q", "--force", "origin", f"{first}:refs/heads/main")
    status = site()
    assert (status["result"], status["applied"], status["ran"]) == ("refused", second, [])
    assert f"it is older than {second[:12]}" in status["reason"]
    central.git("reset", "-q", "--hard", first)
    central.state("fork")
    status = site()
    assert (status["result"], status["applied"], status["ran"]) == ("refused", second, [])
    assert f"it does not follow {second[:12]}" in status["reason"]
    central.git("reset", "-q", "--hard", second)
    third = central.state("3")
    assert site()["applied"] == third


def test_the_floor_outlives_the_repository(central: Central, site: Any, tmp_path: Path) -> None:
    """A copy that a power cut broke is fetched anew, and an old state is still refused."""
    first = central.state("1")
    second = central.state("2")
    site()
    for path in (tmp_path / "state" / "repository.git" / "objects").rglob("*"):
        if path.is_file():
            path.chmod(0o600)
            path.write_bytes(b"")
    assert site()["applied"] == second
    central.git("push", "-q", "--force", "origin", f"{first}:refs/heads/main")
    for path in (tmp_path / "state" / "repository.git" / "objects").rglob("*.pack"):
        path.unlink()
    assert (site()["result"], site()["accepted"]) == ("refused", second)


def test_a_key_that_is_taken_out_ends(central: Central, site: Any) -> None:
    central.state("1")
    site()
    central.signers.write_text(f"new@example.com {(central.folder / 'stranger.pub').read_text()}")
    assert (site()["result"], site()["ran"]) == ("refused", [])


def test_without_a_link_the_last_state_is_kept_true(central: Central, site: Any) -> None:
    commit = central.state("1")
    assert site(repository="file:///nowhere.git")["result"] == "offline"
    site()
    status = site(repository="file:///nowhere.git")
    assert (status["result"], status["ran"], status["sources"][0]["result"]) == ("converged", [commit], "offline")
    assert "nowhere" in status["sources"][0]["reason"]


def test_a_run_that_failed_is_tried_again(central: Central, site: Any) -> None:
    commit = central.state("1")
    site.outcome[:] = ["failed", "why"]
    status = site()
    assert (status["result"], status["reason"], status["accepted"], status["applied"]) == ("failed", "why", commit, "")
    assert status["last_success"] == 0
    site.outcome[:] = ["converged", ""]
    assert site(repository="file:///nowhere.git")["applied"] == commit


def test_a_transfer_goes_on_where_it_was_cut(
    central: Central, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has arrived is not fetched again, and nothing is run before all of it is here."""
    commit = central.state("1")
    monkeypatch.setattr(_pull, "BATCH", 1)
    real, asked = _pull.Repository.transfer, []

    def dropping(self: _pull.Repository, words: Any, stdin: bytes = b"") -> None:
        if stdin:
            asked.append(stdin)
            if len(asked) == 4:
                raise _pull.PullError("offline", "the link dropped")
        real(self, words, stdin)

    monkeypatch.setattr(_pull.Repository, "transfer", dropping)
    status = site()
    assert (status["result"], status["accepted"], status["ran"]) == ("offline", "", [])
    assert site()["applied"] == commit
    # The manifest, then four files; the one that was cut is asked for twice, no other.
    assert sorted(asked.count(one) for one in set(asked)) == [1, 1, 1, 1, 2]


def test_what_a_killed_git_left_is_no_hindrance(central: Central, site: Any, tmp_path: Path) -> None:
    central.state("1")
    site()
    repository = tmp_path / "state" / "repository.git"
    left = [
        repository / "config.lock",
        repository / "refs" / "offered" / "tip.lock",
        repository / "objects/pack/tmp_pack_x",
    ]
    for path in left:
        path.write_text("")
    second = central.state("2")
    assert site()["applied"] == second
    assert not any(path.exists() for path in left)


def test_a_bundle_is_a_source_like_the_link(central: Central, site: Any, tmp_path: Path) -> None:
    first = central.state("1", push=False)
    bundle = central.bundle()
    status = site([bundle], repository="file:///nowhere.git")
    assert (status["result"], status["applied"]) == ("converged", first)
    assert "artifacts/x86_64-2.14-6.0.16/m.so" in tree(tmp_path, first)
    # Then by the link; and the old stick that was left in hinders nothing.
    second = central.state("2")
    assert site(media=[bundle])["applied"] == second
    status = site(media=[bundle])
    assert (status["result"], status["applied"]) == ("converged", second)
    assert [one["result"] for one in status["sources"]] == ["refused", "accepted"]
    third = central.state("3", push=False)
    assert (
        site([os.path.dirname(central.bundle(f"{second}..main"))], repository="file:///nowhere.git")["applied"] == third
    )


def test_a_bundle_that_lacks_something_is_told(central: Central, site: Any) -> None:
    first = central.state("1", push=False)
    central.state("2", push=False)
    status = site([central.bundle(f"{first}..main")], repository="file:///nowhere.git")
    assert (status["sources"][0]["result"], status["ran"]) == ("incomplete", [])
    assert "lacks these prerequisite commits" in status["sources"][0]["reason"]


@pytest.mark.parametrize("key", ["", "stranger"])
def test_a_bundle_is_verified_like_the_link(central: Central, site: Any, key: str) -> None:
    central.state("1", key=key, push=False)
    assert site(repository="", media=[central.bundle()])["result"] == "refused"


def test_a_server_that_gives_no_single_files_is_told(
    central: Central, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by SSH, which does not pass on that git speaks protocol 2."""
    central.state("1")
    real = _pull.Repository.git

    def older(self: _pull.Repository, *words: str, **more: Any) -> _pull.Done:
        return real(self, "-c", "protocol.version=0", *words, **more)

    monkeypatch.setattr(_pull.Repository, "git", older)
    status = site()
    assert (status["result"], status["ran"]) == ("incomplete", [])
    assert "uploadpack.allowAnySHA1InWant" in status["reason"]
    central.on_server("config", "uploadpack.allowAnySHA1InWant", "true")
    assert site()["result"] == "converged"


def test_a_full_disk_stops_before_anything(central: Central, site: Any, tmp_path: Path) -> None:
    first = central.state("1")
    site()
    central.state("2")
    status = site(free_mb=10**9)
    assert (status["result"], status["accepted"], status["ran"]) == ("no_space", first, [])
    assert status["reason"].endswith("Redis may need them")


@pytest.mark.parametrize(
    "told", [OSError(errno.ENOSPC, "No space left on device"), _pull.PullError("failed", "git: x")]
)
def test_a_disk_that_fills_up_keeps_nothing_half_done(
    central: Central, site: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: Exception
) -> None:
    """What there was no room for is dropped, as the status needs some; git does not always say what it lacks."""
    first = central.state("1")
    site()
    central.state("2")
    left = [tmp_path / "state" / "repository.git" / "objects" / "pack" / "tmp_pack_1"]
    nothing = shutil.disk_usage(tmp_path)._replace(free=0)

    def full(_self: _pull.Repository, _tip: str, _paths: Sequence[str], folder: str) -> None:
        left.append(Path(folder) / "inventory")
        for path in left:
            path.write_text("half of it")
        monkeypatch.setattr(_pull.shutil, "disk_usage", lambda _path: nothing)
        raise told

    monkeypatch.setattr(_pull.Repository, "lay_out", full)
    status = site()
    assert (status["result"], status["accepted"], status["ran"]) == ("no_space", first, [])
    assert len(left) == 2
    assert not any(path.exists() for path in left)


def test_a_wrong_clock_changes_nothing(central: Central, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = central.state("1")
    monkeypatch.setattr(time, "time", lambda: 86400.0)
    status = site()
    assert (status["result"], status["applied"], status["clock_is_wrong"]) == ("converged", commit, True)


def test_one_run_at_a_time(central: Central, site: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    central.state("1")
    site()
    before = (tmp_path / "state" / "status.json").read_text()
    with _pull.alone(str(tmp_path / "state" / "lock")) as first:
        assert first
        assert _pull.main(["run", "--config", str(tmp_path / "pull.json")]) == 0
    assert "another run is under way" in capsys.readouterr().out
    assert (tmp_path / "state" / "status.json").read_text() == before


def test_an_old_ansible_needs_its_wheels(central: Central, site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    central.state("1")
    monkeypatch.setattr(_pull.Agent, "own_core", ())
    monkeypatch.setattr(_pull.sys, "version_info", (3, 9, 2))
    status = site()
    assert (status["result"], status["ran"]) == ("incomplete", [])
    assert status["reason"].endswith("the repository no wheels cp39-x86_64")


def test_check_reads_the_configuration_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "pull.json"
    config.write_text('{"site": "a", "repository": "r"}')
    assert _pull.main(["check", "--config", str(config)]) == 1
    assert "allowed_signers" in capsys.readouterr().err
    (tmp_path / "allowed_signers").write_text("ops@example.com ssh-ed25519 AAAA")
    assert _pull.main(["check", "--config", str(config)]) == 0
    config.write_text('{"site": "a"}')
    assert _pull.main(["check", "--config", str(config)]) == 1
    assert "nowhere to pull from" in capsys.readouterr().err


def test_a_program_that_hangs_is_ended_with_its_children() -> None:
    began = time.monotonic()
    done = _pull.run(["sh", "-c", "sleep 60 & wait"], 0.2, os.environ)
    assert (done.code, time.monotonic() - began < 10) == (124, True)
    assert done.err == "it was ended after 0.2 s"


def test_it_runs_with_the_standard_library_alone() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", _pull.__file__, "--help"], capture_output=True, text=True, check=True
    )
    assert "Brings this host" in done.stdout


# ---------------------------------------------------------------- ansible


class Ansible:
    """Stands for ansible's programs: answers, and remembers how it was called."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.environment: dict[str, str] = {}
        self.hosts = "  hosts (1):\n    pump1\n"
        self.code, self.output = 0, ""

    def __call__(
        self, command: Sequence[str], seconds: float, environment: Any, stdin: bytes = b"", folder: Any = None
    ) -> _pull.Done:
        """Be run."""
        self.calls.append(list(command))
        if "--list-hosts" in command:
            return _pull.Done(0, self.hosts.encode(), "")
        self.environment = dict(environment)
        return _pull.Done(self.code, self.output.encode(), "")

    def variables(self) -> dict[str, Any]:
        """What the playbook was given."""
        given: dict[str, Any] = json.loads(self.calls[-1][self.calls[-1].index("-e") + 1])
        return given


@pytest.fixture
def ansible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ansible:
    fake = Ansible()
    monkeypatch.setattr(_pull, "run", fake)
    monkeypatch.setattr(_pull, "this_host", lambda _binary: HOST)
    monkeypatch.setattr(os, "sync", lambda: None)
    tree = tmp_path / "trees" / "tip"
    for name in ("any", "cp39-x86_64"):
        (tree / "wheels" / name).mkdir(parents=True)
        (tree / "wheels" / name / "a.whl").write_bytes(wheel(name[:3]))
    for name in ("runtime", "ansible", "report"):
        (tmp_path / name).mkdir()
    wheels = {name: [{"path": f"wheels/{name}/a.whl", "sha256": name}] for name in ("any", "cp39-x86_64")}
    (tree / "edgeops.json").write_text(json.dumps({"wheels": wheels}))
    return fake


def agent(tmp_path: Path, **more: Any) -> _pull.Agent:
    given = {"site": "pump1", "repository": "r", "state": str(tmp_path), **more}
    return _pull.Agent(_pull.configured(json.dumps(given), str(tmp_path)))


def test_a_known_host_is_rolled_out(ansible: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pull.Agent, "own_core", (2, 19))
    (tmp_path / "report" / "old").write_text("")
    assert agent(tmp_path, vault_password_file="/v").apply("tip") == ("converged", "")
    call = ansible.calls[-1]
    assert (call[0], call[-1]) == ("ansible-playbook", "edgeops.redis_modules.edge_pull")
    assert call[call.index("-l") : call.index("-l") + 2] == ["-l", "pump1"]
    assert "/v" in call
    told = ansible.variables()
    assert (told["ansible_connection"], told["ansible_become"], told["redis_pull_known"]) == ("local", False, True)
    assert (told["redis_pull_tree"], told["redis_pull_platform"]) == (str(tmp_path / "trees" / "tip"), HOST)
    libraries = ansible.environment["PYTHONPATH"]
    assert os.listdir(libraries) == ["any.py"]
    assert os.path.realpath(str(tmp_path / "libraries")) == libraries
    assert os.listdir(str(tmp_path / "report")) == []


def test_carried_wheels_run_by_this_python(ansible: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pull.Agent, "own_core", (2, 10))
    monkeypatch.setattr(_pull.sys, "version_info", (3, 9, 2))
    assert agent(tmp_path).apply("tip")[0] == "converged"
    assert ansible.calls[-1][:3] == [sys.executable, "-m", "ansible.cli.playbook"]
    assert sorted(os.listdir(ansible.environment["PYTHONPATH"])) == ["any.py", "cp3.py"]


def test_an_unknown_host_gets_the_agent(ansible: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pull.Agent, "own_core", (2, 19))
    ansible.hosts = "  hosts (0):\n"
    result, reason = agent(tmp_path).apply("tip")
    assert (result, "does not name pump1" in reason) == ("unknown", True)
    assert ansible.calls[-1][-3:] == ["-i", "pump1,", "edgeops.redis_modules.edge_agent"]
    assert ansible.variables()["redis_pull_known"] is False


@pytest.mark.parametrize(
    ("code", "message", "result"),
    [(2, "module m: no artifact fits this host (x)", "no_artifact"), (2, "why", "failed"), (124, "", "failed")],
)
def test_a_playbook_that_fails(
    ansible: Ansible, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str, result: str
) -> None:
    monkeypatch.setattr(_pull.Agent, "own_core", (2, 19))
    ansible.code, ansible.output = code, "fatal: [pump1]: FAILED! => " + json.dumps({"msg": message}) + "\n"
    found = agent(tmp_path).apply("tip")
    assert found == (result, message or "the playbook took longer than 1800 s")
    assert (tmp_path / "run.log").stat().st_mode & 0o777 == 0o600
