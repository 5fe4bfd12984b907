/* AVX-512 with VNNI: signed weights against activations that 128 makes unsigned. The 128 comes
 * back out as 128 times the sum of the channel's weights, which is known. */
#include "rows512.h"

#if W4AX_X86

/* quantized[row][k], unsigned: integer + 128. */
AVX512 static void quantize(const w4ax_layer *layer, const void *x, int type, int64_t first,
                            int64_t count, int limit, int8_t *quantized, float *scale) {
    int64_t inputs = layer->inputs, depth = w4ax_blocks(layer) * BLOCK;
    const __m512i offset = _mm512_set1_epi8((char)128);
    for (int64_t r = first; r < first + count; r++) {
        float factor = row_factor(x, type, r, inputs, limit, scale + r);
        for (int64_t k = 0; k < depth; k += 64) {
            __m512i row = quantize64(x, type, r, inputs, k, factor);
            _mm512_storeu_si512(quantized + r * depth + k, _mm512_xor_si512(row, offset));
        }
    }
}

enum { AHEAD = 5 * PANEL * BLOCK_BYTES }; /* bytes of weights that are fetched ahead of use */

AVX512 static inline void unpack_row(const uint8_t *bytes, const int8_t *low, const int8_t *high,
                                     __m512i *a, __m512i *b) {
    const __m512i nibble = _mm512_set1_epi8(15);
    __m512i w = _mm512_loadu_si512(bytes);
    *a = _mm512_shuffle_epi8(_mm512_load_si512(low), _mm512_and_si512(w, nibble));
    *b = _mm512_shuffle_epi8(_mm512_load_si512(high),
                             _mm512_and_si512(_mm512_srli_epi16(w, 4), nibble));
}

/* Sums of the lanes of 16 vectors, as one vector. */
AVX512 static inline __m512i reduce16(__m512i r[16]) {
    transpose16(r);
    for (int step = 8; step; step /= 2)
        for (int i = 0; i < step; i++) r[i] = _mm512_add_epi32(r[i], r[i + step]);
    return r[0];
}

/* One row: nibbles never leave the registers. */
AVX512 static void one_row(const w4ax_layer *layer, int64_t panel, const int8_t *a,
                           int32_t *sums) {
    int64_t blocks = w4ax_blocks(layer);
    for (int c0 = 0; c0 < PANEL; c0 += 16) {
        __m512i sum[16];
        for (int c = 0; c < 16; c++) sum[c] = _mm512_setzero_si512();
        for (int64_t block = 0; block < blocks; block++) {
            const uint8_t *bytes = w4ax_block(layer, panel, block) + c0 * BLOCK_BYTES;
            const uint8_t *low = w4ax_scales(layer, panel, 2 * block) + c0;
            const uint8_t *high = w4ax_scales(layer, panel, 2 * block + 1) + c0;
            __m512i a0 = _mm512_loadu_si512(a + block * BLOCK);
            __m512i a1 = _mm512_loadu_si512(a + block * BLOCK + 64);
#pragma GCC unroll 16
            for (int c = 0; c < 16; c++) {
                __m512i w0, w1;
                /* The processor's own prefetch stops at every page, which is two blocks. */
                _mm_prefetch((const char *)bytes + AHEAD + c * BLOCK_BYTES, _MM_HINT_T0);
                unpack_row(bytes + c * BLOCK_BYTES, w4ax_values[low[c]], w4ax_values[high[c]],
                           &w0, &w1);
                sum[c] = _mm512_dpbusd_epi32(sum[c], a0, w0);
                sum[c] = _mm512_dpbusd_epi32(sum[c], a1, w1);
            }
        }
        _mm512_storeu_si512(sums + c0, reduce16(sum));
    }
}

/* ``rows`` (a constant, at most 4) rows against 4 channels of an unpacked panel. */
AVX512 static inline __attribute__((always_inline)) void tile(const int8_t *a, int64_t depth,
                                                              const int8_t *w, int rows,
                                                              __m512i sum[16]) {
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 4; c++) sum[4 * r + c] = _mm512_setzero_si512();
    for (int64_t k = 0; k < depth; k += 64) {
        __m512i weight[4];
#pragma GCC unroll 4
        for (int c = 0; c < 4; c++) weight[c] = _mm512_load_si512(w + c * depth + k);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            __m512i row = _mm512_loadu_si512(a + r * depth + k);
#pragma GCC unroll 4
            for (int c = 0; c < 4; c++)
                sum[4 * r + c] = _mm512_dpbusd_epi32(sum[4 * r + c], row, weight[c]);
        }
    }
}

AVX512 static void accumulate(const w4ax_layer *layer, int64_t panel, const int8_t *quantized,
                              int64_t first, int64_t count, int32_t *sums, int8_t *scratch) {
    int64_t blocks = w4ax_blocks(layer), depth = blocks * BLOCK;
    const int32_t *row_sum = layer->row_sum + panel * PANEL;
    if (count == 1) {
        one_row(layer, panel, quantized + first * depth, sums);
    } else {
        for (int64_t block = 0; block < blocks; block++) {
            const uint8_t *low = w4ax_scales(layer, panel, 2 * block);
            const uint8_t *high = w4ax_scales(layer, panel, 2 * block + 1);
            for (int c = 0; c < PANEL; c++) {
                __m512i w0, w1;
                unpack_row(w4ax_block(layer, panel, block) + c * BLOCK_BYTES,
                           w4ax_values[low[c]], w4ax_values[high[c]], &w0, &w1);
                _mm512_store_si512(scratch + c * depth + block * BLOCK, w0);
                _mm512_store_si512(scratch + c * depth + block * BLOCK + 64, w1);
            }
        }
        for (int64_t row = 0; row < count; row += 4) {
            const int8_t *a = quantized + (first + row) * depth;
            int rows = count - row < 4 ? (int)(count - row) : 4;
            for (int c = 0; c < PANEL; c += 4) {
                __m512i sum[16];
                const int8_t *w = scratch + c * depth;
                switch (rows) {
                case 4: tile(a, depth, w, 4, sum); break;
                case 3: tile(a, depth, w, 3, sum); break;
                case 2: tile(a, depth, w, 2, sum); break;
                default: tile(a, depth, w, 1, sum);
                }
                for (int r = rows; r < 4; r++)
                    for (int i = 0; i < 4; i++) sum[4 * r + i] = _mm512_setzero_si512();
                _Alignas(64) int32_t total[16];
                _mm512_store_si512(total, reduce16(sum));
                for (int r = 0; r < rows; r++)
                    for (int i = 0; i < 4; i++) sums[(row + r) * PANEL + c + i] = total[4 * r + i];
            }
        }
    }
    for (int64_t r = 0; r < count; r++)
        for (int c = 0; c < PANEL; c++)
            sums[r * PANEL + c] =
                (int32_t)((uint32_t)sums[r * PANEL + c] - 128u * (uint32_t)row_sum[c]);
}

/* What ``finish`` needs of the 32 channels of a panel, and where their outputs begin. */
typedef struct {
    __m512 channel[2], bias[2];
    __mmask16 mask[2];
    int64_t outputs, n;
    int biased, type;
    void *out;
} ending;

AVX512 static inline ending end_of(const w4ax_layer *layer, int64_t panel, void *out, int type) {
    ending e = {.outputs = layer->outputs, .n = panel * PANEL, .type = type, .out = out};
    e.biased = layer->bias != NULL;
    for (int i = 0; i < 2; i++) {
        e.mask[i] = lanes(e.n + 16 * i, layer->outputs);
        e.channel[i] = _mm512_loadu_ps(layer->channel_scale + e.n + 16 * i);
        e.bias[i] = e.biased ? _mm512_maskz_loadu_ps(e.mask[i], layer->bias + e.n + 16 * i)
                             : _mm512_setzero_ps();
    }
    return e;
}

/* Sums of one row to its outputs. */
AVX512 static inline void finish_row(const ending *e, int64_t row, __m512i sum0, __m512i sum1,
                                     float row_scale) {
    int64_t at = row * e->outputs + e->n;
    if (e->type == INT32) {
        _mm512_mask_storeu_epi32((int32_t *)e->out + at, e->mask[0], sum0);
        _mm512_mask_storeu_epi32((int32_t *)e->out + at + 16, e->mask[1], sum1);
        return;
    }
    __m512 a = _mm512_cvtepi32_ps(sum0);
    __m512 b = _mm512_cvtepi32_ps(sum1);
    a = _mm512_mul_ps(a, e->channel[0]);
    b = _mm512_mul_ps(b, e->channel[1]);
    __m512 scale = _mm512_set1_ps(row_scale);
    a = _mm512_mul_ps(a, scale);
    b = _mm512_mul_ps(b, scale);
    if (e->biased) {
        a = _mm512_add_ps(a, e->bias[0]);
        b = _mm512_add_ps(b, e->bias[1]);
    }
    if (e->type == FLOAT32) {
        _mm512_mask_storeu_ps((float *)e->out + at, e->mask[0], a);
        _mm512_mask_storeu_ps((float *)e->out + at + 16, e->mask[1], b);
        return;
    }
    __m512i p = bf16_bits(a), q = bf16_bits(b);
    const __m512i upper = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19,
        17, 15, 13, 11, 9, 7, 5, 3, 1);
    __mmask32 mask = (__mmask32)e->mask[1] << 16 | e->mask[0];
    _mm512_mask_storeu_epi16((uint16_t *)e->out + at, mask, _mm512_permutex2var_epi16(p, upper, q));
}

AVX512 static void product(const w4ax_layer *layer, int64_t panel, const int8_t *quantized,
                           int64_t first, int64_t count, const w4ax_output *to, int32_t *sums,
                           int8_t *scratch) {
    accumulate(layer, panel, quantized, first, count, sums, scratch);
    ending e = end_of(layer, panel, to->out, to->type);
    for (int64_t r = 0; r < count; r++, sums += PANEL)
        finish_row(&e, first + r, _mm512_loadu_si512(sums), _mm512_loadu_si512(sums + 16),
                   to->row_scale[first + r]);
}

const w4ax_path w4ax_avx512 = {quantize, product};
#endif
