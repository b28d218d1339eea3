/* Instance normalisation, forward and backward: instance_norm.py says what they compute.
 *
 * float32, channels-last: a pixel's `channels` numbers lie side by side. A task is LANES channels of one image, which
 * stay in the processor's cache while they are read again; channels is a multiple of LANES.
 */
#define LANES 8
#define BLOCK 256 /* pixels that are added up before the sum is added to the others': keeps rounding errors small */
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));

static inline lanes load(const float *from) { return *(const lanes *)from; }
static inline void store(float *to, lanes value) { *(lanes *)to = value; }

/* `scale` gets the inverse standard deviation of each image and channel. */
void instance_norm_forward(const float *x, float *y, float *scale, const float *epsilon, long images, long pixels,
                           long channels) {
    long groups = channels / LANES;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < images * groups; task++) {
        long start = task / groups * pixels * channels + task % groups * LANES;
        const float *from = x + start;
        float *to = y + start;
        lanes mean = {0}, variance = {0}, factor;
        for (long first = 0; first < pixels; first += BLOCK) {
            long last = first + BLOCK < pixels ? first + BLOCK : pixels;
            lanes sum = {0};
            for (long p = first; p < last; p++) sum += load(from + p * channels);
            mean += sum;
        }
        mean /= (float)pixels;
        for (long first = 0; first < pixels; first += BLOCK) {
            long last = first + BLOCK < pixels ? first + BLOCK : pixels;
            lanes sum = {0};
            for (long p = first; p < last; p++) {
                lanes apart = load(from + p * channels) - mean;
                sum += apart * apart;
            }
            variance += sum;
        }
        variance = variance / (float)pixels + *epsilon;
        for (int lane = 0; lane < LANES; lane++) factor[lane] = 1 / __builtin_sqrtf(variance[lane]);
        store(scale + task * LANES, factor);
        for (long p = 0; p < pixels; p++) store(to + p * channels, (load(from + p * channels) - mean) * factor);
    }
}

/* y and scale are what the forward pass gave. */
void instance_norm_backward(const float *gradient, const float *y, const float *scale, float *to_x, long images,
                            long pixels, long channels) {
    long groups = channels / LANES;
#pragma omp parallel for schedule(static)
    for (long task = 0; task < images * groups; task++) {
        long start = task / groups * pixels * channels + task % groups * LANES;
        const float *from = gradient + start, *normal = y + start;
        float *to = to_x + start;
        lanes mean = {0}, along = {0};
        for (long first = 0; first < pixels; first += BLOCK) {
            long last = first + BLOCK < pixels ? first + BLOCK : pixels;
            lanes sum = {0}, product = {0};
            for (long p = first; p < last; p++) {
                lanes value = load(from + p * channels);
                sum += value;
                product += value * load(normal + p * channels);
            }
            mean += sum;
            along += product;
        }
        mean /= (float)pixels;
        along /= (float)pixels;
        lanes factor = load(scale + task * LANES);
        for (long p = 0; p < pixels; p++)
            store(to + p * channels,
                  factor * (load(from + p * channels) - mean - along * load(normal + p * channels)));
    }
}
