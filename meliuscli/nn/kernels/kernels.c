/* What a dense stage does beside its convolutions, one pass over memory each; __init__.py compiles it.
 *
 * Maps are rows of channels (NHWC): `rows` pixels, `ld` elements from a row to the next. Sums are formed in CHUNKS
 * parts of rows whatever the number of threads, so that results do not depend on it. Each kernel is compiled once for a
 * type of element: ELEMENT in memory, REAL in arithmetic. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define CHUNKS 16
#define BLOCK 32
#define JOIN_(name, suffix) name##_##suffix
#define JOIN(name, suffix) JOIN_(name, suffix)
#define FN(name) JOIN(name, SUFFIX)
#define FOR_CHUNKS                                                                                                     \
    _Pragma("omp parallel for num_threads(threads) schedule(static)") for (long chunk = 0; chunk < CHUNKS; chunk++)
#define FOR_CHANNELS _Pragma("omp simd") for (long c = 0; c < channels; c++)
#define PIECE 128 /* pixels that `direct` works on at a time */
#define FIRST (rows * chunk / CHUNKS)
#define LAST (rows * (chunk + 1) / CHUNKS)

static inline float bf16_load(const uint16_t *p) {
    uint32_t u = (uint32_t)*p << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t bf16_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
static inline float bf16_round(float f) {
    uint16_t u = bf16_of(f);
    return bf16_load(&u);
}

#include "popcount.h"

/* `direct` is written for vectors of this many bytes, where the processor has them; `direct_vector_bytes` is 0 where it
 * has none, and the kernel is then not called. */
#if defined(__AVX512F__)
#define VECTOR_BYTES 64
#define IN_REGISTER(v) __asm__("" : "+v"(v)) /* compilers would load it again for every product */
int direct_vector_bytes(void) { return VECTOR_BYTES; }
#elif defined(__AVX2__) && defined(__FMA__)
#define VECTOR_BYTES 32
#define IN_REGISTER(v) __asm__("" : "+x"(v))
int direct_vector_bytes(void) { return VECTOR_BYTES; }
#else
#define VECTOR_BYTES 32
#define IN_REGISTER(v) (void)(v)
int direct_vector_bytes(void) { return 0; }
#endif

/* Whether the processor multiplies bfloat16, which torch's own gradients then use, and faster. */
#ifdef __AVX512BF16__
int has_bf16(void) { return 1; }
#else
int has_bf16(void) { return 0; }
#endif

#define ELEMENT float
#define REAL float
#define SUFFIX f32
#define LOAD(p) (*(p))
#define STORE(p, v) (*(p) = (v))
#define ROUND(v) (v)
#include "stage.h"
#include "direct.h"
#include "tiles.h"
#include "xnor.h"
#undef ELEMENT
#undef REAL
#undef SUFFIX
#define ELEMENT double
#define REAL double
#define SUFFIX f64
#include "stage.h"
#include "direct.h"
#include "tiles.h"
#include "xnor.h"
#undef ELEMENT
#undef REAL
#undef SUFFIX
#undef LOAD
#undef STORE
#undef ROUND
#define ELEMENT uint16_t
#define REAL float
#define SUFFIX bf16
#define LOAD bf16_load
#define STORE(p, v) (*(p) = bf16_of(v))
#define ROUND bf16_round
#include "stage.h"
#include "direct.h"
#include "tiles.h"
#include "xnor.h"
