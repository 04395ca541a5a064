# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a throwaway server answers is compared with what a module's entry says."""

from __future__ import annotations

from typing import Any

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _smoke
from ansible_collections.edgeops.redis_modules.plugins.module_utils._smoke import Answer, SmokeError


class Replies:
    """Answers commands by their words; an exception is raised."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    def __call__(self, words: Any) -> Any:
        self.asked.append(" ".join(words))
        answer = self.answers[words[0]]
        if isinstance(answer, Exception):
            raise answer
        return answer


def smoke(*command: str, **more: Any) -> dict[str, Any]:
    return {"command": list(command), **more}


def entry(name: str, *smokes: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "smoke": list(smokes)}


class TestPlain:
    """An answer as JSON knows it."""

    @pytest.mark.parametrize(
        ("reply", "plain"),
        [
            (b"added", "added"),
            ("added", "added"),
            (12, 12),
            (None, None),
            ([], []),
            ([b"a", [1, (b"b", None)]], ["a", [1, ["b", None]]]),
            ({b"a": [b"b"], 1: None}, {"a": ["b"], "1": None}),
            (b"\xff", "\udcff"),
        ],
    )
    def test_text_numbers_lists_and_null(self, reply: Any, plain: Any) -> None:
        assert _smoke.plain(reply) == plain


class TestSame:
    """Whether an answer is the expected one."""

    @pytest.mark.parametrize(
        ("expected", "found"),
        [
            ("added", "added"),
            (21.5, "21.5"),
            ("3", 3),
            (3, 3),
            (None, None),
            ([], []),
            ([1, ["21.5", None]], ["1", [21.5, None]]),
            ({"a": 1}, {"a": 1}),
        ],
    )
    def test_it_is(self, expected: Any, found: Any) -> None:
        assert _smoke.same(expected, found)

    @pytest.mark.parametrize(
        ("expected", "found"),
        [
            ("added", "Added"),
            (21.5, "21.50"),
            (None, "None"),
            ("None", None),
            (None, []),
            ("", None),
            (0, None),
            ([], None),
            ([1], 1),
            ("[]", []),
            ([1], [1, 2]),
            ([1, 2], [1]),
            ([1, [2]], [1, [3]]),
            ([None], ["None"]),
            ({"a": 1}, {"a": 2}),
            ({}, "{}"),
            ("{}", {}),
        ],
    )
    def test_it_is_not(self, expected: Any, found: Any) -> None:
        assert not _smoke.same(expected, found)


class TestFault:
    """How an answer differs."""

    @pytest.mark.parametrize("answer", ["OK", None, [], 0])
    def test_every_answer_will_do_where_none_is_expected(self, answer: Any) -> None:
        assert _smoke.fault(smoke("PING"), answer) == ""
        # As a module of Ansible gets what was not given.
        assert _smoke.fault(smoke("PING", expect=None, query=None), answer) == ""

    def test_the_expected_one(self) -> None:
        assert _smoke.fault(smoke("PING", expect="PONG", query=None), "PONG") == ""

    def test_another_one_is_told_with_the_command_and_both(self) -> None:
        fault = _smoke.fault(smoke("W.ADD", "pump:7", expect="added"), ["no", 1])
        assert fault == "W.ADD pump:7 answers ['no', 1]; expected is 'added'"

    def test_of_a_query_its_result_counts(self) -> None:
        answer = [["1000", "21.5"]]
        assert _smoke.fault(smoke("W.RANGE", expect=21.5, query="[0][1]"), answer) == ""
        assert _smoke.fault(smoke("W.RANGE", expect=21, query="[0][1]"), answer) == (
            "W.RANGE answers [['1000', '21.5']], of which [0][1] is '21.5'; expected is 21"
        )

    def test_a_query_that_finds_nothing_gives_null(self) -> None:
        assert "of which [5] is None" in _smoke.fault(smoke("W.RANGE", expect="x", query="[5]"), ["a"])

    def test_a_long_answer_is_cut(self) -> None:
        at_limit = "x" * (_smoke.SHOWN - 2)
        assert _smoke.shown(at_limit) == repr(at_limit)
        assert _smoke.shown(at_limit + "x") == repr(at_limit + "x")[: _smoke.SHOWN] + "…"


class TestPerform:
    """Each module's commands, in order."""

    def test_in_order_and_with_their_modules(self) -> None:
        replies = Replies(**{"A.ADD": b"added", "A.GET": 1, "B.GET": None})
        modules = [
            entry("a", smoke("A.ADD", "k", expect="added"), smoke("A.GET", "k")),
            {"name": "none", "smoke": None},
            {"name": "nothing"},
            entry("b", smoke("B.GET")),
        ]
        answers = _smoke.perform(replies, modules, {})
        assert replies.asked == ["A.ADD k", "A.GET k", "B.GET"]
        assert [(answer.module, answer.value) for answer in answers] == [("a", "added"), ("a", 1), ("b", None)]

    @pytest.mark.parametrize(
        ("after_restart", "flags", "again"),
        [
            (None, {"readonly", "fast"}, True),
            (None, {"write"}, False),
            (True, {"write"}, True),
            (False, {"readonly"}, False),
        ],
    )
    def test_what_reads_is_asked_again_unless_the_entry_says_otherwise(
        self, after_restart: Any, flags: Any, again: bool
    ) -> None:
        modules = [entry("a", smoke("A.Get", after_restart=after_restart))]
        (answer,) = _smoke.perform(Replies(**{"A.Get": 1}), modules, {"a.get": frozenset(flags)})
        assert answer.again is again

    def test_a_command_whose_flags_nobody_tells_is_not(self) -> None:
        (answer,) = _smoke.perform(Replies(PING=1), [entry("a", smoke("PING"))], {})
        assert answer.again is False

    def test_the_first_other_answer_ends_it(self) -> None:
        replies = Replies(ONE=1, TWO=2, THREE=3)
        with pytest.raises(SmokeError, match=r"^module b: TWO answers 2; expected is 3$"):
            _smoke.perform(replies, [entry("a", smoke("ONE")), entry("b", smoke("TWO", expect=3), smoke("THREE"))], {})
        assert replies.asked == ["ONE", "TWO"]

    def test_an_error_is_no_answer(self) -> None:
        replies = Replies(ONE=_client.ServerError("ONE k at /s: WRONGTYPE"))
        with pytest.raises(SmokeError, match=r"^module a: ONE k answers the error ONE k at /s: WRONGTYPE$"):
            _smoke.perform(replies, [entry("a", smoke("ONE", "k"))], {})

    def test_a_server_that_ends_is_no_answer_of_its_own(self) -> None:
        with pytest.raises(_client.NotReachedError):
            _smoke.perform(Replies(ONE=_client.NotReachedError("gone")), [entry("a", smoke("ONE"))], {})


class TestRepeat:
    """After SAVE and a start."""

    def answer(self, value: Any, again: bool = True) -> Answer:
        return Answer("a", smoke("A.GET", "k", expect="is not looked at"), value, again)

    @pytest.mark.parametrize(("before", "now"), [("21.5", b"21.5"), (None, None), ([1, ["x"]], [1, [b"x"]])])
    def test_the_same(self, before: Any, now: Any) -> None:
        replies = Replies(**{"A.GET": now})
        _smoke.repeat(replies, [self.answer(before)])
        assert replies.asked == ["A.GET k"]

    def test_what_writes_is_not_asked_again(self) -> None:
        replies = Replies()
        _smoke.repeat(replies, [self.answer("x", again=False)])
        assert replies.asked == []

    @pytest.mark.parametrize("now", [None, [], b"21.6"])
    def test_another_answer_means_that_data_was_lost(self, now: Any) -> None:
        with pytest.raises(SmokeError) as caught:
            _smoke.repeat(Replies(**{"A.GET": now}), [self.answer("21.5")])
        assert str(caught.value) == (
            f"module a: after SAVE and a start, A.GET k answers {_smoke.plain(now)!r}, before it was '21.5': "
            "rdb_save or rdb_load of its data type loses data"
        )

    def test_an_error_is_told(self) -> None:
        with pytest.raises(SmokeError, match=r"^module a: A.GET k answers the error no"):
            _smoke.repeat(Replies(**{"A.GET": _client.ServerError("no")}), [self.answer("21.5")])

    def test_a_server_that_ends(self) -> None:
        with pytest.raises(_client.NotReachedError):
            _smoke.repeat(Replies(**{"A.GET": _client.NotReachedError("gone")}), [self.answer("21.5")])


@pytest.mark.parametrize("query", ["length(@)", "[0"])
def test_a_query_that_does_not_fit_is_told(query: str) -> None:
    smoke = {"command": ["GET", "k"], "query": query, "expect": 1}
    found = _smoke.fault(smoke, 7)
    assert found.startswith(f"the query {query} does not fit the answer 7 of GET k: ")
    assert "\n" not in found
