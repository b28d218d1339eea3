/* The AAD layer's blend and ReLU, forward and backward, in one pass over memory: aad.py says what they compute.
 *
 * float32, channels-last: a pixel's numbers lie side by side. h and out have C channels; att and identity have gamma (C)
 * and then beta (C), att for each pixel, identity for each image; mask has one number a pixel.
 * C is a multiple of LANES.
 */
#define LANES 8
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int bits __attribute__((vector_size(4 * LANES)));

static inline lanes load(const float *from) { return *(const lanes *)from; }
static inline void store(float *to, lanes value) { *(lanes *)to = value; }
static inline lanes where(bits keep, lanes value) { return (lanes)((bits)value & keep); }

void aad_forward(const float *h, const float *att, const float *identity, const float *mask, float *out, long images,
                 long pixels, long channels) {
#pragma omp parallel for schedule(static)
    for (long place = 0; place < images * pixels; place++) {
        const float *a = att + place * 2 * channels, *i = identity + place / pixels * 2 * channels;
        const float m = mask[place];
        for (long c = 0; c < channels; c += LANES) {
            lanes gamma = load(a + c), beta = load(a + channels + c);
            gamma += m * (load(i + c) - gamma);
            beta += m * (load(i + channels + c) - beta);
            lanes value = gamma * load(h + place * channels + c) + beta;
            store(out + place * channels + c, where(value > 0, value));
        }
    }
}

/* `to_identity` gets a sum for each block of `block` pixels of an image: (images, blocks, 2 C), not yet added up. */
void aad_backward(const float *gradient, const float *h, const float *att, const float *identity, const float *mask,
                  float *to_h, float *to_att, float *to_identity, float *to_mask, long images, long pixels,
                  long channels, long block) {
    long blocks = (pixels + block - 1) / block;
#pragma omp parallel for schedule(static)
    for (long part = 0; part < images * blocks; part++) {
        long image = part / blocks, first = part % blocks * block;
        long last = first + block < pixels ? first + block : pixels;
        const float *i = identity + image * 2 * channels;
        float *sum = to_identity + part * 2 * channels;
        for (long c = 0; c < 2 * channels; c++) sum[c] = 0;
        for (long place = image * pixels + first; place < image * pixels + last; place++) {
            const float *a = att + place * 2 * channels;
            float *to_a = to_att + place * 2 * channels;
            const float m = mask[place];
            lanes to_m = {0};
            for (long c = 0; c < channels; c += LANES) {
                lanes gamma_att = load(a + c), beta_att = load(a + channels + c), x = load(h + place * channels + c);
                lanes gamma_more = load(i + c) - gamma_att, beta_more = load(i + channels + c) - beta_att;
                lanes gamma = gamma_att + m * gamma_more;
                lanes to_beta = where(gamma * x + beta_att + m * beta_more > 0, load(gradient + place * channels + c));
                lanes to_gamma = to_beta * x;
                store(to_h + place * channels + c, to_beta * gamma);
                store(to_a + c, (1 - m) * to_gamma);
                store(to_a + channels + c, (1 - m) * to_beta);
                store(sum + c, load(sum + c) + m * to_gamma);
                store(sum + channels + c, load(sum + channels + c) + m * to_beta);
                to_m += to_gamma * gamma_more + to_beta * beta_more;
            }
            float total = 0;
            for (int lane = 0; lane < LANES; lane++) total += to_m[lane];
            to_mask[place] = total;
        }
    }
}
