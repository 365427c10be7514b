/* The stem's maximum of 3 × 3 with stride 2, and its gradient, in one pass through memory; see common/pooling.py. */
#include "rows.h"

#include <immintrin.h>

/* Order of bf16 as whole numbers; what is no number comes last of all. Given an order, the value again. */
static inline __m512i rank_of(__m512i values)
{
    __m512i size = _mm512_set1_epi16(0x7fff), sign = _mm512_srai_epi16(values, 15);
    return _mm512_xor_si512(values, _mm512_and_si512(sign, size));
}

static inline __m512i number_or_last(__m512i values)
{
    __m512i size = _mm512_and_si512(values, _mm512_set1_epi16(0x7fff));
    __mmask32 none = _mm512_cmpgt_epi16_mask(size, _mm512_set1_epi16(0x7f80));
    return _mm512_mask_mov_epi16(values, none, _mm512_set1_epi16(0x7fff));
}

/* Take what is larger at `at` as best, and `tap` as its place. */
static inline void compare(const bf16 *at, int tap, __m512i *best, __m512i *place)
{
    __m512i rank = rank_of(number_or_last(_mm512_loadu_si512(at)));
    __mmask32 over = _mm512_cmpgt_epi16_mask(rank, *best);
    *best = _mm512_mask_mov_epi16(*best, over, rank);
    *place = _mm512_mask_mov_epi16(*place, over, _mm512_set1_epi16((short)tap));
}

/* The largest of 3 × 3 values with stride 2, for one row of results, and which of the nine it is (the first). */
static void largest(
    const bf16 *restrict z, size_t row, size_t width, size_t channels, bf16 *restrict maxima, uint8_t *restrict places)
{
    const bf16 *middle = z + 2 * row * width * channels;
    for (size_t column = 0; column < width / 2; column++)
        for (size_t first = 0; first < channels; first += LANES) {
            __m512i best = _mm512_set1_epi16(INT16_MIN), place = _mm512_set1_epi16(4);
            for (int down_by = row ? 0 : 1; down_by < 3; down_by++) {
                const bf16 *at = middle + ((down_by - 1) * (ptrdiff_t)width + 2 * column) * channels + first;
                if (column)
                    compare(at - channels, 3 * down_by, &best, &place);
                compare(at, 3 * down_by + 1, &best, &place);
                compare(at + channels, 3 * down_by + 2, &best, &place);
            }
            size_t to = column * channels + first;
            _mm512_storeu_si512(maxima + to, rank_of(best));
            _mm256_storeu_si256((__m256i *)(places + to), _mm512_cvtepi16_epi8(place));
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

/* What one position hands on: its value's line, and the slopes of the windows whose largest it was. */
typedef struct {
    const bf16 *slope;
    const uint8_t *place;
    uint8_t tap; /* NONE where there is no such window */
} Window;

#define NONE 255

static inline __m512 widened(__m256i values)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(values), 16));
}

static inline __attribute__((always_inline)) void hand_on(
    const Window *windows, int count, const bf16 *restrict value, const float *restrict scale,
    const float *restrict by_x, const float *restrict by_one, bf16 *restrict dz)
{
    __m512 low = _mm512_setzero_ps(), high = low;
    for (int window = 0; window < count; window++) {
        __m256i place = _mm256_loadu_si256((const __m256i *)windows[window].place);
        __mmask32 here = _mm256_cmpeq_epi8_mask(place, _mm256_set1_epi8((char)windows[window].tap));
        __m512i kept = _mm512_maskz_loadu_epi16(here, windows[window].slope);
        low = _mm512_add_ps(low, widened(_mm512_castsi512_si256(kept)));
        high = _mm512_add_ps(high, widened(_mm512_extracti64x4_epi64(kept, 1)));
    }
    float sum[LANES];
    _mm512_storeu_ps(sum, low);
    _mm512_storeu_ps(sum + LANES / 2, high);
#pragma GCC ivdep
    for (int c = 0; c < LANES; c++)
        dz[c] = down(sum[c] * scale[c] + (up(value[c]) * by_x[c] + by_one[c]));
}

/* One row of dz. Window i begins at row 2i − 1: an even row is the middle of one, an odd one end and start of two. */
static void hand_on_row(
    const bf16 *g, const uint8_t *places, const bf16 *z, size_t row, size_t rows, size_t columns, size_t channels,
    const float *scale, const float *by_x, const float *by_one, bf16 *dz)
{
    size_t line = columns * channels, above = row / 2 * line;
    int odd = row % 2, last = row / 2 + 1 >= rows;
    for (size_t column = 0; column < columns; column++)
        for (size_t first = 0; first < channels; first += LANES) {
            size_t at = above + column * channels + first, right = column + 1 < columns ? channels : 0;
            uint8_t left_tap = odd ? 7 : 4, end = right ? left_tap - 1 : NONE;
            size_t below = odd && !last ? line : 0;
            uint8_t under = below ? 1 : NONE, corner = below && right ? 0 : NONE;
            Window even[] = {{g + at, places + at, left_tap}, {g + at + below, places + at + below, under}};
            Window uneven[] = {
                {g + at, places + at, left_tap + 1},
                {g + at + right, places + at + right, end},
                {g + at + below, places + at + below, below ? 2 : NONE},
                {g + at + below + right, places + at + below + right, corner},
            };
            size_t to = 2 * column * channels + first, next = to + channels;
            if (odd) {
                hand_on(even, 2, z + to, scale + first, by_x + first, by_one + first, dz + to);
                hand_on(uneven, 4, z + next, scale + first, by_x + first, by_one + first, dz + next);
            } else {
                hand_on(even, 1, z + to, scale + first, by_x + first, by_one + first, dz + to);
                hand_on(uneven, 2, z + next, scale + first, by_x + first, by_one + first, dz + next);
            }
        }
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
        size_t image = task / height, of_image = image * channels, maxima = image * rows * columns * channels;
        size_t at = task * width * channels;
        hand_on_row(
            g + maxima, places + maxima, z + at, task % height, rows, columns, channels, scale + of_image,
            by_x + of_image, by_one + of_image, dz + at);
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
