/* The map of a stage: pixel by pixel `floats` float channels, and apart from them `counts` channels of whole numbers. */
typedef struct {
    float *floats;
    melius_count *counts;
    int size, num_floats, num_counts;
} melius_map;

/* Batch norm, sign and a binary convolution of the first channels of a map, written behind them or added to the last.
 * Bit c of word c / 32 is set where the sign is +1; outside of the map all signs are -1. */
typedef struct {
    const uint32_t *weights;
    const float *float_thresholds;
    const melius_count *count_thresholds;
    const uint32_t *flips;
    int channels, outputs, dilation, adds;
} melius_unit;

/* Batch norm, 2x2 max pooling where it pools, ReLU, and a float 1x1 convolution in groups; `order` says which channel each
 * input is (NULL: its own). */
typedef struct {
    const float *scale, *shift, *weights;
    const uint16_t *order;
    int inputs, outputs, groups, pools;
} melius_transition;

/* Batch norm, ReLU, the mean over all pixels, a linear layer; of 8 bits as `linear` in kernels.c. */
typedef struct {
    const float *scale, *shift;
    const melius_value *weights;
    const float *steps, *bias;
    int inputs, outputs;
    float weight, inverse;
} melius_head;

void melius_run_unit(const melius_unit *unit, const melius_map *map, uint32_t *scratch);
void melius_run_transition(const melius_transition *step, const melius_map *map, float *out, float *scratch);
void melius_run_head(const melius_head *head, const melius_map *map, float *logits, float *scratch);

