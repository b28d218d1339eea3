/* Winograd's convolution F(4x4, 3x3): Lavin and Gray, arXiv:1509.09308, section 4.3. First the transforms, then the
 * products between them.
 *
 * Images are float32, or bfloat16 where `half` says so, (images, height, width, channels), channels a multiple of
 * LANES; a 3x3 convolution pads them by one pixel of zeros. All else is float32. A tile is a 4x4 square of the output;
 * tiles are counted image by image, row by row, and the last of a row or column may reach beyond the image. Transformed
 * tiles lie as 36 matrices (tiles, channels), `stride` numbers from each other, and so do transformed weights.
 */
#include "simd.h"
#include <omp.h>

#define PLACES 36
#ifdef __AVX512F__
#define WIDE 16
#define ROWS 12
#else
#define WIDE 8
#define ROWS 6
#endif
#define PANEL (2 * WIDE) /* columns of a block */
#define IN_PANEL 512     /* inputs of light layers that are added up before sums go to memory: a panel fits the cache */
#define APART 16         /* as winograd.py says */
#define SUM 7            /* the place where a gradient's tile has the sum of its pixels: row and column 1 of 6 */

typedef struct {
    long image, row, column; /* of the tile's first output pixel */
} place;

static inline place place_of(long tile, long height, long width) {
    long down = (height + 3) / 4, across = (width + 3) / 4;
    return (place){tile / (down * across), tile / across % down * 4, tile % across * 4};
}

/* One axis of the input, B^T d. */
static inline void input_axis(const lanes *d, lanes *out) {
    lanes a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
    out[0] = 4 * d[0] - 5 * d[2] + d[4];
    out[1] = a + b;
    out[2] = a - b;
    out[3] = c + e;
    out[4] = c - e;
    out[5] = 4 * d[1] - 5 * d[3] + d[5];
}

/* One axis of the weights, G g. */
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

/* One axis of the output, A^T m. */
static inline void output_axis(const lanes m[6], lanes out[4]) {
    lanes a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], e = m[3] - m[4];
    out[0] = m[0] + a + c;
    out[1] = b + 2 * e;
    out[2] = a + 4 * c;
    out[3] = b + 8 * e + m[5];
}

/* One axis of the output's gradient, A y. */
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

/* Transform a tile of side `side`, whose first pixel lies `border` above and left of the place: `to` gets 36 numbers
 * for each of the channels `from` to `end`. `whole` says that all of it is inside the image. The compiler sees side,
 * border, transform, whole and half as constants. */
INLINE void transform_tile(const void *images, place at, long height, long width, long channels, long from, long end,
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

/* B^T d B of a tile's 6x6 input pixels. */
INLINE void input_tile(const void *images, place at, long height, long width, long channels, long from, long end,
                       float *to, long stride, int half) {
    if (at.row > 0 && at.column > 0 && at.row + 5 <= height && at.column + 5 <= width)
        transform_tile(images, at, height, width, channels, from, end, to, stride, 6, 1, input_axis, 1, half);
    else
        transform_tile(images, at, height, width, channels, from, end, to, stride, 6, 1, input_axis, 0, half);
}

/* A y A^T of a tile's 4x4 pixels. */
INLINE void gradient_tile(const void *images, place at, long height, long width, long channels, long from, long end,
                          float *to, long stride, int half) {
    if (at.row + 4 <= height && at.column + 4 <= width)
        transform_tile(images, at, height, width, channels, from, end, to, stride, 4, 0, gradient_axis, 1, half);
    else
        transform_tile(images, at, height, width, channels, from, end, to, stride, 4, 0, gradient_axis, 0, half);
}

/* A^T m A of a tile, plus a bias (channels), which may be null: channels `from` to `end` of the images. `tile` has no
 * others. */
INLINE void output_tile(const float *tile, const float *bias, void *images, place at, long stride, long height,
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

/* One axis of the weights' gradient, G^T u. */
static inline void weight_gradient_axis(const lanes u[6], lanes out[3]) {
    lanes a = u[1] + u[2], b = u[1] - u[2], c = u[3] + u[4], e = u[3] - u[4];
    out[0] = u[0] * 0.25f - a * (1.0f / 6) + c * (1.0f / 24);
    out[1] = e * (1.0f / 12) - b * (1.0f / 6);
    out[2] = (c - a) * (1.0f / 6) + u[5];
}

/* LANES vectors, one of each row, turned into those of each column. */
INLINE void transpose(lanes v[LANES]) {
    lanes turned[LANES];
    for (int row = 0; row < LANES; row++)
        for (int column = 0; column < LANES; column++) turned[column][row] = v[row][column];
    for (int row = 0; row < LANES; row++) v[row] = turned[row];
}

/* G g G^T of LANES channels of an output's weights (3, 3, inputs); `turned` takes them upside down, back to front. */
INLINE void transform_weights(const float *weights, long inputs, lanes out[PLACES], int turned) {
    lanes half[6][3], column[3], made[6];
    for (long q = 0; q < 3; q++) {
        for (long p = 0; p < 3; p++) {
            long tap = turned ? 8 - p * 3 - q : p * 3 + q;
            column[p] = load(weights + tap * inputs);
        }
        weight_axis(column, made);
        for (long p = 0; p < 6; p++) half[p][q] = made[p];
    }
    for (long p = 0; p < 6; p++) weight_axis(half[p], out + p * 6);
}

/* G g G^T of weights (outputs, 3, 3, inputs): 36 matrices (rows, PANEL), one row for each input from `row` on and one
 * column for each output from `column` on. What lies beyond the outputs is nothing. */
INLINE void weight_panel(const float *weights, float *to, long stride, long outputs, long inputs, long row, long rows,
                         long column) {
    for (long o = 0; o < PANEL; o += LANES) {
        for (long c = 0; c < rows; c += LANES) {
            lanes out[LANES][PLACES] = {0};
            for (long k = 0; k < LANES && column + o < outputs; k++)
                transform_weights(weights + (column + o + k) * 9 * inputs + row + c, inputs, out[k], 0);
            for (long place = 0; place < PLACES; place++) {
                lanes block[LANES];
                for (long k = 0; k < LANES; k++) block[k] = out[k][place];
                transpose(block);
                for (long k = 0; k < LANES; k++) store(to + place * stride + (c + k) * PANEL + o, block[k]);
            }
        }
    }
}

/* The same of turned weights, which the gradient of the input needs: rows for outputs, columns for inputs. */
INLINE void turned_panel(const float *weights, float *to, long stride, long inputs, long row, long rows, long column) {
    for (long o = 0; o < rows; o++) {
        for (long c = 0; c < PANEL; c += LANES) {
            lanes out[PLACES] = {0};
            if (column + c < inputs) transform_weights(weights + (row + o) * 9 * inputs + column + c, inputs, out, 1);
            for (long place = 0; place < PLACES; place++) store(to + place * stride + o * PANEL + c, out[place]);
        }
    }
}

/* All of them, panel by panel. */
void weight_tiles(const float *weights, float *tiles, long stride, long outputs, long inputs, long turned) {
    const long rows = turned ? outputs : inputs, columns = turned ? inputs : outputs;
#pragma omp parallel for schedule(static)
    for (long column = 0; column < columns; column += PANEL) {
        if (turned) turned_panel(weights, tiles + column * rows, stride, inputs, 0, rows, column);
        else weight_panel(weights, tiles + column * rows, stride, outputs, inputs, 0, rows, column);
    }
}

/* G^T u G of LANES inputs of an output: 9 numbers of each, `inputs` from one to the next. */
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

/* Products. A block of the result, ROWS x PANEL numbers, stays in the processor's registers while it is added up. */
typedef float wide __attribute__((vector_size(4 * WIDE), aligned(4), may_alias));

/* out (rows, PANEL) of left (rows, deep) and a panel (deep, PANEL); `add` adds to what is there. Numbers of left are
 * `across` from row to row, or side by side with `across` from column to column where it is `turned`. */
INLINE void block(const float *left, long across, const float *panel, float *out, long deep, int add, int rows,
                  int turned) {
    wide sum[ROWS][2];
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
        for (int half = 0; half < 2; half++)
            sum[row][half] = add ? *(const wide *)(out + row * PANEL + half * WIDE) : (wide){0};
    for (long k = 0; k < deep; k++) {
        const wide first = *(const wide *)(panel + k * PANEL), second = *(const wide *)(panel + k * PANEL + WIDE);
#pragma GCC unroll 12
        for (int row = 0; row < rows; row++) {
            const float number = turned ? left[k * across + row] : left[row * across + k];
            sum[row][0] += number * first;
            sum[row][1] += number * second;
        }
    }
#pragma GCC unroll 12
    for (int row = 0; row < rows; row++)
        for (int half = 0; half < 2; half++) *(wide *)(out + row * PANEL + half * WIDE) = sum[row][half];
}

/* The same of any number of rows. */
INLINE void column(const float *left, long across, const float *panel, float *out, long rows, long deep, int add,
                   int turned) {
    const long next = turned ? 1 : across;
    long row = 0;
    for (; row + ROWS <= rows; row += ROWS)
        block(left + row * next, across, panel, out + row * PANEL, deep, add, ROWS, turned);
    for (; row + 2 <= rows; row += 2) block(left + row * next, across, panel, out + row * PANEL, deep, add, 2, turned);
    for (; row < rows; row++) block(left + row * next, across, panel, out + row * PANEL, deep, add, 1, turned);
}

/* PANEL outputs of `count` tiles, from the output `from` and the tile `first` on, `deep` inputs at once. `before` has
 * the transformed inputs of these tiles. Weights are transformed, with the stride `weight_stride`; where that is 0 they
 * are not, and `panel` is for those that are needed. `turned` is of `convolve_wide`. */
INLINE void panel_of_tiles(const float *weights, const float *bias, void *result, const float *before, float *panel,
                           float *after, long first, long count, long height, long width, long inputs, long outputs,
                           long from, long weight_stride, long before_stride, long panel_stride, long after_stride,
                           long deep, int turned, int half) {
    const long end = from + PANEL < outputs ? from + PANEL : outputs;
    for (long row = 0; row < inputs; row += deep) {
        const long rows = row + deep < inputs ? deep : inputs - row;
        const float *right = weight_stride ? weights + from * inputs + row * PANEL : panel;
        const long right_stride = weight_stride ? weight_stride : panel_stride;
        if (!weight_stride && turned) turned_panel(weights, panel, panel_stride, outputs, row, rows, from);
        if (!weight_stride && !turned) weight_panel(weights, panel, panel_stride, outputs, inputs, row, rows, from);
        for (long place = 0; place < PLACES; place++)
            column(before + place * before_stride + row, inputs, right + place * right_stride,
                   after + place * after_stride, count, rows, row > 0, 0);
    }
    for (long tile = 0; tile < count; tile++) {
        place at = place_of(first + tile, height, width);
        output_tile(after + tile * PANEL, bias, result, at, after_stride, height, width, outputs, from, end, half);
    }
}

/* A convolution's `count` tiles from the tile `first`, which one thread takes through all of it. */
INLINE void block_of_tiles(const void *images, const float *weights, const float *bias, void *result, float *before,
                           float *after, long first, long count, long height, long width, long inputs, long outputs,
                           long weight_stride, long before_stride, long after_stride, int half) {
    for (long tile = 0; tile < count; tile++) {
        place at = place_of(first + tile, height, width);
        input_tile(images, at, height, width, inputs, 0, inputs, before + tile * inputs, before_stride, half);
    }
    for (long from = 0; from < outputs; from += PANEL)
        panel_of_tiles(weights, bias, result, before, 0, after, first, count, height, width, inputs, outputs, from,
                       weight_stride, before_stride, 0, after_stride, IN_PANEL, 0, half);
}

/* The convolution of images (tiles of them, height, width, inputs) with transformed weights, plus a bias, which may be
 * null. `together` tiles are taken at once; `room` has for each of `threads` the transformed tiles and those of PANEL
 * outputs, 36 matrices of each, APART numbers longer than they are. */
void convolve(const void *images, const float *weights, const float *bias, void *result, float *room, long tiles,
              long height, long width, long inputs, long outputs, long weight_stride, long together, long threads,
              long half) {
    const long before_stride = together * inputs + APART, after_stride = together * PANEL + APART;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long first = 0; first < tiles; first += together) {
        const long count = first + together < tiles ? together : tiles - first;
        float *before = room + omp_get_thread_num() * PLACES * (before_stride + after_stride);
        float *after = before + PLACES * before_stride;
        EITHER(block_of_tiles, images, weights, bias, result, before, after, first, count, height, width, inputs,
               outputs, weight_stride, before_stride, after_stride);
    }
}

/* The same for layers of many weights. A thread transforms those that it needs, `deep` inputs at once, in its core's
 * own cache; or they are transformed, with the stride `weight_stride`, which is 0 otherwise. `turned` makes it the
 * gradient of the input: weights are (inputs, 3, 3, outputs), turned. The tiles that are taken at once are shared out
 * in so many `parts`. `room` has the transformed tiles and then for each of `threads` the transformed weights and the
 * tiles of PANEL outputs. */
void convolve_wide(const void *images, const float *weights, const float *bias, void *result, float *room, long tiles,
                   long height, long width, long inputs, long outputs, long weight_stride, long turned, long together,
                   long deep, long parts, long threads, long half) {
    const long before_stride = together * inputs + APART, panel_stride = deep * PANEL + APART;
    const long after_stride = together * PANEL + APART;
    float *before = room, *rest = room + PLACES * before_stride;
    for (long first = 0; first < tiles; first += together) {
        const long count = first + together < tiles ? together : tiles - first;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (long tile = 0; tile < count; tile++) {
            place at = place_of(first + tile, height, width);
            EITHER(input_tile, images, at, height, width, inputs, 0, inputs, before + tile * inputs, before_stride);
        }
#pragma omp parallel for schedule(dynamic) num_threads(threads)
        for (long task = 0; task < (outputs + PANEL - 1) / PANEL * parts; task++) {
            const long part = task % parts, at = part * count / parts, some = (part + 1) * count / parts - at;
            float *panel = rest + omp_get_thread_num() * PLACES * (panel_stride + after_stride);
            float *after = panel + PLACES * panel_stride;
            EITHER(panel_of_tiles, weights, bias, result, before + at * inputs, panel, after, first + at, some, height,
                   width, inputs, outputs, task / parts * PANEL, weight_stride, before_stride, panel_stride,
                   after_stride, deep, turned);
        }
    }
}

/* What the tiles from `first` on, `count` of them, say of the gradient of some weights and biases: outputs from o to
 * o + tall, inputs from c to c + wide. `before` and `sums` have a matrix for each PANEL inputs. */
INLINE void gradient_of_block(const void *images, const void *gradient, float *before, float *after, float *sums,
                              float *weights, float *bias, long first, long count, long height, long width,
                              long inputs, long outputs, long c, long wide, long o, long tall, long together,
                              long stride, long sums_stride, int half) {
    for (long done = 0; done < count; done += together) {
        const long some = done + together < count ? together : count - done;
        for (long tile = 0; tile < some; tile++) {
            place at = place_of(first + done + tile, height, width);
            gradient_tile(gradient, at, height, width, outputs, o, o + tall, after + tile * tall, stride, half);
            for (long k = 0; k < wide; k += PANEL)
                input_tile(images, at, height, width, inputs, c + k, c + (k + PANEL < wide ? k + PANEL : wide),
                           before + k * together + tile * PANEL, stride, half);
        }
        for (long place = 0; place < PLACES; place++)
            for (long k = 0; k < wide; k += PANEL)
                column(after + place * stride, tall, before + place * stride + k * together,
                       sums + place * sums_stride + k * tall, tall, some, done > 0, 1);
        for (long k = 0; k < tall && c == 0; k += LANES) { /* at one place is the sum of a tile's pixels */
            lanes total = done > 0 ? load(bias + o + k) : (lanes){0};
            for (long tile = 0; tile < some; tile++) total += load(after + SUM * stride + tile * tall + k);
            store(bias + o + k, total);
        }
    }
    for (long row = 0; row < tall; row++)
        for (long k = 0; k < wide; k += LANES)
            weight_gradient_of(sums + (k / PANEL * tall + row) * PANEL + k % PANEL, sums_stride,
                               weights + (o + row) * 9 * inputs + c + k, inputs);
}

/* The gradient of weights (outputs, 3, 3, inputs) and biases (outputs) from all tiles of images and of the output's
 * gradient. The tiles are shared out in so many `parts`, and weights and bias have a sum for each, to be added up: so
 * sums are the same whichever thread is first. At most `side` inputs and outputs, a multiple of PANEL, and `together`
 * tiles are taken at once; `room` has for each of `threads` the tiles of both and the sums, 36 matrices of each, APART
 * numbers longer than they are. */
void gradients(const void *images, const void *gradient, float *room, float *weights, float *bias, long tiles,
               long height, long width, long inputs, long outputs, long side, long together, long parts, long threads,
               long half) {
    const long stride = together * side + APART, sums_stride = side * side + APART;
    const long down = (outputs + side - 1) / side, across = (inputs + side - 1) / side, share = down * across;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long task = 0; task < share * parts; task++) {
        const long part = task / share, o = task / across % down * side, c = task % across * side;
        const long first = part * tiles / parts, count = (part + 1) * tiles / parts - first;
        const long tall = o + side < outputs ? side : outputs - o, wide = c + side < inputs ? side : inputs - c;
        float *before = room + omp_get_thread_num() * PLACES * (2 * stride + sums_stride);
        float *after = before + PLACES * stride, *sums = after + PLACES * stride;
        EITHER(gradient_of_block, images, gradient, before, after, sums, weights + part * outputs * 9 * inputs,
               bias + part * outputs, first, count, height, width, inputs, outputs, c, wide, o, tall, together, stride,
               sums_stride);
    }
}
