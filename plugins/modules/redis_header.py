#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Provide the redismodule.h that fits a host's server."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_header
short_description: Provide the redismodule.h that fits the server of a host
version_added: 0.1.0
description:
  - Takes the header out of the distribution's source package of the very version that is installed, as no binary
    package ships it; or takes one that is given.
  - What was fetched once is kept, by version.
author:
  - edgeops contributors (@edgeops)
options:
  src:
    description: A file on the host, or a URL, to use instead of the distribution's.
    type: str
  sha256:
    description: The digest that O(src) must have.
    type: str
  cache:
    description: Where headers are kept.
    type: path
    default: /var/cache/edgeops-redis-modules/headers
  binary:
    description: The path of redis-server on the host, whose version decides.
    type: path
    default: /usr/bin/redis-server
extends_documentation_fragment:
  - edgeops.redis_modules.redis.attributes
"""

EXAMPLES = r"""
- name: Have the header of this host's own Redis
  edgeops.redis_modules.redis_header:
  register: header

- name: Use one of our own
  edgeops.redis_modules.redis_header:
    src: https://files.example.com/redismodule-7.2.4.h
    sha256: 0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
"""

RETURN = r"""
path:
  description: Where the header lies; empty in check mode where it would have to be fetched.
  returned: success
  type: str
  sample: /var/cache/edgeops-redis-modules/headers/7.0.15/redismodule.h
sha256:
  description: Its digest; empty in check mode where it would have to be fetched.
  returned: success
  type: str
version:
  description: The version of the server; empty in check mode where Redis is not installed yet.
  returned: success
  type: str
  sample: 7.0.15
"""

import os
import shutil
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _header, _host, _release


def given(src: str) -> bytes:
    """Return a header from a path on the host or a URL. Raises OSError and HeaderError."""
    if "://" in src:
        content: bytes = open_url(src, timeout=30).read()
    else:
        with open(src, "rb") as stream:
            content = stream.read()
    if b"RedisModule_" not in content:
        raise _header.HeaderError(f"{src} is no redismodule.h")
    return content


def store(content: bytes, folder: str) -> str:
    """Write the header into its folder of the cache and return its path. Raises OSError."""
    # A module of Redis' own tree includes "../redismodule.h"; the folder modules/ answers that.
    _release.make_folders(os.path.join(folder, "modules"))
    target = os.path.join(folder, _header.HEADER)
    with tempfile.NamedTemporaryFile(dir=folder) as stream:
        stream.write(content)
        stream.flush()
        _release.replace(stream.name, target, 0, 0, 0o644)
    return target


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "src": {"type": "str"},
            "sha256": {"type": "str"},
            "cache": {"type": "path", "default": "/var/cache/edgeops-redis-modules/headers"},
            "binary": {"type": "path", "default": "/usr/bin/redis-server"},
        },
        required_by={"src": "sha256", "sha256": "src"},
        supports_check_mode=True,
    )
    params = module.params
    if params["sha256"]:
        params["sha256"] = params["sha256"].lower()
    version = _host.server_version(module.run_command, params["binary"])
    if not version:
        if module.check_mode:
            module.exit_json(changed=True, path="", sha256="", version="")
        module.fail_json(msg=f"there is no redis-server at {params['binary']}, so no header fits; install Redis first")
    folder = os.path.join(params["cache"], _header.given_name(params["sha256"]) if params["src"] else version)
    path = os.path.join(folder, _header.HEADER)
    found = _host.file_state(path)
    if found and params["sha256"] in (None, found.sha256):
        module.exit_json(changed=False, path=path, sha256=found.sha256, version=version)
    if module.check_mode:
        module.exit_json(changed=True, path="", sha256="", version=version)
    work = tempfile.mkdtemp(prefix="redis-header-")
    try:
        if params["src"]:
            content = given(params["src"])
        elif shutil.which("apt-get"):
            content = _header.from_debian(module.run_command, version, work)
        elif shutil.which("dnf"):
            content = _header.from_redhat(module.run_command, version, work)
        else:
            raise _header.HeaderError("this host has neither apt-get nor dnf")
        path = store(content, folder)
    except (_header.HeaderError, OSError) as error:
        module.fail_json(msg=f"no redismodule.h for Redis {version}: {error}. To mend it, {_header.MEND}")
    finally:
        shutil.rmtree(work, ignore_errors=True)
    digest = _host.sha256_of(path)
    if params["sha256"] and digest != params["sha256"]:
        os.unlink(path)
        module.fail_json(
            msg=f"{params['src']} has the digest {digest}, wanted is {params['sha256']}; correct the one that is wrong"
        )
    module.exit_json(changed=True, path=path, sha256=digest, version=version)


if __name__ == "__main__":
    main()
