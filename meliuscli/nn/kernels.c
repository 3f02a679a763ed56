/* What a dense stage does beside its convolutions, one pass over memory each; meliuscli/nn/kernels.py compiles it.
 *
 * Maps are rows of channels (NHWC): `rows` pixels, `ld` elements from a row to the next. Sums are formed in CHUNKS
 * parts of rows whatever the number of threads, so that results do not depend on it. The file includes itself once for
 * each type of element. */
#ifndef ELEMENT

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS 32
#define BLOCK 32
#define JOIN_(name, suffix) name##_##suffix
#define JOIN(name, suffix) JOIN_(name, suffix)
#define FN(name) JOIN(name, SUFFIX)
#define FOR_CHUNKS                                                                                                     \
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (long chunk = 0; chunk < CHUNKS; chunk++)
#define FOR_CHANNELS _Pragma("omp simd") for (long c = 0; c < channels; c++)
#define FIRST (rows * chunk / CHUNKS)
#define LAST (rows * (chunk + 1) / CHUNKS)

static inline float bf16_load(const uint16_t *p) {
    uint32_t u = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t bf16_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static inline float bf16_round(float f) {
    uint16_t u = bf16_of(f);
    return bf16_load(&u);
}

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

#define ELEMENT float
#define REAL float
#define SUFFIX f32
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define ROUND(v) (v)
#include "kernels.c"
#undef ELEMENT
#undef REAL
#undef SUFFIX
#define ELEMENT double
#define REAL double
#define SUFFIX f64
#include "kernels.c"
#undef ELEMENT
#undef REAL
#undef SUFFIX
#undef LOAD
#undef STORE
#undef ROUND
#define ELEMENT uint16_t
#define REAL float
#define SUFFIX bf16
#define LOAD bf16_load
#define STORE(p, v) (*(p) = bf16_of(v))
#define ROUND bf16_round
#include "kernels.c"

#else

/* to = from + added, where they are given (both may be null); mean and biased variance of that a channel. Sums are those
 * of blocks of rows around the block's own mean, merged (Chan et al.), so that a mean far from zero costs no digits. */
int FN(store_moments)(ELEMENT *restrict to, long ld, const ELEMENT *restrict from, const ELEMENT *restrict added,
                      double *restrict mean, double *restrict variance, long rows, long channels, int threads) {
    double *parts = calloc(CHUNKS * 2 * channels, sizeof(double));
    REAL *scratch = malloc(CHUNKS * (BLOCK + 2) * channels * sizeof(REAL));
    if (!parts || !scratch) {
        free(parts), free(scratch);
        return 1;
    }
    FOR_CHUNKS {
        double *restrict center = parts + 2 * channels * chunk, *restrict squares = center + channels;
        REAL *restrict sum = scratch + (BLOCK + 2) * channels * chunk, *restrict square = sum + channels;
        REAL *restrict block = square + channels;
        for (long first = FIRST; first < LAST; first += BLOCK) {
            long last = first + BLOCK < LAST ? first + BLOCK : LAST;
            double done = first - FIRST, now = last - first, all = done + now;
            memset(sum, 0, 2 * channels * sizeof(REAL));
            for (long row = first; row < last; row++) {
                REAL *restrict v = block + (row - first) * channels;
                const ELEMENT *restrict f = from + row * channels;
                if (added)
                    FOR_CHANNELS
                        v[c] = ROUND(LOAD(f + c) + LOAD(added + row * channels + c));
                else
                    FOR_CHANNELS
                        v[c] = LOAD(f + c);
                FOR_CHANNELS
                    sum[c] += v[c];
                if (to)
                    FOR_CHANNELS
                        STORE(to + row * ld + c, v[c]);
            }
            FOR_CHANNELS
                sum[c] /= (REAL)now;
            for (long row = first; row < last; row++)
                FOR_CHANNELS {
                    REAL d = block[(row - first) * channels + c] - sum[c];
                    square[c] += d * d;
                }
            FOR_CHANNELS {
                double step = sum[c] - center[c];
                center[c] += step * now / all;
                squares[c] += square[c] + step * step * done * now / all;
            }
        }
    }
    memset(mean, 0, channels * sizeof(double)), memset(variance, 0, channels * sizeof(double));
    for (long chunk = 0; chunk < CHUNKS; chunk++) {
        double *center = parts + 2 * channels * chunk, *squares = center + channels;
        double done = FIRST, now = LAST - FIRST, all = done + now;
        if (now > 0)
            FOR_CHANNELS {
                double step = center[c] - mean[c];
                mean[c] += step * now / all;
                variance[c] += squares[c] + step * step * done * now / all;
            }
    }
    FOR_CHANNELS
        variance[c] /= rows;
    free(parts), free(scratch);
    return 0;
}

/* to = 1 where x * scale + shift >= 0, else 0; as bytes, or as elements. */
int FN(bytes)(uint8_t *restrict to, long ld_to, const ELEMENT *restrict x, long ld, const REAL *restrict scale,
               const REAL *restrict shift, long rows, long channels, int threads) {
    FOR_CHUNKS for (long row = FIRST; row < LAST; row++) {
        uint8_t *restrict t = to + row * ld_to;
        const ELEMENT *restrict v = x + row * ld;
        FOR_CHANNELS
            t[c] = LOAD(v + c) * scale[c] + shift[c] >= 0;
    }
    return 0;
}
int FN(bits)(ELEMENT *restrict to, long ld_to, const ELEMENT *restrict x, long ld, const REAL *restrict scale,
              const REAL *restrict shift, long rows, long channels, int threads) {
    FOR_CHUNKS for (long row = FIRST; row < LAST; row++) {
        ELEMENT *restrict t = to + row * ld_to;
        const ELEMENT *restrict v = x + row * ld;
        FOR_CHANNELS
            STORE(t + c, (REAL)(LOAD(v + c) * scale[c] + shift[c] >= 0));
    }
    return 0;
}

/* The signs of x * scale + shift as words of 32 bits, channel 32 i + j at bit j of word i. The last channels, from `old`
 * on, come from `fresh`. */
int FN(pack)(uint32_t *restrict to, long words, const ELEMENT *restrict x, long ld, const ELEMENT *restrict fresh,
             long old, const REAL *restrict scale, const REAL *restrict shift, long rows, long all, int threads) {
    FOR_CHUNKS {
        uint8_t *restrict flags = calloc(words, 32);
        for (long row = FIRST; flags && row < LAST; row++) {
            const ELEMENT *restrict v = x + row * ld, *restrict f = fresh + row * (all - old) - old;
            long channels = old;
            FOR_CHANNELS flags[c] = LOAD(v + c) * scale[c] + shift[c] >= 0;
            for (long c = old; c < all; c++)
                flags[c] = LOAD(f + c) * scale[c] + shift[c] >= 0;
            for (long word = 0; word < words; word++) {
                uint32_t bits = 0;
                for (int j = 0; j < 32; j++)
                    bits |= (uint32_t)flags[32 * word + j] << j;
                to[row * words + word] = bits;
            }
        }
        free(flags);
    }
    return 0;
}

/* The signs of latent weights as weights[tap][word][output], `lanes` outputs of which the last may be padding. */
int FN(pack_weights)(uint32_t *restrict to, long words, long lanes, const REAL *restrict latent, long outputs,
                     long channels, long by_output, long by_channel, long by_tap, int threads) {
    memset(to, 0, 9 * words * lanes * sizeof(uint32_t));
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (long o = 0; o < outputs; o++)
        for (long tap = 0; tap < 9; tap++)
            for (long word = 0; word < words; word++) {
                const REAL *w = latent + o * by_output + tap * by_tap + 32 * word * by_channel;
                uint32_t bits = 0;
                long last = channels - 32 * word < 32 ? channels - 32 * word : 32;
                for (long j = 0; j < last; j++)
                    bits |= (uint32_t)(w[j * by_channel] >= 0) << j;
                to[(tap * words + word) * lanes + o] = bits;
            }
    return 0;
}

/* The binary 3x3 convolution of packed signs less K / 2: half of K less the mismatching bits. Words outside the map are
 * zero, which is the padding with -1. */
int FN(xnor)(ELEMENT *restrict to, const uint32_t *restrict signs, const uint32_t *restrict weights, long batch,
             long height, long width, long words, long lanes, long outputs, long dilation, REAL half, int threads) {
    uint32_t *border = calloc(words, sizeof(uint32_t));
    if (!border)
        return 1;
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (long line = 0; line < batch * height; line++)
        for (long left = 0; left < width; left += TILE) {
            const uint32_t *taps[TILE][9];
            int32_t counts[TILE][WIDEST * LANES];
            long y = line % height, num = width - left < TILE ? width - left : TILE;
            for (long p = 0; p < TILE; p++)
                for (long tap = 0; tap < 9; tap++) {
                    long row = (tap / 3 - 1) * dilation, col = left + p + (tap % 3 - 1) * dilation;
                    int inside = p < num && y + row >= 0 && y + row < height && col >= 0 && col < width;
                    taps[p][tap] = inside ? signs + ((line + row) * width + col) * words : border;
                }
            for (long first = 0; first < outputs; first += WIDEST * LANES) {
                long left_over = (lanes - first) / LANES, channels = outputs - first;
                if (left_over >= 4)
                    mismatches(counts, taps, weights + first, words, lanes, 4);
                else if (left_over == 3)
                    mismatches(counts, taps, weights + first, words, lanes, 3);
                else if (left_over == 2)
                    mismatches(counts, taps, weights + first, words, lanes, 2);
                else
                    mismatches(counts, taps, weights + first, words, lanes, 1);
                channels = channels < WIDEST * LANES ? channels : WIDEST * LANES;
                for (long p = 0; p < num; p++) {
                    ELEMENT *restrict t = to + (line * width + left + p) * outputs + first;
                    FOR_CHANNELS STORE(t + c, half - counts[p][c]);
                }
            }
        }
    free(border);
    return 0;
}

/* Backward of sign and of batch norm's scale: with g = grad where |x * scale + shift| <= clip, else 0,
 * to += gamma * g, total = sum of g and moment = sum of g * (x - mean) a channel. */
int FN(accumulate)(REAL *restrict to, long ld_to, const ELEMENT *restrict grad, long ld_grad, const ELEMENT *restrict x,
                   long ld, const REAL *restrict scale, const REAL *restrict shift, const REAL *restrict mean,
                   const REAL *restrict gamma, REAL clip, double *restrict total, double *restrict moment, long rows,
                   long channels, int threads) {
    REAL *parts = calloc(CHUNKS * 2 * channels, sizeof(REAL));
    if (!parts)
        return 1;
    FOR_CHUNKS {
        REAL *restrict sum = parts + 2 * channels * chunk, *restrict dot = sum + channels;
        for (long row = FIRST; row < LAST; row++) {
            REAL *restrict t = to + row * ld_to;
            const ELEMENT *restrict d = grad + row * ld_grad, *restrict v = x + row * ld;
            FOR_CHANNELS {
                REAL value = LOAD(v + c), y = value * scale[c] + shift[c], whole = LOAD(d + c);
                REAL g = (y <= clip) & (y >= -clip) ? whole : 0;
                sum[c] += g;
                dot[c] += g * (value - mean[c]);
                t[c] += gamma[c] * g;
            }
        }
    }
    memset(total, 0, channels * sizeof(double)), memset(moment, 0, channels * sizeof(double));
    for (long chunk = 0; chunk < CHUNKS; chunk++)
        FOR_CHANNELS {
            total[c] += parts[2 * channels * chunk + c];
            moment[c] += parts[2 * channels * chunk + channels + c];
        }
    free(parts);
    return 0;
}

/* to = base + p * sums + q * x + r: the gradient of a map from that of its normalised selves. */
int FN(finish)(ELEMENT *restrict to, const ELEMENT *restrict base, long ld_base, const REAL *restrict sums,
                long ld_sums, const ELEMENT *restrict x, long ld, const REAL *restrict p, const REAL *restrict q,
                const REAL *restrict r, long rows, long channels, int threads) {
    FOR_CHUNKS for (long row = FIRST; row < LAST; row++) {
        ELEMENT *restrict t = to + row * channels;
        const ELEMENT *restrict b = base + row * ld_base, *restrict v = x + row * ld;
        const REAL *restrict s = sums + row * ld_sums;
        FOR_CHANNELS
            STORE(t + c, LOAD(b + c) + p[c] * s[c] + q[c] * LOAD(v + c) + r[c]);
    }
    return 0;
}

#endif
