# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The edge agent: bring a signed state of the fleet's repository to this host, and apply it here.

This one file is the whole agent. The role redis_pull installs it on sites, where it runs with Python's standard
library alone and before anything else of this collection is there; a stick carries it for the first time. The filters
that choose artifacts on a site, and lay them out on the central side, use the same functions.

What is signed is the commit, by C(git commit -S) with SSH keys. The commit names its tree and its ancestors by their
digests, so one signature vouches for all of them. It is verified by C(ssh-keygen -Y verify) over the commit object,
which needs no git that knows of SSH signatures, in the same way for what comes by a link or in a bundle on a stick.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import fcntl
import functools
import glob
import hashlib
import json
import os
import platform as platform_module
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from typing import Any, Iterable, Iterator, Mapping, NamedTuple, Sequence

FORMAT = 1
"""Of the manifest. An agent that knows a newer one has to be rolled out before it is written."""

MANIFEST = "edgeops.json"
INVENTORY = "inventory"
CONFIG = "/etc/edgeops/pull.json"
OLDEST_CORE = (2, 14)
ANY_PYTHON = "any"
"""The wheel set that every site takes: what the roles need of Python on a host, in pure Python."""

SITE_VARIABLE = "EDGEOPS_PULL_SITE"
"""What tells the rollout's lock that it is run by this agent; _lock reads it."""

RESULTS = (
    "converged",
    "unknown",
    "failed",
    "no_artifact",
    "refused",
    "offline",
    "incomplete",
    "no_space",
    "misconfigured",
)
NO_FIT = "no artifact fits this host"

SSH_SIGNATURE = b"-----BEGIN SSH SIGNATURE-----"
BATCH = 16
"""How many files one transfer brings. What has arrived stays, so a link that drops loses one of these at most."""

CORRUPT = re.compile(
    r"corrupt|object file .* is empty|bad object|unable to read|not a git repository|did not send all", re.IGNORECASE
)


class PullError(Exception):
    """Why a run, or one source of it, ends here: one of RESULTS, and words for the operator."""

    def __init__(self, result: str, reason: str) -> None:
        super().__init__(reason)
        self.result = result
        self.reason = reason


# ---------------------------------------------------------------- what is configured

DEFAULTS: dict[str, Any] = {
    "site": "",
    "repository": "",
    "branch": "main",
    "media": [],
    "allowed_signers": "allowed_signers",
    "state": "/var/lib/edgeops-pull",
    "ssh_key": "",
    "known_hosts": "",
    "vault_password_file": "",
    "redis_binary": "/usr/bin/redis-server",
    "textfile": "",
    "attempts": 5,
    "transfer_seconds": 600,
    "apply_seconds": 1800,
    "free_mb": 64,
}
"""Every key of the configuration, and what it is where the file says nothing."""

_SITE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


def configured(text: str, folder: str, more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the whole configuration from the text of its file, I(more) over it; relative paths are below I(folder).

    Raises PullError with all that is wrong with it.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise PullError("misconfigured", f"the configuration can't be read: {error}") from error
    if not isinstance(given, dict):
        raise PullError("misconfigured", "the configuration must be a dictionary")
    found = {**DEFAULTS, **given, **{key: value for key, value in (more or {}).items() if value}}
    faults = [f"unknown key {key!r}; the keys are {', '.join(DEFAULTS)}" for key in given if key not in DEFAULTS]
    for key, default in DEFAULTS.items():
        # Older ansibles write numbers that come out of templates as text.
        if isinstance(default, int) and re.fullmatch(r"\d+", str(found[key])):
            found[key] = int(found[key])
        if type(found[key]) is not type(default):
            faults.append(f"{key} must be of the kind of {default!r}, not {found[key]!r}")
    if not faults and not _SITE.fullmatch(found["site"]):
        faults.append(f"site {found['site']!r} must be this host's name in the inventory")
    if not faults and not found["repository"] and not found["media"]:
        faults.append("neither a repository nor media is named, so there is nowhere to pull from")
    # Either would be taken for an option of git or ssh.
    faults += [
        f"{key} {found[key]!r} must not begin with -" for key in ("repository", "branch") if str(found[key])[:1] == "-"
    ]
    if faults:
        raise PullError("misconfigured", "; ".join(faults))
    for key in ("allowed_signers", "ssh_key", "known_hosts", "vault_password_file"):
        found[key] = os.path.join(folder, found[key]) if found[key] else ""
    return found


def signer_faults(text: str) -> list[str]:
    """Return what is wrong with an allowed_signers file for hosts that may not know the time."""
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith("#")]
    if not lines:
        return ["it names no key, so no state could ever be applied"]
    return [
        f"line {line.split()[0]!r}: {word} depends on the clock of the site, which may be wrong; leave it out, "
        "and end a key's time by taking it out of the file"
        for line in lines
        for word in ("valid-after", "valid-before", "cert-authority")
        if re.search(rf"[\s,]{word}\b", line)
    ]


# ---------------------------------------------------------------- what is signed


def signed_parts(commit: bytes) -> tuple[bytes, bytes]:
    """Return what was signed and the signature, from a commit object as git keeps it. Raises PullError.

    The signature is a header of the commit, and covers all of it but that header.
    """
    head, blank, message = commit.partition(b"\n\n")
    kept: list[bytes] = []
    signature: list[bytes] = []
    signatures, inside = 0, False
    for line in head.split(b"\n"):
        key = line.split(b" ", 1)[0]
        if key in (b"gpgsig", b"gpgsig-sha256"):
            signatures, inside = signatures + 1, True
            signature.append(line[len(key) + 1 :])
        elif inside and line.startswith(b" "):
            signature.append(line[1:])
        else:
            inside = False
            kept.append(line)
    if not signatures:
        raise PullError("refused", "it is not signed")
    if signatures > 1:
        raise PullError("refused", "it has more than one signature")
    if signature[0] != SSH_SIGNATURE:
        raise PullError("refused", "it is not signed with an SSH key (git config gpg.format ssh)")
    return b"\n".join(kept) + blank + message, b"\n".join(signature) + b"\n"


def commit_time(commit: bytes) -> int:
    """Return when a commit was made, in seconds since 1970 by its author's clock; 0 where it does not tell."""
    found = re.search(rb"^committer [^\n]*> (\d+) [+-]\d{4}$", commit.partition(b"\n\n")[0], re.MULTILINE)
    return int(found.group(1)) if found else 0


# ---------------------------------------------------------------- what fits this host


def numbers(version: str) -> tuple[int, ...]:
    """Return C((7, 0, 15)) from C("7.0.15")."""
    return tuple(int(part) for part in re.findall(r"\d+", version))


def misfit(artifact: Mapping[str, str], host: Mapping[str, str]) -> str:
    """Return why an artifact of the manifest is not for a host; empty where it is.

    A module that was built with the header of a newer Redis may call what the host's server does not have. One that was
    built with an older header runs.
    """
    if artifact["architecture"] != host["architecture"]:
        return f"is for {artifact['architecture']}"
    if artifact["glibc"]:
        if not host["libc"].startswith("glibc"):
            return f"needs glibc {artifact['glibc']}"
        if numbers(artifact["glibc"]) > numbers(host["libc"]):
            return f"needs glibc {artifact['glibc']}"
    if artifact["redis"] and numbers(artifact["redis"])[:2] > numbers(host["redis"])[:2]:
        return f"was built for Redis {artifact['redis']}"
    return ""


def chosen(artifacts: Iterable[Mapping[str, str]], host: Mapping[str, str]) -> list[Mapping[str, str]]:
    """Return for each module, as declared, the artifact that fits a host best: the nearest Redis, then glibc."""
    best: dict[tuple[str, str], Mapping[str, str]] = {}
    for artifact in artifacts:
        if misfit(artifact, host):
            continue
        key = (artifact["module"], artifact["recipe"])
        if key not in best or nearness(artifact) > nearness(best[key]):
            best[key] = artifact
    return list(best.values())


def nearness(artifact: Mapping[str, str]) -> tuple[Any, ...]:
    """Of those that fit a host, the highest is the nearest; the path decides where nothing else does."""
    return numbers(artifact["redis"]), numbers(artifact["glibc"]), artifact["path"]


RECIPE_KEYS = (
    *("src", "sources", "include_dirs", "defines", "cflags", "ldflags", "libraries"),
    *("make_target", "make_output", "make_args", "artifact", "sha256"),
)


def recipe(module: Mapping[str, Any]) -> str:
    """Return a digest over what an entry of redis_modules says of how its module is made.

    By this a site knows whether an artifact is of the entry that it has, without the sources.
    """
    said = {key: module[key] for key in RECIPE_KEYS if module.get(key)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def from_repository(
    modules: Sequence[Mapping[str, Any]], artifacts: Sequence[Mapping[str, str]], host: Mapping[str, str], folder: str
) -> list[dict[str, Any]]:
    """Return the entries of redis_modules with the artifacts that fit a host in the place of their sources.

    I(folder) is where the repository's files lie. Raises ValueError, a line for each module without one that fits.
    """
    fitting = {(artifact["module"], artifact["recipe"]): artifact for artifact in chosen(artifacts, host)}
    found: list[dict[str, Any]] = []
    faults: list[str] = []
    for module in modules:
        name = str(module.get("name"))
        artifact = fitting.get((name, recipe(module)))
        if module.get("state") == "absent":
            found.append(dict(module))
        elif artifact is None:
            faults.append(f"module {name}: {NO_FIT} ({told(host)}): {_why_none(name, recipe(module), artifacts, host)}")
        else:
            kept = {key: value for key, value in module.items() if key not in RECIPE_KEYS}
            path = os.path.join(folder, artifact["path"])
            found.append({**kept, "artifact": path, "sha256": artifact["sha256"]})
    if faults:
        raise ValueError("\n".join(faults))
    return found


def told(host: Mapping[str, str]) -> str:
    """Return a host's platform as text."""
    return f"{host['architecture']}, {host['libc']}, Redis {host['redis'] or 'unknown'}"


def _why_none(name: str, made: str, artifacts: Sequence[Mapping[str, str]], host: Mapping[str, str]) -> str:
    named = [artifact for artifact in artifacts if artifact["module"] == name]
    own = [artifact for artifact in named if artifact["recipe"] == made]
    if own:
        reasons = "; ".join(f"{artifact['path']} {misfit(artifact, host)}" for artifact in own)
        return f"{reasons}. Build it for this platform with edgeops.redis_modules.build"
    if named:
        return "the repository's artifacts are of another entry than this one; run edgeops.redis_modules.build again"
    return "the repository has none of it; run edgeops.redis_modules.build"


def wheel_set(python: Sequence[int], architecture: str) -> str:
    """Return the name of the wheel set that brings ansible-core for a Python, as C(cp39-x86_64)."""
    return f"cp{python[0]}{python[1]}-{architecture}"


def manifest_faults(manifest: Any, branch: str) -> str:
    """Return why a commit's manifest is none for this site; empty where it is one."""
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        return f"its {MANIFEST} is not of the format {FORMAT}, which this agent knows"
    if manifest.get("branch") != branch:
        # A signed state of another branch would pass for the next one of this branch otherwise.
        return f"it was made for the branch {manifest.get('branch')!r}, this site follows {branch!r}"
    return ""


def wanted(
    paths: Iterable[str], site: str, manifest: Mapping[str, Any], host: Mapping[str, str], wheels: Sequence[str]
) -> list[str]:
    """Return those of a commit's files that a site needs: its inventory without other hosts' own, and what fits it."""
    picked = {MANIFEST, manifest["collection"]["path"]}
    picked.update(artifact["path"] for artifact in chosen(manifest.get("artifacts", []), host))
    picked.update(wheel["path"] for name in wheels for wheel in manifest.get("wheels", {}).get(name, []))
    more = tuple(os.path.join(folder, "") for folder in [INVENTORY, *manifest.get("also", [])])
    others = os.path.join(INVENTORY, "host_vars", "")
    own = tuple(others + site + ending for ending in ("/", ".yml", ".yaml", ".json"))
    return [
        path
        for path in paths
        if path in picked
        or (path.startswith(more) and (not path.startswith(others) or path == others + site or path.startswith(own)))
    ]


def digests(manifest: Mapping[str, Any], host: Mapping[str, str], wheels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Return path and SHA-256 of each file that is going to be run or loaded."""
    files = [manifest["collection"], *chosen(manifest.get("artifacts", []), host)]
    files += [wheel for name in wheels for wheel in manifest.get("wheels", {}).get(name, [])]
    for file in files:
        yield file["path"], file["sha256"]


# ---------------------------------------------------------------- what came of it


def pause(attempt: int, chance: float) -> float:
    """Return how long to wait after a failed attempt, in seconds: longer each time, and not the same on each site."""
    return min(5.0 * 3.0**attempt, 300.0) * (0.5 + chance)


def hosts_listed(output: str) -> list[str]:
    """Return the hosts that C(ansible --list-hosts) lists."""
    return [line.strip() for line in output.splitlines() if line.startswith("    ") and line.strip()]


def reason_of(output: str) -> str:
    """Return why a run of ansible-playbook failed: the message of the first host's first failure that nothing rescued.

    What was rescued is told again by the playbook's last play, so the last failure that has a message counts.
    """
    found = re.findall(r"^fatal: \[[^\]\n]*\]: [A-Z]+! => (\{.*\})\s*$", output, re.MULTILINE)
    for text in reversed(found):
        with contextlib.suppress(ValueError):
            message = json.loads(text).get("msg")
            if message:
                return str(message)
    errors = [line for line in output.splitlines() if line.startswith(("ERROR!", "[ERROR]"))]
    return errors[-1] if errors else "the playbook failed; its log says more"


def verdicts(rows: Any, site: str) -> list[dict[str, str]]:
    """Return the verdict of each module of this site, from the fleet's report of one."""
    keys = ("module", "version", "verdict", "differences")
    found = rows if isinstance(rows, list) else []
    return [
        {key: str(row.get(key, "")) for key in keys}
        for row in found
        if isinstance(row, dict) and row.get("host") == site
    ]


def prometheus(status: Mapping[str, Any]) -> str:
    """Return the status for a node exporter's textfile collector."""
    lines: list[str] = []

    def metric(name: str, text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> None:
        lines.extend([f"# HELP edgeops_pull_{name} {text}", f"# TYPE edgeops_pull_{name} gauge"])
        for labels, value in samples:
            inner = ",".join(f'{key}="{_escaped(said)}"' for key, said in labels.items())
            lines.append(f"edgeops_pull_{name}{'{' + inner + '}' if inner else ''} {value:.0f}")

    metric(
        "result",
        "Whether the last run ended so.",
        [({"result": name}, float(status["result"] == name)) for name in RESULTS],
    )
    for key, text in (
        ("last_run", "When the agent ran last."),
        ("last_success", "When this host was last brought to what the repository says."),
        ("last_contact", "When the repository or a medium last gave a state that was accepted."),
        ("commit_time", "When the state that this host has was committed."),
    ):
        metric(f"{key}_timestamp_seconds", text, [({}, float(status[key]))])
    metric(
        "commit_info", "The state that this host has.", [({"site": status["site"], "commit": status["applied"]}, 1.0)]
    )
    metric(
        "module_ok",
        "Whether a module is as declared.",
        [
            ({"module": row["module"], "verdict": row["verdict"]}, float(row["verdict"] in ("loaded", "absent")))
            for row in status["modules"]
        ],
    )
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return str(text).replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


# ---------------------------------------------------------------- files and programs


def sha256_of(path: str) -> str:
    """Return the hex digest of a file. Raises OSError. _host has the same: the agent can't import it."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def write_whole(path: str, text: str, mode: int = 0o644) -> None:
    """Write a small file by rename, so that a reader or a power cut finds a whole one. Raises OSError."""
    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write(text)
            os.fchmod(stream.fileno(), mode)
            stream.flush()
            os.fsync(stream.fileno())
        os.rename(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def read_json(path: str) -> Any:
    """Return what a JSON file of our own says; an empty dictionary where there is none or a power cut broke it."""
    try:
        with open(path, encoding="utf-8") as stream:
            return json.load(stream)
    except (OSError, ValueError):
        return {}


def say(text: str, stream: Any = None) -> None:
    """Tell whoever started the agent, which is the journal most of the time."""
    (stream or sys.stdout).write(text + "\n")


class Done(NamedTuple):
    """How a program ended."""

    code: int
    out: bytes
    err: str


def run(
    command: Sequence[str],
    seconds: float,
    environment: Mapping[str, str],
    stdin: bytes = b"",
    folder: str | None = None,
) -> Done:
    """Run a program to its end; it and what it started are ended after I(seconds), which counts as code 124."""
    # The agent is no module: it has no run_command.
    with subprocess.Popen(  # pylint: disable=ansible-bad-function
        list(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(environment),
        cwd=folder,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(stdin, timeout=seconds)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            out, err = process.communicate()
            return Done(124, out, f"{err.decode('utf-8', 'replace').strip()} it was ended after {seconds:g} s".strip())
    return Done(process.returncode, out, err.decode("utf-8", "replace").strip())


def this_host(redis_binary: str) -> dict[str, str]:
    """Return what decides which files are for this host."""
    try:
        libc = os.confstr("CS_GNU_LIBC_VERSION") or "unknown"
    except (ValueError, OSError):
        libc = "unknown"
    redis = ""
    if os.path.exists(redis_binary):
        said = run([redis_binary, "--version"], 30, os.environ).out.decode("utf-8", "replace")
        version = re.search(r"\bv=(\d+(?:\.\d+)+)", said)
        redis = version.group(1) if version else ""
    return {"architecture": platform_module.machine(), "libc": libc, "redis": redis}


class Repository:
    """The bare repository of this host, which keeps what has arrived. Nothing of it is run from here."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.path = os.path.join(config["state"], "repository.git")
        ssh = ["ssh", "-oBatchMode=yes", "-oConnectTimeout=30", "-oServerAliveInterval=15", "-oServerAliveCountMax=4"]
        ssh += ["-oStrictHostKeyChecking=yes", f"-i{config['ssh_key']}"] if config["ssh_key"] else []
        ssh += [f"-oUserKnownHostsFile={config['known_hosts']}"] if config["known_hosts"] else []
        self.environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": config["state"],
            "LC_ALL": "C",
            "GIT_DIR": self.path,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "GIT_ALLOW_PROTOCOL": "file:git:http:https:ssh",
            # Newer gits only. What is missing is fetched by bring(), never by the way.
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_SSH_COMMAND": " ".join(ssh),
        }

    def git(self, *words: str, stdin: bytes = b"", seconds: float = 300, more: Mapping[str, str] | None = None) -> Done:
        """Run git in it."""
        return run(["git", *words], seconds, {**self.environment, **(more or {})}, stdin)

    def asked(self, *words: str, stdin: bytes = b"", more: Mapping[str, str] | None = None) -> bytes:
        """Return what git answers. Raises PullError."""
        done = self.git(*words, stdin=stdin, more=more)
        if done.code != 0:
            raise PullError("failed", f"git {words[0]}: {_said(done.err) or done.code}")
        return done.out

    def have(self, accepted: str) -> None:
        """Have it: made where there is none, made anew where a power cut left one that can't be used."""
        if (
            os.path.isdir(self.path)
            and self.git("cat-file", "-e", (accepted or "HEAD") + "^{commit}").code
            and accepted
        ):
            shutil.rmtree(self.path)
        if not os.path.isdir(self.path):
            new = self.path + ".new"
            shutil.rmtree(new, ignore_errors=True)
            self.asked("init", "--quiet", "--bare", new, more={"GIT_DIR": new})
            os.chmod(new, 0o700)
            os.rename(new, self.path)
        self.sweep()
        for key, value in (
            ("core.repositoryformatversion", "1"),
            ("core.fsync", "all"),
            ("core.fsyncObjectFiles", "true"),
            ("extensions.partialClone", "origin"),
            ("fetch.fsckObjects", "true"),
            ("gc.autoDetach", "false"),
            ("remote.origin.url", self.config["repository"] or "none"),
            # Commits and folders come first and are small; of files, only those that this host needs.
            ("remote.origin.promisor", "true"),
            ("remote.origin.partialclonefilter", "blob:none"),
        ):
            self.asked("config", key, value)

    def sweep(self) -> None:
        """Drop what a run left that was ended, or a transfer for which there was no room. Only one runs at a time."""
        for pattern in ("*.lock", "refs/**/*.lock", "objects/pack/tmp_*", "objects/pack/.tmp*", "objects/??/tmp_obj_*"):
            for path in glob.glob(os.path.join(self.path, pattern), recursive=True):
                os.unlink(path)

    def forget(self) -> None:
        """Drop it, to be fetched anew."""
        shutil.rmtree(self.path)

    def fetch(self, source: str) -> str:
        """Fetch the tip of the branch from C(origin) or a bundle's path; return it. Raises PullError."""
        reference = "refs/offered/tip"
        words = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-auto-maintenance", "--force", source]
        words.append(f"+refs/heads/{self.config['branch']}:{reference}")
        if source == "origin":
            self.transfer(words)
        else:
            done = self.git(*words, seconds=self.config["transfer_seconds"])
            if done.code != 0:
                raise PullError("incomplete", f"the bundle can't be used: {_said(done.err)}")
        return self.asked("rev-parse", "--verify", "--quiet", reference + "^{commit}").decode().strip()

    def transfer(self, words: Sequence[str], stdin: bytes = b"") -> None:
        """Run a transfer over the link, again and again where it drops. Raises PullError."""
        for attempt in range(self.config["attempts"]):
            done = self.git(*words, stdin=stdin, seconds=self.config["transfer_seconds"])
            if done.code == 0:
                return
            if re.search(r"no space left", done.err, re.IGNORECASE):
                raise PullError("no_space", f"the disk is full: {_said(done.err)}")
            if CORRUPT.search(done.err):
                raise PullError("failed", f"this host's copy of the repository is damaged: {_said(done.err)}")
            if re.search(r"unadvertised object|not our ref", done.err):
                mend = "git config uploadpack.allowAnySHA1InWant true"
                raise PullError("incomplete", f"the server takes no request for single files; there, {mend} allows it")
            if attempt + 1 < self.config["attempts"]:
                time.sleep(pause(attempt, random.random()))  # noqa: S311 -- not for secrets
        raise PullError("offline", f"{self.config['repository']}: {_said(done.err)}")

    def files(self, tip: str) -> dict[str, str]:
        """Return the files of a commit, path to object; symbolic links and submodules are none."""
        found = {}
        for line in (
            self.asked("ls-tree", "-r", "-z", "--full-tree", tip).decode("utf-8", "surrogateescape").split("\0")
        ):
            about, _tab, path = line.partition("\t")
            if about[:3] == "100":
                found[path] = about.split()[2]
        return found

    def bring(self, tip: str, objects: Iterable[str]) -> None:
        """Have the contents of files of a commit here, fetching those that are not. Raises PullError."""
        words = ("rev-list", "--objects", "--no-object-names", "--missing=print", "--no-walk", tip)
        missing = {line[1:] for line in self.asked(*words).decode().split() if line.startswith("?")}
        needed = [name for name in dict.fromkeys(objects) if name in missing]
        if needed and not self.config["repository"]:
            raise PullError(
                "incomplete", f"{len(needed)} files are neither on the medium nor on this host; carry a full bundle"
            )
        fetch = ["-c", "fetch.negotiationAlgorithm=noop", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
        fetch += ["--no-auto-maintenance", "--filter=blob:none", "--stdin", "origin"]
        for start in range(0, len(needed), BATCH):
            self.transfer(fetch, "".join(name + "\n" for name in needed[start : start + BATCH]).encode())

    def verified(self, tip: str, signers: str) -> bytes:
        """Return the commit, whose signature is one of I(signers). Raises PullError."""
        commit = self.asked("cat-file", "commit", tip)
        signed, signature = signed_parts(commit)
        with tempfile.NamedTemporaryFile(dir=self.config["state"]) as stream:
            stream.write(signature)
            stream.flush()
            environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
            tell = ["ssh-keygen", "-Y", "find-principals", "-f", signers, "-s", stream.name]
            found = run(tell, 30, environment).out.decode("utf-8", "replace").split("\n")[0].strip()
            if not found:
                raise PullError("refused", "it is signed with a key that allowed_signers does not name")
            check = ["ssh-keygen", "-Y", "verify", "-f", signers, "-I", found, "-n", "git", "-s", stream.name]
            done = run(check, 30, environment, signed)
        if done.code != 0:
            raise PullError("refused", f"its signature does not verify: {_said(done.err) or done.out.decode().strip()}")
        return commit

    def follows(self, tip: str, floor: str) -> None:
        """See that a commit follows the one that was accepted last. Raises PullError."""
        if not floor or tip == floor:
            return
        if self.git("merge-base", "--is-ancestor", floor, tip).code == 0:
            return
        if self.git("merge-base", "--is-ancestor", tip, floor).code == 0:
            raise PullError("refused", f"it is older than {floor[:12]}, which this host has; the history was rewound")
        raise PullError("refused", f"it does not follow {floor[:12]}, which this host has; the history was rewritten")

    def lay_out(self, tip: str, paths: Sequence[str], folder: str) -> None:
        """Write these files of a commit below I(folder). Raises PullError."""
        with tempfile.TemporaryDirectory(dir=self.config["state"]) as scratch:
            more = {"GIT_INDEX_FILE": os.path.join(scratch, "index"), "GIT_WORK_TREE": folder}
            self.asked("read-tree", tip, more=more)
            stdin = b"".join(os.fsencode(path) + b"\0" for path in paths)
            self.asked("checkout-index", "--force", "--quiet", "-z", "--stdin", stdin=stdin, more=more)


def _said(text: str) -> str:
    """Return the first line in which a program says what is wrong; what follows is advice."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return next((line for line in lines if not line.lower().startswith(("warning:", "hint:"))), "".join(lines[:1]))


# ---------------------------------------------------------------- a run


class Agent:
    """One run of the agent on this host."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self.folder: str = config["state"]
        self.repository = Repository(config)
        self.host = this_host(config["redis_binary"])
        self.wheels = [ANY_PYTHON]
        self.known: dict[str, Any] = read_json(self.at("state.json"))

    def at(self, *names: str) -> str:
        """Return a path in this agent's own folder."""
        return os.path.join(self.folder, *names)

    def remember(self, **what: Any) -> None:
        """Keep what the next run has to know, on the disk."""
        self.known.update(what)
        write_whole(self.at("state.json"), json.dumps(self.known, indent=2, sort_keys=True) + "\n")

    # ------------------------------------------------------------ pull

    def sources(self, media: Sequence[str]) -> list[str]:
        """Return where a state may come from: bundles that are there now, then the link; those given alone."""
        found = [path for pattern in media or self.config["media"] for path in sorted(glob.glob(pattern))]
        bundles = [
            path
            for entry in found
            for path in (sorted(glob.glob(entry + "/*.bundle")) if os.path.isdir(entry) else [entry])
        ]
        return [*bundles, *(["origin"] if self.config["repository"] and not media else [])]

    def pull(self, sources: Sequence[str]) -> list[dict[str, str]]:
        """Accept what each source offers, where it may be accepted; return how it went with each."""
        told_of = []
        for source in sources:
            name = self.config["repository"] if source == "origin" else source
            try:
                tip = self.accept(source)
                told_of.append({"source": name, "result": "accepted", "commit": tip, "reason": ""})
            except PullError as caught:
                error = self.for_want_of_room(caught)
                told_of.append({"source": name, "result": error.result, "commit": "", "reason": error.reason})
        return told_of

    def room_fault(self) -> str:
        """Return why there is too little room for a state; empty where there is enough. Raises OSError."""
        free, needed = shutil.disk_usage(self.folder).free // 2**20, self.config["free_mb"]
        return (
            "" if free >= needed else f"{free} MB are free in {self.folder}, {needed} have to be; Redis may need them"
        )

    def for_want_of_room(self, error: PullError) -> PullError:
        """Return what to say of a failure: a full disk is behind some of them, and git does not always say so."""
        fault = self.room_fault() if error.result in ("failed", "incomplete", "offline") else ""
        if fault:
            error = PullError("no_space", f"{fault}. {error.reason}")
        if error.result == "no_space":
            self.make_room()
        return error

    def make_room(self) -> None:
        """Drop what is half done: the status needs some room, and Redis may."""
        with contextlib.suppress(OSError):
            self.repository.sweep()
        for path in glob.glob(self.at("*", "*.new")):
            shutil.rmtree(path, ignore_errors=True)

    def accept(self, source: str) -> str:
        """Take what a source offers as this host's next state: verified, whole, then accepted. Raises PullError."""
        fault = self.room_fault()
        if fault:
            raise PullError("no_space", fault)
        try:
            tip = self.repository.fetch(source)
        except PullError as error:
            if not CORRUPT.search(error.reason) or source != "origin":
                raise
            self.repository.forget()
            self.repository.have("")
            tip = self.repository.fetch(source)
        try:
            commit = self.repository.verified(tip, self.config["allowed_signers"])
            self.repository.follows(tip, self.known.get("accepted", ""))
        except PullError as error:
            raise PullError(error.result, f"commit {tip[:12]}: {error.reason}") from error
        self.complete(tip)
        self.remember(accepted=tip, commit_time=commit_time(commit), last_contact=int(time.time()))
        return tip

    def complete(self, tip: str) -> None:
        """Have all that this host needs of a commit in a folder of its own. Raises PullError."""
        files = self.repository.files(tip)
        if MANIFEST not in files:
            raise PullError("refused", f"commit {tip[:12]} has no {MANIFEST}; it is none of a fleet's repository")
        self.repository.bring(tip, [files[MANIFEST]])
        try:
            manifest = json.loads(self.repository.asked("cat-file", "blob", files[MANIFEST]))
        except ValueError:
            manifest = None
        fault = manifest_faults(manifest, self.config["branch"])
        if fault:
            raise PullError("refused", f"commit {tip[:12]}: {fault}")
        self.wheels = self.needed_wheels(manifest)
        tree = self.at("trees", tip)
        if os.path.isdir(tree):
            return
        paths = wanted(files, self.config["site"], manifest, self.host, self.wheels)
        self.repository.bring(tip, [files[path] for path in paths])
        new = tree + ".new"
        shutil.rmtree(new, ignore_errors=True)
        os.makedirs(new)
        self.repository.lay_out(tip, paths, new)
        for path, digest in digests(manifest, self.host, self.wheels):
            if path not in files or sha256_of(os.path.join(new, path)) != digest:
                raise PullError("refused", f"commit {tip[:12]}: {path} is not what {MANIFEST} says")
        collection = os.path.join(new, "collections", "ansible_collections", "edgeops", "redis_modules")
        os.makedirs(collection)
        with tarfile.open(os.path.join(new, manifest["collection"]["path"])) as archive:
            # Newer Pythons want to be told; those that don't know of it let this be.
            archive.extraction_filter = getattr(tarfile, "data_filter", None)
            archive.extractall(collection)  # noqa: S202 -- it is signed, and what is in it is going to run as root
        # Before it has its name, all of it is on the disk.
        os.sync()
        os.rename(new, tree)

    def needed_wheels(self, manifest: Mapping[str, Any]) -> list[str]:
        """Return the wheel sets that this host takes: ansible-core where its own is too old. Raises PullError."""
        if self.own_core >= OLDEST_CORE:
            return [ANY_PYTHON]
        name = wheel_set(sys.version_info[:2], self.host["architecture"])
        if name not in manifest.get("wheels", {}):
            oldest = ".".join(str(part) for part in OLDEST_CORE)
            raise PullError(
                "incomplete", f"this host has no ansible-core {oldest} or later, and the repository no wheels {name}"
            )
        return [ANY_PYTHON, name]

    @functools.cached_property
    def own_core(self) -> tuple[int, ...]:
        """Return the version of the ansible-core that is installed here; empty where there is none."""
        if not shutil.which("ansible-playbook"):
            return ()
        # It wants to write below its home even to tell its version.
        environment = {**os.environ, "LC_ALL": "C.UTF-8", "ANSIBLE_HOME": self.at("ansible")}
        done = run(
            ["ansible-playbook", "--version"], 60, {**environment, "ANSIBLE_LOCAL_TEMP": self.at("ansible", "tmp")}
        )
        said = done.out.decode("utf-8", "replace")
        found = re.search(r"core (\d+\.\d+)", said)
        return numbers(found.group(1)) if found else ()

    # ------------------------------------------------------------ apply

    def runtime(self, tree: str, manifest: Mapping[str, Any]) -> str:
        """Have the wheels of a state unpacked, and return their folder. Wheels need no installer. Raises OSError."""
        wheels = [wheel for name in self.wheels for wheel in manifest.get("wheels", {}).get(name, [])]
        name = hashlib.sha256("".join(sorted(wheel["sha256"] for wheel in wheels)).encode()).hexdigest()[:16]
        folder = self.at("runtime", name)
        if not os.path.isdir(folder):
            new = folder + ".new"
            shutil.rmtree(new, ignore_errors=True)
            os.makedirs(new)
            for wheel in wheels:
                with zipfile.ZipFile(os.path.join(tree, wheel["path"])) as archive:
                    archive.extractall(new)  # noqa: S202 -- its digest is in the signed manifest
            os.sync()
            os.rename(new, folder)
        # Under this name, the central side's verify finds them, too.
        link = self.at("libraries")
        if not os.path.islink(link) or os.readlink(link) != folder:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link + ".new")
            os.symlink(folder, link + ".new")
            os.rename(link + ".new", link)
        return folder

    def environment(self, tree: str, libraries: str) -> dict[str, str]:
        """Return the environment of ansible: nothing of this host's own settings."""
        write_whole(self.at("ansible.cfg"), "")
        return {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": self.at("ansible"),
            "LC_ALL": "C.UTF-8",
            "PYTHONPATH": libraries,
            "PYTHONDONTWRITEBYTECODE": "1" if not os.access(libraries, os.W_OK) else "",
            SITE_VARIABLE: self.config["site"],
            "ANSIBLE_CONFIG": self.at("ansible.cfg"),
            "ANSIBLE_HOME": self.at("ansible"),
            "ANSIBLE_LOCAL_TEMP": self.at("ansible", "tmp"),
            "ANSIBLE_REMOTE_TEMP": self.at("ansible", "tmp"),
            "ANSIBLE_COLLECTIONS_PATH": os.path.join(tree, "collections"),
            "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_FORCE_COLOR": "0",
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_NO_TARGET_SYSLOG": "1",
            "ANSIBLE_RETRY_FILES_ENABLED": "0",
            "ANSIBLE_DEPRECATION_WARNINGS": "0",
        }

    def program(self, name: str) -> list[str]:
        """Return how one of ansible's programs is started here."""
        if len(self.wheels) == 1:
            return ["ansible-playbook" if name == "playbook" else "ansible"]
        return [sys.executable, "-m", f"ansible.cli.{name}"]

    def apply(self, tip: str) -> tuple[str, str]:
        """Bring this host to a state that is here; return the result and why not. Raises PullError and OSError."""
        tree = self.at("trees", tip)
        manifest = read_json(os.path.join(tree, MANIFEST))
        self.wheels = self.needed_wheels(manifest)
        environment = self.environment(tree, self.runtime(tree, manifest))
        inventory = os.path.join(tree, INVENTORY)
        known = self.is_known(inventory, environment, tree)
        site = self.config["site"]
        variables = {
            "ansible_connection": "local",
            "ansible_become": False,
            "ansible_python_interpreter": sys.executable,
            "redis_pull_site": site,
            "redis_pull_known": known,
            "redis_pull_tree": tree,
            "redis_pull_platform": self.host,
            "redis_server_carried_packages": ["python3-redis", "python3-pyelftools", "python3-jmespath"],
            "redis_verify_report_dir": self.at("report"),
        }
        command = [*self.program("playbook"), "-e", json.dumps(variables), "-i", inventory, "-l", site]
        if self.config["vault_password_file"]:
            command += ["--vault-password-file", self.config["vault_password_file"]]
        # A host that the inventory does not name gets what is for all hosts: the agent, by the fleet's own settings.
        command += (
            ["edgeops.redis_modules.edge_pull"] if known else ["-i", site + ",", "edgeops.redis_modules.edge_agent"]
        )
        for name in os.listdir(self.at("report")):
            os.unlink(self.at("report", name))
        done = run(command, self.config["apply_seconds"], environment, folder=tree)
        output = done.out.decode("utf-8", "replace") + done.err
        write_whole(self.at("run.log"), output, 0o600)
        if done.code == 124:
            return "failed", f"the playbook took longer than {self.config['apply_seconds']} s"
        if done.code != 0:
            reason = reason_of(output)
            return ("no_artifact" if NO_FIT in reason else "failed"), reason
        if not known:
            return (
                "unknown",
                f"the repository's inventory does not name {site}; this host got the agent and nothing else",
            )
        return "converged", ""

    def is_known(self, inventory: str, environment: Mapping[str, str], tree: str) -> bool:
        """Whether the repository's inventory has this host. Raises PullError where it can't be read."""
        command = [*self.program("adhoc"), self.config["site"], "-i", inventory, "--list-hosts"]
        if self.config["vault_password_file"]:
            command += ["--vault-password-file", self.config["vault_password_file"]]
        done = run(command, 300, environment, folder=tree)
        if done.code != 0:
            raise PullError("failed", f"the repository's inventory can't be read: {_said(done.err)}")
        return hosts_listed(done.out.decode("utf-8", "replace")) == [self.config["site"]]

    def tidy(self) -> None:
        """Drop the files of states that are over."""
        kept = {self.known.get("accepted"), self.known.get("applied")}
        for path in glob.glob(self.at("trees", "*")):
            if os.path.basename(path) not in kept:
                shutil.rmtree(path, ignore_errors=True)
        folders = sorted(glob.glob(self.at("runtime", "*")), key=os.path.getmtime)
        for path in folders[:-2]:
            shutil.rmtree(path, ignore_errors=True)
        self.repository.git("gc", "--auto", "--quiet")

    # ------------------------------------------------------------ all of it

    def run(self, media: Sequence[str]) -> dict[str, Any]:
        """Pull and apply; return the status, which is written, too."""
        began = int(time.time())
        contacts: list[dict[str, str]] = []
        try:
            check_signers(self.config["allowed_signers"])
            # Variables may hold what is for root alone.
            for folder in ("trees", "runtime", "ansible", "report"):
                os.makedirs(self.at(folder), mode=0o700, exist_ok=True)
            self.repository.have(self.known.get("accepted", ""))
            contacts = self.pull(self.sources(media))
            result, reason = self.settle(contacts)
        except PullError as error:
            result, reason = error.result, error.reason
        except OSError as error:
            result, reason = ("no_space" if error.errno == errno.ENOSPC else "failed"), str(error)
            self.make_room()
        if result == "converged":
            with contextlib.suppress(OSError):
                self.remember(last_success=int(time.time()))
        return self.tell(began, result, reason, contacts)

    def settle(self, contacts: Sequence[Mapping[str, str]]) -> tuple[str, str]:
        """Apply what may be applied. Raises PullError and OSError."""
        refused = [contact for contact in contacts if contact["result"] not in ("accepted", "offline")]
        if refused and not any(contact["result"] == "accepted" for contact in contacts):
            # What it was offered is wrong or not whole: it stays as it is.
            return refused[0]["result"], refused[0]["reason"]
        accepted = self.known.get("accepted", "")
        if not accepted or not os.path.isdir(self.at("trees", accepted)):
            reasons = [contact["reason"] for contact in contacts] or [
                "there is no medium, and no repository is configured"
            ]
            return "offline", "; ".join(reasons)
        # Without a link, too: a run that a power cut ended is finished, and drift is mended.
        result, reason = self.apply(accepted)
        if result in ("converged", "unknown"):
            self.remember(applied=accepted)
            self.tidy()
        return result, reason

    def tell(self, began: int, result: str, reason: str, contacts: Sequence[Mapping[str, str]]) -> dict[str, Any]:
        """Write the status for collectors, and return it."""
        now = int(time.time())
        made = self.known.get("commit_time", 0)
        status = {
            "site": self.config["site"],
            "result": result,
            "reason": reason,
            "sources": list(contacts),
            "accepted": self.known.get("accepted", ""),
            "applied": self.known.get("applied", ""),
            "commit_time": made,
            "commit_age": max(0, now - made) if made else 0,
            "clock_is_wrong": now < made,
            "last_run": now,
            "seconds": max(0, now - began),
            "last_success": self.known.get("last_success", 0),
            "last_contact": self.known.get("last_contact", 0),
            "agent": sha256_of(os.path.abspath(__file__))[:16],
            "platform": self.host,
            "modules": verdicts(read_json(self.at("report", "report.json")), self.config["site"]),
        }
        for path, text in (
            (self.at("status.json"), json.dumps(status, indent=2, sort_keys=True) + "\n"),
            (self.config["textfile"], prometheus(status)),
        ):
            try:
                if path:
                    write_whole(path, text)
            except OSError as error:
                say(f"{path} can't be written: {error}", sys.stderr)
        return status


def check_signers(path: str) -> None:
    """See that there are keys to trust. Raises PullError and OSError."""
    with open(path, encoding="utf-8") as stream:
        faults = signer_faults(stream.read())
    if faults:
        raise PullError("misconfigured", f"{path}: {'; '.join(faults)}")


@contextlib.contextmanager
def alone(path: str) -> Iterator[bool]:
    """Whether no other run is under way; as long as the block runs, no other begins."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as stream:
        try:
            # The kernel gives it back with the process, whatever becomes of us.
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point: 0 where the host is as the repository says, or nothing was to do; 1 where it says why not."""
    parser = argparse.ArgumentParser(description="Brings this host to the signed state of its fleet's repository.")
    parser.add_argument("command", choices=["run", "check", "status"])
    parser.add_argument("--config", default=CONFIG)
    parser.add_argument("--site", help="this host's name in the inventory, in place of the configured one")
    parser.add_argument(
        "--medium", action="append", default=[], help="a bundle, or a folder with bundles; none but these are used"
    )
    given = parser.parse_args(arguments)
    try:
        with open(given.config, encoding="utf-8") as stream:
            text = stream.read()
        config = configured(text, os.path.dirname(os.path.abspath(given.config)), {"site": given.site})
        if given.command == "check":
            check_signers(config["allowed_signers"])
            return 0
        if given.command == "status":
            say(json.dumps(read_json(os.path.join(config["state"], "status.json")), indent=2))
            return 0
        os.umask(0o022)
        with alone(os.path.join(config["state"], "lock")) as is_alone:
            if not is_alone:
                say("another run is under way; this one ends here")
                return 0
            status = Agent(config).run(given.medium)
    except (PullError, OSError) as error:
        say(f"edgeops-pull: {error}", sys.stderr)
        return 1
    for contact in status["sources"]:
        say(f"{contact['source']}: {contact['result']} {contact['commit'][:12]}{contact['reason']}")
    say(f"{status['result']}{': ' + status['reason'] if status['reason'] else ''}")
    return 0 if status["result"] in ("converged", "unknown") else 1


if __name__ == "__main__":
    raise SystemExit(main())
