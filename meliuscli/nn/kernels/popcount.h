/* Mismatching bits of a 3x3 convolution for TILE pixels and `vectors` (a constant) of LANES outputs: counts[pixel][output].
 * taps[pixel][tap] are words of signs, weights[tap][word][output] words of the weights' signs. */
#define TILE 4
#define LANES 16
#define WIDEST 4
#ifdef __AVX512VPOPCNTDQ__
#include <immintrin.h>
#define HAS_XNOR 1
static inline __attribute__((always_inline)) void mismatches(int32_t (*counts)[WIDEST * LANES],
                                                             const uint32_t *(*taps)[9], const uint32_t *weights,
                                                             long words, long outputs, const int vectors) {
    __m512i sums[TILE][WIDEST];
    for (int p = 0; p < TILE; p++)
        for (int v = 0; v < vectors; v++)
            sums[p][v] = _mm512_setzero_si512();
    for (int tap = 0; tap < 9; tap++)
        for (long word = 0; word < words; word++, weights += outputs)
            for (int v = 0; v < vectors; v++) {
                __m512i w = _mm512_loadu_si512(weights + v * LANES);
                for (int p = 0; p < TILE; p++) {
                    __m512i x = _mm512_set1_epi32((int32_t)taps[p][tap][word]);
                    sums[p][v] = _mm512_add_epi32(sums[p][v], _mm512_popcnt_epi32(_mm512_xor_si512(x, w)));
                }
            }
    for (int p = 0; p < TILE; p++)
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_si512(counts[p] + v * LANES, sums[p][v]);
}
#else
#define HAS_XNOR 0
#define mismatches(counts, taps, weights, words, outputs, vectors) (void)(counts), (void)(taps), (void)(weights)
#endif
int has_xnor(void) { return HAS_XNOR; }
