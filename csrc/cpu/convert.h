// Elements of one dtype to those of another, in runs: half types are bits here, widened exactly and rounded to nearest.
#pragma once

#include <type_traits>

#include "../views.h"
#include "pack.h"

namespace vae_fast {
namespace VF_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

VF_INLINE float widen(float a) { return a; }
VF_INLINE double widen(double a) { return a; }
VF_INLINE float widen(uint8_t a) { return static_cast<float>(a); }
VF_INLINE float widen(BFloat16 a) { return from_bits<float>(static_cast<int32_t>(uint32_t{a.bits} << 16)); }
VF_INLINE float widen(Float16 a) {
  const uint32_t magnitude = uint32_t{a.bits & 0x7FFFu} << 13;
  // Exponents from 15 to 127, or to 255 for infinity and NaN. Subnormals are normalised by a subtraction, which no
  // flush-to-zero mode changes.
  const uint32_t special = magnitude >= (31u << 23) ? (255u - 31u) << 23 : (127u - 15u) << 23;
  const float ordinary = from_bits<float>(static_cast<int32_t>(magnitude + special));
  const float tiny = from_bits<float>(static_cast<int32_t>(magnitude + (113u << 23))) - 0x1p-14f;
  const uint32_t value = static_cast<uint32_t>(bits(magnitude < (1u << 23) ? tiny : ordinary));
  return from_bits<float>(static_cast<int32_t>(value | uint32_t{a.bits & 0x8000u} << 16));
}

VF_INLINE void narrow(float a, float& to) { to = a; }
VF_INLINE void narrow(float a, double& to) { to = a; }
VF_INLINE void narrow(double a, double& to) { to = a; }
VF_INLINE void narrow(double a, float& to) { to = static_cast<float>(a); }
VF_INLINE void narrow(float a, BFloat16& to) {
  const uint32_t b = static_cast<uint32_t>(bits(a));
  const uint32_t rounded = (b + 0x7FFFu + (b >> 16 & 1u)) >> 16;
  to.bits = static_cast<uint16_t>((b & 0x7FFFFFFFu) > 0x7F800000u ? 0x7FC0u : rounded);
}
VF_INLINE void narrow(float a, Float16& to) {
  const uint32_t b = static_cast<uint32_t>(bits(a)), sign = b >> 16 & 0x8000u, magnitude = b & 0x7FFFFFFFu;
  // Normal results: round at bit 13, rebias. Subnormal ones: an addition puts the last place where it has to be.
  const uint32_t normal = (magnitude - (112u << 23) + 0xFFFu + (magnitude >> 13 & 1u)) >> 13;
  const float shifted = from_bits<float>(static_cast<int32_t>(magnitude)) + 0.5f;
  const uint32_t tiny = static_cast<uint32_t>(bits(shifted)) - 0x3F000000u;
  uint32_t h = magnitude < (113u << 23) ? tiny : normal;
  h = magnitude >= 0x477FF000u ? 0x7C00u : h;
  h = magnitude > 0x7F800000u ? 0x7E00u : h;
  to.bits = static_cast<uint16_t>(h | sign);
}
VF_INLINE void narrow(double a, BFloat16& to) { narrow(static_cast<float>(a), to); }
VF_INLINE void narrow(double a, Float16& to) { narrow(static_cast<float>(a), to); }

template <class T, class S>
VF_INLINE void read_run(T* to, const S* from, int64_t stride, int n) {
  if (stride == 1) {
    int i = 0;
#if defined(__F16C__)
    if constexpr (sizeof(T) == 4 && std::is_same_v<S, Float16>) {
      for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
#endif
    for (; i < n; ++i) to[i] = static_cast<T>(widen(from[i]));
  } else if (stride == 0) {
    const T value = static_cast<T>(widen(*from));
    for (int i = 0; i < n; ++i) to[i] = value;
  } else {
    for (int i = 0; i < n; ++i) to[i] = static_cast<T>(widen(from[i * stride]));
  }
}

template <class T, class D>
VF_INLINE void write_run(const T* from, D* to, int64_t stride, int n) {
  if (stride == 1) {
    int i = 0;
#if defined(__F16C__)
    if constexpr (sizeof(T) == 4 && std::is_same_v<D, Float16>) {
      for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
    }
#endif
    for (; i < n; ++i) narrow(from[i], to[i]);
  } else {
    for (int i = 0; i < n; ++i) narrow(from[i], to[i * stride]);
  }
}

}  // namespace VF_ISA
}  // namespace vae_fast
