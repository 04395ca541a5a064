#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare a home folder in which ansible-test can make its environments.

ansible-test fetches get-pip.py from a host of its project, once for each version of pip, and runs
it in every environment that it makes; where that host can't be reached, no sanity test with
requirements runs. It uses what lies in its cache instead, if there is something. This puts a
stand-in there that starts from the pip that Python itself brings (ensurepip) and has that one
install what was asked for, from wherever pip is configured to look.

ansible-test also hides the environment's PIP_* variables from pip; they are written down as
pip's configuration in the same home folder.

Usage: sanity_home.py HOME PYTHON-VERSION, with the Python that ansible-test runs on.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

STAND_IN = '''\
"""Stands in for get-pip.py; made by tools/sanity_home.py."""

import ensurepip
import os
import sys

if __name__ == "__main__":
    environment = dict(os.environ)  # ensurepip.bootstrap() changes it
    ensurepip.bootstrap()
    packages = [word for word in sys.argv[1:] if word not in ("--no-setuptools", "--no-wheel")]
    command = [sys.executable, "-m", "pip", "install", "--quiet"] + packages
    os.execve(sys.executable, command, environment)
'''


def pip_version(python_version: str) -> str:
    """Tell which pip the installed ansible-test wants to start from."""
    from ansible_test._internal.python_requirements import get_venv_packages  # noqa: PLC0415

    packages: dict[str, str] = get_venv_packages(SimpleNamespace(version=python_version))
    return packages["pip"]


def pip_configuration() -> str:
    """Give pip's settings in force (files and PIP_* variables) as one configuration file."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    settings: dict[str, str] = {}
    for line in listing.splitlines():
        key, _, value = line.partition("=")
        section, _, name = key.rpartition(".")
        if section in ("global", "install", ":env:"):
            # Later lines win, as they do in pip: files first, then variables.
            settings[name] = value.strip("'\"").replace("\\n", " ")
    return "\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items()), ""])


def main() -> None:
    """Write both files."""
    home, python_version = Path(sys.argv[1]), sys.argv[2]
    cache = home / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    name = f"get_pip_{pip_version(python_version).replace('.', '_')}.py"
    (cache / name).write_text(STAND_IN, encoding="utf-8")
    configuration = home / ".config" / "pip" / "pip.conf"
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(pip_configuration(), encoding="utf-8")
    os.chmod(configuration, 0o600)  # an index may be given with a password


if __name__ == "__main__":
    main()
