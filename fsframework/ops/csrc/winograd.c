/* Winograd's convolution F(4x4, 3x3): Lavin and Gray, arXiv:1509.09308, section 4.3. The transforms come first, then
 * the products between them.
 *
 * Images are (images, height, width, channels), bfloat16 if `half` is 1, else float32; channels is a multiple of LANES.
 * A 3x3 convolution pads them by one pixel of zeros. All other numbers are float32. A tile is a 4x4 square of the
 * output. Tiles are counted image by image, row by row; the last of a row or column may extend beyond the image.
 * Transformed tiles are 36 matrices (tiles, channels), `stride` numbers apart, and so are transformed weights.
 */
#include "simd.h"
#include <omp.h>

#define NUM_POINTS 36    /* products per pair of channels in a tile */
#ifdef __AVX512F__
#define WIDE 16
#define ROWS 12
#else
#define WIDE 8
#define ROWS 6
#endif
#define PANEL (2 * WIDE) /* columns of a block */
#define IN_PANEL 512     /* inputs of fused layers per partial sum in registers: a panel fits the cache */
#define PADDING 16       /* the same as in winograd.py */
#define SUM 7            /* the point of a gradient's tile that holds the sum of its pixels: row and column 1 of 6 */

typedef struct {
    long image, row, column; /* the tile's first output pixel */
} origin;

static inline origin origin_of(long tile, long height, long width) {
    long down = (height + 3) / 4, across = (width + 3) / 4;
    return (origin){tile / (down * across), tile / across % down * 4, tile % across * 4};
}

/* Transform one axis of the input: B^T d. */
static inline void input_axis(const lanes *d, lanes *out) {
    lanes a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    out[0] = 4 * d[0] - 5 * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + e;
    out[4] = c - e;
    out[5] = 4 * d[1] - 5 * d[3] + d[5];
}

/* Transform one axis of the weights: G g. */
static inline void weight_axis(const lanes g[3], lanes out[6]) {
    lanes a = (g[0] + g[2]) * (-1.0f / 6), b = g[1] * (-1.0f / 6);
    lanes c = g[0] * (1.0f / 24) + g[2] * (1.0f / 6), e = g[1] * (1.0f / 12);
    out[0] = g[0] * 0.25f;
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + e;
    out[4] = c - e;
    out[5] = g[2];
}

/* Transform one axis of the output: A^T m. */
static inline void output_axis(const lanes m[6], lanes out[4]) {
    lanes a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    out[0] = m[0] + a + c;
    out[1] = b + 2 * e;
    out[2] = a + 4 * c;
    out[3] = b + 8 * e + m[5];
}

/* Transform one axis of the output's gradient: A y. */
static inline void gradient_axis(const lanes *y, lanes *out) {
    lanes a = y[0] + y[2], b = y[1] + y[3], c = y[0] + 4 * y[2], e = 2 * y[1] + 8 * y[3];
    out[0] = y[0];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + e;
    out[4] = c - e;
    out[5] = y[3];
}

typedef void axis(const lanes *, lanes *);

/* Transform a tile of side `side`, whose first pixel is `border` pixels above and left of `at`. `to` receives 36
 * numbers for each of the channels `from` to `end`. `whole` is 1 if the tile is inside the image. The arguments side,
 * border, transform, whole and half are compile-time constants. */
INLINE void transform_tile(const void *images, origin at, long height, long width, long channels, long from, long end,
                           float *to, long stride, long side, long border, axis *transform, int whole, int half) {
    const long image = at.image * height * width;
    for (long c = from; c < end; c += LANES) {
        lanes once[6][6], column[6], out[6];
        for (long q = 0; q < side; q++) {
            for (long p = 0; p < side; p++) {
                long y = at.row + p - border, x = at.column + q - border;
                int inside = whole || (y >= 0 && y < height && x >= 0 && x < width);
                column[p] = inside ? map_load(images, (image + y * width + x) * channels + c, half) : (lanes){0};
            }
            transform(column, out);
            for (long p = 0; p < 6; p++) once[p][q] = out[p];
        }
        for (long p = 0; p < 6; p++) {
            transform(once[p], out);
            for (long q = 0; q < 6; q++) store(to + (p * 6 + q) * stride + c - from, out[q]);
        }
    }
}

/* Compute B^T d B of a tile's 6x6 input pixels. */
INLINE void input_tile(const void *images, origin at, long height, long width, long channels, long from, long end,
                       float *to, long stride, int half) {
    if (at.row > 0 && at.column > 0 && at.row + 5 <= height && at.column + 5 <= width)
        transform_tile(images, at, height, width, channels, from, end, to, stride, 6, 1, input_axis, 1, half);
    else
        transform_tile(images, at, height, width, channels, from, end, to, stride, 6, 1, input_axis, 0, half);
}

/* Compute A y A^T of a tile's 4x4 pixels. */
INLINE void gradient_tile(const void *images, origin at, long height, long width, long channels, long from, long end,
                          float *to, long stride, int half) {
    if (at.row + 4 <= height && at.column + 4 <= width)
        transform_tile(images, at, height, width, channels, from, end, to, stride, 4, 0, gradient_axis, 1, half);
    else
        transform_tile(images, at, height, width, channels, from, end, to, stride, 4, 0, gradient_axis, 0, half);
}

/* Write A^T m A of a tile, plus a bias (channels) if it is not null, to channels `from` to `end` of the images. `tile`
 * has only these channels. */
INLINE void output_tile(const float *tile, const float *bias, void *images, origin at, long stride, long height,
                        long width, long channels, long from, long end, int half) {
    const long image = at.image * height * width;
    for (long c = from; c < end; c += LANES) {
        lanes once[4][6], column[6], out[4], shift = bias ? load(bias + c) : (lanes){0};
        for (long q = 0; q < 6; q++) {
            for (long p = 0; p < 6; p++) column[p] = load(tile + (p * 6 + q) * stride + c - from);
            output_axis(column, out);
            for (long p = 0; p < 4; p++) once[p][q] = out[p];
        }
        for (long p = 0; p < 4 && at.row + p < height; p++) {
            output_axis(once[p], out);
            for (long q = 0; q < 4 && at.column + q < width; q++) {
                const long pixel = image + (at.row + p) * width + at.column + q;
                map_store(images, pixel * channels + c, out[q] + shift, half);
            }
        }
    }
}

/* Transform one axis of the weights' gradient: G^T u. */
static inline void weight_gradient_axis(const lanes u[6], lanes out[3]) {
    lanes a = u[1] + u[2], b = u[1] - u[2], c = u[3] + u[4], e = u[3] - u[4];
    out[0] = u[0] * 0.25f - a * (1.0f / 6) + c * (1.0f / 24);
    out[1] = e * (1.0f / 12) - b * (1.0f / 6);
    out[2] = (c - a) * (1.0f / 6) + u[5];
}

/* Transpose a matrix of LANES vectors. */
INLINE void transpose(lanes v[LANES]) {
    lanes transposed[LANES];
    for (int row = 0; row < LANES; row++)
        for (int column = 0; column < LANES; column++) transposed[column][row] = v[row][column];
    for (int row = 0; row < LANES; row++) v[row] = transposed[row];
}

/* Compute G g G^T of LANES channels of an output's weights (3, 3, inputs), rotated by 180 degrees if `transposed`. */
INLINE void transform_weights(const float *weights, long inputs, lanes out[NUM_POINTS], int transposed) {
    lanes half[6][3], column[3], transformed[6];
    for (long q = 0; q < 3; q++) {
        for (long p = 0; p < 3; p++) {
            long tap = transposed ? 8 - p * 3 - q : p * 3 + q;
            column[p] = load(weights + tap * inputs);
        }
        weight_axis(column, transformed);
        for (long p = 0; p < 6; p++) half[p][q] = transformed[p];
    }
    for (long p = 0; p < 6; p++) weight_axis(half[p], out + p * 6);
}

/* Transform weights (outputs, 3, 3, inputs) to 36 matrices (rows, PANEL): one row per input from `row` on, one column
 * per output from `column` on. Columns beyond the outputs are zero. */
INLINE void weight_panel(const float *weights, float *to, long stride, long outputs, long inputs, long row, long rows,
                         long column) {
    for (long o = 0; o < PANEL; o += LANES) {
        for (long c = 0; c < rows; c += LANES) {
            lanes out[LANES][NUM_POINTS] = {0};
            for (long k = 0; k < LANES && column + o < outputs; k++)
                transform_weights(weights + (column + o + k) * 9 * inputs + row + c, inputs, out[k], 0);
            for (long point = 0; point < NUM_POINTS; point++) {
                lanes block[LANES];
                for (long k = 0; k < LANES; k++) block[k] = out[k][point];
                transpose(block);
                for (long k = 0; k < LANES; k++) store(to + point * stride + (c + k) * PANEL + o, block[k]);
            }
        }
    }
}

/* The same for transposed weights, for the gradient of the input: rows are outputs, columns are inputs. */
INLINE void transposed_panel(const float *weights, float *to, long stride, long inputs, long row, long rows,
                             long column) {
    for (long o = 0; o < rows; o++) {
        for (long c = 0; c < PANEL; c += LANES) {
            lanes out[NUM_POINTS] = {0};
            if (column + c < inputs) transform_weights(weights + (row + o) * 9 * inputs + column + c, inputs, out, 1);
            for (long point = 0; point < NUM_POINTS; point++) store(to + point * stride + o * PANEL + c, out[point]);
        }
    }
}

/* Transform all weights, panel by panel. */
void weight_tiles(const float *weights, float *tiles, long stride, long outputs, long inputs, long transposed) {
    const long rows = transposed ? outputs : inputs, columns = transposed ? inputs : outputs;
#pragma omp parallel for schedule(static)
    for (long column = 0; column < columns; column += PANEL) {
        if (transposed) transposed_panel(weights, tiles + column * rows, stride, inputs, 0, rows, column);
        else weight_panel(weights, tiles + column * rows, stride, outputs, inputs, 0, rows, column);
    }
}

/* Compute G^T u G of LANES inputs of an output: 9 numbers each, `inputs` numbers apart. */
INLINE void weight_gradient_of(const float *tile, long stride, float *weights, long inputs) {
    lanes half[3][6], column[6], out[3];
    for (long q = 0; q < 6; q++) {
        for (long p = 0; p < 6; p++) column[p] = load(tile + (p * 6 + q) * stride);
        weight_gradient_axis(column, out);
        for (long p = 0; p < 3; p++) half[p][q] = out[p];
    }
    for (long p = 0; p < 3; p++) {
        weight_gradient_axis(half[p], out);
        for (long q = 0; q < 3; q++) store(weights + (p * 3 + q) * inputs, out[q]);
    }
}

/* Products. A block of the result, ROWS x PANEL numbers, is summed in registers. */
typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

/* Multiply left (rows, depth) and a panel (depth, PANEL) into out (rows, PANEL), or add to it if `add`. Rows of left
 * are `across` numbers apart; if it is `transposed`, its columns are. */
INLINE void block(const float *left, long across, const float *panel, float *out, long depth, int add, int rows,
                  int transposed) {
    wide sum[ROWS][2];
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
        for (int half = 0; half < 2; half++)
            sum[row][half] = add ? *(const wide *)(out + row * PANEL + half * WIDE) : (wide){0};
    for (long k = 0; k < depth; k++) {
        const wide first = *(const wide *)(panel + k * PANEL), second = *(const wide *)(panel + k * PANEL + WIDE);
#pragma GCC unroll 12
        for (int row = 0; row < rows; row++) {
            const float number = transposed ? left[k * across + row] : left[row * across + k];
            sum[row][0] += number * first;
            sum[row][1] += number * second;
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
        for (int half = 0; half < 2; half++) *(wide *)(out + row * PANEL + half * WIDE) = sum[row][half];
}

/* The same for any number of rows. */
INLINE void column(const float *left, long across, const float *panel, float *out, long rows, long depth, int add,
                   int transposed) {
    const long next = transposed ? 1 : across;
    long row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        block(left + row * next, across, panel, out + row * PANEL, depth, add, ROWS, transposed);
    for (; row + 2 <= rows; row += 2)
        block(left + row * next, across, panel, out + row * PANEL, depth, add, 2, transposed);
    for (; row < rows; row++) block(left + row * next, across, panel, out + row * PANEL, depth, add, 1, transposed);
}

/* Compute PANEL outputs from `from` on of `count` tiles from `first` on, `depth` inputs at once. `before` holds these
 * tiles' transformed inputs. Weights are transformed, with the stride `weight_stride`; if it is 0 they are not, and are
 * transformed into `panel` as needed. `transposed` is as in `convolve_wide`. */
INLINE void panel_of_tiles(const float *weights, const float *bias, void *result, const float *before, float *panel,
                           float *after, long first, long count, long height, long width, long inputs, long outputs,
                           long from, long weight_stride, long before_stride, long panel_stride, long after_stride,
                           long depth, int transposed, int half) {
    const long end = from + PANEL < outputs ? from + PANEL : outputs;
    for (long row = 0; row < inputs; row += depth) {
        const long rows = row + depth < inputs ? depth : inputs - row;
        const float *right = weight_stride ? weights + from * inputs + row * PANEL : panel;
        const long right_stride = weight_stride ? weight_stride : panel_stride;
        if (!weight_stride && transposed) transposed_panel(weights, panel, panel_stride, outputs, row, rows, from);
        if (!weight_stride && !transposed) weight_panel(weights, panel, panel_stride, outputs, inputs, row, rows, from);
        for (long point = 0; point < NUM_POINTS; point++)
            column(before + point * before_stride + row, inputs, right + point * right_stride,
                   after + point * after_stride, count, rows, row > 0, 0);
    }
    for (long tile = 0; tile < count; tile++) {
        origin at = origin_of(first + tile, height, width);
        output_tile(after + tile * PANEL, bias, result, at, after_stride, height, width, outputs, from, end, half);
    }
}

/* Convolve `count` tiles from `first` on, from input to output in one thread. */
INLINE void block_of_tiles(const void *images, const float *weights, const float *bias, void *result, float *before,
                           float *after, long first, long count, long height, long width, long inputs, long outputs,
                           long weight_stride, long before_stride, long after_stride, int half) {
    for (long tile = 0; tile < count; tile++) {
        origin at = origin_of(first + tile, height, width);
        input_tile(images, at, height, width, inputs, 0, inputs, before + tile * inputs, before_stride, half);
    }
    for (long from = 0; from < outputs; from += PANEL)
        panel_of_tiles(weights, bias, result, before, 0, after, first, count, height, width, inputs, outputs, from,
                       weight_stride, before_stride, 0, after_stride, IN_PANEL, 0, half);
}

/* Convolve images (height, width, inputs), which have `tiles` tiles, with transformed weights, plus a bias, which may
 * be null. A thread processes `group` tiles at once. `workspace` holds, for each of `threads`, the transformed tiles
 * and those of PANEL outputs: 36 matrices of each, padded by PADDING numbers. */
void convolve(const void *images, const float *weights, const float *bias, void *result, float *workspace, long tiles,
              long height, long width, long inputs, long outputs, long weight_stride, long group, long threads,
              long half) {
    const long before_stride = group * inputs + PADDING, after_stride = group * PANEL + PADDING;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long first = 0; first < tiles; first += group) {
        const long count = first + group < tiles ? group : tiles - first;
        float *before = workspace + omp_get_thread_num() * NUM_POINTS * (before_stride + after_stride);
        float *after = before + NUM_POINTS * before_stride;
        EITHER(block_of_tiles, images, weights, bias, result, before, after, first, count, height, width, inputs,
               outputs, weight_stride, before_stride, after_stride);
    }
}

/* The same for layers of many weights. Either weights are already transformed, with the stride `weight_stride`, or it
 * is 0 and each thread transforms `depth` inputs at once in its core's cache. If `transposed`, the gradient of the
 * input is computed: weights are (inputs, 3, 3, outputs), transposed. The `group` tiles that are processed at once are
 * split into `parts`. `workspace` holds the transformed tiles, and then for each of `threads` the transformed weights
 * and the tiles of PANEL outputs. */
void convolve_wide(const void *images, const float *weights, const float *bias, void *result, float *workspace,
                   long tiles, long height, long width, long inputs, long outputs, long weight_stride, long transposed,
                   long group, long depth, long parts, long threads, long half) {
    const long before_stride = group * inputs + PADDING, panel_stride = depth * PANEL + PADDING;
    const long after_stride = group * PANEL + PADDING;
    float *before = workspace, *rest = workspace + NUM_POINTS * before_stride;
    for (long first = 0; first < tiles; first += group) {
        const long count = first + group < tiles ? group : tiles - first;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (long tile = 0; tile < count; tile++) {
            origin at = origin_of(first + tile, height, width);
            EITHER(input_tile, images, at, height, width, inputs, 0, inputs, before + tile * inputs, before_stride);
        }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (long task = 0; task < (outputs + PANEL - 1) / PANEL * parts; task++) {
            const long part = task % parts, at = part * count / parts, size = (part + 1) * count / parts - at;
            float *panel = rest + omp_get_thread_num() * NUM_POINTS * (panel_stride + after_stride);
            float *after = panel + NUM_POINTS * panel_stride;
            EITHER(panel_of_tiles, weights, bias, result, before + at * inputs, panel, after, first + at, size, height,
                   width, inputs, outputs, task / parts * PANEL, weight_stride, before_stride, panel_stride,
                   after_stride, depth, transposed);
        }
    }
}

/* Sum the gradient of some weights and biases over `count` tiles from `first` on: outputs from o to o + tall, inputs
 * from c to c + wide. `before` and `sums` hold a matrix for each PANEL inputs. */
INLINE void gradient_of_block(const void *images, const void *gradient, float *before, float *after, float *sums,
                              float *weights, float *bias, long first, long count, long height, long width,
                              long inputs, long outputs, long c, long wide, long o, long tall, long group,
                              long stride, long sums_stride, int half) {
    for (long start = 0; start < count; start += group) {
        const long size = start + group < count ? group : count - start;
        for (long tile = 0; tile < size; tile++) {
            origin at = origin_of(first + start + tile, height, width);
            gradient_tile(gradient, at, height, width, outputs, o, o + tall, after + tile * tall, stride, half);
            for (long k = 0; k < wide; k += PANEL)
                input_tile(images, at, height, width, inputs, c + k, c + (k + PANEL < wide ? k + PANEL : wide),
                           before + k * group + tile * PANEL, stride, half);
        }
        for (long point = 0; point < NUM_POINTS; point++)
            for (long k = 0; k < wide; k += PANEL)
                column(after + point * stride, tall, before + point * stride + k * group,
                       sums + point * sums_stride + k * tall, tall, size, start > 0, 1);
        for (long k = 0; k < tall && c == 0; k += LANES) { /* one point holds the sum of a tile's pixels */
            lanes total = start > 0 ? load(bias + o + k) : (lanes){0};
            for (long tile = 0; tile < size; tile++) total += load(after + SUM * stride + tile * tall + k);
            store(bias + o + k, total);
        }
    }
    for (long row = 0; row < tall; row++)
        for (long k = 0; k < wide; k += LANES)
            weight_gradient_of(sums + (k / PANEL * tall + row) * PANEL + k % PANEL, sums_stride,
                               weights + (o + row) * 9 * inputs + c + k, inputs);
}

/* Compute the gradient of weights (outputs, 3, 3, inputs) and biases (outputs) from all tiles of images and of the
 * output's gradient. The tiles are split into `parts`. Weights and bias hold a sum per part, for the caller to add, so
 * that the order of threads does not change results. At most `side` inputs and outputs, a multiple of PANEL, and
 * `group` tiles are processed at once. `workspace` holds, for each of `threads`, the tiles of both and the sums: 36
 * matrices of each, padded by PADDING numbers. */
void gradients(const void *images, const void *gradient, float *workspace, float *weights, float *bias, long tiles,
               long height, long width, long inputs, long outputs, long side, long group, long parts, long threads,
               long half) {
    const long stride = group * side + PADDING, sums_stride = side * side + PADDING;
    const long down = (outputs + side - 1) / side, across = (inputs + side - 1) / side, share = down * across;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long task = 0; task < share * parts; task++) {
        const long part = task / share, o = task / across % down * side, c = task % across * side;
        const long first = part * tiles / parts, count = (part + 1) * tiles / parts - first;
        const long tall = o + side < outputs ? side : outputs - o, wide = c + side < inputs ? side : inputs - c;
        float *before = workspace + omp_get_thread_num() * NUM_POINTS * (2 * stride + sums_stride);
        float *after = before + NUM_POINTS * stride, *sums = after + NUM_POINTS * stride;
        EITHER(gradient_of_block, images, gradient, before, after, sums, weights + part * outputs * 9 * inputs,
               bias + part * outputs, first, count, height, width, inputs, outputs, c, wide, o, tall, group, stride,
               sums_stride);
    }
}
