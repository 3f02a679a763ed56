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
