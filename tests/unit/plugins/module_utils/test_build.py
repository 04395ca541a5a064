# Copyright: the edgeops.redis_modules contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is built, by which commands, and what makes it another build."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ansible_collections.edgeops.redis_modules.plugins.module_utils import _build, _declaration
from ansible_collections.edgeops.redis_modules.plugins.module_utils._build import BuildError

FILE_NAMES = st.text(
    st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=20
).filter(
    lambda name: (
        name not in (".", "..") and not name.endswith(_build.LEFT_OUT_ENDINGS) and name not in _build.LEFT_OUT_FOLDERS
    )
)
TREES = st.dictionaries(
    st.lists(FILE_NAMES, min_size=1, max_size=3).map(tuple),
    st.tuples(st.binary(max_size=64), st.booleans()),
    max_size=6,
)


def write(folder: Path, **files: str) -> None:
    """Write files by name; __ stands for a slash and _dot_ for a dot."""
    for name, content in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def entry(**given_keys: Any) -> dict[str, Any]:
    """Return a whole entry."""
    return _declaration.completed({"name": "x", "src": "x", **given_keys}, "/m")


class TestSourceFiles:
    """What of a source tree goes to the host."""

    def test_all_files_sorted_and_relative(self, tmp_path: Path) -> None:
        write(tmp_path, z_dot_c="", sub__a_dot_h="", Makefile="", _dot_hidden="")
        assert _build.source_files(str(tmp_path)) == [".hidden", "Makefile", "sub/a.h", "z.c"]

    def test_left_overs_of_somebodys_own_build_stay_behind(self, tmp_path: Path) -> None:
        write(tmp_path, a_dot_c="", a_dot_o="", a_dot_xo="", a_dot_lo="", a_dot_d="", sub__b_dot_o="")
        assert _build.source_files(str(tmp_path)) == ["a.c"]

    @pytest.mark.parametrize("folder", [".git", ".hg", ".svn", "__pycache__"])
    def test_version_control_stays_behind(self, tmp_path: Path, folder: str) -> None:
        write(tmp_path, a_dot_c="")
        (tmp_path / "sub" / folder).mkdir(parents=True)
        (tmp_path / "sub" / folder / "config").write_text("x")
        assert _build.source_files(str(tmp_path)) == ["a.c"]

    @pytest.mark.parametrize("output", ["out/x.so", "./out//x.so"])
    def test_what_make_leaves_stays_behind(self, tmp_path: Path, output: str) -> None:
        write(tmp_path, a_dot_c="", out__x_dot_so="", x_dot_so="")
        assert _build.source_files(str(tmp_path), output) == ["a.c", "x.so"]

    def test_a_lock_file_of_an_editor_is_no_source(self, tmp_path: Path) -> None:
        write(tmp_path, a_dot_c="")
        os.symlink("somebody@somewhere.4242", tmp_path / ".#a.c")
        files = _build.source_files(str(tmp_path))
        assert files == ["a.c"]
        _build.tree_digest(str(tmp_path), files)

    def test_a_link_to_a_file_is_a_file(self, tmp_path: Path) -> None:
        write(tmp_path, a_dot_c="x")
        os.symlink("a.c", tmp_path / "b.c")
        assert _build.source_files(str(tmp_path)) == ["a.c", "b.c"]

    def test_sources_by_default_are_the_c_files_at_the_top(self) -> None:
        assert _build.default_sources(["b.c", "a.c", "a.h", "sub/c.c", "d.cc", "Makefile"]) == ["a.c", "b.c"]


class TestTreeDigest:
    """It changes with names, contents and x bits; with nothing else."""

    @pytest.fixture
    def tree(self, tmp_path: Path) -> Path:
        write(tmp_path, a_dot_c="int a;", sub__b_dot_c="int b;")
        return tmp_path

    def digest(self, tree: Path) -> str:
        return _build.tree_digest(str(tree), _build.source_files(str(tree)))

    def test_time_stamps_and_owners_do_not_count(self, tree: Path) -> None:
        before = self.digest(tree)
        os.utime(tree / "a.c", (1, 1))
        if os.geteuid() == 0:
            os.chown(tree / "a.c", 12345, 12345)
        assert self.digest(tree) == before

    @pytest.mark.parametrize("mode", [0o600, 0o640, 0o664])
    def test_who_may_read_does_not_count(self, tree: Path, mode: int) -> None:
        (tree / "a.c").chmod(0o644)
        before = self.digest(tree)
        (tree / "a.c").chmod(mode)
        assert self.digest(tree) == before

    def test_where_it_lies_does_not_count(self, tree: Path) -> None:
        before = self.digest(tree)
        assert self.digest(tree.rename(tree.parent / "elsewhere")) == before

    def test_the_x_bit_counts(self, tree: Path) -> None:
        before = self.digest(tree)
        (tree / "a.c").chmod(0o755)
        assert self.digest(tree) != before

    def test_content_counts(self, tree: Path) -> None:
        before = self.digest(tree)
        (tree / "a.c").write_text("int c;")
        assert self.digest(tree) != before

    def test_names_count(self, tree: Path) -> None:
        before = self.digest(tree)
        (tree / "a.c").rename(tree / "c.c")
        assert self.digest(tree) != before

    def test_one_more_file_counts(self, tree: Path) -> None:
        before = self.digest(tree)
        write(tree, empty="")
        assert self.digest(tree) != before

    def test_two_contents_that_change_places_count(self, tree: Path) -> None:
        before = self.digest(tree)
        write(tree, a_dot_c="int b;", sub__b_dot_c="int a;")
        assert self.digest(tree) != before


class TestPacking:
    """One archive brings the sources to the host, whole."""

    @given(TREES)
    def test_what_is_unpacked_has_the_digest_of_what_was_packed(self, tree: dict[Any, Any]) -> None:
        with tempfile.TemporaryDirectory() as place:
            source, target = os.path.join(place, "source"), os.path.join(place, "target")
            os.mkdir(source)
            os.mkdir(target)
            for parts, (content, executable) in tree.items():
                path = Path(source, *parts)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(content)
                except (FileExistsError, NotADirectoryError, IsADirectoryError):
                    continue
                path.chmod(0o755 if executable else 0o644)
            files = _build.source_files(source)
            _build.unpack(_build.pack({file: os.path.join(source, file) for file in files}), target)
            assert _build.source_files(target) == files
            assert _build.tree_digest(target, files) == _build.tree_digest(source, files)

    def test_links_become_the_files_they_name(self, tmp_path: Path) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        write(source, a_dot_c="x")
        os.symlink("a.c", source / "b.c")
        os.link(source / "a.c", source / "c.c")
        target.mkdir()
        archive = _build.pack({file: str(source / file) for file in ("a.c", "b.c", "c.c")})
        _build.unpack(archive, str(target))
        assert [(target / name).read_text() for name in ("a.c", "b.c", "c.c")] == ["x", "x", "x"]
        assert not (target / "b.c").is_symlink()

    @pytest.mark.parametrize("spelling", ["{}/target", "{}//target", "{}/./target", "{}/target/"])
    def test_it_unpacks_however_the_folder_is_spelt(self, tmp_path: Path, spelling: str) -> None:
        source, target = tmp_path / "source", tmp_path / "target"
        write(source, a_dot_c="x")
        target.mkdir()
        _build.unpack(_build.pack({"a.c": str(source / "a.c")}), spelling.format(tmp_path))
        assert (target / "a.c").read_text() == "x"

    @pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "a/../../evil", "../target-evil/x", ".", "a/.."])
    def test_a_file_that_would_lie_outside_is_refused(self, tmp_path: Path, name: str) -> None:
        target = tmp_path / "target"
        target.mkdir()
        self.archive(tmp_path, tarfile.TarInfo(name))
        with pytest.raises(BuildError, match="which is no plain file with a relative name"):
            _build.unpack((tmp_path / "a.tar.gz").read_bytes(), str(target))
        assert list(target.iterdir()) == []
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "target"]

    @pytest.mark.parametrize(
        "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE]
    )
    def test_what_is_no_plain_file_is_refused(self, tmp_path: Path, kind: bytes) -> None:
        target = tmp_path / "target"
        target.mkdir()
        member = tarfile.TarInfo("a")
        member.type = kind
        member.linkname = "/etc/passwd"
        self.archive(tmp_path, member)
        with pytest.raises(BuildError, match="which is no plain file with a relative name"):
            _build.unpack((tmp_path / "a.tar.gz").read_bytes(), str(target))
        assert list(target.iterdir()) == []

    def archive(self, folder: Path, member: tarfile.TarInfo) -> None:
        with tarfile.open(folder / "a.tar.gz", "w:gz") as archive:
            archive.addfile(member, io.BytesIO(b""))


class TestCommands:
    """gcc -c for each source, then gcc -shared."""

    def commands(self, sources: list[str], header_dir: str = "/h", **keys: Any) -> list[list[str]]:
        return _build.compile_commands(entry(**keys), sources, "gcc", header_dir, "/b", "x.so")

    def test_one_compilation_a_source_then_one_link(self) -> None:
        first, second, link = self.commands(["b.c", "sub/a.c"])
        assert first[-4:] == ["-c", "b.c", "-o", ".objects/0-b.c.o"]
        assert second[-4:] == ["-c", "sub/a.c", "-o", ".objects/1-a.c.o"]
        assert link[: link.index("-o")] == ["gcc", *_build.LINK_FLAGS]
        assert link[link.index("-o") :] == ["-o", "x.so", ".objects/0-b.c.o", ".objects/1-a.c.o", "-lc"]

    def test_two_sources_of_one_name_have_two_objects(self) -> None:
        first, second, link = self.commands(["a/x.c", "b/x.c"])
        assert first[-1] != second[-1]
        assert first[-1] in link
        assert second[-1] in link

    @pytest.mark.parametrize(
        "flag",
        [
            "-fPIC",
            "-std=gnu99",
            "-Wall",
            "-Werror=implicit-function-declaration",
            "-fstack-protector-strong",
            "-D_FORTIFY_SOURCE=2",
        ],
    )
    def test_default_flags_of_the_compiler(self, flag: str) -> None:
        assert flag in self.commands(["a.c"])[0]

    def test_fortify_is_first_undefined_as_some_compilers_bring_their_own(self) -> None:
        compile_, _link = self.commands(["a.c"])
        assert compile_.index("-U_FORTIFY_SOURCE") < compile_.index("-D_FORTIFY_SOURCE=2")

    @pytest.mark.parametrize("flag", ["-shared", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack"])
    def test_default_flags_of_the_linker(self, flag: str) -> None:
        assert flag in self.commands(["a.c"])[-1]

    def test_the_users_flags_come_after_the_default_ones_and_win(self) -> None:
        compile_, link = self.commands(["a.c"], cflags=["-O0"], defines=["X=1"], ldflags=["-Ly"], libraries=["m"])
        assert compile_.index("-O2") < compile_.index("-O0") < compile_.index("-c")
        assert "-DX=1" in compile_
        assert link.index("-Wl,-z,now") < link.index("-Ly") < link.index("-lm") < link.index("-lc")
        assert link.index(".objects/0-a.c.o") < link.index("-lm")

    def test_the_folders_name_is_kept_out_of_the_result(self) -> None:
        compile_, link = self.commands(["a.c"])
        assert "-ffile-prefix-map=/b=." in compile_
        assert "-ffile-prefix-map=/h=redis" in compile_
        assert "-frandom-seed=a.c" in compile_
        assert [word for word in compile_ + link if word.startswith("/b")] == []

    def test_the_modules_own_header_goes_before_the_servers(self) -> None:
        assert _build.include_flags(entry(include_dirs=["inc"]), "/h") == ["-I.", "-Iinc", "-I/h", "-I/h/modules"]
        assert _build.include_flags(entry(), "") == ["-I."]

    def test_without_a_header_nothing_points_to_one(self) -> None:
        compile_, _link = self.commands(["a.c"], header_dir="")
        assert not [word for word in compile_ if word.startswith(("-I/", "-ffile-prefix-map=="))]

    def test_make(self) -> None:
        module = entry(make_target="all", make_output="x.so", make_args=["V=1", "-j2"])
        assert _build.make_command(module) == ["make", "all", "V=1", "-j2"]

    def test_the_environment_has_no_clock_speaks_english_and_knows_the_header(self) -> None:
        assert _build.build_environment("") == {"LC_ALL": "C", "SOURCE_DATE_EPOCH": "0", "ZERO_AR_DATE": "1"}
        assert _build.build_environment("/h")["CPATH"] == "/h:/h/modules"


class TestInputs:
    """One digest over all that a build depends on."""

    def test_the_order_of_keys_does_not_count(self) -> None:
        assert _build.inputs_digest({"a": 1, "b": [1]}) == _build.inputs_digest({"b": [1], "a": 1})

    @pytest.mark.parametrize("other", [{"a": 2, "b": [1, 2]}, {"a": 1, "b": [2, 1]}, {"a": 1}, {"a": "1", "b": [1, 2]}])
    def test_everything_else_does(self, other: dict[str, Any]) -> None:
        assert _build.inputs_digest(other) != _build.inputs_digest({"a": 1, "b": [1, 2]})


class TestOutput:
    """What a compiler said."""

    def test_the_build_folder_is_taken_out(self) -> None:
        assert _build.shown("/b/a.c:1: warning: x\n\n  in /b/a.c\n", "/b") == (["a.c:1: warning: x", "  in a.c"], False)

    @pytest.mark.parametrize(("count", "more"), [(_build.SHOWN_LINES, False), (_build.SHOWN_LINES + 1, True)])
    def test_only_the_first_lines_are_shown(self, count: int, more: bool) -> None:
        lines, left_out = _build.shown("line\n" * count, "/b")
        assert (len(lines), left_out) == (_build.SHOWN_LINES, more)

    @pytest.mark.parametrize(
        ("output", "missing"),
        [
            ("a.c:1:10: fatal error: redismodule.h: No such file or directory", True),
            ("a.c:1:10: fatal error: ../redismodule.h: No such file or directory\ncompilation terminated.", True),
            ("a.c:1:10: fatal error: other.h: No such file or directory", False),
            ("redismodule.h:5: warning: x\nother: No such file", False),
            ("", False),
        ],
    )
    def test_a_missing_header_is_known(self, output: str, missing: bool) -> None:
        assert _build.missing_header(output) is missing


class TestLocating:
    """Where a user's relative path is looked for."""

    def test_the_first_folder_that_has_it(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, one__x="", two__x="", two__y="", here__z="")
        monkeypatch.chdir(tmp_path / "here")
        folders = [str(tmp_path / "one"), "", str(tmp_path / "two")]
        assert _build.locate("x", folders) == str(tmp_path / "one" / "x")
        assert _build.locate("./y", folders) == str(tmp_path / "two" / "y")
        assert _build.locate("z", folders) == str(tmp_path / "here" / "z")
        assert _build.locate("nowhere", folders) is None

    def test_an_absolute_path_is_looked_for_nowhere_else(self, tmp_path: Path) -> None:
        write(tmp_path, x="")
        assert _build.locate(str(tmp_path / "x"), ["/nowhere"]) == str(tmp_path / "x")
        assert _build.locate("/nowhere/x", [str(tmp_path)]) is None

    def test_the_home_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write(tmp_path, x="")
        monkeypatch.setenv("HOME", str(tmp_path))
        assert _build.locate("~/x", []) == str(tmp_path / "x")

    def test_each_folder_once_and_the_current_one_last(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        assert _build.search(["/a", "", "/b", "/a"]) == ["/a", "/b", str(tmp_path)]
