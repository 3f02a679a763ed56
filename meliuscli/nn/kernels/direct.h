/* Both gradients of a binary 3x3 convolution with few outputs, a few lines of the map and a few vectors of channels at a
 * time: the gradient of the input goes on through sign and batch norm's scale while it is in the cache.
 *
 * `fed` holds the lines of the outputs' gradient that the pixels of these lines feed, with zeros around. Channels and
 * outputs are padded to whole vectors and quads. */
typedef REAL FN(vec) __attribute__((vector_size(VECTOR_BYTES), may_alias));
#define WIDTH ((long)(VECTOR_BYTES / sizeof(REAL)))
#define AT(p) (*(FN(vec) *)(p))

/* Sizes of a piece of work: `line` is the distance of lines in `fed`, `stride` that of lines in pixels. */
typedef struct {
    long lines, width, stride, line, outputs, wide, dilation;
} FN(piece);

static inline const REAL *FN(tap_of)(const REAL *fed, const FN(piece) *s, long tap) {
    return fed + tap / 3 * s->dilation * s->line + tap % 3 * s->dilation * s->outputs;
}

/* grads[pixel][channel] = sum over taps and outputs of fed * weights, for `num` (a constant) pixels and `vectors`. */
static inline __attribute__((always_inline)) void FN(to_inputs)(REAL *grads, const REAL *fed, const REAL *weights,
                                                                const FN(piece) *s, const int num, const int vectors) {
    long outputs = s->outputs, wide = s->wide;
    FN(vec) sums[8][3], w[3];
    for (int p = 0; p < num; p++)
        for (int v = 0; v < vectors; v++)
            sums[p][v] = (FN(vec)){0};
    for (long tap = 0; tap < 9; tap++) {
        const REAL *f = FN(tap_of)(fed, s, tap);
        for (long o = 0; o < outputs; o++, weights += wide) {
            for (int v = 0; v < vectors; v++) {
                w[v] = AT(weights + v * WIDTH);
                IN_REGISTER(w[v]);
            }
            for (int p = 0; p < num; p++)
                for (int v = 0; v < vectors; v++)
                    sums[p][v] += w[v] * f[p * outputs + o];
        }
    }
    for (int p = 0; p < num; p++)
        for (int v = 0; v < vectors; v++)
            AT(grads + (p * vectors + v) * WIDTH) = sums[p][v];
}

/* sums[output][channel] += fed * bits over the pixels of a piece, for `num` (a constant) outputs and `vectors`. */
static inline __attribute__((always_inline)) void FN(to_weights)(REAL *sums, const REAL *fed, const REAL *bits,
                                                                 const FN(piece) *s, const int num,
                                                                 const int vectors) {
    FN(vec) acc[8][3], b[3];
    long outputs = s->outputs, wide = s->wide;
    for (int o = 0; o < num; o++)
        for (int v = 0; v < vectors; v++)
            acc[o][v] = AT(sums + o * wide + v * WIDTH);
    for (long y = 0; y < s->lines; y++) {
        const REAL *f = fed + y * s->line, *from = bits + y * s->stride * vectors * WIDTH;
        for (long p = 0; p < s->width; p++, f += outputs, from += vectors * WIDTH) {
            for (int v = 0; v < vectors; v++) {
                b[v] = AT(from + v * WIDTH);
                IN_REGISTER(b[v]);
            }
            for (int o = 0; o < num; o++)
                for (int v = 0; v < vectors; v++)
                    acc[o][v] += b[v] * f[o];
        }
    }
    for (int o = 0; o < num; o++)
        for (int v = 0; v < vectors; v++)
            AT(sums + o * wide + v * WIDTH) = acc[o][v];
}

/* Both for a piece and `vectors` (a constant) of channels; maps are (pixel, vectors). */
static inline __attribute__((always_inline)) void FN(both)(REAL *grads, REAL *sums, const REAL *fed, const REAL *bits,
                                                           const REAL *weights, const FN(piece) *s, const int vectors) {
    const int num = vectors == 1 ? 8 : 4;
    for (long y = 0; y < s->lines; y++)
        for (long p = 0; p < s->width; p += num)
            FN(to_inputs)(grads + (y * s->stride + p) * vectors * WIDTH, fed + y * s->line + p * s->outputs, weights, s,
                          num, vectors);
    const int quads = vectors == 1 && s->outputs % 8 == 0 ? 2 : 1;
    for (long tap = 0; tap < 9; tap++)
        for (long o = 0; o < s->outputs; o += 4 * quads) {
            const REAL *f = FN(tap_of)(fed, s, tap) + o;
            REAL *to = sums + (tap * s->outputs + o) * s->wide;
            if (vectors == 1 && quads == 2)
                FN(to_weights)(to, f, bits, s, 8, vectors);
            else
                FN(to_weights)(to, f, bits, s, 4, vectors);
        }
}

/* The lines of `grad` from `top` - dilation on, of an image that starts at row `image` of the map. */
static void FN(feed)(REAL *restrict fed, const ELEMENT *restrict grad, const FN(piece) *s, long image, long top,
                     long height, long outputs) {
    for (long y = 0; y < s->lines + 2 * s->dilation; y++) {
        REAL *restrict f = fed + y * s->line + s->dilation * s->outputs;
        long from = top + y - s->dilation;
        const ELEMENT *restrict g = grad + (image + from) * s->width * outputs;
        if (from < 0 || from >= height)
            memset(f, 0, s->width * s->outputs * sizeof(REAL));
        else if (outputs == s->outputs)
            for (long i = 0; i < s->width * outputs; i++)
                f[i] = LOAD(g + i);
        else
            for (long p = 0; p < s->width; p++)
                for (long o = 0; o < outputs; o++)
                    f[p * s->outputs + o] = LOAD(g + p * outputs + o);
    }
}

/* As `accumulate`, the gradient being that of the input of a convolution. `grad` is (rows, outputs) its result's;
 * weights[tap][output][channel], the last tap first, are padded to `padded` outputs and `wide` channels; grad_weights,
 * (CHUNKS, tap, output, channel) as they are, get sums of gradients times bits. */
int FN(direct)(REAL *restrict to, long ld_to, const ELEMENT *restrict grad, long outputs, const ELEMENT *restrict x,
               long ld, const REAL *restrict scale, const REAL *restrict shift, const REAL *restrict mean,
               const REAL *restrict gamma, REAL clip, REAL *restrict parts, const REAL *restrict weights,
               REAL *restrict grad_weights, long padded, long wide, long batch, long height, long width, long dilation,
               long all, int threads) {
    long most = width < PIECE ? PIECE / width : 1, stride = (width + 7) / 8 * 8;
    long line = (stride + 2 * dilation) * padded;
    most = most < height ? most : height;
    long per_image = (height + most - 1) / most, rows = batch * per_image;
    /* Whole vectors, so that every part of the scratch is aligned. */
    long num_fed = ((most + 2 * dilation) * line + WIDTH - 1) / WIDTH * WIDTH, num_map = most * stride * 3 * WIDTH;
    long num = num_fed + 2 * num_map;
    int failed = 0;
    FOR_CHUNKS {
        REAL *fed = aligned_alloc(VECTOR_BYTES, num * sizeof(REAL)), *bits = fed + num_fed, *grads = bits + num_map;
        if (!fed) {
            failed = 1; /* every thread that writes writes this */
            continue;
        }
        memset(fed, 0, num * sizeof(REAL));
        for (long row = FIRST; row < LAST; row++) {
            long image = row / per_image * height, top = row % per_image * most;
            FN(piece) s = {height - top < most ? height - top : most, width, stride, line, padded, wide, dilation};
            FN(feed)(fed, grad, &s, image, top, height, outputs);
            for (long first = 0, vectors; first < all; first += vectors * WIDTH) {
                long left = (wide - first) / WIDTH, channels = all - first;
                vectors = left == 4 || left == 2 ? 2 : left == 1 ? 1 : 3;
                channels = channels < vectors * WIDTH ? channels : vectors * WIDTH;
                for (long y = 0; y < s.lines; y++)
                    for (long p = 0; p < width; p++) {
                        const ELEMENT *restrict v = x + ((image + top + y) * width + p) * ld + first;
                        REAL *restrict b = bits + (y * stride + p) * vectors * WIDTH;
                        FOR_CHANNELS b[c] = LOAD(v + c) * scale[first + c] + shift[first + c] >= 0;
                    }
                REAL *sums = grad_weights + chunk * 9 * padded * wide + first, *dots = parts + 2 * all * chunk + first;
                if (vectors == 1)
                    FN(both)(grads, sums, fed, bits, weights + first, &s, 1);
                else if (vectors == 2)
                    FN(both)(grads, sums, fed, bits, weights + first, &s, 2);
                else
                    FN(both)(grads, sums, fed, bits, weights + first, &s, 3);
                for (long y = 0; y < s.lines; y++)
                    for (long p = 0; p < width; p++) {
                        long pixel = (image + top + y) * width + p;
                        FN(pass_back)(to + pixel * ld_to + first, x + pixel * ld + first, scale + first, shift + first,
                                      mean + first, gamma + first, clip, dots, dots + all, 0,
                                      grads + (y * stride + p) * vectors * WIDTH, channels);
                    }
            }
        }
        free(fed);
    }
    return failed;
}
#undef WIDTH
#undef AT
