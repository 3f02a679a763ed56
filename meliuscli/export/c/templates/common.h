/* What the network is made of. Private to the library; NAME.h is its interface. */
#ifndef MELIUS_KERNELS_H
#define MELIUS_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Output channels whose weights lie side by side: a tap of 16 channels, then the next tap. The last block of a layer may
 * be narrower. */
#define MELIUS_BLOCK 16
/* Pixels that a float 1x1 convolution takes at a time. */
#define MELIUS_PIXELS 8
/* Layers of a stem at most: the image, three convolutions, pooling. */
#define MELIUS_STEM_LAYERS 5

/* Weights of stem and head, and what lies between a stem's layers: floats, or whole numbers of 8 bits. */
#define MELIUS_INT8 @INT8@
#if MELIUS_INT8
typedef int8_t melius_value;
#else
typedef float melius_value;
#endif

/* A convolution of planes: weights (outputs, inputs a group, kernel, kernel), its batch norm folded into them; its first window
 * begins `before` rows and columns outside of the map. Of 8 bits: what comes out is the sum times `scale` plus `bias`. */
typedef struct {
    const melius_value *weights;
    const float *scale, *bias;
    int inputs, outputs, groups, kernel, stride, before, relu;
} melius_plane_conv;

/* A stem: convolutions, then 3x3 max pooling of stride 2 where it pools, `pool_before` outside of the map; what is NULL is not done. Of every layer, and of the
 * image, only the rows that the next layer sees are there: (channels, slots, parities, row), row r in slot r modulo the slots. Two parities are
 * the even and the odd columns, for a convolution of stride 2. */
typedef struct {
    const melius_plane_conv *convs;
    int num_convs, pools, pool_before, channels, size, out_size;
    const float *scale, *shift;         /* of the image */
    const float *out_scale, *out_shift; /* behind the pooling */
    const float *thresholds;            /* of the signs, where there are signs alone */
    const uint32_t *flips;
} melius_stem;

void melius_run_stem(const melius_stem *stem, const float *image, float *out, uint32_t *bits, float *scratch);

