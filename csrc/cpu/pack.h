// Packs: as many numbers as a register of the instruction set compiled for holds, with the names of arithmetic.h.
// Operators (+ − × ÷, comparisons, shifts) are the compiler's own on vector types. To be included before formulas.h and
// noise.h: a template finds overloads for vector types only where they stand before it.
#pragma once

#include <cstddef>
#include <utility>

#include "../arithmetic.h"

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace vae_fast {
namespace VF_ISA {

#if defined(__AVX512F__) && defined(__AVX512DQ__) && defined(__AVX512BW__) && defined(__AVX512VL__)
constexpr int kPackBytes = 64;
#elif defined(__AVX2__)
constexpr int kPackBytes = 32;
#else
constexpr int kPackBytes = 16;
#endif

typedef float FloatPack __attribute__((vector_size(kPackBytes)));
typedef double DoublePack __attribute__((vector_size(kPackBytes)));
typedef int32_t Int32Pack __attribute__((vector_size(kPackBytes)));
typedef int64_t Int64Pack __attribute__((vector_size(kPackBytes)));

template <class E>
struct PackOf;
template <>
struct PackOf<float> {
  using type = FloatPack;
};
template <>
struct PackOf<double> {
  using type = DoublePack;
};
template <>
struct PackOf<int32_t> {
  using type = Int32Pack;
};
template <>
struct PackOf<int64_t> {
  using type = Int64Pack;
};
template <class E>
using Pack = typename PackOf<E>::type;

// How many elements a pack of E holds.
template <class E>
constexpr int kWidth = kPackBytes / static_cast<int>(sizeof(E));

template <>
struct Number<FloatPack> {
  using Element = float;
  using Int = Int32Pack;
};
template <>
struct Number<DoublePack> {
  using Element = double;
  using Int = Int64Pack;
};

VF_INLINE Int32Pack bits(FloatPack a) { return (Int32Pack)a; }
VF_INLINE Int64Pack bits(DoublePack a) { return (Int64Pack)a; }

// As unsigned numbers, which wrap around: of packs too a sanitizer reports what signed ones do.
typedef uint32_t UInt32Pack __attribute__((vector_size(kPackBytes)));
typedef uint64_t UInt64Pack __attribute__((vector_size(kPackBytes)));
VF_INLINE Int32Pack wrapping_sub(Int32Pack a, Int32Pack b) { return (Int32Pack)((UInt32Pack)a - (UInt32Pack)b); }
VF_INLINE Int64Pack wrapping_sub(Int64Pack a, Int64Pack b) { return (Int64Pack)((UInt64Pack)a - (UInt64Pack)b); }
VF_INLINE Int32Pack shift_left(Int32Pack a, int n) { return (Int32Pack)((UInt32Pack)a << n); }
VF_INLINE Int64Pack shift_left(Int64Pack a, int n) { return (Int64Pack)((UInt64Pack)a << n); }

VF_INLINE FloatPack to_float(Int32Pack a) { return __builtin_convertvector(a, FloatPack); }
VF_INLINE DoublePack to_float(Int64Pack a) { return __builtin_convertvector(a, DoublePack); }

VF_INLINE FloatPack mul(FloatPack a, FloatPack b) { return a * b; }
VF_INLINE FloatPack sub(FloatPack a, FloatPack b) { return a - b; }

VF_INLINE FloatPack select(Int32Pack mask, FloatPack a, FloatPack b) { return mask ? a : b; }
VF_INLINE DoublePack select(Int64Pack mask, DoublePack a, DoublePack b) { return mask ? a : b; }
VF_INLINE Int32Pack select(Int32Pack mask, Int32Pack a, Int32Pack b) { return mask ? a : b; }
VF_INLINE Int64Pack select(Int64Pack mask, Int64Pack a, Int64Pack b) { return mask ? a : b; }

#if defined(__AVX512F__) && defined(__AVX512DQ__)
VF_INLINE FloatPack fma(FloatPack a, FloatPack b, FloatPack c) { return (FloatPack)_mm512_fmadd_ps(a, b, c); }
VF_INLINE DoublePack fma(DoublePack a, DoublePack b, DoublePack c) { return (DoublePack)_mm512_fmadd_pd(a, b, c); }
VF_INLINE FloatPack sqrt(FloatPack a) { return (FloatPack)_mm512_maskz_sqrt_ps(0xFFFF, a); }
VF_INLINE DoublePack sqrt(DoublePack a) { return (DoublePack)_mm512_maskz_sqrt_pd(0xFF, a); }
VF_INLINE FloatPack ldexp_of(FloatPack a, FloatPack n) { return (FloatPack)_mm512_maskz_scalef_ps(0xFFFF, a, n); }
VF_INLINE DoublePack ldexp_of(DoublePack a, DoublePack n) { return (DoublePack)_mm512_maskz_scalef_pd(0xFF, a, n); }
VF_INLINE FloatPack ldexp_down(FloatPack a, FloatPack n) { return ldexp_of(a, n); }
VF_INLINE DoublePack ldexp_down(DoublePack a, DoublePack n) { return ldexp_of(a, n); }
// These give their second argument where one is NaN.
VF_INLINE FloatPack at_least(FloatPack x, float low) {
  return (FloatPack)_mm512_maskz_max_ps(0xFFFF, (__m512)(FloatPack{} + low), (__m512)x);
}
VF_INLINE FloatPack at_most(FloatPack x, float high) {
  return (FloatPack)_mm512_maskz_min_ps(0xFFFF, (__m512)(FloatPack{} + high), (__m512)x);
}
VF_INLINE DoublePack at_least(DoublePack x, double low) {
  return (DoublePack)_mm512_maskz_max_pd(0xFF, (__m512d)(DoublePack{} + low), (__m512d)x);
}
VF_INLINE DoublePack at_most(DoublePack x, double high) {
  return (DoublePack)_mm512_maskz_min_pd(0xFF, (__m512d)(DoublePack{} + high), (__m512d)x);
}
// 14 bits.
VF_INLINE FloatPack reciprocal_estimate(FloatPack a) { return (FloatPack)_mm512_maskz_rcp14_ps(0xFFFF, a); }
// A bit for every lane of a comparison's mask, from the first one on.
VF_INLINE unsigned bits_of(Int32Pack mask) { return _mm512_movepi32_mask((__m512i)mask); }
VF_INLINE unsigned bits_of(Int64Pack mask) { return _mm512_movepi64_mask((__m512i)mask); }
#elif defined(__AVX2__)
VF_INLINE FloatPack fma(FloatPack a, FloatPack b, FloatPack c) { return (FloatPack)_mm256_fmadd_ps(a, b, c); }
VF_INLINE DoublePack fma(DoublePack a, DoublePack b, DoublePack c) { return (DoublePack)_mm256_fmadd_pd(a, b, c); }
VF_INLINE FloatPack sqrt(FloatPack a) { return (FloatPack)_mm256_sqrt_ps(a); }
VF_INLINE DoublePack sqrt(DoublePack a) { return (DoublePack)_mm256_sqrt_pd(a); }
// These give their second argument where one is NaN.
VF_INLINE FloatPack at_least(FloatPack x, float low) { return (FloatPack)_mm256_max_ps(FloatPack{} + low, x); }
VF_INLINE FloatPack at_most(FloatPack x, float high) { return (FloatPack)_mm256_min_ps(FloatPack{} + high, x); }
VF_INLINE DoublePack at_least(DoublePack x, double low) { return (DoublePack)_mm256_max_pd(DoublePack{} + low, x); }
VF_INLINE DoublePack at_most(DoublePack x, double high) { return (DoublePack)_mm256_min_pd(DoublePack{} + high, x); }
VF_INLINE unsigned bits_of(Int32Pack mask) { return static_cast<unsigned>(_mm256_movemask_ps((__m256)mask)); }
VF_INLINE unsigned bits_of(Int64Pack mask) { return static_cast<unsigned>(_mm256_movemask_pd((__m256d)mask)); }
#elif defined(__x86_64__)
VF_INLINE FloatPack fma(FloatPack a, FloatPack b, FloatPack c) { return a * b + c; }
VF_INLINE DoublePack fma(DoublePack a, DoublePack b, DoublePack c) { return a * b + c; }
VF_INLINE FloatPack sqrt(FloatPack a) { return (FloatPack)_mm_sqrt_ps(a); }
VF_INLINE DoublePack sqrt(DoublePack a) { return (DoublePack)_mm_sqrt_pd(a); }
VF_INLINE unsigned bits_of(Int32Pack mask) { return static_cast<unsigned>(_mm_movemask_ps((__m128)mask)); }
VF_INLINE unsigned bits_of(Int64Pack mask) { return static_cast<unsigned>(_mm_movemask_pd((__m128d)mask)); }
#elif defined(__aarch64__)
VF_INLINE FloatPack fma(FloatPack a, FloatPack b, FloatPack c) {
  return (FloatPack)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
VF_INLINE DoublePack fma(DoublePack a, DoublePack b, DoublePack c) {
  return (DoublePack)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
VF_INLINE FloatPack sqrt(FloatPack a) { return (FloatPack)vsqrtq_f32((float32x4_t)a); }
VF_INLINE DoublePack sqrt(DoublePack a) { return (DoublePack)vsqrtq_f64((float64x2_t)a); }
VF_INLINE bool any(Int32Pack mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
VF_INLINE bool any(Int64Pack mask) { return vmaxvq_u32((uint32x4_t)mask) != 0; }
#else
template <class P>
VF_INLINE P each_fma(P a, P b, P c) {
  for (std::size_t i = 0; i < sizeof(P) / sizeof(Element<P>); ++i) a[i] = fma(Element<P>(a[i]), b[i], c[i]);
  return a;
}
template <class P>
VF_INLINE P each_sqrt(P a) {
  for (std::size_t i = 0; i < sizeof(P) / sizeof(Element<P>); ++i) a[i] = sqrt(Element<P>(a[i]));
  return a;
}
VF_INLINE FloatPack fma(FloatPack a, FloatPack b, FloatPack c) { return each_fma(a, b, c); }
VF_INLINE DoublePack fma(DoublePack a, DoublePack b, DoublePack c) { return each_fma(a, b, c); }
VF_INLINE FloatPack sqrt(FloatPack a) { return each_sqrt(a); }
VF_INLINE DoublePack sqrt(DoublePack a) { return each_sqrt(a); }
VF_INLINE bool any(Int64Pack mask) { return (mask[0] | mask[1]) != 0; }
VF_INLINE bool any(Int32Pack mask) { return any((Int64Pack)mask); }
#endif

#if defined(__x86_64__)
VF_INLINE bool any(Int32Pack mask) { return bits_of(mask) != 0; }
VF_INLINE bool any(Int64Pack mask) { return bits_of(mask) != 0; }
#else
template <class Mask>
VF_INLINE unsigned bits_of(Mask mask) {
  unsigned all = 0;
  for (unsigned k = 0; k < sizeof mask / sizeof mask[0]; ++k) all |= static_cast<unsigned>(mask[k] & 1) << k;
  return all;
}
#endif

#if VF_HAS_FMA
VF_INLINE FloatPack fused(FloatPack a, FloatPack b, FloatPack c) { return fma(a, b, c); }
#else
typedef double WidePack __attribute__((vector_size(2 * kPackBytes)));
VF_INLINE WidePack widened(FloatPack a) { return __builtin_convertvector(a, WidePack); }
VF_INLINE FloatPack fused(FloatPack a, FloatPack b, FloatPack c) {
  return __builtin_convertvector(widened(a) * widened(b) + widened(c), FloatPack);
}
#endif

template <class E>
VF_INLINE Pack<E> load(const E* from) {
  Pack<E> a;
  std::memcpy(&a, from, sizeof a);
  return a;
}
template <class E>
VF_INLINE void store(E* to, Pack<E> a) {
  std::memcpy(to, &a, sizeof a);
}

// The first n elements, n < kWidth<E>; zeros beyond them, which are not read.
template <class E>
VF_INLINE Pack<E> load(const E* from, int n) {
  Pack<E> a{};
  for (int i = 0; i < n; ++i) a[i] = from[i];
  return a;
}
template <class E>
VF_INLINE void store(E* to, Pack<E> a, int n) {
  for (int i = 0; i < n; ++i) to[i] = a[i];
}

}  // namespace VF_ISA
}  // namespace vae_fast
