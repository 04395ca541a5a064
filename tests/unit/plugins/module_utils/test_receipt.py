# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The receipt itself: who may have written it, what differs from it, and how that is said."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _places, _plan, _receipt, _release
from ansible_collections.edgeops.redis_modules.plugins.module_utils._receipt import Look, Receipt, Seen

LOOK = Look(
    unit="redis-server.service",
    conf_path="/etc/redis/redis.conf",
    binary="/usr/bin/redis-server",
    folder="/m",
    owner="redis",
    group="redis",
    mode="0555",
    user="redis",
    data_folder="/var/lib/redis",
    modules=[{"name": "a", "path": "/m/a.so", "state": "present", "args": ["x y"], "version": 2, "sha256": None}],
    packages=["systemd", "redis-server"],
    files=["/etc/redis/redis.conf"],
    units=["edgeops-redis-firewall.service"],
    exposure=1.1,
    firewall={"ports": [6379], "allowed": {"ipv4": ["10.0.0.0/8"], "ipv6": []}},
)
RECEIPT = Receipt("declared", 1000000000, LOOK, "salt", {"/etc/redis/redis.conf": "root:root 0640 " + "1" * 64})


class Os:
    """Stands for the os of a process that is root: whatever is its own is root's."""

    def __init__(self, uid: int = 0) -> None:
        self.uid = uid

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def fstat(self, descriptor: int) -> os.stat_result:
        found = list(os.fstat(descriptor))
        found[stat.ST_UID] = self.uid
        return os.stat_result(found)


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return where a receipt is."""
    monkeypatch.setattr(_receipt, "os", Os())
    monkeypatch.setattr(_release.os, "fchown", lambda *_words: None)
    found = tmp_path / "state" / "receipt.json"
    found.parent.mkdir()
    _receipt.note(str(found), RECEIPT)
    return found


class TestOnDisk:
    """Whether a receipt is believed."""

    def test_one_that_was_noted_comes_back_as_it_was(self, path: Path) -> None:
        assert _receipt.load(str(path)) == RECEIPT
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert os.listdir(path.parent) == ["receipt.json"]

    def test_it_is_made_roots_own(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[Any] = []
        monkeypatch.setattr(_release.os, "fchown", lambda _descriptor, *ids: given.append(ids))
        _receipt.note(str(path), RECEIPT)
        assert given == [(0, 0)]

    def test_a_later_one_takes_its_place(self, path: Path) -> None:
        _receipt.note(str(path), RECEIPT._replace(declared="another"))
        found = _receipt.load(str(path))
        assert found is not None
        assert found.declared == "another"

    def test_none_is_none(self, tmp_path: Path) -> None:
        assert _receipt.load(str(tmp_path / "receipt.json")) is None
        assert _receipt.load(str(tmp_path / "no folder" / "receipt.json")) is None
        assert _receipt.load(str(tmp_path)) is None

    def test_somebody_elses_is_not_believed(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_receipt, "os", Os(uid=33))
        assert _receipt.load(str(path)) is None

    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o601])
    def test_one_that_others_can_get_at_is_not_believed(self, path: Path, mode: int) -> None:
        path.chmod(mode)
        assert _receipt.load(str(path)) is None
        path.chmod(0o400)
        assert _receipt.load(str(path)) == RECEIPT

    @pytest.mark.parametrize("number", [0, 2, "1", None])
    def test_another_format_is_not_believed(self, path: Path, number: Any) -> None:
        content = json.loads(path.read_text())
        assert content["format"] == _receipt.FORMAT == 1
        path.write_text(json.dumps({**content, "format": number}))
        assert _receipt.load(str(path)) is None
        del content["format"]
        path.write_text(json.dumps(content))
        assert _receipt.load(str(path)) is None

    def test_one_that_is_cut_off_anywhere_is_not_believed(self, path: Path) -> None:
        whole = path.read_bytes()
        for end in range(len(whole)):
            path.write_bytes(whole[:end])
            assert _receipt.load(str(path)) is None, end

    @pytest.mark.parametrize("text", ["null", "[]", '["format"]', '"format"', "1", '{"format": 1}', "no JSON", "\0\0"])
    def test_what_is_no_receipt_is_not_believed(self, path: Path, text: str) -> None:
        path.write_text(text)
        assert _receipt.load(str(path)) is None

    def test_what_is_no_text_is_not_believed(self, path: Path) -> None:
        path.write_bytes(b"\xff" + path.read_bytes())
        assert _receipt.load(str(path)) is None

    @pytest.mark.parametrize("key", ["declared", "reached", "look", "salt", "seen"])
    def test_one_with_too_little_or_too_much_in_it_is_not_believed(self, path: Path, key: str) -> None:
        content = json.loads(path.read_text())
        path.write_text(json.dumps({name: value for name, value in content.items() if name != key}))
        assert _receipt.load(str(path)) is None
        path.write_text(json.dumps({**content, "more": 1}))
        assert _receipt.load(str(path)) is None
        path.write_text(json.dumps({**content, "look": {**content["look"], "more": 1}}))
        assert _receipt.load(str(path)) is None
        path.write_text(json.dumps({**content, "look": {"unit": "u"}}))
        assert _receipt.load(str(path)) is None


class TestDifferences:
    """What is said of what is not as it was."""

    def test_nothing_where_all_is_the_same(self) -> None:
        assert _receipt.differences(RECEIPT, "declared", dict(RECEIPT.seen)) == []

    def test_what_is_declared(self) -> None:
        assert _receipt.differences(RECEIPT, "another", dict(RECEIPT.seen)) == ["something else is declared since"]

    def test_each_subject_that_is_gone_new_or_changed_by_name(self) -> None:
        receipt = RECEIPT._replace(seen={"gone": "x", "kept": "x", "changed": "x"})
        assert _receipt.differences(receipt, "another", {"kept": "x", "changed": "y", "a new one": "x"}) == [
            "something else is declared since",
            "a new one was not there",
            "changed is y, was x",
            "gone is not there any more",
        ]

    def test_what_was_not_there_and_is_not_is_no_difference(self) -> None:
        receipt = RECEIPT._replace(seen={"package a": _receipt.MISSING})
        assert _receipt.differences(receipt, "declared", {"package a": _receipt.MISSING}) == []
        assert _receipt.differences(receipt, "declared", {}) == []
        assert _receipt.differences(RECEIPT._replace(seen={}), "declared", {"package a": _receipt.MISSING}) == []

    @pytest.mark.parametrize(
        ("before", "now", "said"),
        [
            ("missing", "1", "it was not there"),
            ("1", "missing", "it is not there any more"),
            ("7.0.15-1", "7.0.15-2", "it is 7.0.15-2, was 7.0.15-1"),
            ("root:root 0640 " + "a" * 64, "root:root 0640 " + "b" * 64, "it is another"),
            ("root:root 0640 " + "a" * 64, "root:root 0644 " + "a" * 64, "it is root:root 0644, was root:root 0640"),
            ("root:root 0640 " + "a" * 64, "me:root 0640 " + "b" * 64, "it is me:root 0640, was root:root 0640"),
            ("a" * 32, "b" * 32, "it is another"),
            ("a" * 16, "b" * 16, "it is another"),
            # A short number is none; the digits of a version neither.
            ("20221207", "20230101", "it is 20230101, was 20221207"),
            ("/usr/bin/redis", "/usr/bin/redis (deleted)", "it is /usr/bin/redis (deleted), was /usr/bin/redis"),
        ],
    )
    def test_owner_mode_and_versions_are_shown_and_digests_are_not(self, before: str, now: str, said: str) -> None:
        assert _receipt.difference("it", before, now) == said

    def test_modules_that_are_not_as_wanted(self) -> None:
        def verdict(name: str, said: str, *differences: str) -> _plan.Verdict:
            return _plan.Verdict(name, said, list(differences), 1, "/m", "", "")

        found = [
            verdict("a", "loaded"),
            verdict("b", "drifted", "mode is 0777", "owner is me"),
            verdict("c", "absent"),
            verdict("d", "undeclared", "it runs"),
            verdict("e", "restart-pending", "stale"),
        ]
        assert _receipt.of_modules(found) == [
            "module b: drifted: mode is 0777; owner is me",
            "module d: undeclared: it runs",
            "module e: restart-pending: stale",
        ]


class TestUnfinished:
    """What a rollout leaves that did not come to its end."""

    @pytest.fixture(autouse=True)
    def places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_places, "SNAPSHOT", str(tmp_path / "before"))
        monkeypatch.setattr(_places, "LOCK", str(tmp_path / "rollout.lock"))

    def test_nothing(self) -> None:
        assert _receipt.unfinished("redis-server.service") == []

    def test_a_snapshot_is_that_of_its_own_unit(self, tmp_path: Path) -> None:
        said = ["a rollout that did not come to its end has left its snapshot"]
        (tmp_path / "before").mkdir()
        assert _receipt.unfinished("redis-server.service") == _receipt.unfinished("redis") == said
        assert _receipt.unfinished("redis-two.service") == []
        (tmp_path / "before-redis-two.service").mkdir()
        assert _receipt.unfinished("redis-two") == said

    def test_a_lock_counts_for_all_units_and_as_a_link_to_nowhere_too(self, tmp_path: Path) -> None:
        (tmp_path / "rollout.lock").symlink_to("/nowhere")
        for unit in ("redis-server.service", "redis-two.service"):
            assert _receipt.unfinished(unit) == ["a rollout holds its lock"]


class TestSalted:
    """Digests of what may be a secret."""

    def test_they_tell_whether_it_is_the_same_and_nothing_else(self) -> None:
        assert _receipt.salted("salt", "word") == _receipt.salted("salt", "word")
        assert "word" not in _receipt.salted("salt", "word")
        digests = [
            _receipt.salted(*words)
            for words in [("salt", "word"), ("other", "word"), ("salt", "wor", "d"), ("salt", ""), ("salt",)]
        ]
        assert len(set(digests)) == 5
        # So that a difference does not show them.
        assert _receipt.difference("it", digests[0], digests[1]) == "it is another"

    def test_of_bytes_that_are_no_text(self) -> None:
        assert _receipt.salted("salt", "\udcff") != _receipt.salted("salt", "\udcfe")


class TestLook:
    """Where to look."""

    def test_the_modules_as_they_have_to_be(self) -> None:
        assert LOOK.wanted == [
            _plan.Wanted("a", "present", "/m/a.so", ["x y"], 2, "", owner="redis", group="redis", mode="0555")
        ]

    def test_what_an_entry_leaves_out(self) -> None:
        (wanted,) = LOOK._replace(modules=[{"name": "a", "path": "/m/a.so"}]).wanted
        assert (wanted.state, wanted.args, wanted.version, wanted.sha256) == ("present", [], None, "")

    def test_nobody_elses_look_gets_its_firewall(self) -> None:
        bare = Look(*LOOK[:12])
        assert (bare.units, bare.exposure, bare.firewall) == ((), None, {})


class TestUnits:
    """What systemd tells of several units at once."""

    OUT = "Id=redis-server.service\nDropInPaths=/d/a.conf /d/b.conf\nFragmentPath=/u\n\nId=b.service\nDropInPaths=\n"

    def test_by_the_names_as_given(self) -> None:
        ran: list[Any] = []

        def run(words: list[str]) -> Any:
            ran.append(words)
            return 0, self.OUT, ""

        units = _receipt._units(run, ["redis.service", "b.service"])
        assert units["redis.service"]["Id"] == "redis-server.service"
        assert units["b.service"] == {"Id": "b.service", "DropInPaths": ""}
        assert ran == [
            ["systemctl", "show", "-p", ",".join(_receipt.UNIT_PROPERTIES), "redis.service", "b.service"],
        ]
        assert _receipt._unit_files(units) == ["/u", "/d/a.conf", "/d/b.conf"]

    @pytest.mark.parametrize(
        ("answer", "words"),
        [
            ((1, "", "no bus\n"), "no bus"),
            ((0, "Id=a.service\n", ""), "Id=a.service"),
            ((0, "", ""), "systemctl show: "),
        ],
    )
    def test_a_systemd_that_does_not_tell_is_an_error(self, answer: Any, words: str) -> None:
        with pytest.raises(OSError, match=words):
            _receipt._units(lambda _words: answer, ["a.service", "b.service"])

    def test_a_file_that_several_units_have_is_one(self) -> None:
        both = {"a": {"FragmentPath": "/u", "DropInPaths": "/d"}, "b": {"FragmentPath": "/u", "DropInPaths": "/d /e"}}
        assert _receipt._unit_files(both) == ["/u", "/d", "/e"]


class TestReport:
    """What a host that is as wanted tells without being asked again."""

    SEEN = Seen(
        state={},
        verdicts=[_plan.Verdict("a", "loaded", [], 2, "/m/a.so", "1", "1")],
        server_version="7.0.15",
        counters={"accepted": 5},
        topology={"running": True},
    )

    def test_as_it_would_be_confirmed(self) -> None:
        assert _receipt.confirmation(LOOK, self.SEEN) == {
            "confirmed": True,
            "error": "",
            "server_version": "7.0.15",
            "exposure": 1.1,
            "verdicts": [self.SEEN.verdicts[0].as_dict()],
        }

    def test_the_firewall_with_what_its_counters_say_now(self) -> None:
        look = LOOK._replace(firewall={**LOOK.firewall, "counters": {"accepted": 1}, "differences": ["it was away"]})
        assert _receipt.firewall(look, self.SEEN) == {
            **LOOK.firewall,
            "differences": [],
            "in_force": True,
            "counters": {"accepted": 5},
        }
        assert _receipt.firewall(LOOK._replace(firewall={}), self.SEEN) == {}
