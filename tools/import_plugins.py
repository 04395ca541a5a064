#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compile and import what runs on hosts, with the Python that this is run with.

Usage: import_plugins.py COLLECTIONS-FOLDER ANSIBLE-SITE-PACKAGES

Of ansible-core only `ansible` itself is taken from that folder, and the rest of it is left out:
a host has nothing but its Python (and redis-py, or not: a plugin must import without it).
"""

from __future__ import annotations

import importlib
import os
import sys
import types

PACKAGE = "ansible_collections.edgeops.redis_modules.plugins"


def main() -> None:
    """Import all of it."""
    collections, site_packages = sys.argv[1:]
    sys.dont_write_bytecode = True
    ansible = types.ModuleType("ansible")
    ansible.__path__ = [os.path.join(site_packages, "ansible")]
    sys.modules["ansible"] = ansible
    sys.path.insert(0, collections)
    count = 0
    for kind in ("module_utils", "modules"):
        folder = os.path.join(collections, *PACKAGE.split("."), kind)
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
            stem, suffix = os.path.splitext(name)
            if suffix == ".py" and stem != "__init__":
                importlib.import_module(".".join((PACKAGE, kind, stem)))
                count += 1
    if not count:
        sys.exit("there is nothing to import")
    version = ".".join(map(str, sys.version_info[:3]))
    print(f"Python {version}: {count} files imported")


if __name__ == "__main__":
    main()
