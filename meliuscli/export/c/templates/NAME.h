/* @TITLE@
 *
 * Made by meliuscli @VERSION@ from @ARCHID@; do not edit. */
#ifndef MELIUS_H
#define MELIUS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define MELIUS_INPUT_CHANNELS @CHANNELS@
#define MELIUS_INPUT_SIZE @SIZE@
#define MELIUS_CLASSES @CLASSES@
/* Binary convolutions. */
#define MELIUS_UNITS @UNITS@
/* Memory that a run needs besides the image, the logits and its stack. */
#define MELIUS_ARENA_BYTES @ARENA@
#define MELIUS_COUNT_BITS @COUNT_BITS@

/* @COUNTS@ */
typedef @COUNT@ melius_count;

/* What the arena is made of: `melius_cell arena[MELIUS_ARENA_BYTES / sizeof(melius_cell)];` */
typedef union {
    float real;
    uint32_t word;
} melius_cell;

/* Told of what a binary convolution counts: its number, and `channels` neighbouring values, the first of which has the place
 * `first` among all of the convolution (pixel by pixel, channels of a pixel side by side). */
typedef void (*melius_watch)(void *context, int unit, uint32_t first, const melius_count *counts, int channels);

/* One image, (channels, height, width) of normalised floats, to one logit a class. What is in the arena before does not
 * matter; a second call at the same time needs an arena of its own. */
void melius_run(const float *image, float *logits, melius_cell *arena);

/* The same; `watch` may be NULL. */
void melius_run_watched(const float *image, float *logits, melius_cell *arena, melius_watch watch, void *context);

#ifdef __cplusplus
}
#endif
#endif
