/* What all kernels share: LANES numbers of float32 at once, and maps of float32 or bfloat16 numbers. LANES is 8 or 16,
 * as whoever compiles says. */
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#define INLINE static inline __attribute__((always_inline))
/* A call with a constant for `half`, its last argument: the compiler makes two functions of one. It must stand where
 * the loop over threads does: that is a function of its own to the compiler, to which what it is given from outside is
 * no constant. */
#define EITHER(CALL, ...) (half ? CALL(__VA_ARGS__, 1) : CALL(__VA_ARGS__, 0))
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int bits __attribute__((vector_size(4 * LANES)));
typedef unsigned int words __attribute__((vector_size(4 * LANES)));
typedef unsigned short halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE lanes load(const float *from) { return *(const lanes *)from; }
INLINE void store(float *to, lanes value) { *(lanes *)to = value; }
INLINE lanes where(bits keep, lanes value) { return (lanes)((bits)value & keep); }

/* LANES numbers of a map, from the number `at` on. A map is bfloat16 where `half` says so, and float32 otherwise. */
INLINE lanes map_load(const void *map, long at, int half) {
    if (!half) return load((const float *)map + at);
    return (lanes)(__builtin_convertvector(*(const halves *)((const unsigned short *)map + at), words) << 16);
}

/* bfloat16 is the upper half of a float32, rounded to nearest, ties to even; what is no number stays none. */
INLINE void map_store(void *map, long at, lanes value, int half) {
    if (!half) {
        store((float *)map + at, value);
        return;
    }
    halves *to = (halves *)((unsigned short *)map + at);
#if defined __AVX512BF16__ && LANES == 16
    *to = (halves)_mm512_cvtneps_pbh((__m512)value);
#elif defined __AVX512BF16__
    *to = (halves)_mm256_cvtneps_pbh((__m256)value);
#else
    words rounded = ((words)value + 0x7fff + ((words)value >> 16 & 1)) >> 16, none = (words)(value != value);
    *to = __builtin_convertvector((rounded & ~none) | (0x7fc0 & none), halves);
#endif
}
