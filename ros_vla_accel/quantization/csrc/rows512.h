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

/* The largest magnitude of a row, as bits of a float. Compared as integers, so that infinity and
 * NaN, which are the largest ones, are not lost. */
AVX512 static inline int32_t row_largest(const void *x, int type, int64_t row, int64_t inputs) {
    __m512i largest = _mm512_setzero_si512(), more = largest;
    if (type == BFLOAT16) {
        const uint16_t *from = (const uint16_t *)x + row * inputs;
        const __m512i magnitude = _mm512_set1_epi16(0x7fff);
        for (int64_t k = 0; k < inputs; k += 64) {
            __mmask64 mask = inputs - k >= 64 ? ~0ull : (1ull << (inputs - k)) - 1;
            __m512i a = _mm512_maskz_loadu_epi16((__mmask32)mask, from + k);
            __m512i b = _mm512_maskz_loadu_epi16((__mmask32)(mask >> 32), from + k + 32);
            largest = _mm512_max_epu16(largest, _mm512_and_si512(a, magnitude));
            more = _mm512_max_epu16(more, _mm512_and_si512(b, magnitude));
        }
        largest = _mm512_max_epu16(largest, more);
        more = _mm512_slli_epi32(largest, 16);
        largest = _mm512_and_si512(largest, _mm512_set1_epi32((int)0xffff0000));
    } else {
        const float *from = (const float *)x + row * inputs;
        const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
        for (int64_t k = 0; k < inputs; k += 32) {
            __m512i a = _mm512_maskz_loadu_epi32(lanes(k, inputs), from + k);
            __m512i b = _mm512_maskz_loadu_epi32(lanes(k + 16, inputs), from + k + 16);
            largest = _mm512_max_epi32(largest, _mm512_and_si512(a, magnitude));
            more = _mm512_max_epi32(more, _mm512_and_si512(b, magnitude));
        }
    }
    return _mm512_reduce_max_epi32(_mm512_max_epi32(largest, more));
}

/* Scale of one row, and the factor that takes it to integers of at most ``limit``: 0 for a row
 * without a usable scale. */
AVX512 static inline float row_factor(const void *x, int type, int64_t row, int64_t inputs,
                                      int limit, float *scale) {
    union {
        int32_t bits;
        float value;
    } top = {row_largest(x, type, row, inputs)};
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

/* BF16 in the upper halves, to nearest even. The NaN of arithmetic stays one: its low bits are 0,
 * so nothing carries. */
AVX512 static inline __m512i bf16_bits(__m512 value) {
    const __m512i odd = _mm512_set1_epi32(1), half = _mm512_set1_epi32(0x7fff);
    __m512i v = _mm512_castps_si512(value);
    __m512i even = _mm512_and_si512(_mm512_srli_epi32(v, 16), odd);
    return _mm512_add_epi32(v, _mm512_add_epi32(half, even));
}

#endif
#endif
