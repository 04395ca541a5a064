#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check meta/runtime.yml's action groups, which nothing else does.

A name in a group is a module that exists, and every module that takes the connection options is
in the group `redis`, so that `module_defaults: group/edgeops.redis_modules.redis` reaches it.

Usage: check_groups.py COLLECTION-FOLDER
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import yaml


def takes_connection(module: Path) -> bool:
    """Tell whether a module takes login_host, by itself or by the fragment `redis`."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        match node:
            case ast.Assign(targets=[ast.Name(id="DOCUMENTATION")], value=ast.Constant(value=str(text))):
                doc = yaml.safe_load(text)
                fragments = doc.get("extends_documentation_fragment") or []
                fragments = [fragments] if isinstance(fragments, str) else fragments
                return "login_host" in (doc.get("options") or {}) or "edgeops.redis_modules.redis" in fragments
    return False


def main() -> int:
    """Print findings; give the exit status."""
    root = Path(sys.argv[1])
    runtime = yaml.safe_load((root / "meta" / "runtime.yml").read_text(encoding="utf-8"))
    groups: dict[str, list[str]] = runtime.get("action_groups") or {}
    modules = {path.stem: path for path in (root / "plugins" / "modules").glob("*.py")}
    findings = [
        f"meta/runtime.yml: group {group}: there is no module '{name}'"
        for group, names in groups.items()
        for name in names
        if name not in modules
    ]
    findings += [
        f"meta/runtime.yml: group redis lacks '{name}', which takes the connection options"
        for name, path in sorted(modules.items())
        if takes_connection(path) and name not in groups.get("redis", [])
    ]
    print("\n".join(findings) or f"{len(groups)} action groups, {len(modules)} modules: as they should be")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
