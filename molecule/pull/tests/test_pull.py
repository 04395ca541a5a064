# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes of sites that reach a git server and nothing else.

The tests build on each other: each leaves the sites at the last good state.
"""

from __future__ import annotations

import re
import subprocess

import pytest
from fleet_kit import ROOT, until
from site_kit import Central

MEGABYTE = 2**20


def test_the_first_run_came_from_the_stick(central: Central) -> None:
    """Converge has carried it. No site has another network than that to the server, nor a compiler."""
    for site in central.sites:
        status = site.status()
        assert (status["result"], status["applied"]) == ("converged", central.tip()), status
        assert [row["verdict"] for row in status["modules"]] == ["loaded"]
        assert site.versions_here()["sensorwindow"] == "10000"
        assert status["sources"][0]["source"] == "/media/stick/fleet.bundle"
        assert re.search("unreachable|No route to host", site.sh("ip route get 9.9.9.9 2>&1 || true"))
        assert not site.sh("command -v gcc cc || true")
        assert site.sh("systemctl is-enabled edgeops-pull.timer").strip() == "enabled"


def test_each_site_has_what_is_for_it_alone(central: Central) -> None:
    """Debian 11 runs the carried ansible-core, the others their own; each has the artifact of its own platform."""
    for site, redis in zip(central.sites, ("6.0", "7.0", "8.0"), strict=True):
        assert site.sh("ls -d /var/lib/edgeops-pull/libraries/ansible || true").strip() == (
            "/var/lib/edgeops-pull/libraries/ansible" if redis == "6.0" else ""
        )
        artifacts = site.sh("cd /var/lib/edgeops-pull/trees/*/artifacts && ls").split()
        assert [name.rsplit("redis", 1)[1] for name in artifacts] == [redis]


def test_push_and_pull_come_to_the_same(central: Central) -> None:
    """The same repository, pushed to a host of each platform: the same bytes are loaded there."""
    central.play("rollout", "--limit=builders")
    for builder, site in zip(central.builders, central.sites, strict=True):
        file = "sha256sum /var/lib/redis/modules/sensorwindow.so"
        assert builder.sh(file) == site.sh(file)


def test_a_signed_upgrade(central: Central) -> None:
    """Each site loads the artifact that was built for it; this is the first pull by the link."""
    commit = central.build(defines=["SENSORWINDOW_RELEASE=2"], version=20000)
    for name, status in central.pull().items():
        print(f"{name}: upgrade: {status['bytes']} bytes, {status['seconds']} s")
        assert (status["result"], status["applied"]) == ("converged", commit), status
        assert status["bytes"] < MEGABYTE
    assert {site.versions_here()["sensorwindow"] for site in central.sites} == {"20000"}


def unsigned(central: Central) -> str:
    return central.sign("unsigned", key="")


def stranger(central: Central) -> str:
    key = central.folder / "stranger"
    if not key.exists():
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    return central.sign("a stranger's", key="stranger")


def rewound(central: Central) -> str:
    return central.git("rev-parse", "main~1")


def forked(central: Central) -> str:
    central.git("reset", "--quiet", "--hard", "main~1")
    return central.sign("another history")


def test_what_is_refused(central: Central) -> None:
    """Redis is the same process all the time."""
    good, pids = central.tip(), central.pids()
    for make, reason in (
        (unsigned, "it is not signed"),
        (stranger, "allowed_signers does not name"),
        (rewound, "the history was rewound"),
        (forked, "the history was rewritten"),
    ):
        try:
            central.git("checkout", "--quiet", "--detach")
            central.push(make(central))
            for status in central.pull().values():
                assert (status["result"], status["applied"]) == ("refused", good), (reason, status)
                assert reason in status["reason"]
        finally:
            central.git("checkout", "--quiet", "--force", "main")
            central.push()
    assert central.pids() == pids


def test_a_pull_without_a_change(central: Central) -> None:
    """It costs some kilobytes, and changes nothing; nor did the states that were refused."""
    pids = central.pids()
    for name, status in central.pull().items():
        print(f"{name}: no change: {status['bytes']} bytes, {status['seconds']} s")
        assert (status["result"], status["applied"]) == ("converged", central.tip()), status
        assert status["bytes"] < 20_000
    assert central.pids() == pids
    for site in central.sites:
        assert re.search(r" changed=0 ", site.sh("cat /var/lib/edgeops-pull/run.log"))


def test_ten_percent_loss(central: Central) -> None:
    """It takes longer, that is all."""
    site = central.sites[2]
    commit = central.release(also=5, args=["max-samples", "91000"])
    rules = "add table inet lossy; add chain inet lossy in { type filter hook input priority 0; }\n"
    rules += f"add rule inet lossy in ip saddr {site.address} numgen random mod 100 < 10 counter drop\n"
    rules += "add chain inet lossy out { type filter hook output priority 0; }\n"
    rules += f"add rule inet lossy out ip daddr {site.address} numgen random mod 100 < 10 counter drop\n"
    central.hub.sh(f"nft -f - <<'E'\n{rules}\nE")
    try:
        status = site.pull()
        lost = re.findall(r"counter packets (\d+)", central.hub.sh("nft list table inet lossy"))
    finally:
        central.hub.sh("nft delete table inet lossy")
    assert (status["result"], status["applied"]) == ("converged", commit), status
    assert len(lost) == 2
    assert all(int(packets) for packets in lost), lost


def test_the_link_is_cut_in_the_middle_of_a_fetch(central: Central) -> None:
    """Redis is not touched; what has arrived is not fetched again."""
    site = central.sites[0]
    before, pid = site.status()["applied"], site.redis_pid()
    # More than the thin link brings before it is cut.
    commit = central.release(also=20, args=["max-samples", "92000"])
    central.slow(1600)
    try:
        counted = "du -sb /var/lib/edgeops-pull/repository.git/objects | cut -f 1"
        at_first = int(site.sh(counted))
        site.begin()
        # The first batch has 16 of the files, or fewer where some of what is small is in it.
        until(lambda: int(site.sh(counted)) - at_first > 1_650_000, "most of it has come", 120)
        central.cut(site)
        central.wait(site)
        status = site.status()
        assert (status["applied"], site.redis_pid()) == (before, pid), status
        assert status["sources"][0]["result"] == "offline", status
    finally:
        central.mend(site)
        central.slow(0)
    status = site.pull()
    print(f"the rest after the cut: {status['bytes']} bytes")
    assert (status["result"], status["applied"]) == ("converged", commit), status
    assert status["bytes"] < MEGABYTE


@pytest.mark.parametrize("moment", ["fetch", "apply"])
def test_the_power_is_cut(central: Central, moment: str) -> None:
    """After the reboot, the next run brings the site to where it was going."""
    site = central.sites[1]
    samples = {"fetch": "93000", "apply": "94000"}[moment]
    commit = central.release(also=5, args=["max-samples", samples])
    if moment == "fetch":
        central.slow(400)
    try:
        site.begin()
        if moment == "fetch":
            until(
                lambda: site.sh("ls /var/lib/edgeops-pull/repository.git/objects/pack/tmp_* || true"), "it fetches", 120
            )
        else:
            until(lambda: site.sh("ls -d /var/lib/edgeops-redis-modules/before* || true"), "it changes", 300)
        central.power_cut(site)
    finally:
        central.slow(0)
    until(lambda: site.versions_here().get("sensorwindow") == "20000", "Redis is back with its module")
    # By itself, too, it would run again.
    assert re.search(r"\d", site.sh("systemctl show -p NextElapseUSecMonotonic --value edgeops-pull.timer"))
    status = site.pull()
    assert (status["result"], status["applied"]) == ("converged", commit), status
    assert f"max-samples {samples}" in site.sh("grep ^loadmodule /etc/redis/redis.conf")


def test_a_full_disk(central: Central) -> None:
    """The agent's own folder is full: it says so, and Redis runs on."""
    site = central.sites[2]
    pid = site.redis_pid()
    site.sh("mount -t tmpfs -o size=4m tmpfs /var/lib/edgeops-pull")
    try:
        status = site.pull()
        assert (status["result"], status["accepted"]) == ("no_space", ""), status
    finally:
        site.sh("umount /var/lib/edgeops-pull")
    assert site.redis_pid() == pid
    assert site.pull()["result"] == "converged"


def test_an_entry_without_an_artifact(central: Central) -> None:
    """The site says which, and is left as it is."""
    before = central.declared.read_text(encoding="utf-8")
    central.declare(defines=["SENSORWINDOW_RELEASE=2", "NEVER_BUILT=1"])
    central.sign("not built")
    central.push()
    site = central.sites[0]
    pid = site.redis_pid()
    status = site.pull()
    assert (status["result"], site.redis_pid()) == ("no_artifact", pid), status
    assert "module sensorwindow: no artifact fits this host (x86_64, glibc 2.31, Redis 6.0.16)" in status["reason"]
    central.declared.write_text(before, encoding="utf-8")
    central.sign("as before")
    central.push()
    assert site.pull()["result"] == "converged"


def test_a_host_that_the_repository_does_not_know(central: Central) -> None:
    """It keeps its agent up to date, and says that it is unknown."""
    site = central.sites[1]
    pid = site.redis_pid()
    site.sh("sed -i 's/site12/lost12/' /etc/edgeops/pull.json; echo '# old' >> /usr/local/sbin/edgeops-pull")
    status = site.pull()
    assert (status["result"], site.redis_pid()) == ("unknown", pid), status
    assert "does not name lost12" in status["reason"]
    assert "# old" not in site.sh("tail -1 /usr/local/sbin/edgeops-pull")
    site.sh("sed -i 's/lost12/site12/' /etc/edgeops/pull.json")
    assert site.pull()["result"] == "converged"


def test_the_fleets_report_has_the_sites(central: Central) -> None:
    """The central side reads what the agents say; and so does a node exporter."""
    output = central.play("verify", "--limit=sites")
    for site in central.sites:
        assert re.search(rf"{site.name}, pull: converged .*, commit {site.status()['applied'][:12]}", output), output
        assert 'edgeops_pull_result{result="converged"} 1' in site.sh("cat /var/lib/edgeops-pull/edgeops_pull.prom")


def test_a_fleet_does_not_call_at_once(central: Central) -> None:
    """Twenty hosts with the same timer: their own next elapses are spread over the delay, and stay where they are."""
    lab, names = "mol-pull-herd", [f"herd{number}" for number in range(20)]
    timer = central.sites[1].sh("cat /etc/systemd/system/edgeops-pull.timer")
    timer = timer.replace("OnCalendar=yearly", "OnCalendar=hourly").replace("DelaySec=30d", "DelaySec=1h")
    assert "RandomizedDelaySec=1h" in timer
    program = [str(ROOT / "lab" / "lab.py")]
    try:
        subprocess.run([*program, "up", "--lab", lab, *(f"{name}=bookworm" for name in names)], check=True, timeout=600)
        script = f"cat > /etc/systemd/system/edgeops-pull.timer <<'E'\n{timer}\nE\n"
        script += "printf '[Service]\\nExecStart=/bin/true\\n' > /etc/systemd/system/edgeops-pull.service; "
        script += "systemctl daemon-reload; systemctl start edgeops-pull.timer; "
        # The run after a boot is another matter than the calendar's.
        script += "systemctl show -p NextElapseUSecRealtime --value edgeops-pull.timer"
        elapses = []
        for name in names:
            done = subprocess.run(
                [*program, "ssh", "--lab", lab, name, script], check=True, capture_output=True, text=True, timeout=60
            )
            elapses.append(re.search(r" \d+:(\d+):(\d+) ", done.stdout))
    finally:
        subprocess.run([*program, "down", "--lab", lab], check=True, timeout=300)
    assert all(elapses)
    seconds = sorted(int(found[1]) * 60 + int(found[2]) for found in elapses if found)
    print(f"twenty next calls, in seconds of the hour: {seconds}")
    assert seconds[-1] - seconds[0] > 1200
    assert max(sum(at <= other < at + 60 for other in seconds) for at in seconds) <= 5
