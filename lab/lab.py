#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real systemd hosts on this machine, in a second each: see lab/README.md."""

from __future__ import annotations

import sys

from labkit.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
