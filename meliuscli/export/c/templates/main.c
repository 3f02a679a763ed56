/* A program around the library: without arguments it runs the test vectors; with files it says what is on them.
 *
 * A file is an image in PGM or PPM (binary, 8 bits, of the network's size), or float32 images as the network takes them, one
 * behind the other (.f32): of these a line each is printed, the class and a checksum of all whole numbers. */
#include "NAME.h"
#include "vectors.h"

#include <stdio.h>
#include <string.h>

#define PIXELS (MELIUS_INPUT_SIZE * MELIUS_INPUT_SIZE)

static melius_cell arena[MELIUS_ARENA_BYTES / sizeof(melius_cell)];
static float image[MELIUS_INPUT_CHANNELS * PIXELS];
static float logits[MELIUS_CLASSES];
static uint32_t sums[MELIUS_UNITS > 0 ? MELIUS_UNITS : 1];

/* A checksum in which every value and its place count. */
static void add_value(uint32_t *sum, uint32_t index, uint32_t value)
{
    *sum += (value + 1u) * (index * 2654435761u + 1u);
}

static void watch(void *context, int unit, uint32_t first, const melius_count *counts, int channels)
{
    uint32_t *own = (uint32_t *)context + unit;
    for (int c = 0; c < channels; c++) {
        add_value(own, first + (uint32_t)c, (uint32_t)counts[c]);
    }
}

static uint32_t float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits == 0x80000000u ? 0 : bits; /* both zeros are one */
}

static int run(uint32_t *logits_sum)
{
    int best = 0;
    *logits_sum = 0;
    memset(sums, 0, sizeof sums);
    melius_run_watched(image, logits, arena, watch, sums);
    for (int c = 0; c < MELIUS_CLASSES; c++) {
        best = logits[c] > logits[best] ? c : best;
        add_value(logits_sum, (uint32_t)c, float_bits(logits[c]));
    }
    return best;
}

/* A pixel between -2 and 2 that depends on nothing but the seed and its index. */
static float noise(uint32_t seed, uint32_t index)
{
    uint32_t x = seed + index * 2654435761u;
    x = (x ^ (x >> 16)) * 0x85ebca6bu;
    x = (x ^ (x >> 13)) * 0xc2b2ae35u;
    x ^= x >> 16;
    return (float)((int32_t)(x >> 8) - 8388608) / 4194304.0f;
}

static int run_vectors(void)
{
    int wrong = 0;
    for (int v = 0; v < MELIUS_VECTORS; v++) {
        uint32_t logits_sum;
        int top1, differ = 0;
        for (int i = 0; i < MELIUS_INPUT_CHANNELS * PIXELS; i++) {
            image[i] = noise(melius_vectors[v].seed, (uint32_t)i);
        }
        top1 = run(&logits_sum);
        for (int unit = 0; unit < MELIUS_UNITS; unit++) {
            differ += sums[unit] != melius_vectors[v].units[unit];
        }
        printf("vector %d: class %d, %d of %d binary layers equal, logits %s\n", v, top1, MELIUS_UNITS - differ, MELIUS_UNITS,
               logits_sum == melius_vectors[v].logits ? "equal" : "differ");
        wrong += differ != 0 || top1 != melius_vectors[v].top1 || logits_sum != melius_vectors[v].logits;
    }
    printf(wrong == 0 ? "all %d vectors are as expected\n" : "of %d vectors, some differ\n", MELIUS_VECTORS);
    return wrong != 0;
}

/* A whole number of a PGM's or PPM's head, behind spaces and comments; -1 where there is none. */
static int head_number(FILE *file)
{
    int c = getc(file), number = 0, digits = 0;
    while (c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == '#') {
        if (c == '#') {
            while (c != '\n' && c != EOF) {
                c = getc(file);
            }
        }
        c = getc(file);
    }
    for (; c >= '0' && c <= '9' && digits < 6; c = getc(file), digits++) {
        number = 10 * number + (c - '0');
    }
    return digits > 0 ? number : -1;
}

/* The bytes of an image, normalised as in training. */
static int read_image(FILE *file, int channels)
{
    int width = head_number(file), height = head_number(file), highest = head_number(file);
    if (!MELIUS_IS_NORMALISED) {
        fprintf(stderr, "nobody recorded how images are normalised for this network\n");
        return 0;
    }
    if (channels != MELIUS_INPUT_CHANNELS || width != MELIUS_INPUT_SIZE || height != MELIUS_INPUT_SIZE || highest != 255) {
        fprintf(stderr, "an image of %d channel(s) and %dx%d is needed, with values up to 255\n", MELIUS_INPUT_CHANNELS,
                MELIUS_INPUT_SIZE, MELIUS_INPUT_SIZE);
        return 0;
    }
    for (int i = 0; i < PIXELS; i++) {
        for (int c = 0; c < MELIUS_INPUT_CHANNELS; c++) {
            int byte = getc(file);
            if (byte == EOF) {
                fprintf(stderr, "the image is cut off\n");
                return 0;
            }
            image[c * PIXELS + i] = ((float)byte / 255.0f - melius_mean[c]) / melius_deviation[c];
        }
    }
    return 1;
}

static void print_best(void)
{
    for (int rank = 0; rank < 5 && rank < MELIUS_CLASSES; rank++) {
        int best = 0;
        for (int c = 0; c < MELIUS_CLASSES; c++) {
            best = logits[c] > logits[best] ? c : best;
        }
        printf("%d. %s (logit %.3f)\n", rank + 1, melius_class_names[best], (double)logits[best]);
        logits[best] = -3.0e38f;
    }
}

static int run_file(const char *name)
{
    FILE *file = fopen(name, "rb");
    int first, second, failed = 0;
    uint32_t logits_sum;
    if (file == NULL) {
        fprintf(stderr, "%s: cannot be opened\n", name);
        return 1;
    }
    first = getc(file);
    second = getc(file);
    if (first == 'P' && (second == '5' || second == '6')) {
        failed = !read_image(file, second == '5' ? 1 : 3);
        if (!failed) {
            run(&logits_sum);
            print_best();
        }
    } else {
        rewind(file);
        while (fread(image, sizeof image, 1, file) == 1) {
            uint32_t all = 0;
            int top1 = run(&logits_sum);
            for (int unit = 0; unit < MELIUS_UNITS; unit++) {
                add_value(&all, (uint32_t)unit, sums[unit]);
            }
            printf("%d %08lx %08lx\n", top1, (unsigned long)all, (unsigned long)logits_sum);
        }
    }
    fclose(file);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    if (argc < 2) {
        return run_vectors();
    }
    for (int i = 1; i < argc; i++) {
        failed |= run_file(argv[i]);
    }
    return failed;
}
