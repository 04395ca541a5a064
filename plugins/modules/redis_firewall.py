#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let only the declared networks reach Redis."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_firewall
short_description: Let only the declared networks reach Redis, by an nftables table of its own
version_added: 0.1.0
description:
  - Brings the table C(inet edgeops_redis), the rules file C(/etc/edgeops/redis-firewall.nft), the systemd unit
    C(edgeops-redis-firewall.service), which loads it at boot, and a drop-in of C(nftables.service), by which the table
    comes back where that service flushes all tables, to what is declared. No other table is touched.
  - What is there decides. The wanted rules are loaded in a network namespace that lives for that moment, and what the
    host's own C(nft) lists of them is compared with what it lists of the table in force. A table that is as declared is
    not loaded again, so its counters go on.
  - New rules pass C(nft --check) and come into force in one transaction. Where nft refuses them, those of before stay.
  - Packets of connections that are established are let through, whoever they are of.
  - The table can only close. What it accepts, other tables may still drop.
author:
  - edgeops contributors (@edgeops)
options:
  state:
    description: With V(absent), table, file, unit and drop-in are taken away, and nothing else.
    type: str
    choices: [present, absent]
    default: present
  allowed_cidrs:
    description: The IPv4 and IPv6 networks whose hosts reach the server's ports. The host itself always does.
    type: list
    elements: raw
    default: []
  allow_none:
    description: Whether an empty O(allowed_cidrs) is meant, so that no other host reaches the server.
    type: bool
    default: false
  ports:
    description: The server's ports.
    type: list
    elements: raw
    default: [6379]
  keep_ports:
    description:
      - Whether ports that the table guards so far stay guarded. This is for the time until a server has moved to
        another port.
    type: bool
    default: false
  cluster_bus_ports:
    description: The ports of the cluster bus, which only O(cluster_peers) reach.
    type: list
    elements: raw
    default: []
  cluster_peers:
    description: The addresses or networks of the cluster's hosts.
    type: list
    elements: raw
    default: []
  log:
    description: Whether refused attempts are logged by the kernel, with the prefix C(edgeops-redis refused:).
    type: bool
    default: false
  log_rate:
    description: How many of them are logged at most, by second, minute, hour or day.
    type: str
    default: 10/minute
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Let the application's networks in, and nobody else
  edgeops.redis_modules.redis_firewall:
    allowed_cidrs: [192.0.2.0/24, "2001:db8:1::/64"]
    log: true

- name: Take the table away again
  edgeops.redis_modules.redis_firewall:
    state: absent
"""

RETURN = r"""
differences:
  description: What was not as declared, and has been mended, or would be in check mode.
  returned: when it could look
  type: list
  elements: str
  sample: [the table inet edgeops_redis is missing]
in_force:
  description: Whether it is as declared now.
  returned: when it could look
  type: bool
missing:
  description: Whether nft is not installed on this host. The module fails then, but for check mode.
  returned: when it is
  type: bool
allowed:
  description: The networks by family, C(ipv4) and C(ipv6).
  returned: when it could look
  type: dict
ports:
  description: The ports that are guarded.
  returned: when it could look
  type: list
  elements: int
kept_ports:
  description: Those of them that are guarded for O(keep_ports) alone.
  returned: when it could look
  type: list
  elements: int
notes:
  description: The networks that were left out, as another one holds them.
  returned: when it could look
  type: list
  elements: str
others:
  description: The firewalls that are active beside the table.
  returned: when it could look
  type: list
  elements: str
  sample: [firewalld]
counters:
  description:
    - How many packets that would begin a connection were C(accepted) and C(refused) since the rules were loaded.
  returned: when it could look
  type: dict
  sample: {accepted: 12, refused: 3}
state:
  description: As the option.
  returned: when it could look
  type: str
"""

import contextlib
import io
import os
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall, _host, _release

UNIT_PATH = "/etc/systemd/system/" + _firewall.UNIT
FLUSHER = "nftables.service"
DROPIN_PATH = f"/etc/systemd/system/{FLUSHER}.d/50-edgeops-redis-firewall.conf"
UFW_CONF = "/etc/ufw/ufw.conf"
NFT = "/usr/sbin/nft"
TABLE = f"{_firewall.FAMILY} {_firewall.TABLE}"
LIST_TABLE = ["--stateless", "list", "table", _firewall.FAMILY, _firewall.TABLE]
ENGLISH = {"LC_ALL": "C"}


class RefusedError(Exception):
    """A command that this module needs has failed; the text is its own words."""


class Firewall:
    """The table, the files and the unit of one host, and what differs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.nft: str = module.get_bin_path("nft", opt_dirs=["/usr/sbin", "/sbin"]) or ""
        self.differences: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def run(self, *words: str) -> str:
        """Run a command and return what it prints. Raises RefusedError."""
        code, out, err = self.module.run_command(list(words), environ_update=ENGLISH)
        if code != 0:
            raise RefusedError((err or out).strip() or f"{' '.join(words)}: it gave no reason")
        return str(out)

    def table(self) -> str:
        """Return the table in force; empty where there is none."""
        if not self.nft:
            return ""
        code, out, err = self.module.run_command([self.nft, *LIST_TABLE], environ_update=ENGLISH)
        if code == 0:
            return _firewall.stateless(out)
        # Anything else, as a kernel without nf_tables, must not be taken for a table that is only missing.
        if "Error: No such file or directory" not in err:
            raise RefusedError(err.strip())
        return ""

    def differs(self, what: str, before: str, after: str, header: str) -> None:
        """Remember one difference and its diff."""
        self.differences.append(what)
        if before != after:
            self.diffs.append({"before_header": header, "after_header": header, "before": before, "after": after})

    def counters(self) -> dict[str, int]:
        """Return how often each counter of the table in force has counted."""
        words = [self.nft, "-j", "list", "counters", "table", _firewall.FAMILY, _firewall.TABLE]
        return _firewall.counters(self.module.run_command(words, environ_update=ENGLISH)[1]) if self.nft else {}

    def others(self) -> list[str]:
        """Return the firewalls that are active beside the table."""
        active = [
            name
            for name in ("firewalld", "ufw")
            if _host.unit_state(self.module.run_command, f"{name}.service").get("ActiveState") == "active"
        ]
        return [name for name in active if name != "ufw" or _firewall.ufw_enabled(read(UFW_CONF))]

    def bring(self, firewall: _firewall.Wanted) -> None:
        """Bring table, files and unit to what is declared. Raises RefusedError and OSError."""
        text = _firewall.rules(firewall)
        with tempfile.NamedTemporaryFile("w", suffix=".nft", dir=self.module.tmpdir, encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            try:
                self.bring_table(stream.name)
            except RefusedError as refusal:
                said = str(refusal).replace(stream.name, "rules")
                raise RefusedError(f"nft does not take the rules, those of before stay in force:\n{said}") from refusal
        self.bring_file(_firewall.RULES_PATH, text)
        self.bring_units()

    def bring_table(self, candidate: str) -> None:
        """Load the rules where the table in force is another. Raises RefusedError."""
        before = self.table()
        if not self.nft:
            self.differences.append(f"the table {TABLE} is missing")
            return
        # What the host's own nft makes of the rules, in a network namespace that nobody else sees and that is gone with
        # the command. So two listings of the same nft are compared: they differ from version to version.
        listing = " ".join(LIST_TABLE)
        script = f'"$0" -f "$1" && "$0" {listing}'
        after = _firewall.stateless(self.run("unshare", "--net", "sh", "-c", script, self.nft, candidate))
        if before == after:
            return
        what = "is missing" if not before else "is not as declared"
        self.differs(f"the table {TABLE} {what}", before, after, f"table {TABLE}")
        self.run(self.nft, "--check", "-f", candidate)
        if not self.module.check_mode:
            self.run(self.nft, "-f", candidate)

    def bring_file(self, path: str, text: str) -> bool:
        """Write a file of root's where it is another; whether it was. Raises OSError."""
        before, state = read(path), _host.file_state(path)
        if before == text and state is not None and (state.owner, state.group, state.mode) == ("root", "root", "0644"):
            return False
        what = "is missing" if state is None else "is not as declared" if before != text else "is not root's 0644"
        self.differs(f"{path} {what}", before, text, path)
        if not self.module.check_mode:
            _release.make_folders(os.path.dirname(path))
            _release.write(io.BytesIO(text.encode()), path, 0, 0, 0o644)
        return True

    def bring_units(self) -> None:
        """Have our unit there and active, and the drop-in of nftables.service. Raises RefusedError and OSError."""
        # Debian's redis.service is an alias; elsewhere it is the unit.
        server = "redis-server.service" if shutil.which("dpkg-query") else "redis.service"
        written = self.bring_file(UNIT_PATH, _firewall.unit(self.nft or NFT, server))
        self.bring_file(DROPIN_PATH, _firewall.dropin(self.nft or NFT))
        state, flusher = (_host.unit_state(self.module.run_command, unit) for unit in (_firewall.UNIT, FLUSHER))
        enabled, active = state.get("UnitFileState") == "enabled", state.get("ActiveState") == "active"
        stale = "yes" in (state.get("NeedDaemonReload"), flusher.get("NeedDaemonReload"))
        if not enabled:
            self.differences.append(f"{_firewall.UNIT} is not enabled")
        if not active:
            self.differences.append(f"{_firewall.UNIT} is not active")
        if self.module.check_mode:
            return
        # Not for difference's sake alone: systemd reads what a run that died has written.
        if stale or written or not enabled or DROPIN_PATH not in flusher.get("DropInPaths", ""):
            self.run("systemctl", "daemon-reload")
        if written or not enabled:
            # Again, as the links may be those of a former text.
            self.run("systemctl", "reenable", _firewall.UNIT)
        if not active:
            self.run("systemctl", "restart", _firewall.UNIT)

    def take_away(self) -> None:
        """Take table, files and unit away. Raises RefusedError and OSError."""
        before = self.table()
        there = [path for path in (UNIT_PATH, DROPIN_PATH, _firewall.RULES_PATH) if os.path.lexists(path)]
        for path in there:
            self.differs(f"{path} is there", read(path), "", path)
        if before:
            self.differs(f"the table {TABLE} is there", before, "", f"table {TABLE}")
        if self.module.check_mode:
            return
        # What would load the table again goes first.
        if UNIT_PATH in there:
            self.run("systemctl", "disable", "--now", _firewall.UNIT)
        for path in there:
            _release.remove(path)
        if UNIT_PATH in there or DROPIN_PATH in there:
            self.run("systemctl", "daemon-reload")
            self.module.run_command(["systemctl", "reset-failed", _firewall.UNIT])
        for folder in (os.path.dirname(DROPIN_PATH), os.path.dirname(_firewall.RULES_PATH)):
            # Where it holds what others laid there, it stays.
            with contextlib.suppress(OSError):
                os.rmdir(folder)
        if before:
            self.run(self.nft, "delete", "table", _firewall.FAMILY, _firewall.TABLE)


def read(path: str) -> str:
    """Return the text of a file; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except FileNotFoundError:
        return ""


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "allowed_cidrs": {"type": "list", "elements": "raw", "default": []},
            "allow_none": {"type": "bool", "default": False},
            "ports": {"type": "list", "elements": "raw", "default": [6379]},
            "keep_ports": {"type": "bool", "default": False},
            "cluster_bus_ports": {"type": "list", "elements": "raw", "default": []},
            "cluster_peers": {"type": "list", "elements": "raw", "default": []},
            "log": {"type": "bool", "default": False},
            "log_rate": {"type": "str", "default": "10/minute"},
        },
        supports_check_mode=True,
    )
    host = Firewall(module)
    kept: list[int] = []
    firewall = _firewall.Wanted((), (), ())
    try:
        if module.params["state"] == "absent":
            host.take_away()
        else:
            firewall = _firewall.wanted(module.params)
            if not host.nft and not module.check_mode:
                module.fail_json(
                    msg="nft is not installed on this host, so nothing was done; install nftables", missing=True
                )
            if module.params["keep_ports"]:
                firewall, kept = _firewall.also_guarding(firewall, host.table())
            host.bring(firewall)
        others = host.others()
    except _firewall.FirewallError as error:
        module.fail_json(msg=str(error))
    except (RefusedError, OSError) as error:
        module.fail_json(msg=str(error), differences=host.differences, in_force=False)
    beside = _firewall.beside(others) if module.params["state"] == "present" else []
    for warning in (*firewall.notes, *firewall.warnings, *beside):
        module.warn(warning)
    result: dict[str, Any] = {
        "changed": bool(host.differences),
        "differences": host.differences,
        "in_force": not (module.check_mode and host.differences),
        "state": module.params["state"],
        "allowed": {"ipv4": list(firewall.allowed4), "ipv6": list(firewall.allowed6)},
        "ports": [*firewall.ports, *firewall.bus_ports],
        "kept_ports": kept,
        "notes": list(firewall.notes),
        "others": others,
        "counters": host.counters(),
        "diff": host.diffs,
    }
    if not host.nft:
        result["missing"] = True
    module.exit_json(**result)


if __name__ == "__main__":
    main()
