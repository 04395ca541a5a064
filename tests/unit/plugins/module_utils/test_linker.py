# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the dynamic linker says becomes sentences, and nothing of the module is run for it."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from typing import Any, Callable

import pytest

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _linker

BuildSo = Callable[..., str]
FOLDER = "/var/lib/redis/modules/"

# As recorded; some of redis-server's own libraries are left out, and M is the module folder.
BULLSEYE_UNDEFINED = """\
\tlinux-vdso.so.1 (0x00007f7d9d0d5000)
\tM/undefined.so (0x00007f7d9cf6e000)
\tliblua5.1.so.0 => /usr/lib/x86_64-linux-gnu/liblua5.1.so.0 (0x00007f7d9cb17000)
\tlibjemalloc.so.2 => /usr/lib/x86_64-linux-gnu/libjemalloc.so.2 (0x00007f7d9c842000)
\tlibpthread.so.0 => /lib/x86_64-linux-gnu/libpthread.so.0 (0x00007f7d9c294000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f7d9c0c0000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f7d9d0d7000)
/usr/bin/redis-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by M/undefined.so)
undefined symbol: newer, version GLIBC_2.99	(M/undefined.so)
undefined symbol: nosuch2	(M/undefined.so)
undefined symbol: nosuch	(M/undefined.so)
"""
BOOKWORM_UNDEFINED = """\
\tlinux-vdso.so.1 (0x00007fda40a2c000)
\tM/undefined.so (0x00007fda407b8000)
\tlibjemalloc.so.2 => /lib/x86_64-linux-gnu/libjemalloc.so.2 (0x00007fda404b8000)
\tlibcrypto.so.3 => /lib/x86_64-linux-gnu/libcrypto.so.3 (0x00007fda3fdd3000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fda3fbf1000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007fda40a2e000)
/usr/bin/redis-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by M/undefined.so)
undefined symbol: newer, version GLIBC_2.99	(M/undefined.so)
undefined symbol: nosuch2	(M/undefined.so)
undefined symbol: nosuch	(M/undefined.so)
"""
TRIXIE_UNDEFINED = """\
\tlinux-vdso.so.1 (0x00007f9760a47000)
\tM/undefined.so (0x00007f976071a000)
\tlibjemalloc.so.2 => /lib/x86_64-linux-gnu/libjemalloc.so.2 (0x00007f97605db000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f975f82e000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f9760a49000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f975f7d3000)
/usr/bin/redis-server: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.99' not found (required by M/undefined.so)
undefined symbol: newer, version GLIBC_2.99	(M/undefined.so)
undefined symbol: nosuch2	(M/undefined.so)
undefined symbol: nosuch	(M/undefined.so)
"""
BULLSEYE_LIBRARY = """\
\tlinux-vdso.so.1 (0x00007f32bec73000)
\tM/library.so (0x00007f32beb0c000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f32bdc5e000)
\tlibmid.so.1 => M/libmid.so.1 (0x00007f32bdc59000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f32bec75000)
\tlibfoo.so.1 => not found
undefined symbol: foo	(M/libmid.so.1)
"""
TRIXIE_LIBRARY = """\
\tlinux-vdso.so.1 (0x00007f2f7cce1000)
\tM/library.so (0x00007f2f7c9b4000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f2f7bac8000)
\tlibmid.so.1 => M/libmid.so.1 (0x00007f2f7bac1000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f2f7cce3000)
\tlibz.so.1 => /lib/x86_64-linux-gnu/libz.so.1 (0x00007f2f7ba68000)
\tlibfoo.so.1 => not found
undefined symbol: foo	(M/libmid.so.1)
"""
REFUSED = "ERROR: ld.so: object '/var/lib/redis/modules/x.so' from LD_PRELOAD cannot be preloaded ({}): ignored.\n"
BAD_LIBRARY = (
    "/usr/bin/redis-server: error while loading shared libraries: /usr/local/lib/libfoo.so.1: file too short\n"
)


def parse(said: str, name: str = "x.so", code: int = 0) -> list[str]:
    """Return the sentences."""
    return _linker.parse(code, said.replace("M/", FOLDER), FOLDER + name, "redis")


class TestSentences:
    """Real output, of Debian 11, 12 and 13."""

    @pytest.mark.parametrize("said", [BULLSEYE_UNDEFINED, BOOKWORM_UNDEFINED, TRIXIE_UNDEFINED])
    def test_undefined_symbols_and_a_newer_glibc(self, said: str) -> None:
        assert parse(said, "undefined.so") == [
            "it needs GLIBC_2.99 of libc.so.6, which this host's does not have",
            "it uses the symbol nosuch2, which neither redis-server nor any of its libraries has",
            "it uses the symbol nosuch, which neither redis-server nor any of its libraries has",
        ]

    @pytest.mark.parametrize("said", [BULLSEYE_LIBRARY, TRIXIE_LIBRARY])
    def test_a_library_that_is_not_there_stands_for_its_symbols(self, said: str) -> None:
        assert parse(said, "library.so") == ["it needs the library libfoo.so.1, which this host does not have"]

    def test_what_a_library_of_the_module_lacks_is_told_of_that(self) -> None:
        said = TRIXIE_LIBRARY.replace("\tlibfoo.so.1 => not found\n", "")
        said += "x: /lib/libz.so.1: version `Z_9' not found (required by /var/lib/redis/modules/libmid.so.1)\n"
        who = "its library /var/lib/redis/modules/libmid.so.1"
        assert parse(said, "library.so") == [
            f"{who} needs Z_9 of libz.so.1, which this host's does not have",
            f"{who} uses the symbol foo, which neither redis-server nor any of its libraries has",
        ]

    def test_a_symbol_of_a_version_that_is_there(self) -> None:
        assert parse("undefined symbol: gone, version GLIBC_2.2.5\t(/var/lib/redis/modules/x.so)\n") == [
            "it uses the symbol gone, which neither redis-server nor any of its libraries has"
        ]

    def test_a_great_many_symbols_are_counted(self) -> None:
        found = parse("".join(f"undefined symbol: s{n}\t({FOLDER}x.so)\n" for n in range(30)))
        assert len(found) == 9
        assert found[-1] == "and 22 symbols more"

    @pytest.mark.parametrize("reason", ["cannot open shared object file", "wrong ELF class: ELFCLASS32"])
    def test_a_file_that_is_not_taken(self, reason: str) -> None:
        assert parse(REFUSED.format(reason)) == [f"the dynamic linker can't load it as the user redis: {reason}"]

    def test_a_library_that_is_not_taken(self) -> None:
        assert parse(BAD_LIBRARY, code=127) == [
            "the dynamic linker can't load it as the user redis: /usr/local/lib/libfoo.so.1: file too short"
        ]

    def test_a_mount_without_exec_is_left_to_the_trial(self) -> None:
        assert parse(REFUSED.format("failed to map segment from shared object")) == []

    def test_the_linker_dies(self) -> None:
        assert parse("", code=-7) == ["the dynamic linker died of it (SIGBUS); the file is damaged"]

    def test_it_could_not_be_asked(self) -> None:
        said = "setpriv: setresuid failed: Operation not permitted\n"
        assert parse(said, code=127) == [f"the dynamic linker could not be asked as the user redis: {said.strip()}"]

    def test_nothing_to_say(self) -> None:
        said = BOOKWORM_UNDEFINED.split("/usr/bin", maxsplit=1)[0]
        assert parse(said, "undefined.so") == []


ONLOAD = "int RedisModule_OnLoad(void) { return 0; }\n"
PROGRAM = "int of_the_program(void) { return 0; } int main(void) { return 0; }\n"
EAGER = """
#include <fcntl.h>
#include <unistd.h>
static void leave_mark(const char *path) { close(open(path, O_CREAT | O_WRONLY, 0600)); }
__attribute__((constructor)) static void constructor(void) { leave_mark("%(folder)s/ran-constructor"); }
static int implementation(void) { return 0; }
static void *resolver(void)
{
    *(volatile int *)0 = 0; /* nothing of libc is ready here; ending is what shows */
    return implementation;
}
int indirect(void) __attribute__((ifunc("resolver")));
int RedisModule_OnLoad(void) { return indirect(); }
"""


class TestAsked:
    """The linker of this machine, by the same command; only the change of user is left out."""

    @pytest.fixture
    def program(self, build_so: BuildSo) -> str:
        return build_so("program", PROGRAM, ("-rdynamic",))

    @staticmethod
    def run(words: list[str]) -> tuple[int, str, str]:
        assert words[0] == "setpriv"
        done = subprocess.run(words[words.index("env") :], capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    def faults(self, program: str, artifact: str) -> list[str]:
        return _linker.faults(self.run, program, artifact, "root")

    def test_what_the_program_and_libc_have_is_there_and_weak_ones_need_not_be(
        self, build_so: BuildSo, program: str
    ) -> None:
        source = "int of_the_program(void); int puts(const char *); __attribute__((weak)) int perhaps(void);\n"
        source += 'int use(void) { return of_the_program() + puts("") + (perhaps ? perhaps() : 0); }\n'
        assert self.faults(program, build_so(source=ONLOAD + source)) == []

    def test_what_nobody_has(self, build_so: BuildSo, program: str) -> None:
        source = "int nobody_has_it(void); int use(void) { return nobody_has_it(); }\n"
        assert self.faults(program, build_so(source=ONLOAD + source)) == [
            "it uses the symbol nobody_has_it, which neither redis-server nor any of its libraries has"
        ]

    def test_a_library_that_is_not_there(self, build_so: BuildSo, program: str) -> None:
        library = build_so(
            "libgone.so.1", "int gone(void) { return 0; }\n", ("-shared", "-fPIC", "-Wl,-soname,libgone.so.1")
        )
        source = ONLOAD + "int gone(void); int use(void) { return gone(); }\n"
        artifact = build_so(source=source, flags=("-shared", "-fPIC", library))
        os.unlink(library)
        assert self.faults(program, artifact) == ["it needs the library libgone.so.1, which this host does not have"]

    def test_a_file_that_is_no_module(self, tmp_path: Path, program: str) -> None:
        (tmp_path / "x.so").write_text("text")
        assert self.faults(program, str(tmp_path / "x.so")) == [
            "the dynamic linker can't load it as the user root: file too short"
        ]

    def test_nothing_of_it_is_run(self, build_so: BuildSo, program: str, tmp_path: Path) -> None:
        artifact = build_so(source=EAGER % {"folder": tmp_path})
        mark = tmp_path / "ran-constructor"
        assert self.faults(program, artifact) == []
        assert not mark.exists()
        # It would: the resolver, then without that the constructor.
        assert (
            subprocess.run([program], env={"LD_PRELOAD": artifact, "LD_BIND_NOW": "1"}, check=False).returncode == -11
        )
        plain = EAGER.replace("*(volatile int *)0 = 0;", "")
        subprocess.run([program], env={"LD_PRELOAD": build_so(source=plain % {"folder": tmp_path})}, check=True)
        assert mark.exists()

    def test_a_program_without_a_linker(self, tmp_path: Path, program: str) -> None:
        wrapper = tmp_path / "redis-server"
        wrapper.write_text("#!/bin/sh\nexec /usr/bin/redis-server\n")
        assert self.faults(str(wrapper), program) == []

    def test_the_service_user_asks_and_has_no_more_rights(self, program: str) -> None:
        asked: list[list[str]] = []

        def run(words: list[str], **options: Any) -> tuple[int, str, str]:
            asked.append(words)
            return 0, "", ""

        nobody = pwd.getpwnam("nobody")
        _linker.faults(run, program, "/x.so", "nobody")
        ids = ["--reuid", str(nobody.pw_uid), "--regid", str(nobody.pw_gid), "--clear-groups", "--no-new-privs"]
        assert asked[0][: len(ids) + 4] == ["setpriv", *ids, "env", "-i", "LC_ALL=C"]
        assert "LD_PRELOAD=/x.so" in asked[0]

    def test_a_user_that_there_is_not(self, program: str) -> None:
        with pytest.raises(KeyError):
            _linker.faults(self.run, program, "/x.so", "no-such-user")
