/* Vectors of LANES float32 numbers, and maps of float32 or bfloat16 numbers, for all kernels. The build sets LANES to 8
 * or 16 (build.py). */
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif
#define INLINE static inline __attribute__((always_inline))
/* Call with a constant for `half`, the last argument, so that the compiler specialises the function for both dtypes.
 * Use it inside the loop over threads: the compiler outlines that loop, and constants from outside are lost there. */
#define EITHER(CALL, ...) (half ? CALL(__VA_ARGS__, 1) : CALL(__VA_ARGS__, 0))
typedef float lanes __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int bits __attribute__((vector_size(4 * LANES)));
typedef unsigned int words __attribute__((vector_size(4 * LANES)));
typedef unsigned short halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));

INLINE lanes load(const float *from) { return *(const lanes *)from; }
INLINE void store(float *to, lanes value) { *(lanes *)to = value; }
INLINE lanes where(bits keep, lanes value) { return (lanes)((bits)value & keep); }

/* Load LANES numbers of a map from index `at` on. A map is bfloat16 if `half` is 1, else float32. */
INLINE lanes map_load(const void *map, long at, int half) {
    if (!half) return load((const float *)map + at);
    return (lanes)(__builtin_convertvector(*(const halves *)((const unsigned short *)map + at), words) << 16);
}

/* Store LANES numbers. bfloat16 is the upper half of a float32, rounded to nearest, ties to even; NaN stays NaN. */
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
