#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a trial costs a host, beside what its server needs to start anyway.

Runs on three lab hosts with the example module: `make bench`. For each host, in turns so that a busy moment hits all of
them alike, it measures in seconds

- start: `systemctl restart redis-server` until the server answers, with the module loaded;
- trial: the module redis_trial from its own start to its result, on what runs already (inspect, linker, one server);
- all: the same for a new file, with smoke commands, SAVE, a second start, and a copy of the host's data.

It prints medians over PAIRS rounds and what a trial adds to a start, and writes the table into docs/benchmarks.md.
"""

from __future__ import annotations

import io
import json
import statistics
import tarfile
from pathlib import Path

import ansible
from bench_kit import LABS, ROOT, Host, Running, environment, hosts_of, inventory, taken_down, up, write_page

LAB = "bench"
HOSTS = {"b11": "bullseye", "b12": "bookworm", "b13": "trixie"}
PAIRS = 7
KEYS = 20_000
BOUND_S = 0.5
INSIDE = "/root/bench"
ENTRY = {
    "name": "sensorwindow",
    "src": str(ROOT / "examples" / "sensorwindow"),
    "sources": ["sensorwindow.c", "window.c"],
}
SMOKE = [
    {"command": ["SENSORWINDOW.ADD", "pump:7", "1000", "21.5"], "expect": "added"},
    {"command": ["SENSORWINDOW.RANGE", "pump:7", "-", "+"]},
]

MEASURE = r"""
import json, subprocess, sys, time
what, pairs = sys.argv[1], int(sys.argv[2])
def clock(call):
    began = time.monotonic()
    call()
    return time.monotonic() - began
def restart():
    subprocess.run(["systemctl", "reset-failed", "redis-server"], check=True)
    subprocess.run(["systemctl", "restart", "redis-server"], check=True)
    while subprocess.run(["redis-cli", "ping"], capture_output=True, text=True).stdout != "PONG\n":
        pass
def module(args):
    def run():
        script = "/root/bench/ansible_collections/edgeops/redis_modules/plugins/modules/redis_trial.py"
        done = subprocess.run([sys.executable, script, args], capture_output=True, text=True,
                              env={"PYTHONPATH": "/root/bench", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})
        answer = json.loads(done.stdout or "{}")
        if answer.get("failed", True) is True and "data" not in answer:
            sys.exit(done.stdout + done.stderr)
        if answer["data"]["tried"] is not ("all" in args):
            sys.exit("not what was to be measured: " + done.stdout)
    return run
print(clock({"start": restart, "trial": module("/root/bench/trial.json"), "all": module("/root/bench/all.json")}[what]))
"""


def prepare(host: Host) -> None:
    """Lay the collection and ansible's own code for modules on the host, and data into the server."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(Path(ansible.__file__).parent / "module_utils", "bench/ansible/module_utils")
        for name in ("__init__.py", "_vendor", "release.py"):
            tar.add(Path(ansible.__file__).parent / name, f"bench/ansible/{name}")
        tar.add(ROOT / "plugins", "bench/ansible_collections/edgeops/redis_modules/plugins")
    host.sh(f"rm -rf {INSIDE} && tar -C /root -x", packed.getvalue())
    host.sh(
        f"for i in $(seq {KEYS}); do echo SENSORWINDOW.ADD key:$i 1000 $i; done | redis-cli >/dev/null && "
        f"redis-cli SAVE && cp $(ls -d /var/cache/edgeops-redis-modules/artifacts/*/*/sensorwindow.so | tail -n 1) "
        # A byte after the end makes it another file, as a new build would be.
        f"{INSIDE}/new.so && echo >> {INSIDE}/new.so"
    )
    conf = host.sh("cat /etc/redis/redis.conf")
    dropin = host.sh("cat /etc/systemd/system/redis-server.service.d/50-edgeops-redis-modules.conf")
    entry = {"name": "sensorwindow", "path": "/var/lib/redis/modules/sensorwindow.so"}
    for name, modules in (
        ("trial", [entry]),
        ("all", [{**entry, "artifact": f"{INSIDE}/new.so", "smoke": SMOKE}]),
    ):
        args = {"conf": conf, "dropin": dropin, "modules": modules}
        host.sh(f"cat > {INSIDE}/{name}.json", json.dumps({"ANSIBLE_MODULE_ARGS": args}).encode())
    host.sh(f"cat > {INSIDE}/measure.py", MEASURE.encode())


def measure(host: Host, what: str) -> float:
    """Return the seconds that it takes once."""
    return float(host.sh(f"python3 {INSIDE}/measure.py {what} 1"))


def table(figures: dict[str, dict[str, list[float]]]) -> str:
    """Return the medians as a table in Markdown."""
    lines = [
        "| host | start | trial | trial, smoke, data | added | added by all |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, measured in figures.items():
        start, trial, everything = (statistics.median(measured[what]) for what in ("start", "trial", "all"))
        lines.append(
            f"| {name} | {start:.2f} s | {trial:.2f} s | {everything:.2f} s "
            f"| {trial - start:+.2f} s | {everything - start:+.2f} s |"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and write the page."""
    with taken_down(LAB):
        up(LAB, HOSTS)
        variables = LABS / LAB / "vars.json"
        variables.write_text(json.dumps({"redis_modules": [ENTRY]}), encoding="utf-8")
        words = ("ansible-playbook", "edgeops.redis_modules.rollout", "-i", inventory(LAB), "-e", f"@{variables}")
        Running(*words, env=environment()).end()
        known = hosts_of(LAB)
        for host in known:
            prepare(host)
        figures: dict[str, dict[str, list[float]]] = {
            HOSTS[host.name]: {what: [] for what in ("start", "trial", "all")} for host in known
        }
        for _ in range(PAIRS):
            for host in known:
                for what, seconds in figures[HOSTS[host.name]].items():
                    seconds.append(measure(host, what))
    write_page(trial=table(figures))


if __name__ == "__main__":
    main()
