/* Kernels: bits in whole numbers, float parts with one rounding a multiply-add, in one order on every processor. So all
 * builds give the same numbers to the last bit. */
#include "NAME.h"
#include "kernels.h"

#include <string.h>

#if defined(__FAST_MATH__)
#error "-ffast-math changes the order of float additions, which signs depend on"
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline, unused))
#else
#define INLINE static inline
#endif
#if defined(__GNUC__) || defined(_MSC_VER)
#define RESTRICT __restrict
#else
#define RESTRICT
#endif

/* Multiply and add with one rounding. */

#if defined(__FP_FAST_FMAF) || defined(__FMA__) || defined(__ARM_FEATURE_FMA) || (defined(__riscv_flen) && __riscv_flen >= 32)
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#else
#define FMA(a, b, c) fused(a, b, c)
/* In double the product is exact and the sum rounds once; the sum is moved to the odd neighbour where it was inexact, and
 * then rounds to float as the exact one would (Boldo and Melquiond, 2008). */
INLINE float fused(float a, float b, float c)
{
    typedef char double_has_64_bits[sizeof(double) == 8 ? 1 : -1];
    double product = (double)a * (double)b, sum = product + (double)c;
    double part = sum - product, error = (product - (sum - part)) + ((double)c - part);
    uint64_t bits;
    (void)sizeof(double_has_64_bits);
    memcpy(&bits, &sum, sizeof bits);
    if (error != 0.0 && (bits & 1u) == 0) {
        bits += ((error > 0.0) == (sum > 0.0)) ? 1u : (uint64_t)-1;
        memcpy(&sum, &bits, sizeof sum);
    }
    return (float)sum;
}
#endif

/* Bits that are set. */

#if defined(__POPCNT__) || defined(__aarch64__) || defined(__riscv_zbb)
#define POPCOUNT(word) ((uint32_t)__builtin_popcount(word))
#else
#define POPCOUNT(word) popcount(word)
INLINE uint32_t popcount(uint32_t word)
{
    word -= (word >> 1) & 0x55555555u;
    word = (word & 0x33333333u) + ((word >> 2) & 0x33333333u);
    word = (word + (word >> 4)) & 0x0f0f0f0fu;
    return (word * 0x01010101u) >> 24;
}
#endif

/* Vectors of LANES floats or words. `differing` adds, lane by lane, the bits in which a word differs from weights;
 * `floats_above` and `counts_above` are 32 comparisons with thresholds. */

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VPOPCNTDQ__)
#include <immintrin.h>
#define LANES 16
typedef __m512 floats;
typedef __m512i words;
INLINE floats load_floats(const float *at) { return _mm512_loadu_ps(at); }
INLINE void store_floats(float *at, floats x) { _mm512_storeu_ps(at, x); }
INLINE floats splat(float x) { return _mm512_set1_ps(x); }
INLINE floats fma_floats(floats a, floats b, floats c) { return _mm512_fmadd_ps(a, b, c); }
INLINE floats positive(floats x) { return _mm512_max_ps(x, _mm512_setzero_ps()); }
INLINE words zero_words(void) { return _mm512_setzero_si512(); }
INLINE words load_words(const uint32_t *at) { return _mm512_loadu_si512(at); }
INLINE void store_words(uint32_t *at, words x) { _mm512_storeu_si512(at, x); }
INLINE words differing(words sum, uint32_t seen, words weights)
{
    return _mm512_add_epi32(sum, _mm512_popcnt_epi32(_mm512_xor_si512(_mm512_set1_epi32((int)seen), weights)));
}
#define HAS_ABOVE
INLINE uint32_t floats_above(const float *x, const float *thresholds)
{
    uint32_t low = _mm512_cmp_ps_mask(load_floats(x), load_floats(thresholds), _CMP_GE_OQ);
    uint32_t high = _mm512_cmp_ps_mask(load_floats(x + 16), load_floats(thresholds + 16), _CMP_GE_OQ);
    return low | (high << 16);
}
INLINE uint32_t counts_above(const uint16_t *x, const uint16_t *thresholds)
{
    return _mm512_cmp_epu16_mask(_mm512_loadu_si512(x), _mm512_loadu_si512(thresholds), _MM_CMPINT_NLT);
}

#elif defined(__AVX2__) && defined(__FMA__)
#include <immintrin.h>
#define LANES 8
typedef __m256 floats;
typedef __m256i words;
INLINE floats load_floats(const float *at) { return _mm256_loadu_ps(at); }
INLINE void store_floats(float *at, floats x) { _mm256_storeu_ps(at, x); }
INLINE floats splat(float x) { return _mm256_set1_ps(x); }
INLINE floats fma_floats(floats a, floats b, floats c) { return _mm256_fmadd_ps(a, b, c); }
INLINE floats positive(floats x) { return _mm256_max_ps(x, _mm256_setzero_ps()); }
INLINE words zero_words(void) { return _mm256_setzero_si256(); }
INLINE words load_words(const uint32_t *at) { return _mm256_loadu_si256((const __m256i *)(const void *)at); }
INLINE void store_words(uint32_t *at, words x) { _mm256_storeu_si256((__m256i *)(void *)at, x); }
INLINE words differing(words sum, uint32_t seen, words weights)
{
    /* Bits of each half byte from a table, then the four bytes of a word together. */
    const __m256i table = _mm256_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4, 0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2,
                                           3, 2, 3, 3, 4);
    const __m256i low = _mm256_set1_epi8(15);
    __m256i bits = _mm256_xor_si256(_mm256_set1_epi32((int)seen), weights);
    __m256i first = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, low));
    __m256i second = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), low));
    __m256i pairs = _mm256_maddubs_epi16(_mm256_add_epi8(first, second), _mm256_set1_epi8(1));
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#define HAS_ABOVE
INLINE uint32_t floats_above(const float *x, const float *thresholds)
{
    uint32_t bits = 0;
    for (int i = 0; i < 4; i++) {
        __m256 above = _mm256_cmp_ps(load_floats(x + 8 * i), load_floats(thresholds + 8 * i), _CMP_GE_OQ);
        bits |= (uint32_t)_mm256_movemask_ps(above) << (8 * i);
    }
    return bits;
}
INLINE uint32_t counts_above(const uint16_t *x, const uint16_t *thresholds)
{
    __m256i above[2];
    for (int i = 0; i < 2; i++) {
        __m256i seen = _mm256_loadu_si256((const __m256i *)(const void *)(x + 16 * i));
        __m256i wanted = _mm256_loadu_si256((const __m256i *)(const void *)(thresholds + 16 * i));
        above[i] = _mm256_cmpeq_epi16(_mm256_max_epu16(seen, wanted), seen);
    }
    /* Packing works on halves of 16 bytes each, which the permutation puts in order. */
    return (uint32_t)_mm256_movemask_epi8(_mm256_permute4x64_epi64(_mm256_packs_epi16(above[0], above[1]), 0xd8));
}

#elif defined(__ARM_NEON) && defined(__aarch64__)
#include <arm_neon.h>
#define LANES 4
typedef float32x4_t floats;
typedef uint32x4_t words;
INLINE floats load_floats(const float *at) { return vld1q_f32(at); }
INLINE void store_floats(float *at, floats x) { vst1q_f32(at, x); }
INLINE floats splat(float x) { return vdupq_n_f32(x); }
INLINE floats fma_floats(floats a, floats b, floats c) { return vfmaq_f32(c, a, b); }
INLINE floats positive(floats x) { return vmaxq_f32(x, vdupq_n_f32(0.0f)); }
INLINE words zero_words(void) { return vdupq_n_u32(0); }
INLINE words load_words(const uint32_t *at) { return vld1q_u32(at); }
INLINE void store_words(uint32_t *at, words x) { vst1q_u32(at, x); }
INLINE words differing(words sum, uint32_t seen, words weights)
{
    uint8x16_t bits = vcntq_u8(vreinterpretq_u8_u32(veorq_u32(vdupq_n_u32(seen), weights)));
    return vpadalq_u16(sum, vpaddlq_u8(bits));
}

#else
#define LANES 1
#endif

#if LANES > 1
#define VECTORS (MELIUS_BLOCK / LANES)
#endif

INLINE int least(int a, int b) { return a < b ? a : b; }

/* Of all floats but minus infinity. */
#define LOWEST -3.40282347e38f

/* Signs */

/* Up to 32 bits behind the first `place` ones. */
INLINE void put_bits(uint32_t *RESTRICT out, int place, uint32_t bits)
{
    int shift = place % 32;
    out[place / 32] |= bits << shift;
    if (shift != 0 && bits >> (32 - shift) != 0) {
        out[place / 32 + 1] |= bits >> (32 - shift);
    }
}

/* The signs of floats: +1 where they are at least their threshold, or 0 where there is none, but for those that are flipped. */
static void sign_pixel(const float *RESTRICT reals, const float *thresholds, const uint32_t *flips, int channels,
                       uint32_t *RESTRICT out)
{
    for (int c = 0; c < channels; c += 32, out++) {
        int many = least(32, channels - c);
        uint32_t bits = 0;
#if defined(HAS_ABOVE)
        if (many == 32 && thresholds != NULL) {
            bits = floats_above(reals + c, thresholds + c);
        } else
#endif
            for (int i = 0; i < many; i++) {
                bits |= (uint32_t)(reals[c + i] >= (thresholds == NULL ? 0.0f : thresholds[c + i])) << i;
            }
        *out = flips == NULL ? bits : bits ^ flips[c / 32];
    }
}

/* The nearest whole number from -127 to 127, of two that are as near the even one. */
INLINE int nearest(float x)
{
    float inside = x < -127.0f ? -127.0f : x > 127.0f ? 127.0f : x;
    int below = (int)inside - (inside < (float)(int)inside);
    float part = inside - (float)below;
    return below + (part > 0.5f || (part == 0.5f && below % 2 != 0));
}

/* The stem */

/* Floats of a row of a plane: what a window may see on the left, the row, what it may see on the right. */
INLINE int margin_of(int kernel, int parities) { return (kernel / 2 + parities - 1) / parities; }
INLINE int row_floats(int width, int kernel, int parities)
{
    return (width + parities - 1) / parities + 2 * margin_of(kernel, parities);
}

typedef struct {
    melius_value *data;
    int channels, width, height, slots, parities, margin, row;
} planes;

static planes make_planes(float **scratch, int channels, int size, int kernel, int parities)
{
    planes made = {(melius_value *)(void *)*scratch, channels, size, size, kernel, parities, margin_of(kernel, parities),
                   row_floats(size, kernel, parities)};
    size_t total = (size_t)channels * (size_t)kernel * (size_t)parities * (size_t)made.row;
    memset(made.data, 0, total * sizeof(melius_value));
    *scratch += (total * sizeof(melius_value) + 3) / 4;
    return made;
}

/* The first column of a row of a channel, of its even columns. */
INLINE melius_value *plane_row(const planes *p, int channel, int row)
{
    return p->data + ((size_t)channel * (size_t)p->slots + (size_t)(row % p->slots)) * (size_t)(p->parities * p->row) +
           p->margin;
}

static void split_row(const melius_stem *stem, const planes *out, const float *image, int row)
{
    for (int channel = 0; channel < out->channels; channel++) {
        const float *from = image + ((size_t)channel * (size_t)out->height + (size_t)row) * (size_t)out->width;
        melius_value *to = plane_row(out, channel, row);
        for (int x = 0; x < out->width; x++) {
            float value = stem->scale == NULL ? from[x] : FMA(from[x], stem->scale[channel], stem->shift[channel]);
#if MELIUS_INT8
            to[x % out->parities * out->row + x / out->parities] = (int8_t)nearest(value);
#else
            to[x % out->parities * out->row + x / out->parities] = value;
#endif
        }
    }
}

/* Where the window of output pixel 0 sees a column, in a row of planes. */
INLINE int column_offset(const planes *p, int column)
{
    int shifted = column + p->margin * p->parities; /* not negative, so that division rounds down */
    return shifted % p->parities * p->row + shifted / p->parities - p->margin;
}

#if LANES > 1 && !MELIUS_INT8
/* `channels` output channels of `LANES` pixels from x on. */
INLINE void plane_tile(const melius_plane_conv *conv, const planes *from, int first, int channels, int x, const planes *to,
                       int row)
{
    int kernel = conv->kernel, taps = conv->inputs * kernel * kernel;
    int plane = first / (conv->outputs / conv->groups) * conv->inputs;
    const float *weights = conv->weights + (size_t)first * (size_t)taps;
    floats sums[4];
    for (int c = 0; c < channels; c++) {
        sums[c] = splat(conv->bias[first + c]);
    }
    for (int input = 0; input < conv->inputs; input++) {
        for (int ky = 0; ky < kernel; ky++) {
            int seen = row * conv->stride - conv->before + ky;
            const float *tap = weights + (input * kernel + ky) * kernel;
            if (seen < 0 || seen >= from->height) {
                continue;
            }
            const float *line = plane_row(from, plane + input, seen) + x;
            for (int kx = 0; kx < kernel; kx++) {
                floats pixels = load_floats(line + column_offset(from, kx - conv->before));
                for (int c = 0; c < channels; c++) {
                    sums[c] = fma_floats(splat(tap[c * taps + kx]), pixels, sums[c]);
                }
            }
        }
    }
    for (int c = 0; c < channels; c++) {
        store_floats(plane_row(to, first + c, row) + x, conv->relu ? positive(sums[c]) : sums[c]);
    }
}
#endif

static melius_value plane_pixel(const melius_plane_conv *conv, const planes *from, int output, int x, int row)
{
    int kernel = conv->kernel, plane = output / (conv->outputs / conv->groups) * conv->inputs;
    const melius_value *weights = conv->weights + (size_t)output * (size_t)(conv->inputs * kernel * kernel);
#if MELIUS_INT8
    int32_t sum = 0;
#else
    float sum = conv->bias[output];
#endif
    for (int input = 0; input < conv->inputs; input++) {
        for (int ky = 0; ky < kernel; ky++, weights += kernel) {
            int seen = row * conv->stride - conv->before + ky;
            if (seen < 0 || seen >= from->height) {
                continue;
            }
            const melius_value *line = plane_row(from, plane + input, seen) + x;
            for (int kx = 0; kx < kernel; kx++) {
#if MELIUS_INT8
                sum += weights[kx] * line[column_offset(from, kx - conv->before)];
#else
                sum = FMA(weights[kx], line[column_offset(from, kx - conv->before)], sum);
#endif
            }
        }
    }
#if MELIUS_INT8
    int value = nearest(FMA((float)sum, conv->scale[output], conv->bias[output]));
    return (int8_t)(conv->relu && value < 0 ? 0 : value);
#else
    return conv->relu && !(sum > 0.0f) ? 0.0f : sum;
#endif
}

static void plane_conv_row(const melius_plane_conv *conv, const planes *from, const planes *to, int row)
{
#if LANES > 1 && !MELIUS_INT8
    if (to->width >= LANES) {
        int together = conv->outputs / conv->groups % 4 == 0 ? 4 : 1;
        for (int output = 0; output < conv->outputs; output += together) {
            /* The last vector of a row may overlap the one before it: it gives the same values again. */
            for (int x = 0; x < to->width; x += LANES) {
                int place = least(x, to->width - LANES);
                if (together == 4) {
                    plane_tile(conv, from, output, 4, place, to, row);
                } else {
                    plane_tile(conv, from, output, 1, place, to, row);
                }
            }
        }
        return;
    }
#endif
    for (int output = 0; output < conv->outputs; output++) {
        melius_value *out = plane_row(to, output, row);
        for (int x = 0; x < to->width; x++) {
            out[x] = plane_pixel(conv, from, output, x, row);
        }
    }
}

/* A row of planes, pixel by pixel, through 3x3 max pooling of stride 2 where it pools, of what lies inside. */
static void gather_row(const planes *from, float *out, int row, int width, int pools, int before)
{
    for (int channel = 0; channel < from->channels; channel++) {
        int first = pools ? 2 * row - before : row, last = pools ? least(2 * row + 2 - before, from->height - 1) : row;
        for (int x = 0; x < width; x++) {
            out[(size_t)x * (size_t)from->channels + (size_t)channel] = pools ? LOWEST : (float)plane_row(from, channel, row)[x];
        }
        for (int seen = first < 0 ? 0 : first; pools && seen <= last; seen++) {
            const melius_value *line = plane_row(from, channel, seen);
            for (int x = 0; x < width; x++) {
                float *best = out + (size_t)x * (size_t)from->channels + (size_t)channel;
                int middle = 2 * x + 1 - before;
                float b = (float)line[middle], a = middle > 0 ? (float)line[middle - 1] : b;
                float c = middle + 1 < from->width ? (float)line[middle + 1] : b;
                a = a > b ? a : b;
                a = a > c ? a : c;
                *best = a > *best ? a : *best;
            }
        }
    }
}

/* Batch norm behind a stem, and the signs of a row of pixels. */
static void finish_row(const melius_stem *stem, int channels, float *out, uint32_t *bits)
{
    int num_words = (channels + 31) / 32;
    for (int x = 0; x < stem->out_size; x++, out += channels) {
        for (int c = 0; stem->out_scale != NULL && c < channels; c++) {
            out[c] = FMA(out[c], stem->out_scale[c], stem->out_shift[c]);
        }
        if (bits != NULL) {
            sign_pixel(out, stem->thresholds, stem->flips, channels, bits + x * num_words);
        }
    }
}

void melius_run_stem(const melius_stem *stem, const float *image, float *out, uint32_t *bits, float *scratch)
{
    planes layers[MELIUS_STEM_LAYERS];
    int done[MELIUS_STEM_LAYERS + 1], last = stem->num_convs + 1;
    layers[0] = make_planes(&scratch, stem->channels, stem->size, stem->convs[0].kernel, stem->convs[0].stride);
    for (int i = 0; i < stem->num_convs; i++) {
        int size = (layers[i].width - 1) / stem->convs[i].stride + 1;
        int kernel = i + 1 < stem->num_convs ? stem->convs[i + 1].kernel : stem->pools ? 3 : 1;
        layers[i + 1] = make_planes(&scratch, stem->convs[i].outputs, size, kernel, 1);
    }
    for (int i = 0; i <= last; i++) {
        done[i] = 0;
    }
    while (done[last] < stem->out_size) {
        /* Of the layers whose next row is wanted, the first that can make it. */
        int layer = last;
        for (; layer > 0; layer--) {
            int kernel = layer < last ? stem->convs[layer - 1].kernel : stem->pools ? 3 : 1;
            int stride = layer < last ? stem->convs[layer - 1].stride : stem->pools ? 2 : 1;
            int before = layer < last ? stem->convs[layer - 1].before : stem->pools ? stem->pool_before : 0;
            int needed = done[layer] * stride - before + kernel;
            if (done[layer - 1] >= least(needed, layers[layer - 1].height)) {
                break;
            }
        }
        if (layer == 0) {
            split_row(stem, &layers[0], image, done[0]);
        } else if (layer < last) {
            plane_conv_row(&stem->convs[layer - 1], &layers[layer - 1], &layers[layer], done[layer]);
        } else {
            const planes *from = &layers[last - 1];
            size_t row = (size_t)done[last] * (size_t)stem->out_size;
            float *to = bits == NULL ? out + row * (size_t)from->channels : out; /* of signs alone, a row of floats is enough */
            gather_row(from, to, done[last], stem->out_size, stem->pools, stem->pool_before);
            finish_row(stem, from->channels, to, bits == NULL ? NULL : bits + row * (size_t)((from->channels + 31) / 32));
        }
        done[layer]++;
    }
}

/* Float 1x1 convolutions */

#if LANES > 1
INLINE void pointwise_tile(const float *pixels, int many, int apart, const float *weights, int inputs,
                           const uint16_t *order, const float *bias, float *out, int out_apart)
{
    floats sums[MELIUS_PIXELS][VECTORS];
    for (int p = 0; p < many; p++) {
        for (int v = 0; v < VECTORS; v++) {
            sums[p][v] = splat(0.0f);
        }
    }
    for (int i = 0; i < inputs; i++, weights += MELIUS_BLOCK) {
        const float *pixel = pixels + (order == NULL ? i : (int)order[i]);
        floats loaded[VECTORS];
        for (int v = 0; v < VECTORS; v++) {
            loaded[v] = load_floats(weights + v * LANES);
        }
        for (int p = 0; p < many; p++) {
            for (int v = 0; v < VECTORS; v++) {
                sums[p][v] = fma_floats(splat(pixel[p * apart]), loaded[v], sums[p][v]);
            }
        }
    }
    for (int p = 0; p < many; p++) {
        for (int v = 0; v < VECTORS; v++) {
            store_floats(out + p * out_apart + v * LANES, sums[p][v]);
        }
        for (int lane = 0; bias != NULL && lane < MELIUS_BLOCK; lane++) {
            out[p * out_apart + lane] += bias[lane];
        }
    }
}
#endif

/* `many` pixels of `apart` channels: (outputs, inputs) weights in blocks, the inputs in `order`. */
static void pointwise(const float *pixels, int many, int apart, const float *weights, int inputs, int outputs,
                      const uint16_t *order, const float *bias, float *out, int out_apart)
{
    for (int output = 0; output < outputs; output += MELIUS_BLOCK) {
        int lanes = least(MELIUS_BLOCK, outputs - output);
        int p = 0;
#if LANES > 1
        const float *own_bias = bias == NULL ? NULL : bias + output;
        for (; lanes == MELIUS_BLOCK && p + MELIUS_PIXELS <= many; p += MELIUS_PIXELS) {
            pointwise_tile(pixels + p * apart, MELIUS_PIXELS, apart, weights, inputs, order, own_bias,
                           out + p * out_apart + output, out_apart);
        }
        for (; lanes == MELIUS_BLOCK && p < many; p++) {
            pointwise_tile(pixels + p * apart, 1, apart, weights, inputs, order, own_bias, out + p * out_apart + output,
                           out_apart);
        }
#endif
        for (; p < many; p++) {
            for (int lane = 0; lane < lanes; lane++) {
                float sum = 0.0f;
                for (int i = 0; i < inputs; i++) {
                    sum = FMA(pixels[p * apart + (order == NULL ? i : (int)order[i])], weights[i * lanes + lane], sum);
                }
                out[p * out_apart + output + lane] = sum + (bias == NULL ? 0.0f : bias[output + lane]);
            }
        }
        weights += (size_t)inputs * (size_t)lanes;
    }
}

/* The classifier: of `inputs` floats, which are in `scratch` and may be lost. Of 8 bits they become whole numbers of
 * 1 / `inverse`, and a sum counts `steps` of its class. */
INLINE void linear(const float *values, int inputs, const melius_value *weights, const float *steps, const float *bias,
                   float inverse, int outputs, float *logits, float *scratch)
{
#if MELIUS_INT8
    int8_t *seen = (int8_t *)(void *)scratch; /* from the first on: no value is written over before it is read */
    for (int i = 0; i < inputs; i++) {
        float value = values[i];
        seen[i] = (int8_t)nearest(FMA(value, inverse, 0.0f));
    }
    for (int output = 0; output < outputs; output++, weights += inputs) {
        int32_t sum = 0;
        for (int i = 0; i < inputs; i++) {
            sum += weights[i] * seen[i];
        }
        logits[output] = FMA((float)sum, steps[output], bias[output]);
    }
#else
    (void)steps, (void)inverse, (void)scratch;
    pointwise(values, 1, inputs, weights, inputs, outputs, NULL, bias, logits, outputs);
#endif
}
