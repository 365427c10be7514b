/* What the loops over maps share: bf16, blocks of rows, and the passes over one block.
 *
 * A set is what shares statistics: a batch (Ioffe 2015) or, by group of channels, an image (Wu and He 2018). Sums are
 * float32 within BLOCK rows and float64 over blocks, in a fixed order: any number of threads gives the same bits.
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
static inline void spread(
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

static inline void apply(
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
static inline void add_blocks(const float *parts, size_t blocks, size_t channels, double *sums)
{
    memset(sums, 0, 2 * channels * sizeof *sums);
    for (size_t block = 0; block < blocks; block++, parts += 2 * channels)
        for (size_t c = 0; c < 2 * channels; c++)
            sums[c] += parts[c];
}

/* How ReLU's gradient is known: none there, from the values before it, or from its result. */
enum { PLAIN, FROM_VALUES, FROM_RESULT };

/* Σ g and Σ g (x − mean) of one block, g being the slope that ReLU lets pass; from its result, g is written as well. */
static inline void slopes(
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
