#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Return what Redis on a host runs."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_modules_info
short_description: Return what a Redis server runs, as the server and the host themselves show it
version_added: 0.1.0
description:
  - Asks the running server for its version, mode, role and modules, and the host for the files behind them.
  - For each module it returns the digest of the file on disk and of the live image, which is the file that the
    process has mapped, by inode. Where they differ, the file was replaced without a restart.
  - It never fails because Redis is missing or does not answer; RV(server.running) and RV(server.error) say so.
author:
  - edgeops contributors (@edgeops)
options:
  binary:
    description: The path of redis-server on the host.
    type: path
    default: /usr/bin/redis-server
  unit:
    description: The systemd unit of the server.
    type: str
    default: redis-server.service
  conf_path:
    description: Where redis.conf lies, for what the next start would load.
    type: path
    default: /etc/redis/redis.conf
  folder:
    description:
      - The module folder, to list the releases that are kept in it (see RV(releases)). None are listed where it is not
        given, as each of them is read whole.
    type: path
  paths:
    description:
      - Where modules are expected, by name. Redis before 7.0 does not tell the path of a module; this does.
    type: dict
    default: {}
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.info
seealso:
  - module: edgeops.redis_modules.redis_modules_confirm
"""

EXAMPLES = r"""
- name: Look at the server on this host
  edgeops.redis_modules.redis_modules_info:
  register: redis

- name: Look at a server that takes TLS and an ACL user only
  edgeops.redis_modules.redis_modules_info:
    login_port: 6380
    login_user: probe
    login_password: "{{ vaulted_probe_password }}"
    tls: true
    ca_certs: /etc/redis/ca.pem

- name: List the releases that the modules of this host can go back to
  edgeops.redis_modules.redis_modules_info:
    folder: /var/lib/redis/modules

- name: Show the modules whose file was replaced without a restart
  ansible.builtin.debug:
    msg: "{{ redis.modules | selectattr('restart_pending') | map(attribute='name') }}"
"""

RETURN = r"""
host:
  description: What a binary depends on here.
  returned: always
  type: dict
  contains:
    architecture:
      description: As C(uname -m) prints it.
      type: str
      sample: x86_64
    libc:
      description: The C library and its version.
      type: str
      sample: glibc 2.36
    kernel:
      description: The release of the kernel.
      type: str
      sample: 6.1.0-18-amd64
    cores:
      description: Cores that a process here may use.
      type: int
      sample: 4
    online_cpus:
      description: The CPUs that the kernel runs on; empty where it does not tell.
      type: str
      sample: 0-3
    systemd:
      description: The version of systemd; 0 where it is not known.
      type: int
      sample: 252
server:
  description: The server itself.
  returned: always
  type: dict
  contains:
    installed_version:
      description: The version of the binary on disk; empty where there is none.
      type: str
      sample: 7.0.15
    service:
      description: State of the unit, as C(ActiveState) of systemd; C(not-found) where there is no such unit.
      type: str
      sample: active
    stopped:
      description: Whether there is such a unit and it does not run, by itself or as it failed.
      type: bool
    running:
      description: Whether a server answered.
      type: bool
    error:
      description: Why none answered; empty where one did.
      type: str
      sample: "127.0.0.1:6379: Connection refused"
    login_refused:
      description: Whether a server is there, but did not take the login.
      type: bool
    files:
      description:
        - The paths of the modules that the unit's process has mapped, and of those that redis.conf loads at the next
          start. They can be seen without a login.
      type: list
      elements: str
      sample: [/var/lib/redis/modules/sensorwindow.so]
    version:
      description: The version of the running server.
      type: str
      sample: 7.0.15
    configured:
      description: Whether its redis.conf was written by this collection.
      type: bool
    replicaof:
      description: >-
        The primary that it follows, as V(10.0.0.1 6379); of a server that does not answer, what its redis.conf says.
        Empty where it follows none, and in a cluster.
      type: str
    users:
      description: The names of its ACL users; V(null) where it has none or does not tell.
      type: list
      elements: str
      sample: [default, edgeops-probe]
    key_count:
      description: How many keys it holds, in all databases.
      type: int
      sample: 1200
    mode:
      description: V(standalone), V(sentinel) or V(cluster).
      type: str
      sample: standalone
    role:
      description: V(master) or V(slave), in the server's own words.
      type: str
      sample: master
    pid:
      description: Its process on this host; 0 where it runs on another host.
      type: int
      sample: 812
    uptime_seconds:
      description: How long it has been running.
      type: int
      sample: 86400
    used_memory_bytes:
      description: Memory from Redis' own allocator, which is what C(maxmemory) sees.
      type: int
      sample: 871304
    rss_bytes:
      description: Memory that the process holds; a module that allocates by itself shows here alone.
      type: int
      sample: 9420800
modules:
  description: The modules that the server reports, by name; the server's built-in ones too.
  returned: always
  type: list
  elements: dict
  contains:
    name:
      description: As MODULE LIST reports it.
      type: str
      sample: sensorwindow
    version:
      description: As MODULE LIST reports it.
      type: int
      sample: 20000
    built_in:
      description: Whether it is part of the server itself.
      type: bool
    path:
      description: Where it was loaded from; empty where neither the server nor O(paths) tells.
      type: str
      sample: /var/lib/redis/modules/sensorwindow.so
    args:
      description: The arguments it was loaded with; C(null) before Redis 7.0, which does not tell.
      type: list
      elements: str
      sample: ["retention-ms", "3600000"]
    sha256:
      description: Digest of the file on disk; empty where there is none.
      type: str
    live_sha256:
      description: Digest of the live image; empty where it can't be read.
      type: str
    owner:
      description: Owner of the file on disk.
      type: str
      sample: redis
    group:
      description: Group of the file on disk.
      type: str
      sample: redis
    mode:
      description: Mode of the file on disk.
      type: str
      sample: "0555"
    restart_pending:
      description: Whether the file on disk is another than the live image.
      type: bool
releases:
  description:
    - The releases of each module in O(folder), by the module's name, the one that a rollout placed last first. A file
      that is damaged is left out.
  returned: always
  type: dict
  contains:
    NAME:
      description: The releases of one module.
      type: list
      elements: dict
      contains:
        sha256:
          description: Digest of the file; its first digits name the release.
          type: str
        path:
          description: Where it lies.
          type: str
          sample: /var/lib/redis/modules/.releases/sensorwindow/3f2a9c01d4e5b677.so
        rolled_out:
          description: When a rollout placed it last, in UTC. Going back to it does not change that.
          type: str
          sample: "2026-11-23T02:55:08Z"
        size:
          description: Its size in bytes.
          type: int
        current:
          description: Whether it is the file in the module's place.
          type: bool
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _step_modules_info


def main() -> None:
    """Entry point."""
    _step_modules_info.run(AnsibleModule(**_step_modules_info.SPEC))


if __name__ == "__main__":
    main()
