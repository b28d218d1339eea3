/* Instance normalisation, forward and backward: instance_norm.py says what they compute.
 *
 * Channels-last: a pixel's `channels` numbers lie side by side. A task is LANES channels of one image, which stay in
 * the processor's cache while they are read again; channels is a multiple of LANES. Maps are float32, or bfloat16 where
 * `half` says so; sums and scales are float32.
 */
#include "lanes.h"

#define BLOCK 256 /* pixels that are added up before the sum is added to the others': keeps rounding errors small */

/* LANES channels of an image, from the number `start` of the map on; returns their inverse standard deviations. */
INLINE lanes forward(const void *x, void *y, float epsilon, long start, long pixels, long channels, int half) {
    lanes mean = {0}, variance = {0}, factor;
    for (long first = 0; first < pixels; first += BLOCK) {
        long last = first + BLOCK < pixels ? first + BLOCK : pixels;
        lanes sum = {0};
        for (long p = first; p < last; p++) sum += map_load(x, start + p * channels, half);
        mean += sum;
    }
    mean /= (float)pixels;
    for (long first = 0; first < pixels; first += BLOCK) {
        long last = first + BLOCK < pixels ? first + BLOCK : pixels;
        lanes sum = {0};
        for (long p = first; p < last; p++) {
            lanes apart = map_load(x, start + p * channels, half) - mean;
            sum += apart * apart;
        }
        variance += sum;
    }
    variance = variance / (float)pixels + epsilon;
    for (int lane = 0; lane < LANES; lane++) factor[lane] = 1 / __builtin_sqrtf(variance[lane]);
    for (long p = 0; p < pixels; p++) {
        lanes value = map_load(x, start + p * channels, half);
        map_store(y, start + p * channels, (value - mean) * factor, half);
    }
    return factor;
}

/* The same backward; y and factor are what the forward pass gave. */
INLINE void backward(const void *gradient, const void *y, lanes factor, void *to_x, long start, long pixels,
                     long channels, int half) {
    lanes mean = {0}, along = {0};
    for (long first = 0; first < pixels; first += BLOCK) {
        long last = first + BLOCK < pixels ? first + BLOCK : pixels;
        lanes sum = {0}, product = {0};
        for (long p = first; p < last; p++) {
            lanes value = map_load(gradient, start + p * channels, half);
            sum += value;
            product += value * map_load(y, start + p * channels, half);
        }
        mean += sum;
        along += product;
    }
    mean /= (float)pixels;
    along /= (float)pixels;
    for (long p = 0; p < pixels; p++) {
        long at = start + p * channels;
        lanes value = map_load(gradient, at, half), normal = map_load(y, at, half);
        map_store(to_x, at, factor * (value - mean - along * normal), half);
    }
}

/* `scale` gets the inverse standard deviation of each image and channel. */
void instance_norm_forward(const void *x, void *y, float *scale, const float *epsilon, long images, long pixels,
                           long channels, long half) {
    long groups = channels / LANES;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < images * groups; task++) {
        long start = task / groups * pixels * channels + task % groups * LANES;
        if (half)
            store(scale + task * LANES, forward(x, y, *epsilon, start, pixels, channels, 1));
        else
            store(scale + task * LANES, forward(x, y, *epsilon, start, pixels, channels, 0));
    }
}

/* y and scale are what the forward pass gave. */
void instance_norm_backward(const void *gradient, const void *y, const float *scale, void *to_x, long images,
                            long pixels, long channels, long half) {
    long groups = channels / LANES;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < images * groups; task++) {
        long start = task / groups * pixels * channels + task % groups * LANES;
        lanes factor = load(scale + task * LANES);
        if (half)
            backward(gradient, y, factor, to_x, start, pixels, channels, 1);
        else
            backward(gradient, y, factor, to_x, start, pixels, channels, 0);
    }
}
