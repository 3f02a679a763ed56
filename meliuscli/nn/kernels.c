/* What a dense stage does beside its convolutions, one pass over memory each; meliuscli/nn/kernels.py compiles it.
 *
 * Maps are rows of channels (NHWC): `rows` pixels, `ld` elements from a row to the next. Sums are formed in CHUNKS
 * parts of rows whatever the number of threads, so that results do not depend on it. The file includes itself once for
 * each type of element. */
#ifndef ELEMENT

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS 16
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

/* Backward of sign and of batch norm's scale at one pixel: with g = grad where |x * scale + shift| <= clip, else 0,
 * to += gamma * g, sum += g and dot += g * (x - mean) a channel. */
static inline void FN(pass_back)(REAL *restrict to, const ELEMENT *restrict x, const REAL *restrict scale,
                                 const REAL *restrict shift, const REAL *restrict mean, const REAL *restrict gamma,
                                 REAL clip, REAL *restrict sum, REAL *restrict dot, const ELEMENT *restrict grad,
                                 const REAL *restrict whole, long channels) {
    FOR_CHANNELS {
        REAL value = LOAD(x + c), y = value * scale[c] + shift[c], d = grad ? LOAD(grad + c) : whole[c];
        REAL g = (y <= clip) & (y >= -clip) ? d : 0;
        sum[c] += g;
        dot[c] += g * (value - mean[c]);
        to[c] += gamma[c] * g;
    }
}

/* That for a whole map; parts is (CHUNKS, 2, channels) sums and dots. */
int FN(accumulate)(REAL *restrict to, long ld_to, const ELEMENT *restrict grad, long ld_grad, const ELEMENT *restrict x,
                   long ld, const REAL *restrict scale, const REAL *restrict shift, const REAL *restrict mean,
                   const REAL *restrict gamma, REAL clip, REAL *restrict parts, long rows, long channels, int threads) {
    FOR_CHUNKS for (long row = FIRST; row < LAST; row++)
        FN(pass_back)(to + row * ld_to, x + row * ld, scale, shift, mean, gamma, clip, parts + 2 * channels * chunk,
                      parts + 2 * channels * chunk + channels, grad + row * ld_grad, 0, channels);
    return 0;
}

/* Winograd's convolution F(2x2, 3x3), by tiles of 2x2 outputs: `rows` tiles from tile `begin` on, of a map that is
 * `height` x `width`. Planes [16][tile][channel]. */
#define FOR_TILES                                                                                                      \
    FOR_CHUNKS for (long row = FIRST; row < LAST; row++) {                                                             \
        long across = (width + 1) / 2, down = (height + 1) / 2, tile = begin + row;                                    \
        long top = tile / across % down * 2, left = tile % across * 2, image = tile / across / down * height;

/* Planes of the 4x4 patches around the tiles: B^T d B, zero outside the map. */
int FN(patches)(ELEMENT *restrict to, const ELEMENT *restrict x, long begin, long height, long width, long rows,
                long channels, int threads) {
    const ELEMENT *zeros = calloc(channels, sizeof(ELEMENT));
    if (!zeros)
        return 1;
    FOR_TILES
        const ELEMENT *d[4][4];
        for (long i = 0; i < 4; i++)
            for (long j = 0; j < 4; j++) {
                long y = top + i - 1, z = left + j - 1;
                int inside = y >= 0 && y < height && z >= 0 && z < width;
                d[i][j] = inside ? x + ((image + y) * width + z) * channels : zeros;
            }
        ELEMENT *restrict t = to + row * channels;
        long plane = rows * channels;
        FOR_CHANNELS {
            REAL m[4][4];
            for (int j = 0; j < 4; j++) {
                REAL d0 = LOAD(d[0][j] + c), d1 = LOAD(d[1][j] + c), d2 = LOAD(d[2][j] + c), d3 = LOAD(d[3][j] + c);
                m[0][j] = d0 - d2, m[1][j] = d1 + d2, m[2][j] = d2 - d1, m[3][j] = d1 - d3;
            }
            for (int i = 0; i < 4; i++) {
                STORE(t + (4 * i + 0) * plane + c, m[i][0] - m[i][2]);
                STORE(t + (4 * i + 1) * plane + c, m[i][1] + m[i][2]);
                STORE(t + (4 * i + 2) * plane + c, m[i][2] - m[i][1]);
                STORE(t + (4 * i + 3) * plane + c, m[i][1] - m[i][3]);
            }
        }
    }
    free((void *)zeros);
    return 0;
}

/* Planes of the 2x2 tiles themselves, as the weights' gradient takes them: A d A^T. */
int FN(tiles)(ELEMENT *restrict to, const ELEMENT *restrict x, long begin, long height, long width, long rows,
              long channels, int threads) {
    const ELEMENT *zeros = calloc(channels, sizeof(ELEMENT));
    if (!zeros)
        return 1;
    FOR_TILES
        const ELEMENT *d[2][2];
        for (long i = 0; i < 2; i++)
            for (long j = 0; j < 2; j++) {
                int inside = top + i < height && left + j < width;
                d[i][j] = inside ? x + ((image + top + i) * width + left + j) * channels : zeros;
            }
        ELEMENT *restrict t = to + row * channels;
        long plane = rows * channels;
        FOR_CHANNELS {
            REAL m[4][2];
            for (int j = 0; j < 2; j++) {
                REAL d0 = LOAD(d[0][j] + c), d1 = LOAD(d[1][j] + c);
                m[0][j] = d0, m[1][j] = d0 + d1, m[2][j] = d0 - d1, m[3][j] = -d1;
            }
            for (int i = 0; i < 4; i++) {
                STORE(t + (4 * i + 0) * plane + c, m[i][0]);
                STORE(t + (4 * i + 1) * plane + c, m[i][0] + m[i][1]);
                STORE(t + (4 * i + 2) * plane + c, m[i][0] - m[i][1]);
                STORE(t + (4 * i + 3) * plane + c, -m[i][1]);
            }
        }
    }
    free((void *)zeros);
    return 0;
}

/* Planes [16][output][channel] of half the weights' signs, turned by 180 degrees: G g G^T, exact in bfloat16. */
int FN(weight_planes)(ELEMENT *restrict to, const REAL *restrict latent, long outputs, long channels, long by_output,
                      long by_channel, long by_tap, int threads) {
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (long o = 0; o < outputs; o++) {
        const REAL *restrict w = latent + o * by_output;
        ELEMENT *restrict t = to + o * channels;
        long plane = outputs * channels;
        FOR_CHANNELS {
            REAL g[3][3], m[4][3];
            for (int i = 0; i < 9; i++)
                g[i / 3][i % 3] = w[(8 - i) * by_tap + c * by_channel] >= 0 ? (REAL)0.5 : (REAL)-0.5;
            for (int j = 0; j < 3; j++) {
                REAL both = (g[0][j] + g[2][j]) / 2, middle = g[1][j] / 2;
                m[0][j] = g[0][j], m[1][j] = both + middle, m[2][j] = both - middle, m[3][j] = g[2][j];
            }
            for (int i = 0; i < 4; i++) {
                REAL both = (m[i][0] + m[i][2]) / 2, middle = m[i][1] / 2;
                STORE(t + (4 * i + 0) * plane + c, m[i][0]);
                STORE(t + (4 * i + 1) * plane + c, both + middle);
                STORE(t + (4 * i + 2) * plane + c, both - middle);
                STORE(t + (4 * i + 3) * plane + c, m[i][2]);
            }
        }
    }
    return 0;
}

/* As `accumulate`, the gradient being A^T m A of planes with ld_grad channels. */
int FN(accumulate_planes)(REAL *restrict to, long ld_to, const ELEMENT *restrict planes, long ld_grad,
                          const ELEMENT *restrict x, long ld, const REAL *restrict scale, const REAL *restrict shift,
                          const REAL *restrict mean, const REAL *restrict gamma, REAL clip, REAL *restrict parts,
                          long begin, long height, long width, long rows, long channels, int threads) {
    FOR_TILES
        const ELEMENT *restrict p = planes + row * ld_grad;
        long plane = rows * ld_grad;
        REAL out[2][2][channels];
        FOR_CHANNELS {
            REAL m[2][4];
            for (int j = 0; j < 4; j++) {
                REAL m1 = LOAD(p + (4 + j) * plane + c), m2 = LOAD(p + (8 + j) * plane + c);
                m[0][j] = LOAD(p + j * plane + c) + m1 + m2, m[1][j] = m1 - m2 - LOAD(p + (12 + j) * plane + c);
            }
            for (int i = 0; i < 2; i++)
                out[i][0][c] = m[i][0] + m[i][1] + m[i][2], out[i][1][c] = m[i][1] - m[i][2] - m[i][3];
        }
        for (long i = 0; i < 2 && top + i < height; i++)
            for (long j = 0; j < 2 && left + j < width; j++) {
                long pixel = (image + top + i) * width + left + j;
                FN(pass_back)(to + pixel * ld_to, x + pixel * ld, scale, shift, mean, gamma, clip,
                              parts + 2 * channels * chunk, parts + 2 * channels * chunk + channels, 0, out[i][j],
                              channels);
            }
    }
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
