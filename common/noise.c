/* Sums with noise, in one pass through memory; see client/private_gradients.py. */
#include "rows.h"

#include <immintrin.h>

/* glibc's vector functions (libmvec), within 4 units in the last place. */
__m512d _ZGVeN8v_log(__m512d);
__m512 _ZGVeN16v_cosf(__m512);
__m512 _ZGVeN16v_sinf(__m512);

#define SIXTEEN 16

/* √(−2 log u) of eight words, u = (word / 2¹¹, rounded down, + ½) / 2⁵³. */
static inline __m256 radius_of(__mmask8 some, const uint64_t *words)
{
    __m512i word = _mm512_srli_epi64(_mm512_maskz_loadu_epi64(some, words), 11);
    __m512d u = _mm512_mul_pd(_mm512_add_pd(_mm512_cvtepu64_pd(word), _mm512_set1_pd(.5)), _mm512_set1_pd(0x1p-53));
    return _mm512_cvtpd_ps(_mm512_sqrt_pd(_mm512_mul_pd(_ZGVeN8v_log(u), _mm512_set1_pd(-2))));
}

typedef struct {
    __m512 sigma, finer, coarser;
} Scales;

static inline void add(Scales scales, __m512 normal, __mmask16 some, const float *sums, float *means)
{
    __m512 value = _mm512_add_ps(_mm512_mul_ps(normal, scales.sigma), _mm512_maskz_loadu_ps(some, sums));
    value = _mm512_roundscale_ps(_mm512_mul_ps(value, scales.finer), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    _mm512_mask_storeu_ps(means, some, _mm512_mul_ps(value, scales.coarser));
}

static inline __mmask16 first(size_t values)
{
    return values < SIXTEEN ? (__mmask16)((1u << values) - 1) : 0xffff;
}

/* means = (sums + sigma · normal, rounded to the grid) / divisor. Normal values are made of ⌈count / 2⌉ words and as
 * many turns, those of cosines before those of sines (Box and Muller 1958). Returns 0.
 */
int sonofed_add_noise(
    const uint64_t *words, const int32_t *turns, size_t count, const float *sums, double sigma, double grid,
    double divisor, float *means)
{
    Scales scales = {
        _mm512_set1_ps((float)sigma), _mm512_set1_ps((float)(1 / grid)), _mm512_set1_ps((float)(grid / divisor))};
    size_t half = (count + 1) / 2;
    for (size_t i = 0; i < half; i += SIXTEEN) {
        __mmask16 some = first(half - i), others = i + half < count ? first(count - half - i) : 0;
        __m512 radius = _mm512_insertf32x8(
            _mm512_castps256_ps512(radius_of((__mmask8)some, words + i)),
            radius_of((__mmask8)(some >> 8), words + i + 8), 1);
        __m512 turn = _mm512_mul_ps(
            _mm512_cvtepi32_ps(_mm512_maskz_loadu_epi32(some, turns + i)),
            _mm512_set1_ps((float)(3.14159265358979323846 * 0x1p-31)));
        add(scales, _mm512_mul_ps(radius, _ZGVeN16v_cosf(turn)), some, sums + i, means + i);
        add(scales, _mm512_mul_ps(radius, _ZGVeN16v_sinf(turn)), others, sums + half + i, means + half + i);
    }
    return 0;
}
