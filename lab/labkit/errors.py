# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own errors."""

from __future__ import annotations


class LabError(Exception):
    """Something the person at the terminal can mend; the text says how."""
