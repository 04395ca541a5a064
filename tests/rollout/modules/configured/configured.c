/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module with a directive of its own, configured.greeting (Redis 7.0 and later). */
#include "redismodule.h"

static RedisModuleString *greeting;

static RedisModuleString *get_greeting(const char *name, void *data) {
    (void)name;
    (void)data;
    return greeting;
}

static int set_greeting(const char *name, RedisModuleString *value, void *data, RedisModuleString **error) {
    (void)name;
    (void)data;
    (void)error;
    if (greeting) RedisModule_FreeString(NULL, greeting);
    RedisModule_RetainString(NULL, value);
    greeting = value;
    return REDISMODULE_OK;
}

static int greet_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithString(ctx, greeting);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    (void)argc;
    if (RedisModule_Init(ctx, "configured", 6, REDISMODULE_APIVER_1) != REDISMODULE_OK ||
        RedisModule_RegisterStringConfig(ctx, "greeting", "hello", REDISMODULE_CONFIG_DEFAULT, get_greeting, set_greeting,
                                         NULL, NULL) != REDISMODULE_OK ||
        RedisModule_LoadConfigs(ctx) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, "configured.greet", greet_command, "readonly", 0, 0, 0) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return REDISMODULE_OK;
}
