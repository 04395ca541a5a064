/* SPDX-License-Identifier: GPL-3.0-or-later */
/* window.c against a sorted array, over random samples and settings. */
#include "window.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
    do {                                                                        \
        if (!(condition)) {                                                     \
            printf("%s:%d: round %d: %s\n", __FILE__, __LINE__, round_, #condition); \
            exit(1);                                                            \
        }                                                                       \
    } while (0)

static int round_;
static window_sample plain[20000];
static size_t plain_count;

static uint64_t seed = 88172645463325252ull;
static uint64_t draw(uint64_t below) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % below;
}

static void plain_evict(const window_settings *settings) {
    if (!plain_count) return;
    int64_t newest = plain[plain_count - 1].timestamp, oldest = newest - settings->retention_ms;
    size_t drop = 0;
    while (settings->retention_ms && plain[drop].timestamp < oldest) drop++;
    if (plain_count - drop > settings->max_samples) drop = plain_count - settings->max_samples;
    memmove(plain, plain + drop, (plain_count - drop) * sizeof(*plain));
    plain_count -= drop;
}

static window_result plain_add(const window_settings *settings, const window_sample *sample) {
    size_t at = 0;
    while (at < plain_count && plain[at].timestamp < sample->timestamp) at++;
    if (at < plain_count && plain[at].timestamp == sample->timestamp) {
        if (plain[at].value == sample->value && plain[at].quality == sample->quality)
            return WINDOW_DUPLICATE;
        if (settings->policy == WINDOW_KEEP) return WINDOW_CONFLICT;
        plain[at] = *sample;
        return WINDOW_REPLACED;
    }
    memmove(plain + at + 1, plain + at, (plain_count - at) * sizeof(*plain));
    plain[at] = *sample;
    plain_count++;
    plain_evict(settings);
    for (size_t i = 0; i < plain_count; i++)
        if (plain[i].timestamp == sample->timestamp) return WINDOW_ADDED;
    return WINDOW_EXPIRED;
}

static void compare(const window *w, int64_t from, int64_t to) {
    size_t at = 0;
    while (at < plain_count && plain[at].timestamp < from) at++;
    size_t begin = at;
    window_cursor cursor = window_seek(w, from, to);
    for (window_span span; window_next(&cursor, &span);) {
        CHECK(span.count > 0);
        for (size_t i = 0; i < span.count; i++, at++) {
            CHECK(at < plain_count && span.timestamps[i] == plain[at].timestamp);
            CHECK(span.values[i] == plain[at].value && span.qualities[i] == plain[at].quality);
        }
    }
    CHECK(at >= plain_count || plain[at].timestamp > to || from > to);
    CHECK(window_count(w, from, to) == at - begin);
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void sort_round(void) {
    size_t count = draw(3000);
    double *values = malloc(count * sizeof(double) + 1), *scratch = malloc(count * sizeof(double) + 1);
    double *expected = malloc(count * sizeof(double) + 1);
    for (size_t i = 0; i < count; i++) values[i] = (double)draw(draw(2) ? 10 : 1000000);
    memcpy(expected, values, count * sizeof(double));
    qsort(expected, count, sizeof(double), ascending);
    int cancelled = 0;
    CHECK(window_sort(values, scratch, count, &cancelled));
    CHECK(!memcmp(values, expected, count * sizeof(double)));
    if (count) {
        CHECK(window_quantile(values, count, 0) == expected[0]);
        CHECK(window_quantile(values, count, 1) == expected[count - 1]);
    }
    cancelled = 1;
    CHECK(window_sort(values, scratch, count, &cancelled) == (count <= 16));
    free(values);
    free(scratch);
    free(expected);
}

int main(void) {
    window_use_allocator(malloc, realloc, free);
    for (round_ = 0; round_ < 150; round_++) {
        window_settings settings = {
            .retention_ms = draw(2) ? 0 : (int64_t)draw(5000) + 1,
            .max_samples = draw(2) ? WINDOW_MAX_SAMPLES : draw(2000) + 1,
            .policy = (window_policy)draw(2),
        };
        uint64_t order = draw(3), steps = draw(2500) + 1;
        window *w = window_new(&settings);
        plain_count = 0;
        compare(w, 0, INT64_MAX);
        for (uint64_t step = 0; step < steps; step++) {
            int64_t base = order == 0 ? (int64_t)step * 5 : order == 1 ? (int64_t)(steps - step) * 5 : 0;
            window_sample sample = {
                .timestamp = base + (int64_t)draw(order == 2 ? steps * 4 : 12),
                .value = (double)draw(3),
                .quality = (uint8_t)draw(WINDOW_QUALITIES),
            };
            CHECK(window_add(w, &sample) == plain_add(&settings, &sample));
            CHECK(window_length(w) == plain_count);
            if (draw(400) == 0) {
                settings.max_samples = draw(1500) + 1;
                settings.retention_ms = (int64_t)draw(9000);
                window_set_settings(w, &settings);
                plain_evict(&settings);
            }
            if (draw(100) == 0)
                compare(w, (int64_t)draw(steps * 5) - 5, (int64_t)draw(steps * 5) - 5);
        }
        CHECK(window_oldest(w).timestamp == plain[0].timestamp);
        CHECK(window_newest(w).timestamp == plain[plain_count - 1].timestamp);
        compare(w, 0, INT64_MAX);
        compare(w, INT64_MIN, INT64_MIN);
        compare(w, INT64_MAX, INT64_MAX);
        window_free(w);
        sort_round();
    }
    return 0;
}
