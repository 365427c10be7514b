/* Normalisation, sum with a shortcut and ReLU over maps in bf16 with channels last, each in one pass through memory.
 *
 * torch reads and writes a map for each of these in turn, and for statistics twice; where the caches no longer hold the
 * maps, that is half of a training step on a processor with a matrix unit. What is computed is common/maps.py's; here
 * are the loops. A set is what shares statistics: a batch (Ioffe 2015) or, by group of channels, an image (Wu and He
 * 2018). Sums are float32 within BLOCK rows and float64 over blocks, in a fixed order: any number of threads gives the
 * same bits.
 *
 * Shapes, all contiguous: x, y, shortcut and gradients (sets, rows, channels); coefficients (sets, channels);
 * weight and bias (channels). Channels are a multiple of LANES.
 */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define BLOCK 256
#define LANES 32

typedef uint16_t bf16;
typedef struct {
    size_t sets, rows, channels, groups;
} Shape;

static inline float up(bf16 value)
{
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

/* Round to nearest, ties to even; what is not a number stays none. */
static inline bf16 down(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (bf16)(value != value ? 0x7fc0 : rounded);
}

static inline float rectified(float value)
{
    return value < 0 ? 0 : value;
}

/* `slope` where ReLU lets `value` pass, else 0. */
static inline float passed(float slope, float value)
{
    uint32_t bits;
    memcpy(&bits, &slope, sizeof bits);
    bits &= -(uint32_t) !(value <= 0);
    memcpy(&slope, &bits, sizeof slope);
    return slope;
}

static inline size_t blocks_of(Shape shape)
{
    return (shape.rows + BLOCK - 1) / BLOCK;
}

static inline size_t rows_in(Shape shape, size_t block)
{
    size_t left = shape.rows - block * BLOCK;
    return left < BLOCK ? left : BLOCK;
}

/* Where block `task % blocks` of set `task / blocks` begins, in values. */
static inline size_t start_of(Shape shape, size_t task)
{
    size_t blocks = blocks_of(shape);
    return (task / blocks * shape.rows + task % blocks * BLOCK) * shape.channels;
}

/* Σ (x − shift) and Σ (x − shift)² of one block. */
static void spread(
    const bf16 *restrict x, const bf16 *restrict shift, size_t rows, size_t channels, float *restrict sums)
{
    for (size_t first = 0; first < channels; first += LANES) {
        float plain[LANES] = {0}, squared[LANES] = {0}, from[LANES];
        for (int c = 0; c < LANES; c++)
            from[c] = up(shift[first + c]);
        for (size_t row = 0; row < rows; row++) {
            const bf16 *restrict at = x + row * channels + first;
#pragma GCC ivdep
            for (int c = 0; c < LANES; c++) {
                float value = up(at[c]) - from[c];
                plain[c] += value;
                squared[c] += value * value;
            }
        }
        memcpy(sums + first, plain, sizeof plain);
        memcpy(sums + channels + first, squared, sizeof squared);
    }
}

static void apply(
    const bf16 *restrict x, const bf16 *restrict shortcut, size_t rows, size_t channels, const float *restrict scale,
    const float *restrict offset, int rectify, bf16 *restrict y)
{
    for (size_t row = 0; row < rows; row++, x += channels, y += channels) {
        if (shortcut) {
            const bf16 *restrict other = shortcut + row * channels;
#pragma GCC ivdep
            for (size_t c = 0; c < channels; c++)
                y[c] = down(rectified(up(x[c]) * scale[c] + offset[c] + up(other[c])));
        } else if (rectify) {
#pragma GCC ivdep
            for (size_t c = 0; c < channels; c++)
                y[c] = down(rectified(up(x[c]) * scale[c] + offset[c]));
        } else {
#pragma GCC ivdep
            for (size_t c = 0; c < channels; c++)
                y[c] = down(up(x[c]) * scale[c] + offset[c]);
        }
    }
}

/* Σ over blocks, (2, channels) in float64. */
static void add_blocks(const float *parts, size_t blocks, size_t channels, double *sums)
{
    memset(sums, 0, 2 * channels * sizeof *sums);
    for (size_t block = 0; block < blocks; block++, parts += 2 * channels)
        for (size_t c = 0; c < 2 * channels; c++)
            sums[c] += parts[c];
}

/* One set's mean, 1 / deviation and affine map at each channel, from its channels' sums about `shift`. */
static void coefficients(
    Shape shape, const double *sums, const bf16 *shift, const float *weight, const float *bias, double eps, float *mean,
    float *variance, float *scale, float *offset)
{
    size_t width = shape.channels / shape.groups;
    for (size_t first = 0; first < shape.channels; first += width) {
        double center = 0, square = 0;
        for (size_t c = first; c < first + width; c++)
            center += (sums[c] / shape.rows + up(shift[c])) / width;
        for (size_t c = first; c < first + width; c++) {
            double by = sums[c] / shape.rows, away = by + up(shift[c]) - center;
            double own = sums[shape.channels + c] / shape.rows - by * by;
            square += ((own < 0 ? 0 : own) + away * away) / width;
        }
        double rate = 1 / sqrt(square + eps);
        for (size_t c = first; c < first + width; c++) {
            mean[c] = (float)center;
            variance[c] = (float)square;
            scale[c] = (float)(weight[c] * rate);
            offset[c] = (float)(bias[c] - center * weight[c] * rate);
        }
    }
}

/* y = x · scale + offset, + shortcut where there is one, rectified where asked (with a shortcut always).
 *
 * Writes mean, variance, scale and offset, all (sets, channels). Returns 0, or 1 where there is no memory.
 */
int sonofed_normalise(
    const bf16 *x, const bf16 *shortcut, size_t sets, size_t rows, size_t channels, size_t groups, const float *weight,
    const float *bias, double eps, int rectify, int threads, bf16 *y, float *mean, float *variance, float *scale,
    float *offset)
{
    Shape shape = {sets, rows, channels, groups};
    size_t blocks = blocks_of(shape), tasks = sets * blocks;
    float *parts = malloc(tasks * 2 * channels * sizeof *parts);
    double *sums = malloc(sets * 2 * channels * sizeof *sums);
    if (parts && sums) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (size_t task = 0; task < tasks; task++)
                spread(
                    x + start_of(shape, task), x + task / blocks * rows * channels, rows_in(shape, task % blocks),
                    channels, parts + task * 2 * channels);
#pragma omp for schedule(static)
            for (size_t set = 0; set < sets; set++) {
                size_t at = set * channels;
                add_blocks(parts + 2 * at * blocks, blocks, channels, sums + 2 * at);
                coefficients(
                    shape, sums + 2 * at, x + at * rows, weight, bias, eps, mean + at, variance + at, scale + at,
                    offset + at);
            }
#pragma omp for schedule(static)
            for (size_t task = 0; task < tasks; task++) {
                size_t from = start_of(shape, task), at = task / blocks * channels;
                apply(
                    x + from, shortcut ? shortcut + from : NULL, rows_in(shape, task % blocks), channels, scale + at,
                    offset + at, rectify, y + from);
            }
        }
    }
    int failed = !parts || !sums;
    free(parts);
    free(sums);
    return failed;
}

/* How ReLU's gradient is known: none there, from the values before it, or from its result. */
enum { PLAIN, FROM_VALUES, FROM_RESULT };

/* Σ g and Σ g (x − mean) of one block, g being the slope that ReLU lets pass; from its result, g is written as well. */
static void slopes(
    const bf16 *restrict dy, const bf16 *restrict x, const bf16 *restrict y, bf16 *restrict g, size_t rows,
    size_t channels, const float *restrict scale, const float *restrict offset, const float *restrict mean, int how,
    float *restrict sums)
{
    for (size_t first = 0; first < channels; first += LANES) {
        float plain[LANES] = {0}, along[LANES] = {0}, a[LANES], b[LANES], from[LANES];
        memcpy(a, scale + first, sizeof a);
        memcpy(b, offset + first, sizeof b);
        memcpy(from, mean + first, sizeof from);
        for (size_t row = 0; row < rows; row++) {
            size_t at = row * channels + first;
            const bf16 *restrict values = x + at, *restrict slope = dy + at;
            if (how == FROM_RESULT) {
                const bf16 *restrict result = y + at;
                bf16 *restrict kept = g + at;
                /* As whole numbers, what is above zero or no number is above zero. */
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++)
                    kept[c] = slope[c] & (bf16) -((int16_t)result[c] > 0);
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++) {
                    float passing = up(kept[c]);
                    plain[c] += passing;
                    along[c] += passing * (up(values[c]) - from[c]);
                }
            } else if (how == FROM_VALUES) {
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++) {
                    float value = up(values[c]), passing = passed(up(slope[c]), value * a[c] + b[c]);
                    plain[c] += passing;
                    along[c] += passing * (value - from[c]);
                }
            } else {
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++) {
                    float passing = up(slope[c]);
                    plain[c] += passing;
                    along[c] += passing * (up(values[c]) - from[c]);
                }
            }
        }
        memcpy(sums + first, plain, sizeof plain);
        memcpy(sums + channels + first, along, sizeof along);
    }
}

/* dx = g · scale + x · by_x + by_one. */
static void descend(
    const bf16 *restrict g, const bf16 *restrict x, size_t rows, size_t channels, const float *restrict scale,
    const float *restrict offset, const float *restrict by_x, const float *restrict by_one, int how, bf16 *restrict dx)
{
    for (size_t row = 0; row < rows; row++, g += channels, x += channels, dx += channels) {
        if (how == FROM_VALUES) {
#pragma GCC ivdep
            for (size_t c = 0; c < channels; c++) {
                float value = up(x[c]), passing = passed(up(g[c]), value * scale[c] + offset[c]);
                dx[c] = down(passing * scale[c] + (value * by_x[c] + by_one[c]));
            }
        } else {
#pragma GCC ivdep
            for (size_t c = 0; c < channels; c++)
                dx[c] = down(up(g[c]) * scale[c] + (up(x[c]) * by_x[c] + by_one[c]));
        }
    }
}

/* One set's gradients of weight and bias, and the part of dx that comes from mean and deviation as by_x and by_one. */
static void along_statistics(
    Shape shape, const double *sums, const float *weight, const float *mean, const float *variance, double eps,
    float *of_weight, float *of_bias, float *by_x, float *by_one)
{
    size_t width = shape.channels / shape.groups;
    for (size_t first = 0; first < shape.channels; first += width) {
        double rate = 1 / sqrt(variance[first] + eps), across = 0, along = 0;
        for (size_t c = first; c < first + width; c++) {
            across += weight[c] * sums[c] / shape.rows / width;
            along += weight[c] * sums[shape.channels + c] * rate / shape.rows / width;
        }
        for (size_t c = first; c < first + width; c++) {
            of_bias[c] = (float)sums[c];
            of_weight[c] = (float)(sums[shape.channels + c] * rate);
            by_x[c] = (float)(-rate * rate * along);
            by_one[c] = (float)(-rate * across + rate * rate * along * mean[c]);
        }
    }
}

/* The gradient of `sonofed_normalise`: dx, and weight's and bias's of each set (sets, channels).
 *
 * `how`: 0 without ReLU, 1 with it, 2 with a shortcut, whose gradient goes to g. Returns 0, or 1 without memory.
 */
int sonofed_normalise_backward(
    const bf16 *dy, const bf16 *x, const bf16 *y, size_t sets, size_t rows, size_t channels, size_t groups,
    const float *weight, const float *mean, const float *variance, const float *scale, const float *offset, double eps,
    int how, int threads, bf16 *g, bf16 *dx, float *of_weight, float *of_bias)
{
    Shape shape = {sets, rows, channels, groups};
    size_t blocks = blocks_of(shape), tasks = sets * blocks;
    float *parts = malloc(tasks * 2 * channels * sizeof *parts);
    double *sums = malloc(sets * 2 * channels * sizeof *sums);
    float *by = malloc(sets * 2 * channels * sizeof *by);
    if (parts && sums && by) {
#pragma omp parallel num_threads(threads)
        {
#pragma omp for schedule(static)
            for (size_t task = 0; task < tasks; task++) {
                size_t from = start_of(shape, task), at = task / blocks * channels;
                slopes(
                    dy + from, x + from, y ? y + from : NULL, g ? g + from : NULL, rows_in(shape, task % blocks),
                    channels, scale + at, offset + at, mean + at, how, parts + task * 2 * channels);
            }
#pragma omp for schedule(static)
            for (size_t set = 0; set < sets; set++) {
                size_t at = set * channels;
                add_blocks(parts + 2 * at * blocks, blocks, channels, sums + 2 * at);
                along_statistics(
                    shape, sums + 2 * at, weight, mean + at, variance + at, eps, of_weight + at, of_bias + at,
                    by + 2 * at, by + 2 * at + channels);
            }
#pragma omp for schedule(static)
            for (size_t task = 0; task < tasks; task++) {
                size_t from = start_of(shape, task), at = task / blocks * channels;
                descend(
                    (how == FROM_RESULT ? g : dy) + from, x + from, rows_in(shape, task % blocks), channels, scale + at,
                    offset + at, by + 2 * at, by + 2 * at + channels, how, dx + from);
            }
        }
    }
    int failed = !parts || !sums || !by;
    free(parts);
    free(sums);
    free(by);
    return failed;
}

/* Order of bf16 as whole numbers; what is no number comes last of all. */
static inline int16_t rank_of(bf16 value)
{
    int16_t bits = (int16_t)value;
    int16_t rank = bits ^ ((bits >> 15) & 0x7fff);
    return (bits & 0x7fff) > 0x7f80 ? 0x7fff : rank;
}

static inline bf16 of_rank(int16_t rank)
{
    return (bf16)(rank ^ ((rank >> 15) & 0x7fff));
}

/* The largest of 3 × 3 values with stride 2, for one row of results, and which of the nine it is (the first). */
static void largest(
    const bf16 *restrict z, size_t row, size_t width, size_t channels, bf16 *restrict maxima, uint8_t *restrict places)
{
    for (size_t column = 0; column < width / 2; column++)
        for (size_t first = 0; first < channels; first += LANES) {
            int16_t best[LANES], place[LANES];
            for (int c = 0; c < LANES; c++) {
                best[c] = INT16_MIN;
                place[c] = 4;
            }
            for (size_t tap = 0; tap < 9; tap++) {
                size_t down_by = 2 * row + tap / 3, right_by = 2 * column + tap % 3;
                if (!down_by || !right_by)
                    continue;
                const bf16 *restrict at = z + ((down_by - 1) * width + right_by - 1) * channels + first;
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++) {
                    int16_t rank = rank_of(at[c]), over = -(int16_t)(rank > best[c]);
                    best[c] = (int16_t)((rank & over) | (best[c] & ~over));
                    place[c] = (int16_t)((tap & over) | (place[c] & ~over));
                }
            }
            size_t to = column * channels + first;
#pragma GCC ivdep
            for (int c = 0; c < LANES; c++)
                maxima[to + c] = of_rank(best[c]);
#pragma GCC ivdep
            for (int c = 0; c < LANES; c++)
                places[to + c] = (uint8_t)place[c];
        }
}

/* The largest of 3 × 3 with stride 2 and a border of one, its place, and each image's Σ (z − s) and Σ (z − s)²,
 * s being its first position's values.
 *
 * z (images, height, width, channels), height and width even; maxima and places (images, height/2, width/2, channels);
 * sums (images, 2, channels). Returns 0, or 1 without memory.
 */
int sonofed_pool(
    const bf16 *z, size_t images, size_t height, size_t width, size_t channels, int threads, bf16 *maxima,
    uint8_t *places, double *sums)
{
    size_t rows = height / 2, small = width / 2 * channels, all = images * rows;
    float *parts = malloc(all * 2 * channels * sizeof *parts);
    if (!parts)
        return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t task = 0; task < all; task++) {
        const bf16 *image = z + task / rows * height * width * channels;
        size_t row = task % rows;
        spread(image + 2 * row * width * channels, image, 2 * width, channels, parts + task * 2 * channels);
        largest(image, row, width, channels, maxima + task * small, places + task * small);
    }
    for (size_t image = 0; image < images; image++)
        add_blocks(parts + image * rows * 2 * channels, rows, channels, sums + image * 2 * channels);
    free(parts);
    return 0;
}

/* The gradient of `sonofed_pool` and of what normalised its values: dz = D · scale + z · by_x + by_one, D being the
 * slopes g that came to a position as the largest. Coefficients (images, channels), g as the maxima.
 */
int sonofed_unpool(
    const bf16 *g, const uint8_t *places, const bf16 *z, size_t images, size_t height, size_t width, size_t channels,
    const float *scale, const float *by_x, const float *by_one, int threads, bf16 *dz)
{
    size_t rows = height / 2, columns = width / 2, all = images * height;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t task = 0; task < all; task++) {
        size_t image = task / height, row = task % height, of_image = image * channels;
        const bf16 *slopes_of = g + image * rows * columns * channels;
        const uint8_t *places_of = places + image * rows * columns * channels;
        for (size_t column = 0; column < width; column++)
            for (size_t first = 0; first < channels; first += LANES) {
                float sum[LANES] = {0};
                for (size_t i = row / 2; i <= (row + 1) / 2 && i < rows; i++)
                    for (size_t j = column / 2; j <= (column + 1) / 2 && j < columns; j++) {
                        uint8_t tap = (uint8_t)(3 * (row + 1 - 2 * i) + column + 1 - 2 * j);
                        size_t at = (i * columns + j) * channels + first;
                        const bf16 *restrict slope = slopes_of + at;
                        const uint8_t *restrict place = places_of + at;
                        bf16 kept[LANES];
#pragma GCC ivdep
                        for (int c = 0; c < LANES; c++)
                            kept[c] = slope[c] & (bf16) -(int16_t)(place[c] == tap);
#pragma GCC ivdep
                        for (int c = 0; c < LANES; c++)
                            sum[c] += up(kept[c]);
                    }
                size_t at = (task * width + column) * channels + first;
                const bf16 *restrict value = z + at;
                const float *restrict a = scale + of_image + first, *restrict b = by_x + of_image + first;
                const float *restrict d = by_one + of_image + first;
                bf16 *restrict to = dz + at;
#pragma GCC ivdep
                for (int c = 0; c < LANES; c++)
                    to[c] = down(sum[c] * a[c] + (up(value[c]) * b[c] + d[c]));
            }
    }
    return 0;
}

/* y = max(0, x · scale + offset), with coefficients (sets, channels). */
int sonofed_rectify(
    const bf16 *x, size_t sets, size_t rows, size_t channels, const float *scale, const float *offset, int threads,
    bf16 *y)
{
    Shape shape = {sets, rows, channels, 0};
    size_t blocks = blocks_of(shape), tasks = sets * blocks;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t task = 0; task < tasks; task++) {
        size_t from = start_of(shape, task), at = task / blocks * channels;
        apply(x + from, NULL, rows_in(shape, task % blocks), channels, scale + at, offset + at, 1, y + from);
    }
    return 0;
}

/* g = dy where y is above zero, else 0; and each set's Σ g and Σ g (x − mean), (sets, 2, channels). Returns 0, or 1. */
int sonofed_slopes(
    const bf16 *dy, const bf16 *x, const bf16 *y, size_t sets, size_t rows, size_t channels, const float *mean,
    int threads, bf16 *g, double *sums)
{
    Shape shape = {sets, rows, channels, 0};
    size_t blocks = blocks_of(shape), tasks = sets * blocks;
    float *parts = malloc(tasks * 2 * channels * sizeof *parts);
    if (!parts)
        return 1;
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (size_t task = 0; task < tasks; task++) {
            size_t from = start_of(shape, task);
            const float *center = mean + task / blocks * channels;
            slopes(
                dy + from, x + from, y + from, g + from, rows_in(shape, task % blocks), channels, center, center,
                center, FROM_RESULT, parts + task * 2 * channels);
        }
#pragma omp for schedule(static)
        for (size_t set = 0; set < sets; set++)
            add_blocks(parts + set * blocks * 2 * channels, blocks, channels, sums + set * 2 * channels);
    }
    free(parts);
    return 0;
}
