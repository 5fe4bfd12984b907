/* Plain C: any processor, and what the other paths are compared with. */
#include "w4ax.h"

#include <math.h>
#include <string.h>

#define ROW(g) \
    {-8 * g, -7 * g, -6 * g, -5 * g, -4 * g, -3 * g, -2 * g, -g, 0, g, 2 * g, 3 * g, 4 * g, 5 * g, \
     6 * g, 7 * g, -8 * g, -7 * g, -6 * g, -5 * g, -4 * g, -3 * g, -2 * g, -g, 0, g, 2 * g, 3 * g, \
     4 * g, 5 * g, 6 * g, 7 * g, -8 * g, -7 * g, -6 * g, -5 * g, -4 * g, -3 * g, -2 * g, -g, 0, g, \
     2 * g, 3 * g, 4 * g, 5 * g, 6 * g, 7 * g, -8 * g, -7 * g, -6 * g, -5 * g, -4 * g, -3 * g, \
     -2 * g, -g, 0, g, 2 * g, 3 * g, 4 * g, 5 * g, 6 * g, 7 * g}

/* Four copies of 16, so that an index may carry anything above its low nibble. */
_Alignas(64) const int8_t w4ax_values[16][64] = {
    ROW(0), ROW(1), ROW(2), ROW(3), ROW(4), ROW(5), ROW(6), ROW(7),
    ROW(8), ROW(9), ROW(10), ROW(11), ROW(12), ROW(13), ROW(14), ROW(15)};

static float element(const void *x, int type, int64_t index) {
    if (type == FLOAT32) return ((const float *)x)[index];
    uint32_t bits = (uint32_t)((const uint16_t *)x)[index] << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

void w4ax_plain_quantize(const w4ax_layer *layer, const void *x, int type, int64_t first,
                         int64_t count, int limit, int8_t *quantized, float *scale) {
    int64_t inputs = layer->inputs, depth = w4ax_blocks(layer) * BLOCK;
    for (int64_t r = first; r < first + count; r++) {
        int8_t *row = quantized + r * depth;
        float largest = 0.0f;
        int finite = 1;
        for (int64_t k = 0; k < inputs; k++) {
            float value = fabsf(element(x, type, r * inputs + k));
            if (!isfinite(value)) finite = 0;
            if (value > largest) largest = value;
        }
        memset(row, 0, (size_t)depth);
        scale[r] = finite ? largest / (float)limit : NAN;
        float inverse = (float)limit / largest;
        if (!finite || !isfinite(inverse)) continue;
        for (int64_t k = 0; k < inputs; k++)
            row[k] = (int8_t)rintf(element(x, type, r * inputs + k) * inverse);
    }
}

static void product(const w4ax_layer *layer, int64_t panel, const int8_t *quantized,
                    int64_t first, int64_t count, const w4ax_output *to, int32_t *sums,
                    int8_t *scratch) {
    int64_t blocks = w4ax_blocks(layer), depth = blocks * BLOCK;
    for (int c = 0; c < PANEL; c++) {
        for (int64_t b = 0; b < blocks; b++) {
            const uint8_t *bytes = w4ax_block(layer, panel, b) + c * BLOCK_BYTES;
            const int8_t *low = w4ax_values[w4ax_scales(layer, panel, 2 * b)[c]];
            const int8_t *high = w4ax_values[w4ax_scales(layer, panel, 2 * b + 1)[c]];
            int8_t *weight = scratch + b * BLOCK;
            for (int i = 0; i < BLOCK_BYTES; i++) {
                weight[i] = low[bytes[i] & 15];
                weight[64 + i] = high[bytes[i] >> 4];
            }
        }
        for (int64_t r = 0; r < count; r++) {
            const int8_t *a = quantized + (first + r) * depth;
            int32_t sum = 0;
            for (int64_t k = 0; k < depth; k++) sum += (int32_t)a[k] * scratch[k];
            sums[r * PANEL + c] = sum;
        }
    }
    w4ax_plain_finish(layer, panel, first, count, sums, to);
}

static uint16_t to_bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

void w4ax_plain_finish(const w4ax_layer *layer, int64_t panel, int64_t first, int64_t count,
                       const int32_t *sums, const w4ax_output *to) {
    int64_t n = panel * PANEL, width = layer->outputs - n < PANEL ? layer->outputs - n : PANEL;
    for (int64_t r = 0; r < count; r++)
        for (int64_t i = 0; i < width; i++) {
            int32_t sum = sums[r * PANEL + i];
            float value = (float)sum * layer->channel_scale[n + i] * to->row_scale[first + r];
            if (layer->bias) value += layer->bias[n + i];
            int64_t at = (first + r) * layer->outputs + n + i;
            if (to->type == INT32)
                ((int32_t *)to->out)[at] = sum;
            else if (to->type == FLOAT32)
                ((float *)to->out)[at] = value;
            else
                ((uint16_t *)to->out)[at] = to_bf16(value);
        }
}

const w4ax_path w4ax_plain = {w4ax_plain_quantize, product};
