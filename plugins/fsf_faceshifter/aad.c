/* AAD layer: modulation, blend and ReLU, forward and backward, each in one pass over memory. See aad.py.
 *
 * Layout: channels-last. h and out have C channels. att and identity have 2 C: gamma (C), then beta (C), att for each
 * pixel and identity for each image. mask has one value per pixel. C is a multiple of LANES.
 * With `upsample`, att has half the side and is interpolated bilinearly, without a full-size copy in memory. Its
 * gradient is returned at full size, that is, for the interpolated att.
 * h, att, out and their gradients are bfloat16 with `half`, else float32. All else, including sums, is float32.
 */
#include "simd.h"

/* Offsets in att of a pixel's first channel and their interpolation weights. Without upsampling there is one sample,
 * the pixel itself; with upsampling there are four neighbours, clamped to the edge. */
typedef struct {
    long offset[4];
    float weight[4];
} Samples;

INLINE Samples sample_at(long image, long y, long x, long height, long width, long channels, int upsample) {
    Samples samples = {{2 * channels * ((image * height + y) * width + x)}, {1}};
    if (!upsample) return samples;
    long low_height = height / 2, low_width = width / 2;
    long above = (y + 1) / 2 - 1, left = (x + 1) / 2 - 1;
    long rows[2] = {above < 0 ? 0 : above, above + 1 < low_height ? above + 1 : low_height - 1};
    long columns[2] = {left < 0 ? 0 : left, left + 1 < low_width ? left + 1 : low_width - 1};
    float lower = y % 2 ? 0.25f : 0.75f, right = x % 2 ? 0.25f : 0.75f;
    for (int k = 0; k < 4; k++) {
        samples.offset[k] = 2 * channels * ((image * low_height + rows[k / 2]) * low_width + columns[k % 2]);
        samples.weight[k] = (k / 2 ? lower : 1 - lower) * (k % 2 ? right : 1 - right);
    }
    return samples;
}

INLINE lanes sample_load(const void *att, const Samples *samples, long c, int half, int upsample) {
    lanes value = map_load(att, samples->offset[0] + c, half);
    if (!upsample) return value;
    value *= samples->weight[0];
    for (int k = 1; k < 4; k++) value += samples->weight[k] * map_load(att, samples->offset[k] + c, half);
    return value;
}

/* Compute the output of one pixel of an image. */
INLINE void forward(const void *h, const void *att, const float *identity, float m, void *out, long image, long y,
                    long x, long height, long width, long channels, int half, int upsample) {
    const long at = ((image * height + y) * width + x) * channels;
    const Samples att_samples = sample_at(image, y, x, height, width, channels, upsample);
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma = sample_load(att, &att_samples, c, half, upsample);
        lanes beta = sample_load(att, &att_samples, channels + c, half, upsample);
        gamma += m * (load(identity + c) - gamma);
        beta += m * (load(identity + channels + c) - beta);
        lanes value = gamma * map_load(h, at + c, half) + beta;
        map_store(out, at + c, where(value > 0, value), half);
    }
}

/* Call with constants for `half` and `upsample`, so that the compiler generates four specialised functions. */
#define SPECIALIZE(CALL) (half ? upsample ? CALL(1, 1) : CALL(1, 0) : upsample ? CALL(0, 1) : CALL(0, 0))

#define FORWARD(HALF, UPSAMPLE) \
    forward(h, att, i, mask[row * width + x], out, image, y, x, height, width, channels, HALF, UPSAMPLE)

void aad_forward(const void *h, const void *att, const float *identity, const float *mask, void *out, long images,
                 long height, long width, long channels, long half, long upsample) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < images * height; row++) {
        const long image = row / height, y = row % height;
        const float *i = identity + image * 2 * channels;
        for (long x = 0; x < width; x++) SPECIALIZE(FORWARD);
    }
}

/* Compute the gradients of one pixel. Those of gamma_id and beta_id are added to `sum`; the mask's is returned. */
INLINE float backward(const void *gradient, const void *h, const void *att, const float *identity, float m,
                      void *grad_h, void *grad_att, float *sum, long image, long y, long x, long height, long width,
                      long channels, int half, int upsample) {
    const long at = ((image * height + y) * width + x) * channels, a = 2 * at;
    const Samples att_samples = sample_at(image, y, x, height, width, channels, upsample);
    lanes grad_m = {0};
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma_att = sample_load(att, &att_samples, c, half, upsample);
        lanes beta_att = sample_load(att, &att_samples, channels + c, half, upsample);
        lanes normalized = map_load(h, at + c, half);
        lanes gamma_delta = load(identity + c) - gamma_att, beta_delta = load(identity + channels + c) - beta_att;
        lanes gamma = gamma_att + m * gamma_delta;
        bits positive = gamma * normalized + beta_att + m * beta_delta > 0;
        lanes grad_beta = where(positive, map_load(gradient, at + c, half)), grad_gamma = grad_beta * normalized;
        map_store(grad_h, at + c, grad_beta * gamma, half);
        map_store(grad_att, a + c, (1 - m) * grad_gamma, half);
        map_store(grad_att, a + channels + c, (1 - m) * grad_beta, half);
        store(sum + c, load(sum + c) + m * grad_gamma);
        store(sum + channels + c, load(sum + channels + c) + m * grad_beta);
        grad_m += grad_gamma * gamma_delta + grad_beta * beta_delta;
    }
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += grad_m[lane];
    return total;
}

#define BACKWARD(HALF, UPSAMPLE) \
    backward(gradient, h, att, i, mask[pixel], grad_h, grad_att, sum, image, y, x, height, width, channels, HALF, \
             UPSAMPLE)

/* `grad_identity` (images, blocks, 2 C) receives one partial sum for each block of `block` pixels of an image. */
void aad_backward(const void *gradient, const void *h, const void *att, const float *identity, const float *mask,
                  void *grad_h, void *grad_att, float *grad_identity, float *grad_mask, long images, long height,
                  long width, long channels, long block, long half, long upsample) {
    const long pixels = height * width;
    long blocks = (pixels + block - 1) / block;
#pragma omp parallel for schedule(static)
    for (long part = 0; part < images * blocks; part++) {
        long image = part / blocks, first = part % blocks * block;
        long last = first + block < pixels ? first + block : pixels;
        const float *i = identity + image * 2 * channels;
        float *sum = grad_identity + part * 2 * channels;
        for (long c = 0; c < 2 * channels; c++) sum[c] = 0;
        for (long p = first, y = first / width, x = first % width; p < last; p++) {
            const long pixel = image * pixels + p;
            grad_mask[pixel] = SPECIALIZE(BACKWARD);
            if (++x == width) x = 0, y++;
        }
    }
}
