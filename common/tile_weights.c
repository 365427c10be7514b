/* The gradients of convolutions by their weights on the matrix unit; see tiles.h and common/convolution.py.
 *
 * Rows of slopes are turned and rows of values paired as soon as they are copied, while they are near.
 */
#include "tiles.h"

#define POSITIONS ((size_t)3328) /* of which products are summed between two writes of a gradient */
#define TASKS ((size_t)8)        /* that the work is cut into, whatever the number of threads */
#define SUMS ((size_t)2 << 20)   /* values that partial sums may take */

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

static void turn_images(const bf16 *dy, size_t count, Maps maps, Plane plane, bf16 *restrict flat, bf16 *restrict to)
{
    for (size_t block = 0; block < maps.channels / LANES; block++) {
        bf16 *low = to + 2 * block * plane.length * TILE, *high = low + plane.length * TILE;
        size_t chunk = 0, position = 0;
        for (size_t n = 0; n < count; n++)
            for (size_t row = 0; row <= plane.rows; row++) {
                Source from = source_of(dy + n * values_of(maps) + block * LANES, maps, 0);
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
    for (size_t n = 0; n < count; n++, from.values += values_of(from.maps))
        for (size_t row = 0; row <= plane.rows; row++) {
            copy_row(from, row, plane.columns, flat + position * LANES);
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

/* The images are cut into `parts`, of which each has its own sums, and the blocks of channels into `slices`. */
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

/* Slopes and values of which products are summed, and what taps read in the values' planes. */
typedef struct {
    Maps slopes, values;
    Plane plane;
    size_t planes;
    Taps taps;
} Work;

/* As many images as their products are summed over in one go, `most` at most. */
static size_t images_in_one(Shape2d s, size_t most)
{
    size_t fits = POSITIONS / plane_of(s, 1).image;
    return least(fits ? fits : 1, most);
}

static Work work_of(Shape2d s, size_t at_once)
{
    Plane plane = plane_of(s, at_once);
    Maps slopes = {plane.rows, plane.columns, s.outputs, 1}, values = {s.height, s.width, s.channels, s.stride};
    return (Work){slopes, values, plane, s.side > 1 ? s.stride * s.stride : 1, taps_of(s, plane)};
}

/* What a thread copies to: turned slopes, paired values, and rows on their way to either. */
typedef struct {
    bf16 *turned, *paired, *flat;
} Room;

/* Blocks of channels from `first` up to `last`. */
typedef struct {
    size_t first, last;
} Slice;

static void copy_both(const Work *work, const bf16 *dy, const bf16 *x, size_t count, Slice slice, Room room)
{
    size_t one = work->plane.length * LANES;
    turn_images(dy, count, work->slopes, work->plane, room.flat, room.turned);
    for (size_t i = 0; i < (slice.last - slice.first) * work->planes; i++) {
        const bf16 *block = x + (slice.first + i / work->planes) * LANES;
        bf16 *even = room.paired + 2 * i * one;
        pair_images(
            source_of(block, work->values, i % work->planes), count, work->plane, room.flat, even, even + one);
    }
}

/* Σ over `count` copied images, onto (or in place of) what is at `to`. */
static void add_images(const Work *work, size_t count, Slice slice, Room room, int onto, float *to)
{
    size_t length = work->plane.length, channels = work->values.channels, taps = work->taps.count;
    size_t chunks = over(count * work->plane.image, LANES);
    for (size_t block = slice.first; block < slice.last; block++)
        for (size_t output = 0; output < work->slopes.channels; output += LANES)
            for (size_t i = 0; i < taps; i++) {
                Tap tap = work->taps.list[i];
                size_t at = work->plane.lead + (size_t)tap.shift;
                size_t pairs = 2 * ((block - slice.first) * work->planes + tap.plane) + at % 2;
                add_up(
                    room.turned + output * length, room.paired + (pairs * length + at / 2) * LANES, chunks, length,
                    onto, to + (output * taps + i) * channels + block * LANES, taps * channels);
            }
}

/* dw (outputs, side, side, channels), float32. Returns 0, or 1 without memory. */
int sonofed_convolve_weights(
    const bf16 *dy, const bf16 *x, size_t images, size_t height, size_t width, size_t channels, size_t outputs,
    size_t side, size_t stride, int threads, float *dw)
{
    Shape2d s = {images, height, width, channels, outputs, side, stride};
    size_t values = outputs * side * side * channels;
    Cut cut = cut_of(s, values);
    Work work = work_of(s, images_in_one(s, over(images, cut.parts)));
    size_t length = work.plane.length, one = length * LANES, at_once = work.plane.images;
    size_t blocks = channels / LANES, widest = over(blocks, cut.slices);
    size_t turned = length * outputs, paired = 2 * one * work.planes * widest, scratch = turned + paired + one + LANES;
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
        bf16 *own = scratches + scratch * (size_t)omp_get_thread_num();
        Room room = {own, own + turned, own + turned + paired};
#pragma omp for schedule(dynamic, 1)
        for (size_t task = 0; task < cut.parts * cut.slices; task++) {
            size_t part = task / cut.slices, i = task % cut.slices;
            size_t begin = images * part / cut.parts, end = images * (part + 1) / cut.parts;
            Slice slice = {blocks * i / cut.slices, blocks * (i + 1) / cut.slices};
            for (size_t n = begin; n < end; n += at_once) {
                size_t count = least(at_once, end - n);
                copy_both(&work, dy + n * values_of(work.slopes), x + n * values_of(work.values), count, slice, room);
                add_images(&work, count, slice, room, n > begin, sums + part * values);
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

/* Each unit's gradient apart, rounded to bf16: (units, outputs, side, side, channels). Unit u has the images from
 * ends[u] up to ends[u + 1], and a thread to itself. Returns 0, or 1 without memory.
 */
int sonofed_convolve_weights_by_unit(
    const bf16 *dy, const bf16 *x, const size_t *ends, size_t units, size_t height, size_t width, size_t channels,
    size_t outputs, size_t side, size_t stride, int threads, bf16 *rows)
{
    size_t values = outputs * side * side * channels, most = 1;
    for (size_t unit = 0; unit < units; unit++)
        most = ends[unit + 1] - ends[unit] > most ? ends[unit + 1] - ends[unit] : most;
    Shape2d s = {most, height, width, channels, outputs, side, stride};
    Work widest = work_of(s, images_in_one(s, most));
    size_t one = widest.plane.length * LANES, turned = widest.plane.length * outputs;
    size_t paired = 2 * one * widest.planes * (channels / LANES), scratch = turned + paired + one + LANES;
    bf16 *scratches = room_for(scratch * (size_t)threads);
    float *sums = malloc(values * (size_t)threads * sizeof *sums);
    if (!scratches || !sums) {
        free(scratches);
        free(sums);
        return 1;
    }
#pragma omp parallel num_threads(threads)
    {
        set_tiles(TILE);
        bf16 *own = scratches + scratch * (size_t)omp_get_thread_num();
        float *sum = sums + values * (size_t)omp_get_thread_num();
        Room room = {own, own + turned, own + turned + paired};
        Slice all = {0, channels / LANES};
#pragma omp for schedule(dynamic, 1)
        for (size_t unit = 0; unit < units; unit++) {
            Work work = work_of(s, images_in_one(s, ends[unit + 1] - ends[unit]));
            if (ends[unit] == ends[unit + 1])
                memset(sum, 0, values * sizeof *sum);
            for (size_t n = ends[unit]; n < ends[unit + 1]; n += work.plane.images) {
                size_t count = least(work.plane.images, ends[unit + 1] - n);
                copy_both(&work, dy + n * values_of(work.slopes), x + n * values_of(work.values), count, all, room);
                add_images(&work, count, all, room, n > ends[unit], sum);
            }
            for (size_t i = 0; i < values; i += LANES)
                _mm512_storeu_si512(rows + unit * values + i, narrowed(sum + i));
        }
        _tile_release();
    }
    free(scratches);
    free(sums);
    return 0;
}
