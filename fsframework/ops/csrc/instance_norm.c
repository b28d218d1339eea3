/* Instance normalisation, forward and backward; instance_norm.py defines it.
 *
 * Maps are channels-last: a pixel's `channels` numbers are contiguous, and channels is a multiple of LANES. Maps are
 * bfloat16 if `half` is 1, else float32; sums and scales are float32. A map is read twice in memory order: for the sums
 * of each block of pixels, and for the result. A block stays in cache for both passes of its sums. A task is one block
 * of an image and at most CHUNK of its channels.
 */
#include "simd.h"

#define BLOCK 256 /* pixels, the same as in instance_norm.py; few, because short sums have small rounding errors */
#define CHUNK 64

typedef struct {
    long image, block, first, last, start, end; /* of pixels and channels; `last` and `end` are exclusive */
} task;

INLINE long blocks_of(long pixels) { return (pixels + BLOCK - 1) / BLOCK; }
INLINE long chunks_of(long channels) { return (channels + CHUNK - 1) / CHUNK; }
INLINE long tasks_of(long images, long pixels, long channels) {
    return images * blocks_of(pixels) * chunks_of(channels);
}

INLINE task task_of(long number, long pixels, long channels) {
    const long chunks = chunks_of(channels), blocks = blocks_of(pixels);
    const long image = number / chunks / blocks, block = number / chunks % blocks, start = number % chunks * CHUNK;
    const long first = image * pixels + block * BLOCK, end = (image + 1) * pixels;
    return (task){image, block, first, first + BLOCK < end ? first + BLOCK : end, start,
                  start + CHUNK < channels ? start + CHUNK : channels};
}

/* Sum a task's block, and its squared deviations from the block's mean. */
INLINE void sums(const void *x, task t, float *parts, long channels, int half) {
    for (long c = t.start; c < t.end; c += LANES) {
        lanes sum = {0}, squares = {0};
        for (long p = t.first; p < t.last; p++) sum += map_load(x, p * channels + c, half);
        const lanes mean = sum / (float)(t.last - t.first);
        for (long p = t.first; p < t.last; p++) {
            const lanes apart = map_load(x, p * channels + c, half) - mean;
            squares += apart * apart;
        }
        store(parts + c, sum);
        store(parts + channels + c, squares);
    }
}

/* Reduce an image's partial sums (blocks, 2, channels) to inverse standard deviations per channel, in `scale`. The
 * means replace the first block's sums. */
INLINE void moments(float *parts, float *scale, float epsilon, long pixels, long channels) {
    for (long c = 0; c < channels; c += LANES) {
        lanes sum = {0}, squares = {0}, factor;
        for (long block = 0; block < blocks_of(pixels); block++) sum += load(parts + 2 * block * channels + c);
        const lanes middle = sum / (float)pixels;
        for (long block = 0; block < blocks_of(pixels); block++) {
            const float count = (block + 1) * BLOCK < pixels ? BLOCK : pixels - block * BLOCK;
            const lanes apart = load(parts + 2 * block * channels + c) / count - middle;
            squares += load(parts + (2 * block + 1) * channels + c) + count * apart * apart;
        }
        const lanes variance = squares / (float)pixels + epsilon;
        for (int lane = 0; lane < LANES; lane++) factor[lane] = 1 / __builtin_sqrtf(variance[lane]);
        store(parts + c, middle);
        store(scale + c, factor);
    }
}

INLINE void normalise(const void *x, void *y, task t, const float *mean, const float *scale, long channels, int half) {
    for (long p = t.first; p < t.last; p++)
        for (long c = t.start; c < t.end; c += LANES) {
            const lanes apart = map_load(x, p * channels + c, half) - load(mean + c);
            map_store(y, p * channels + c, apart * load(scale + c), half);
        }
}

/* Normalise x into y. `scale` receives the inverse standard deviation of each image and channel; `parts` is a workspace
 * of (images, blocks, 2, channels). */
void instance_norm_forward(const void *x, void *y, float *scale, float *parts, const float *epsilon, long images,
                           long pixels, long channels, long half) {
    const long tasks = tasks_of(images, pixels, channels), blocks = blocks_of(pixels);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long number = 0; number < tasks; number++) {
            const task t = task_of(number, pixels, channels);
            float *part = parts + 2 * (t.image * blocks + t.block) * channels;
            EITHER(sums, x, t, part, channels);
        }
#pragma omp for schedule(static)
        for (long image = 0; image < images; image++)
            moments(parts + 2 * image * blocks * channels, scale + image * channels, *epsilon, pixels, channels);
#pragma omp for schedule(static)
        for (long number = 0; number < tasks; number++) {
            const task t = task_of(number, pixels, channels);
            const float *means = parts + 2 * t.image * blocks * channels, *factor = scale + t.image * channels;
            EITHER(normalise, x, y, t, means, factor, channels);
        }
    }
}

/* Sum a gradient over a task's block, and its product with the result. */
INLINE void gradient_sums(const void *gradient, const void *y, task t, float *parts, long channels, int half) {
    for (long c = t.start; c < t.end; c += LANES) {
        lanes sum = {0}, along = {0};
        for (long p = t.first; p < t.last; p++) {
            const lanes value = map_load(gradient, p * channels + c, half);
            sum += value;
            along += value * map_load(y, p * channels + c, half);
        }
        store(parts + c, sum);
        store(parts + channels + c, along);
    }
}

/* Average these sums over all blocks (blocks, 2, channels). The means replace the first block's sums. */
INLINE void gradient_means(float *parts, long pixels, long channels) {
    for (long c = 0; c < 2 * channels; c += LANES) {
        lanes sum = {0};
        for (long block = 0; block < blocks_of(pixels); block++) sum += load(parts + 2 * block * channels + c);
        store(parts + c, sum / (float)pixels);
    }
}

INLINE void denormalise(const void *gradient, const void *y, void *to_x, task t, const float *means, const float *scale,
                        long channels, int half) {
    for (long p = t.first; p < t.last; p++)
        for (long c = t.start; c < t.end; c += LANES) {
            const long at = p * channels + c;
            const lanes along = load(means + channels + c) * map_load(y, at, half);
            map_store(to_x, at, load(scale + c) * (map_load(gradient, at, half) - load(means + c) - along), half);
        }
}

/* Compute the gradient of x; y and scale are outputs of the forward pass. */
void instance_norm_backward(const void *gradient, const void *y, const float *scale, float *parts, void *to_x,
                            long images, long pixels, long channels, long half) {
    const long tasks = tasks_of(images, pixels, channels), blocks = blocks_of(pixels);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (long number = 0; number < tasks; number++) {
            const task t = task_of(number, pixels, channels);
            float *part = parts + 2 * (t.image * blocks + t.block) * channels;
            EITHER(gradient_sums, gradient, y, t, part, channels);
        }
#pragma omp for schedule(static)
        for (long image = 0; image < images; image++)
            gradient_means(parts + 2 * image * blocks * channels, pixels, channels);
#pragma omp for schedule(static)
        for (long number = 0; number < tasks; number++) {
            const task t = task_of(number, pixels, channels);
            const float *means = parts + 2 * t.image * blocks * channels, *factor = scale + t.image * channels;
            EITHER(denormalise, gradient, y, to_x, t, means, factor, channels);
        }
    }
}
