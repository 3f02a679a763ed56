/* Mismatching bits of a 3x3 convolution for TILE pixels and `vectors` (a constant) of LANES outputs: counts[pixel][output].
 * taps[pixel][tap] are words of signs, weights[tap][word][output] words of the weights' signs. */
#define TILE 4
#define WIDEST 4
#ifdef __AVX512VPOPCNTDQ__
#include <immintrin.h>
#define LANES 16
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
#elif defined(__AVX2__) && !defined(__AVX512F__)
#include <immintrin.h>
#define LANES 8
#define HAS_XNOR 1
#define BYTES_HOLD 31 /* words: each adds at most 8 to a byte of the sums */

/* Mismatching bits a byte, by halves of bytes looked up in a table (Mula et al., 2016). */
static inline __m256i mismatches_by_byte(__m256i x, __m256i w) {
    const __m256i ones = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, /* the same for the upper lane */
                                          0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4);
    const __m256i half = _mm256_set1_epi8(15);
    __m256i bits = _mm256_xor_si256(x, w), high = _mm256_and_si256(_mm256_srli_epi16(bits, 4), half);
    bits = _mm256_and_si256(bits, half);
    return _mm256_add_epi8(_mm256_shuffle_epi8(ones, bits), _mm256_shuffle_epi8(ones, high));
}
static inline __m256i sums_of_bytes(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(bytes, _mm256_set1_epi8(1)), _mm256_set1_epi16(1));
}
static inline void mismatches(int32_t (*counts)[WIDEST * LANES], const uint32_t *(*taps)[9], const uint32_t *weights,
                              long words, long outputs, int vectors) {
    for (int v = 0; v < vectors; v++) {
        const uint32_t *w = weights + v * LANES;
        __m256i sums[TILE], bytes[TILE];
        for (int p = 0; p < TILE; p++)
            sums[p] = bytes[p] = _mm256_setzero_si256();
        int held = 0;
        for (int tap = 0; tap < 9; tap++)
            for (long word = 0; word < words; word++, w += outputs) {
                __m256i lanes = _mm256_loadu_si256((const __m256i *)w);
                for (int p = 0; p < TILE; p++) {
                    __m256i x = _mm256_set1_epi32((int32_t)taps[p][tap][word]);
                    bytes[p] = _mm256_add_epi8(bytes[p], mismatches_by_byte(x, lanes));
                }
                if (++held < BYTES_HOLD)
                    continue;
                held = 0;
                for (int p = 0; p < TILE; p++) {
                    sums[p] = _mm256_add_epi32(sums[p], sums_of_bytes(bytes[p]));
                    bytes[p] = _mm256_setzero_si256();
                }
            }
        for (int p = 0; p < TILE; p++) {
            __m256i all = _mm256_add_epi32(sums[p], sums_of_bytes(bytes[p]));
            _mm256_storeu_si256((__m256i *)(counts[p] + v * LANES), all);
        }
    }
}
#else
#define LANES 16
#define HAS_XNOR 0
#define mismatches(counts, taps, weights, words, outputs, vectors) (void)(counts), (void)(taps), (void)(weights)
#endif
int has_xnor(void) { return HAS_XNOR; }
int xnor_lanes(void) { return LANES; }

/* 32 flags of 0 or 1 as the bits of a word. */
static inline uint32_t word_of(const uint8_t *flags) {
#if LANES == 8
    return (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(_mm256_loadu_si256((const __m256i *)flags), 7));
#else
    uint32_t bits = 0;
    for (int j = 0; j < 32; j++)
        bits |= (uint32_t)flags[j] << j;
    return bits;
#endif
}
