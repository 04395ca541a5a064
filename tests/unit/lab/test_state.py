# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of labs, and whom a teardown may touch."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from labkit import files, state
from labkit.errors import LabError

HOST = state.Host("trixie", "bare", "/images/x", 11)


def test_state_survives_the_file(tmp_path: Path) -> None:
    before = state.LabState("demo", 3, "boot", hosts={"a": HOST})
    state.save_state(tmp_path / "demo", before)
    assert state.load_state(tmp_path / "demo") == before


def test_no_lab_is_no_state(tmp_path: Path) -> None:
    assert state.load_state(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"hosts": {"a": {"no": 1}}}'])
def test_a_broken_state_says_what_to_do(tmp_path: Path, text: str) -> None:
    state.state_path(tmp_path).write_text(text)
    with pytest.raises(LabError, match="by hand"):
        state.load_state(tmp_path)


def test_a_reused_pid_is_not_our_host() -> None:
    own = os.getpid()
    began = files.process_start_time(own)
    assert began is not None
    host = state.Host("trixie", "bare", "", pid=own, start_time=began)
    lab = state.LabState("demo", 0, files.boot_id(), hosts={"a": host})
    assert lab.is_running("a")
    host.start_time += 1
    assert not lab.is_running("a")
    host.start_time -= 1
    lab.boot = "a former boot"
    assert not lab.is_running("a")


def test_registry_is_void_after_a_boot() -> None:
    registry = state.Registry(
        "b1", False, {2: state.Registration("/x/demo", "demo", 3)}, {"net.ipv4.ip_forward": state.Setting("0", "1")}
    )
    text = state.encode_registry(registry)
    assert state.decode_registry(text, "b1") == registry
    assert state.decode_registry(text, "b2") == state.Registry("b2")
    assert state.decode_registry("{", "b1") == state.Registry("b1")


def test_another_labs_index_is_not_ours() -> None:
    registry = state.Registry("b", labs={2: state.Registration("/x/demo", "demo")})
    assert registry.index_of(Path("/x/demo")) == 2
    assert registry.index_of(Path("/y/demo")) is None
    assert registry.owns(2, Path("/x/demo"))
    assert not registry.owns(2, Path("/y/demo"))
    assert registry.owns(3, Path("/y/demo"))


@pytest.mark.parametrize(
    ("hosts", "forward", "instances", "wanted"),
    [
        (3, "0", "128", {"net.ipv4.ip_forward"}),
        (3, "1", "128", set()),
        (30, "1", "128", {"fs.inotify.max_user_instances"}),
        (30, "0", "65536", {"net.ipv4.ip_forward"}),
    ],
)
def test_only_needed_sysctls_are_changed(hosts: int, forward: str, instances: str, wanted: set[str]) -> None:
    now = {"net.ipv4.ip_forward": forward, "fs.inotify.max_user_instances": instances}
    assert set(state.wanted_sysctls(hosts, now)) == wanted


def test_start_time_of_a_process_with_an_odd_name() -> None:
    assert files.parse_start_time(f"7 (a) b (c) S {' '.join(map(str, range(4, 30)))}") == 22


MOUNTS = r"""
36 1 8:1 / / rw - ext4 /dev/sda rw
40 36 0:1 / /lab/demo/hosts/a/root rw - overlay overlay rw,upperdir=/lab/demo/hosts/a/upper
41 36 0:2 / /lab/demo2/hosts/a/root rw - overlay overlay rw,upperdir=/lab/demo2/hosts/a/upper
42 36 0:3 / /moved\040away/root rw - overlay overlay rw,upperdir=/lab/demo/hosts/b/upper
""".strip()


def test_mounts_of_one_lab_only() -> None:
    assert files.parse_mount_points(MOUNTS, "/lab/demo") == ["/lab/demo/hosts/a/root", "/moved away/root"]


def test_a_lock_may_go_with_its_folder(tmp_path: Path) -> None:
    lock = tmp_path / "lab" / "lock"
    order = []

    def second() -> None:
        with files.locked(lock):
            order.append("second")

    with files.locked(lock):
        thread = threading.Thread(target=second)
        thread.start()
        thread.join(0.2)
        order.append("first")
        lock.unlink()
        lock.parent.rmdir()
    thread.join(5)
    assert order == ["first", "second"]
    assert lock.exists()


def test_a_lock_is_not_waited_for_without_end(tmp_path: Path) -> None:
    with (
        files.locked(tmp_path / "lock"),
        pytest.raises(LabError, match="another lab command"),
        files.locked(tmp_path / "lock", wait=0.1),
    ):
        pass


def test_writes_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "f"
    files.write_atomically(path, "one", 0o600)
    files.write_atomically(path, "two", 0o600)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("two", 0o600)
    assert [p.name for p in tmp_path.iterdir()] == ["f"]
