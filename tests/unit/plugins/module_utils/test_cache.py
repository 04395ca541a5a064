# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A cache has what is whole, the newest first, and a number of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _cache, _release

PLATFORM = {"architecture": "x86_64", "libc": "glibc 2.36"}


def put(cache: Path, inputs: str, source: str = "s", content: bytes = b"so", time: int = 0) -> Path:
    """Store an artifact of module m; return its folder."""
    cache.mkdir(exist_ok=True)
    (cache / "new").write_bytes(content)
    manifest = {
        "name": "m",
        "inputs": inputs,
        "source_digest": source,
        "request": f"r{inputs}",
        "platform": PLATFORM,
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    _cache.store(str(cache), str(cache / "new"), manifest)
    folder = Path(_cache.folder_of(str(cache), "m", inputs))
    os.utime(folder, (time, time))
    return folder


def test_what_is_held_is_told_with_the_newest_first(tmp_path: Path) -> None:
    for number, inputs in enumerate(["1", "3", "2"]):
        put(tmp_path, inputs, time=number)
    put(tmp_path, "4", source="other")
    found = _cache.held(str(tmp_path), {"m": ["s"], "unknown": ["s"]})
    assert [held["inputs"] for held in found["m"]] == ["2", "3", "1"]
    assert list(found) == ["m"]
    assert found["m"][0] == {
        "inputs": "2",
        "request": "r2",
        "sha256": hashlib.sha256(b"so").hexdigest(),
        **PLATFORM,
        "path": f"{tmp_path}/artifacts/m/2/m.so",
    }


@pytest.mark.parametrize("manifest", ["", "{", "{}", "[]", '{"source_digest": "s", "platform": {}}'])
def test_what_is_not_whole_is_not_held(tmp_path: Path, manifest: str) -> None:
    folder = put(tmp_path, "1")
    (folder / "manifest.json").write_text(manifest)
    assert _cache.held(str(tmp_path), {"m": ["s"]}) == {}
    assert _cache.whole(str(tmp_path), "m", "1") == {}


def test_those_that_are_spared_stay(tmp_path: Path) -> None:
    folders = [put(tmp_path, str(number), time=number) for number in range(4)]
    _cache.prune(str(tmp_path), "m", 2, ["0"])
    assert [folder.exists() for folder in folders] == [True, False, True, True]


def test_one_cache_takes_in_what_another_gave(tmp_path: Path) -> None:
    put(tmp_path / "there", "1" * 64)
    files = _cache.names_in_archive(str(tmp_path / "there"), [("m", "1" * 64)])
    (tmp_path / "brought").mkdir()
    _build.unpack(_build.pack(files), str(tmp_path / "brought"))
    here = str(tmp_path / "here")
    taken = _cache.take_in(here, str(tmp_path / "brought"), "m", "1" * 64, 5)
    assert taken == _cache.whole(here, "m", "1" * 64) == _cache.whole(str(tmp_path / "there"), "m", "1" * 64)
    # Under the name of other inputs, it is not what it says.
    (tmp_path / "brought" / "m" / ("1" * 64)).rename(tmp_path / "brought" / "m" / ("2" * 64))
    assert _cache.take_in(here, str(tmp_path / "brought"), "m", "2" * 64, 5) == {}


def test_a_cache_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    assert _cache.held(str(tmp_path / "none"), {"m": ["s"]}) == {}


def test_folders_that_another_process_makes_meanwhile_do_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hosts in whose names the controller builds come to its empty cache at once."""
    missing = [str(tmp_path / "a" / "b"), str(tmp_path / "a")]
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.setattr(_release, "missing_folders", lambda _path: missing)
    _release.make_folders(missing[0])
