// Elements of the storage dtypes as numbers to compute with: half types are bits, widened exactly, rounded to nearest.
#pragma once

#include <type_traits>

#include "arithmetic.h"
#include "views.h"

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#endif

namespace vae_fast {
namespace VF_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};
// Not C++'s bool, which may hold 0 and 1 only.
struct Bool {
  uint8_t byte;
};

VF_INLINE float widen(float a) { return a; }
VF_INLINE double widen(double a) { return a; }
VF_INLINE float widen(uint8_t a) { return static_cast<float>(a); }
VF_INLINE float widen(Bool a) { return a.byte != 0 ? 1.0f : 0.0f; }
VF_INLINE float widen(BFloat16 a) { return from_bits<float>(static_cast<int32_t>(uint32_t{a.bits} << 16)); }
VF_INLINE float widen(Float16 a) {
#ifdef __CUDA_ARCH__
  return __half2float(__ushort_as_half(a.bits));
#else
  const uint32_t magnitude = uint32_t{a.bits & 0x7FFFu} << 13;
  // Exponents from 15 to 127, or to 255 for infinity and NaN. Subnormals are normalised by a subtraction, which no
  // flush-to-zero mode changes.
  const uint32_t special = magnitude >= (31u << 23) ? (255u - 31u) << 23 : (127u - 15u) << 23;
  const float ordinary = from_bits<float>(static_cast<int32_t>(magnitude + special));
  const float tiny = from_bits<float>(static_cast<int32_t>(magnitude + (113u << 23))) - 0x1p-14f;
  const uint32_t value = static_cast<uint32_t>(bits(magnitude < (1u << 23) ? tiny : ordinary));
  return from_bits<float>(static_cast<int32_t>(value | uint32_t{a.bits & 0x8000u} << 16));
#endif
}

// An element in the type computed in, rounded once.
template <class T, class S>
VF_INLINE T number_of(S a) {
  if constexpr (std::is_integral_v<S>) {
    return static_cast<T>(a);
  } else {
    return static_cast<T>(widen(a));
  }
}

VF_INLINE void narrow(float a, float& to) { to = a; }
VF_INLINE void narrow(float a, double& to) { to = a; }
VF_INLINE void narrow(double a, double& to) { to = a; }
VF_INLINE void narrow(double a, float& to) { to = static_cast<float>(a); }
VF_INLINE void narrow(float a, BFloat16& to) {
#ifdef __CUDA_ARCH__
  to.bits = __bfloat16_as_ushort(__float2bfloat16_rn(a));
#else
  const uint32_t b = static_cast<uint32_t>(bits(a));
  const uint32_t rounded = (b + 0x7FFFu + (b >> 16 & 1u)) >> 16;
  to.bits = static_cast<uint16_t>((b & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
#endif
}
VF_INLINE void narrow(float a, Float16& to) {
#ifdef __CUDA_ARCH__
  to.bits = __half_as_ushort(__float2half_rn(a));
#else
  const uint32_t b = static_cast<uint32_t>(bits(a)), sign = b >> 16 & 0x8000u, magnitude = b & 0x7FFFFFFFu;
  // Normal results: round at bit 13, rebias. Subnormal ones: an addition puts the last place where it has to be.
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  const float shifted = from_bits<float>(static_cast<int32_t>(magnitude)) + 0.5f;
  const uint32_t tiny = static_cast<uint32_t>(bits(shifted)) - 0x3F000000u;
  uint32_t h = magnitude < (113u << 23) ? tiny : normal;
  h = magnitude >= 0x477FF000u ? 0x7C00u : h;
  h = magnitude > 0x7F800000u ? 0x7E00u : h;
  to.bits = static_cast<uint16_t>(h | sign);
#endif
}

// The float that a lies on or beside, of two the one whose last bit is 1: rounding it to a half type rounds a once.
VF_INLINE float to_odd(double a) {
  const float near = static_cast<float>(a);
  const double back = static_cast<double>(near);
  if (back == a || a != a) return near;
  const bool beyond = (back < 0 ? -back : back) > (a < 0 ? -a : a);
  return from_bits<float>((bits(near) - (beyond ? 1 : 0)) | 1);
}
VF_INLINE void narrow(double a, BFloat16& to) { narrow(to_odd(a), to); }
VF_INLINE void narrow(double a, Float16& to) { narrow(to_odd(a), to); }

}  // namespace VF_ISA
}  // namespace vae_fast
