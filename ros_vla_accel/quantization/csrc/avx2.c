/* AVX2: |weight| x (activation with the weight's sign) in pairs of int16, which cannot overflow:
 * 120 x 127 x 2 = 30,480. */
#include "w4ax.h"

#if W4AX_X86
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))

AVX2 static inline void unpack_row(const uint8_t *bytes, const int8_t *low, const int8_t *high,
                                   int8_t *to) {
    const __m256i nibble = _mm256_set1_epi8(15);
    __m256i l = _mm256_load_si256((const void *)low), h = _mm256_load_si256((const void *)high);
    for (int i = 0; i < BLOCK_BYTES; i += 32) {
        __m256i w = _mm256_loadu_si256((const void *)(bytes + i));
        __m256i a = _mm256_shuffle_epi8(l, _mm256_and_si256(w, nibble));
        __m256i b = _mm256_shuffle_epi8(h, _mm256_and_si256(_mm256_srli_epi16(w, 4), nibble));
        _mm256_store_si256((void *)(to + i), a);
        _mm256_store_si256((void *)(to + 64 + i), b);
    }
}

AVX2 static inline int32_t reduce(__m256i v) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    return _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
}

/* ``rows`` (a constant, at most 4) rows against 2 channels of an unpacked panel. */
AVX2 static inline __attribute__((always_inline)) void tile(const int8_t *a, int64_t depth,
                                                            const int8_t *w, int rows,
                                                            int32_t *sums) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i sum[4][2];
    for (int r = 0; r < rows; r++) sum[r][0] = sum[r][1] = _mm256_setzero_si256();
    for (int64_t k = 0; k < depth; k += 32) {
#pragma GCC unroll 2
        for (int c = 0; c < 2; c++) {
            __m256i weight = _mm256_load_si256((const void *)(w + c * depth + k));
            __m256i size = _mm256_abs_epi8(weight);
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                __m256i row = _mm256_loadu_si256((const void *)(a + r * depth + k));
                __m256i pairs = _mm256_maddubs_epi16(size, _mm256_sign_epi8(row, weight));
                sum[r][c] = _mm256_add_epi32(sum[r][c], _mm256_madd_epi16(pairs, ones));
            }
        }
    }
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < 2; c++) sums[r * PANEL + c] = reduce(sum[r][c]);
}

AVX2 static void product(const w4ax_layer *layer, int64_t panel, const int8_t *quantized,
                         int64_t first, int64_t count, const w4ax_output *to, int32_t *sums,
                         int8_t *scratch) {
    int64_t blocks = w4ax_blocks(layer), depth = blocks * BLOCK;
    for (int c = 0; c < PANEL; c += 2) {
        for (int64_t block = 0; block < blocks; block++) {
            const uint8_t *bytes = w4ax_block(layer, panel, block);
            const uint8_t *low = w4ax_scales(layer, panel, 2 * block);
            const uint8_t *high = w4ax_scales(layer, panel, 2 * block + 1);
            for (int i = c; i < c + 2; i++)
                unpack_row(bytes + i * BLOCK_BYTES, w4ax_values[low[i]], w4ax_values[high[i]],
                           scratch + (i - c) * depth + block * BLOCK);
        }
        for (int64_t row = 0; row < count; row += 4) {
            const int8_t *a = quantized + (first + row) * depth;
            int32_t *held = sums + row * PANEL + c;
            switch (count - row) {
            case 1: tile(a, depth, scratch, 1, held); break;
            case 2: tile(a, depth, scratch, 2, held); break;
            case 3: tile(a, depth, scratch, 3, held); break;
            default: tile(a, depth, scratch, 4, held);
            }
        }
    }
    w4ax_plain_finish(layer, panel, first, count, sums, to);
}

const w4ax_path w4ax_avx2 = {w4ax_plain_quantize, product};
#endif
