# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet's report: from one result a host to a table that a person reads."""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _firewall, _lock

COLUMNS = ("host", "redis", "module", "version", "path", "sha256", "verdict")
DIGITS = 12
NO_MODULE = "-"


def rows(
    hosts: Sequence[str],
    results: Mapping[str, Any],
    trials: Mapping[str, Any] | None = None,
    firewalls: Mapping[str, Any] | None = None,
    pulls: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Return one row for each module of each host, in the order of I(hosts).

    I(results) maps a host to the result of redis_modules_confirm; a host without one was not reached. I(trials) maps
    a host to the result of redis_trial in the same run; what the modules register there goes into their rows.
    I(firewalls) maps a host to the result of redis_firewall, where it is in use; it goes into each row of the host.
    I(pulls) maps a host to the status of its edge agent, where it has one, and to when it was read, in seconds since
    1970.
    Each row has its host's exposure as a number, None where it is not known.
    """
    found: list[dict[str, Any]] = []
    for host in hosts:
        result = results.get(host) or {}
        verdicts = result.get("verdicts")
        if verdicts is None:
            found.append(
                _row(
                    host,
                    "",
                    {
                        "name": NO_MODULE,
                        "verdict": "unconfirmed",
                        "differences": ["it failed or could not be reached in this run"],
                    },
                )
            )
        elif not verdicts:
            verdict = "broken" if result.get("error") else "no modules declared"
            found.append(_row(host, result.get("server_version", ""), {"name": NO_MODULE, "verdict": verdict}))
        else:
            tried = {module["name"]: module for module in ((trials or {}).get(host) or {}).get("modules") or []}
            found += [
                {**_row(host, result.get("server_version", ""), verdict), **registered(tried.get(verdict["name"]))}
                for verdict in verdicts
            ]
    for row in found:
        row["exposure"] = (results.get(row["host"]) or {}).get("exposure")
        said = _firewall.summary((firewalls or {}).get(row["host"]) or {})
        if said:
            row["firewall"] = said
        if (pulls or {}).get(row["host"]):
            row["pull"] = pull_summary(**(pulls or {})[row["host"]])
    return found


def pull_summary(status: Mapping[str, Any], now: int) -> str:
    """Return what a site's agent says of itself, in one line; I(status) is empty where it has not run."""
    if not status:
        return "the agent has not run"
    said = f"{status['result']} {_lock.ago(now - int(status['last_run']))}"
    if status["result"] != "converged":
        since = _lock.ago(now - int(status["last_success"])) if status["last_success"] else "never"
        said += f": {status['reason']}; last brought up to date {since}"
    said += f", commit {status['applied'][:DIGITS] or 'none'}"
    return said + ("; its clock is wrong" if status["clock_is_wrong"] else "")


def registered(tried: Mapping[str, Any] | None) -> dict[str, str]:
    """Return what a module registered in its trial as text; empty where there was no trial in this run."""
    if not tried:
        return {}
    types = tried["types"]
    known = ["not known"] if types is None else [f"{name} {version}" for name, version in types.items()]
    return {
        "commands": " ".join(tried["commands"]),
        "types": ", ".join(known),
        "config": " ".join(tried["config"]),
        "api": tried["api"],
    }


def _row(host: str, redis: str, verdict: Mapping[str, Any]) -> dict[str, str]:
    version = verdict.get("version")
    return {
        "host": host,
        "redis": redis or "-",
        "module": str(verdict["name"]),
        "version": "-" if version is None else str(version),
        "path": str(verdict.get("path") or "-"),
        "sha256": str(verdict.get("live_sha256") or verdict.get("sha256") or "-")[:DIGITS],
        "verdict": str(verdict["verdict"]),
        "differences": "; ".join(verdict.get("differences") or []),
    }


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a text table, with what differs, each host's firewall, agent and exposure below it."""
    widths = {c: max([len(c)] + [len(row[c]) for row in found]) for c in COLUMNS}
    lines = ["  ".join(c.ljust(widths[c]) for c in COLUMNS).rstrip()]
    lines.append("  ".join("-" * widths[c] for c in COLUMNS))
    lines += ["  ".join(row[c].ljust(widths[c]) for c in COLUMNS).rstrip() for row in found]
    lines += [f"{row['host']}, module {row['module']}: {row['differences']}" for row in found if row["differences"]]
    firewalls = {row["host"]: row["firewall"] for row in found if row.get("firewall")}
    lines += [f"{host}, firewall: {said}" for host, said in firewalls.items()]
    pulls = {row["host"]: row["pull"] for row in found if row.get("pull")}
    lines += [f"{host}, pull: {said}" for host, said in pulls.items()]
    exposures = {row["host"]: row["exposure"] for row in found if row.get("exposure") is not None}
    if exposures:
        told = ", ".join(f"{host} {exposure}" for host, exposure in exposures.items())
        lines.append(f"exposure of the service (systemd-analyze security, 0 to 10): {told}")
    return "\n".join(lines)


class Told(NamedTuple):
    """What the first look at a fleet has told: the hosts that are not as wanted, and all of it for the operator."""

    others: list[str]
    lines: list[str]


NAMED = 3
"""So many differences of a host are named."""


def first_look(found: Mapping[str, Mapping[str, Any]]) -> Told:
    """Return which hosts have to be looked at closely, and why.

    I(found) are the results of redis_receipt by host; of one that failed or was not reached, it is empty.
    """
    others = [host for host, result in found.items() if not result.get("as_wanted")]
    times = sorted(result["reached"] for host, result in found.items() if host not in others)
    since = (
        ""
        if not times
        else f", confirmed {times[0]}"
        if times[0] == times[-1]
        else f", confirmed {times[0]} to {times[-1]}"
    )
    lines = [f"{len(times)} of {len(found)} hosts are as wanted{since}"]
    return Told(others, lines + [f"{host}: {_why(found[host])}" for host in others])


def _why(result: Mapping[str, Any]) -> str:
    different = list(result.get("differences") or ["it failed or could not be reached"])
    more = [f"and {len(different) - NAMED} more"] if len(different) > NAMED else []
    return "; ".join(different[:NAMED] + more)
