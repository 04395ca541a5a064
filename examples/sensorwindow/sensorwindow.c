/* SPDX-License-Identifier: GPL-3.0-or-later */
/* sensorwindow: a Redis data type for the recent samples of one sensor, which
 * takes the same sample any number of times, in any order, and answers
 * aggregates at the data. README.md describes the commands.
 *
 * Only what Redis 6.0's redismodule.h declares is used, so that one build
 * loads on 6.0 and everything after it.
 */
#ifndef REDISMODULE_EXPERIMENTAL_API
#define REDISMODULE_EXPERIMENTAL_API /* BlockClient and MallocSize, in 6.0's header */
#endif
#include "redismodule.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <strings.h>

#include "window.h"

/* Release 2 adds a quality to each sample. It reads what release 1 saved;
 * release 1 refuses what release 2 saved. */
#ifndef SENSORWINDOW_RELEASE
#define SENSORWINDOW_RELEASE 2
#endif
#if SENSORWINDOW_RELEASE == 1
#define MODULE_VERSION 10000
#define ENCODING_VERSION 1
#elif SENSORWINDOW_RELEASE == 2
#define MODULE_VERSION 20000
#define ENCODING_VERSION 2
#else
#error "SENSORWINDOW_RELEASE must be 1 or 2"
#endif

/* 6.0's header lacks this flag, and 6.0 never sets it. */
#ifndef REDISMODULE_CTX_FLAGS_DENY_BLOCKING
#define REDISMODULE_CTX_FLAGS_DENY_BLOCKING (1 << 21)
#endif
#define NO_BLOCKING                                                                               \
    (REDISMODULE_CTX_FLAGS_MULTI | REDISMODULE_CTX_FLAGS_LUA | REDISMODULE_CTX_FLAGS_DENY_BLOCKING)

#define EXPORTED __attribute__((visibility("default")))

#define QUANTILES_MAX 32         /* quantiles in one query */
#define THREAD_FROM_SAMPLES 8192 /* smaller queries cost less than a thread's switch */

#define ERR_SYNTAX "ERR syntax error"
#define ERR_TIMESTAMP "ERR timestamp is not an integer of 0 or more (milliseconds)"
#define ERR_VALUE "ERR value is not a finite number between -1e150 and 1e150"
#define ERR_QUALITY "ERR quality is not one of good, uncertain, bad"
#define ERR_BOUND "ERR bound is not a timestamp, -, +, or a negative offset from the newest sample"
#define ERR_COUNT "ERR COUNT is not an integer of 1 or more"
#define ERR_RETENTION "ERR RETENTION-MS is not an integer of 0 or more"
#define ERR_MAX_SAMPLES "ERR MAX-SAMPLES is not an integer from 1 to 16777216"
#define ERR_POLICY "ERR ON-CONFLICT is not KEEP or REPLACE"
#define ERR_QUANTILE "ERR quantile is not a number from 0 to 1"
#define ERR_QUANTILES "ERR too many quantiles, at most 32 in one query"
#define ERR_AHEAD "ERR timestamp is further ahead of this server's clock than max-ahead-ms allows"
#define ERR_WAITING "ERR too many quantile queries are waiting, try again later"

static RedisModuleType *sensor_type;

/* What the module's arguments set; constant once it is loaded. */
static window_settings defaults = {
    .retention_ms = 24 * 60 * 60 * 1000,
    .max_samples = 100000,
    .policy = WINDOW_KEEP,
};
static long long max_ahead_ms = 0; /* 0: no limit */
static long long max_waiting = 32;

/* ---- Words ---- */

static const char *const policy_names[WINDOW_POLICIES] = {
    [WINDOW_KEEP] = "KEEP",
    [WINDOW_REPLACE] = "REPLACE",
};

static const char *const result_names[WINDOW_RESULTS] = {
    [WINDOW_ADDED] = "added",         [WINDOW_REPLACED] = "replaced",
    [WINDOW_DUPLICATE] = "duplicate", [WINDOW_CONFLICT] = "conflict",
    [WINDOW_EXPIRED] = "expired",
};

#if SENSORWINDOW_RELEASE >= 2
static const char *const quality_names[WINDOW_QUALITIES] = {
    [WINDOW_GOOD] = "good",
    [WINDOW_UNCERTAIN] = "uncertain",
    [WINDOW_BAD] = "bad",
};
#endif

static bool is_word(const RedisModuleString *string, const char *word) {
    size_t length;
    const char *text = RedisModule_StringPtrLen(string, &length);
    return length == strlen(word) && !strncasecmp(text, word, length);
}

static int find_word(const RedisModuleString *string, const char *const *words, int count) {
    for (int i = 0; i < count; i++)
        if (is_word(string, words[i])) return i;
    return -1;
}

static bool is_integer(const RedisModuleString *string, long long min, long long max,
                       long long *number) {
    return RedisModule_StringToLongLong(string, number) == REDISMODULE_OK && *number >= min &&
           *number <= max;
}

/* ---- Arguments ---- */

/* The readers below return NULL, or the error to answer. */

static const char *read_sample(RedisModuleString *const argv[2], window_sample *sample) {
    long long timestamp;
    if (!is_integer(argv[0], 0, INT64_MAX, &timestamp)) return ERR_TIMESTAMP;
    double value;
    if (RedisModule_StringToDouble(argv[1], &value) != REDISMODULE_OK ||
        !(value >= -WINDOW_MAX_VALUE && value <= WINDOW_MAX_VALUE))
        return ERR_VALUE;
    sample->timestamp = timestamp;
    sample->value = value + 0.0; /* -0 becomes 0 */
    return NULL;
}

#if SENSORWINDOW_RELEASE >= 2
/* The word and the quality after it, if they are next. */
static const char *read_quality(RedisModuleString **argv, int argc, int *next, const char *word,
                                uint8_t *quality) {
    if (*next >= argc || !is_word(argv[*next], word)) return NULL;
    if (*next + 1 >= argc) return ERR_SYNTAX;
    int found = find_word(argv[*next + 1], quality_names, WINDOW_QUALITIES);
    if (found < 0) return ERR_QUALITY;
    *quality = (uint8_t)found;
    *next += 2;
    return NULL;
}
#endif

/* A range of timestamps, both ends included. A bound is a timestamp, "-" or "+"
 * for no bound, or a negative number: milliseconds before the newest sample.
 * After "(", the bound itself is left out. */
static const char *read_bound(const RedisModuleString *string, const window *w, int step,
                              int64_t *bound) {
    size_t length;
    const char *text = RedisModule_StringPtrLen(string, &length);
    if (length == 1 && (*text == '-' || *text == '+')) {
        *bound = *text == '-' ? 0 : INT64_MAX;
        return NULL;
    }
    bool open = length && *text == '(';
    RedisModuleString *digits = RedisModule_CreateString(NULL, text + open, length - open);
    long long number;
    int parsed = RedisModule_StringToLongLong(digits, &number);
    RedisModule_FreeString(NULL, digits);
    if (parsed != REDISMODULE_OK) return ERR_BOUND;
    if (number < 0 && w && window_length(w)) number += window_newest(w).timestamp;
    if (open && number == INT64_MAX && step > 0) return ERR_BOUND;
    if (open && number == INT64_MIN && step < 0) return ERR_BOUND;
    *bound = open ? number + step : number;
    return NULL;
}

static const char *read_range(RedisModuleString *const argv[2], const window *w, int64_t *from,
                              int64_t *to) {
    const char *error = read_bound(argv[0], w, 1, from);
    return error ? error : read_bound(argv[1], w, -1, to);
}

/* ---- Keys ---- */

/* Opens the key; *w is its window, or NULL for a key that does not exist. */
static const char *open_window(RedisModuleCtx *ctx, RedisModuleString *name, int mode,
                               RedisModuleKey **key, window **w) {
    *key = RedisModule_OpenKey(ctx, name, mode);
    *w = NULL;
    if (RedisModule_KeyType(*key) == REDISMODULE_KEYTYPE_EMPTY) return NULL;
    if (RedisModule_ModuleTypeGetType(*key) != sensor_type) return REDISMODULE_ERRORMSG_WRONGTYPE;
    *w = RedisModule_ModuleTypeGetValue(*key);
    return NULL;
}

/* Replicas and the AOF get every setting spelt out, because the defaults come
 * from module arguments, which may differ there. */
static void replicate_settings(RedisModuleCtx *ctx, RedisModuleString *name,
                               const window_settings *settings) {
    RedisModule_Replicate(ctx, "SENSORWINDOW.CONFIG", "sclclcc", name, "RETENTION-MS",
                          (long long)settings->retention_ms, "MAX-SAMPLES",
                          (long long)settings->max_samples, "ON-CONFLICT",
                          policy_names[settings->policy]);
}

/* ---- Writing ---- */

/* SENSORWINDOW.CONFIG key [RETENTION-MS ms] [MAX-SAMPLES n] [ON-CONFLICT KEEP|REPLACE] */
static int config_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 2) return RedisModule_WrongArity(ctx);
    RedisModuleKey *key;
    window *w;
    const char *error = open_window(ctx, argv[1], REDISMODULE_READ | REDISMODULE_WRITE, &key, &w);
    if (error) return RedisModule_ReplyWithError(ctx, error);

    window_settings settings = w ? *window_get_settings(w) : defaults;
    for (int i = 2; i < argc; i += 2) {
        if (i + 1 == argc) return RedisModule_ReplyWithError(ctx, ERR_SYNTAX);
        long long number;
        if (is_word(argv[i], "RETENTION-MS")) {
            if (!is_integer(argv[i + 1], 0, INT64_MAX, &number))
                return RedisModule_ReplyWithError(ctx, ERR_RETENTION);
            settings.retention_ms = number;
        } else if (is_word(argv[i], "MAX-SAMPLES")) {
            if (!is_integer(argv[i + 1], 1, WINDOW_MAX_SAMPLES, &number))
                return RedisModule_ReplyWithError(ctx, ERR_MAX_SAMPLES);
            settings.max_samples = (uint64_t)number;
        } else if (is_word(argv[i], "ON-CONFLICT")) {
            int policy = find_word(argv[i + 1], policy_names, WINDOW_POLICIES);
            if (policy < 0) return RedisModule_ReplyWithError(ctx, ERR_POLICY);
            settings.policy = (window_policy)policy;
        } else {
            return RedisModule_ReplyWithError(ctx, ERR_SYNTAX);
        }
    }

    const window_settings *current = w ? window_get_settings(w) : NULL;
    if (!current || current->retention_ms != settings.retention_ms ||
        current->max_samples != settings.max_samples || current->policy != settings.policy) {
        if (w)
            window_set_settings(w, &settings);
        else
            RedisModule_ModuleTypeSetValue(key, sensor_type, window_new(&settings));
        RedisModule_SignalModifiedKey(ctx, argv[1]);
        replicate_settings(ctx, argv[1], &settings);
    }
    return RedisModule_ReplyWithSimpleString(ctx, "OK");
}

/* Only a primary's own clients are held to its clock: what it has accepted is
 * applied by replicas and from the AOF, whatever their clocks say. */
static bool is_ahead(RedisModuleCtx *ctx, int64_t timestamp) {
    int flags = RedisModule_GetContextFlags(ctx);
    if (!max_ahead_ms || !(flags & REDISMODULE_CTX_FLAGS_MASTER) ||
        (flags & REDISMODULE_CTX_FLAGS_LOADING))
        return false;
    return timestamp - max_ahead_ms > RedisModule_Milliseconds();
}

/* Adds all samples, or returns an error and adds none. Creates the window where
 * needed, and replicates only what changed something. Fills `results` with a
 * number for each window_result. */
static const char *add_samples(RedisModuleCtx *ctx, RedisModuleString *name,
                               const window_sample *samples, size_t count,
                               uint64_t results[WINDOW_RESULTS]) {
    RedisModuleKey *key;
    window *w;
    const char *error = open_window(ctx, name, REDISMODULE_READ | REDISMODULE_WRITE, &key, &w);
    if (error) return error;
    int64_t newest = 0;
    for (size_t i = 0; i < count; i++)
        if (samples[i].timestamp > newest) newest = samples[i].timestamp;
    if (is_ahead(ctx, newest)) return ERR_AHEAD;

    if (!w) {
        w = window_new(&defaults);
        RedisModule_ModuleTypeSetValue(key, sensor_type, w);
        replicate_settings(ctx, name, &defaults);
    }
    memset(results, 0, WINDOW_RESULTS * sizeof(*results));
    for (size_t i = 0; i < count; i++) results[window_add(w, &samples[i])]++;
    if (results[WINDOW_ADDED] || results[WINDOW_REPLACED]) {
        RedisModule_SignalModifiedKey(ctx, name);
        RedisModule_ReplicateVerbatim(ctx);
    }
    return NULL;
}

/* SENSORWINDOW.ADD key timestamp value [QUALITY good|uncertain|bad] */
static int add_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 4) return RedisModule_WrongArity(ctx);
    window_sample sample = {.quality = WINDOW_GOOD};
    const char *error = read_sample(argv + 2, &sample);
    int next = 4;
#if SENSORWINDOW_RELEASE >= 2
    if (!error) error = read_quality(argv, argc, &next, "QUALITY", &sample.quality);
#endif
    if (!error && next != argc) error = ERR_SYNTAX;
    if (error) return RedisModule_ReplyWithError(ctx, error);

    uint64_t results[WINDOW_RESULTS];
    error = add_samples(ctx, argv[1], &sample, 1, results);
    if (error) return RedisModule_ReplyWithError(ctx, error);
    int result = 0;
    while (!results[result]) result++;
    return RedisModule_ReplyWithSimpleString(ctx, result_names[result]);
}

/* SENSORWINDOW.MADD key [QUALITY good|uncertain|bad] timestamp value [timestamp value ...] */
static int madd_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 4) return RedisModule_WrongArity(ctx);
    int next = 2;
    uint8_t quality = WINDOW_GOOD;
    const char *error = NULL;
#if SENSORWINDOW_RELEASE >= 2
    error = read_quality(argv, argc, &next, "QUALITY", &quality);
    if (error) return RedisModule_ReplyWithError(ctx, error);
#endif
    if (next == argc || (argc - next) % 2) return RedisModule_WrongArity(ctx);

    size_t count = (size_t)(argc - next) / 2;
    window_sample *samples = RedisModule_Alloc(count * sizeof(*samples));
    for (size_t i = 0; !error && i < count; i++) {
        samples[i].quality = quality;
        error = read_sample(argv + next + 2 * i, &samples[i]);
    }
    uint64_t results[WINDOW_RESULTS];
    if (!error) error = add_samples(ctx, argv[1], samples, count, results);
    RedisModule_Free(samples);
    if (error) return RedisModule_ReplyWithError(ctx, error);
    RedisModule_ReplyWithArray(ctx, 2 * WINDOW_RESULTS);
    for (int i = 0; i < WINDOW_RESULTS; i++) {
        RedisModule_ReplyWithCString(ctx, result_names[i]);
        RedisModule_ReplyWithLongLong(ctx, (long long)results[i]);
    }
    return REDISMODULE_OK;
}

/* ---- Reading ---- */

static void reply_with_number(RedisModuleCtx *ctx, const char *name, bool known, double number) {
    RedisModule_ReplyWithCString(ctx, name);
    if (known)
        RedisModule_ReplyWithDouble(ctx, number);
    else
        RedisModule_ReplyWithNull(ctx);
}

static void reply_with_timestamp(RedisModuleCtx *ctx, const char *name, bool known,
                                 int64_t timestamp) {
    RedisModule_ReplyWithCString(ctx, name);
    if (known)
        RedisModule_ReplyWithLongLong(ctx, timestamp);
    else
        RedisModule_ReplyWithNull(ctx);
}

/* SENSORWINDOW.INFO key */
static int info_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc != 2) return RedisModule_WrongArity(ctx);
    RedisModuleKey *key;
    window *w;
    const char *error = open_window(ctx, argv[1], REDISMODULE_READ, &key, &w);
    if (error) return RedisModule_ReplyWithError(ctx, error);
    if (!w) return RedisModule_ReplyWithNull(ctx);

    const window_settings *settings = window_get_settings(w);
    RedisModule_ReplyWithArray(ctx, 2 * 8);
    RedisModule_ReplyWithCString(ctx, "retention-ms");
    RedisModule_ReplyWithLongLong(ctx, settings->retention_ms);
    RedisModule_ReplyWithCString(ctx, "max-samples");
    RedisModule_ReplyWithLongLong(ctx, (long long)settings->max_samples);
    RedisModule_ReplyWithCString(ctx, "on-conflict");
    RedisModule_ReplyWithCString(ctx, policy_names[settings->policy]);
    RedisModule_ReplyWithCString(ctx, "samples");
    RedisModule_ReplyWithLongLong(ctx, (long long)window_length(w));
    bool any = window_length(w) > 0;
    reply_with_timestamp(ctx, "oldest", any, any ? window_oldest(w).timestamp : 0);
    reply_with_timestamp(ctx, "newest", any, any ? window_newest(w).timestamp : 0);
    RedisModule_ReplyWithCString(ctx, "chunks");
    RedisModule_ReplyWithLongLong(ctx, (long long)window_chunks(w));
    RedisModule_ReplyWithCString(ctx, "bytes");
    RedisModule_ReplyWithLongLong(ctx, (long long)window_memory(w, RedisModule_MallocSize));
    return REDISMODULE_OK;
}

/* SENSORWINDOW.STATS key from to [MIN-QUALITY good|uncertain|bad] */
static int stats_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 4) return RedisModule_WrongArity(ctx);
    RedisModuleKey *key;
    window *w;
    int64_t from, to;
    int next = 4;
    uint8_t worst = WINDOW_BAD;
    const char *error = open_window(ctx, argv[1], REDISMODULE_READ, &key, &w);
    if (!error) error = read_range(argv + 2, w, &from, &to);
#if SENSORWINDOW_RELEASE >= 2
    if (!error) error = read_quality(argv, argc, &next, "MIN-QUALITY", &worst);
#endif
    if (!error && next != argc) error = ERR_SYNTAX;
    if (error) return RedisModule_ReplyWithError(ctx, error);

    window_stats stats = {0};
    if (w) stats = window_get_stats(w, from, to, worst);
    bool any = stats.count > 0;
    RedisModule_ReplyWithArray(ctx, 2 * 11);
    RedisModule_ReplyWithCString(ctx, "count");
    RedisModule_ReplyWithLongLong(ctx, (long long)stats.count);
    reply_with_timestamp(ctx, "first-timestamp", any, stats.first.timestamp);
    reply_with_number(ctx, "first", any, stats.first.value);
    reply_with_timestamp(ctx, "last-timestamp", any, stats.last.timestamp);
    reply_with_number(ctx, "last", any, stats.last.value);
    reply_with_number(ctx, "min", any, stats.min);
    reply_with_number(ctx, "max", any, stats.max);
    reply_with_number(ctx, "sum", any, stats.sum);
    reply_with_number(ctx, "mean", any, stats.mean);
    reply_with_number(ctx, "stddev", any, stats.stddev);
    reply_with_number(ctx, "rate", stats.count >= 2, stats.rate);
    return REDISMODULE_OK;
}

/* SENSORWINDOW.RANGE key from to [MIN-QUALITY good|uncertain|bad] [COUNT n] [WITHQUALITY] */
static int range_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 4) return RedisModule_WrongArity(ctx);
    RedisModuleKey *key;
    window *w;
    int64_t from, to;
    int next = 4;
    uint8_t worst = WINDOW_BAD;
    long long limit = INT64_MAX;
    bool with_quality = false;
    const char *error = open_window(ctx, argv[1], REDISMODULE_READ, &key, &w);
    if (!error) error = read_range(argv + 2, w, &from, &to);
    while (!error && next < argc) {
        int option = next;
        if (next + 1 < argc && is_word(argv[next], "COUNT")) {
            if (!is_integer(argv[next + 1], 1, INT64_MAX, &limit)) error = ERR_COUNT;
            next += 2;
        }
#if SENSORWINDOW_RELEASE >= 2
        else if (is_word(argv[next], "WITHQUALITY")) {
            with_quality = true;
            next++;
        } else {
            error = read_quality(argv, argc, &next, "MIN-QUALITY", &worst);
        }
#endif
        if (!error && next == option) error = ERR_SYNTAX;
    }
    if (error) return RedisModule_ReplyWithError(ctx, error);
    if (!w) return RedisModule_ReplyWithArray(ctx, 0);

    long replied = 0;
    window_span span;
    window_cursor cursor = window_seek(w, from, to);
    RedisModule_ReplyWithArray(ctx, REDISMODULE_POSTPONED_ARRAY_LEN);
    while (replied < limit && window_next(&cursor, &span)) {
        for (size_t i = 0; i < span.count && replied < limit; i++) {
            if (span.qualities[i] > worst) continue;
            RedisModule_ReplyWithArray(ctx, with_quality ? 3 : 2);
            RedisModule_ReplyWithLongLong(ctx, span.timestamps[i]);
            RedisModule_ReplyWithDouble(ctx, span.values[i]);
#if SENSORWINDOW_RELEASE >= 2
            if (with_quality) RedisModule_ReplyWithCString(ctx, quality_names[span.qualities[i]]);
#endif
            replied++;
        }
    }
    RedisModule_ReplySetArrayLength(ctx, replied);
    return REDISMODULE_OK;
}

/* ---- Quantiles, on a thread ----
 *
 * Sorting a large window would hold up every other client, so one worker
 * thread, started by the first query that needs it, does it. The query waits
 * in a queue of at most max_waiting; the worker takes the server's lock only
 * to copy the values out. Its client is answered by the server's own thread,
 * through the blocked client's callbacks, which also free the query.
 */

typedef struct query {
    struct query *next;
    RedisModuleBlockedClient *client; /* NULL: answered at once, no thread */
    RedisModuleString *name;          /* this query's own copy */
    int64_t from, to;
    uint8_t worst;
    int quantile_count;
    double quantiles[QUANTILES_MAX]; /* the questions, then the answers */
    size_t count;                    /* samples that were looked at */
    const char *error;
    int cancelled; /* the client is gone */
} query;

static struct {
    pthread_mutex_t lock;
    pthread_cond_t work;
    query *first, **end; /* the first one is the one being worked on */
    long long waiting;
    bool running;
    unsigned long long threaded, inlined, cancelled, refused; /* for INFO */
} worker = {
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .work = PTHREAD_COND_INITIALIZER,
    .end = &worker.first,
};

static void count_one(unsigned long long *counter) {
    __atomic_fetch_add(counter, 1, __ATOMIC_RELAXED);
}

/* Copies the values that a query asks for. Needs the server's lock. */
static double *copy_values(const window *w, query *q) {
    if (!w) return NULL;
    uint64_t room = window_count(w, q->from, q->to);
    if (!room) return NULL;
    double *values = RedisModule_Alloc(room * sizeof(*values));
    q->count = window_copy_values(w, q->from, q->to, q->worst, values);
    return values;
}

/* Turns the query's questions into answers, and frees the values. */
static void answer_query(query *q, double *values) {
    if (q->count) {
        double *scratch = RedisModule_Alloc(q->count * sizeof(*scratch));
        if (window_sort(values, scratch, q->count, &q->cancelled))
            for (int i = 0; i < q->quantile_count; i++)
                q->quantiles[i] = window_quantile(values, q->count, q->quantiles[i]);
        RedisModule_Free(scratch);
    }
    if (values) RedisModule_Free(values);
}

static int reply_with_query(RedisModuleCtx *ctx, const query *q) {
    if (q->error) return RedisModule_ReplyWithError(ctx, q->error);
    RedisModule_ReplyWithArray(ctx, q->quantile_count);
    for (int i = 0; i < q->quantile_count; i++) {
        if (q->count)
            RedisModule_ReplyWithDouble(ctx, q->quantiles[i]);
        else
            RedisModule_ReplyWithNull(ctx);
    }
    return REDISMODULE_OK;
}

static void *work(void *unused) {
    REDISMODULE_NOT_USED(unused);
    for (;;) {
        pthread_mutex_lock(&worker.lock);
        while (!worker.first) pthread_cond_wait(&worker.work, &worker.lock);
        query *q = worker.first;
        pthread_mutex_unlock(&worker.lock);

        if (!__atomic_load_n(&q->cancelled, __ATOMIC_RELAXED)) {
            RedisModuleCtx *ctx = RedisModule_GetThreadSafeContext(q->client);
            RedisModuleKey *key;
            window *w;
            double *values = NULL;
            RedisModule_ThreadSafeContextLock(ctx);
            /* The key may have changed since the command: look again. */
            q->error = open_window(ctx, q->name, REDISMODULE_READ, &key, &w);
            if (!q->error) values = copy_values(w, q);
            RedisModule_CloseKey(key);
            RedisModule_ThreadSafeContextUnlock(ctx);
            RedisModule_FreeThreadSafeContext(ctx);
            answer_query(q, values);
        }

        pthread_mutex_lock(&worker.lock);
        worker.first = q->next;
        if (!worker.first) worker.end = &worker.first;
        worker.waiting--;
        pthread_mutex_unlock(&worker.lock);
        RedisModule_UnblockClient(q->client, q); /* the query is the server's from here on */
    }
    return NULL;
}

/* On the server's thread, when the worker is done and the client still there. */
static int quantile_reply(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    REDISMODULE_NOT_USED(argv);
    REDISMODULE_NOT_USED(argc);
    return reply_with_query(ctx, RedisModule_GetBlockedClientPrivateData(ctx));
}

/* On the server's thread, last of all, whether or not the client is still there. */
static void quantile_free(RedisModuleCtx *ctx, void *data) {
    REDISMODULE_NOT_USED(ctx);
    query *q = data;
    RedisModule_FreeString(NULL, q->name);
    RedisModule_Free(q);
}

/* On the server's thread, when a client goes while it waits. */
static void quantile_disconnected(RedisModuleCtx *ctx, RedisModuleBlockedClient *client) {
    REDISMODULE_NOT_USED(ctx);
    pthread_mutex_lock(&worker.lock);
    for (query *q = worker.first; q; q = q->next) {
        if (q->client == client) {
            __atomic_store_n(&q->cancelled, 1, __ATOMIC_RELAXED);
            count_one(&worker.cancelled);
        }
    }
    pthread_mutex_unlock(&worker.lock);
}

static bool start_worker(void) {
    if (worker.running) return true;
    /* Signals are for the server's thread. */
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    worker.running = pthread_create(&thread, NULL, work, NULL) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (worker.running) pthread_detach(thread);
    return worker.running;
}

/* SENSORWINDOW.QUANTILE key from to [MIN-QUALITY good|uncertain|bad] quantile [quantile ...] */
static int quantile_command(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    RedisModule_AutoMemory(ctx);
    if (argc < 5) return RedisModule_WrongArity(ctx);
    RedisModuleKey *key;
    window *w;
    query q = {.worst = WINDOW_BAD};
    int next = 4;
    const char *error = open_window(ctx, argv[1], REDISMODULE_READ, &key, &w);
    if (!error) error = read_range(argv + 2, w, &q.from, &q.to);
#if SENSORWINDOW_RELEASE >= 2
    if (!error) error = read_quality(argv, argc, &next, "MIN-QUALITY", &q.worst);
#endif
    if (!error && next == argc) return RedisModule_WrongArity(ctx);
    if (!error && argc - next > QUANTILES_MAX) error = ERR_QUANTILES;
    for (; !error && next < argc; next++) {
        double *quantile = &q.quantiles[q.quantile_count++];
        if (RedisModule_StringToDouble(argv[next], quantile) != REDISMODULE_OK ||
            !(*quantile >= 0 && *quantile <= 1))
            error = ERR_QUANTILE;
    }
    if (error) return RedisModule_ReplyWithError(ctx, error);

    /* A client in MULTI or in a script cannot wait; a small query need not; and
     * without a thread, late is better than never. */
    if (!w || (RedisModule_GetContextFlags(ctx) & NO_BLOCKING) ||
        window_count(w, q.from, q.to) < THREAD_FROM_SAMPLES || !start_worker()) {
        count_one(&worker.inlined);
        answer_query(&q, copy_values(w, &q));
        return reply_with_query(ctx, &q);
    }

    pthread_mutex_lock(&worker.lock);
    bool full = worker.waiting >= max_waiting;
    pthread_mutex_unlock(&worker.lock);
    if (full) { /* and not full again before this thread adds to it */
        count_one(&worker.refused);
        return RedisModule_ReplyWithError(ctx, ERR_WAITING);
    }
    count_one(&worker.threaded);
    query *waiting = RedisModule_Alloc(sizeof(*waiting));
    *waiting = q;
    waiting->name = RedisModule_CreateStringFromString(NULL, argv[1]);
    waiting->client = RedisModule_BlockClient(ctx, quantile_reply, NULL, quantile_free, 0);
    RedisModule_SetDisconnectCallback(waiting->client, quantile_disconnected);

    pthread_mutex_lock(&worker.lock);
    *worker.end = waiting;
    worker.end = &waiting->next;
    worker.waiting++;
    pthread_cond_signal(&worker.work);
    pthread_mutex_unlock(&worker.lock);
    return REDISMODULE_OK;
}

/* ---- The data type ---- */

static uint64_t bits_of(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

/* Encoding version 1: retention, cap, policy, number of samples; then for each
 * the distance to the timestamp before it, and the value. Version 2 adds the
 * quality behind each value. */
static void save_window(RedisModuleIO *rdb, void *value) {
    const window *w = value;
    const window_settings *settings = window_get_settings(w);
    RedisModule_SaveUnsigned(rdb, (uint64_t)settings->retention_ms);
    RedisModule_SaveUnsigned(rdb, settings->max_samples);
    RedisModule_SaveUnsigned(rdb, settings->policy);
    RedisModule_SaveUnsigned(rdb, window_length(w));
    int64_t before = 0;
    window_cursor cursor = window_seek(w, 0, INT64_MAX);
    for (window_span span; window_next(&cursor, &span);) {
        for (size_t i = 0; i < span.count; i++) {
            RedisModule_SaveUnsigned(rdb, (uint64_t)(span.timestamps[i] - before));
            RedisModule_SaveDouble(rdb, span.values[i]);
#if ENCODING_VERSION >= 2
            RedisModule_SaveUnsigned(rdb, span.qualities[i]);
#endif
            before = span.timestamps[i];
        }
    }
}

/* Nothing that is read is trusted: memory grows with what is really there, and
 * whatever save_window can't have written is refused. */
static const char *load_samples(RedisModuleIO *rdb, int encver, window *w, uint64_t count) {
    window_sample sample = {.quality = WINDOW_GOOD};
    for (uint64_t i = 0; i < count; i++) {
        uint64_t distance = RedisModule_LoadUnsigned(rdb);
        if (RedisModule_IsIOError(rdb)) return "cut short";
        if ((i && !distance) || distance > (uint64_t)(INT64_MAX - sample.timestamp))
            return "timestamps out of order";
        sample.timestamp += (int64_t)distance;
        sample.value = RedisModule_LoadDouble(rdb);
        if (RedisModule_IsIOError(rdb)) return "cut short";
        if (!(sample.value >= -WINDOW_MAX_VALUE && sample.value <= WINDOW_MAX_VALUE))
            return "value out of range";
        if (encver >= 2) {
            uint64_t quality = RedisModule_LoadUnsigned(rdb);
            if (RedisModule_IsIOError(rdb)) return "cut short";
            if (quality >= WINDOW_QUALITIES) return "unknown quality";
            sample.quality = (uint8_t)quality;
        }
        window_add(w, &sample);
    }
    return window_length(w) == count ? NULL : "more samples than its retention allows";
}

static void *load_window(RedisModuleIO *rdb, int encver) {
    if (encver < 1 || encver > ENCODING_VERSION) {
        RedisModule_LogIOError(rdb, "warning",
                               "data of encoding version %d, but this release (%d) reads only up "
                               "to %d: load the newer sensorwindow",
                               encver, MODULE_VERSION, ENCODING_VERSION);
        return NULL;
    }
    uint64_t header[4]; /* retention, cap, policy, number of samples */
    for (size_t i = 0; i < 4; i++) {
        header[i] = RedisModule_LoadUnsigned(rdb);
        if (RedisModule_IsIOError(rdb)) {
            RedisModule_LogIOError(rdb, "warning", "window refused: cut short");
            return NULL;
        }
    }
    if (header[0] > INT64_MAX || header[1] < 1 || header[1] > WINDOW_MAX_SAMPLES ||
        header[2] >= WINDOW_POLICIES || header[3] > header[1]) {
        RedisModule_LogIOError(rdb, "warning", "window refused: settings out of range");
        return NULL;
    }
    window *w = window_new(&(window_settings){
        .retention_ms = (int64_t)header[0],
        .max_samples = header[1],
        .policy = (window_policy)header[2],
    });
    const char *error = load_samples(rdb, encver, w, header[3]);
    if (!error) return w;
    RedisModule_LogIOError(rdb, "warning", "window refused: %s", error);
    window_free(w);
    return NULL;
}

/* One command for the settings, then one for each span and quality. Their order
 * does not matter: a window ends up the same for any order of its samples. */
static void rewrite_window(RedisModuleIO *aof, RedisModuleString *key, void *value) {
    const window *w = value;
    const window_settings *settings = window_get_settings(w);
    RedisModule_EmitAOF(aof, "SENSORWINDOW.CONFIG", "sclclcc", key, "RETENTION-MS",
                        (long long)settings->retention_ms, "MAX-SAMPLES",
                        (long long)settings->max_samples, "ON-CONFLICT",
                        policy_names[settings->policy]);
    window_cursor cursor = window_seek(w, 0, INT64_MAX);
    for (window_span span; window_next(&cursor, &span);) {
        RedisModuleString **words = RedisModule_Alloc(2 * span.count * sizeof(*words));
        for (uint8_t quality = 0; quality < WINDOW_QUALITIES; quality++) {
            size_t count = 0;
            for (size_t i = 0; i < span.count; i++) {
                if (span.qualities[i] != quality) continue;
                words[count++] = RedisModule_CreateStringFromLongLong(NULL, span.timestamps[i]);
                words[count++] = RedisModule_CreateStringPrintf(NULL, "%.17g", span.values[i]);
            }
            if (!count) continue;
#if SENSORWINDOW_RELEASE >= 2
            if (quality != WINDOW_GOOD)
                RedisModule_EmitAOF(aof, "SENSORWINDOW.MADD", "sccv", key, "QUALITY",
                                    quality_names[quality], words, count);
            else
#endif
                RedisModule_EmitAOF(aof, "SENSORWINDOW.MADD", "sv", key, words, count);
            for (size_t i = 0; i < count; i++) RedisModule_FreeString(NULL, words[i]);
        }
        RedisModule_Free(words);
    }
}

/* A good quality adds nothing, so that a window that release 1 saved has the
 * same digest in release 2. */
static void digest_window(RedisModuleDigest *digest, void *value) {
    const window *w = value;
    const window_settings *settings = window_get_settings(w);
    RedisModule_DigestAddLongLong(digest, settings->retention_ms);
    RedisModule_DigestAddLongLong(digest, (long long)settings->max_samples);
    RedisModule_DigestAddLongLong(digest, settings->policy);
    RedisModule_DigestEndSequence(digest);
    window_cursor cursor = window_seek(w, 0, INT64_MAX);
    for (window_span span; window_next(&cursor, &span);) {
        for (size_t i = 0; i < span.count; i++) {
            RedisModule_DigestAddLongLong(digest, span.timestamps[i]);
            RedisModule_DigestAddLongLong(digest, (long long)bits_of(span.values[i]));
            if (span.qualities[i]) RedisModule_DigestAddLongLong(digest, span.qualities[i]);
            RedisModule_DigestEndSequence(digest);
        }
    }
}

static size_t measure_window(const void *value) {
    return window_memory(value, RedisModule_MallocSize);
}

/* Redis 6.0 frees the NULL of a load that was cut short. */
static void free_window(void *value) {
    if (value) window_free(value);
}

/* ---- INFO sensorwindow ---- */

static void add_info(RedisModuleInfoCtx *ctx, int for_crash_report) {
    REDISMODULE_NOT_USED(for_crash_report); /* no lock is taken here, for its sake */
    if (RedisModule_InfoAddSection(ctx, "quantiles") != REDISMODULE_OK) return;
#define ADD(name, variable)                                                                       \
    RedisModule_InfoAddFieldULongLong(                                                            \
        ctx, name, (unsigned long long)__atomic_load_n(&variable, __ATOMIC_RELAXED))
    ADD("waiting", worker.waiting);
    ADD("threaded", worker.threaded);
    ADD("inlined", worker.inlined);
    ADD("cancelled", worker.cancelled);
    ADD("refused", worker.refused);
#undef ADD
}

/* ---- Loading ---- */

/* Reads "name value" pairs; says in the log which one is wrong. */
static int read_arguments(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    long long max_samples = (long long)defaults.max_samples, retention_ms = defaults.retention_ms;
    const struct {
        const char *name;
        long long min, max, *number;
    } numbers[] = {
        {"retention-ms", 0, INT64_MAX, &retention_ms},
        {"max-samples", 1, WINDOW_MAX_SAMPLES, &max_samples},
        {"max-ahead-ms", 0, INT64_MAX, &max_ahead_ms},
        {"max-waiting", 0, 10000, &max_waiting},
    };
    for (int i = 0; i < argc; i += 2) {
        const char *name = RedisModule_StringPtrLen(argv[i], NULL);
        const char *value = i + 1 < argc ? RedisModule_StringPtrLen(argv[i + 1], NULL) : NULL;
        size_t known = 0;
        while (known < sizeof(numbers) / sizeof(*numbers) && !is_word(argv[i], numbers[known].name))
            known++;
        bool is_policy = is_word(argv[i], "on-conflict");
        if (known == sizeof(numbers) / sizeof(*numbers) && !is_policy) {
            RedisModule_Log(ctx, "warning",
                            "unknown module argument '%s': known are retention-ms, max-samples, "
                            "max-ahead-ms, max-waiting and on-conflict",
                            name);
            return REDISMODULE_ERR;
        }
        if (!value) {
            RedisModule_Log(ctx, "warning", "module argument '%s' has no value", name);
            return REDISMODULE_ERR;
        }
        if (is_policy) {
            int policy = find_word(argv[i + 1], policy_names, WINDOW_POLICIES);
            if (policy < 0) {
                RedisModule_Log(ctx, "warning",
                                "module argument 'on-conflict': '%s' is not keep or replace",
                                value);
                return REDISMODULE_ERR;
            }
            defaults.policy = (window_policy)policy;
        } else if (!is_integer(argv[i + 1], numbers[known].min, numbers[known].max,
                               numbers[known].number)) {
            RedisModule_Log(ctx, "warning",
                            "module argument '%s': '%s' is not an integer from %lld to %lld",
                            numbers[known].name, value, numbers[known].min, numbers[known].max);
            return REDISMODULE_ERR;
        }
    }
    defaults.retention_ms = retention_ms;
    defaults.max_samples = (uint64_t)max_samples;
    return REDISMODULE_OK;
}

EXPORTED int RedisModule_OnLoad(RedisModuleCtx *ctx, RedisModuleString **argv, int argc) {
    if (RedisModule_Init(ctx, "sensorwindow", MODULE_VERSION, REDISMODULE_APIVER_1) !=
            REDISMODULE_OK ||
        read_arguments(ctx, argv, argc) != REDISMODULE_OK)
        return REDISMODULE_ERR;

    /* Errors while loading are answered by load_window, so a broken RDB or
     * payload does not end the server; and a write that changes nothing
     * disturbs no WATCH. */
    RedisModule_SetModuleOptions(ctx, REDISMODULE_OPTIONS_HANDLE_IO_ERRORS |
                                          REDISMODULE_OPTION_NO_IMPLICIT_SIGNAL_MODIFIED);
    window_use_allocator(RedisModule_Alloc, RedisModule_Realloc, RedisModule_Free);

    const struct {
        const char *name;
        RedisModuleCmdFunc function;
        const char *flags;
    } commands[] = {
        {"SENSORWINDOW.CONFIG", config_command, "write deny-oom"},
        {"SENSORWINDOW.ADD", add_command, "write deny-oom fast"},
        {"SENSORWINDOW.MADD", madd_command, "write deny-oom"},
        {"SENSORWINDOW.INFO", info_command, "readonly"},
        {"SENSORWINDOW.STATS", stats_command, "readonly"},
        {"SENSORWINDOW.RANGE", range_command, "readonly"},
        {"SENSORWINDOW.QUANTILE", quantile_command, "readonly"},
    };
    for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
        if (RedisModule_CreateCommand(ctx, commands[i].name, commands[i].function,
                                      commands[i].flags, 1, 1, 1) != REDISMODULE_OK)
            return REDISMODULE_ERR;
    if (RedisModule_RegisterInfoFunc(ctx, add_info) != REDISMODULE_OK) return REDISMODULE_ERR;

    /* Last, because nothing takes a type back if a later step fails. */
    sensor_type = RedisModule_CreateDataType(ctx, "sensorwin", ENCODING_VERSION,
                                             &(RedisModuleTypeMethods){
                                                 .version = REDISMODULE_TYPE_METHOD_VERSION,
                                                 .rdb_load = load_window,
                                                 .rdb_save = save_window,
                                                 .aof_rewrite = rewrite_window,
                                                 .mem_usage = measure_window,
                                                 .digest = digest_window,
                                                 .free = free_window,
                                             });
    return sensor_type ? REDISMODULE_OK : REDISMODULE_ERR;
}

/* Redis unloads no module that has a data type. Should a server ever do so, the
 * worker's code must stay where it is. */
EXPORTED int RedisModule_OnUnload(RedisModuleCtx *ctx) {
    REDISMODULE_NOT_USED(ctx);
    return worker.running ? REDISMODULE_ERR : REDISMODULE_OK;
}
