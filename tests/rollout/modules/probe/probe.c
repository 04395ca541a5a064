/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module that tells what it was built and loaded with. Defines change it:
 * PROBE_NAME, PROBE_VERSION, PROBE_TEXT; PROBE_ERROR and PROBE_CRASH make its
 * OnLoad fail, PROBE_LIVE_ONLY only in the service itself, where no trial can
 * see it (Type=notify gives it a socket). With the argument "refuse" it refuses to load, too. */
#include "redismodule.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

#ifndef PROBE_NAME
#define PROBE_NAME probe
#endif
#ifndef PROBE_VERSION
#define PROBE_VERSION 1
#endif
#ifndef PROBE_TEXT
#define PROBE_TEXT first
#endif
#ifndef OWN_HEADER_MARK
#define OWN_HEADER_MARK "the server's header"
#endif
#define TEXT_OF(x) #x
#define TEXT(x) TEXT_OF(x)
#define NAME TEXT(PROBE_NAME)

static RedisModuleString **received;
static int received_count;

static int args_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    RedisModule_ReplyWithArray(ctx, received_count);
    for (int i = 0; i < received_count; i++) RedisModule_ReplyWithString(ctx, received[i]);
    return REDISMODULE_OK;
}

static int text_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, TEXT(PROBE_TEXT));
}

static int header_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, OWN_HEADER_MARK);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (RedisModule_Init(ctx, NAME, PROBE_VERSION, REDISMODULE_APIVER_1) != REDISMODULE_OK)
        return REDISMODULE_ERR;
#ifdef PROBE_CRASH
    raise(SIGSEGV);
#endif
#ifdef PROBE_ERROR
    RedisModule_Log(ctx, "warning", "probe is built to refuse");
    return REDISMODULE_ERR;
#endif
#ifdef PROBE_LIVE_ONLY
    if (getenv("NOTIFY_SOCKET")) {
        RedisModule_Log(ctx, "warning", "probe refuses the live server");
        return REDISMODULE_ERR;
    }
#endif
    received = RedisModule_Alloc(sizeof(*received) * (size_t)(argc + 1));
    received_count = argc;
    for (int i = 0; i < argc; i++) {
        if (strcmp(RedisModule_StringPtrLen(argv[i], NULL), "refuse") == 0) {
            RedisModule_Log(ctx, "warning", "probe refuses its argument number %d", i + 1);
            return REDISMODULE_ERR;
        }
        received[i] = RedisModule_CreateStringFromString(NULL, argv[i]);
    }
    if (RedisModule_CreateCommand(ctx, NAME ".args", args_command, "readonly", 0, 0, 0) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, NAME ".text", text_command, "readonly", 0, 0, 0) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, NAME ".header", header_command, "readonly", 0, 0, 0) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return REDISMODULE_OK;
}
