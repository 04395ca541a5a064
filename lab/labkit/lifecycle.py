# SPDX-License-Identifier: GPL-3.0-or-later
"""Labs up and down, and single hosts off and on."""

from __future__ import annotations

import os
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path

from labkit import hosts as host_steps
from labkit import machine, ssh
from labkit.config import Config
from labkit.errors import LabError
from labkit.files import boot_id, locked, mounts_under, remove_tree, tail, write_atomically
from labkit.images import ensure_images
from labkit.network import (
    NETNS_FOLDER,
    ensure_bridge,
    ensure_table,
    ipv6_usable,
    plug_in,
    remove_lab_network,
    unplug,
)
from labkit.plan import LabNetwork, assign_numbers, check_lab_name, hosts_block, lab_network, names_only
from labkit.run import run
from labkit.state import Host, LabState, Registry, load_state, save_state

Say = Callable[[str], None]


@dataclass(frozen=True)
class Report:
    """What became of one host."""

    name: str
    text: str
    ok: bool = True


class Lab:
    """One lab in one call, under the lab's lock."""

    def __init__(self, config: Config, state: LabState) -> None:
        self.state = state
        self.network = network_of(config, state)
        self.folder = config.lab(state.name)
        self._saving = threading.Lock()

    def save(self) -> None:
        """Write the state; hosts boot side by side."""
        with self._saving:
            save_state(self.folder, self.state)

    def hosts_block(self) -> str:
        """The lines by which hosts know each other."""
        lines = [f"{host.address} {name}" for name, host in self.state.hosts.items()]
        lines += [f"{host.address6} {name}" for name, host in self.state.hosts.items() if host.address6]
        return hosts_block(lines)

    def prepare_disk(self, name: str) -> None:
        """Mount an off host's disk, with the host's identity on it."""
        record = self.state.hosts[name]
        # What a crashed boot may have left: processes whose pid was not yet recorded.
        host_steps.kill_host(self.network, name, record)
        host_steps.mount_disk(self.folder, name, record.image)
        public_key = (self.folder / "id_ed25519.pub").read_text()
        host_steps.write_identity(self.folder, name, record, public_key, self.hosts_block())

    def boot(self, name: str, limit: float) -> Report:
        """Start a host whose disk is mounted."""
        record = self.state.hosts[name]
        began = time.monotonic()
        try:
            plug_in(self.network, name, record.number)
            record.pid, record.start_time = host_steps.boot(self.folder, self.network, name)
            self.save()
            return self.wait(name, limit, began)
        except LabError as error:
            return Report(name, str(error), ok=False)

    def wait(self, name: str, limit: float, began: float) -> Report:
        """Until sshd lets us in and systemd has started all it means to start."""
        record = self.state.hosts[name]
        while not host_steps.ssh_answers(record.address):
            if not self.state.is_running(name):
                return self._failure(name, "ended while booting")
            if time.monotonic() - began > limit:
                return self._failure(name, f"SSH does not answer after {limit:.0f} s")
            time.sleep(0.05)
        state = self.system_state(name, max(5.0, limit - (time.monotonic() - began)))
        if not state:
            return self._failure(name, "sshd answers, but does not let us in")
        return Report(name, f"{record.suite} {record.address} {state} after {time.monotonic() - began:.1f} s")

    def system_state(self, name: str, limit: float) -> str:
        """What systemd says of itself, over SSH: so key, account and known hosts are proved as well."""
        question = (
            f"timeout {limit:.0f} systemctl is-system-running --wait; "
            "systemctl --failed --plain --no-legend | cut -d' ' -f1"
        )
        command = ssh.command(self.folder, self.state.hosts[name].address, "ConnectTimeout=10", "BatchMode=yes")
        result = run([*command, question], check=False, limit=limit + 30)
        return " ".join(result.stdout.split()) if result.returncode == 0 else ""

    def look_again(self, name: str, limit: float) -> Report:
        """A host that runs already is left alone."""
        record = self.state.hosts[name]
        if host_steps.ssh_answers(record.address):
            return Report(name, f"{record.suite} {record.address} runs already")
        return self.wait(name, limit, time.monotonic())

    def boot_all(self, names: Iterable[str], limit: float, say: Say) -> None:
        """Boot what is off, some at a time, and wait for all."""
        names = list(names)
        off = [name for name in names if not self.state.is_running(name)]
        running = [name for name in self.state.hosts if name not in off and self.state.is_running(name)]
        # More at once only makes them wait for each other.
        with ThreadPoolExecutor(min(16, 4 * (os.cpu_count() or 1))) as pool:
            list(pool.map(self.prepare_disk, off))
            ssh.write_known_hosts(self.folder, self.state)
            for name in running:
                host_steps.write_neighbours(self.folder, name, self.hosts_block())
            reports = []
            for report in pool.map(lambda n: self.boot(n, limit) if n in off else self.look_again(n, limit), names):
                reports.append(report)
                say(f"{report.name}: {report.text}")
        failed = [report.name for report in reports if not report.ok]
        if failed:
            raise LabError(
                f"{len(failed)} of {len(names)} hosts did not come up: {', '.join(failed)} (see above). "
                f"`lab.py up` tries again, `lab.py down --lab {self.state.name}` takes all down"
            )

    def _failure(self, name: str, what: str) -> Report:
        log = host_steps.console(self.folder, name)
        return Report(name, f"{what}; its console ({log}) ends with:\n{tail(log)}", ok=False)


def network_of(config: Config, state: LabState) -> LabNetwork:
    """The lab's networks: those it has, and after a reboot those that LAB_NETWORK gives it."""
    if state.ipv4 and state.boot == boot_id():
        return LabNetwork(state.index, IPv4Network(state.ipv4), IPv6Network(state.ipv6))
    return lab_network(config.ranges, state.index)


def up(config: Config, name: str, kind: str, wanted: Mapping[str, str], *, limit: float, say: Say) -> Path:
    """Bring up the named hosts; returns the inventory's path."""
    folder = config.lab(check_lab_name(name))
    known = load_state(folder) or LabState(name, -1, "")
    check_same(known, wanted, kind)
    # Before the lab's folder exists, and outside its lock: this may take a minute.
    pairs = [(suite, kind) for host, suite in wanted.items() if host not in known.hosts]
    images = ensure_images(config, pairs, say)
    with locked(folder / "lock"):
        state = load_state(folder) or LabState(name, -1, "")
        check_same(state, wanted, kind)
        if missing := {(s, kind) for h, s in wanted.items() if h not in state.hosts} - set(images):
            images |= ensure_images(config, missing, say)
        lab = prepare(config, state, {h: Host(s, kind, str(images.get((s, kind), ""))) for h, s in wanted.items()})
        lab.boot_all(wanted, limit, say)
        path = folder / "inventory.yml"
        write_atomically(path, ssh.inventory(folder, state))
    return path


def check_same(state: LabState, wanted: Mapping[str, str], kind: str) -> None:
    """A host of the lab can't become another suite or kind under its name."""
    for name, suite in wanted.items():
        host = state.hosts.get(name)
        if host and (host.suite, host.kind) != (suite, kind):
            raise LabError(
                f"{name} of lab {state.name} is {host.suite} ({host.kind}), not {suite} ({kind}); "
                f"take the lab down first: lab.py down --lab {state.name}"
            )


def prepare(config: Config, state: LabState, wanted: Mapping[str, Host]) -> Lab:
    """All that hosts stand on: index, sysctls, bridge, table, keys. Written down before it is made."""
    folder = config.lab(state.name)
    for name, host in wanted.items():
        state.hosts.setdefault(name, host)
    with machine.registry() as shared:
        wish = state.index if state.index >= 0 else None
        state.index = machine.register(shared, config, state.name, len(state.hosts), wish)
        describe(state, network_of(config, state), folder)
        save_state(folder, state)
        machine.raise_sysctls(shared)
        state.sysctls_before = {key: setting.before for key, setting in shared.sysctls.items()}
    lab = Lab(config, state)
    lab.save()
    if not (folder / "id_ed25519.pub").exists():
        (folder / "id_ed25519").unlink(missing_ok=True)
        host_steps.make_key(folder / "id_ed25519", f"lab {state.name}")
    ssh.control_folder(state.index).mkdir(mode=0o700, exist_ok=True)
    ensure_bridge(lab.network)
    ensure_table(lab.network, state.name)
    return lab


def describe(state: LabState, network: LabNetwork, folder: Path) -> None:
    """Fill in what follows from the index; also after a reboot of the machine, which ends all processes."""
    state.bridge, state.table = network.bridge, network.table(state.name)
    state.ipv4, state.ipv6 = str(network.ipv4), str(network.ipv6)
    numbers = assign_numbers(state.hosts, {name: host.number for name, host in state.hosts.items() if host.number})
    for name, host in state.hosts.items():
        host.number = numbers[name]
        host.machine_id = host.machine_id or uuid.uuid4().hex
        host.address = network.host_ipv4(host.number)
        host.address6 = network.host_ipv6(host.number) if ipv6_usable() else ""
        host.netns = network.machine(name)
        host.mount = str(host_steps.disk(folder, name) / "root")
        if state.boot != boot_id():
            host.pid = host.start_time = 0
    state.boot = boot_id()


def down(config: Config, name: str, say: Say) -> None:
    """Take a lab down: whatever there is of it, also twice, also after a crash or a reboot."""
    take_down(config.lab(check_lab_name(name)), name, say)


def take_down(folder: Path, name: str, say: Say) -> None:
    """The same for a lab of any checkout."""
    registered = machine.read_registry().index_of(folder)
    if not folder.exists() and registered is None:
        say(f"lab {name} is not up")
        return
    with locked(folder / "lock") if folder.exists() else nullcontext():
        state = load_state(folder) or LabState(name, -1, "")
        with machine.registry() as shared:
            index = shared.index_of(folder)
            if index is None and state.index >= 0 and state.boot == boot_id() and shared.owns(state.index, folder):
                index = state.index
            if index is not None:
                remove_machine_parts(names_only(index), folder, state)
                shared.labs.pop(index, None)
            host_steps.unmount_disk(folder)
            machine.put_back(shared, say)
        remove_tree(folder)
    say(f"lab {name} is down")


def remove_machine_parts(network: LabNetwork, folder: Path, state: LabState) -> None:
    """Processes, connections, mounts, cgroups, namespaces, links and rules of one lab."""
    names = known_hosts(network, state)
    ssh.end_connections(network.index)

    def remove_host(name: str) -> None:
        record = state.hosts.get(name)
        host_steps.kill_host(network, name, record if state.boot == boot_id() else None)
        leftovers = host_steps.nspawn_leftovers(folder, network.machine(name), name)
        host_steps.unmount_disk(host_steps.disk(folder, name))
        host_steps.remove_leftovers(leftovers)
        host_steps.remove_cgroups(host_steps.cgroups(network, name))
        unplug(network, name, record.number if record else 0)

    # Side by side: most of the time goes into the kernel's own waits.
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(remove_host, names))
    host_steps.remove_cgroups(host_steps.cgroups(network))
    remove_lab_network(network, state.name)


def known_hosts(network: LabNetwork, state: LabState) -> list[str]:
    """The state's hosts, and those that only the kernel still knows of."""
    names = dict.fromkeys(state.hosts)
    prefix = network.machine("")
    for path in NETNS_FOLDER.glob(f"{prefix}*"):
        names[path.name[len(prefix) :]] = None
    for group in host_steps.cgroups(network):
        names.update(dict.fromkeys(p.name for p in group.glob("*") if p.is_dir()))
    return list(names)


def down_all(config: Config, say: Say) -> None:
    """Every lab of this checkout, and those whose checkout is gone."""
    shared: Registry = machine.read_registry()
    orphans = [lab for lab in shared.labs.values() if not Path(lab.folder).exists()]
    ours = config.labs()
    # Orphans first: one may be a lab of ours from before the checkout was renamed.
    for lab in orphans:
        take_down(Path(lab.folder), lab.name, say)
    for name in ours:
        down(config, name, say)
    if not ours and not orphans:
        say("no lab is up")


def existing(config: Config, name: str, host: str) -> LabState:
    """The state of a lab that has this host."""
    state = load_state(config.lab(check_lab_name(name)))
    if state is None:
        raise LabError(f"there is no lab {name}; `lab.py status` lists them")
    if host not in state.hosts:
        raise LabError(f"lab {name} has no host {host}; it has {', '.join(state.hosts)}")
    return state


def power_cut(config: Config, name: str, host: str, say: Say) -> None:
    """End a host with no warning to anything in it; its disk is kept."""
    existing(config, name, host)
    with locked(config.lab(name) / "lock"):
        lab = Lab(config, existing(config, name, host))
        host_steps.kill_host(lab.network, host, lab.state.hosts[host])
        # What a host that is off holds on the network: nothing.
        unplug(lab.network, host, lab.state.hosts[host].number)
        lab.state.hosts[host].pid = lab.state.hosts[host].start_time = 0
        lab.save()
    say(f"{host}: off")


def start(config: Config, name: str, host: str, limit: float, say: Say) -> None:
    """Boot a host that is off, on its kept disk."""
    existing(config, name, host)
    with locked(config.lab(name) / "lock"):
        state = existing(config, name, host)
        prepare(config, state, {}).boot_all([host], limit, say)


def status(config: Config, name: str | None) -> list[list[str]]:
    """A row a host."""
    rows = []
    for lab in [check_lab_name(name)] if name else config.labs():
        state = load_state(config.lab(lab))
        if state is None:
            rows.append([lab, "-", "-", "-", "-", "half up: take it down" if config.lab(lab).exists() else "down"])
            continue
        for host, record in state.hosts.items():
            what = "off"
            if state.is_running(host):
                what = "running" if host_steps.ssh_answers(record.address) else "running, SSH does not answer"
            elif mounts_under(host_steps.disk(config.lab(lab), host)):
                what = "off, disk kept"
            rows.append([lab, host, record.suite, record.kind, record.address, what])
    return rows
