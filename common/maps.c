/* Normalisation, sum with a shortcut and ReLU over maps in bf16 with channels last, each in one pass through memory.
 *
 * torch reads and writes a map for each of these in turn, and for statistics twice; where the caches no longer hold the
 * maps, that is half of a training step on a processor with a matrix unit. What is computed is common/maps.py's; here
 * are the loops.
 *
 * Shapes, all contiguous: x, y, shortcut and gradients (sets, rows, channels); coefficients (sets, channels);
 * weight and bias (channels). Channels are a multiple of LANES.
 */
#include "rows.h"

/* Which functions these are, and what they take: common/maps.py asks for this number before it calls any. */
int sonofed_loops(void)
{
    return 1;
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
