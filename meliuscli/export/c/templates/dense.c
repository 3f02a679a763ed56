static void pack_pixel(const melius_unit *unit, const float *RESTRICT reals, int num_floats,
                       const melius_count *RESTRICT counts, int num_counts, uint32_t *RESTRICT out)
{
    int num_words = (unit->channels + 31) / 32;
    memset(out, 0, (size_t)num_words * sizeof(uint32_t));
    for (int c = 0; c < num_floats;) {
        uint32_t bits = 0;
        int many = least(32, num_floats - c);
#if defined(HAS_ABOVE)
        if (many == 32) {
            bits = floats_above(reals + c, unit->float_thresholds + c);
        } else
#endif
            for (int i = 0; i < many; i++) {
                bits |= (uint32_t)(reals[c + i] >= unit->float_thresholds[c + i]) << i;
            }
        put_bits(out, c, bits);
        c += many;
    }
    for (int c = 0; c < num_counts;) {
        uint32_t bits = 0;
        int many = least(32, num_counts - c);
#if defined(HAS_ABOVE) && MELIUS_COUNT_BITS == 16
        if (many == 32) {
            bits = counts_above(counts + c, unit->count_thresholds + c);
        } else
#endif
            for (int i = 0; i < many; i++) {
                bits |= (uint32_t)(counts[c + i] >= unit->count_thresholds[c + i]) << i;
            }
        put_bits(out, num_floats + c, bits);
        c += many;
    }
    for (int word = 0; word < num_words; word++) {
        out[word] ^= unit->flips[word];
    }
}

/* Binary convolutions */

/* The windows of a row of pixels: for each row of the kernel where it begins; `runs` of `length` neighbouring words a row of
 * the kernel, `apart` words from each other. */
typedef struct {
    const uint32_t *rows[3];
    int runs, length, apart, pixel, total;
} windows;

INLINE void write_count(melius_count *out, int total, uint32_t differ, int adds)
{
    *out = (melius_count)((adds ? *out : 0u) + ((uint32_t)total - differ));
}

/* `lanes` output channels of one pixel, whose weights are `lanes` apart. */
static void count_pixel(const windows *seen, int x, const uint32_t *weights, int lanes, int adds, melius_count *out)
{
    for (int lane = 0; lane < lanes;) {
        const uint32_t *at = weights + lane;
        uint32_t sums[4] = {0, 0, 0, 0};
        int many = lanes - lane >= 4 ? 4 : 1;
        for (int ky = 0; ky < 3; ky++) {
            for (int run = 0; run < seen->runs; run++) {
                const uint32_t *word = seen->rows[ky] + (size_t)(x * seen->pixel) + (size_t)(run * seen->apart);
                for (int i = 0; i < seen->length; i++, at += lanes) {
                    sums[0] += POPCOUNT(word[i] ^ at[0]);
                    if (many == 4) {
                        sums[1] += POPCOUNT(word[i] ^ at[1]);
                        sums[2] += POPCOUNT(word[i] ^ at[2]);
                        sums[3] += POPCOUNT(word[i] ^ at[3]);
                    }
                }
            }
        }
        for (int i = 0; i < many; i++) {
            write_count(out + lane + i, seen->total, sums[i], adds);
        }
        lane += many;
    }
}

#if LANES > 1
/* A block of output channels of `pixels` neighbouring pixels. */
INLINE void count_tile(const windows *seen, int x, int pixels, const uint32_t *weights, int adds, melius_count *out,
                       int apart)
{
    words sums[8][VECTORS];
    for (int p = 0; p < pixels; p++) {
        for (int v = 0; v < VECTORS; v++) {
            sums[p][v] = zero_words();
        }
    }
    for (int ky = 0; ky < 3; ky++) {
        for (int run = 0; run < seen->runs; run++) {
            const uint32_t *word = seen->rows[ky] + (size_t)(x * seen->pixel) + (size_t)(run * seen->apart);
            for (int i = 0; i < seen->length; i++, weights += MELIUS_BLOCK) {
                words loaded[VECTORS];
                for (int v = 0; v < VECTORS; v++) {
                    loaded[v] = load_words(weights + v * LANES);
                }
                for (int p = 0; p < pixels; p++) {
                    for (int v = 0; v < VECTORS; v++) {
                        sums[p][v] = differing(sums[p][v], word[p * seen->pixel + i], loaded[v]);
                    }
                }
            }
        }
    }
    for (int p = 0; p < pixels; p++) {
        uint32_t differ[MELIUS_BLOCK];
        melius_count *to = out + (size_t)(p * apart);
        for (int v = 0; v < VECTORS; v++) {
            store_words(differ + v * LANES, sums[p][v]);
        }
        for (int lane = 0; lane < MELIUS_BLOCK; lane++) {
            write_count(to + lane, seen->total, differ[lane], adds);
        }
    }
}
#endif

static void count_row(const melius_unit *unit, const windows *seen, int width, melius_count *out, int apart)
{
    const uint32_t *weights = unit->weights;
    int taps = 3 * seen->runs * seen->length;
    for (int output = 0; output < unit->outputs; output += MELIUS_BLOCK) {
        int lanes = least(MELIUS_BLOCK, unit->outputs - output);
        for (int x = 0; x < width;) {
            melius_count *to = out + (size_t)(x * apart + output);
            int many = 1;
#if LANES > 1
            int rest = width - x;
            if (lanes == MELIUS_BLOCK && rest % 7 == 0) {
                many = 7;
                count_tile(seen, x, 7, weights, unit->adds, to, apart);
            } else if (lanes == MELIUS_BLOCK && rest >= 8) {
                many = 8;
                count_tile(seen, x, 8, weights, unit->adds, to, apart);
            } else if (lanes == MELIUS_BLOCK && rest >= 4) {
                many = 4;
                count_tile(seen, x, 4, weights, unit->adds, to, apart);
            } else
#endif
                count_pixel(seen, x, weights, lanes, unit->adds, to);
            x += many;
        }
        weights += (size_t)taps * (size_t)lanes;
    }
}

/* Of the signs only the rows that a window sees are there: row r in slot r modulo the slots, and a last row of zeros, which
 * are signs of -1, for what lies above and below. */
void melius_run_unit(const melius_unit *unit, const melius_map *map, uint32_t *scratch)
{
    int num_words = (unit->channels + 31) / 32, dilation = unit->dilation, slots = 2 * dilation + 1;
    int num_counts = unit->channels - map->num_floats, behind = num_counts - (unit->adds ? unit->outputs : 0);
    size_t row = (size_t)((map->size + 2 * dilation) * num_words), line = (size_t)map->size;
    const uint32_t *outside = scratch + (size_t)slots * row;
    windows seen = {{0, 0, 0}, 1, 3 * num_words, 0, num_words, 9 * unit->channels};
    if (dilation > 1) {
        seen.runs = 3;
        seen.length = num_words;
        seen.apart = dilation * num_words;
    }
    memset(scratch, 0, ((size_t)slots + 1) * row * sizeof(uint32_t));
    for (int y = -dilation; y < map->size; y++) {
        int packed = y + dilation;
        if (packed < map->size) {
            uint32_t *to = scratch + (size_t)(packed % slots) * row + (size_t)(dilation * num_words);
            for (size_t pixel = (size_t)packed * line; pixel < ((size_t)packed + 1) * line; pixel++, to += num_words) {
                pack_pixel(unit, map->floats + pixel * (size_t)map->num_floats, map->num_floats,
                           map->counts + pixel * (size_t)map->num_counts, num_counts, to);
            }
        }
        if (y < 0) {
            continue;
        }
        for (int ky = 0; ky < 3; ky++) {
            int there = y + (ky - 1) * dilation;
            seen.rows[ky] = there < 0 || there >= map->size ? outside : scratch + (size_t)(there % slots) * row;
        }
        count_row(unit, &seen, map->size, map->counts + (size_t)y * line * (size_t)map->num_counts + (size_t)behind,
                  map->num_counts);
    }
}

/* Where batch norm of a pixel is larger than what is there, it takes its place. */
static void raise_to_norm(const melius_map *map, size_t pixel, const float *RESTRICT scale, const float *RESTRICT shift,
                          float *RESTRICT out)
{
    const float *reals = map->floats + pixel * (size_t)map->num_floats;
    const melius_count *counts = map->counts + pixel * (size_t)map->num_counts;
    for (int c = 0; c < map->num_floats; c++) {
        float value = FMA(reals[c], scale[c], shift[c]);
        out[c] = value > out[c] ? value : out[c];
    }
    scale += map->num_floats;
    shift += map->num_floats;
    out += map->num_floats;
    for (int c = 0; c < map->num_counts; c++) {
        float value = FMA((float)counts[c], scale[c], shift[c]);
        out[c] = value > out[c] ? value : out[c];
    }
}

void melius_run_transition(const melius_transition *step, const melius_map *map, float *out, float *scratch)
{
    int stride = step->pools ? 2 : 1, size = map->size / stride, inputs = step->inputs / step->groups;
    int outputs = step->outputs / step->groups;
    for (int y = 0; y < size; y++) {
        for (int x = 0; x < size; x += MELIUS_PIXELS) {
            int many = least(MELIUS_PIXELS, size - x);
            for (int p = 0; p < many; p++) {
                float *pooled = scratch + (size_t)p * (size_t)step->inputs;
                memset(pooled, 0, (size_t)step->inputs * sizeof(float));
                for (int place = 0; place < stride * stride; place++) {
                    int row = y * stride + place / stride, column = (x + p) * stride + place % stride;
                    raise_to_norm(map, (size_t)row * (size_t)map->size + (size_t)column, step->scale, step->shift, pooled);
                }
            }
            for (int group = 0; group < step->groups; group++) {
                const float *own = scratch + (step->order == NULL ? group * inputs : 0);
                pointwise(own, many, step->inputs, step->weights + (size_t)group * (size_t)(outputs * inputs), inputs,
                          outputs, step->order == NULL ? NULL : step->order + group * inputs, NULL,
                          out + ((size_t)y * (size_t)size + (size_t)x) * (size_t)step->outputs + (size_t)(group * outputs),
                          step->outputs);
            }
        }
    }
}

void melius_run_head(const melius_head *head, const melius_map *map, float *logits, float *scratch)
{
    float *normed = scratch + head->inputs;
    memset(scratch, 0, (size_t)head->inputs * sizeof(float));
    for (size_t pixel = 0; pixel < (size_t)map->size * (size_t)map->size; pixel++) {
        memset(normed, 0, (size_t)head->inputs * sizeof(float));
        raise_to_norm(map, pixel, head->scale, head->shift, normed);
        for (int c = 0; c < head->inputs; c++) {
            scratch[c] += normed[c];
        }
    }
    for (int c = 0; c < head->inputs; c++) {
        scratch[c] *= head->weight;
    }
    linear(scratch, head->inputs, head->weights, head->steps, head->bias, head->inverse, head->outputs, logits, scratch);
}
