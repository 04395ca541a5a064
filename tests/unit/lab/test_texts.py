# SPDX-License-Identifier: GPL-3.0-or-later
"""What is handed to other programs: recipes, rules, the inventory."""

from __future__ import annotations

import json
from pathlib import Path

from labkit import config, images, network, plan, preflight, ssh, state

SETTINGS = config.Config(Path("/l"), plan.parse_ranges(None), "http://m/debian", "http://m/security")


def test_image_key_follows_the_recipe() -> None:
    bare = images.recipe(SETTINGS, "trixie", "bare", [])
    ready = images.recipe(SETTINGS, "trixie", "ready", [])
    assert images.recipe_key(bare) == images.recipe_key(list(bare))
    assert len({images.recipe_key(c) for c in (bare, ready, images.recipe(SETTINGS, "bookworm", "bare", []))}) == 3
    assert "redis-server" not in " ".join(bare)


def test_a_site_has_no_compiler_and_the_ansible_of_its_suite() -> None:
    old, new = (" ".join(images.recipe(SETTINGS, suite, "site", [])) for suite in ("bullseye", "bookworm"))
    assert "build-essential" not in old + new
    assert ("ansible-core" in old, "ansible-core" in new) == (False, True)


def test_target_stands_behind_the_suite() -> None:
    command = images.with_target(images.recipe(SETTINGS, "trixie", "bare", []), "trixie", Path("/t"))
    place = command.index("trixie")
    assert command[place + 1] == "/t"
    assert command[place + 2 :] == images.sources(SETTINGS, "trixie")


def test_rules_concern_the_lab_only() -> None:
    lab = plan.lab_network(SETTINGS.ranges, 3)
    text = network.ruleset(lab, "demo")
    assert text.count("table ip edgeops_lab_demo_3") == 3
    assert "ip saddr 10.213.3.0/24 ip daddr != 10.213.3.0/24 masquerade" in text


def test_chains_that_drop_forwarded_packets() -> None:
    chain = {"family": "inet", "table": "filter", "name": "forward", "hook": "forward", "policy": "drop"}
    ruleset = {"nftables": [{"metainfo": {}}, {"chain": chain}, {"chain": {**chain, "policy": "accept"}}]}
    assert network.forward_drops(json.dumps(ruleset)) == ["inet filter forward"]
    assert network.forward_drops("{}") == []


def test_cgroup_trees() -> None:
    hybrid = "cgroup /c/systemd cgroup rw,xattr,name=systemd 0 0\ncgroup2 /c/unified cgroup2 rw 0 0\n"
    controllers = "cgroup /c/cpu cgroup rw,cpu 0 0\n"
    assert preflight.cgroup_roots(controllers + hybrid) == ["/c/systemd", "/c/unified"]
    assert preflight.cgroup_roots("cgroup2 /c cgroup2 rw 0 0\n") == ["/c"]


def test_inventory_lists_hosts_in_their_order() -> None:
    hosts = {
        "b": state.Host("trixie", "bare", "", address="10.213.0.2"),
        "a": state.Host("bullseye", "bare", "", address="10.213.0.3"),
    }
    text = ssh.inventory(Path("/a lab"), state.LabState("demo", 0, "", hosts=hosts))
    assert text.index("    b:") < text.index("    a:")
    assert "ansible_host: 10.213.0.3" in text
    assert "-o 'UserKnownHostsFile=/a lab/known_hosts'" in text
    assert 'ansible_ssh_private_key_file: "/a lab/id_ed25519"' in text


def test_socket_paths_are_short() -> None:
    # ssh adds a dot and 16 characters while it makes one; Ansible's own name has 10.
    assert len(str(ssh.control_folder(65535) / ("x" * 27))) < 108


def test_nearest_existing_folder(tmp_path: Path) -> None:
    assert preflight.existing_parent(tmp_path / "a" / "b") == tmp_path
