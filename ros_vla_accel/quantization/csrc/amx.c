/* AMX: tiles of 16 channels x 64 inputs against tiles of 64 inputs x 16 rows.
 *
 * Weights are the left operand, so that a tile row is one channel and has one group scale: a
 * look-up of 64 nibbles in the table of its scale is the whole unpacking. Up to 32 rows, blocks
 * are unpacked just ahead of their use and the sums stay in tiles; above, inputs come in chunks
 * whose weights stay in the first-level cache for all rows. */
#include "rows512.h"

#if W4AX_X86
#include <string.h>

#define AMX \
    __attribute__((target( \
        "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,avx512bf16,amx-tile,amx-int8,amx-bf16")))

enum { TILE_ROWS = 16, TILE_BYTES = 1024, ROW_BYTES = 64 };
/* Bytes of weights that are fetched ahead of use, to the first and the second-level cache. */
enum { NEAR = PANEL * BLOCK_BYTES, FAR = 8 * PANEL * BLOCK_BYTES };
enum { CHUNK = 16384 };                   /* bytes of unpacked weights that stay in the L1 cache */

AMX static inline void configure(void) {
    _Alignas(64) uint8_t config[64] = {1};
    uint16_t *row_bytes = (uint16_t *)(config + 16);
    for (int tile = 0; tile < 8; tile++) {
        row_bytes[tile] = ROW_BYTES;
        config[48 + tile] = TILE_ROWS;
    }
    _tile_loadconfig(config);
}

AMX static inline void clear(void) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

/* The accumulators at ``held``: 4 KB for 32 rows, which stay in this order until ``finish``. */
AMX static inline void suspend(int pair, void *held) {
    _tile_stored(0, held, 64);
    _tile_stored(2, (char *)held + 2 * TILE_BYTES, 64);
    if (pair) {
        _tile_stored(1, (char *)held + TILE_BYTES, 64);
        _tile_stored(3, (char *)held + 3 * TILE_BYTES, 64);
    }
}

AMX static inline void resume(int64_t start, const void *held) {
    if (!start) {
        clear();
        return;
    }
    _tile_loadd(0, held, 64);
    _tile_loadd(1, (const char *)held + TILE_BYTES, 64);
    _tile_loadd(2, (const char *)held + 2 * TILE_BYTES, 64);
    _tile_loadd(3, (const char *)held + 3 * TILE_BYTES, 64);
}

/* Channels 0..15 and 16..31 at a, rows 0..15 at b0, 16..31 at b1. */
#define STEP(multiply, a, b0, b1, pair) \
    do { \
        _tile_loadd(4, (a), ROW_BYTES); \
        _tile_loadd(6, (b0), ROW_BYTES); \
        _tile_loadd(5, (const int8_t *)(a) + TILE_BYTES, ROW_BYTES); \
        multiply(0, 4, 6); \
        multiply(2, 5, 6); \
        if (pair) { \
            _tile_loadd(7, (b1), ROW_BYTES); \
            multiply(1, 4, 7); \
            multiply(3, 5, 7); \
        } \
    } while (0)

/* One channel of 16 rows: outputs from sums, which are int32, or float where not ``scaled``. */
AMX static inline __m512 value(const int32_t *sums, float channel, const float *bias, int scaled,
                               __m512 row_scale) {
    __m512i held = _mm512_load_si512(sums);
    __m512 v = scaled ? _mm512_cvtepi32_ps(held) : _mm512_castsi512_ps(held);
    v = _mm512_mul_ps(v, _mm512_set1_ps(channel));
    if (scaled) v = _mm512_mul_ps(v, row_scale);
    return bias ? _mm512_add_ps(v, _mm512_set1_ps(*bias)) : v;
}

/* What ``finish`` needs of the 32 channels of a panel. */
typedef struct {
    const float *channel, *row_scale;
    float bias[PANEL];
    __mmask16 mask[2];
    int64_t outputs, n;
    int biased, type;
    void *out;
} ending;

AMX static inline ending end_of(const w4ax_layer *layer, int64_t panel, const w4ax_output *to) {
    ending e = {.outputs = layer->outputs, .n = panel * PANEL, .type = to->type, .out = to->out};
    e.channel = layer->channel_scale + e.n;
    e.row_scale = to->row_scale;
    e.biased = layer->bias != NULL;
    for (int i = 0; i < 2; i++) {
        e.mask[i] = lanes(e.n + 16 * i, layer->outputs);
        if (e.biased)
            _mm512_storeu_ps(e.bias + 16 * i,
                             _mm512_maskz_loadu_ps(e.mask[i], layer->bias + e.n + 16 * i));
    }
    return e;
}

/* Suspended sums of up to 32 rows to their outputs. Channels are rows there, so everything is
 * transposed, BF16 as pairs of channels. */
AMX static void finish(const ending *e, int64_t first, int64_t count, const void *held) {
    const int32_t *sums = held;
    int scaled = e->row_scale != NULL;
    for (int64_t row = 0; row < count; row += 16) {
        const int32_t *from = sums + row * 16;
        int rows = count - row < 16 ? (int)(count - row) : 16;
        int64_t at = (first + row) * e->outputs + e->n;
        __m512 scale = scaled ? _mm512_maskz_loadu_ps(lanes(row, count), e->row_scale + first + row)
                              : _mm512_setzero_ps();
        __m512i r[16];
        if (e->type == BFLOAT16) {
            for (int i = 0; i < 16; i++) {
                int c = 2 * i;
                const int32_t *pair = from + c / 16 * 512 + c % 16 * 16;
                __m512i low = bf16_bits(
                    value(pair, e->channel[c], e->biased ? e->bias + c : NULL, scaled, scale));
                __m512i high = bf16_bits(
                    value(pair + 16, e->channel[c + 1], e->biased ? e->bias + c + 1 : NULL, scaled, scale));
                r[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(low, 16), high);
            }
            transpose16(r);
            __mmask32 both = (__mmask32)e->mask[1] << 16 | e->mask[0];
            for (int i = 0; i < rows; i++)
                _mm512_mask_storeu_epi16((uint16_t *)e->out + at + i * e->outputs, both, r[i]);
            continue;
        }
        for (int half = 0; half < 2; half++, from += 512) {
            for (int i = 0; i < 16; i++) {
                int c = 16 * half + i;
                r[i] = _mm512_load_si512(from + i * 16);
                if (e->type == FLOAT32)
                    r[i] = _mm512_castps_si512(value(from + i * 16, e->channel[c],
                                                     e->biased ? e->bias + c : NULL, scaled, scale));
            }
            transpose16(r);
            for (int i = 0; i < rows; i++)
                _mm512_mask_storeu_epi32((int32_t *)e->out + at + i * e->outputs + 16 * half,
                                         e->mask[half], r[i]);
        }
    }
}

AMX static inline void fetch(const uint8_t *weights) {
    _mm_prefetch((const char *)weights + NEAR, _MM_HINT_T0);
    _mm_prefetch((const char *)weights + FAR, _MM_HINT_T1);
}

/* One block to [half][32 channels][64 inputs] int8. */
AMX static inline void unpack(const w4ax_layer *layer, int64_t panel, int64_t block, int8_t *to) {
    const uint8_t *bytes = w4ax_block(layer, panel, block);
    const uint8_t *low = w4ax_scales(layer, panel, 2 * block);
    const uint8_t *high = w4ax_scales(layer, panel, 2 * block + 1);
    for (int c = 0; c < PANEL; c++) {
        const uint8_t *from = bytes + c * BLOCK_BYTES;
        fetch(from);
        __m512i w = _mm512_loadu_si512(from);
        __m512i a = _mm512_permutexvar_epi8(w, _mm512_load_si512(w4ax_values[low[c]]));
        __m512i b = _mm512_permutexvar_epi8(_mm512_srli_epi16(w, 4),
                                            _mm512_load_si512(w4ax_values[high[c]]));
        _mm512_store_si512(to + c * 64, a);
        _mm512_store_si512(to + 2 * TILE_BYTES + c * 64, b);
    }
}

/* quantized[row / 16][k / 64][16 groups of 4 inputs][16 rows][4]. */
AMX static void quantize(const w4ax_layer *layer, const void *x, int type, int64_t first,
                         int64_t count, int limit, int8_t *quantized, float *scale) {
    int64_t inputs = layer->inputs, depth = w4ax_blocks(layer) * BLOCK;
    float factor[16] = {0};
    for (int64_t i = 0; i < count; i++)
        factor[i] = row_factor(x, type, first + i, inputs, limit, scale + first + i);
    for (int64_t k = 0; k < depth; k += 64) {
        __m512i r[16];
        for (int i = 0; i < 16; i++)
            r[i] = i < count ? quantize64(x, type, first + i, inputs, k, factor[i])
                             : _mm512_setzero_si512();
        transpose16(r);
        int8_t *to = quantized + first * depth + k * 16;
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 64, r[i]);
    }
}

AMX static void product(const w4ax_layer *layer, int64_t panel, const int8_t *quantized,
                        int64_t first, int64_t count, const w4ax_output *to, int32_t *sums,
                        int8_t *scratch) {
    int64_t blocks = w4ax_blocks(layer), depth = blocks * BLOCK;
    enum { UNPACKED = PANEL * BLOCK };
    ending e = end_of(layer, panel, to);
    configure();
    if (count <= 32) {
        const int8_t *b0 = quantized + first * depth, *b1 = b0 + 16 * depth;
        int pair = count > 16;
        clear();
        unpack(layer, panel, 0, scratch);
        for (int64_t block = 0; block < blocks; block++) {
            const int8_t *a = scratch + (block & 1) * UNPACKED;
            if (block + 1 < blocks)
                unpack(layer, panel, block + 1, scratch + (~block & 1) * UNPACKED);
            for (int half = 0; half < 2; half++, b0 += TILE_BYTES, b1 += TILE_BYTES)
                STEP(_tile_dpbssd, a + half * 2 * TILE_BYTES, b0, b1, pair);
        }
        suspend(pair, sums);
        finish(&e, first, count, sums);
    } else {
        enum { BLOCKS = CHUNK / UNPACKED };
        for (int64_t start = 0; start < blocks; start += BLOCKS) {
            int64_t end = start + BLOCKS < blocks ? start + BLOCKS : blocks;
            for (int64_t block = start; block < end; block++)
                unpack(layer, panel, block, scratch + (block - start) * UNPACKED);
            for (int64_t row = 0; row < count; row += 32) {
                const int8_t *b0 = quantized + (first + row) * depth + start * 2 * TILE_BYTES;
                const int8_t *b1 = b0 + 16 * depth;
                int pair = count - row > 16;
                resume(start, sums + row * PANEL);
                for (int64_t i = 0; i < 2 * (end - start); i++)
                    STEP(_tile_dpbssd, scratch + i * 2 * TILE_BYTES, b0 + i * TILE_BYTES,
                         b1 + i * TILE_BYTES, pair);
                suspend(pair, sums + row * PANEL);
                /* At once: the stores go on while the next tiles are multiplied. */
                if (end == blocks)
                    finish(&e, first + row, count - row < 32 ? count - row : 32,
                           sums + row * PANEL);
            }
        }
    }
    _tile_release();
}

const w4ax_path w4ax_amx = {quantize, product};

/* ---- width 16 */

/* One block to [quarter][32 channels][32 inputs] BF16. */
AMX static inline void unpack16(const w4ax_layer *layer, int64_t panel, int64_t block,
                                uint16_t *to) {
    const uint8_t *bytes = w4ax_block(layer, panel, block);
    const uint8_t *low = w4ax_scales(layer, panel, 2 * block);
    const uint8_t *high = w4ax_scales(layer, panel, 2 * block + 1);
    for (int c = 0; c < PANEL; c++) {
        const uint8_t *from = bytes + c * BLOCK_BYTES;
        fetch(from);
        __m512i a = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)from));
        __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const void *)(from + 32)));
        __m512i l = _mm512_load_si512(w4ax_values16[low[c]]);
        __m512i h = _mm512_load_si512(w4ax_values16[high[c]]);
        uint16_t *row = to + c * 32;
        _mm512_store_si512(row, _mm512_permutexvar_epi16(a, l));
        _mm512_store_si512(row + TILE_BYTES, _mm512_permutexvar_epi16(b, l));
        a = _mm512_srli_epi16(a, 4);
        b = _mm512_srli_epi16(b, 4);
        _mm512_store_si512(row + 2 * TILE_BYTES, _mm512_permutexvar_epi16(a, h));
        _mm512_store_si512(row + 3 * TILE_BYTES, _mm512_permutexvar_epi16(b, h));
    }
}

AMX static inline __m512i bf16x32(const void *x, int type, int64_t index, int64_t left) {
    if (type == BFLOAT16) {
        __mmask32 mask = left >= 32 ? ~0u : left <= 0 ? 0 : (1u << left) - 1;
        return _mm512_maskz_loadu_epi16(mask, (const uint16_t *)x + index);
    }
    __m512 a = load_row(x, type, index, lanes(0, left));
    __m512 b = load_row(x, type, index + 16, lanes(16, left));
    return (__m512i)_mm512_cvtne2ps_pbh(b, a);
}

/* spread[row / 16][k / 32][16 pairs of inputs][16 rows][2]. */
AMX static void spread_rows(const w4ax_layer *layer, const void *x, int type, int64_t first,
                            int64_t count, uint16_t *spread) {
    int64_t inputs = layer->inputs, depth = w4ax_blocks(layer) * BLOCK;
    for (int64_t k = 0; k < depth; k += 32) {
        __m512i r[16];
        for (int i = 0; i < 16; i++)
            r[i] = i < count ? bf16x32(x, type, (first + i) * inputs + k, inputs - k)
                             : _mm512_setzero_si512();
        transpose16(r);
        uint16_t *to = spread + first * depth + k * 16;
        for (int i = 0; i < 16; i++) _mm512_storeu_si512(to + i * 32, r[i]);
    }
}

AMX static void product16(const w4ax_layer *layer, int64_t panel, const uint16_t *spread,
                          int64_t first, int64_t count, const w4ax_output *to, float *sums,
                          uint16_t *scratch) {
    int64_t blocks = w4ax_blocks(layer), depth = blocks * BLOCK;
    enum { UNPACKED = PANEL * BLOCK, TILE = TILE_BYTES / 2 };
    ending e = end_of(layer, panel, to);
    configure();
    if (count <= 32) {
        const uint16_t *b0 = spread + first * depth, *b1 = b0 + 16 * depth;
        int pair = count > 16;
        clear();
        unpack16(layer, panel, 0, scratch);
        for (int64_t block = 0; block < blocks; block++) {
            const uint16_t *a = scratch + (block & 1) * UNPACKED;
            if (block + 1 < blocks)
                unpack16(layer, panel, block + 1, scratch + (~block & 1) * UNPACKED);
            for (int quarter = 0; quarter < 4; quarter++, b0 += TILE, b1 += TILE)
                STEP(_tile_dpbf16ps, a + quarter * 2 * TILE, b0, b1, pair);
        }
        suspend(pair, sums);
        finish(&e, first, count, sums);
    } else {
        enum { BLOCKS = CHUNK / UNPACKED / 2 };
        for (int64_t start = 0; start < blocks; start += BLOCKS) {
            int64_t end = start + BLOCKS < blocks ? start + BLOCKS : blocks;
            for (int64_t block = start; block < end; block++)
                unpack16(layer, panel, block, scratch + (block - start) * UNPACKED);
            for (int64_t row = 0; row < count; row += 32) {
                const uint16_t *b0 = spread + (first + row) * depth + start * 4 * TILE;
                const uint16_t *b1 = b0 + 16 * depth;
                int pair = count - row > 16;
                resume(start, sums + row * PANEL);
                for (int64_t i = 0; i < 4 * (end - start); i++)
                    STEP(_tile_dpbf16ps, scratch + i * 2 * TILE, b0 + i * TILE, b1 + i * TILE,
                         pair);
                suspend(pair, sums + row * PANEL);
                /* At once: the stores go on while the next tiles are multiplied. */
                if (end == blocks)
                    finish(&e, first + row, count - row < 32 ? count - row : 32,
                           sums + row * PANEL);
            }
        }
    }
    _tile_release();
}

const w4ax_path16 w4ax_amx16 = {spread_rows, product16};
#endif
