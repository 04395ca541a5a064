/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Answers the arguments that it was loaded with, byte by byte. */
#include "redismodule.h"

static RedisModuleString **arguments;
static int count;

static int list_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    RedisModule_ReplyWithArray(ctx, count);
    for (int i = 0; i < count; i++) RedisModule_ReplyWithString(ctx, arguments[i]);
    return REDISMODULE_OK;
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (RedisModule_Init(ctx, "argecho", 7, REDISMODULE_APIVER_1) != REDISMODULE_OK) return REDISMODULE_ERR;
    arguments = RedisModule_Alloc(sizeof(*arguments) * (size_t)(argc + 1));
    count = argc;
    for (int i = 0; i < argc; i++) arguments[i] = RedisModule_CreateStringFromString(NULL, argv[i]);
    return RedisModule_CreateCommand(ctx, "argecho.list", list_command, "readonly fast", 0, 0, 0);
}
