#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lay a fleet's repository out for sites that pull."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_repository
short_description: Lay a fleet's repository out for sites that pull
version_added: 0.1.0
description:
  - Packs the collection, drops artifacts that are over, and writes C(edgeops.json), by which a site knows what it needs
    and with which digests. It neither commits nor signs.
  - It runs where the repository's working tree is, so with C(delegate_to=localhost).
author:
  - edgeops contributors (@edgeops)
options:
  path:
    description: The working tree of the repository.
    type: path
    required: true
  branch:
    description: The branch that it is for. A site that follows another one refuses it.
    type: str
    default: main
  collection:
    description: The folder of the installed collection to carry.
    type: path
    required: true
  artifacts:
    description:
      - What was built now, as P(edgeops.redis_modules.published_artifact#filter) tells it. Artifacts of platforms for
        which nothing was built now stay.
    type: list
    elements: dict
    default: []
  also:
    description: Further folders of the repository that sites need, beside C(inventory).
    type: list
    elements: str
    default: []
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
attributes:
  check_mode:
    description: Nothing of what it would lay out is there in check mode.
    support: none
  diff_mode:
    description: C(git diff) shows it.
    support: none
"""

EXAMPLES = r"""
- name: Lay the repository out
  edgeops.redis_modules.redis_repository:
    path: /srv/fleet
    collection: /usr/share/ansible/collections/ansible_collections/edgeops/redis_modules
    artifacts: "{{ built }}"
  delegate_to: localhost
"""

RETURN = r"""
artifacts:
  description: All artifacts that the manifest names.
  returned: success
  type: list
  elements: dict
removed:
  description: Files of artifacts that were over, relative to the repository.
  returned: success
  type: list
  elements: str
"""

import json
import os

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _host, _publish, _pull


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "branch": {"type": "str", "default": "main"},
            "collection": {"type": "path", "required": True},
            "artifacts": {"type": "list", "elements": "dict", "default": []},
            "also": {"type": "list", "elements": "str", "default": []},
        }
    )
    folder = module.params["path"]
    target = os.path.join(folder, _pull.MANIFEST)
    before = _host.read_text(target)
    try:
        artifacts = _publish.merged(json.loads(before or "{}").get("artifacts", []), module.params["artifacts"])
        packed_in = os.path.join(folder, _publish.COLLECTION)
        name, changed = _publish.pack_collection(module.params["collection"], packed_in)
        told = {"path": f"{_publish.COLLECTION}/{name}", "sha256": _host.sha256_of(os.path.join(packed_in, name))}
        for artifact in artifacts:
            if _host.sha256_of(os.path.join(folder, artifact["path"])) != artifact["sha256"]:
                raise _publish.PublishError(f"{artifact['path']} is not what was built; run again")
        wheels = _publish.wheel_sets(folder)
        text = _publish.manifest(module.params["branch"], told, artifacts, wheels, module.params["also"])
        removed = _publish.surplus(folder, artifacts)
        for path in removed:
            os.unlink(os.path.join(folder, path))
        if text != before:
            _pull.write_whole(target, text)
    except (_publish.PublishError, OSError, ValueError) as error:
        module.fail_json(msg=f"the repository {folder} can't be laid out: {error}")
    module.exit_json(changed=changed or text != before or bool(removed), artifacts=artifacts, removed=removed)


if __name__ == "__main__":
    main()
