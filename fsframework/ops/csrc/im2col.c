/* Unfold images into patches and fold them back; im2col.py defines the patches.
 *
 * Maps are channels-last, bfloat16 if `half` is 1, else float32. For `col2im` channels is a multiple of LANES.
 */
#include "simd.h"
#include <string.h>

/* Copy all patches (count, tall, wide, kernel, kernel, channels) of images (count, height, width, channels). */
void im2col(const char *images, char *patches, long count, long height, long width, long channels, long tall, long wide,
            long kernel, long stride, long padding, long half) {
    const long pixel = channels * (half ? 2 : 4), run = kernel * pixel;
#pragma omp parallel for schedule(static)
    for (long patch_index = 0; patch_index < count * tall * wide; patch_index++) {
        const long image = patch_index / (tall * wide), x = patch_index % wide * stride - padding;
        const long y = patch_index / wide % tall * stride - padding;
        const long left = x < 0 ? -x : 0, right = x + kernel > width ? x + kernel - width : 0; /* pixels outside */
        for (long row = 0; row < kernel; row++) {
            char *to = patches + (patch_index * kernel + row) * run;
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

/* Sum one pixel of the images, given by its index, over all patches that contain it. */
INLINE void sum(const void *patches, void *images, long pixel, long height, long width, long channels, long tall,
                long wide, long kernel, long stride, long padding, int half) {
    const long image = pixel / (height * width), y = pixel / width % height + padding, x = pixel % width + padding;
    long offsets[kernel * kernel], count = 0; /* of its channels in the patches */
    for (long row = y % stride; row < kernel && row <= y; row += stride) {
        const long down = (y - row) / stride;
        if (down >= tall) continue;
        for (long column = x % stride; column < kernel && column <= x; column += stride) {
            const long across = (x - column) / stride;
            if (across >= wide) continue;
            const long patch = (image * tall + down) * wide + across;
            offsets[count++] = ((patch * kernel + row) * kernel + column) * channels;
        }
    }
    for (long c = 0; c < channels; c += LANES) {
        lanes total = {0};
        for (long k = 0; k < count; k++) total += map_load(patches, offsets[k] + c, half);
        map_store(images, pixel * channels + c, total, half);
    }
}

/* Fold patches into images: each pixel is the sum over all patches that contain it, in float32. */
void col2im(const void *patches, void *images, long count, long height, long width, long channels, long tall,
             long wide, long kernel, long stride, long padding, long half) {
#pragma omp parallel for schedule(static)
    for (long pixel = 0; pixel < count * height * width; pixel++) {
        EITHER(sum, patches, images, pixel, height, width, channels, tall, wide, kernel, stride, padding);
    }
}
