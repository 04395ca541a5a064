# SPDX-License-Identifier: GPL-3.0-or-later
"""What the collection reads from machine code is what the source says, whichever compiler made it, and how."""

from __future__ import annotations

import importlib
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import HEADERS, INSIDE, REPOSITORY, SOURCES, SUITES, Builder, Image, Target

PROBE = """
#define REDISMODULE_EXPERIMENTAL_API
#include "redismodule.h"

static RedisModuleType *first, *second, *third;

static void *load(RedisModuleIO *io, int encver)
{
    (void)encver;
    return RedisModule_Alloc(RedisModule_LoadUnsigned(io) & 255);
}
static void save(RedisModuleIO *io, void *value) { (void)value; RedisModule_SaveUnsigned(io, 1); }
static void discard(void *value) { RedisModule_Free(value); }
static void tick(RedisModuleCtx *ctx, void *data) { RedisModule_CreateTimer(ctx, 100, tick, data); }

static int command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    if (argc != 2) return RedisModule_WrongArity(ctx);
    void *memory = RedisModule_Calloc(1, 10); /* what it returns is tested, not whether it is there */
    if (!memory) return RedisModule_ReplyWithNull(ctx);
    RedisModuleKey *key = RedisModule_OpenKey(ctx, argv[1], REDISMODULE_READ);
    if (RedisModule_ModuleTypeGetType(key) == first) RedisModule_ReplyWithLongLong(ctx, 1);
    RedisModule_CloseKey(key);
#ifdef NEWER
    NEWER;
#endif
    return REDISMODULE_OK;
}

__attribute__((visibility("default"))) int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc)
{
    (void)argv;
    if (RedisModule_Init(ctx, "probe", 300, REDISMODULE_APIVER_1) == REDISMODULE_ERR) return REDISMODULE_ERR;
    RedisModuleTypeMethods own = {.version = 1, .rdb_load = load, .rdb_save = save, .free = discard};
    first = RedisModule_CreateDataType(ctx, "probe-one", 0, &own);
    if (!first) return REDISMODULE_ERR;
    RedisModuleTypeMethods other = {.version = 1, .rdb_load = load, .free = discard};
    second = RedisModule_CreateDataType(ctx, "probe_TWO", 1023, &other);
    third = RedisModule_CreateDataType(ctx, "probe-333", argc, &other);
    if (!second || !third) return REDISMODULE_ERR;
    if (RMAPI_FUNC_SUPPORTED(RedisModule_SetModuleOptions)) RedisModule_SetModuleOptions(ctx, 1);
    RedisModule_CreateTimer(ctx, 100, tick, NULL);
    return RedisModule_CreateCommand(ctx, "probe.command", command, "write", 1, 1, 1);
}
"""
CALLED = {
    *("Alloc", "Calloc", "CloseKey", "CreateCommand", "CreateDataType", "CreateTimer", "Free", "LoadUnsigned"),
    *("ModuleTypeGetType", "OpenKey", "ReplyWithLongLong", "ReplyWithNull", "SaveUnsigned", "SetModuleAttribs"),
    "WrongArity",
}
GUARDED = {"IsModuleNameBusy", "SetModuleOptions"}
TYPES = (("probe-333", None), ("probe-one", 0), ("probe_TWO", 1023))

WAYS = {
    "O0": ["-O0", "-g"],
    "O2": ["-O2", "-g"],
    "O2-stripped": ["-O2", "-s"],
    "O2-hardened": ["-O2", "-D_FORTIFY_SOURCE=2", "-fstack-protector-strong", "-fcf-protection", "-Wl,-z,relro,-z,now"],
    "Os": ["-Os"],
    "O0-hidden": ["-O0", "-fvisibility=hidden", "-s"],
    "O2-hidden": ["-O2", "-fvisibility=hidden", "-s"],
    "O3-symbolic": ["-O3", "-Wl,-Bsymbolic", "-s"],
}
NEWER = {"7.0.15": "RedisModule_Yield(ctx, 0, 0)", "8.0.2": "RedisModule_RdbStreamFree(0)"}
"""A call that servers before this version do not have."""


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the module that reads, imported from this checkout."""
    root = tmp_path_factory.mktemp("collections")
    (root / "ansible_collections/edgeops").mkdir(parents=True)
    (root / "ansible_collections/edgeops/redis_modules").symlink_to(REPOSITORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [str(root), *sys.path])
        patch.setattr(sys, "dont_write_bytecode", True)
        yield importlib.import_module("ansible_collections.edgeops.redis_modules.plugins.module_utils._calls")


def compile_probe(target: Target, folder: Path, *flags: str) -> Path:
    """Build the probe in the image."""
    shutil.copy(HEADERS / target.header / "redismodule.h", folder)
    (folder / "probe.c").write_text(PROBE, encoding="utf-8")
    names = ["-o", str(INSIDE / "probe.so"), str(INSIDE / "probe.c")]
    Builder.gcc(target, folder, ["gcc", "-std=gnu99", "-fPIC", "-shared", *flags, *names])
    return folder / "probe.so"


def short(names: frozenset[str]) -> set[str]:
    """Return the names without what all have in common."""
    return {name.removeprefix("RedisModule_") for name in names}


def server(image: Image) -> str:
    """Return the path of the image's redis-server, as seen from here."""
    return str(image.root / "usr/bin/redis-server")


@pytest.mark.parametrize("way", WAYS)
def test_the_calls_are_those_of_the_source(target: Target, way: str, tmp_path: Path, calls: Any) -> None:
    found = calls.read(str(compile_probe(target, tmp_path, *WAYS[way])))
    assert (short(found.functions), short(found.guarded), found.types) == (CALLED, GUARDED, TYPES)
    assert calls.missing(found, calls.server_functions(server(target.image))) == []


@pytest.mark.parametrize("visibility", ["default", "hidden"])
@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_an_older_server_lacks_what_is_called_without_asking(
    suite: str, visibility: str, tmp_path: Path, calls: Any
) -> None:
    target = Target(Image(suite), SUITES[suite])
    call = NEWER[target.header]
    name = call.split("(")[0]
    older = calls.server_functions(server(Image("bullseye")))
    flags = ("-O2", f"-fvisibility={visibility}")

    unguarded = calls.read(str(compile_probe(target, tmp_path, *flags, f"-DNEWER={call}")))
    assert calls.missing(unguarded, older) == [name]
    assert calls.missing(unguarded, calls.server_functions(server(target.image))) == []

    asks = f"-DNEWER=if (RMAPI_FUNC_SUPPORTED({name})) {call}"
    guarded = calls.read(str(compile_probe(target, tmp_path, *flags, asks)))
    assert calls.missing(guarded, older) == []
    assert name in guarded.guarded


def test_the_example_module(target: Target, build: Builder, calls: Any) -> None:
    found = calls.read(str(build(target)))
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES.glob("*.c"))
    text = re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)
    named = {f"RedisModule_{name}" for name in re.findall(r"\bRedisModule_(\w+)", text)}
    named -= {"RedisModule_Init", "RedisModule_OnLoad", "RedisModule_OnUnload"}
    assert found.functions == named | {"RedisModule_SetModuleAttribs"}
    assert found.guarded == {"RedisModule_IsModuleNameBusy"}
    assert found.types == (("sensorwin", 2),)
