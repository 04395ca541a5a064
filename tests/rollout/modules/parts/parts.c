/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module of several files, that needs an include folder, two defines and libm. */
#include "redismodule.h"

#include "area.h"

#ifndef PARTS_SCALE
#error "PARTS_SCALE must be defined"
#endif

static int area_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    double radius;
    if (argc != 2) return RedisModule_WrongArity(ctx);
    if (RedisModule_StringToDouble(argv[1], &radius) != REDISMODULE_OK)
        return RedisModule_ReplyWithError(ctx, "ERR no number");
    return RedisModule_ReplyWithLongLong(ctx, (long long)(PARTS_SCALE * area(radius)));
}

static int label_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, PARTS_LABEL);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    (void)argc;
    if (RedisModule_Init(ctx, "parts", 3, REDISMODULE_APIVER_1) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, "parts.area", area_command, "readonly", 0, 0, 0) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, "parts.label", label_command, "readonly", 0, 0, 0) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return REDISMODULE_OK;
}
