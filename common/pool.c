/* The stem's maximum of 3 × 3 with stride 2, and its gradient, in one pass through memory each; see common/pooling.py. */
#include "rows.h"

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
