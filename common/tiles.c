/* Convolutions of maps in bf16 on the matrix unit, and their gradients by x; see tiles.h and common/convolution.py. */
#include "tiles.h"

#include <sys/syscall.h>
#include <unistd.h>

#define ROOM ((size_t)512 << 10) /* bytes of images that a thread copies at once: a part of its own cache */
#define ARCH_REQ_XCOMP_PERM 0x1023
#define XFEATURE_XTILEDATA 18

/* Whether the system lets this process use the matrix unit. */
int sonofed_tiles(void)
{
    return syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0;
}

/* As many images as fill the room, but few enough for each thread to take some and for none to wait long. */
static size_t images_at_once(Shape2d s, size_t planes, size_t channels, int threads)
{
    size_t bytes = plane_of(s, 1).image * planes * channels * sizeof(bf16);
    size_t room = bytes < ROOM ? ROOM / bytes : 1;
    return least(room, over(s.images, 4 * (size_t)threads));
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

/* The n-th image's place in a plane; what lies before the first is made zero. */
static void copy_image(Source from, Plane plane, size_t n, bf16 *restrict to)
{
    if (n == 0)
        memset(to, 0, plane.lead * LANES * sizeof *to);
    bf16 *at = to + (plane.lead + n * plane.image) * LANES;
    for (size_t row = 0; row <= plane.rows; row++, at += (plane.columns + 1) * LANES)
        copy_row(from, row, plane.columns, at);
}

/* `count` images from `x` on, as (channels / LANES, planes, length, LANES). */
static void copy_images(const bf16 *x, size_t count, Maps maps, size_t planes, Plane plane, bf16 *restrict to)
{
    size_t blocks = maps.channels / LANES, used = plane.lead + count * plane.image;
    for (size_t n = 0; n < count; n++, x += values_of(maps))
        for (size_t i = 0; i < blocks * planes; i++) {
            Source from = source_of(x + i / planes * LANES, maps, i % planes);
            copy_image(from, plane, n, to + i * plane.length * LANES);
        }
    for (size_t i = 0; i < blocks * planes; i++)
        memset(to + (i * plane.length + used) * LANES, 0, (plane.length - used) * LANES * sizeof *to);
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

/* Where LANES results of an image are written, from position (a, b) on. */
typedef struct {
    bf16 *values;
    Maps maps;
    size_t a, b;
} Target;

static inline void place(Target to, size_t row, size_t column, const float *sums)
{
    row = row * to.maps.stride + to.a;
    column = column * to.maps.stride + to.b;
    if (row < to.maps.height && column < to.maps.width)
        _mm512_storeu_si512(to.values + (row * to.maps.width + column) * to.maps.channels, narrowed(sums));
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
    size_t runs = count;
    if (run >= plane.image) {
        run = count * plane.image - line - 1;
        runs = 1;
    }
    for (size_t n = 0; n < runs; n++, to.values += values_of(to.maps)) {
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
                    here.values += values_of(to.maps);
                }
            }
        }
    }
}

/* y of x, or, for `back`, the gradient by x of the one by y. Returns 0, or 1 without memory. */
static int convolve(const bf16 *from, const float *weights, Shape2d s, int back, int threads, bf16 *to)
{
    size_t all_taps = s.side * s.side, strides = s.side > 1 ? s.stride * s.stride : 1;
    size_t planes = back ? 1 : strides, targets = back ? s.stride * s.stride : 1;
    size_t at_once = images_at_once(s, planes, back ? s.outputs : s.channels, threads);
    Plane plane = plane_of(s, at_once);
    Maps wide = {s.height, s.width, s.channels, s.stride}, narrow = {plane.rows, plane.columns, s.outputs, 1};
    Maps source = back ? narrow : wide, target = back ? wide : narrow;
    size_t summed = source.channels, results = target.channels;
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
            copy_images(from + begin * values_of(source), end - begin, source, planes, plane, own);
            for (size_t first = 0; first < results; first += LANES)
                for (size_t i = 0; i < targets; i++) {
                    bf16 *at = to + begin * values_of(target) + first;
                    Target here = {at, target, i / target.stride, i % target.stride};
                    sum_images(&ways[i], plane, end - begin, own, panels + first / LANES * panel, here);
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
