#!/usr/bin/python
# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Let a primary hand its role to one of its replicas, without losing a write that was acknowledged."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_handover
short_description: Let a primary hand its role to one of its replicas without losing a write
version_added: 0.1.0
description:
  - Runs on the host of the primary. The replica that is to take over has to be in sync; where it is not, nothing
    happens.
  - Ends well only once the heir says that it is the primary, and this server follows it with the link up.
  - Which way the role goes, the server itself decides. A node of a cluster has C(CLUSTER FAILOVER) sent to the heir. A
    server that Sentinels watch goes by C(SENTINEL FAILOVER). Any other has C(FAILOVER), from Redis 6.2 on; an older one
    is refused, as there is no way without loss.
  - Sentinel by itself promotes a replica while the old primary still takes writes, and those are lost. So writes are
    held back here until the heir has every byte of them and is promoted, and this server follows it at once. From Redis
    6.2 on they wait (C(CLIENT PAUSE)), and the primary sends its replicas no PING of its own either
    (C(repl-ping-replica-period)), so that it can follow without a full sync. Before, they are refused for that moment
    (C(min-replicas-to-write), then C(REPLICAOF)), so writers get the errors C(NOREPLICAS) and C(READONLY).
  - Sentinel chooses by C(replica-priority). Where another replica might be chosen, the heir gets the priority 1 until
    the end, and Sentinel needs up to ten seconds to hear of it. Writes go on meanwhile.
  - Clients that ask Sentinel learn of the new primary once it has heard of it, about half a second after writes were
    held back; those that ask the one Sentinel that fails over by C(SENTINEL MASTERS), as redis-py does, about one and a
    half.
  - Outside of a cluster, both servers are told to C(CONFIG REWRITE), so that a restart brings neither back in its
    former role. So hand over before a changed redis.conf is put in place, or its changes are undone in the file.
  - Other replicas follow the new primary by Sentinel's or the cluster's own doing. With C(FAILOVER) they go on
    following this server, and have all data through it.
author:
  - edgeops contributors (@edgeops)
options:
  to:
    description: The addresses of the heir's host; that one is used under which this server knows it.
    type: list
    elements: str
    required: true
  to_port:
    description: The port of the heir's server, which is also the one that this server knows it by.
    type: int
    required: true
  timeout:
    description: How many seconds the heir may take to be in sync, and then the handover.
    type: int
    default: 30
  longest_pause:
    description:
      - How many milliseconds writes may be held back until the heir has all of them; then it is given up and nothing
        has changed.
      - What Sentinel was told can't be taken back. Once it was, writes are held back until the heir is promoted or
        Sentinel has given up.
    type: int
    default: 1000
  sentinel_username:
    description: The ACL user of the Sentinels; the servers' own login is not used there.
    type: str
  sentinel_password:
    description: The password of the Sentinels.
    type: str
  conf_path:
    description: Where the server's redis.conf lies, for the name of CONFIG where it is renamed; the heir's is the same.
    type: path
    default: /etc/redis/redis.conf
extends_documentation_fragment:
  - edgeops.redis_modules.redis
  - edgeops.redis_modules.redis.attributes
attributes:
  check_mode:
    description: Says by which way the role would go, once all that can be looked at before is in order.
  diff_mode:
    description: There is nothing to show but who is the primary.
    support: none
"""

EXAMPLES = r"""
- name: Let the replica on 192.0.2.12 take over
  edgeops.redis_modules.redis_handover:
    to: [192.0.2.12]
    to_port: 6379
    login_password: "{{ vaulted_password }}"
"""

RETURN = r"""
command:
  description: The way that the role went, or would go in check mode; empty where nothing had to be done.
  returned: success
  type: str
  choices: ["", CLUSTER FAILOVER, SENTINEL FAILOVER, FAILOVER]
primary:
  description: Whom this server follows now, in a cluster too, as C(ADDRESS PORT); empty in check mode.
  returned: success, and where an error tells that it is another one now
  type: str
  sample: 192.0.2.12 6379
paused_ms:
  description: How many milliseconds no server took writes, at most, as measured here.
  returned: success
  type: int
  sample: 180
msg:
  description: What was done, in a sentence.
  returned: always
  type: str
"""

import contextlib
import signal
import time
from typing import Any, Iterator, Mapping

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _client, _conf, _handover, _topology

HELLO_SECONDS = 5.0
"""Each Sentinel says hello every two seconds."""

POLL_SECONDS = 0.01

ACKNOWLEDGED_SECONDS = 1.0
SHORTLY_BEFORE = 0.1
"""A replica acknowledges what it has each second; what this process does takes a moment as well."""

CALM_SECONDS = 12.0
"""Sentinel asks a replica for news every ten seconds."""

HOLD_MS = 10000
"""For how long writes are held back at a time once Sentinel is told: a stalled machine must not let one through."""

MARGIN_SECONDS = 10
"""How much longer than its failover-timeout Sentinel may take to give up."""

NEVER = str((1 << 31) - 1)
"""More replicas than any primary has, and seconds than any handover takes."""


def replication(client: _client.Client) -> dict[str, str]:
    """Return INFO replication. Raises ServerError."""
    return _client.parse_info(client.call("INFO", "replication"))


def milliseconds(since: float) -> int:
    """Return how long ago that moment of the monotonic clock is."""
    return round((time.monotonic() - since) * 1000)


class Handover:
    """The handover of one server's role to its heir."""

    def __init__(self, params: Mapping[str, Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.config = _conf.renamed_command(_conf.directives_of(params["conf_path"]), "CONFIG")
        self.here = _client.connect(params, self.config)
        self.info = self.here.info()
        self.address = params["to"][0]
        self.paused_ms = 0

    @property
    def where(self) -> str:
        """The heir, as C(ADDRESS PORT)."""
        return f"{self.address} {self.params['to_port']}"

    def run(self) -> dict[str, Any]:
        """Do it, or nothing where it is done. Raises HandoverError and ServerError."""
        followed = _handover.primary_of(self.info)
        if followed:
            return self.done_before(followed)
        sentinels = int(self.here.call("PUBSUB", "NUMSUB", _topology.HELLO_CHANNEL)[1])
        command = _handover.way(self.info, sentinels)
        if not command:
            raise _handover.HandoverError(
                f"Redis {self.info.get('redis_version')} has no way to hand over without loss, without Sentinel or a "
                "cluster (FAILOVER comes with 6.2). Stop its writers, wait until the replica has all data, then send "
                "REPLICAOF NO ONE to the replica and REPLICAOF to this server"
            )
        self.address = _handover.heir_in(_topology.parse_replicas(self.info), self.params["to"], self.params["to_port"])
        if command == _topology.CLUSTER_FAILOVER:
            nodes = _topology.parse_nodes(str(_client.text(self.here.call("CLUSTER", "NODES"))))
            myself = str(_client.text(self.here.call("CLUSTER", "MYID")))
            _handover.refuse_node(nodes, myself, self.params["to"], self.params["to_port"])
        heir = self.connect_heir()
        watch = SentinelWatch(self, heir, sentinels) if command == _topology.SENTINEL_FAILOVER else None
        if self.check_mode:
            return self.result(command, "", f"{self.where} would take over by {command}")
        self.catch_up(heir)
        if watch:
            watch.hand_over()
        else:
            self.hand_over(heir, command)
        self.prove(heir)
        forgotten = "" if command == _topology.CLUSTER_FAILOVER else self.remember(heir)
        message = f"{self.where} took over by {command}, and this server follows it{forgotten}"
        return self.result(command, self.where, message)

    def result(self, command: str, primary: str, message: str) -> dict[str, Any]:
        """Return the result of a module that changed, or would change, something."""
        return {
            "changed": True,
            "command": command,
            "primary": primary,
            "paused_ms": self.paused_ms,
            "msg": message,
        }

    # Before

    def done_before(self, followed: str) -> dict[str, Any]:
        """Return the result where this server is no primary. Raises HandoverError where that is not as wanted."""
        if not _handover.is_one_of(followed, self.params["to"], self.params["to_port"]):
            raise _handover.HandoverError(
                f"this server is no primary, it follows {followed}; hand over on that host, or leave it as it is",
                primary=followed,
            )
        self.address = followed.split(maxsplit=1)[0]
        if not _handover.link_up(self.info):
            raise _handover.HandoverError(
                f"this server follows {followed} already, but the link is down; its log says why", primary=followed
            )
        message = f"this server follows {followed} already"
        return {**self.result("", followed, message), "changed": False}

    def connect_heir(self) -> _client.Client:
        """Return a connection to the heir, and see that this server will be let in as well. Raises ServerError."""
        place = {"login_host": self.address, "login_port": self.params["to_port"], "login_unix_socket": None}
        heir = _client.connect({**self.params, **place}, self.config)
        role = replication(heir)
        if not _handover.primary_of(role) or not _handover.link_up(role):
            raise _handover.HandoverError(f"{self.where} is no replica that is in sync, by its own word")
        stranger = {"login_user": None, "login_password": None, "login_current_password": None}
        with contextlib.closing(_client.connect({**self.params, **place, **stranger})) as client:
            try:
                client.call("PING")
            except _client.ServerError as error:
                if "NOAUTH" in str(error) and self.here.config_command and not self.setting("masterauth"):
                    raise _handover.HandoverError(
                        f"{self.where} asks for a password, and this server has no masterauth to follow it; set it"
                    ) from error
        return heir

    def setting(self, name: str) -> str:
        """Return a setting of this server. Raises ServerError."""
        return str(_client.text(_client.pairs(self.here.call(self.here.config_command, "GET", name)).get(name, "")))

    def catch_up(self, heir: _client.Client) -> None:
        """Wait until the heir has all that was written until now. Raises HandoverError."""
        self.await_offset(heir, _handover.offset(replication(self.here)), time.monotonic() + self.params["timeout"])

    def await_offset(self, heir: _client.Client, wanted: int, end: float) -> None:
        """Wait until the heir is as far as that in the stream. Raises HandoverError at I(end)."""
        while True:
            its = _handover.offset(replication(heir))
            if its >= wanted:
                return
            if time.monotonic() > end:
                raise _handover.HandoverError(
                    f"{self.where} does not keep up: it lacks {wanted - its} bytes. Nothing was changed; "
                    "try again at a calmer time, or look at its load and its network"
                )
            time.sleep(POLL_SECONDS)

    # The role

    def hand_over(self, heir: _client.Client, command: str) -> None:
        """Have the server or the cluster do it. Raises HandoverError."""
        if command == _topology.FAILOVER:
            self.await_acknowledgement()
        begun = time.monotonic()
        with self.said(heir, "the handover was refused or cut off"):
            if command == _topology.CLUSTER_FAILOVER:
                heir.call("CLUSTER", "FAILOVER")
            else:
                where = (self.address, str(self.params["to_port"]))
                self.here.call("FAILOVER", "TO", *where, "TIMEOUT", str(self.params["longest_pause"]))
            while _handover.primary_of(replication(heir)):
                under_way = command == _topology.CLUSTER_FAILOVER or self.in_failover()
                if not under_way and _handover.primary_of(replication(heir)):
                    raise self.error(
                        heir, f"the server gave up after {milliseconds(begun)} ms: {self.where} lagged behind"
                    )
                if time.monotonic() > begun + self.params["timeout"]:
                    raise self.error(heir, f"{self.where} was not promoted within {self.params['timeout']} s")
                time.sleep(POLL_SECONDS)
        self.paused_ms = milliseconds(begun)

    def await_acknowledgement(self) -> None:
        """Wait for the moment at which FAILOVER takes least.

        It goes by what the heir has acknowledged, which it does each second, and can't be asked to while writes wait.
        """
        end = time.monotonic() + 2 * ACKNOWLEDGED_SECONDS
        former = None
        while time.monotonic() < end:
            info = replication(self.here)
            told = _handover.acknowledged(_topology.parse_replicas(info), self.where)
            if told >= _handover.offset(info):
                return
            if former is not None and told != former:
                time.sleep(ACKNOWLEDGED_SECONDS - SHORTLY_BEFORE)
                return
            former = told
            time.sleep(POLL_SECONDS)

    def in_failover(self) -> bool:
        """Whether FAILOVER is under way."""
        return replication(self.here).get("master_failover_state", "no-failover") != "no-failover"

    # After

    def prove(self, heir: _client.Client) -> None:
        """Wait until both servers say that they have their new roles. Raises HandoverError."""
        end = time.monotonic() + self.params["timeout"]
        with self.said(heir, "it can't be proved"):
            while True:
                mine, its = replication(self.here), replication(heir)
                here = _handover.primary_of(mine)
                if its.get("role") == "master" and here == self.where and _handover.link_up(mine):
                    return
                if time.monotonic() > end:
                    raise self.error(heir, f"not all is well {self.params['timeout']} s after the handover")
                time.sleep(POLL_SECONDS * 5)

    def remember(self, heir: _client.Client) -> str:
        """Have both servers write their roles to redis.conf; return what to say of those that did not."""
        forgetful = []
        for what, client in (("this server", self.here), (self.where, heir)):
            try:
                client.call(client.config_command or "CONFIG", "REWRITE")
            except _client.ServerError:
                forgetful.append(what)
        if not forgetful:
            return ""
        return f"; CONFIG REWRITE failed for {' and '.join(forgetful)}, whose redis.conf still says what was before"

    def error(self, heir: _client.Client, why: str) -> _handover.HandoverError:
        """Return an error that says who is the primary now."""
        mine, its = self.seen(self.here), self.seen(heir)
        primary = self.where if its is not None and not _handover.primary_of(its) else ""
        told = f"{why}. {_handover.standing(mine, its, self.where)}"
        return _handover.HandoverError(told, changed=bool(primary), primary=primary)

    def seen(self, client: _client.Client) -> dict[str, str] | None:
        """Return INFO replication; None where there is no answer."""
        try:
            return replication(client)
        except _client.ServerError:
            return None

    @contextlib.contextmanager
    def said(self, heir: _client.Client, what: str) -> Iterator[None]:
        """Raise a server's error as one that says who is the primary now."""
        try:
            yield
        except _client.ServerError as error:
            raise self.error(heir, f"{what}: {_client.without_command(error)}") from error


class SentinelWatch:
    """The Sentinels that watch the server, and the handover by them."""

    def __init__(self, handover: Handover, heir: _client.Client, count: int) -> None:
        self.handover = handover
        self.params = handover.params
        self.here = handover.here
        self.heir = heir
        hellos = self.hellos(count)
        self.name = _handover.name_of(hellos)
        self.sentinels = self.reached(hellos)
        self.chief = self.sentinels[0]
        self.refuse()

    # Before

    def hellos(self, count: int) -> list[_handover.Hello]:
        """Return what the Sentinels say of themselves. Raises HandoverError and ServerError."""
        found: dict[str, _handover.Hello] = {}
        with contextlib.closing(_client.connect(self.params)) as ear:
            for message in ear.heard(_topology.HELLO_CHANNEL, HELLO_SECONDS):
                hello = _handover.parse_hello(message)
                if hello:
                    found[hello.run_id] = hello
                if len(found) >= count:
                    break
        if not found:
            raise _handover.HandoverError(
                f"{count} Sentinels watch this server, but none was heard within {HELLO_SECONDS:g} s"
            )
        return list(found.values())

    def reached(self, hellos: list[_handover.Hello]) -> list[_client.Client]:
        """Return connections to the Sentinels. Raises HandoverError where a majority can't be reached."""
        found, refused = [], []
        login = {
            "login_user": self.params["sentinel_username"],
            "login_password": self.params["sentinel_password"],
            "login_current_password": None,
            "login_unix_socket": None,
        }
        # The one that fails over is the last to tell some clients (SENTINEL MASTERS), and most ask in this order.
        for hello in sorted(hellos, reverse=True):
            try:
                client = _client.connect(
                    {**self.params, **login, "login_host": hello.address, "login_port": hello.port}
                )
                client.call("PING")
                found.append(client)
            except _client.ServerError as error:
                refused.append(str(error))
        if len(found) * 2 <= len(hellos):
            raise _handover.HandoverError(
                f"this host reaches {len(found)} of {len(hellos)} Sentinels, which is no majority: {'; '.join(refused)}"
            )
        return found

    def refuse(self) -> None:
        """Raise HandoverError where Sentinel could not fail over to the heir."""
        try:
            self.chief.call("SENTINEL", "CKQUORUM", self.name)
        except _client.ServerError as error:
            raise _handover.HandoverError(f"Sentinel could not fail over: {_client.without_command(error)}") from error
        if _client.parse_info(self.chief.call("INFO", "sentinel")).get("sentinel_tilt", "0") != "0":
            raise _handover.HandoverError("Sentinel is in TILT mode and does nothing for now; try again in a minute")
        primary = self.settled_primary()
        run_id = self.handover.info.get("run_id")
        if primary.get("runid") != run_id:
            raise _handover.HandoverError(
                f"Sentinel takes {primary.get('ip')} {primary.get('port')} for the primary {self.name}, and that is "
                "not this server"
            )
        replicas = self.replicas()
        trouble = _handover.sentinel_trouble(primary, _handover.entry_of(replicas, self.handover.where))
        if trouble:
            raise _handover.HandoverError(f"Sentinel would not promote {self.handover.where}: {trouble}")
        if not _handover.comes_first(replicas, self.handover.where):
            _handover.refuse_priority(replicas, self.handover.where)
            if not self.heir.config_command:
                raise _handover.HandoverError(
                    f"CONFIG is renamed away, so {self.handover.where} can't be made Sentinel's first choice; "
                    "give it a lower replica-priority than the others have"
                )

    def settled_primary(self) -> dict[str, str]:
        """Return what Sentinel knows of the primary, once a failover of before is over for it. Raises ServerError."""
        end = time.monotonic() + CALM_SECONDS
        while True:
            primary = self.primary()
            if _handover.is_settled(primary) or time.monotonic() > end:
                return primary
            time.sleep(POLL_SECONDS * 2)

    def primary(self) -> dict[str, str]:
        """Return what Sentinel knows of this server. Raises ServerError."""
        return _handover.tables([self.chief.call("SENTINEL", "MASTER", self.name)])[0]

    def replicas(self) -> list[dict[str, str]]:
        """Return what Sentinel knows of the replicas. Raises ServerError."""
        word = "REPLICAS" if _handover.version(self.handover.info) >= (5,) else "SLAVES"
        return _handover.tables(self.chief.call("SENTINEL", word, self.name))

    # The role

    def hand_over(self) -> None:
        """Make the heir Sentinel's first choice and the primary. Raises HandoverError and ServerError."""
        # It is a way to ask for permission: a primary that follows nobody goes on following nobody.
        self.here.call(*self.follow_words("NO", "ONE"))
        if _handover.comes_first(self.replicas(), self.handover.where):
            return self.promote()
        config = self.heir.config_command
        former = _client.text(_client.pairs(self.heir.call(config, "GET", PRIORITY))[PRIORITY])
        self.heir.set(PRIORITY, str(_handover.FIRST_CHOICE))
        try:
            return self.promote()
        finally:
            with self.handover.said(self.heir, f"{PRIORITY} of {self.handover.where} was {former}, set it back"):
                self.heir.set(PRIORITY, former)
            # Sentinel has it write its redis.conf as it promotes it, with the priority of the moment.
            if not _handover.primary_of(replication(self.heir)):
                with contextlib.suppress(_client.ServerError):
                    self.heir.call(config, "REWRITE")

    def await_calm(self) -> None:
        """Wait until Sentinel knows that the heir comes first, and for the moment at which clients wait least."""
        end = time.monotonic() + CALM_SECONDS
        while True:
            replicas = self.replicas()
            first = _handover.comes_first(replicas, self.handover.where)
            if first and _handover.is_calm(_handover.age(_handover.entry_of(replicas, self.handover.where))):
                return
            if time.monotonic() > end:
                if first:
                    return
                raise _handover.HandoverError(
                    f"Sentinel has not heard in {CALM_SECONDS:g} s that {self.handover.where} comes first. "
                    "Nothing was changed"
                )
            time.sleep(POLL_SECONDS * 2)

    def promote(self) -> None:
        """Hold writes back, have Sentinel promote the heir, and follow. Raises HandoverError."""
        self.await_calm()
        hold = Pause(self) if _handover.version(self.handover.info) >= _topology.FAILOVER_SINCE else Refusal(self)
        with uninterrupted(), self.handover.said(self.heir, "the handover was cut off"):
            begun = time.monotonic()
            primary = ""
            try:
                hold.begin(begun)
                told = self.tell()
                primary = self.await_promotion(hold, told)
                self.handover.paused_ms = milliseconds(begun)
                lost = _handover.missing(hold.last(), replication(self.client_of(primary)))
                self.follow(primary)
            finally:
                hold.end(promoted=bool(primary))
        self.judge(primary, lost)

    def tell(self) -> float:
        """Send SENTINEL FAILOVER, and return when. Raises HandoverError where Sentinel refuses."""
        told = time.monotonic()
        # Where its answer is lost, it may still do it.
        with contextlib.suppress(_client.NotReachedError):
            try:
                self.chief.call("SENTINEL", "FAILOVER", self.name)
            except _client.NotReachedError:
                raise
            except _client.ServerError as error:
                why = _client.without_command(error)
                raise _handover.HandoverError(f"Sentinel refused to fail over: {why}. Nothing was changed") from error
        return told

    def await_promotion(self, hold: Any, told: float) -> str:
        """Return who was promoted, as C(ADDRESS PORT). Raises HandoverError where Sentinel gave up."""
        patience = self.failover_seconds() + MARGIN_SECONDS
        while True:
            hold.renew()
            busy, chosen = self.sentinels_word()
            primary = chosen or self.handover.where
            its = self.handover.seen(self.client_of(primary))
            if its is not None and its.get("role") == "master":
                return primary
            if (busy is False and its is not None) or time.monotonic() > told + patience:
                raise self.handover.error(
                    self.heir,
                    f"Sentinel gave up after {milliseconds(told) / 1000:.1f} s, and writes go on here; "
                    "its log says why (-failover-abort)",
                )
            time.sleep(POLL_SECONDS)

    def failover_seconds(self) -> float:
        """Return Sentinel's failover-timeout, after which it gives up at the latest."""
        with contextlib.suppress(_client.ServerError):
            return int(self.primary().get("failover-timeout") or 180000) / 1000
        return 180.0

    def sentinels_word(self) -> tuple[bool | None, str]:
        """Return whether Sentinel is at it, and whom it has chosen; None and nobody where it does not answer."""
        try:
            primary = self.primary()
            if primary.get("runid") != self.handover.info.get("run_id"):
                return False, f"{primary.get('ip')} {primary.get('port')}"
            return "failover_in_progress" in primary.get("flags", ""), _handover.promoted(self.replicas())
        except _client.ServerError:
            return None, ""

    def client_of(self, primary: str) -> _client.Client:
        """Return a connection to whom Sentinel has chosen. Raises ServerError."""
        if primary == self.handover.where:
            return self.heir
        address, port = primary.split()
        place = {"login_host": address, "login_port": int(port), "login_unix_socket": None}
        return _client.connect({**self.params, **place}, self.handover.config)

    def follow_words(self, *whom: str) -> list[str]:
        """Return the command by which this server follows somebody, or nobody (C(NO ONE))."""
        return ["REPLICAOF" if _handover.version(self.handover.info) >= (5,) else "SLAVEOF", *whom]

    def follow(self, primary: str) -> None:
        """Make this server a replica at once: what it took as a write from now on would be lost. Raises ServerError."""
        end = time.monotonic() + self.params["login_timeout"]
        while True:
            try:
                self.here.call(*self.follow_words(*primary.split()))
                return
            except _client.NotReachedError:
                if time.monotonic() > end:
                    raise
                time.sleep(POLL_SECONDS)

    # After

    def judge(self, primary: str, lost: int) -> None:
        """Wait until the Sentinels name the new primary. Raises HandoverError where that is not as wanted."""
        address, port = primary.split()
        if lost:
            what = "it can't be told whether it has" if lost < 0 else f"it lacks {lost} bytes of"
            raise _handover.HandoverError(
                f"{primary} is the primary now, and {what} all that was written here: something writes that no pause "
                "holds back, such as a module's timer. This server follows it",
                changed=True,
                primary=primary,
            )
        end = time.monotonic() + self.params["timeout"]
        while True:
            with self.handover.said(self.heir, "a Sentinel does not answer any more"):
                answers = [s.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name) for s in self.sentinels]
            named = [[str(_client.text(word)) for word in answer or []] for answer in answers]
            if all(words == [address, port] for words in named):
                break
            if time.monotonic() > end:
                raise self.handover.error(self.heir, f"not all Sentinels name {primary} as the primary")
            time.sleep(POLL_SECONDS)
        if primary != self.handover.where:
            raise _handover.HandoverError(
                f"Sentinel promoted {primary} in place of {self.handover.where}. It has all data, and this server "
                "follows it; run this again to see what is left to do",
                changed=True,
                primary=primary,
            )


PRIORITY = "slave-priority"
"""The name of replica-priority that all versions of Redis know."""


PING_PERIOD = "repl-ping-slave-period"
"""The name of repl-ping-replica-period that all versions of Redis know."""


class Pause:
    """Writes wait (Redis 6.2 and later). Should this process die, they go on after HOLD_MS at the latest.

    No pause holds back what a primary itself sends its replicas now and then, to see that they are there. Once the heir
    is promoted, this server would have these bytes and the heir not, so it could follow by a full sync alone; and where
    the heir runs a newer release of a module, that ends a server of the former one. So it sends none meanwhile.
    """

    def __init__(self, watch: SentinelWatch) -> None:
        self._watch = watch
        self._here = watch.here
        self._renewed = 0.0
        self._ping_period = ""

    def begin(self, begun: float) -> None:
        """Hold writes back and wait until the heir has all of them. Raises HandoverError and ServerError."""
        handover = self._watch.handover
        longest = handover.params["longest_pause"]
        if self._here.config_command:
            self._ping_period = handover.setting(PING_PERIOD)
            self._here.set(PING_PERIOD, NEVER)
        self._pause(longest)
        handover.await_offset(self._watch.heir, _handover.offset(self.last()), begun + longest / 1000)
        self._pause(HOLD_MS)
        if milliseconds(begun) >= longest:
            raise _handover.HandoverError(
                f"{handover.where} had all data only after {milliseconds(begun)} ms, longest_pause is {longest}. "
                "Nothing was changed"
            )

    def _pause(self, duration: int) -> None:
        self._here.call("CLIENT", "PAUSE", str(duration), "WRITE")
        self._renewed = time.monotonic()

    def renew(self) -> None:
        """See that writes are held back for as long as it takes."""
        if time.monotonic() > self._renewed + 1:
            with contextlib.suppress(_client.NotReachedError):
                self._pause(HOLD_MS)

    def last(self) -> dict[str, str]:
        """Return INFO replication of this server as it was when it took its last write. Raises ServerError."""
        return replication(self._here)

    def end(self, promoted: bool) -> None:
        """Let writes go on; where this server should follow and does not, they wait out their pause."""
        if self._ping_period:
            with contextlib.suppress(_client.ServerError):
                self._here.set(PING_PERIOD, self._ping_period)
        role = self._watch.handover.seen(self._here)
        if not promoted or (role and _handover.primary_of(role)):
            with contextlib.suppress(_client.ServerError):
                self._here.call("CLIENT", "UNPAUSE")


class Refusal:
    """Writes are refused (before Redis 6.2, where CLIENT PAUSE would shut out this connection as well).

    C(min-replicas-to-write) does not count for scripts. So this server then stops being a primary, and from there on
    nothing is written; where the heir lacks a byte of what was, it becomes a primary again, for the next attempt.
    """

    def __init__(self, watch: SentinelWatch) -> None:
        self._watch = watch
        self._here = watch.here
        self._handover = watch.handover
        self._last: dict[str, str] = {}
        since_5 = _handover.version(self._handover.info) >= (5,)
        word = "min-replicas" if since_5 else "min-slaves"
        self._names = (f"{word}-to-write", f"{word}-max-lag")
        self._former: dict[str, str] = {}

    def begin(self, begun: float) -> None:
        """Refuse writes, wait until the heir has all of them, and stop being a primary.

        Raises HandoverError and ServerError.
        """
        handover, heir = self._handover, self._watch.heir
        if not self._here.config_command:
            raise _handover.HandoverError("CONFIG is renamed away, so writes can't be held back. Nothing was changed")
        end = begun + handover.params["longest_pause"] / 1000
        self._former = {name: handover.setting(name) for name in self._names}
        for name, value in zip(self._names, (NEVER, "10")):
            self._here.set(name, value)
        while True:
            handover.await_offset(heir, _handover.offset(replication(self._here)), end)
            self._here.call(*self._watch.follow_words(*handover.where.split()))
            self._last = replication(self._here)
            with contextlib.suppress(_handover.HandoverError):
                # What was not sent by then never is: the connections to the replicas are cut by it.
                return handover.await_offset(heir, _handover.offset(self._last), time.monotonic() + GRACE_SECONDS)
            self.unseal()

    def unseal(self) -> None:
        """Be a primary again. Raises ServerError."""
        self._here.call(*self._watch.follow_words("NO", "ONE"))
        self._last = {}

    def renew(self) -> None:
        """Nothing has to be done: a replica takes no writes."""

    def last(self) -> dict[str, str]:
        """Return INFO replication of this server as it was when it took its last write."""
        return self._last

    def end(self, promoted: bool) -> None:
        """Let writes go on, where nobody else takes them. Raises ServerError."""
        if self._last and not promoted:
            self.unseal()
        for name, value in self._former.items():
            self._here.set(name, value)


GRACE_SECONDS = 0.2
"""How long the last bytes may be on their way."""


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Go on where the connection of the one who started this breaks, or he stops it: half a handover is none."""
    numbers = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT)
    former = [signal.signal(number, signal.SIG_IGN) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, former):
            signal.signal(number, handler)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "to": {"type": "list", "elements": "str", "required": True},
            "to_port": {"type": "int", "required": True},
            "timeout": {"type": "int", "default": 30},
            "longest_pause": {"type": "int", "default": 1000},
            "sentinel_username": {"type": "str"},
            "sentinel_password": {"type": "str", "no_log": True},
            "conf_path": {"type": "path", "default": "/etc/redis/redis.conf"},
            **_client.LOGIN_ARGUMENTS,
        },
        supports_check_mode=True,
    )
    if _client.REDIS_IMPORT_ERROR:
        module.fail_json(msg=missing_required_lib("redis"), exception=_client.REDIS_IMPORT_ERROR)
    if not module.params["to"]:
        module.fail_json(msg="to names no address")
    try:
        result = Handover(module.params, module.check_mode).run()
    except _handover.HandoverError as error:
        module.fail_json(msg=str(error), changed=error.changed, primary=error.primary)
    except _client.ServerError as error:
        module.fail_json(msg=f"{error}. Nobody's role was changed", changed=False)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
