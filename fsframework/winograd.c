/* The transforms of Winograd's convolution F(4x4, 3x3): Lavin and Gray, arXiv:1509.09308, section 4.3.
 *
 * Images are float32, (images, height, width, channels), channels a multiple of LANES; a 3x3 convolution pads them by
 * one pixel of zeros. A tile is a 4x4 square of the output; tiles are counted image by image, row by row, and the last
 * of a row or column may reach beyond the image. Transformed tiles lie as 36 matrices (tiles, channels), `stride`
 * numbers from each other. Each function works on `count` tiles from the tile `first`.
 */
#define LANES 8
#define PLACES 36
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

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

/* Transform a tile of side `side`, whose first pixel lies `border` above and left of the place: `to` gets 36 numbers for
 * each channel. The compiler sees side, border and transform as constants. */
static inline __attribute__((always_inline)) void transform_tile(const float *images, place at, long height, long width,
                                                                 long channels, float *to, long stride, long side,
                                                                 long border, axis *transform) {
    const float *image = images + at.image * height * width * channels;
    for (long c = 0; c < channels; c += LANES) {
        lanes half[6][6], column[6], out[6];
        for (long q = 0; q < side; q++) {
            for (long p = 0; p < side; p++) {
                long y = at.row + p - border, x = at.column + q - border;
                int inside = y >= 0 && y < height && x >= 0 && x < width;
                column[p] = inside ? *(const lanes *)(image + (y * width + x) * channels + c) : (lanes){0};
            }
            transform(column, out);
            for (long p = 0; p < 6; p++) half[p][q] = out[p];
        }
        for (long p = 0; p < 6; p++) {
            transform(half[p], out);
            for (long q = 0; q < 6; q++) *(lanes *)(to + (p * 6 + q) * stride + c) = out[q];
        }
    }
}

/* B^T d B of every tile's 6x6 input pixels. */
void input_tiles(const float *images, float *tiles, long stride, long height, long width, long channels, long first,
                 long count) {
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < count; tile++) {
        place at = place_of(first + tile, height, width);
        transform_tile(images, at, height, width, channels, tiles + tile * channels, stride, 6, 1, input_axis);
    }
}

/* A y A^T of every tile's 4x4 pixels. */
void gradient_tiles(const float *images, float *tiles, long stride, long height, long width, long channels, long first,
                    long count) {
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < count; tile++) {
        place at = place_of(first + tile, height, width);
        transform_tile(images, at, height, width, channels, tiles + tile * channels, stride, 4, 0, gradient_axis);
    }
}

/* A^T m A of every tile, plus a bias (channels), which may be null. */
void output_tiles(const float *tiles, const float *bias, float *images, long stride, long height, long width,
                  long channels, long first, long count) {
#pragma omp parallel for schedule(static)
    for (long tile = 0; tile < count; tile++) {
        place at = place_of(first + tile, height, width);
        float *image = images + at.image * height * width * channels;
        for (long c = 0; c < channels; c += LANES) {
            lanes half[4][6], column[6], out[4], shift = bias ? *(const lanes *)(bias + c) : (lanes){0};
            const float *from = tiles + tile * channels + c;
            for (long q = 0; q < 6; q++) {
                for (long p = 0; p < 6; p++) column[p] = *(const lanes *)(from + (p * 6 + q) * stride);
                output_axis(column, out);
                for (long p = 0; p < 4; p++) half[p][q] = out[p];
            }
            for (long p = 0; p < 4 && at.row + p < height; p++) {
                output_axis(half[p], out);
                for (long q = 0; q < 4 && at.column + q < width; q++)
                    *(lanes *)(image + ((at.row + p) * width + at.column + q) * channels + c) = out[q] + shift;
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

/* G g G^T of weights (outputs, 3, 3, inputs), as 36 matrices (outputs, inputs); `turned` takes them upside down and
 * back to front, as the gradient of the input needs them. */
void weight_tiles(const float *weights, float *tiles, long outputs, long inputs, long turned) {
#pragma omp parallel for schedule(static)
    for (long o = 0; o < outputs; o++) {
        for (long c = 0; c < inputs; c += LANES) {
            lanes half[6][3], column[3], out[6];
            for (long q = 0; q < 3; q++) {
                for (long p = 0; p < 3; p++) {
                    long tap = turned ? 8 - p * 3 - q : p * 3 + q;
                    column[p] = *(const lanes *)(weights + (o * 9 + tap) * inputs + c);
                }
                weight_axis(column, out);
                for (long p = 0; p < 6; p++) half[p][q] = out[p];
            }
            float *to = tiles + o * inputs + c;
            for (long p = 0; p < 6; p++) {
                weight_axis(half[p], out);
                for (long q = 0; q < 6; q++) *(lanes *)(to + (p * 6 + q) * outputs * inputs) = out[q];
            }
        }
    }
}

/* G^T u G of 36 matrices (outputs, inputs), as weights (outputs, 3, 3, inputs). */
void weight_gradient(const float *tiles, float *weights, long outputs, long inputs) {
#pragma omp parallel for schedule(static)
    for (long o = 0; o < outputs; o++) {
        for (long c = 0; c < inputs; c += LANES) {
            lanes half[3][6], column[6], out[3];
            const float *from = tiles + o * inputs + c;
            for (long q = 0; q < 6; q++) {
                for (long p = 0; p < 6; p++) column[p] = *(const lanes *)(from + (p * 6 + q) * outputs * inputs);
                weight_gradient_axis(column, out);
                for (long p = 0; p < 3; p++) half[p][q] = out[p];
            }
            for (long p = 0; p < 3; p++) {
                weight_gradient_axis(half[p], out);
                for (long q = 0; q < 3; q++) *(lanes *)(weights + (o * 9 + p * 3 + q) * inputs + c) = out[q];
            }
        }
    }
}
