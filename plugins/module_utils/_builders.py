# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who builds what, once for a platform, and what each host lacks: worked out on the controller from what was seen.

A platform is architecture, C library and header, which is that of the hosts' own server version. What is seen of a
machine is what Workshop.look() tells; of a host also what it wants, and what the controller's cache holds of that.
"""

from __future__ import annotations

from typing import Any, Iterable, Mapping, NamedTuple, Sequence

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _host

TARGET = "target"
CONTROLLER = "controller"

Look = Mapping[str, Any]
Built = Mapping[str, Any]


class Wishes(NamedTuple):
    """Where it is built: TARGET, CONTROLLER or neither, and then I(builders) has what was seen of the builders."""

    on: str = TARGET
    builders: Mapping[str, Look] = {}
    silent: Mapping[str, str] = {}
    """Builders that can't be reached, and why."""


def named(on: str, groups: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the builders that redis_build_on names; none where targets or the controller build, or nobody knows it."""
    if on in (TARGET, CONTROLLER):
        return []
    if on in groups.get("all", []):
        return [on]
    return list(groups.get(on, []))


def platform_text(look: Look) -> str:
    """Return a host's platform for the operator."""
    platform, redis = look["platform"], look.get("redis")
    return f"{platform['architecture']}, {platform['libc']}" + (f", Redis {redis}" if redis else "")


def header_of(look: Look) -> str:
    """Return the name of the header that a host's modules are built with; empty for none."""
    return str(look["headers"][look["header"]]["name"]) if look["header"] else ""


def is_built(want: Mapping[str, Any]) -> bool:
    """Whether a module is built from sources."""
    return not want["artifact"]


def builders(looks: Mapping[str, Look], wishes: Wishes) -> dict[str, str]:
    """Return who builds for each host; empty where nobody can."""
    if wishes.on == TARGET:
        found: dict[tuple[str, ...], str] = {}
        for host, look in looks.items():
            # The first that has a compiler, so that as few as can be get one; else the first.
            if _alike(look) not in found or (look["compiler"] and not looks[found[_alike(look)]]["compiler"]):
                found[_alike(look)] = host
        return {host: found[_alike(look)] for host, look in looks.items()}
    if wishes.on == CONTROLLER:
        # Whether its C library is too new, the artifact tells; the host judges it.
        return {
            host: CONTROLLER
            if look["platform"]["architecture"] == look["controller"]["platform"]["architecture"]
            else ""
            for host, look in looks.items()
        }
    return {host: _nearest(look["platform"], wishes.builders) for host, look in looks.items()}


def _alike(look: Look) -> tuple[str, ...]:
    return (look["platform"]["architecture"], look["platform"]["libc"], header_of(look))


def _nearest(platform: Mapping[str, str], machines: Mapping[str, Look]) -> str:
    """Return the builder of the same C library, else the one with the newest that is older: what it builds runs."""
    wanted = _libc(platform["libc"])
    fitting = [
        (_libc(look["platform"]["libc"]), -number, name)
        for number, (name, look) in enumerate(machines.items())
        if look["platform"]["architecture"] == platform["architecture"] and _libc(look["platform"]["libc"]) <= wanted
    ]
    return max(fitting)[2] if fitting else ""


def _libc(text: str) -> tuple[str, tuple[int, ...]]:
    return text.split(" ", 1)[0], _host.version_tuple(text)


def side_of(builder: str, look: Look, looks: Mapping[str, Look], wishes: Wishes) -> Look | None:
    """Return what was seen of a builder; None where there is none."""
    if wishes.on == CONTROLLER:
        return look["controller"] if builder else None
    return (looks if wishes.on == TARGET else wishes.builders).get(builder)


def inputs(want: Mapping[str, Any], look: Look, side: Look | None) -> str:
    """Return the inputs of what a builder would make; empty where only a compiler or header not there yet can tell."""
    if want["inputs"]:
        return str(want["inputs"])
    header = header_of(look)
    sha256 = ""
    if side is None or not side["compiler"] or (look["header"] and not header):
        return ""
    if header:
        sha256 = next((known["sha256"] for known in side["headers"].values() if known["name"] == header), "")
        if not sha256:
            return ""
    return _build.inputs_digest(
        _build.inputs_of(want["entry"], want["source_digest"], sha256, side["compiler"], side["platform"])
    )


def request(want: Mapping[str, Any], look: Look) -> str:
    """Return what is asked of whoever builds for a host."""
    return _build.request_of(want["entry"], want["source_digest"], header_of(look))


def plan(looks: Mapping[str, Look], wishes: Wishes) -> dict[str, dict[str, Any]]:
    """Return each host's share of the work.

    I(artifacts): what it has. I(lacks): what it has not, with the inputs where they are known. I(builder): who builds
    for it, I(leader): the host in whose name that runs. Of a leader, I(jobs): what is to be had for all that it leads,
    I(compiles): whether the builder needs a compiler for it, and I(fetches_header): whether the header has to be had
    first. I(fault): why nobody can build for it.
    """
    who = builders(looks, wishes)
    shares = {host: _share(host, look, who[host], looks, wishes) for host, look in looks.items()}
    for group in _groups(looks, shares):
        _lead(group, looks, shares, wishes)
    return shares


def _share(host: str, look: Look, builder: str, looks: Mapping[str, Look], wishes: Wishes) -> dict[str, Any]:
    side = side_of(builder, look, looks, wishes)
    artifacts, lacks = {}, {}
    for want in look["wanted"]:
        known = inputs(want, look, side)
        has = look["artifacts"].get(want["name"], [])
        if not known:
            known = _as_asked(want, look, side, has)
        found = next((held for held in has if known and held["inputs"] == known), None)
        if found:
            artifacts[want["name"]] = {"path": found["path"], "sha256": found["sha256"]}
        else:
            lacks[want["name"]] = known
    return {
        "builder": builder,
        "platform": platform_text(look),
        "header": header_of(look),
        "leader": "",
        "artifacts": artifacts,
        "lacks": lacks,
        "jobs": [],
        "compiles": False,
        "fetches_header": False,
        "again": False,
        "fault": "",
    }


def _as_asked(want: Mapping[str, Any], look: Look, side: Look | None, has: Sequence[Mapping[str, str]]) -> str:
    """Return the inputs of an artifact that was built as asked for, by whatever compiler; empty for none.

    Where the builder has no compiler, none is installed only to learn that there was nothing to do.
    """
    asked = request(want, look)
    others = side["artifacts"].get(want["name"], []) if side else []
    platform = look["platform"]
    fitting = [
        held
        for held in [*others, *look["held"].get(want["name"], [])]
        if held["architecture"] == platform["architecture"] and _libc(held["libc"]) <= _libc(platform["libc"])
    ]
    return next((held["inputs"] for held in [*has, *fitting] if held["request"] == asked), "")


def _groups(looks: Mapping[str, Look], shares: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Return the hosts that have modules to build, those together that one builder makes with one header."""
    groups: dict[tuple[str, str], list[str]] = {}
    for host, share in shares.items():
        if any(is_built(want) for want in looks[host]["wanted"]):
            groups.setdefault((share["builder"], share["header"]), []).append(host)
    return list(groups.values())


def _at_hand(want: Mapping[str, Any], look: Look, known: str) -> bool:
    return any(known and held["inputs"] == known for held in look["held"].get(want["name"], []))


def _lead(group: list[str], looks: Mapping[str, Look], shares: dict[str, dict[str, Any]], wishes: Wishes) -> None:
    """Work out what is to be had of the builder for the hosts of a group, and in whose name."""
    builder = shares[group[0]]["builder"]
    wanting = [
        host
        for host in group
        if any(
            is_built(want)
            and want["name"] in shares[host]["lacks"]
            and not _at_hand(want, looks[host], shares[host]["lacks"][want["name"]])
            for want in looks[host]["wanted"]
        )
    ]
    if not wanting:
        return
    if not builder:
        for host in wanting:
            shares[host]["fault"] = _nobody(looks[host], wishes)
        return
    leader = builder if wishes.on == TARGET else wanting[0]
    side = side_of(builder, looks[leader], looks, wishes)
    jobs: dict[tuple[str, str], dict[str, Any]] = {}
    for host in group:
        shares[host]["leader"] = leader
        for want in looks[host]["wanted"]:
            if is_built(want):
                asked = request(want, looks[host])
                key = (want["name"], asked)
                job = {**want["entry"], "name": want["name"], "src": want["src"], "header": shares[host]["header"]}
                known = shares[host]["lacks"].get(want["name"])
                needed = known is not None and not _at_hand(want, looks[host], known)
                jobs.setdefault(key, {**job, "source_digest": want["source_digest"], "request": asked, "needed": False})
                jobs[key]["needed"] = jobs[key]["needed"] or needed
                jobs[key]["inputs"] = known or jobs[key].get("inputs") or ""
    there = {held["inputs"] for found in (side["artifacts"] if side else {}).values() for held in found}
    compiles = any(job["needed"] and job["inputs"] not in there for job in jobs.values())
    if compiles and not all(inputs(want, looks[host], side) for host in group for want in looks[host]["wanted"]):
        # Once the compiler is there, what was taken as asked for would be judged by it: so all is built now.
        for host in group:
            for want in looks[host]["wanted"]:
                if is_built(want):
                    shares[host]["artifacts"].pop(want["name"], None)
                    shares[host]["lacks"][want["name"]] = ""
        for job in jobs.values():
            job.update(needed=True, inputs="")
    shares[leader]["jobs"] = [job for job in jobs.values() if job["needed"]]
    shares[leader]["compiles"] = compiles
    shares[leader]["fetches_header"] = compiles and _header_missing(looks[wanting[0]], side)


def _header_missing(look: Look, side: Look | None) -> bool:
    """Whether a builder does not have the header of a host's modules, and it is none that the user has put there."""
    if not look["header"] or look["header"].startswith("/"):
        return False
    header = header_of(look)
    known = side["headers"].values() if side else []
    return not any(header and one["name"] == header and one["sha256"] for one in known)


def anew(
    before: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Look], wishes: Wishes
) -> dict[str, dict[str, Any]]:
    """Return the plan for the hosts that are still there, after some that were to lead were lost: others take over.

    What the remaining ones have done stays done; I(again) marks what there is to do.
    """
    shares = {}
    for host, share in plan(looks, wishes).items():
        former = before.get(host, share)
        if former["leader"] in ("", *looks):
            shares[host] = {**former, "jobs": []}
        else:
            shares[host] = {**share, "again": True}
    return shares


def _nobody(look: Look, wishes: Wishes) -> str:
    """Return why nobody can build for a host, and what to do."""
    wanted = f"{look['platform']['architecture']}, {look['platform']['libc']} or older"
    if wishes.on == CONTROLLER:
        own = look["controller"]["platform"]["architecture"]
        return (
            f"the controller is {own} and can't build for {look['platform']['architecture']}; set redis_build_on to "
            "target, or to a builder of that architecture"
        )
    if not wishes.builders and not wishes.silent:
        return (
            f"redis_build_on {wishes.on!r} must be target, controller, or a host or a group with hosts of the inventory"
        )
    seen = [f"{name} is {platform_text(builder)}" for name, builder in wishes.builders.items()]
    seen += [f"{name} can't be reached: {why}" for name, why in wishes.silent.items()]
    return (
        f"no builder of redis_build_on is of this platform ({wanted}): {'; '.join(seen)}. Add "
        "one to it, or set it to target"
    )


def settled(
    host: str, share: Mapping[str, Any], look: Look, made: Built, forecast: bool = False
) -> tuple[dict[str, str], list[str]]:
    """Return the inputs of each module that a host lacks, once its builder has done what it could, and what failed.

    I(made) is the result of the builder's work, in the leader's name; empty where it was lost under way. In a
    I(forecast) nothing was built, and only what is known to stand against it counts.
    """
    found: dict[str, str] = {}
    faults: list[str] = []
    by_request = {(item["name"], item["request"]): item for item in made.get("made") or []}
    for want in look["wanted"]:
        name = want["name"]
        if name not in share["lacks"]:
            continue
        known = share["lacks"][name]
        if known and (not is_built(want) or _at_hand(want, look, known)):
            found[name] = known
            continue
        item = by_request.get((name, request(want, look)), {})
        if item.get("inputs"):
            found[name] = item["inputs"]
        elif not forecast or share["fault"] or made.get("msg"):
            faults.append(f"module {name}: " + _why_not(host, share, made, item))
    return found, faults


def _why_not(host: str, share: Mapping[str, Any], made: Built, item: Mapping[str, Any]) -> str:
    if share["fault"]:
        return str(share["fault"])
    builder = "the controller" if share["builder"] == CONTROLLER else share["builder"]
    words = item.get("fault") or made.get("msg")
    if not words:
        return f"{builder} was to build it for {share['platform']}, and was lost on the way; run again"
    if builder == host:
        return str(words)
    return f"{builder} builds it for all hosts of {share['platform']}, and could not: {words}"


def likely(facts: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the hosts that may have to build, as far as gathered facts tell: the first of each release.

    Which Redis runs, what is built already and who has a compiler is seen later. One that told no facts may.
    """
    firsts: dict[tuple[str, ...], str] = {}
    for host, known in facts.items():
        firsts.setdefault(_release_of(known) if known else (host,), host)
    return list(firsts.values())


def _release_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(facts.get(key, "")) for key in ("distribution", "distribution_version", "architecture"))


def sources_of(looks: Iterable[Look]) -> dict[str, list[str]]:
    """Return the source digests of each module that hosts want, for a look at a builder."""
    found: dict[str, list[str]] = {}
    for look in looks:
        for want in look["wanted"]:
            if want["source_digest"] not in found.setdefault(want["name"], []):
                found[want["name"]].append(want["source_digest"])
    return found


def headers_of(looks: Iterable[Look]) -> list[str]:
    """Return the names of the headers that hosts' modules are built with, for a look at a builder."""
    return sorted({header_of(look) for look in looks} - {""})
