/* SPDX-License-Identifier: GPL-3.0-or-later */
/* window: the samples of one sensor, in order of time.
 *
 * A plain data structure: it knows nothing of Redis, takes its memory from the
 * allocator that it is given, and reads no clock. What it keeps depends only
 * on the samples it was given, not on the order or number of their deliveries:
 *
 *   - one sample a timestamp; the same one again changes nothing;
 *   - none older than the newest sample's timestamp less the retention;
 *   - at most max_samples, the newest ones.
 *
 * (With WINDOW_KEEP or WINDOW_REPLACE, which of two different samples of one
 * timestamp stays is decided by their order.)
 *
 * Samples lie in chunks of up to 120, found by binary search over a directory,
 * so that a late sample moves at most one chunk's contents (2 kB), and growth
 * never copies the whole window.
 */
#ifndef SENSORWINDOW_WINDOW_H
#define SENSORWINDOW_WINDOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The largest cap on samples, and the largest magnitude of a value. Together
 * they rule out that a sum, or a sum of squares, leaves the range of double. */
#define WINDOW_MAX_SAMPLES ((uint64_t)1 << 24)
#define WINDOW_MAX_VALUE 1e150

/* Quality of a sample, best first. */
enum { WINDOW_GOOD, WINDOW_UNCERTAIN, WINDOW_BAD, WINDOW_QUALITIES };

/* What happens to a sample whose timestamp is taken by a different sample. */
typedef enum { WINDOW_KEEP, WINDOW_REPLACE, WINDOW_POLICIES } window_policy;

/* What became of a sample. */
typedef enum {
    WINDOW_ADDED,     /* kept */
    WINDOW_REPLACED,  /* kept, in place of a different one with this timestamp */
    WINDOW_DUPLICATE, /* already there: no change */
    WINDOW_CONFLICT,  /* a different one with this timestamp was kept: no change */
    WINDOW_EXPIRED,   /* beyond retention, or older than a full window: no change */
    WINDOW_RESULTS
} window_result;

typedef struct {
    int64_t retention_ms; /* 0: no limit by time */
    uint64_t max_samples; /* 1 to WINDOW_MAX_SAMPLES */
    window_policy policy;
} window_settings;

typedef struct {
    int64_t timestamp; /* milliseconds, 0 or more */
    double value;      /* finite, magnitude up to WINDOW_MAX_VALUE */
    uint8_t quality;
} window_sample;

/* Contiguous samples, as parallel arrays; valid until the window changes. */
typedef struct {
    const int64_t *timestamps;
    const double *values;
    const uint8_t *qualities;
    size_t count;
} window_span;

typedef struct {
    uint64_t count;
    window_sample first, last;
    double min, max, sum, mean;
    double stddev; /* of the population */
    double rate;   /* change per second from first to last; needs count >= 2 */
} window_stats;

typedef struct window window;

typedef struct {
    const window *window;
    size_t chunk, index;
    int64_t to;
} window_cursor;

/* Must be called before anything else. Neither function may return NULL. */
void window_use_allocator(void *(*alloc)(size_t), void *(*resize)(void *, size_t),
                          void (*release)(void *));

window *window_new(const window_settings *settings);
void window_free(window *w);

const window_settings *window_get_settings(const window *w);
/* Applies new settings at once: what they exclude is dropped. */
void window_set_settings(window *w, const window_settings *settings);

/* O(log n) to find the place, at most one chunk moved. */
window_result window_add(window *w, const window_sample *sample);

uint64_t window_length(const window *w);
/* The window must not be empty. */
window_sample window_oldest(const window *w);
window_sample window_newest(const window *w);

/* Samples with from <= timestamp <= to, span by span: O(log n) to begin. */
window_cursor window_seek(const window *w, int64_t from, int64_t to);
bool window_next(window_cursor *cursor, window_span *span);

/* The number of samples in a range, of any quality: O(log n + k/120). */
uint64_t window_count(const window *w, int64_t from, int64_t to);
/* Statistics over a range, of samples of quality `worst` or better: O(log n + k). */
window_stats window_get_stats(const window *w, int64_t from, int64_t to, uint8_t worst);
/* Copies the values of a range; `out` has room for window_count(). */
size_t window_copy_values(const window *w, int64_t from, int64_t to, uint8_t worst, double *out);

/* Sorts in O(n log n) with no further memory than `scratch`, as long as the
 * values. Gives up between passes, returning false, once *cancelled is set. */
bool window_sort(double *values, double *scratch, size_t count, const int *cancelled);
/* The quantile of sorted values, count >= 1, interpolated linearly between
 * neighbours (Hyndman and Fan's type 7, the default of NumPy and R). */
double window_quantile(const double *sorted, size_t count, double q);

/* The bytes held, as the given function sizes each allocation. */
size_t window_memory(const window *w, size_t (*size_of)(void *));
size_t window_chunks(const window *w);

#endif
