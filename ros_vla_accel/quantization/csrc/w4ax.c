/* Entry points, choice of the path, threads and workspace; the arithmetic is in the path files. */
#define _GNU_SOURCE
#include "w4ax.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#if W4AX_X86
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#define EXPORT __attribute__((visibility("default")))

/* ---- threads: those of the OpenMP library that torch has loaded, so that no second pool fights
 * for the cores. Work is handed out by a counter, so a late thread costs only its last item. */

typedef void (*parallel_fn)(void (*)(void *), void *, unsigned, unsigned);
static parallel_fn parallel; /* GOMP_parallel, or NULL: the caller works alone */

EXPORT void w4ax_set_parallel(void *function) { parallel = (parallel_fn)function; }

typedef void (*item_fn)(void *context, int64_t item, void *scratch);

typedef struct {
    item_fn prepare, item;
    void *context;
    int64_t preparations, items;
    int threads;
    size_t scratch;
    _Atomic int64_t next_preparation, prepared, next;
} region;

/* A thread's buffers, kept between calls: fresh pages would cost more than a small product. */
typedef struct {
    void *data[2];
    size_t size[2];
} buffers;

static pthread_key_t buffers_key;
static pthread_once_t buffers_once = PTHREAD_ONCE_INIT;

static void buffers_free(void *held) {
    free(((buffers *)held)->data[0]);
    free(((buffers *)held)->data[1]);
    free(held);
}

static void buffers_init(void) { pthread_key_create(&buffers_key, buffers_free); }

/* which: 0 for the caller's activations, 1 for a worker's scratch. NULL without memory. */
static void *buffer(int which, size_t size) {
    pthread_once(&buffers_once, buffers_init);
    buffers *held = pthread_getspecific(buffers_key);
    if (!held) {
        held = calloc(1, sizeof *held);
        if (!held || pthread_setspecific(buffers_key, held)) return NULL;
    }
    if (held->size[which] < size) {
        free(held->data[which]);
        size = (size + 4095) / 4096 * 4096;
        held->data[which] = aligned_alloc(4096, size);
        held->size[which] = held->data[which] ? size : 0;
    }
    return held->data[which];
}

static void work(void *data) {
    region *r = data;
    void *scratch = buffer(1, r->scratch);
    if (!scratch) return; /* Another thread, or ``run``, will notice. */
    for (;;) {
        int64_t item = atomic_fetch_add_explicit(&r->next_preparation, 1, memory_order_relaxed);
        if (item >= r->preparations) break;
        r->prepare(r->context, item, NULL);
        atomic_fetch_add_explicit(&r->prepared, 1, memory_order_release);
    }
    /* Only preparations in progress are waited for, and those are short. */
    while (atomic_load_explicit(&r->prepared, memory_order_acquire) < r->preparations)
        sched_yield();
    for (;;) {
        /* Neighbouring panels go to one thread: what it prefetches ahead is then its own, and it
         * does not write beside another's cache lines. Shares shrink towards the end. */
        int64_t end, item = atomic_load_explicit(&r->next, memory_order_relaxed);
        do {
            if (item >= r->items) return;
            end = item + 1 + (r->items - item) / (4 * r->threads);
        } while (!atomic_compare_exchange_weak_explicit(&r->next, &item, end, memory_order_relaxed,
                                                        memory_order_relaxed));
        for (; item < end; item++) r->item(r->context, item, scratch);
    }
}

static int run(region *r, int threads) {
    r->threads = threads;
    if (parallel && threads > 1 && r->items > 1)
        parallel(work, r, (unsigned)(threads < r->items ? threads : r->items), 0);
    else
        work(r);
    /* One thread with memory does the work of all. */
    return r->next < r->items ? -2 : 0;
}

/* ---- paths */

static const w4ax_path *path_of(int path) {
    switch (path) {
    case PATH_PLAIN: return &w4ax_plain;
#if W4AX_X86
    case PATH_AVX2: return &w4ax_avx2;
    case PATH_AVX512: return &w4ax_avx512;
    case PATH_AMX: return &w4ax_amx;
#endif
    default: return NULL;
    }
}

#if W4AX_X86
static uint64_t xcr0(void) {
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Bit i is set when path i runs here: the processor has it and the system saves its registers. */
static int find_paths(void) {
    int found = 1 << PATH_PLAIN;
    uint32_t a, b, c, d, b7, c7, d7;
    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & (1u << 27))) return found;
    if (!__get_cpuid_count(7, 0, &a, &b7, &c7, &d7)) return found;
    uint64_t saved = xcr0();
    int fma = c >> 12 & 1, avx = (saved & 6) == 6;
    if (avx && fma && (b7 >> 5 & 1)) found |= 1 << PATH_AVX2;
    int wide = (saved & 0xe6) == 0xe6 && (b7 >> 16 & 1) && (b7 >> 17 & 1) && (b7 >> 30 & 1) &&
               (b7 >> 31 & 1);
    if (wide && (c7 >> 11 & 1)) found |= 1 << PATH_AVX512;
    int vbmi = c7 >> 1 & 1, tiles = (saved & 0x60000) == 0x60000;
    if ((found & 1 << PATH_AVX512) && vbmi && tiles && (d7 >> 22 & 1) && (d7 >> 24 & 1) &&
        (d7 >> 25 & 1) && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 5 & 1)) {
        enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl of Linux 5.16 */
        if (!syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA)) found |= 1 << PATH_AMX;
    }
    return found;
}
#else
static int find_paths(void) { return 1 << PATH_PLAIN; }
#endif

static int paths_found;
static pthread_once_t paths_once = PTHREAD_ONCE_INIT;

_Alignas(64) uint16_t w4ax_values16[16][32];

static void paths_init(void) {
    for (int g = 0; g < 16; g++)
        for (int i = 0; i < 32; i++) { /* Integers up to 120 are exact in BF16. */
            float value = w4ax_values[g][i];
            uint32_t bits;
            memcpy(&bits, &value, 4);
            w4ax_values16[g][i] = (uint16_t)(bits >> 16);
        }
    paths_found = find_paths();
}

EXPORT int w4ax_paths(void) {
    pthread_once(&paths_once, paths_init);
    return paths_found;
}

/* ---- the product */

typedef struct {
    const w4ax_layer *layer;
    const w4ax_path *path;
    const w4ax_path16 *path16;
    const void *x;
    w4ax_output to;
    int8_t *quantized;
    int64_t rows, row_block;
    int type, limit;
} job;

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

static void prepare_item(void *context, int64_t item, void *scratch) {
    job *j = context;
    (void)scratch;
    int64_t first = item * 16, count = smaller(16, j->rows - first);
    if (j->path16)
        j->path16->spread(j->layer, j->x, j->type, first, count, (uint16_t *)j->quantized);
    else
        j->path->quantize(j->layer, j->x, j->type, first, count, j->limit, j->quantized,
                          j->to.row_scale);
}

static void product_item(void *context, int64_t item, void *scratch) {
    job *j = context;
    int64_t panels = w4ax_panels(j->layer), panel = item % panels;
    int64_t first = item / panels * j->row_block;
    int64_t count = smaller(j->row_block, j->rows - first);
    char *sums = scratch;
    char *panel_space = sums + j->row_block * PANEL * 4;
    if (j->path16)
        j->path16->product(j->layer, panel, (const uint16_t *)j->quantized, first, count, &j->to,
                           (float *)sums, (uint16_t *)panel_space);
    else
        j->path->product(j->layer, panel, j->quantized, first, count, &j->to, (int32_t *)sums,
                         (int8_t *)panel_space);
}

enum { ALONE = 64 }; /* blocks of 32 channels x 128 inputs, per 32 rows */

/* x (rows, inputs) of ``type`` -> out (rows, outputs) of the same type; with ``row_scale``, out
 * takes the int32 sums and row_scale (rows,) the activation scales. Returns 0, or -1 for a path that
 * does not run here, -2 without memory. */
EXPORT int w4ax_linear(const w4ax_layer *layer, const void *x, void *out, int64_t rows, int type,
                       int bits, int path, int threads, float *row_scale) {
    if (!(w4ax_paths() >> path & 1)) return -1;
    job j = {.layer = layer, .x = x, .rows = rows, .type = type};
    j.to = (w4ax_output){out, row_scale ? INT32 : type, row_scale};
    int64_t depth = w4ax_blocks(layer) * BLOCK, padded = (rows + 15) / 16 * 16;
    size_t element = 1;
    if (bits == 16) {
#if W4AX_X86
        if (path != PATH_AMX || row_scale) return -1;
        j.path16 = &w4ax_amx16;
        element = 2;
#else
        return -1;
#endif
    } else {
        j.path = path_of(path);
        j.limit = (1 << (bits - 1)) - 1;
    }
    size_t space = (size_t)(padded * depth) * element;
    char *held = buffer(0, space + (size_t)padded * 4);
    if (!held) return -2;
    j.quantized = (int8_t *)held;
    if (!j.path16 && !row_scale) j.to.row_scale = (float *)(held + space);
    /* Rows of one pass over a panel: their activations stay in the second-level cache. Blocks are
     * equal, since each unpacks all weights. */
    int64_t fit = (5 << 18) / (depth * (int64_t)element) / 32 * 32;
    fit = fit < 64 ? 64 : smaller(fit, 512);
    int64_t blocks = (rows + fit - 1) / fit;
    j.row_block = (rows + 32 * blocks - 1) / (32 * blocks) * 32;
    region r = {.prepare = prepare_item, .item = product_item, .context = &j};
    r.preparations = padded / 16;
    r.items = w4ax_panels(layer) * ((rows + j.row_block - 1) / j.row_block);
    size_t unpacked = (size_t)(depth * PANEL) * element;
    if (unpacked < W4AX_SCRATCH) unpacked = W4AX_SCRATCH;
    r.scratch = (size_t)(j.row_block * PANEL * 4) + unpacked;
    /* A second thread takes longer to arrive than a small product does alone. */
    if (w4ax_panels(layer) * w4ax_blocks(layer) * (1 + rows / 32) < ALONE) threads = 1;
    return run(&r, threads);
}
