/* Thresholds of whole numbers. */
typedef @LEVEL@ melius_level;

/* 2x2 average pooling where it pools, of what is there at an odd edge; a slope of 0.1 outside of [-1, 1] where it clips; and a
 * float 1x1 convolution where there are weights. */
typedef struct {
    const float *weights, *bias;
    int inputs, outputs, pools, clips, size, out_size;
} melius_shortcut;

/* A float convolution with zeros outside of the map; added to what is there where it adds, then ReLU. */
typedef struct {
    const float *weights, *bias;
    int inputs, outputs, kernel, stride, size, out_size, relu, adds;
} melius_float_conv;

/* A binary convolution of packed signs, pixel by pixel; `pad_value` -1 or 1 stands for the signs outside of the map, and with
 * 0 they do not count. With `steps` its input is the image, in whole multiples of 1 / `steps`. Behind it 2x2 max pooling where
 * it pools, to `out_size`; then signs, by thresholds of whole numbers, or floats: `scale` times the number plus `shift`, ReLU,
 * added to what is there, RPReLU. `lowest`: what is flipped is the lowest of its window. `counts_equal`: the number is that of
 * equal signs, not their dot product. */
typedef struct {
    const uint32_t *weights;
    const melius_level *thresholds;
    const uint32_t *flips;
    const float *scale, *shift;
    const float *gamma, *slope, *zeta;
    int channels, outputs, kernel, stride, padding, pad_value, size, out_size;
    int pools, lowest, counts_equal, relu, adds, steps;
} melius_binary;

/* ReLU, the mean over all pixels where it averages, a linear layer; of 8 bits as `linear` in kernels.c. */
typedef struct {
    const melius_value *weights;
    const float *steps, *bias;
    int channels, pixels, outputs, relu, averages;
    float weight, inverse;
} melius_head;

void melius_run_signs(const float *reals, const float *thresholds, const uint32_t *flips, int channels, int pixels,
                      uint32_t *bits);
void melius_run_shortcut(const melius_shortcut *step, const float *reals, float *out, float *scratch);
void melius_run_float_conv(const melius_float_conv *layer, const float *reals, float *out);
void melius_run_binary(const melius_binary *layer, const uint32_t *signs, uint32_t *bits, float *reals, int number,
                       melius_watch watch, void *context);
void melius_run_pixels(const melius_binary *layer, const float *image, uint32_t *bits, int8_t *scratch, int number,
                       melius_watch watch, void *context);
void melius_run_head(const melius_head *head, const float *reals, float *logits, float *scratch);

