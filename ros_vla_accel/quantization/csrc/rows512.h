/* Rows of activations in AVX-512 registers: what the AVX-512 and AMX paths share. */
#ifndef ROWS512_H
#define ROWS512_H

#include "w4ax.h"

#if W4AX_X86
#include <immintrin.h>
#include <math.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")))

/* Mask of the 16 elements from k on that lie before ``end``. */
static inline __mmask16 lanes(int64_t k, int64_t end) {
    int64_t left = end - k;
    return left >= 16 ? 0xffff : left <= 0 ? 0 : (__mmask16)((1u << left) - 1);
}

AVX512 static inline __m512 load_row(const void *x, int type, int64_t index, __mmask16 mask) {
    if (type == FLOAT32) return _mm512_maskz_loadu_ps(mask, (const float *)x + index);
    __m256i half = _mm256_maskz_loadu_epi16(mask, (const uint16_t *)x + index);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

/* Scale of one row, and the factor that takes it to integers of at most ``limit``: 0 for a row
 * without a usable scale. */
AVX512 static inline float row_factor(const void *x, int type, int64_t row, int64_t inputs,
                                      int limit, float *scale) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    __m512i largest = _mm512_setzero_si512(), more = largest;
    /* As integers, so that infinity and NaN, which are the largest ones, are not lost. */
    for (int64_t k = 0; k < inputs; k += 32) {
        int whole = k + 32 <= inputs;
        __mmask16 m0 = whole ? 0xffff : lanes(k, inputs);
        __mmask16 m1 = whole ? 0xffff : lanes(k + 16, inputs);
        __m512 a = load_row(x, type, row * inputs + k, m0);
        __m512 b = load_row(x, type, row * inputs + k + 16, m1);
        largest = _mm512_max_epi32(largest, _mm512_and_si512(_mm512_castps_si512(a), magnitude));
        more = _mm512_max_epi32(more, _mm512_and_si512(_mm512_castps_si512(b), magnitude));
    }
    union {
        int32_t bits;
        float value;
    } top = {_mm512_reduce_max_epi32(_mm512_max_epi32(largest, more))};
    if (top.bits >= 0x7f800000) {
        *scale = NAN;
        return 0.0f;
    }
    *scale = top.value / (float)limit;
    float factor = (float)limit / top.value;
    return isfinite(factor) ? factor : 0.0f;
}

/* 64 integers of a row from input k on; 0 behind its end. */
AVX512 static inline __m512i quantize64(const void *x, int type, int64_t row, int64_t inputs,
                                        int64_t k, float factor) {
    if (factor == 0.0f) return _mm512_setzero_si512();
    const __m512 f = _mm512_set1_ps(factor);
    __m512i part[4];
    int whole = k + 64 <= inputs;
    for (int i = 0; i < 4; i++) {
        __mmask16 mask = whole ? 0xffff : lanes(k + 16 * i, inputs);
        __m512 value = load_row(x, type, row * inputs + k + 16 * i, mask);
        part[i] = _mm512_cvtps_epi32(_mm512_mul_ps(value, f));
    }
    __m512i low = _mm512_packs_epi32(part[0], part[1]);
    __m512i high = _mm512_packs_epi32(part[2], part[3]);
    const __m512i order =
        _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, high));
}

/* Transposes 16 x 16 words in place. */
AVX512 static inline void transpose16(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
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

/* Sums of one row to its outputs: int32, or float where row_scale is NULL. */
AVX512 static inline void finish_row(const ending *e, int64_t row, __m512i sum0, __m512i sum1,
                                     const float *row_scale) {
    __m512 a = row_scale ? _mm512_cvtepi32_ps(sum0) : _mm512_castsi512_ps(sum0);
    __m512 b = row_scale ? _mm512_cvtepi32_ps(sum1) : _mm512_castsi512_ps(sum1);
    a = _mm512_mul_ps(a, e->channel[0]);
    b = _mm512_mul_ps(b, e->channel[1]);
    if (row_scale) {
        __m512 scale = _mm512_set1_ps(*row_scale);
        a = _mm512_mul_ps(a, scale);
        b = _mm512_mul_ps(b, scale);
    }
    if (e->biased) {
        a = _mm512_add_ps(a, e->bias[0]);
        b = _mm512_add_ps(b, e->bias[1]);
    }
    int64_t at = row * e->outputs + e->n;
    if (e->type == FLOAT32) {
        _mm512_mask_storeu_ps((float *)e->out + at, e->mask[0], a);
        _mm512_mask_storeu_ps((float *)e->out + at + 16, e->mask[1], b);
        return;
    }
    /* To nearest even. The NaN of arithmetic stays one: its low bits are 0, so nothing carries. */
    const __m512i odd = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i p = _mm512_castps_si512(a), q = _mm512_castps_si512(b);
    p = _mm512_add_epi32(
        p, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(p, 16), odd)));
    q = _mm512_add_epi32(
        q, _mm512_add_epi32(half, _mm512_and_si512(_mm512_srli_epi32(q, 16), odd)));
    const __m512i upper = _mm512_set_epi16(
        63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35, 33, 31, 29, 27, 25, 23, 21, 19,
        17, 15, 13, 11, 9, 7, 5, 3, 1);
    __mmask32 mask = (__mmask32)e->mask[1] << 16 | e->mask[0];
    _mm512_mask_storeu_epi16((uint16_t *)e->out + at, mask, _mm512_permutex2var_epi16(p, upper, q));
}

AVX512 static inline void finish512(const w4ax_layer *layer, int64_t panel, int64_t first,
                                    int64_t count, const void *sums, const float *row_scale,
                                    void *out, int type) {
    ending e = end_of(layer, panel, out, type);
    const int32_t *from = sums;
    for (int64_t r = 0; r < count; r++, from += PANEL)
        finish_row(&e, first + r, _mm512_loadu_si512(from), _mm512_loadu_si512(from + 16),
                   row_scale ? row_scale + r : NULL);
}

#endif
#endif
