# SPDX-License-Identifier: GPL-3.0-or-later
"""The example module on real Redis servers.

Each test runs on the Redis of every lab image (SUITE-ready or SUITE-ready-* in
LAB_IMAGES, default build/lab/images), with the module built by that image's own compiler: once
with Redis 6.0's redismodule.h, once with the server's own (REDISMODULE_HEADERS,
default build/headers; fetch_headers.py fills it).

Compilers and servers run in the image by chroot, in a mount namespace of
their own, where a temporary folder of the test's lies over /mnt. So nothing is
written to an image, and no mount outlives its process.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "examples" / "sensorwindow"
IMAGES = Path(os.environ.get("LAB_IMAGES", REPOSITORY / "build" / "lab" / "images"))
HEADERS = Path(os.environ.get("REDISMODULE_HEADERS", REPOSITORY / "build" / "headers"))
SUITES = {"bullseye": "6.0.16", "bookworm": "7.0.15", "trixie": "8.0.2"}
OLDEST = "6.0.16"
INSIDE = Path("/mnt")  # where a test's folder lies in the image
DEADLINE_S = 20.0

# As the collection builds a module.
COMPILE = [
    *("gcc", "-O2", "-g", "-fPIC", "-std=gnu99", "-Wall", "-Wextra", "-Werror"),
    *("-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-c"),
]
LINK = ["gcc", "-shared", "-Wl,-z,relro,-z,now,-z,noexecstack"]


def until(condition: Callable[[], object], what: str, deadline_s: float = DEADLINE_S) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, f"not within {deadline_s} s: {what}"
        time.sleep(0.005)


def free_port() -> int:
    """Return a port of the loopback that was free just now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Image:
    """A Debian root file system with redis-server and gcc."""

    suite: str

    @property
    def version(self) -> str:
        """The version of its Redis."""
        return SUITES[self.suite]

    @property
    def root(self) -> Path:
        """Its folder; the test fails with what to do where it is missing."""
        found = [
            root
            for root in (*IMAGES.glob(f"{self.suite}-ready"), *IMAGES.glob(f"{self.suite}-ready-*"))
            if all(os.path.lexists(root / "usr/bin" / name) for name in ("redis-server", "gcc"))
        ]
        if not found:
            pytest.fail(
                f"{IMAGES} has no {self.suite}-ready with redis-server and gcc. Build the lab's "
                "images (lab/lab.py), set LAB_IMAGES, or:\n"
                f"mmdebstrap --variant=minbase --include=redis-server,gcc,libc6-dev "
                f"{self.suite} {IMAGES / self.suite}-ready",
                pytrace=False,
            )
        if os.geteuid() != 0:
            pytest.fail("chroot into the lab's images needs root", pytrace=False)
        return max(found, key=lambda root: root.stat().st_mtime)

    def command(self, folder: Path, argv: list[str]) -> list[str]:
        """Return the command that runs argv in the image, the folder at /mnt."""
        script = 'mount --bind "$1" "$2/mnt" && shift && exec chroot "$@"'
        return [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", script, "sh", str(folder), str(self.root), *argv),
        ]

    def run(self, folder: Path, argv: list[str]) -> subprocess.CompletedProcess[str]:
        """Run argv in the image to its end."""
        return subprocess.run(
            self.command(folder, argv),
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR": str(INSIDE), "LC_ALL": "C"},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )


@dataclass(frozen=True)
class Target:
    """A Redis and the version of the header that the module is built with."""

    image: Image
    header: str

    def __str__(self) -> str:
        """Return the name in test identifiers."""
        own = "own" if self.header == self.image.version else self.header
        return f"redis{self.image.version}-{own}-header"


TARGETS = [
    Target(Image(suite), header) for suite, version in SUITES.items() for header in dict.fromkeys((OLDEST, version))
]


@dataclass
class Builder:
    """Builds the module once for each header, image and release."""

    folder: Path
    built: dict[tuple[Target, int, tuple[str, ...]], Path] = field(default_factory=dict)

    def __call__(self, target: Target, release: int = 2, libraries: tuple[str, ...] = ("-lm", "-lpthread")) -> Path:
        """Return the path of sensorwindow.so."""
        key = (target, release, libraries)
        if key not in self.built:
            self.built[key] = self.build(target, release, libraries)
        return self.built[key]

    def build(self, target: Target, release: int, libraries: tuple[str, ...]) -> Path:
        """Compile each source in the image, and link."""
        header = HEADERS / target.header / "redismodule.h"
        if not header.is_file():
            pytest.fail(
                f"{header} is missing: python3 {Path(__file__).with_name('fetch_headers.py')} {HEADERS}",
                pytrace=False,
            )
        folder = Path(tempfile.mkdtemp(dir=self.folder))
        shutil.copy(header, folder)
        for source in (*SOURCES.glob("*.c"), *SOURCES.glob("*.h")):
            shutil.copy(source, folder)
        objects = []
        for source in sorted(SOURCES.glob("*.c")):
            objects.append(str(INSIDE / source.with_suffix(".o").name))
            define = f"-DSENSORWINDOW_RELEASE={release}"
            self.gcc(target, folder, [*COMPILE, define, str(INSIDE / source.name), "-o", objects[-1]])
        output = str(INSIDE / "sensorwindow.so")
        self.gcc(target, folder, [*LINK, "-o", output, *objects, *libraries, "-lc"])
        return folder / "sensorwindow.so"

    @staticmethod
    def gcc(target: Target, folder: Path, argv: list[str]) -> None:
        """Run one command of the build, which must be silent."""
        done = target.image.run(folder, argv)
        assert (done.returncode, done.stdout) == (0, ""), f"{argv}\n{done.stdout}"


class Server:
    """A redis-server with the module, in the image."""

    def __init__(self, image: Image, folder: Path, module: Path | None, args: str = "", **config: str) -> None:
        self.image, self.folder = image, folder
        folder.mkdir()
        self.config = {
            "port": "0",
            "unixsocket": str(INSIDE / "s"),
            "dir": str(INSIDE),
            "logfile": str(INSIDE / "log"),
            "save": '""',
            "appendonly": "no",
            "bind": "127.0.0.1",
            "hz": "100",  # SIGTERM is looked at that often
            "repl-diskless-sync-delay": "0",
            **({} if image.version.startswith("6.") else {"enable-debug-command": "yes"}),
            **{name.replace("_", "-"): value for name, value in config.items()},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self.place(module, args)

    def place(self, module: Path | None, args: str = "") -> None:
        """Set the module, by rename, and its arguments, for the next start."""
        lines = [f"{name} {value}" for name, value in self.config.items()]
        if module:
            shutil.copy(module, self.folder / "new.so")
            (self.folder / "new.so").rename(self.folder / "sensorwindow.so")
            lines.append(f"loadmodule {INSIDE / 'sensorwindow.so'} {args}")
        (self.folder / "redis.conf").write_text("\n".join(lines) + "\n", encoding="utf-8")

    @property
    def log(self) -> str:
        """What the server has logged since its last start."""
        path = self.folder / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def launch(self) -> None:
        """Start the process."""
        for name in ("log", "s"):
            (self.folder / name).unlink(missing_ok=True)
        self.process = subprocess.Popen(
            self.image.command(self.folder, ["redis-server", str(INSIDE / "redis.conf")]),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def start(self) -> redis.Redis:
        """Start the server, wait until it serves, and return a client."""
        self.launch()
        client = self.client()

        def serves() -> bool:
            assert self.alive(), self.log
            try:
                return bool(client.ping())
            except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
                return False

        until(serves, "the server serves")
        return client

    def refused(self) -> str:
        """Start a server that must end by itself, without a signal; return its log."""
        self.launch()
        assert self.ended() >= 0, self.log
        return self.log

    def ended(self) -> int:
        """Wait for the end of a process that ends by itself; return its status."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def client(self, *, decode_responses: bool = True) -> redis.Redis:
        """Return a new client."""
        return redis.Redis(
            unix_socket_path=str(self.folder / "s"),
            decode_responses=decode_responses,
            socket_timeout=DEADLINE_S,
            retry=Retry(NoBackoff(), 0),
        )

    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process is not None and self.process.poll() is None

    def stop(self) -> None:
        """End the process that was started here."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise
        self.process = None

    def restart(self) -> redis.Redis:
        """Stop and start."""
        self.stop()
        return self.start()


@dataclass
class Servers:
    """Makes servers, and ends them all when the test is over."""

    folder: Path
    target: Target
    build: Builder
    made: list[Server] = field(default_factory=list)

    def __call__(self, args: str = "", release: int = 2, **config: str) -> Server:
        """Return a server, not yet started, with the module."""
        folder = self.folder / f"server{len(self.made)}"
        module = self.build(self.target, release)
        self.made.append(Server(self.target.image, folder, module, args, **config))
        return self.made[-1]

    def stop(self) -> None:
        """End every server that still runs."""
        for server in self.made:
            server.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run every test that needs a target on each of them."""
    if "target" in metafunc.fixturenames:
        metafunc.parametrize("target", TARGETS, ids=str, scope="session")


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    """Build the module on demand."""
    return Builder(tmp_path_factory.mktemp("builds"))


@pytest.fixture
def servers(tmp_path: Path, target: Target, build: Builder) -> Iterator[Servers]:
    """Servers of the test's own."""
    made = Servers(tmp_path, target, build)
    yield made
    made.stop()


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory, target: Target, build: Builder) -> Iterator[Server]:
    """One server a target, for the tests that only need commands."""
    folder = tmp_path_factory.mktemp("shared") / "server"
    server = Server(target.image, folder, build(target))
    server.start()
    yield server
    server.stop()


@pytest.fixture
def db(shared_server: Server) -> Iterator[redis.Redis]:
    """A client of the shared server, with no keys there."""
    with shared_server.client() as client:
        client.flushall()
        yield client
    assert shared_server.alive(), shared_server.log
