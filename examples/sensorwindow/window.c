/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "window.h"

#include <math.h>
#include <string.h>

/* A chunk is one allocation: this header, then its timestamps, values and
 * qualities, `capacity` of each. Its sizes are powers of two, which allocators
 * serve without waste: 7, 14, 29, 59 and 120 samples. */
typedef struct {
    uint32_t count, capacity;
} chunk;

#define CHUNK_BYTES_MIN 128
#define CHUNK_BYTES_MAX 2048
#define SAMPLE_BYTES (sizeof(int64_t) + sizeof(double) + sizeof(uint8_t))
#define CHUNK_CAPACITY(bytes) ((uint32_t)(((bytes) - sizeof(chunk)) / SAMPLE_BYTES))

/* No chunk is ever empty; the directory is in order of time. */
struct window {
    window_settings settings;
    uint64_t count;
    chunk **chunks;
    size_t chunk_count, chunk_room;
};

static void *(*allocate)(size_t);
static void *(*reallocate)(void *, size_t);
static void (*release)(void *);

void window_use_allocator(void *(*alloc)(size_t), void *(*resize)(void *, size_t),
                          void (*release_)(void *)) {
    allocate = alloc;
    reallocate = resize;
    release = release_;
}

/* ---- Chunks ---- */

static int64_t *timestamps(const chunk *c) {
    return (int64_t *)(c + 1);
}

static double *values(const chunk *c) {
    return (double *)(timestamps(c) + c->capacity);
}

static uint8_t *qualities(const chunk *c) {
    return (uint8_t *)(values(c) + c->capacity);
}

static chunk *chunk_new(size_t bytes) {
    chunk *c = allocate(bytes);
    c->count = 0;
    c->capacity = CHUNK_CAPACITY(bytes);
    return c;
}

/* Moves samples between two chunks, or within one; counts stay as they are. */
static void move(chunk *to, size_t to_index, const chunk *from, size_t from_index, size_t count) {
    memmove(timestamps(to) + to_index, timestamps(from) + from_index, count * sizeof(int64_t));
    memmove(values(to) + to_index, values(from) + from_index, count * sizeof(double));
    memmove(qualities(to) + to_index, qualities(from) + from_index, count * sizeof(uint8_t));
}

static void chunk_set(chunk *c, size_t index, const window_sample *sample) {
    timestamps(c)[index] = sample->timestamp;
    values(c)[index] = sample->value;
    qualities(c)[index] = sample->quality;
}

static window_sample chunk_get(const chunk *c, size_t index) {
    return (window_sample){
        .timestamp = timestamps(c)[index],
        .value = values(c)[index],
        .quality = qualities(c)[index],
    };
}

/* The index of the first sample that is not before the timestamp. */
static size_t chunk_find(const chunk *c, int64_t timestamp) {
    const int64_t *sorted = timestamps(c);
    size_t low = 0, high = c->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (sorted[middle] < timestamp)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void chunk_drop_front(chunk *c, size_t count) {
    move(c, 0, c, count, c->count - count);
    c->count -= (uint32_t)count;
}

/* ---- The directory ---- */

/* The last chunk that begins at or before the timestamp, or else the first. */
static size_t find_chunk(const window *w, int64_t timestamp) {
    size_t low = 0, high = w->chunk_count;
    while (high - low > 1) {
        size_t middle = low + (high - low) / 2;
        if (timestamps(w->chunks[middle])[0] <= timestamp)
            low = middle;
        else
            high = middle;
    }
    return low;
}

static void directory_insert(window *w, size_t at, chunk *c) {
    if (w->chunk_count == w->chunk_room) {
        w->chunk_room = w->chunk_room ? w->chunk_room * 2 : 1;
        w->chunks = reallocate(w->chunks, w->chunk_room * sizeof(chunk *));
    }
    memmove(w->chunks + at + 1, w->chunks + at, (w->chunk_count - at) * sizeof(chunk *));
    w->chunks[at] = c;
    w->chunk_count++;
}

static void directory_drop_front(window *w, size_t count) {
    for (size_t i = 0; i < count; i++) {
        w->count -= w->chunks[i]->count;
        release(w->chunks[i]);
    }
    w->chunk_count -= count;
    memmove(w->chunks, w->chunks + count, w->chunk_count * sizeof(chunk *));
    if (w->chunk_room > 8 && w->chunk_count < w->chunk_room / 4) {
        w->chunk_room /= 2;
        w->chunks = reallocate(w->chunks, w->chunk_room * sizeof(chunk *));
    }
}

/* Makes room for one more sample in the chunk, in order of cost: it has room;
 * it can grow; a new one before or behind it; it is split. Returns the chunk
 * and updates the index to where the sample goes. */
static chunk *make_room(window *w, size_t at, size_t *index) {
    chunk *c = w->chunks[at];
    if (c->count < c->capacity) return c;

    if (c->capacity < CHUNK_CAPACITY(CHUNK_BYTES_MAX)) {
        size_t bytes = CHUNK_BYTES_MIN;
        while (CHUNK_CAPACITY(bytes) <= c->capacity) bytes *= 2;
        chunk *bigger = chunk_new(bytes);
        move(bigger, 0, c, 0, c->count);
        bigger->count = c->count;
        release(c);
        return w->chunks[at] = bigger;
    }
    if (*index == c->count || (*index == 0 && at == 0)) {
        chunk *fresh = chunk_new(CHUNK_BYTES_MIN);
        directory_insert(w, *index ? at + 1 : at, fresh);
        *index = 0;
        return fresh;
    }
    chunk *upper = chunk_new(CHUNK_BYTES_MAX);
    size_t half = c->count / 2;
    move(upper, 0, c, half, c->count - half);
    upper->count = c->count - (uint32_t)half;
    c->count = (uint32_t)half;
    directory_insert(w, at + 1, upper);
    if (*index <= half) return c;
    *index -= half;
    return upper;
}

/* ---- Retention ---- */

static int64_t horizon(const window *w) {
    int64_t newest = window_newest(w).timestamp;
    return w->settings.retention_ms && newest > w->settings.retention_ms
               ? newest - w->settings.retention_ms
               : 0;
}

/* Drops what the settings exclude. The newest sample always stays. */
static void evict(window *w) {
    if (!w->count) return;
    int64_t oldest_kept = horizon(w);
    size_t whole = 0;
    uint64_t left = w->count;
    for (; whole < w->chunk_count; whole++) {
        const chunk *c = w->chunks[whole];
        if (timestamps(c)[c->count - 1] >= oldest_kept &&
            left - c->count < w->settings.max_samples)
            break;
        left -= c->count;
    }
    if (whole) directory_drop_front(w, whole);

    chunk *front = w->chunks[0];
    size_t surplus = chunk_find(front, oldest_kept);
    if (w->count > w->settings.max_samples && surplus < w->count - w->settings.max_samples)
        surplus = w->count - w->settings.max_samples;
    if (surplus) {
        chunk_drop_front(front, surplus);
        w->count -= surplus;
    }
}

/* ---- Life ---- */

window *window_new(const window_settings *settings) {
    window *w = allocate(sizeof(*w));
    *w = (window){.settings = *settings};
    return w;
}

void window_free(window *w) {
    for (size_t i = 0; i < w->chunk_count; i++) release(w->chunks[i]);
    release(w->chunks);
    release(w);
}

const window_settings *window_get_settings(const window *w) {
    return &w->settings;
}

void window_set_settings(window *w, const window_settings *settings) {
    w->settings = *settings;
    evict(w);
}

window_result window_add(window *w, const window_sample *sample) {
    if (!w->count) {
        chunk *c = chunk_new(CHUNK_BYTES_MIN);
        chunk_set(c, 0, sample);
        c->count = 1;
        directory_insert(w, 0, c);
        w->count = 1;
        return WINDOW_ADDED;
    }
    if (sample->timestamp < horizon(w)) return WINDOW_EXPIRED;

    size_t at = find_chunk(w, sample->timestamp);
    chunk *c = w->chunks[at];
    size_t index = chunk_find(c, sample->timestamp);
    if (index < c->count && timestamps(c)[index] == sample->timestamp) {
        if (values(c)[index] == sample->value && qualities(c)[index] == sample->quality)
            return WINDOW_DUPLICATE;
        if (w->settings.policy == WINDOW_KEEP) return WINDOW_CONFLICT;
        chunk_set(c, index, sample);
        return WINDOW_REPLACED;
    }
    if (at == 0 && index == 0 && w->count >= w->settings.max_samples) return WINDOW_EXPIRED;

    c = make_room(w, at, &index);
    move(c, index + 1, c, index, c->count - index);
    chunk_set(c, index, sample);
    c->count++;
    w->count++;
    evict(w);
    return WINDOW_ADDED;
}

/* ---- Questions ---- */

uint64_t window_length(const window *w) {
    return w->count;
}

window_sample window_oldest(const window *w) {
    return chunk_get(w->chunks[0], 0);
}

window_sample window_newest(const window *w) {
    const chunk *c = w->chunks[w->chunk_count - 1];
    return chunk_get(c, c->count - 1);
}

window_cursor window_seek(const window *w, int64_t from, int64_t to) {
    window_cursor cursor = {.window = w, .to = to};
    if (w->count) {
        cursor.chunk = find_chunk(w, from);
        cursor.index = chunk_find(w->chunks[cursor.chunk], from);
    }
    return cursor;
}

bool window_next(window_cursor *cursor, window_span *span) {
    const window *w = cursor->window;
    while (cursor->chunk < w->chunk_count) {
        const chunk *c = w->chunks[cursor->chunk++];
        size_t begin = cursor->index, end = c->count;
        cursor->index = 0;
        if (timestamps(c)[end - 1] > cursor->to) {
            cursor->chunk = w->chunk_count;
            end = chunk_find(c, cursor->to);
            /* Not at the end: the chunk's last sample is behind the range. */
            if (timestamps(c)[end] == cursor->to) end++;
        }
        if (begin >= end) continue;
        *span = (window_span){
            .timestamps = timestamps(c) + begin,
            .values = values(c) + begin,
            .qualities = qualities(c) + begin,
            .count = end - begin,
        };
        return true;
    }
    return false;
}

uint64_t window_count(const window *w, int64_t from, int64_t to) {
    uint64_t count = 0;
    window_cursor cursor = window_seek(w, from, to);
    for (window_span span; window_next(&cursor, &span);) count += span.count;
    return count;
}

window_stats window_get_stats(const window *w, int64_t from, int64_t to, uint8_t worst) {
    window_stats stats = {0};
    window_span span;
    double lost = 0; /* what rounding took from the sum (Neumaier) */

    window_cursor cursor = window_seek(w, from, to);
    while (window_next(&cursor, &span)) {
        for (size_t i = 0; i < span.count; i++) {
            if (span.qualities[i] > worst) continue;
            double value = span.values[i];
            stats.last = (window_sample){span.timestamps[i], value, span.qualities[i]};
            if (!stats.count++) {
                stats.first = stats.last;
                stats.min = stats.max = value;
            }
            if (value < stats.min) stats.min = value;
            if (value > stats.max) stats.max = value;
            double sum = stats.sum + value;
            lost += fabs(stats.sum) >= fabs(value) ? (stats.sum - sum) + value
                                                   : (value - sum) + stats.sum;
            stats.sum = sum;
        }
    }
    if (!stats.count) return stats;
    stats.sum += lost;
    stats.mean = stats.sum / (double)stats.count;

    double squares = 0;
    cursor = window_seek(w, from, to);
    while (window_next(&cursor, &span)) {
        for (size_t i = 0; i < span.count; i++) {
            if (span.qualities[i] > worst) continue;
            double distance = span.values[i] - stats.mean;
            squares += distance * distance;
        }
    }
    stats.stddev = sqrt(squares / (double)stats.count);
    if (stats.count >= 2)
        stats.rate = (stats.last.value - stats.first.value) * 1000 /
                     (double)(stats.last.timestamp - stats.first.timestamp);
    return stats;
}

size_t window_copy_values(const window *w, int64_t from, int64_t to, uint8_t worst, double *out) {
    size_t count = 0;
    window_cursor cursor = window_seek(w, from, to);
    for (window_span span; window_next(&cursor, &span);)
        for (size_t i = 0; i < span.count; i++)
            if (span.qualities[i] <= worst) out[count++] = span.values[i];
    return count;
}

/* A merge sort from the bottom up: never quadratic, and no libc qsort, which
 * takes memory from malloc behind the server's back. */
bool window_sort(double *values_, double *scratch, size_t count, const int *cancelled) {
    enum { RUN = 16 };
    for (size_t start = 0; start < count; start += RUN) {
        size_t end = count - start > RUN ? start + RUN : count;
        for (size_t i = start + 1; i < end; i++) {
            double value = values_[i];
            size_t hole = i;
            for (; hole > start && values_[hole - 1] > value; hole--)
                values_[hole] = values_[hole - 1];
            values_[hole] = value;
        }
    }
    double *from = values_, *to = scratch;
    for (size_t width = RUN; width < count; width *= 2) {
        if (__atomic_load_n(cancelled, __ATOMIC_RELAXED)) return false;
        for (size_t start = 0; start < count; start += 2 * width) {
            size_t middle = count - start > width ? start + width : count;
            size_t end = count - start > 2 * width ? start + 2 * width : count;
            size_t left = start, right = middle;
            for (size_t i = start; i < end; i++)
                to[i] = left < middle && (right == end || from[left] <= from[right])
                            ? from[left++]
                            : from[right++];
        }
        double *swap = from;
        from = to;
        to = swap;
    }
    if (from != values_) memcpy(values_, from, count * sizeof(double));
    return true;
}

double window_quantile(const double *sorted, size_t count, double q) {
    double position = (double)(count - 1) * q;
    size_t below = (size_t)position;
    if (below + 1 >= count) return sorted[count - 1];
    return sorted[below] + (position - (double)below) * (sorted[below + 1] - sorted[below]);
}

size_t window_memory(const window *w, size_t (*size_of)(void *)) {
    size_t bytes = size_of((void *)w) + (w->chunks ? size_of(w->chunks) : 0);
    for (size_t i = 0; i < w->chunk_count; i++) bytes += size_of(w->chunks[i]);
    return bytes;
}

size_t window_chunks(const window *w) {
    return w->chunk_count;
}
