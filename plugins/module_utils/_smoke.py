# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask a throwaway server what a module's entry says that it has to answer."""

from __future__ import annotations

import traceback
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client

JMESPATH_IMPORT_ERROR: str | None
try:
    import jmespath
except ImportError:
    JMESPATH_IMPORT_ERROR = traceback.format_exc()
else:
    JMESPATH_IMPORT_ERROR = None

Ask = Callable[[Sequence[str]], Any]
"""Sends one command and returns its answer, an error as ServerError."""

SHOWN = 200
"""Characters of an answer that an operator is shown."""


class Answer(NamedTuple):
    """What one smoke command came to: its module, itself, the answer, and whether it is asked again after a start."""

    module: str
    smoke: Mapping[str, Any]
    value: Any
    again: bool


def plain(reply: Any) -> Any:
    """Return an answer as JSON knows it: text, numbers, lists, null."""
    if isinstance(reply, (list, tuple)):
        return [plain(item) for item in reply]
    if isinstance(reply, Mapping):
        return {str(plain(key)): plain(value) for key, value in reply.items()}
    return _client.text(reply)


def same(expected: Any, found: Any) -> bool:
    """Whether an answer is the expected one. Numbers compare as text, for Redis answers many of them as text."""
    if isinstance(expected, list) or isinstance(found, list):
        return (
            isinstance(expected, list)
            and isinstance(found, list)
            and len(expected) == len(found)
            and all(same(one, other) for one, other in zip(expected, found))
        )
    if isinstance(expected, Mapping) or isinstance(found, Mapping) or expected is None or found is None:
        return bool(expected == found)
    return str(expected) == str(found)


def fault(smoke: Mapping[str, Any], answer: Any) -> str:
    """Return how an answer differs from what is expected; empty where it does not."""
    if smoke.get("expect") is None:
        return ""
    try:
        found = jmespath.search(smoke["query"], answer) if smoke.get("query") else answer
    except jmespath.exceptions.JMESPathError as error:
        why = " ".join(str(error).split())
        return (
            f"the query {smoke['query']} does not fit the answer {shown(answer)} of {' '.join(smoke['command'])}: {why}"
        )
    if same(smoke["expect"], found):
        return ""
    of_it = f", of which {smoke['query']} is {shown(found)}" if smoke.get("query") else ""
    return f"{' '.join(smoke['command'])} answers {shown(answer)}{of_it}; expected is {shown(smoke['expect'])}"


def shown(value: Any) -> str:
    """Return a value as an operator is shown it."""
    words = repr(value)
    return words if len(words) <= SHOWN else words[:SHOWN] + "…"


def perform(ask: Ask, modules: Sequence[Mapping[str, Any]], flags: Mapping[str, frozenset[str]]) -> list[Answer]:
    """Send each module's smoke commands in order. I(flags) are the commands' own, by name in lower case.

    Raises SmokeError where an answer is not as expected, and NotReachedError where the server ends.
    """
    answers = []
    for module in modules:
        for smoke in module.get("smoke") or []:
            value = _asked(ask, module["name"], smoke)
            wrong = fault(smoke, value)
            if wrong:
                raise SmokeError(f"module {module['name']}: {wrong}")
            again = smoke.get("after_restart")
            if again is None:
                again = "readonly" in flags.get(smoke["command"][0].lower(), frozenset())
            answers.append(Answer(module["name"], smoke, value, bool(again)))
    return answers


def repeat(ask: Ask, answers: Sequence[Answer]) -> None:
    """Ask again what only reads, after SAVE and a start: the same has to come back. Raises as perform() does."""
    for answer in answers:
        if not answer.again:
            continue
        value = _asked(ask, answer.module, answer.smoke)
        if not same(answer.value, value):
            raise SmokeError(
                f"module {answer.module}: after SAVE and a start, {' '.join(answer.smoke['command'])} answers "
                f"{shown(value)}, before it was {shown(answer.value)}: rdb_save or rdb_load of its data type loses data"
            )


def _asked(ask: Ask, module: str, smoke: Mapping[str, Any]) -> Any:
    try:
        return plain(ask(smoke["command"]))
    except _client.NotReachedError:
        raise
    except _client.ServerError as error:
        raise SmokeError(f"module {module}: {' '.join(smoke['command'])} answers the error {error}") from error


class SmokeError(Exception):
    """An answer is not as expected; the text is for the operator."""
