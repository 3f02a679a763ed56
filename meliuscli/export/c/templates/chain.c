
void melius_run_signs(const float *reals, const float *thresholds, const uint32_t *flips, int channels, int pixels,
                      uint32_t *bits)
{
    for (int pixel = 0; pixel < pixels; pixel++, reals += channels, bits += (channels + 31) / 32) {
        sign_pixel(reals, thresholds, flips, channels, bits);
    }
}

/* Shortcuts */

/* The mean of a 2x2 window, or of what of it lies in the map. */
static void average_pixel(const melius_shortcut *step, const float *reals, int row, int column, float *RESTRICT out)
{
    int many = 0;
    memset(out, 0, (size_t)step->inputs * sizeof(float));
    for (int y = 2 * row; y < least(2 * row + 2, step->size); y++) {
        for (int x = 2 * column; x < least(2 * column + 2, step->size); x++, many++) {
            const float *pixel = reals + ((size_t)y * (size_t)step->size + (size_t)x) * (size_t)step->inputs;
            for (int c = 0; c < step->inputs; c++) {
                out[c] += pixel[c];
            }
        }
    }
    for (int c = 0; c < step->inputs; c++) {
        out[c] *= 1.0f / (float)many;
    }
}

/* As it is inside of [-1, 1], with a slope of 0.1 outside. */
static void clip_pixel(const melius_shortcut *step, const float *pixel, float *RESTRICT out)
{
    for (int c = 0; c < step->inputs; c++) {
        float inside = pixel[c] < -1.0f ? -1.0f : pixel[c] > 1.0f ? 1.0f : pixel[c];
        out[c] = FMA(pixel[c] - inside, 0.1f, inside);
    }
}

void melius_run_shortcut(const melius_shortcut *step, const float *reals, float *out, float *scratch)
{
    for (int y = 0; y < step->out_size; y++) {
        for (int x = 0; x < step->out_size; x += MELIUS_PIXELS) {
            int many = least(MELIUS_PIXELS, step->out_size - x), is_made = step->pools || step->clips;
            size_t first = (size_t)y * (size_t)step->out_size + (size_t)x;
            const float *pixels = is_made ? scratch : reals + first * (size_t)step->inputs;
            float *made = step->weights == NULL ? out + first * (size_t)step->outputs : scratch;
            for (int p = 0; is_made && p < many; p++, made += step->inputs) {
                if (step->pools) {
                    average_pixel(step, reals, y, x + p, made);
                } else {
                    clip_pixel(step, reals + (first + (size_t)p) * (size_t)step->inputs, made);
                }
            }
            if (step->weights == NULL) {
                continue;
            }
            pointwise(pixels, many, step->inputs, step->weights, step->inputs, step->outputs, NULL, step->bias,
                      out + first * (size_t)step->outputs, step->outputs);
        }
    }
}

/* Float convolutions */

/* Of up to 16 output channels at a pixel: a tap after the other, all channels of each. */
static void sum_window(const melius_float_conv *layer, const float *reals, int row, int column, const float *weights,
                       const float *bias, int lanes, float *RESTRICT out)
{
    float sums[MELIUS_BLOCK] = {0};
#if LANES > 1
    floats vectors[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        vectors[v] = lanes == MELIUS_BLOCK ? load_floats(bias + v * LANES) : splat(0.0f);
    }
#endif
    memcpy(sums, bias, (size_t)lanes * sizeof(float));
    for (int tap = 0; tap < layer->kernel * layer->kernel; tap++, weights += layer->inputs * lanes) {
        int y = row + tap / layer->kernel, x = column + tap % layer->kernel;
        const float *pixel = reals;
        if (y < 0 || y >= layer->size || x < 0 || x >= layer->size) {
            continue;
        }
        pixel += ((size_t)y * (size_t)layer->size + (size_t)x) * (size_t)layer->inputs;
        for (int i = 0; i < layer->inputs; i++) {
            const float *at = weights + (size_t)i * (size_t)lanes;
#if LANES > 1
            if (lanes == MELIUS_BLOCK) {
                for (int v = 0; v < VECTORS; v++) {
                    vectors[v] = fma_floats(splat(pixel[i]), load_floats(at + v * LANES), vectors[v]);
                }
                continue;
            }
#endif
            for (int lane = 0; lane < lanes; lane++) {
                sums[lane] = FMA(pixel[i], at[lane], sums[lane]);
            }
        }
    }
#if LANES > 1
    for (int v = 0; lanes == MELIUS_BLOCK && v < VECTORS; v++) {
        store_floats(sums + v * LANES, vectors[v]);
    }
#endif
    for (int lane = 0; lane < lanes; lane++) {
        float value = layer->adds ? sums[lane] + out[lane] : sums[lane];
        out[lane] = layer->relu && !(value > 0.0f) ? 0.0f : value;
    }
}

void melius_run_float_conv(const melius_float_conv *layer, const float *reals, float *out)
{
    int taps = layer->kernel * layer->kernel * layer->inputs;
    for (int pixel = 0; pixel < layer->out_size * layer->out_size; pixel++, out += layer->outputs) {
        int row = pixel / layer->out_size * layer->stride - layer->kernel / 2;
        int column = pixel % layer->out_size * layer->stride - layer->kernel / 2;
        for (int first = 0; first < layer->outputs; first += MELIUS_BLOCK) {
            sum_window(layer, reals, row, column, layer->weights + (size_t)first * (size_t)taps, layer->bias + first,
                       least(MELIUS_BLOCK, layer->outputs - first), out + first);
        }
    }
}

/* Binary convolutions */

/* What stands for a word of signs outside of the map. */
INLINE uint32_t outside_word(const melius_binary *layer, int word)
{
    if (layer->pad_value < 0) {
        return 0;
    }
    return word == layer->channels / 32 ? ((uint32_t)1 << layer->channels % 32) - 1u : 0xffffffffu;
}

/* The whole numbers of up to 16 output channels for the window that begins at a row and a column. */
static void count_window(const melius_binary *layer, const uint32_t *signs, int row, int column, const uint32_t *weights,
                         int lanes, melius_count *RESTRICT out)
{
    int num_words = (layer->channels + 31) / 32, kernel = layer->kernel, taps = 0;
    uint32_t differ[MELIUS_BLOCK] = {0};
#if LANES > 1
    words sums[VECTORS];
    for (int v = 0; v < VECTORS; v++) {
        sums[v] = zero_words();
    }
#endif
    for (int ky = 0; ky < kernel; ky++) {
        int is_inside = row + ky >= 0 && row + ky < layer->size;
        int first = column < 0 ? -column : 0, last = is_inside ? least(kernel, layer->size - column) : 0;
        for (int kx = 0; kx < kernel;) {
            int is_there = kx >= first && kx < last, many = is_there ? last - kx : 1;
            if (is_there || layer->pad_value != 0) {
                const uint32_t *line = signs;
                if (is_there) {
                    line += ((size_t)(row + ky) * (size_t)layer->size + (size_t)(column + kx)) * (size_t)num_words;
                }
                taps += many;
                for (int i = 0; i < many * num_words; i++) {
                    uint32_t seen = is_there ? line[i] : outside_word(layer, i);
                    const uint32_t *at = weights + (size_t)i * (size_t)lanes;
#if LANES > 1
                    if (lanes == MELIUS_BLOCK) {
                        for (int v = 0; v < VECTORS; v++) {
                            sums[v] = differing(sums[v], seen, load_words(at + v * LANES));
                        }
                        continue;
                    }
#endif
                    for (int lane = 0; lane < lanes; lane++) {
                        differ[lane] += POPCOUNT(seen ^ at[lane]);
                    }
                }
            }
            weights += (size_t)(many * num_words) * (size_t)lanes;
            kx += many;
        }
    }
#if LANES > 1
    for (int v = 0; lanes == MELIUS_BLOCK && v < VECTORS; v++) {
        store_words(differ + v * LANES, sums[v]);
    }
#endif
    for (int lane = 0; lane < lanes; lane++) {
        int many = (int)differ[lane];
        out[lane] = taps * layer->channels - (layer->counts_equal ? many : 2 * many);
    }
}

/* The same for pixels in whole numbers, which are added where a weight's bit is set, else subtracted. */
static void add_window(const melius_binary *layer, const int8_t *pixels, int row, int column, const uint32_t *weights,
                       int lanes, melius_count *RESTRICT out)
{
    int num_words = (layer->channels + 31) / 32;
    memset(out, 0, (size_t)lanes * sizeof(melius_count));
    for (int tap = 0; tap < layer->kernel * layer->kernel; tap++) {
        int y = row + tap / layer->kernel, x = column + tap % layer->kernel;
        for (int c = 0; c < layer->channels; c++) {
            int value = pixels[((size_t)c * (size_t)layer->size + (size_t)y) * (size_t)layer->size + (size_t)x];
            const uint32_t *at = weights + (size_t)(tap * num_words + c / 32) * (size_t)lanes;
            for (int lane = 0; lane < lanes; lane++) {
                out[lane] += at[lane] >> c % 32 & 1u ? value : -value;
            }
        }
    }
}

/* Whole numbers become signs of up to 16 channels, from an even number of 16 on in a word or from an odd one. */
static void write_signs(const melius_binary *layer, const melius_count *numbers, int first, int lanes, uint32_t *word)
{
    uint32_t bits = 0;
    for (int lane = 0; lane < lanes; lane++) {
        bits |= (uint32_t)(numbers[lane] >= layer->thresholds[first + lane]) << lane;
    }
    bits <<= first % 32;
    *word = first % 32 == 0 ? bits : *word | bits;
    if (first % 32 != 0 || first + lanes == layer->outputs) {
        *word ^= layer->flips[first / 32];
    }
}

/* Or floats. */
static void write_reals(const melius_binary *layer, const melius_count *numbers, int first, int lanes, float *RESTRICT out)
{
    for (int lane = 0; lane < lanes; lane++) {
        int c = first + lane;
        float value = FMA((float)numbers[lane], layer->scale[c], layer->shift[c]);
        if (layer->relu && !(value > 0.0f)) {
            value = 0.0f;
        }
        out[lane] = layer->adds ? value + out[lane] : value;
    }
    for (int lane = 0; layer->gamma != NULL && lane < lanes; lane++) {
        int c = first + lane;
        float value = out[lane] - layer->gamma[c];
        out[lane] = FMA(value, value >= 0.0f ? 1.0f : layer->slope[c], layer->zeta[c]);
    }
}

/* All pixels of a layer, of signs or of `pixels`. */
static void run_layer(const melius_binary *layer, const uint32_t *signs, const int8_t *pixels, uint32_t *bits, float *reals,
                      int number, melius_watch watch, void *context)
{
    int window = layer->pools ? 2 : 1, width = layer->out_size * window, out_words = (layer->outputs + 31) / 32;
    size_t taps = (size_t)(layer->kernel * layer->kernel) * (size_t)((layer->channels + 31) / 32);
    for (int pixel = 0; pixel < layer->out_size * layer->out_size; pixel++) {
        const uint32_t *weights = layer->weights;
        for (int first = 0; first < layer->outputs; first += MELIUS_BLOCK) {
            int lanes = least(MELIUS_BLOCK, layer->outputs - first);
            melius_count best[MELIUS_BLOCK], numbers[MELIUS_BLOCK];
            for (int place = 0; place < window * window; place++) {
                int y = pixel / layer->out_size * window + place / window, x = pixel % layer->out_size * window + place % window;
                int row = y * layer->stride - layer->padding, column = x * layer->stride - layer->padding;
                if (pixels != NULL) {
                    add_window(layer, pixels, row, column, weights, lanes, numbers);
                } else {
                    count_window(layer, signs, row, column, weights, lanes, numbers);
                }
                if (watch != NULL) {
                    watch(context, number, (uint32_t)((y * width + x) * layer->outputs + first), numbers, lanes);
                }
                for (int lane = 0; lane < lanes; lane++) {
                    int c = first + lane, lowest = layer->lowest && (layer->flips[c / 32] >> c % 32 & 1u) != 0;
                    if (place == 0 || (lowest ? numbers[lane] < best[lane] : numbers[lane] > best[lane])) {
                        best[lane] = numbers[lane];
                    }
                }
            }
            if (bits != NULL) {
                write_signs(layer, best, first, lanes, bits + (size_t)pixel * (size_t)out_words + (size_t)(first / 32));
            } else {
                write_reals(layer, best, first, lanes, reals + (size_t)pixel * (size_t)layer->outputs + (size_t)first);
            }
            weights += taps * (size_t)lanes;
        }
    }
}

void melius_run_binary(const melius_binary *layer, const uint32_t *signs, uint32_t *bits, float *reals, int number,
                       melius_watch watch, void *context)
{
    run_layer(layer, signs, NULL, bits, reals, number, watch, context);
}

void melius_run_pixels(const melius_binary *layer, const float *image, uint32_t *bits, int8_t *scratch, int number,
                       melius_watch watch, void *context)
{
    for (int i = 0; i < layer->channels * layer->size * layer->size; i++) {
        float scaled = image[i] * (float)layer->steps, part;
        int most = layer->steps, below;
        scaled = scaled < (float)-most ? (float)-most : scaled > (float)(most - 1) ? (float)(most - 1) : scaled;
        below = (int)scaled - (scaled < (float)(int)scaled);
        part = scaled - (float)below;
        /* Of two that are as near the even one. */
        scratch[i] = (int8_t)(below + (part > 0.5f || (part == 0.5f && below % 2 != 0)));
    }
    run_layer(layer, NULL, scratch, bits, NULL, number, watch, context);
}

void melius_run_head(const melius_head *head, const float *reals, float *logits, float *scratch)
{
    int inputs = head->averages ? head->channels : head->channels * head->pixels;
    if (head->averages) {
        memset(scratch, 0, (size_t)head->channels * sizeof(float));
        for (int pixel = 0; pixel < head->pixels; pixel++, reals += head->channels) {
            for (int c = 0; c < head->channels; c++) {
                scratch[c] += head->relu && !(reals[c] > 0.0f) ? 0.0f : reals[c];
            }
        }
        for (int c = 0; c < head->channels; c++) {
            scratch[c] *= head->weight;
        }
        reals = scratch;
    }
    linear(reals, inputs, head->weights, head->steps, head->bias, head->inverse, head->outputs, logits, scratch);
}
