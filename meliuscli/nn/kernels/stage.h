/* Moments, signs and gradients of maps. */

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
