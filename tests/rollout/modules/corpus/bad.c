/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A module called NAME with the commands NAME.ping and NAME.do, and one fault, which a define chooses.
 * corpus.py says which one belongs to which case. */
#include "redismodule.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef NAME
#error "NAME is the name that the module gives itself, as a string"
#endif
#ifndef VERSION
#define VERSION 1
#endif

#define MEGABYTE ((size_t)1024 * 1024)

#if defined(UNDEFINED_SYMBOL) || defined(MISSING_NEEDED)
int corpus_is_nowhere(void);
#endif
#ifdef NEWER_GLIBC
size_t strlcpy(char *to, const char *from, size_t size);
#endif
#if defined(API_IN_ONLOAD) || defined(API_IN_COMMAND)
/* No server has it; a header that is newer than the server looks just so. */
REDISMODULE_API int (*RedisModule_NoSuchThing)(RedisModuleCtx *ctx);
#endif
#ifdef API_OF_72
REDISMODULE_API void (*RedisModule_RegisterAuthCallback)(RedisModuleCtx *ctx, void *callback);
#endif

static volatile char *held;

/* Memory that is really there, and that Redis does not count. */
__attribute__((unused)) static void take_memory(void) {
    size_t size = 200 * MEGABYTE;
    held = malloc(size);
    if (held)
        for (size_t i = 0; i < size; i += 4096) held[i] = 1;
}

#if defined(ONLOAD_FORK) || defined(COMMAND_FORK)
/* It ends when it is told to. One that keeps Redis' own handler does not, and Debian's units wait for it for ever. */
static void leave_child(void) {
    if (fork() == 0) {
        signal(SIGTERM, SIG_DFL);
        for (;;) pause();
    }
}
#endif

#ifdef STACK_OVERFLOW
static __attribute__((noinline)) int deeper(int depth) {
    volatile char room[4096];
    room[0] = (char)depth;
    return deeper(depth + 1) + room[0];
}
#endif

#ifdef WRITES_OUTSIDE
/* Returns whether the file can be written to; what is there is kept. */
static int writes(RedisModuleCtx *ctx, const char *path) {
    int file = open(path, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (file < 0 || write(file, "corpus was here\n", 16) != 16) {
        RedisModule_Log(ctx, "warning", "can't write %s: %s", path, strerror(errno));
        return 0;
    }
    return close(file) == 0;
}
#endif

#ifdef CONSTRUCTOR_CRASH
__attribute__((constructor)) static void before_anything(void) {
    *(volatile int *)8 = 1;
}
#endif
#ifdef CONSTRUCTOR_EXIT
__attribute__((constructor)) static void before_anything(void) {
    fprintf(stderr, "corpus: no license for this host\n");
    exit(3);
}
#endif

static int ping_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    if (argc != 1) return RedisModule_WrongArity(ctx);
    return RedisModule_ReplyWithSimpleString(ctx, "PONG");
}

static int do_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)argv;
    (void)argc;
#ifdef COMMAND_CRASH
    *(volatile int *)8 = 1;
#endif
#ifdef COMMAND_EXIT
    exit(0);
#endif
#ifdef COMMAND_HANG
    for (;;) pause();
#endif
#ifdef COMMAND_MEMORY
    take_memory();
#endif
#ifdef COMMAND_FORK
    leave_child();
#endif
#ifdef API_IN_COMMAND
    RedisModule_NoSuchThing(ctx);
#endif
#ifdef API_OF_72
    RedisModule_RegisterAuthCallback(ctx, NULL);
#endif
    return RedisModule_ReplyWithSimpleString(ctx, "done");
}

/* Everything that goes wrong before there is a command. */
static int fault(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    (void)ctx;
    (void)argv;
    (void)argc;
#ifdef ONLOAD_ERROR
    RedisModule_Log(ctx, "warning", "the sensor bus does not answer");
    return REDISMODULE_ERR;
#endif
#ifdef ONLOAD_SILENT
    return REDISMODULE_ERR;
#endif
#ifdef ONLOAD_CRASH
    *(volatile int *)8 = 1;
#endif
#ifdef ONLOAD_ABORT
    abort();
#endif
#ifdef ONLOAD_HANG
    for (;;) pause();
#endif
#ifdef ONLOAD_EXIT
    exit(0);
#endif
#ifdef ONLOAD_MEMORY
    take_memory();
#endif
#ifdef ONLOAD_FORK
    leave_child();
#endif
#ifdef STACK_OVERFLOW
    return deeper(argc);
#endif
#ifdef ENDLESS_LOG
    for (;;) RedisModule_Log(ctx, "warning", "still waiting for the sensor bus, which is a long story to tell");
#endif
#ifdef ENDLESS_OUTPUT
    for (;;) fprintf(stderr, "still waiting for the sensor bus, which is a long story to tell\n");
#endif
#ifdef NEEDS_ARGUMENT
    if (argc != 1) {
        RedisModule_Log(ctx, "warning", "give the size of the cache as the argument, got %d arguments", argc);
        return REDISMODULE_ERR;
    }
    long long size;
    if (RedisModule_StringToLongLong(argv[0], &size) != REDISMODULE_OK) {
        RedisModule_Log(ctx, "warning", "the size of the cache is no number: %s",
                        RedisModule_StringPtrLen(argv[0], NULL));
        return REDISMODULE_ERR;
    }
#endif
#ifdef WRITES_OUTSIDE
    int wrote = writes(ctx, "/etc/redis/corpus-was-here") + writes(ctx, "/var/lib/redis/corpus-was-here") +
                writes(ctx, "/var/lib/redis/dump.rdb");
    if (wrote < 3) return REDISMODULE_ERR;
#endif
#ifdef API_IN_ONLOAD
    RedisModule_NoSuchThing(ctx);
#endif
#if defined(UNDEFINED_SYMBOL) || defined(MISSING_NEEDED)
    if (corpus_is_nowhere()) return REDISMODULE_ERR;
#endif
#ifdef NEWER_GLIBC
    static char copy[16];
    strlcpy(copy, NAME, sizeof(copy));
#endif
    return REDISMODULE_OK;
}

#ifdef HIDDEN
#define EXPORTED __attribute__((visibility("hidden")))
#else
#define EXPORTED
#endif
#ifndef ONLOAD
#define ONLOAD RedisModule_OnLoad
#endif

EXPORTED int ONLOAD(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
#ifdef NO_INIT
    return REDISMODULE_OK;
#endif
    if (RedisModule_Init(ctx, NAME, VERSION, REDISMODULE_APIVER_1) != REDISMODULE_OK) return REDISMODULE_ERR;
#if defined(API_IN_ONLOAD) || defined(API_IN_COMMAND)
    RedisModule_GetApi("RedisModule_NoSuchThing", &RedisModule_NoSuchThing);
#endif
#ifdef API_OF_72
    RedisModule_GetApi("RedisModule_RegisterAuthCallback", &RedisModule_RegisterAuthCallback);
#endif
    if (fault(ctx, argv, argc) != REDISMODULE_OK) return REDISMODULE_ERR;
#ifdef TAKES
    if (RedisModule_CreateCommand(ctx, TAKES, ping_command, "readonly", 0, 0, 0) != REDISMODULE_OK) return REDISMODULE_ERR;
#endif
    if (RedisModule_CreateCommand(ctx, NAME ".ping", ping_command, "readonly", 0, 0, 0) != REDISMODULE_OK ||
        RedisModule_CreateCommand(ctx, NAME ".do", do_command, "write", 0, 0, 0) != REDISMODULE_OK)
        return REDISMODULE_ERR;
    return REDISMODULE_OK;
}
