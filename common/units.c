/* Gradients of several units in bf16, (units, values): their squared norms, and the sum of clipped ones, each in one
 * pass through memory instead of by way of a copy in float32; see client/joint_gradients.py.
 *
 * Squares are added in float32 over 1,024 values at most, then in float64, and units in their order: any number of
 * threads gives the same bits.
 */
#include "rows.h"

#define SQUARED 1024
#define PIECE ((size_t)16 * SQUARED)

static double squares_of(const bf16 *restrict row, size_t values)
{
    double sum = 0;
    for (size_t start = 0; start < values; start += SQUARED) {
        size_t end = start + SQUARED < values ? start + SQUARED : values, i = start;
        float lanes[LANES] = {0};
        for (; i + LANES <= end; i += LANES)
            for (int lane = 0; lane < LANES; lane++)
                lanes[lane] += up(row[i + lane]) * up(row[i + lane]);
        for (; i < end; i++)
            lanes[i % LANES] += up(row[i]) * up(row[i]);
        for (int lane = 0; lane < LANES; lane++)
            sum += lanes[lane];
    }
    return sum;
}

/* Σ x² of each unit. Returns 0, or 1 without memory. */
int sonofed_squares(const bf16 *rows, size_t units, size_t values, int threads, double *squares)
{
    size_t pieces = (values + PIECE - 1) / PIECE;
    double *parts = malloc((units * pieces + 1) * sizeof *parts);
    if (!parts)
        return 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t task = 0; task < units * pieces; task++) {
        size_t start = task % pieces * PIECE, left = values - start;
        parts[task] = squares_of(rows + task / pieces * values + start, left < PIECE ? left : PIECE);
    }
    for (size_t unit = 0; unit < units; unit++) {
        squares[unit] = 0;
        for (size_t piece = 0; piece < pieces; piece++)
            squares[unit] += parts[unit * pieces + piece];
    }
    free(parts);
    return 0;
}

/* Add Σ factor · row to `total`. Rows with a factor of 0 are not read: they may hold what is no number. */
int sonofed_add_scaled(
    const bf16 *rows, size_t units, size_t values, const float *factors, int threads, float *total)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (size_t start = 0; start < values; start += PIECE / 4) {
        size_t end = start + PIECE / 4 < values ? start + PIECE / 4 : values;
        for (size_t unit = 0; unit < units; unit++) {
            const bf16 *restrict row = rows + unit * values;
            float factor = factors[unit];
            if (factor == 0)
                continue;
#pragma GCC ivdep
            for (size_t i = start; i < end; i++)
                total[i] += factor * up(row[i]);
        }
    }
    return 0;
}
