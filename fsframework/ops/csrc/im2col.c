/* Patches of images and back: patches.py says what they are.
 *
 * Channels-last, float32 or bfloat16 where `half` says so; channels is a multiple of LANES for `col2im`.
 */
#include "simd.h"
#include <string.h>

/* All patches (count, tall, wide, kernel, kernel, channels) of images (count, height, width, channels). */
void im2col(const char *images, char *patches, long count, long height, long width, long channels, long tall, long wide,
            long kernel, long stride, long padding, long half) {
    const long pixel = channels * (half ? 2 : 4), run = kernel * pixel;
#pragma omp parallel for schedule(static)
    for (long place = 0; place < count * tall * wide; place++) {
        const long image = place / (tall * wide), x = place % wide * stride - padding;
        const long y = place / wide % tall * stride - padding;
        const long left = x < 0 ? -x : 0, right = x + kernel > width ? x + kernel - width : 0; /* pixels outside */
        for (long row = 0; row < kernel; row++) {
            char *to = patches + (place * kernel + row) * run;
            if (y + row < 0 || y + row >= height || left + right >= kernel) {
                memset(to, 0, run);
                continue;
            }
            const char *from = images + ((image * height + y + row) * width + x + left) * pixel;
            memset(to, 0, left * pixel);
            memcpy(to + left * pixel, from, run - (left + right) * pixel);
            memset(to + run - right * pixel, 0, right * pixel);
        }
    }
}

/* One pixel of an image, whose number is given. */
INLINE void sum(const void *patches, void *images, long pixel, long height, long width, long channels, long tall,
                long wide, long kernel, long stride, long padding, int half) {
    const long image = pixel / (height * width), y = pixel / width % height + padding, x = pixel % width + padding;
    long places[kernel * kernel], count = 0; /* where its channels lie in the patches that see it */
    for (long row = y % stride; row < kernel && row <= y; row += stride) {
        const long down = (y - row) / stride;
        if (down >= tall) continue;
        for (long column = x % stride; column < kernel && column <= x; column += stride) {
            const long across = (x - column) / stride;
            if (across >= wide) continue;
            const long patch = (image * tall + down) * wide + across;
            places[count++] = ((patch * kernel + row) * kernel + column) * channels;
        }
    }
    for (long c = 0; c < channels; c += LANES) {
        lanes total = {0};
        for (long k = 0; k < count; k++) total += map_load(patches, places[k] + c, half);
        map_store(images, pixel * channels + c, total, half);
    }
}

/* Images, each pixel the sum of what all patches say of it, in float32. */
void col2im(const void *patches, void *images, long count, long height, long width, long channels, long tall,
             long wide, long kernel, long stride, long padding, long half) {
#pragma omp parallel for schedule(static)
    for (long pixel = 0; pixel < count * height * width; pixel++) {
        EITHER(sum, patches, images, pixel, height, width, channels, tall, wide, kernel, stride, padding);
    }
}
