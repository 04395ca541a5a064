# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: systemd-nspawn hosts on overlay disks behind one bridge a lab."""
