/* Linear layers with INT4 weights: y = x W^T + b, integer activations of 2, 4 or 8 bits, or BF16.
 *
 * Weights. A weight is c[n] * g[n, k / group] * (q[n, k] - 8): nibble q in 0..15, integer group
 * scale g in 1..15, one float c per output channel (progressive scales, QServe arXiv:2405.04532).
 * So g * (q - 8) is an int8 in -120..105 and a whole row sums up in one int32, whatever the group:
 * every path below gives the same integers, and tests hold them to it.
 *
 * Layout, the same in memory and in files. Channels go in panels of 32, inputs in blocks of 128,
 * both padded with zeros (nibble 8): packed[panel][block][32][64] bytes, the low nibble of byte i
 * is input i of the block, the high nibble input 64 + i. group_scale[panel][group][32].
 */
#ifndef W4AX_H
#define W4AX_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define W4AX_X86 1
#else
#define W4AX_X86 0
#endif

enum { PANEL = 32, BLOCK = 128, BLOCK_BYTES = 64 };
enum { PATH_PLAIN = 0, PATH_AVX2 = 1, PATH_AVX512 = 2, PATH_AMX = 3, PATHS = 4 };
enum { W4AX_SCRATCH = 16384 }; /* a chunk of weights, see amx.c */
enum { FLOAT32 = 0, BFLOAT16 = 1, INT32 = 2 };

typedef struct {
    int64_t outputs, inputs; /* N, K before padding */
    int64_t group;           /* inputs per group scale, a multiple of 64 */
    const uint8_t *packed, *group_scale;
    const float *channel_scale; /* (N padded to 32,) */
    const int32_t *row_sum;     /* (N padded to 32,): sum over k of g * (q - 8) */
    const float *bias;          /* (N,) or NULL */
} w4ax_layer;

static inline int64_t w4ax_blocks(const w4ax_layer *layer) {
    return (layer->inputs + BLOCK - 1) / BLOCK;
}

static inline int64_t w4ax_panels(const w4ax_layer *layer) {
    return (layer->outputs + PANEL - 1) / PANEL;
}

static inline const uint8_t *w4ax_block(const w4ax_layer *layer, int64_t panel, int64_t block) {
    return layer->packed + (panel * w4ax_blocks(layer) + block) * PANEL * BLOCK_BYTES;
}

/* Group scales of the 32 channels of a panel for half a block (64 inputs). The second half of the
 * last block may lie in padding behind the last group, where any scale does. */
static inline const uint8_t *w4ax_scales(const w4ax_layer *layer, int64_t panel, int64_t half) {
    int64_t groups = (layer->inputs + layer->group - 1) / layer->group;
    int64_t group = half * 64 / layer->group;
    if (group >= groups) group = groups - 1;
    return layer->group_scale + (panel * groups + group) * PANEL;
}

/* Where products go: out (rows, N) of ``type``. The order of arithmetic is part of the contract:
 * sum x channel scale x row scale + bias, each rounded to float, then to the type of out. INT32
 * takes the sums as they are. */
typedef struct {
    void *out;
    int type;
    float *row_scale; /* (rows,), written by quantize; NULL at width 16 */
} w4ax_output;

/* One path's share of the work. ``quantized`` holds what its quantize function wrote.
 *
 * quantize: rows first..first+count (count <= 16, first a multiple of 16) of x to n-bit integers,
 * and each row's scale (NaN when the row holds one; its integers are then 0).
 * product: outputs of one panel for rows first..first+count. sums: 128 bytes a row, rows in
 * multiples of 32. scratch: 32 x K elements, and at least W4AX_SCRATCH bytes. */
typedef struct {
    void (*quantize)(const w4ax_layer *, const void *x, int type, int64_t first, int64_t count,
                     int limit, int8_t *quantized, float *scale);
    void (*product)(const w4ax_layer *, int64_t panel, const int8_t *quantized, int64_t first,
                    int64_t count, const w4ax_output *to, int32_t *sums, int8_t *scratch);
} w4ax_path;

/* Width 16: BF16 activations, laid out by ``spread``, on weights unpacked to BF16. */
typedef struct {
    void (*spread)(const w4ax_layer *, const void *x, int type, int64_t first, int64_t count,
                   uint16_t *spread);
    void (*product)(const w4ax_layer *, int64_t panel, const uint16_t *spread, int64_t first,
                    int64_t count, const w4ax_output *to, float *sums, uint16_t *scratch);
} w4ax_path16;

/* quantized[row][k]. */
void w4ax_plain_quantize(const w4ax_layer *layer, const void *x, int type, int64_t first,
                         int64_t count, int limit, int8_t *quantized, float *scale);

/* sums[row][32] to the outputs of rows first..first+count. */
void w4ax_plain_finish(const w4ax_layer *layer, int64_t panel, int64_t first, int64_t count,
                       const int32_t *sums, const w4ax_output *to);

extern const w4ax_path w4ax_plain;
extern const int8_t w4ax_values[16][64];  /* [g][4 x 16]: g * (q - 8) */
extern uint16_t w4ax_values16[16][32];    /* the same as BF16, [g][2 x 16], filled once */
#if W4AX_X86
extern const w4ax_path w4ax_avx2, w4ax_avx512, w4ax_amx;
extern const w4ax_path16 w4ax_amx16;
#endif

#endif
