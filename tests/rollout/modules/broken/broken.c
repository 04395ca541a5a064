/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Does not compile, on purpose. */
#include "redismodule.h"

int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    return this_is_not_declared_anywhere;
}
