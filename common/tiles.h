/* What convolutions on a processor's matrix unit (AMX) share: how images are copied, and what a tap reads there.
 *
 * The unit adds up products of a tile of 16 rows of 32 values with one of 32 rows of 16. Images are copied with zeros
 * around them, row after row with a single zero between, image after image with a row of zeros between: then each tap
 * of a filter is a shift, and any 16 positions that follow each other are a tile, whatever rows they belong to. With
 * stride 2 there is one such plane for each way that a position's row and column are even or odd.
 *
 * Sums are float32, in an order that follows from the shape alone: any number of threads gives the same bits. Tasks go
 * to whichever thread is free, since a matrix unit that is shared with a neighbour may be four times slower than the
 * next one (LOG.md). Values that are no numbers spoil results where they are read, and, since zeros meet them, all taps
 * of a weight's gradient.
 */
#include "rows.h"

#include <immintrin.h>
#include <omp.h>

#define TILE 16
#define MOST_TAPS 9

/* x (images, height, width, channels) and y (images, ⌈height / stride⌉, ⌈width / stride⌉, outputs); taps (side, side),
 * side 1 or 3, the middle one over the position; weights (outputs, side, side, channels) in float32. Stride 1 or 2.
 */
typedef struct {
    size_t images, height, width, channels, outputs, side, stride;
} Shape2d;

/* Planes of `rows` × `columns` for as many images as are copied at once, in `length` positions, the first at `lead`. */
typedef struct {
    size_t rows, columns, lead, image, images, length;
} Plane;

/* A tap: how far the position that it reads lies from a position's own, in which plane, and which weight it has. */
typedef struct {
    ptrdiff_t shift;
    size_t plane, weight;
} Tap;

typedef struct {
    Tap list[MOST_TAPS];
    size_t count;
} Taps;

static inline size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static inline size_t over(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static inline bf16 *room_for(size_t values)
{
    return aligned_alloc(64, over(values * sizeof(bf16), 64) * 64);
}

static inline Plane plane_of(Shape2d s, size_t images)
{
    size_t rows = over(s.height, s.stride), columns = over(s.width, s.stride);
    size_t lead = columns + 2, image = (rows + 1) * (columns + 1);
    return (Plane){rows, columns, lead, image, images, over(lead * 2 + images * image, LANES) * LANES + LANES};
}

/* Result (i, j) reads x at (stride · i + k − side / 2, stride · j + l − side / 2) for tap (k, l). */
static inline Taps taps_of(Shape2d s, Plane plane)
{
    Taps taps = {.count = 0};
    ptrdiff_t step = (ptrdiff_t)s.stride, half = (ptrdiff_t)s.side / 2, line = (ptrdiff_t)plane.columns + 1;
    for (ptrdiff_t k = -half; k <= half; k++)
        for (ptrdiff_t l = -half; l <= half; l++) {
            ptrdiff_t a = (k + step) % step, b = (l + step) % step;
            Tap tap = {(k - a) / step * line + (l - b) / step, (size_t)(a * step + b), taps.count};
            taps.list[taps.count++] = tap;
        }
    return taps;
}

/* Tiles 0 to 5 of `rows` rows, 6 and 7 of 16. */
static inline void set_tiles(size_t rows)
{
    struct {
        uint8_t palette, start, unused[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } __attribute__((packed)) config = {.palette = 1};
    for (int tile = 0; tile < 8; tile++) {
        config.bytes[tile] = 64;
        config.rows[tile] = (uint8_t)(tile < 6 ? rows : TILE);
    }
    _tile_loadconfig(&config);
}

/* Maps (images, height, width, channels) of which every `stride`-th position lies in one plane. */
typedef struct {
    size_t height, width, channels, stride;
} Maps;

static inline size_t values_of(Maps maps)
{
    return maps.height * maps.width * maps.channels;
}

/* Where LANES channels of an image are read for a plane, from position (a, b) on. */
typedef struct {
    const bf16 *values;
    Maps maps;
    size_t a, b;
} Source;

/* One row of a plane and the zero behind it; a row past the last is all zeros. */
static inline void copy_row(Source from, size_t row, size_t columns, bf16 *restrict to)
{
    Maps maps = from.maps;
    size_t at = row * maps.stride + from.a, there = at < maps.height ? over(maps.width - from.b, maps.stride) : 0;
    const bf16 *restrict line = from.values + (at * maps.width + from.b) * maps.channels;
    for (size_t column = 0; column < there; column++)
        _mm512_store_si512(to + column * LANES, _mm512_loadu_si512(line + column * maps.stride * maps.channels));
    for (size_t column = there; column <= columns; column++)
        _mm512_store_si512(to + column * LANES, _mm512_setzero_si512());
}

static inline Source source_of(const bf16 *image, Maps maps, size_t plane)
{
    return (Source){image, maps, plane / maps.stride, plane % maps.stride};
}

/* 16 × 16 numbers of 32 bits, rows for columns. */
static inline void transpose(__m512i r[TILE])
{
    __m512i t[TILE];
    for (int i = 0; i < TILE; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < TILE; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        __m512i a = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88), b = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        __m512i c = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        __m512i d = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
        t[i] = _mm512_shuffle_i32x4(a, c, 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(b, d, 0x88);
        t[i + 8] = _mm512_shuffle_i32x4(a, c, 0xdd);
        t[i + 12] = _mm512_shuffle_i32x4(b, d, 0xdd);
    }
    memcpy(r, t, sizeof t);
}

/* Two rows of LANES values, each value beside the one below it: the first TILE such pairs, then the others. */
static inline void pair(__m512i above, __m512i below, __m512i *low, __m512i *high)
{
    __m512i a = _mm512_unpacklo_epi16(above, below), b = _mm512_unpackhi_epi16(above, below);
    *low = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11), b);
    *high = _mm512_permutex2var_epi64(a, _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15), b);
}

static inline __m512i narrowed(const float *values)
{
    return (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(values + TILE), _mm512_loadu_ps(values));
}
