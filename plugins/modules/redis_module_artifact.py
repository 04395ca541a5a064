#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Have modules' artifacts on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_module_artifact
short_description: Have modules' artifacts on a host, built from sources or taken as they are
version_added: 0.1.0
description:
  - From the entries of C(redis_modules), leaves each module's .so and a C(manifest.json) in a cache on the host and
    returns where. Nothing outside the cache is touched. All modules of a host are one call.
  - The role P(edgeops.redis_modules.redis_build#role) puts its three steps together - V(look) tells what a
    host has, V(build) makes on one machine what others lack and brings it to the controller's cache, V(lay) takes it
    to a host.
  - It is built again only when an input changes, judged by digest - any source or header, a flag, the compiler, the C
    library, the server's header - and never by time stamps. The same inputs give the same bytes.
  - Sources and artifacts with a relative path are looked for beside the inventory, in the playbook's folder and in the
    current folder of the controller, in this order. They are sent, in one transfer, only where they are needed.
author:
  - edgeops contributors (@edgeops)
options:
  step:
    description: What to do.
    type: str
    choices: [look, build, lay]
    required: true
  modules:
    description:
      - The modules, as the filter P(edgeops.redis_modules.declared_modules#filter) returns them; those with
        C(state=absent) are left out.
      - With O(step=build), the jobs of the plan.
    type: list
    elements: dict
    default: []
  header:
    description:
      - The path of the redismodule.h to build with, on the machine that builds. A copy in a module's own sources
        goes before it.
      - Empty for that of the host's own server version in O(cache), as M(edgeops.redis_modules.redis_header) leaves it.
    type: str
    default: ""
  header_sha256:
    description: The digest of a header that was given, under which O(cache) keeps it.
    type: str
    default: ""
  binary:
    description: The server whose version decides which header fits.
    type: path
    default: /usr/bin/redis-server
  cache:
    description: Where artifacts are kept on the host.
    type: path
    default: /var/cache/edgeops-redis-modules
  controller_cache:
    description: Where artifacts are kept on the controller.
    type: str
    default: ~/.cache/edgeops-redis-modules
  cc:
    description: The C compiler.
    type: str
    default: gcc
  keep:
    description: How many artifacts of each module and platform to keep in a cache.
    type: int
    default: 5
  of:
    description: With O(step=look) at a builder, what was seen of the hosts that it is to build for.
    type: list
    elements: dict
  on_controller:
    description: Whether the controller itself is looked at as well, with O(step=look), or builds, with O(step=build).
    type: bool
    default: false
  share:
    description: With O(step=lay), the host's share of the plan.
    type: dict
  seen:
    description: With O(step=lay), what the host's look told.
    type: dict
  made:
    description: With O(step=lay), what the builder's work came to.
    type: dict
  header_name:
    description: With O(step=build), what O(header_content) is called.
    type: str
    default: ""
  header_content:
    description: With O(step=build), a redismodule.h to bring to the machine that builds, in base64.
    type: str
    default: ""
  _sources:
    description: The action's own - digests of the sources of each module.
    type: dict
  _headers:
    description: The action's own - the headers to look for.
    type: list
    elements: str
  _content:
    description: The action's own - what it sends, in base64.
    type: str
  _archive:
    description: The action's own - where it put what it sent.
    type: path
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
attributes:
  diff_mode:
    description: There is nothing to show but the artifact's name.
    support: none
  action:
    description: Part of it runs on the controller.
    support: full
"""

EXAMPLES = r"""
- name: Look at what a host has
  edgeops.redis_modules.redis_module_artifact:
    step: look
    modules: "{{ redis_modules | edgeops.redis_modules.declared_modules('/var/lib/redis/modules') }}"
  register: seen

- name: Build what the plan asks this host for
  edgeops.redis_modules.redis_module_artifact:
    step: build
    modules: "{{ plan[inventory_hostname].jobs }}"
  register: made

- name: Lay what this host lacks
  edgeops.redis_modules.redis_module_artifact:
    step: lay
    share: "{{ plan[inventory_hostname] }}"
    seen: "{{ seen }}"
    made: "{{ hostvars[plan[inventory_hostname].leader].made }}"
"""

RETURN = r"""
platform:
  description: Architecture and C library of the host.
  returned: with O(step=look)
  type: dict
redis:
  description: The version of the host's server; empty where there is none.
  returned: with O(step=look)
  type: str
compiler:
  description: The first line of C(gcc --version); empty where there is no compiler.
  returned: with O(step=look)
  type: str
headers:
  description: Name, path and digest of each redismodule.h that was looked for.
  returned: with O(step=look)
  type: dict
wanted:
  description: What the host's modules are made of.
  returned: with O(step=look)
  type: list
  elements: dict
held:
  description: What the controller's cache has for the host's modules, by name.
  returned: with O(step=look)
  type: dict
controller:
  description: What was seen of the controller.
  returned: with O(step=look), where O(on_controller) is set
  type: dict
artifacts:
  description: >-
    With O(step=look), the whole artifacts in the cache, by the module's name. With O(step=lay), path and digest of
    each module's artifact by its name; both are empty in check mode where it would have to be built or sent.
  returned: with O(step=look) and O(step=lay)
  type: dict
made:
  description: What became of each job.
  returned: with O(step=build)
  type: list
  elements: dict
  contains:
    name:
      description: The module.
      type: str
    request:
      description: What was asked for.
      type: str
    inputs:
      description: Digest over all that it was made of; empty where it could not be made.
      type: str
    fault:
      description: Why it could not be made.
      type: str
    manifest:
      description: What the artifact was made of and what it needs.
      returned: success
      type: dict
      contains:
        name:
          description: The module.
          type: str
        sha256:
          description: Digest of the artifact.
          type: str
        size:
          description: Its size in bytes.
          type: int
        inputs:
          description: Digest over all that it was made of.
          type: str
        origin:
          description: V(src), V(make) or V(artifact).
          type: str
        source_digest:
          description: Digest over the sources; that of the artifact itself where it was built elsewhere.
          type: str
        header_sha256:
          description: Digest of the redismodule.h it was built with; empty where that is not known.
          type: str
        compiler:
          description: The first line of C(gcc --version); empty where it was built elsewhere.
          type: str
        commands:
          description: The commands that built it.
          type: list
          elements: list
        platform:
          description: Architecture and C library of the host that built it.
          type: dict
        architecture:
          description: What the ELF file is for.
          type: str
        needed:
          description: The shared libraries it asks for.
          type: list
          elements: str
        glibc:
          description: The oldest glibc it can run with.
          type: str
        executable_stack:
          description: Whether it asks for a stack that is executable.
          type: bool
        text_relocations:
          description: Whether its code is changed while it is loaded.
          type: bool
        nodelete:
          description: Whether MODULE UNLOAD leaves its code in the process.
          type: bool
        allocators:
          description: The functions by which it asks the system for memory, which maxmemory does not see.
          type: list
          elements: str
compiler_output:
  description: What the compiler said, warnings above all.
  returned: with O(step=build)
  type: list
  elements: str
"""

import base64
import os
import shutil
import tempfile
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.urls import open_url

from ansible_collections.edgeops.redis_modules.plugins.module_utils import (
    _build,
    _elf,
    _step_module_artifact,
    _workshop,
)


def bring(module: AnsibleModule, folder: str) -> None:
    """Unpack what the controller has sent. Raises one of DAMAGES."""
    content = base64.b64decode(module.params["_content"] or "")
    if module.params["_archive"]:
        with open(module.params["_archive"], "rb") as stream:
            content = stream.read()
    if content:
        _build.unpack(content, folder)


def build(module: AnsibleModule, workshop: _workshop.Workshop, folder: str) -> dict[str, Any]:
    """Make what was asked for; what can't be made is told, and keeps nothing else from being made."""
    made = workshop.make(module.params["modules"], folder, module.params["keep"])
    for line in made.warnings:
        module.warn(line)
    return {"changed": made.changed, "made": made.items, "compiler_output": made.said, "_content": made.packed()}


def lay(module: AnsibleModule, workshop: _workshop.Workshop, folder: str) -> dict[str, Any]:
    """Take in what was made elsewhere. Raises BuildError, with a line for each module that can't be."""

    def download(url: str) -> str:
        """Return a local copy of what a URL names. Raises OSError."""
        descriptor, path = tempfile.mkstemp(dir=module.tmpdir)
        with os.fdopen(descriptor, "wb") as stream:
            shutil.copyfileobj(open_url(url, timeout=30), stream)
        return str(path)

    artifacts, changed, faults = {}, False, []
    for piece in module.params["modules"]:
        try:
            manifest, new = workshop.lay(piece, folder, download, module.params["keep"])
        except _workshop.DAMAGES as error:
            # Of all modules at once, so that one run tells all that is to be mended.
            faults.append(f"module {piece['name']}: {error}")
            continue
        artifacts[piece["name"]] = workshop.told(manifest)
        changed = changed or new
    if faults:
        raise _build.BuildError("\n".join(faults))
    return {"changed": changed, "artifacts": artifacts}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "step": {"type": "str", "choices": ["look", "build", "lay"], "required": True},
            "modules": {"type": "list", "elements": "dict", "default": []},
            "header": {"type": "str", "default": ""},
            "header_sha256": {"type": "str", "default": ""},
            "controller_cache": {"type": "str", "default": "~/.cache/edgeops-redis-modules"},
            "keep": {"type": "int", "default": 5},
            # The action's alone; the host hears of them by what follows.
            "of": {"type": "list", "elements": "dict"},
            "on_controller": {"type": "bool", "default": False},
            "share": {"type": "dict"},
            "seen": {"type": "dict"},
            "made": {"type": "dict"},
            "header_name": {"type": "str", "default": ""},
            "header_content": {"type": "str", "default": ""},
            **_step_module_artifact.LOOK_ARGUMENTS,
            # Given by the action: what it sends; not secret, but nothing for a log either.
            "_content": {"type": "str", "no_log": True},
            "_archive": {"type": "path"},
        },
        supports_check_mode=True,
    )
    workshop = _workshop.Workshop(module.run_command, module.params["cache"], module.params["cc"])
    if module.params["step"] == "look":
        module.exit_json(**_step_module_artifact.look(module))
    if _elf.ELFTOOLS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("pyelftools"), exception=_elf.ELFTOOLS_IMPORT_ERROR)
    folder = tempfile.mkdtemp(dir=module.tmpdir)
    try:
        bring(module, folder)
        if module.params["step"] == "build":
            if module.params["header_name"]:
                workshop.keep_header(module.params["header_name"], os.path.join(folder, _workshop.BROUGHT_HEADER))
            result = build(module, workshop, folder)
        else:
            result = lay(module, workshop, folder)
    except _workshop.DAMAGES as error:
        module.fail_json(msg=str(error))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        # It would come back with the answer.
        module.params["_content"] = None
    module.exit_json(**result)


if __name__ == "__main__":
    main()
