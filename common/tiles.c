/* Convolutions over maps in bf16 on a processor's matrix unit (AMX), and their gradients; see common/convolution.py.
 *
 * The unit adds up products of a tile of 16 rows of 32 values with one of 32 rows of 16. Images are copied with zeros
 * around them, row after row with a single zero between, image after image with a row of zeros between: then each tap
 * of a filter is a shift, and any 16 positions that follow each other are a tile, whatever rows they belong to. With
 * stride 2 there is one such plane for each way that a position's row and column are even or odd.
 *
 * Sums are float32, in an order that follows from the shape alone: any number of threads gives the same bits. Tasks go
 * to whichever thread is free, since a matrix unit that is shared with a neighbour may be four times slower than the
 * next one (LOG.md).
 */
#include "rows.h"

#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILE 16
#define MOST_TAPS 9
#define ROOM ((size_t)512 << 10)      /* bytes of images that a thread copies at once: a part of its own cache */
#define POSITIONS ((size_t)3328)      /* of which products are summed between two writes of a weight's gradient */
#define TASKS ((size_t)8)             /* that the gradient of weights is cut into */
#define SUMS ((size_t)2 << 20)        /* values that its partial sums may take */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

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

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t over(size_t a, size_t b)
{
    return (a + b - 1) / b;
}

static bf16 *room_for(size_t values)
{
    return aligned_alloc(64, over(values * sizeof(bf16), 64) * 64);
}

static Plane plane_of(Shape2d s, size_t images)
{
    size_t rows = over(s.height, s.stride), columns = over(s.width, s.stride);
    size_t lead = columns + 2, image = (rows + 1) * (columns + 1);
    return (Plane){rows, columns, lead, image, images, over(lead * 2 + images * image, LANES) * LANES + LANES};
}

/* As many images as fill the room, but few enough for each thread to take some and for none to wait long. */
static size_t images_at_once(Shape2d s, size_t planes, size_t channels, int threads)
{
    size_t bytes = plane_of(s, 1).image * planes * channels * sizeof(bf16);
    size_t room = bytes < ROOM ? ROOM / bytes : 1;
    return least(room, over(s.images, 4 * (size_t)threads));
}

/* Result (i, j) reads x at (stride · i + k − side / 2, stride · j + l − side / 2) for tap (k, l). */
static Taps taps_of(Shape2d s, Plane plane)
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

/* The results that read x at (stride · i + a, stride · j + b), from (i, j). */
static Taps readers_of(Shape2d s, Plane plane, size_t a, size_t b)
{
    Taps taps = {.count = 0};
    ptrdiff_t step = (ptrdiff_t)s.stride, half = (ptrdiff_t)s.side / 2, line = (ptrdiff_t)plane.columns + 1;
    size_t weight = 0;
    for (ptrdiff_t k = -half; k <= half; k++)
        for (ptrdiff_t l = -half; l <= half; l++, weight++) {
            ptrdiff_t row = (ptrdiff_t)a - k, column = (ptrdiff_t)b - l;
            if (row % step == 0 && column % step == 0)
                taps.list[taps.count++] = (Tap){row / step * line + column / step, 0, weight};
        }
    return taps;
}

/* Tiles 0 to 5 of `rows` rows, 6 and 7 of 16. */
static void set_tiles(size_t rows)
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

/* ---- Copies ---- */

/* Where LANES channels of an image's rows are read for a plane: every `stride`-th position from (a, b). */
typedef struct {
    const bf16 *values;
    size_t height, width, channels, stride, a, b;
} Source;

/* One row of a plane and the zero behind it. */
static inline void copy_row(Source from, size_t row, size_t columns, bf16 *restrict to)
{
    size_t at = row * from.stride + from.a;
    const bf16 *restrict line = from.values + (at * from.width + from.b) * from.channels;
    size_t there = at < from.height ? over(from.width - from.b, from.stride) : 0;
    for (size_t column = 0; column < there; column++)
        _mm512_store_si512(to + column * LANES, _mm512_loadu_si512(line + column * from.stride * from.channels));
    for (size_t column = there; column <= columns; column++)
        _mm512_store_si512(to + column * LANES, _mm512_setzero_si512());
}

/* The n-th image's place in a plane; what lies before the first and behind it is made zero. */
static void copy_image(Source from, Plane plane, size_t n, bf16 *restrict to)
{
    if (n == 0)
        memset(to, 0, plane.lead * LANES * sizeof *to);
    bf16 *at = to + (plane.lead + n * plane.image) * LANES;
    for (size_t row = 0; row < plane.rows; row++, at += (plane.columns + 1) * LANES)
        copy_row(from, row, plane.columns, at);
    memset(at, 0, (plane.columns + 1) * LANES * sizeof *at);
}

static Source source_of(const bf16 *image, size_t height, size_t width, size_t channels, size_t stride, size_t plane)
{
    return (Source){image, height, width, channels, stride, plane / stride, plane % stride};
}

/* Images from `begin` on, as (channels / LANES, planes, length, LANES). */
static void copy_images(
    const bf16 *x, size_t begin, size_t end, size_t height, size_t width, size_t channels, size_t stride,
    size_t planes, Plane plane, bf16 *restrict to)
{
    for (size_t n = begin; n < end; n++)
        for (size_t block = 0; block < channels / LANES; block++)
            for (size_t p = 0; p < planes; p++) {
                const bf16 *image = x + n * height * width * channels + block * LANES;
                bf16 *into = to + (block * planes + p) * plane.length * LANES;
                copy_image(source_of(image, height, width, channels, stride, p), plane, n - begin, into);
            }
    for (size_t i = 0; i < channels / LANES * planes; i++) {
        size_t used = plane.lead + (end - begin) * plane.image;
        memset(to + (i * plane.length + used) * LANES, 0, (plane.length - used) * LANES * sizeof *to);
    }
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

/* Weights (outputs, taps, channels) as two tiles of 16 pairs of summed values by 16 results for each block of LANES
 * results, block of LANES summed values and tap. Summed are channels, or, for `back`, outputs.
 */
static void pack_weights(
    const float *restrict weights, size_t outputs, size_t taps, size_t channels, int back, int threads,
    bf16 *restrict panels)
{
    size_t summed = back ? outputs : channels, results = back ? channels : outputs, blocks = summed / LANES;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t i = 0; i < results / LANES * blocks * taps; i++) {
        size_t result = i / taps / blocks * LANES, from = i / taps % blocks * LANES, tap = i % taps;
        bf16 *restrict to = panels + i * LANES * LANES;
        for (size_t row = 0; back && row < TILE; row++, to += LANES) {
            const float *at = weights + ((from + 2 * row) * taps + tap) * channels + result;
            __m512i low, high;
            pair(narrowed(at), narrowed(at + taps * channels), &low, &high);
            _mm512_store_si512(to, low);
            _mm512_store_si512(to + TILE * LANES, high);
        }
        for (size_t half = 0; !back && half < 2; half++) {
            __m512i tile[TILE];
            for (size_t row = 0; row < TILE; row++)
                tile[row] = narrowed(weights + ((result + half * TILE + row) * taps + tap) * channels + from);
            transpose(tile);
            for (size_t row = 0; row < TILE; row++, to += LANES)
                _mm512_store_si512(to, tile[row]);
        }
    }
}

/* ---- Values, and the gradient by x ---- */

/* A way from images to LANES results: what each tap reads, and the panel of its weights. */
typedef struct {
    size_t blocks, block, taps, all_taps, rows;
    ptrdiff_t shifts[MOST_TAPS];
    size_t weights[MOST_TAPS];
} Way;

static Way way_of(size_t channels, size_t planes, Plane plane, Taps taps, size_t all_taps, size_t rows)
{
    Way way = {channels / LANES, planes * plane.length * LANES, taps.count, all_taps, rows, {0}, {0}};
    for (size_t i = 0; i < taps.count; i++) {
        size_t start = taps.list[i].plane * plane.length + plane.lead;
        way.shifts[i] = ((ptrdiff_t)start + taps.list[i].shift) * LANES;
        way.weights[i] = taps.list[i].weight * LANES * LANES;
    }
    return way;
}

/* Two tiles of positions from `values` on by two of results. */
static void multiply(const Way *way, const bf16 *values, const bf16 *panel, float *sums)
{
    size_t under = way->rows * LANES;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t block = 0; block < way->blocks; block++) {
        for (size_t tap = 0; tap < way->taps; tap++) {
            const bf16 *at = values + way->shifts[tap], *by = panel + way->weights[tap];
            _tile_loadd(4, at, 64);
            _tile_loadd(6, by, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(7, by + TILE * LANES, 64);
            _tile_dpbf16ps(1, 4, 7);
            _tile_loadd(5, at + under, 64);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        values += way->block;
        panel += way->all_taps * LANES * LANES;
    }
    _tile_stored(0, sums, 128);
    _tile_stored(1, sums + TILE, 128);
    _tile_stored(2, sums + under, 128);
    _tile_stored(3, sums + under + TILE, 128);
}

/* Where LANES results of an image are written: every `stride`-th position from (a, b). */
typedef struct {
    bf16 *values;
    size_t height, width, channels, stride, a, b;
} Target;

static inline void place(Target to, size_t row, size_t column, const float *sums)
{
    row = row * to.stride + to.a;
    column = column * to.stride + to.b;
    if (row < to.height && column < to.width)
        _mm512_storeu_si512(to.values + (row * to.width + column) * to.channels, narrowed(sums));
}

/* Positions that tiles take in one go: an image's, or, where that leaves tiles half empty, all images' of a copy. */
static size_t in_a_run(Plane plane)
{
    size_t one = plane.image - plane.columns - 2;
    return one < 2 * TILE ? plane.images * plane.image : one;
}

static size_t rows_of_tiles(Plane plane)
{
    size_t all = in_a_run(plane);
    return over(all, 2 * over(all, 2 * TILE));
}

/* `count` images' results from their copies. `to` is the first one's. */
static void sum_images(const Way *way, Plane plane, size_t count, const bf16 *values, const bf16 *panel, Target to)
{
    float sums[2 * TILE * LANES] __attribute__((aligned(64)));
    size_t run = in_a_run(plane), line = plane.columns + 1, step = 2 * way->rows;
    size_t of_image = to.height * to.width * to.channels, runs = count;
    if (run >= plane.image) {
        run = count * plane.image - line - 1;
        runs = 1;
    }
    for (size_t n = 0; n < runs; n++, to.values += of_image) {
        Target here = to;
        size_t row = 0, column = 0;
        for (size_t position = 0; position < run; position += step) {
            multiply(way, values + (n * plane.image + position) * LANES, panel, sums);
            for (size_t i = 0; i < step && position + i < run; i++) {
                if (row < plane.rows && column < plane.columns)
                    place(here, row, column, sums + i * LANES);
                if (++column < line)
                    continue;
                column = 0;
                if (++row > plane.rows) {
                    row = 0;
                    here.values += of_image;
                }
            }
        }
    }
}

/* y of x, or, for `back`, the gradient by x of the one by y. Returns 0, or 1 without memory. */
static int convolve(const bf16 *from, const float *weights, Shape2d s, int back, int threads, bf16 *to)
{
    size_t all_taps = s.side * s.side, strides = s.side > 1 ? s.stride * s.stride : 1;
    size_t planes = back ? 1 : strides, targets = back ? s.stride * s.stride : 1, step = back ? 1 : s.stride;
    size_t summed = back ? s.outputs : s.channels, results = back ? s.channels : s.outputs;
    size_t at_once = images_at_once(s, planes, summed, threads);
    Plane plane = plane_of(s, at_once);
    size_t height = back ? plane.rows : s.height, width = back ? plane.columns : s.width;
    size_t rows = rows_of_tiles(plane), panel = all_taps * summed * LANES;
    size_t copy = planes * plane.length * summed, groups = over(s.images, at_once);
    Way ways[4];
    for (size_t i = 0; i < targets; i++) {
        Taps taps = back ? readers_of(s, plane, i / s.stride, i % s.stride) : taps_of(s, plane);
        ways[i] = way_of(summed, planes, plane, taps, all_taps, rows);
    }
    bf16 *panels = room_for(panel * results / LANES), *copies = room_for(copy * (size_t)threads);
    if (!panels || !copies) {
        free(panels);
        free(copies);
        return 1;
    }
    pack_weights(weights, s.outputs, all_taps, s.channels, back, threads, panels);
#pragma omp parallel num_threads(threads)
    {
        set_tiles(rows);
        bf16 *own = copies + copy * (size_t)omp_get_thread_num();
#pragma omp for schedule(dynamic, 1)
        for (size_t group = 0; group < groups; group++) {
            size_t begin = group * at_once, end = least(begin + at_once, s.images);
            copy_images(from, begin, end, height, width, summed, step, planes, plane, own);
            for (size_t first = 0; first < results; first += LANES)
                for (size_t i = 0; i < targets; i++) {
                    Target target = {
                        to + begin * s.height * s.width * s.channels + first, s.height, s.width, s.channels, s.stride,
                        i / s.stride, i % s.stride,
                    };
                    if (!back)
                        target = (Target){
                            to + begin * plane.rows * plane.columns * s.outputs + first, plane.rows, plane.columns,
                            s.outputs, 1, 0, 0,
                        };
                    sum_images(&ways[i], plane, end - begin, own, panels + first / LANES * panel, target);
                }
        }
        _tile_release();
    }
    free(panels);
    free(copies);
    return 0;
}

int sonofed_convolve(
    const bf16 *x, const float *weights, size_t images, size_t height, size_t width, size_t channels, size_t outputs,
    size_t side, size_t stride, int threads, bf16 *y)
{
    return convolve(x, weights, (Shape2d){images, height, width, channels, outputs, side, stride}, 0, threads, y);
}

int sonofed_convolve_back(
    const bf16 *dy, const float *weights, size_t images, size_t height, size_t width, size_t channels, size_t outputs,
    size_t side, size_t stride, int threads, bf16 *dx)
{
    return convolve(dy, weights, (Shape2d){images, height, width, channels, outputs, side, stride}, 1, threads, dx);
}

/* ---- The gradient by the weights ---- */

/* Rows of a copy, turned into tiles as soon as they are there, while they are near. `flat` (length, LANES). */

/* To two rows of tiles: TILE channels by 32 positions each. */
static void turn(const bf16 *restrict flat, size_t chunk, bf16 *restrict low, bf16 *restrict high)
{
    __m512i a[TILE], b[TILE];
    const bf16 *restrict from = flat + chunk * LANES * LANES;
    for (int i = 0; i < TILE; i++)
        pair(_mm512_load_si512(from + 2 * i * LANES), _mm512_load_si512(from + (2 * i + 1) * LANES), a + i, b + i);
    transpose(a);
    transpose(b);
    for (int i = 0; i < TILE; i++) {
        _mm512_store_si512(low + (chunk * TILE + i) * LANES, a[i]);
        _mm512_store_si512(high + (chunk * TILE + i) * LANES, b[i]);
    }
}

static void turn_images(
    const bf16 *dy, size_t count, Plane plane, size_t outputs, bf16 *restrict flat, bf16 *restrict to)
{
    for (size_t block = 0; block < outputs / LANES; block++) {
        bf16 *low = to + 2 * block * plane.length * TILE, *high = low + plane.length * TILE;
        size_t chunk = 0, position = 0;
        for (size_t n = 0; n < count; n++)
            for (size_t row = 0; row <= plane.rows; row++) {
                const bf16 *image = dy + n * plane.rows * plane.columns * outputs + block * LANES;
                Source from = source_of(image, plane.rows, plane.columns, outputs, 1, 0);
                copy_row(from, row, plane.columns, flat + position * LANES);
                position += plane.columns + 1;
                for (; (chunk + 1) * LANES <= position; chunk++)
                    turn(flat, chunk, low, high);
            }
        size_t end = over(position, LANES);
        memset(flat + position * LANES, 0, (end * LANES - position) * LANES * sizeof *flat);
        for (; chunk < end; chunk++)
            turn(flat, chunk, low, high);
    }
}

/* Positions 2i and 2i + 1 from `flat` on side by side: (2, length / 2, TILE channels, 2). */
static void pair_up(const bf16 *restrict flat, size_t i, size_t end, size_t length, bf16 *restrict to)
{
    for (; i < end; i++) {
        __m512i low, high;
        pair(_mm512_load_si512(flat + 2 * i * LANES), _mm512_load_si512(flat + (2 * i + 1) * LANES), &low, &high);
        _mm512_store_si512(to + i * LANES, low);
        _mm512_store_si512(to + (length / 2 + i) * LANES, high);
    }
}

/* One plane of LANES channels, in pairs that begin at even positions, then in those that begin at odd ones. */
static void pair_images(
    Source from, size_t count, Plane plane, bf16 *restrict flat, bf16 *restrict even, bf16 *restrict odd)
{
    memset(flat, 0, plane.lead * LANES * sizeof *flat);
    size_t position = plane.lead, paired = 0, paired_odd = 0;
    for (size_t n = 0; n < count; n++, from.values += from.height * from.width * from.channels)
        for (size_t row = 0; row <= plane.rows; row++) {
            if (row < plane.rows)
                copy_row(from, row, plane.columns, flat + position * LANES);
            else
                memset(flat + position * LANES, 0, (plane.columns + 1) * LANES * sizeof *flat);
            position += plane.columns + 1;
            pair_up(flat, paired, position / 2, plane.length, even);
            pair_up(flat + LANES, paired_odd, (position - 1) / 2, plane.length, odd);
            paired = position / 2;
            paired_odd = (position - 1) / 2;
        }
    memset(flat + position * LANES, 0, (plane.length + 1 - position) * LANES * sizeof *flat);
    pair_up(flat, paired, plane.length / 2, plane.length, even);
    pair_up(flat + LANES, paired_odd, plane.length / 2, plane.length, odd);
}

/* Σ over positions, two tiles of outputs by two of channels, onto (or in place of) what is at `to`. */
static void add_up(
    const bf16 *dy, const bf16 *x, size_t chunks, size_t length, int onto, float *to, size_t line)
{
    float *under = to + TILE * line;
    if (onto) {
        _tile_loadd(0, to, line * sizeof *to);
        _tile_loadd(1, to + TILE, line * sizeof *to);
        _tile_loadd(2, under, line * sizeof *to);
        _tile_loadd(3, under + TILE, line * sizeof *to);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (size_t chunk = 0; chunk < chunks; chunk++, dy += TILE * LANES, x += TILE * LANES) {
        _tile_loadd(4, dy, 64);
        _tile_loadd(6, x, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, x + length * TILE, 64);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, dy + length * TILE, 64);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, to, line * sizeof *to);
    _tile_stored(1, to + TILE, line * sizeof *to);
    _tile_stored(2, under, line * sizeof *to);
    _tile_stored(3, under + TILE, line * sizeof *to);
}

/* The images are cut into `parts` of which each has its own sums, and the channels into `slices`. */
typedef struct {
    size_t parts, slices;
} Cut;

static Cut cut_of(Shape2d s, size_t values)
{
    size_t parts = TASKS;
    while (parts > 1 && parts * values > SUMS)
        parts /= 2;
    return (Cut){least(parts, s.images), least(TASKS / parts, s.channels / LANES)};
}

/* dw (outputs, side, side, channels), float32. Returns 0, or 1 without memory. */
int sonofed_convolve_weights(
    const bf16 *dy, const bf16 *x, size_t images, size_t height, size_t width, size_t channels, size_t outputs,
    size_t side, size_t stride, int threads, float *dw)
{
    Shape2d s = {images, height, width, channels, outputs, side, stride};
    size_t planes = side > 1 ? stride * stride : 1, values = outputs * side * side * channels;
    Cut cut = cut_of(s, values);
    size_t fits = POSITIONS / plane_of(s, 1).image, at_once = least(fits ? fits : 1, over(images, cut.parts));
    Plane plane = plane_of(s, at_once);
    Taps taps = taps_of(s, plane);
    size_t blocks = channels / LANES, widest = over(blocks, cut.slices), one = plane.length * LANES;
    size_t turned = plane.length * outputs, paired = 2 * one * planes * widest, scratch = turned + paired + one + LANES;
    bf16 *scratches = room_for(scratch * (size_t)threads);
    float *sums = cut.parts > 1 ? malloc(cut.parts * values * sizeof *sums) : dw;
    if (!scratches || !sums) {
        free(scratches);
        if (cut.parts > 1)
            free(sums);
        return 1;
    }
#pragma omp parallel num_threads(threads)
    {
        set_tiles(TILE);
        bf16 *of_y = scratches + scratch * (size_t)omp_get_thread_num(), *of_x = of_y + turned, *flat = of_x + paired;
#pragma omp for schedule(dynamic, 1)
        for (size_t task = 0; task < cut.parts * cut.slices; task++) {
            size_t part = task / cut.slices, slice = task % cut.slices;
            size_t first = blocks * slice / cut.slices, last = blocks * (slice + 1) / cut.slices;
            size_t begin = images * part / cut.parts, end = images * (part + 1) / cut.parts;
            for (size_t n = begin; n < end; n += at_once) {
                size_t count = least(at_once, end - n), chunks = over(count * plane.image, LANES);
                turn_images(dy + n * plane.rows * plane.columns * outputs, count, plane, outputs, flat, of_y);
                for (size_t i = 0; i < (last - first) * planes; i++) {
                    const bf16 *image = x + n * height * width * channels + (first + i / planes) * LANES;
                    bf16 *even = of_x + 2 * i * one;
                    pair_images(
                        source_of(image, height, width, channels, stride, i % planes), count, plane, flat, even,
                        even + one);
                }
                for (size_t block = first; block < last; block++)
                    for (size_t output = 0; output < outputs; output += LANES)
                        for (size_t tap = 0; tap < taps.count; tap++) {
                            size_t at = plane.lead + (size_t)taps.list[tap].shift;
                            size_t i = 2 * ((block - first) * planes + taps.list[tap].plane) + at % 2;
                            float *to = sums + part * values + (output * taps.count + tap) * channels + block * LANES;
                            add_up(
                                of_y + output * plane.length, of_x + i * one + at / 2 * LANES, chunks, plane.length,
                                n > begin, to, taps.count * channels);
                        }
            }
        }
        _tile_release();
#pragma omp for schedule(static)
        for (size_t i = 0; i < (cut.parts > 1 ? values : 0); i++) {
            float sum = sums[i];
            for (size_t part = 1; part < cut.parts; part++)
                sum += sums[part * values + i];
            dw[i] = sum;
        }
    }
    free(scratches);
    if (cut.parts > 1)
        free(sums);
    return 0;
}

/* Whether the system lets this process use the matrix unit. */
int sonofed_tiles(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}
