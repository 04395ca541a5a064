# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of this collection have in common in their documentation."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments C(edgeops.redis_modules.redis) and its parts."""

    DOCUMENTATION = r"""
options:
  login_host:
    description: The address at which the host itself reaches its server.
    type: str
    default: 127.0.0.1
  login_port:
    description: The TCP port of the server.
    type: int
    default: 6379
  login_user:
    description:
      - The ACL user to log in as, on Redis 6.0 and later.
      - Without it, O(login_password) is that of the default user.
    type: str
  login_password:
    description: The password of O(login_user), or of C(requirepass).
    type: str
  login_current_password:
    description: The password until now, tried where O(login_password) is refused; for the run that changes it.
    type: str
  login_unix_socket:
    description: The path of a unix socket; with it, O(login_host) and O(login_port) are not used.
    type: path
  tls:
    description: Whether to speak TLS.
    type: bool
    default: false
  validate_certs:
    description: Whether the server's certificate must be valid.
    type: bool
    default: true
  ca_certs:
    description: The file with the certificate authorities to trust.
    type: path
  client_cert_file:
    description: The client's certificate, where the server asks for one.
    type: path
  client_key_file:
    description: The key of O(client_cert_file).
    type: path
  login_timeout:
    description: How many seconds to wait for the server to take a connection or to answer.
    type: float
    default: 5.0
requirements:
  - redis-py 3.5.3 or later on the host (the package C(python3-redis))
"""

    ATTRIBUTES = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and return the changed status prediction without modifying the host.
    support: full
  diff_mode:
    description: Returns details on what has changed, or would be changed in C(check_mode).
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode); it never changes anything.
    support: full
  diff_mode:
    description: There is nothing to show, as nothing changes.
    support: N/A
"""
