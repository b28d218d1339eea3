/* The AAD layer's blend and ReLU, forward and backward, in one pass over memory: aad.py says what they compute.
 *
 * Channels-last: a pixel's numbers lie side by side. h and out have C channels; att and identity have gamma (C) and
 * then beta (C), att for each pixel, identity for each image; mask has one number a pixel. C is a multiple of LANES.
 * att may have half the side (`doubled`): it is interpolated on the way, and is never in memory at full size. Its
 * gradient is that of the interpolated one.
 * h, att, out and their gradients are float32, or bfloat16 where `half` says so; the rest is float32, and so are sums.
 */
#include "simd.h"

/* Where the number 0 of att is for a pixel: its own, or where att has half the side the four that bilinear
 * interpolation mixes, and their shares. Beyond the edge they are those at the edge. */
typedef struct {
    long at[4];
    float share[4];
} Near;

INLINE Near near(long image, long y, long x, long height, long width, long channels, int doubled) {
    Near found = {{2 * channels * ((image * height + y) * width + x)}, {1}};
    if (!doubled) return found;
    long tall = height / 2, wide = width / 2;
    long above = (y + 1) / 2 - 1, left = (x + 1) / 2 - 1;
    long rows[2] = {above < 0 ? 0 : above, above + 1 < tall ? above + 1 : tall - 1};
    long columns[2] = {left < 0 ? 0 : left, left + 1 < wide ? left + 1 : wide - 1};
    float low = y % 2 ? 0.25f : 0.75f, right = x % 2 ? 0.25f : 0.75f;
    for (int k = 0; k < 4; k++) {
        found.at[k] = 2 * channels * ((image * tall + rows[k / 2]) * wide + columns[k % 2]);
        found.share[k] = (k / 2 ? low : 1 - low) * (k % 2 ? right : 1 - right);
    }
    return found;
}

INLINE lanes near_load(const void *att, const Near *near, long c, int half, int doubled) {
    lanes value = map_load(att, near->at[0] + c, half);
    if (!doubled) return value;
    value *= near->share[0];
    for (int k = 1; k < 4; k++) value += near->share[k] * map_load(att, near->at[k] + c, half);
    return value;
}

/* One pixel of an image. */
INLINE void forward(const void *h, const void *att, const float *identity, float m, void *out, long image, long y,
                    long x, long height, long width, long channels, int half, int doubled) {
    const long at = ((image * height + y) * width + x) * channels;
    const Near att_at = near(image, y, x, height, width, channels, doubled);
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma = near_load(att, &att_at, c, half, doubled);
        lanes beta = near_load(att, &att_at, channels + c, half, doubled);
        gamma += m * (load(identity + c) - gamma);
        beta += m * (load(identity + channels + c) - beta);
        lanes value = gamma * map_load(h, at + c, half) + beta;
        map_store(out, at + c, where(value > 0, value), half);
    }
}

/* A call with constants for `half` and `doubled`, by which the compiler makes four functions of one. */
#define CHOSEN(CALL) (half ? doubled ? CALL(1, 1) : CALL(1, 0) : doubled ? CALL(0, 1) : CALL(0, 0))

#define FORWARD(HALF, DOUBLED) \
    forward(h, att, i, mask[row * width + x], out, image, y, x, height, width, channels, HALF, DOUBLED)

void aad_forward(const void *h, const void *att, const float *identity, const float *mask, void *out, long images,
                 long height, long width, long channels, long half, long doubled) {
#pragma omp parallel for schedule(static)
    for (long row = 0; row < images * height; row++) {
        const long image = row / height, y = row % height;
        const float *i = identity + image * 2 * channels;
        for (long x = 0; x < width; x++) CHOSEN(FORWARD);
    }
}

/* The same backward. Gradients of gamma_id and beta_id are added to `sum`; the mask's is returned. */
INLINE float backward(const void *gradient, const void *h, const void *att, const float *identity, float m, void *to_h,
                      void *to_att, float *sum, long image, long y, long x, long height, long width, long channels,
                      int half, int doubled) {
    const long at = ((image * height + y) * width + x) * channels, a = 2 * at;
    const Near att_at = near(image, y, x, height, width, channels, doubled);
    lanes to_m = {0};
    for (long c = 0; c < channels; c += LANES) {
        lanes gamma_att = near_load(att, &att_at, c, half, doubled);
        lanes beta_att = near_load(att, &att_at, channels + c, half, doubled);
        lanes normal = map_load(h, at + c, half);
        lanes gamma_more = load(identity + c) - gamma_att, beta_more = load(identity + channels + c) - beta_att;
        lanes gamma = gamma_att + m * gamma_more;
        bits kept = gamma * normal + beta_att + m * beta_more > 0;
        lanes to_beta = where(kept, map_load(gradient, at + c, half)), to_gamma = to_beta * normal;
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

#define BACKWARD(HALF, DOUBLED) \
    backward(gradient, h, att, i, mask[pixel], to_h, to_att, sum, image, y, x, height, width, channels, HALF, DOUBLED)

/* `to_identity` gets a sum for each block of `block` pixels of an image: (images, blocks, 2 C), not yet added up. */
void aad_backward(const void *gradient, const void *h, const void *att, const float *identity, const float *mask,
                  void *to_h, void *to_att, float *to_identity, float *to_mask, long images, long height, long width,
                  long channels, long block, long half, long doubled) {
    const long pixels = height * width;
    long blocks = (pixels + block - 1) / block;
#pragma omp parallel for schedule(static)
    for (long part = 0; part < images * blocks; part++) {
        long image = part / blocks, first = part % blocks * block;
        long last = first + block < pixels ? first + block : pixels;
        const float *i = identity + image * 2 * channels;
        float *sum = to_identity + part * 2 * channels;
        for (long c = 0; c < 2 * channels; c++) sum[c] = 0;
        for (long p = first, y = first / width, x = first % width; p < last; p++) {
            const long pixel = image * pixels + p;
            to_mask[pixel] = CHOSEN(BACKWARD);
            if (++x == width) x = 0, y++;
        }
    }
}
