/* The AAD layer's blend and ReLU, forward and backward, in one pass over memory: aad.py says what they compute.
 *
 * Channels-last: a pixel's numbers lie side by side. h and out have C channels; att and identity have gamma (C) and
 * then beta (C), att for each pixel, identity for each image; mask has one number a pixel. C is a multiple of LANES.
 * h, att, out and their gradients are float32, or bfloat16 where `half` says so; the rest is float32, and so are sums.
 */
#include "lanes.h"

/* One pixel of an image, whose number is given. */
INLINE void forward(const void *h, const void *att, const float *identity, float m, void *out, long pixel,
                    long channels, int half) {
    const long at = pixel * channels, a = 2 * at;
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma = map_load(att, a + c, half), beta = map_load(att, a + channels + c, half);
        gamma += m * (load(identity + c) - gamma);
        beta += m * (load(identity + channels + c) - beta);
        lanes value = gamma * map_load(h, at + c, half) + beta;
        map_store(out, at + c, where(value > 0, value), half);
    }
}

void aad_forward(const void *h, const void *att, const float *identity, const float *mask, void *out, long images,
                 long pixels, long channels, long half) {
#pragma omp parallel for schedule(static)
    for (long pixel = 0; pixel < images * pixels; pixel++) {
        const float *i = identity + pixel / pixels * 2 * channels;
        if (half)
            forward(h, att, i, mask[pixel], out, pixel, channels, 1);
        else
            forward(h, att, i, mask[pixel], out, pixel, channels, 0);
    }
}

/* The same backward. Gradients of gamma_id and beta_id are added to `sum`; the mask's is returned. */
INLINE float backward(const void *gradient, const void *h, const void *att, const float *identity, float m, void *to_h,
                      void *to_att, float *sum, long pixel, long channels, int half) {
    const long at = pixel * channels, a = 2 * at;
    lanes to_m = {0};
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma_att = map_load(att, a + c, half), beta_att = map_load(att, a + channels + c, half);
        lanes x = map_load(h, at + c, half);
        lanes gamma_more = load(identity + c) - gamma_att, beta_more = load(identity + channels + c) - beta_att;
        lanes gamma = gamma_att + m * gamma_more;
        bits kept = gamma * x + beta_att + m * beta_more > 0;
        lanes to_beta = where(kept, map_load(gradient, at + c, half)), to_gamma = to_beta * x;
        map_store(to_h, at + c, to_beta * gamma, half);
        map_store(to_att, a + c, (1 - m) * to_gamma, half);
        map_store(to_att, a + channels + c, (1 - m) * to_beta, half);
        store(sum + c, load(sum + c) + m * to_gamma);
        store(sum + channels + c, load(sum + channels + c) + m * to_beta);
        to_m += to_gamma * gamma_more + to_beta * beta_more;
    }
    float total = 0;
    for (int lane = 0; lane < LANES; lane++) total += to_m[lane];
    return total;
}

/* `to_identity` gets a sum for each block of `block` pixels of an image: (images, blocks, 2 C), not yet added up. */
void aad_backward(const void *gradient, const void *h, const void *att, const float *identity, const float *mask,
                  void *to_h, void *to_att, float *to_identity, float *to_mask, long images, long pixels, long channels,
                  long block, long half) {
    long blocks = (pixels + block - 1) / block;
#pragma omp parallel for schedule(static)
    for (long part = 0; part < images * blocks; part++) {
        long image = part / blocks, first = part % blocks * block;
        long last = first + block < pixels ? first + block : pixels;
        const float *i = identity + image * 2 * channels;
        float *sum = to_identity + part * 2 * channels;
        for (long c = 0; c < 2 * channels; c++) sum[c] = 0;
        for (long pixel = image * pixels + first; pixel < image * pixels + last; pixel++) {
            const float m = mask[pixel];
            if (half)
                to_mask[pixel] = backward(gradient, h, att, i, m, to_h, to_att, sum, pixel, channels, 1);
            else
                to_mask[pixel] = backward(gradient, h, att, i, m, to_h, to_att, sum, pixel, channels, 0);
        }
    }
}
