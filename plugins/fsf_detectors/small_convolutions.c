/* Fused convolutions of few channels; see small_convolutions.py.
 *
 * All values are float32; images and maps are (height, width, channels). Output channels come in groups of GROUP; the
 * last group is padded with zeros, and so are the channels of intermediate maps.
 */
#include "simd.h"
#include <omp.h>
#include <string.h>

#define GROUP 16 /* equals GROUP in small_convolutions.py */
#define PARTS (GROUP / LANES)
#define PIXELS (LANES == 16 ? 24 : 6) /* per step: their sums fit into the registers */

typedef struct {
    long kernel, inputs, outputs, pool; /* pool: side of the max pooling's windows, or 0 */
} Layer;

typedef struct {
    float *numbers;
    long height, width, stride, channels; /* stride: pixels from one row to the next */
} Map;

/* Compute `count` consecutive output pixels for one group of channels: convolution, bias and PReLU. A group's weights
 * are (kernel, kernel, inputs, GROUP), then biases and slopes. */
INLINE void pixels(Map in, const float *from, const float *weights, Layer layer, float *to, int count) {
    const float *last = weights + layer.kernel * layer.kernel * layer.inputs * GROUP;
    lanes sum[PIXELS][PARTS];
#pragma GCC unroll 24
    for (int pixel = 0; pixel < count; pixel++)
        for (int part = 0; part < PARTS; part++) sum[pixel][part] = load(last + part * LANES);
    for (long y = 0; y < layer.kernel; y++)
        for (long x = 0; x < layer.kernel; x++) {
            const float *at = from + (y * in.stride + x) * in.channels;
            for (long c = 0; c < layer.inputs; c++, weights += GROUP) {
                lanes weight[PARTS];
                for (int part = 0; part < PARTS; part++) weight[part] = load(weights + part * LANES);
#pragma GCC unroll 24
                for (int pixel = 0; pixel < count; pixel++)
                    for (int part = 0; part < PARTS; part++)
                        sum[pixel][part] += at[pixel * in.channels + c] * weight[part];
            }
        }
#pragma GCC unroll 24
    for (int pixel = 0; pixel < count; pixel++)
        for (int part = 0; part < PARTS; part++) {
            const lanes above = where(sum[pixel][part] > 0, sum[pixel][part]);
            const lanes slope = load(last + GROUP + part * LANES);
            store(to + pixel * layer.outputs + part * LANES, above + slope * (sum[pixel][part] - above));
        }
}

/* Compute a layer without its pooling. Rows keep the input's stride, and the pixels between rows are computed too, so
 * that the loop over pixels ignores row ends. */
static Map convolve(Map in, const float *weights, Layer layer, float *room) {
    const Map out = {room, in.height - layer.kernel + 1, in.width - layer.kernel + 1, in.stride, layer.outputs};
    const long count = (out.height - 1) * out.stride + out.width;
    const long group = (layer.kernel * layer.kernel * layer.inputs + 2) * GROUP;
#define SOME(PIXEL, COUNT) \
    pixels(in, in.numbers + (PIXEL) * in.channels, weights, layer, room + (PIXEL) * out.channels + c, COUNT)
    for (long c = 0; c < layer.outputs; c += GROUP, weights += group) {
        long pixel = 0;
        for (; pixel + PIXELS <= count; pixel += PIXELS) SOME(pixel, PIXELS);
        if (pixel < count && count > PIXELS) {
            SOME(count - PIXELS, PIXELS); /* recomputes some pixels */
            continue;
        }
        for (; pixel + 4 <= count; pixel += 4) SOME(pixel, 4);
        for (; pixel < count; pixel++) SOME(pixel, 1);
    }
    return out;
}

/* Max pooling of stride 2, including windows that exceed the edge. */
static Map largest(Map in, long side, float *room) {
    const long width = (in.width - side + 1) / 2 + 1;
    const Map out = {room, (in.height - side + 1) / 2 + 1, width, width, in.channels};
    for (long y = 0; y < out.height; y++)
        for (long x = 0; x < out.width; x++, room += out.channels)
            for (long c = 0; c < in.channels; c += LANES) {
                const float *first = in.numbers + (2 * y * in.stride + 2 * x) * in.channels + c;
                lanes most = load(first);
                for (long down = 0; down < side && 2 * y + down < in.height; down++)
                    for (long across = 0; across < side && 2 * x + across < in.width; across++) {
                        const lanes other = load(first + (down * in.stride + across) * in.channels);
                        most = where(other > most, other) + where(other <= most, most);
                    }
                store(room + c, most);
            }
    return out;
}

/* Compute `depth` layers on images (count, height, width, inputs): out (count, tall, wide, outputs), in tiles of
 * `side` output pixels. Output pixels have a stride of `step` image pixels and a receptive field of side `reach`.
 * `room` is workspace: two maps of `size` floats for each of `threads`. */
void small_convolutions(const float *images, const Layer *layers, const float *weights, float *room, float *out,
                        long count, long height, long width, long tall, long wide, long depth, long side, long step,
                        long reach, long size, long threads) {
    const long down = (tall + side - 1) / side, across = (wide + side - 1) / side;
    const long inputs = layers[0].inputs, outputs = layers[depth - 1].outputs;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long tile = 0; tile < count * down * across; tile++) {
        const long image = tile / (down * across), row = tile / across % down * side, column = tile % across * side;
        const long top = row * step, left = column * step, seen = (side - 1) * step + reach;
        float *rooms[2] = {room + 2 * size * omp_get_thread_num(), room + 2 * size * omp_get_thread_num() + size};
        Map map = {rooms[0], row + side < tall ? seen : height - top, column + side < wide ? seen : width - left};
        map.stride = map.width;
        map.channels = inputs;
        for (long y = 0; y < map.height; y++)
            memcpy(map.numbers + y * map.width * inputs, images + ((image * height + top + y) * width + left) * inputs,
                   map.width * inputs * sizeof(float));
        const float *next = weights;
        int used = 0; /* index of the buffer that holds the map */
        for (const Layer *layer = layers; layer < layers + depth; layer++) {
            map = convolve(map, next, *layer, rooms[used ^= 1]);
            if (layer->pool) map = largest(map, layer->pool, rooms[used ^= 1]);
            next += (layer->kernel * layer->kernel * layer->inputs + 2) * layer->outputs;
        }
        for (long y = 0; y < map.height; y++)
            memcpy(out + ((image * tall + row + y) * wide + column) * outputs, map.numbers + y * map.stride * outputs,
                   map.width * outputs * sizeof(float));
    }
}
