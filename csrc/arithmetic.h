// The arithmetic that formulas.h and noise.h are written in, for one number on a host or a device. cpu/pack.h has the
// same names for packs of numbers; a formula is a template over either.
//
// Everything is compiled without contraction: a multiply-add is fused where `fma` says so and nowhere else.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __CUDACC__
#define VF_INLINE __host__ __device__ __forceinline__
#define VF_UNROLL _Pragma("unroll")
#else
#define VF_INLINE inline __attribute__((always_inline))
#define VF_UNROLL
#endif

// Code compiled for an instruction set lives in a namespace of that set's name: two compilations share no symbol.
#ifndef VF_ISA
#define VF_ISA scalar
#endif

#if defined(__CUDA_ARCH__) || defined(__FMA__) || defined(__AVX512F__) || defined(__aarch64__)
#define VF_HAS_FMA 1
#else
#define VF_HAS_FMA 0
#endif

namespace vae_fast {
namespace VF_ISA {

// Number<T>::Element is the type of one number of T, Number<T>::Int the signed integers with its bits.
template <class T>
struct Number;
template <>
struct Number<float> {
  using Element = float;
  using Int = int32_t;
};
template <>
struct Number<double> {
  using Element = double;
  using Int = int64_t;
};
template <class T>
using Element = typename Number<T>::Element;
template <class T>
using Int = typename Number<T>::Int;

// The sign's bit of a number of type E.
template <class E>
constexpr Int<E> kSignBit = static_cast<Int<E>>(uint64_t{1} << (8 * sizeof(E) - 1));

// A constant in every lane of a T.
template <class T>
VF_INLINE T splat(Element<T> value) {
  return T{} + value;
}

// One rounded operation each, whatever a compiler is told about contraction.
#ifdef __CUDA_ARCH__
VF_INLINE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
VF_INLINE double fma(double a, double b, double c) { return __fma_rn(a, b, c); }
VF_INLINE float sqrt(float a) { return __fsqrt_rn(a); }
VF_INLINE double sqrt(double a) { return __dsqrt_rn(a); }
VF_INLINE float mul(float a, float b) { return __fmul_rn(a, b); }
VF_INLINE float sub(float a, float b) { return __fsub_rn(a, b); }
#else
VF_INLINE float fma(float a, float b, float c) { return VF_HAS_FMA ? __builtin_fmaf(a, b, c) : a * b + c; }
VF_INLINE double fma(double a, double b, double c) { return VF_HAS_FMA ? __builtin_fma(a, b, c) : a * b + c; }
VF_INLINE float sqrt(float a) { return __builtin_sqrtf(a); }
VF_INLINE double sqrt(double a) { return __builtin_sqrt(a); }
VF_INLINE float mul(float a, float b) { return a * b; }
VF_INLINE float sub(float a, float b) { return a - b; }
#endif

// a·b + c rounded once, on processors without an instruction for it too: by way of double, whose product is exact and
// whose sum is rounded a second time. So it is right for what the noise asks and no more (vae_fast/noise.py).
VF_INLINE float fused(float a, float b, float c) {
  if (VF_HAS_FMA) return fma(a, b, c);
  return static_cast<float>(static_cast<double>(a) * static_cast<double>(b) + static_cast<double>(c));
}

VF_INLINE int32_t bits(float a) {
  int32_t b;
  std::memcpy(&b, &a, sizeof b);
  return b;
}
VF_INLINE int64_t bits(double a) {
  int64_t b;
  std::memcpy(&b, &a, sizeof b);
  return b;
}
template <class T>
VF_INLINE T from_bits(Int<T> b) {
  static_assert(sizeof(T) == sizeof b, "a number and its bits");
  T a;
  std::memcpy(&a, &b, sizeof a);
  return a;
}

// a − b and 2ⁿa modulo 2³² or 2⁶⁴.
VF_INLINE int32_t wrapping_sub(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) - static_cast<uint32_t>(b));
}
VF_INLINE int64_t wrapping_sub(int64_t a, int64_t b) {
  return static_cast<int64_t>(static_cast<uint64_t>(a) - static_cast<uint64_t>(b));
}
VF_INLINE int32_t shift_left(int32_t a, int n) { return static_cast<int32_t>(static_cast<uint32_t>(a) << n); }
VF_INLINE int64_t shift_left(int64_t a, int n) { return static_cast<int64_t>(static_cast<uint64_t>(a) << n); }

VF_INLINE float to_float(int32_t a) { return static_cast<float>(a); }
VF_INLINE double to_float(int64_t a) { return static_cast<double>(a); }

VF_INLINE float select(bool mask, float a, float b) { return mask ? a : b; }
VF_INLINE double select(bool mask, double a, double b) { return mask ? a : b; }
VF_INLINE int32_t select(bool mask, int32_t a, int32_t b) { return mask ? a : b; }
VF_INLINE int64_t select(bool mask, int64_t a, int64_t b) { return mask ? a : b; }

VF_INLINE bool any(bool mask) { return mask; }

}  // namespace VF_ISA
}  // namespace vae_fast
