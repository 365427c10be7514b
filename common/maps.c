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

#include <omp.h>

/* Which functions these are, and what they take: common/maps.py asks for this number before it calls any. */
int sonofed_loops(void)
{
    return 4;
}

typedef void Step(const void *job, size_t index);

/* Measure each block, settle each set, finish each block: by a set at a time where that keeps all threads busy, so that
 * its values are still in the caches when they are needed again; else all blocks, and what came last again first.
 */
static void in_steps(Shape shape, int threads, const void *job, Step *measure, Step *settle, Step *finish)
{
    size_t blocks = blocks_of(shape), tasks = shape.sets * blocks;
    if (shape.sets >= 4 * (size_t)threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
        for (size_t set = 0; set < shape.sets; set++) {
            for (size_t block = 0; block < blocks; block++)
                measure(job, set * blocks + block);
            settle(job, set);
            for (size_t block = blocks; block-- > 0;)
                finish(job, set * blocks + block);
        }
    } else {
#pragma omp parallel num_threads(threads)
        {
            size_t all = omp_get_num_threads(), own = omp_get_thread_num();
            size_t from = tasks * own / all, to = tasks * (own + 1) / all;
            for (size_t task = from; task < to; task++)
                measure(job, task);
#pragma omp barrier
#pragma omp for schedule(static)
            for (size_t set = 0; set < shape.sets; set++)
                settle(job, set);
            for (size_t task = to; task-- > from;)
                finish(job, task);
        }
    }
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

typedef struct {
    Shape shape;
    const bf16 *x, *shortcut;
    const float *weight, *bias;
    double eps;
    int rectify;
    bf16 *y;
    float *mean, *variance, *scale, *offset, *parts;
    double *sums;
} Forward;

static void measure_values(const void *job, size_t task)
{
    const Forward *f = job;
    size_t blocks = blocks_of(f->shape), channels = f->shape.channels;
    const bf16 *set = f->x + task / blocks * f->shape.rows * channels;
    spread(
        f->x + start_of(f->shape, task), set, rows_in(f->shape, task % blocks), channels,
        f->parts + 2 * task * channels);
}

static void settle_values(const void *job, size_t set)
{
    const Forward *f = job;
    size_t blocks = blocks_of(f->shape), at = set * f->shape.channels;
    add_blocks(f->parts + 2 * at * blocks, blocks, f->shape.channels, f->sums + 2 * at);
    coefficients(
        f->shape, f->sums + 2 * at, f->x + at * f->shape.rows, f->weight, f->bias, f->eps, f->mean + at,
        f->variance + at, f->scale + at, f->offset + at);
}

static void finish_values(const void *job, size_t task)
{
    const Forward *f = job;
    size_t blocks = blocks_of(f->shape), from = start_of(f->shape, task), at = task / blocks * f->shape.channels;
    apply(
        f->x + from, f->shortcut ? f->shortcut + from : NULL, rows_in(f->shape, task % blocks), f->shape.channels,
        f->scale + at, f->offset + at, f->rectify, f->y + from);
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
    float *parts = malloc(sets * blocks_of(shape) * 2 * channels * sizeof *parts);
    double *sums = malloc(sets * 2 * channels * sizeof *sums);
    int ready = parts && sums;
    if (ready) {
        Forward job = {
            shape, x, shortcut, weight, bias, eps, rectify, y, mean, variance, scale, offset, parts, sums,
        };
        in_steps(shape, threads, &job, measure_values, settle_values, finish_values);
    }
    free(parts);
    free(sums);
    return !ready;
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

typedef struct {
    Shape shape;
    const bf16 *dy, *x, *y;
    const float *weight, *mean, *variance, *scale, *offset;
    double eps;
    int how;
    bf16 *g, *dx;
    float *of_weight, *of_bias, *parts, *by;
    double *sums;
} Backward;

static void measure_slopes(const void *job, size_t task)
{
    const Backward *b = job;
    size_t blocks = blocks_of(b->shape), channels = b->shape.channels;
    size_t from = start_of(b->shape, task), at = task / blocks * channels;
    slopes(
        b->dy + from, b->x + from, b->y ? b->y + from : NULL, b->g ? b->g + from : NULL,
        rows_in(b->shape, task % blocks), channels, b->scale + at, b->offset + at, b->mean + at, b->how,
        b->parts + 2 * task * channels);
}

static void settle_slopes(const void *job, size_t set)
{
    const Backward *b = job;
    size_t blocks = blocks_of(b->shape), channels = b->shape.channels, at = set * channels;
    add_blocks(b->parts + 2 * at * blocks, blocks, channels, b->sums + 2 * at);
    along_statistics(
        b->shape, b->sums + 2 * at, b->weight, b->mean + at, b->variance + at, b->eps, b->of_weight + at,
        b->of_bias + at, b->by + 2 * at, b->by + 2 * at + channels);
}

static void finish_slopes(const void *job, size_t task)
{
    const Backward *b = job;
    size_t blocks = blocks_of(b->shape), channels = b->shape.channels;
    size_t from = start_of(b->shape, task), at = task / blocks * channels;
    descend(
        (b->how == FROM_RESULT ? b->g : b->dy) + from, b->x + from, rows_in(b->shape, task % blocks), channels,
        b->scale + at, b->offset + at, b->by + 2 * at, b->by + 2 * at + channels, b->how, b->dx + from);
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
    float *parts = malloc(sets * blocks_of(shape) * 2 * channels * sizeof *parts);
    float *by = malloc(sets * 2 * channels * sizeof *by);
    double *sums = malloc(sets * 2 * channels * sizeof *sums);
    int ready = parts && by && sums;
    if (ready) {
        Backward job = {
            shape, dy, x, y, weight, mean, variance, scale, offset, eps, how, g, dx, of_weight, of_bias, parts, by,
            sums,
        };
        in_steps(shape, threads, &job, measure_slopes, settle_slopes, finish_slopes);
    }
    free(parts);
    free(by);
    free(sums);
    return !ready;
}
