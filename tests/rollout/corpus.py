# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus of bad modules, as data: how each is made and declared, what catches it, and what the operator reads.

docs/corpus.md shows it to readers, beside what a server without a trial does with each; a unit test holds the two
together. test_rollout_corpus.py rolls all of it out.
"""

from __future__ import annotations

import shlex
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HOSTS = ("r11", "r12", "r13")
"""Redis 6.0, 7.0 and 8.0."""

STAGES = {
    "declaration": "what the entry says of the file, and the host's version of Redis",
    "inspect": "reading the file, which is not run",
    "trial": "a throwaway server that loads it",
    "data": "the throwaway server on a copy of the host's data",
    "smoke": "commands of the entry, in the throwaway server",
    "one-way door": "what would be lost with a module that goes: keys, fields of the RDB, rules of users",
}
"""What catches bad modules, in the order in which it comes."""

Spoil = Callable[[bytes], bytes]


@dataclass(frozen=True)
class Made:
    """How a file is made: by gcc on a host, then perhaps spoiled."""

    source: str = "bad.c"
    defines: tuple[str, ...] = ()
    flags: tuple[str, ...] = ("-fPIC", "-shared")
    host: str = "r11"
    calls_itself: str = ""
    spoil: Spoil | None = None

    def command(self, name: str) -> str:
        """Return the shell command that leaves NAME.so."""
        defines = (f'NAME="{self.calls_itself or name}"', *self.defines)
        words = ["gcc", "-O2", "-w", "-I.", *(f"-D{define}" for define in defines), self.source, *self.flags]
        return shlex.join([*words, "-o", f"{name}.so"])


@dataclass(frozen=True)
class Case:
    """One bad module. What I(says) are regular expressions that the message matches, on every one of I(hosts)."""

    caught: str
    says: tuple[str, ...]
    made: Made | None = field(default_factory=Made)
    entry: Mapping[str, Any] = field(default_factory=dict)
    declared: str = ""
    """The name in redis_modules where that is not the case's own: a new file for a module of BASE, or a wrong name."""
    beside: tuple[str, ...] = ()
    """Entries of BESIDE that are declared before it."""
    variables: Mapping[str, Any] = field(default_factory=dict)
    hosts: tuple[str, ...] = HOSTS
    together: str = ""
    """Cases with the same text here are declared together, as all of them are named at once."""
    prepare: tuple[str, str] = (":", ":")
    """Shell scripts that make a host so that the module is bad there, and undo it."""


def bad(*defines: str, **more: Any) -> Made:
    """Return how bad.c is made with a fault."""
    return Made(defines=defines, **more)


def typed(*defines: str, **more: Any) -> Made:
    """Return how typed.c is made, a new file for the module that has keys on the hosts, unless told otherwise."""
    if not any(define.startswith("TYPE=") for define in defines):
        defines = ('TYPE="corpustyp"', "ENCVER=2", *defines)
        more = {"calls_itself": "keeper", **more}
    return Made("typed.c", defines, **more)


def smoke(*commands: Mapping[str, Any]) -> dict[str, Any]:
    """Return these smoke commands as an entry has them."""
    return {"smoke": [dict(command) for command in commands]}


def patched(at: int, value: bytes) -> Spoil:
    """Return what writes other bytes into a file."""
    return lambda content: content[:at] + value + content[at + len(value) :]


def elf_hash(name: bytes) -> int:
    """Return the hash by which ELF files refer to a version's name."""
    value = 0
    for byte in name:
        value = (value << 4) + byte
        value = (value ^ ((value & 0xF0000000) >> 24)) & 0x0FFFFFFF
    return value


def for_a_future_glibc(content: bytes) -> bytes:
    """Return a file that needs a glibc which is newer than any."""
    old, new = b"GLIBC_2.2.5", b"GLIBC_2.999"
    hashes = struct.pack("<I", elf_hash(old)), struct.pack("<I", elf_hash(new))
    assert content.count(hashes[0]) == 1
    return content.replace(old, new).replace(*hashes)


E_MACHINE = 18
EM_AARCH64 = struct.pack("<H", 183)

BASE = {"keeper": typed(), "ledger": typed('TYPE="corpusaux"', "AUX=1", calls_itself="ledger")}
"""What runs on the hosts. One has keys; one has a field beside the keys in the RDB, and an ACL names its command."""

WATCHER = "redis-cli ACL SETUSER watcher on nopass '~*' +ledger.get; redis-cli ACL SAVE"
"""The user whose ACL does, as a shell script."""

READINGS = "redis-cli keeper.set reading1 21.5; redis-cli keeper.set reading2 text; redis-cli SAVE"
"""Keys of the first one's data type, as a shell script."""

BESIDE = {"first": bad('TAKES="sensor.read"')}
"""More good modules, which a case brings along."""

PREPARE = """
mkdir -p corpus && cd corpus && tar -x
echo 'int corpus_is_nowhere(void) { return 0; }' > gone.c
gcc -fPIC -shared -Wl,-soname,libcorpusgone.so.1 gone.c -o libcorpusgone.so
echo 'int main(void) { return 0; }' > program.c
"""
"""What stands before the commands that make the files."""

CORPUS: dict[str, Case] = {
    # ------------------------------------------------ what the file itself tells
    "other_digest": Case(
        "declaration",
        ("module other_digest: .*has the digest .*declared is 0000",),
        bad(),
        entry={"sha256": "0" * 64},
    ),
    "directive_on_60": Case(
        "declaration",
        ("module directive_on_60: config needs Redis 7.0 or later",),
        bad(),
        entry={"config": {"speed": "7"}},
        hosts=("r11",),
    ),
    "empty": Case(
        "inspect",
        ("module empty: .*the file is empty",),
        bad(spoil=lambda content: b""),
        together="file",
    ),
    "text": Case(
        "inspect",
        ("module text: .*it is no shared object",),
        bad(spoil=lambda content: b"just text\n" * 99),
        together="file",
    ),
    "truncated": Case(
        "inspect",
        ("module truncated: .*cut off",),
        bad(spoil=lambda content: content[: len(content) // 2]),
        together="file",
    ),
    "last_bytes_missing": Case(
        "inspect",
        ("module last_bytes_missing: .*cut off",),
        bad(spoil=lambda content: content[:-8]),
        together="file",
    ),
    "other_architecture": Case(
        "inspect",
        ("module other_architecture: .*it is built for aarch64, this host is x86_64",),
        bad(spoil=patched(E_MACHINE, EM_AARCH64)),
        together="file",
    ),
    "elf32": Case(
        "inspect",
        ("module elf32: .*it is a 32-bit object, this host's redis-server is 64-bit",),
        Made("elf32.c", flags=("-m32", "-fPIC", "-shared", "-nostdlib")),
        together="file",
    ),
    "elf32_same_machine": Case(
        "inspect",
        ("module elf32_same_machine: .*it is a 32-bit object",),
        Made("elf32.c", flags=("-mx32", "-fPIC", "-shared", "-nostdlib")),
        together="file",
    ),
    "program": Case(
        "inspect",
        ("module program: .*no shared object",),
        Made("program.c", flags=("-no-pie",)),
        together="file",
    ),
    "object_file": Case(
        "inspect",
        ("module object_file: .*it is no shared object",),
        Made(flags=("-fPIC", "-c")),
        together="file",
    ),
    "undefined_symbol": Case(
        "inspect",
        ("module undefined_symbol: it uses the symbol corpus_is_nowhere",),
        bad("UNDEFINED_SYMBOL"),
        together="linker",
    ),
    "missing_library": Case(
        "inspect",
        (r"module missing_library: it needs the library libcorpusgone\.so\.1",),
        bad("MISSING_NEEDED", flags=("-fPIC", "-shared", "-L.", "-lcorpusgone")),
        together="linker",
    ),
    "newer_glibc": Case(
        "inspect",
        (r"module newer_glibc: .*it needs glibc 2\.38 or newer, this host has 2\.3[16]",),
        bad("NEWER_GLIBC", host="r13"),
        hosts=("r11", "r12"),
        together="file",
    ),
    "future_glibc": Case(
        "inspect",
        (r"module future_glibc: .*it needs glibc 2\.999 or newer, this host has 2\.",),
        bad("COMMAND_EXIT", spoil=for_a_future_glibc),
        together="file",
    ),
    "no_onload": Case(
        "inspect",
        ("module no_onload: .*it does not export RedisModule_OnLoad",),
        bad("ONLOAD=Sensor_OnLoad"),
        together="file",
    ),
    "hidden_onload": Case(
        "inspect",
        ("module hidden_onload: .*it does not export RedisModule_OnLoad",),
        bad("HIDDEN"),
        together="file",
    ),
    "valkey_only": Case(
        "inspect",
        (r"module valkey_only: .*it does not export RedisModule_OnLoad; it exports ValkeyModule_OnLoad",),
        bad("ONLOAD=ValkeyModule_OnLoad"),
        together="file",
    ),
    "executable_stack": Case(
        "inspect",
        ("module executable_stack: .*executable stack",),
        bad(flags=("-fPIC", "-shared", "-Wl,-z,execstack")),
        together="code",
    ),
    "text_relocations": Case(
        "inspect",
        ("module text_relocations: .*its code is changed while it is loaded",),
        bad(flags=("-fno-pic", "-mcmodel=large", "-shared", "-Wl,-z,notext")),
        together="code",
    ),
    "api_in_onload": Case(
        "inspect",
        ("module api_in_onload: .*RedisModule_NoSuchThing",),
        bad("API_IN_ONLOAD"),
        together="code",
    ),
    "api_in_command": Case(
        "inspect",
        ("module api_in_command: .*RedisModule_NoSuchThing",),
        bad("API_IN_COMMAND"),
        together="code",
    ),
    "api_of_newer_redis": Case(
        "inspect",
        ("module api_of_newer_redis: .*RedisModule_RegisterAuthCallback",),
        bad("API_OF_72"),
        hosts=("r11", "r12"),
        together="code",
    ),
    # ------------------------------------------------ OnLoad
    "onload_error": Case(
        "trial",
        ("module onload_error: a server with it does not start", "sensor bus does not answer"),
        bad("ONLOAD_ERROR"),
    ),
    "onload_error_silent": Case(
        "trial",
        ("module onload_error_silent: .*initialization failed.*it does not say why: it may want other arguments",),
        bad("ONLOAD_SILENT"),
    ),
    "onload_crash": Case(
        "trial", ("module onload_crash: a server with it does not start", "signal 11"), bad("ONLOAD_CRASH")
    ),
    "onload_abort": Case(
        "trial", ("module onload_abort: a server with it does not start", "signal:? 6"), bad("ONLOAD_ABORT")
    ),
    "stack_overflow": Case(
        "trial", ("module stack_overflow: a server with it does not start", "signal 11"), bad("STACK_OVERFLOW")
    ),
    "no_init": Case("trial", ("module no_init: a server with it does not start", "signal 11"), bad("NO_INIT")),
    "onload_hang": Case("trial", ("module onload_hang: .*OnLoad does not return",), bad("ONLOAD_HANG")),
    "onload_exit": Case(
        "trial", ("module onload_exit: .*exit status 0.*it ends when it loads it",), bad("ONLOAD_EXIT")
    ),
    "constructor_crash": Case("trial", ("module constructor_crash: .*signal 11",), bad("CONSTRUCTOR_CRASH")),
    "constructor_exit": Case(
        "trial", ("module constructor_exit: .*exit status 3.*no license for this host",), bad("CONSTRUCTOR_EXIT")
    ),
    "endless_log": Case(
        "trial",
        ("module endless_log: .*it wrote more than 32 MiB.*still waiting for the sensor bus",),
        bad("ENDLESS_LOG"),
    ),
    "endless_output": Case(
        "trial",
        ("module endless_output: .*it wrote more than 32 MiB",),
        bad("ENDLESS_OUTPUT"),
    ),
    "argument_missing": Case(
        "trial",
        ("module argument_missing: .*give the size of the cache as the argument, got 0",),
        bad("NEEDS_ARGUMENT"),
    ),
    "argument_wrong": Case(
        "trial",
        ("module argument_wrong: .*the size of the cache is no number: plenty",),
        bad("NEEDS_ARGUMENT"),
        entry={"args": ["plenty"]},
    ),
    "name_taken": Case("trial", ("module name_taken: .*its file names the module ledger",), bad(calls_itself="ledger")),
    "command_taken": Case(
        "trial",
        (r"module command_taken: .*its file names the command sensor\.read",),
        bad('TAKES="sensor.read"'),
        beside=("first",),
    ),
    "command_of_redis": Case(
        "trial", ("module command_of_redis: .*its file names the command get",), bad('TAKES="get"')
    ),
    "type_taken": Case(
        "trial",
        ("module type_taken: ", "the data type corpustyp is taken"),
        typed('TYPE="corpustyp"', calls_itself="type_taken"),
    ),
    "other_name": Case(
        "trial",
        ("module other_name: it loads, but MODULE LIST does not report this name; the file calls itself sensor",),
        bad(calls_itself="sensor"),
    ),
    "other_version": Case(
        "trial",
        ("module other_version: MODULE LIST reports version 3, declared is 4",),
        bad("VERSION=3"),
        entry={"version": 4},
    ),
    "unknown_directive": Case(
        "trial",
        (r"module unknown_directive \(unknown_directive\.speed\): it does not know all directives",),
        entry={"config": {"speed": "7"}},
        hosts=("r12", "r13"),
    ),
    "writes_outside": Case(
        "trial",
        ("module writes_outside: .*can't write /var/lib/redis/dump.rdb: Read-only file system",),
        bad("WRITES_OUTSIDE"),
    ),
    "memory_in_onload": Case("trial", ("module memory_in_onload: .*outside_memory",), bad("ONLOAD_MEMORY")),
    "fork_in_onload": Case("trial", ("module fork_in_onload: .*processes",), bad("ONLOAD_FORK")),
    # ------------------------------------------------ its commands
    "memory_in_command": Case(
        "smoke",
        ("module memory_in_command: .*outside_memory",),
        bad("COMMAND_MEMORY"),
        entry=smoke({"command": ["memory_in_command.do"]}),
    ),
    "fork_in_command": Case(
        "smoke",
        ("module fork_in_command: .*processes",),
        bad("COMMAND_FORK"),
        entry=smoke({"command": ["fork_in_command.do"]}),
    ),
    "command_crash": Case(
        "smoke",
        ("module command_crash: .*command_crash.do", "signal 11"),
        bad("COMMAND_CRASH"),
        entry=smoke({"command": ["command_crash.do"]}),
    ),
    "command_exit": Case(
        "smoke",
        ("module command_exit: .*command_exit.do", "exit status 0"),
        bad("COMMAND_EXIT"),
        entry=smoke({"command": ["command_exit.do"]}),
    ),
    "command_hang": Case(
        "smoke",
        ("module command_hang: .*command_hang.do",),
        bad("COMMAND_HANG"),
        entry=smoke({"command": ["command_hang.do"]}),
    ),
    "wrong_answer": Case(
        "smoke",
        ("module wrong_answer: .*wrong_answer.ping", "PONG"),
        bad(),
        entry=smoke({"command": ["wrong_answer.ping"], "expect": "READY"}),
    ),
    "no_rdb_save": Case(
        "smoke",
        ("module no_rdb_save: ",),
        typed('TYPE="corpusnew"', "NO_SAVE"),
        entry=smoke({"command": ["no_rdb_save.set", "k", "text"]}),
    ),
    "rdb_save_loses": Case(
        "smoke",
        ("module rdb_save_loses: .*rdb_save_loses.get",),
        typed('TYPE="corpusnew"', "SAVE_NOTHING"),
        entry=smoke(
            {"command": ["rdb_save_loses.set", "k", "text"]},
            {"command": ["rdb_save_loses.get", "k"], "expect": "text", "after_restart": True},
        ),
    ),
    "rdb_load_other": Case(
        "smoke",
        ("module rdb_load_other: ",),
        typed('TYPE="corpusnew"', "LOAD_OTHER"),
        entry=smoke({"command": ["rdb_load_other.set", "k", "text"]}, {"command": ["rdb_load_other.get", "k"]}),
    ),
    # ------------------------------------------------ the host's data: new files for a module that has keys there
    "data_load_null": Case(
        "data", ("module keeper: ", "does not like this text"), typed("LOAD_NULL"), declared="keeper"
    ),
    "data_load_other": Case(
        "data", ("module keeper: .*Guru Meditation.*keeper",), typed("LOAD_OTHER"), declared="keeper"
    ),
    "data_no_rdb_save": Case("data", ("module keeper: ",), typed("NO_SAVE"), declared="keeper"),
    "data_encoding_lower": Case(
        "data",
        ("module keeper: ", "knows encodings up to 1, the file has 2", "2 of type corpustyp"),
        typed('TYPE="corpustyp"', "ENCVER=1", calls_itself="keeper"),
        declared="keeper",
    ),
    "data_type_gone": Case("data", ("module keeper: .*2 of type corpustyp",), typed("NO_TYPE"), declared="keeper"),
    "data_aux_gone": Case(
        "data",
        ("module ledger: .*AUX fields of corpusaux, which deleting keys does not mend",),
        typed('TYPE="corpusaux"', calls_itself="ledger"),
        declared="ledger",
    ),
    # ------------------------------------------------ a module that goes
    "absent_with_keys": Case(
        "one-way door", ("module keeper: .*2 of type corpustyp.*delete_keys",), None, {"state": "absent"}, "keeper"
    ),
    "absent_with_aux": Case(
        "one-way door",
        ("module ledger: .*AUX fields of corpusaux, which deleting keys does not mend",),
        None,
        {"state": "absent"},
        "ledger",
        prepare=("redis-cli ACL DELUSER watcher; redis-cli ACL SAVE", WATCHER),
    ),
    "absent_with_acl": Case(
        "one-way door",
        (r"users\.acl line 2, user watcher: \+ledger\.get: Unknown command.*change the rule first",),
        None,
        {"state": "absent"},
        "ledger",
    ),
    # ------------------------------------------------ how the host holds the file
    "no_x_bit": Case(
        "trial",
        ("It does not have execute permissions",),
        bad(),
        variables={"redis_rollout_mode": "0444"},
    ),
    "unreadable": Case(
        "trial",
        ("can't load it as the user redis: cannot open shared object file",),
        bad(),
        variables={"redis_rollout_owner": "root", "redis_rollout_mode": "0500"},
    ),
    "noexec_folder": Case(
        "trial",
        ("module .*failed to map segment",),
        bad(),
        variables={"redis_preflight_ignore": ["noexec"]},
        hosts=("r11",),
        prepare=(
            "mount --bind {folder} {folder} && mount -o remount,bind,noexec {folder}",
            "umount --lazy {folder}",
        ),
    ),
}

ACCEPTED = {
    "memory_in_onload": "outside_memory",
    "fork_in_onload": "processes",
    "text_relocations": "text_relocations",
    "api_in_command": "missing_api",
    "executable_stack": "executable_stack",
}
"""Cases that load where their entry accepts the risk, and where the unit lets them."""

NEVER = {"r13": {"executable_stack"}}
"""What no unit helps: glibc 2.41 makes no stack executable."""
