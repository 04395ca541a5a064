# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role documents, what it defaults to and what the plugins take are one and the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Iterator

import pytest
import yaml

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _declaration

ROLES = sorted(path for path in (Path(__file__).resolve().parents[3] / "roles").iterdir() if path.is_dir())
RENDERED = {"type", "choices", "default", "required", "elements"}


def read(path: Path) -> Any:
    """Return what a YAML file holds."""
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def specs(role: Path) -> dict[str, dict[str, Any]]:
    """Return the options of each entry point of a role."""
    entry_points = read(role / "meta" / "argument_specs.yml")["argument_specs"]
    return {name: entry.get("options") or {} for name, entry in entry_points.items()}


def all_options(role: Path) -> dict[str, Any]:
    """Return the options of all entry points of a role, by name."""
    return {name: option for options in specs(role).values() for name, option in options.items()}


def module_lists() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the option of each role and entry point that takes redis_modules."""
    for role in ROLES:
        for options in specs(role).values():
            for name, option in options.items():
                if name == f"{role.name}_modules":
                    yield role.name, option


def is_template(value: Any) -> bool:
    """Whether a default is worked out at run time."""
    return isinstance(value, str) and "{{" in value


def without_words(option: dict[str, Any]) -> dict[str, Any]:
    """Return an option without its description and example."""
    return {key: value for key, value in option.items() if key in RENDERED}


def test_there_are_roles() -> None:
    assert len(ROLES) >= 5


@pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role.name))
def test_every_default_is_documented_and_every_option_has_a_default(role: Path) -> None:
    defaults = read(role / "defaults" / "main.yml")
    options = all_options(role)
    assert set(defaults) - set(options) == set(), "defaults that are not in meta/argument_specs.yml"
    missing = {name for name, option in options.items() if not option.get("required")} - set(defaults)
    assert missing == set(), "options that are not in defaults/main.yml"


@pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role.name))
def test_a_documented_default_is_the_true_one(role: Path) -> None:
    defaults = read(role / "defaults" / "main.yml")
    wrong: list[str] = []
    for name, option in all_options(role).items():
        true = defaults.get(name)
        if is_template(true):
            continue
        if "default" not in option:
            if true not in ("", [], {}, None):
                wrong.append(f"{name}: nothing is documented, it is {true!r}")
        elif option["default"] != true or type(option["default"]) is not type(true):
            wrong.append(f"{name}: {option['default']!r} is documented, it is {true!r}")
    assert wrong == []


@pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role.name))
def test_a_default_has_the_documented_type(role: Path) -> None:
    kinds = {"str": str, "path": str, "int": int, "bool": bool, "list": list, "dict": dict, "float": float}
    for name, value in read(role / "defaults" / "main.yml").items():
        kind = all_options(role).get(name, {}).get("type", "str")
        if kind != "raw" and not is_template(value):
            assert value.__class__ is kinds[kind], name


@pytest.mark.parametrize("role", ROLES, ids=lambda role: str(role.name))
def test_every_option_is_described_and_belongs_to_its_role(role: Path) -> None:
    for name, option in all_options(role).items():
        assert option.get("description"), name
        assert name.startswith((f"{role.name}_", "redis_modules")), name


MODULE_LISTS = list(module_lists())
ROLES_BY_NAME = {role.name: role for role in ROLES}


def test_the_roles_that_take_modules_are_known() -> None:
    assert {role for role, _option in MODULE_LISTS} >= {
        "redis_build",
        "redis_rollout",
        "redis_server",
        "redis_toolchain",
        "redis_verify",
    }


def test_an_entry_of_redis_modules_is_documented_as_the_plugins_take_it() -> None:
    option = specs(ROLES_BY_NAME["redis_rollout"])["main"]["redis_rollout_modules"]
    documented = {key: without_words(sub) for key, sub in option["options"].items()}
    taken = {key: without_words(dict(spec)) for key, spec in _declaration.MODULE_OPTIONS.items()}
    assert documented == taken
    assert [key for key, sub in option["options"].items() if not sub.get("description")] == []


@pytest.mark.parametrize(("role", "option"), MODULE_LISTS, ids=[role for role, _option in MODULE_LISTS])
def test_every_other_role_takes_the_same_and_says_where_it_is_described(role: str, option: dict[str, Any]) -> None:
    assert option["type"] == "list"
    assert option["elements"] == "dict"
    if role != "redis_rollout":
        assert "options" not in option
        assert "redis_rollout_modules" in str(option["description"])
