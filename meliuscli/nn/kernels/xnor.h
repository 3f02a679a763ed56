/* Signs as bits of words, and the convolution that counts them. */

/* The signs of x * scale + shift as words of 32 bits, channel 32 i + j at bit j of word i. The last channels, from `old`
 * on, come from `fresh`. */
int FN(pack)(uint32_t *restrict to, long words, const ELEMENT *restrict x, long ld, const ELEMENT *restrict fresh,
             long old, const REAL *restrict scale, const REAL *restrict shift, long rows, long all, int threads) {
    FOR_CHUNKS {
        uint8_t flags[32 * words];
        memset(flags, 0, 32 * words);
        for (long row = FIRST; row < LAST; row++) {
            const ELEMENT *restrict v = x + row * ld, *restrict f = fresh + row * (all - old) - old;
            long channels = old;
            FOR_CHANNELS flags[c] = LOAD(v + c) * scale[c] + shift[c] >= 0;
            for (long c = old; c < all; c++)
                flags[c] = LOAD(f + c) * scale[c] + shift[c] >= 0;
            for (long word = 0; word < words; word++)
                to[row * words + word] = word_of(flags + 32 * word);
        }
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
