# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing in module_utils needs a library to be imported: the message about a missing one comes later, and speaks."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client

PROGRAM = """
import importlib, os, sys
for library in ("redis", "elftools", "yaml", "jinja2"):
    sys.modules[library] = None
sys.path.insert(0, sys.argv[1])
package = "ansible_collections.edgeops.redis_modules.plugins.module_utils"
loaded = {name: importlib.import_module(package + "." + name) for name in sys.argv[2:]}
assert "redis" in loaded["_client"].REDIS_IMPORT_ERROR
assert "elftools" in loaded["_elf"].ELFTOOLS_IMPORT_ERROR
print(len(loaded))
"""


def test_module_utils_import_without_redis_and_pyelftools() -> None:
    folder = os.path.dirname(os.path.abspath(_client.__file__))
    names = sorted(
        name[:-3]
        for name in os.listdir(folder)
        if name.startswith("_") and name.endswith(".py") and name != "__init__.py"
    )
    root = folder
    for _level in ("ansible_collections", "edgeops", "redis_modules", "plugins", "module_utils"):
        root = os.path.dirname(root)
    done = subprocess.run(
        [sys.executable, "-B", "-c", PROGRAM, root, *names],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert int(done.stdout) == len(names) > 10
