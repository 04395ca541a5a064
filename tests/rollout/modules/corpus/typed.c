/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module called NAME with a data type TYPE, a text in each key: NAME.set KEY TEXT and NAME.get KEY.
 *
 * ENCVER is the encoding that it writes, and the highest that it knows: from 2 on, a number stands before the text.
 * AUX=1 keeps a text beside the keys in the RDB. NO_SAVE, SAVE_NOTHING, LOAD_OTHER, LOAD_NULL and NO_TYPE are faults. */
#include "redismodule.h"

#include <string.h>

#if !defined(NAME) || !defined(TYPE)
#error "NAME and TYPE (nine characters) are strings"
#endif
#ifndef ENCVER
#define ENCVER 1
#endif

__attribute__((unused)) static RedisModuleType *type;

__attribute__((unused)) static void *load(RedisModuleIO *io, int encver) {
    if (encver > ENCVER) {
        RedisModule_LogIOError(io, "warning", NAME " knows encodings up to %d, the file has %d", ENCVER, encver);
        return NULL;
    }
#ifdef LOAD_NULL
    RedisModule_LogIOError(io, "warning", NAME " does not like this text");
    return NULL;
#endif
#ifdef LOAD_OTHER
    double number = RedisModule_LoadDouble(io);
    return RedisModule_CreateStringPrintf(NULL, "%f", number);
#endif
    if (encver >= 2) (void)RedisModule_LoadUnsigned(io);
#ifdef SAVE_NOTHING
    return RedisModule_CreateString(NULL, "", 0);
#endif
    return RedisModule_LoadString(io);
}

__attribute__((unused)) static void save(RedisModuleIO *io, void *value) {
    if (ENCVER >= 2) RedisModule_SaveUnsigned(io, 42);
#ifndef SAVE_NOTHING
    RedisModule_SaveString(io, value);
#else
    (void)value;
#endif
}

__attribute__((unused)) static void release(void *value) {
    RedisModule_FreeString(NULL, value);
}

__attribute__((unused)) static void rewrite(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    RedisModule_EmitAOF(aof, NAME ".set", "ss", key, (RedisModuleString *)value);
}

#ifdef AUX
static int aux_load(RedisModuleIO *io, int encver, int when) {
    (void)encver;
    (void)when;
    RedisModuleString *text = RedisModule_LoadString(io);
    if (!text) return REDISMODULE_ERR;
    RedisModule_FreeString(NULL, text);
    return REDISMODULE_OK;
}

static void aux_save(RedisModuleIO *io, int when) {
    (void)when;
    RedisModule_SaveStringBuffer(io, "beside", 6);
}
#endif

static int set_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 3) return RedisModule_WrongArity(ctx);
#ifndef NO_TYPE
    RedisModuleKey *key = RedisModule_OpenKey(ctx, argv[1], REDISMODULE_WRITE);
    RedisModule_RetainString(NULL, argv[2]);
    RedisModule_ModuleTypeSetValue(key, type, argv[2]);
    RedisModule_CloseKey(key);
    RedisModule_ReplicateVerbatim(ctx);
#endif
    return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

static int get_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (argc != 2) return RedisModule_WrongArity(ctx);
#ifndef NO_TYPE
    RedisModuleKey *key = RedisModule_OpenKey(ctx, argv[1], REDISMODULE_READ);
    if (key && RedisModule_ModuleTypeGetType(key) == type) {
        RedisModuleString *text = RedisModule_ModuleTypeGetValue(key);
        RedisModule_CloseKey(key);
        return RedisModule_ReplyWithString(ctx, text);
    }
    RedisModule_CloseKey(key);
#endif
    return RedisModule_ReplyWithNull(ctx);
}

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    (void)argc;
    if (RedisModule_Init(ctx, NAME, ENCVER, REDISMODULE_APIVER_1) != REDISMODULE_OK) return REDISMODULE_ERR;
#ifndef NO_TYPE
    RedisModuleTypeMethods methods = {
        .version = REDISMODULE_TYPE_METHOD_VERSION,
        .rdb_load = load,
#ifndef NO_SAVE
        .rdb_save = save,
#endif
        .aof_rewrite = rewrite,
        .free = release,
#ifdef AUX
        .aux_load = aux_load,
        .aux_save = aux_save,
        .aux_save_triggers = REDISMODULE_AUX_BEFORE_RDB,
#endif
    };
    type = RedisModule_CreateDataType(ctx, TYPE, ENCVER, &methods);
    if (!type) {
        RedisModule_Log(ctx, "warning", "the data type " TYPE " is taken");
        return REDISMODULE_ERR;
    }
#endif
    if (RedisModule_CreateCommand(ctx, NAME ".set", set_command, "write deny-oom", 1, 1, 1) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, NAME ".get", get_command, "readonly", 1, 1, 1) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return REDISMODULE_OK;
}
