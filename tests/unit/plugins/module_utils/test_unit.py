# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The systemd drop-in."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _conf, _unit

DROPIN = "[Service]\nMemoryMax=1G\n\n"


def test_each_start_leaves_its_digest() -> None:
    directives = _conf.parse("loadmodule /m/a.so\n")
    text = _unit.completed(DROPIN, "redis-server.service", directives, "/c")
    assert text.startswith("[Service]\nMemoryMax=1G\n")
    digest = _conf.start_digest(directives, DROPIN)
    assert text.splitlines()[-1] == f"ExecStartPre=-+/bin/ln -sfn {digest} /run/redis-server.service.started-with"


def test_a_failing_link_never_keeps_the_server_from_starting() -> None:
    (line,) = [line for line in _unit.completed(DROPIN, "u", [], "/c").splitlines() if line.startswith("ExecStartPre=")]
    assert line[len("ExecStartPre=") :].startswith("-")


def test_a_drop_in_that_is_there_was_accepted_already(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dropin.conf"
    monkeypatch.setattr(_unit, "dropin_path", lambda unit: str(path) if unit == "u" else "/nowhere")
    assert not _unit.is_there("u", DROPIN)
    path.write_text(_unit.completed(DROPIN, "u", [], "/c"))
    assert _unit.is_there("u", DROPIN)
    assert not _unit.is_there("u", "[Service]\nMemoryMax=1\n")
    assert not _unit.is_there("v", DROPIN)


def test_only_lines_about_the_drop_in_tell() -> None:
    output = "/run/x/u.d/check.conf:3: Unknown key 'Mem' in section [Service], ignoring.\n"
    output += "/lib/systemd/system/other.service:1: old\n\n"
    assert _unit.telling_lines(output, "/run/x/u.d/check.conf") == [
        "drop-in:3: Unknown key 'Mem' in section [Service], ignoring."
    ]
    assert _unit.telling_lines("", "/run/x") == []


def test_systemd_sees_the_units_own_file_and_the_drop_in_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fragment = tmp_path / "packaged.service"
    fragment.write_text("[Service]\nExecStart=/bin/true\n")
    work = tmp_path / "work"
    monkeypatch.setattr(_unit._scratch.tempfile, "mkdtemp", lambda prefix, dir: work.mkdir() or str(work))
    seen: list[Any] = []

    def run(words: list[str], **_options: Any) -> Any:
        unit = Path(words[-1])
        conf = Path(str(unit) + ".d") / "check.conf"
        seen.append((words[:2], unit.name, unit.read_text(), conf.read_text()))
        return 1, "", f"{conf}:2: bad\n"

    assert _unit.faults(run, "redis-server.service", str(fragment), DROPIN) == ["drop-in:2: bad"]
    assert seen == [(["systemd-analyze", "verify"], "redis-server.service", fragment.read_text(), DROPIN)]
    assert not os.path.exists(work)


class TestKeeper:
    """The script that puts back what CONFIG REWRITE spoils, run by a real shell."""

    DECLARED = 'loadmodule /m/b.so "with spaces" "say \\"x\\"" "back\\\\slash" "it\'s" ""\nloadmodule /m/a.so plain\n'

    def conf(self) -> str:
        """Return a redis.conf as the role writes it."""
        lines = [f"#: {line}\n{line}\n" for line in self.DECLARED.splitlines()]
        return "port 1\n" + "".join(lines) + "hz 10\n"

    def kept(self, text: str) -> str:
        """Run it."""

        def run(words: list[str]) -> tuple[int, str, str]:
            done = subprocess.run(words, capture_output=True, text=True, check=False)
            assert (done.returncode, done.stderr) == (0, "")
            return (0, done.stdout, "")

        return _unit.kept(run, text)

    def loaded(self, text: str) -> str:
        """Return the loadmodule lines."""
        return "".join(line + "\n" for line in text.splitlines() if line.startswith("loadmodule"))

    def test_what_is_as_declared_stays(self) -> None:
        assert self.kept(self.conf()) == self.conf()
        assert self.kept("port 1\nloadmodule /m/a.so x\n") == "port 1\nloadmodule /m/a.so x\n"

    def test_quotes_and_order_come_back(self) -> None:
        lines = [line for line in self.conf().splitlines() if not line.startswith("loadmodule")]
        rewritten = [*lines, "loadmodule /m/a.so plain", 'loadmodule /m/b.so with spaces say "x" back\\slash it\'s ']
        text = self.kept("\n".join(rewritten) + "\n")
        assert self.loaded(text) == self.DECLARED
        assert "hz 10\n" in text

    @pytest.mark.parametrize("change", ["#loadmodule /m/a.so plain", "", "loadmodule /m/a.so other"])
    def test_what_somebody_changed_on_purpose_stays(self, change: str) -> None:
        text = self.conf().replace("\nloadmodule /m/a.so plain", "\n" + change)
        assert text != self.conf()
        assert self.kept(text) == text

    def test_it_runs_before_each_start_where_it_has_something_to_do(self) -> None:
        path = "/etc/redis/redis.conf"
        spoiled = _unit.completed(DROPIN, "u", _conf.parse(self.DECLARED), path)
        assert f"ExecStartPre=-+{_unit.KEEPER} {path}\n" in spoiled
        for harmless in ("loadmodule /m/a.so plain\n", "port 1\n"):
            assert _unit.KEEPER not in _unit.completed(DROPIN, "u", _conf.parse(harmless), path)


@pytest.mark.parametrize(
    ("output", "exposure"),
    [
        ("→ Overall exposure level for redis-server.service: 4.1 OK 🙂\n", 4.1),
        ("-> Overall exposure level for redis-server.service: 10.0 DANGEROUS :-{\n", 10.0),
        ("Failed to get unit\n", None),
        ("", None),
    ],
)
def test_the_overall_exposure_is_read(output: str, exposure: float | None) -> None:
    assert _unit.overall_exposure(output) == exposure
