# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence

from labkit import lifecycle, ssh
from labkit.config import Config, load_config
from labkit.errors import LabError
from labkit.images import ensure_images
from labkit.plan import KINDS, SUITES, parse_hosts
from labkit.preflight import preflight
from labkit.run import ENVIRONMENT

DEFAULT_LAB = "demo"


def say(text: str) -> None:
    """A line of progress, at once also in a pipe."""
    print(text, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    parser = argparse.ArgumentParser(
        prog="lab.py", description="Real systemd hosts on this machine; see lab/README.md."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str, action: Callable[[Config, argparse.Namespace], int]) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(action=action)
        return sub

    def with_lab(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--lab", default=DEFAULT_LAB, metavar="NAME", help=f"the lab's name (default: {DEFAULT_LAB})")

    def with_limit(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--timeout", type=float, default=90, metavar="SECONDS", help="how long one host may take (default: 90)"
        )

    command("check", "say whether this machine can do it, and change nothing", do_check)
    image = command("image", "make an image, where it is not there yet", do_image)
    image.add_argument("suite", choices=SUITES, nargs="+")
    image.add_argument("--kind", choices=KINDS, default="bare")
    up = command("up", "bring hosts up; those that run are left alone", do_up)
    with_lab(up)
    with_limit(up)
    up.add_argument(
        "--image",
        choices=KINDS,
        default="bare",
        help="bare: Debian and sshd; ready: Redis and a compiler, too; site: Redis and git",
    )
    up.add_argument("hosts", nargs="+", metavar="HOST=SUITE")
    down = command("down", "take a lab down, whatever there is of it", do_down)
    which = down.add_mutually_exclusive_group()
    with_lab(which)  # type: ignore[arg-type]
    which.add_argument("--all", action="store_true", help="every lab of this checkout")
    status = command("status", "list the hosts", do_status)
    status.add_argument("--lab", metavar="NAME", help="only this lab")
    cut = command("power-cut", "end a host hard; its disk is kept", do_power_cut)
    with_lab(cut)
    cut.add_argument("host")
    start = command("start", "boot a host that is off", do_start)
    with_lab(start)
    with_limit(start)
    start.add_argument("host")
    shell = command("ssh", "a shell, or one command, on a host", do_ssh)
    with_lab(shell)
    shell.add_argument("host")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="CMD")
    return parser


def check_machine(config: Config) -> bool:
    """Print all findings; whether none stands in the way."""
    findings = preflight(config)
    for finding in findings:
        label = "error" if finding.fatal else "warning"
        print(f"{label}: {finding.what}\n  mend: {finding.mend}", file=sys.stderr, flush=True)
    return not any(finding.fatal for finding in findings)


def require_machine(config: Config) -> None:
    """Stop before anything is changed."""
    if not check_machine(config):
        raise LabError("this machine can't run a lab as it is (see above); nothing was changed")


def require_root() -> None:
    """For the commands that end or look into hosts."""
    if os.geteuid() != 0:
        raise LabError("run it as root (sudo)")


def do_check(config: Config, _arguments: argparse.Namespace) -> int:
    """`check`."""
    if not check_machine(config):
        return 1
    say(f"this machine can run labs, in {config.ranges.ipv4} and {config.ranges.ipv6}, kept in {config.root}")
    return 0


def do_image(config: Config, arguments: argparse.Namespace) -> int:
    """`image`."""
    require_machine(config)
    for path in ensure_images(config, [(suite, arguments.kind) for suite in arguments.suite], say).values():
        say(str(path))
    return 0


def do_up(config: Config, arguments: argparse.Namespace) -> int:
    """`up`."""
    wanted = parse_hosts(arguments.hosts)
    require_machine(config)
    began = time.monotonic()
    path = lifecycle.up(config, arguments.lab, arguments.image, wanted, limit=arguments.timeout, say=say)
    say(f"lab {arguments.lab}: {len(wanted)} hosts up in {time.monotonic() - began:.1f} s; inventory {path}")
    return 0


def do_down(config: Config, arguments: argparse.Namespace) -> int:
    """`down`."""
    require_root()
    if arguments.all:
        lifecycle.down_all(config, say)
    else:
        lifecycle.down(config, arguments.lab, say)
    return 0


def do_status(config: Config, arguments: argparse.Namespace) -> int:
    """`status`."""
    rows = [["LAB", "HOST", "SUITE", "IMAGE", "ADDRESS", "STATE"], *lifecycle.status(config, arguments.lab)]
    widths = [max(len(row[i]) for row in rows) for i in range(6)]
    for row in rows:
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def do_power_cut(config: Config, arguments: argparse.Namespace) -> int:
    """`power-cut`."""
    require_root()
    lifecycle.power_cut(config, arguments.lab, arguments.host, say)
    return 0


def do_start(config: Config, arguments: argparse.Namespace) -> int:
    """`start`."""
    require_machine(config)
    lifecycle.start(config, arguments.lab, arguments.host, arguments.timeout, say)
    return 0


def do_ssh(config: Config, arguments: argparse.Namespace) -> int:
    """`ssh`: becomes ssh itself, so that its exit status and terminal are ours."""
    state = lifecycle.existing(config, arguments.lab, arguments.host)
    command = ssh.command(config.lab(arguments.lab), state.hosts[arguments.host].address)
    os.execvpe(  # noqa: S606
        command[0], [*command, *arguments.words], os.environ | {"PATH": ENVIRONMENT["PATH"]}
    )


def main(words: Sequence[str]) -> int:
    """Run one command; exit status 1 for what can be mended, 2 for a wrong call."""
    arguments = build_parser().parse_args(words)
    try:
        status: int = arguments.action(load_config(), arguments)
        return status
    except (LabError, OSError) as error:
        print(f"lab: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted; `lab.py down` takes down what there is", file=sys.stderr)
        return 130
