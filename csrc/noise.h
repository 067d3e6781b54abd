// The noise ε in C++: the integers and the float32 operations of vae_fast/noise.py, in its order, so with its bits.
//
// Philox4x32-10 is a template over W, words of 32 bits (one, or a pack of them), Box–Muller over T, float32 numbers.
// mul, add and sub of arithmetic.h are one correctly rounded operation each, which no compiler fuses.
#pragma once

#include "arithmetic.h"

namespace vae_fast {
namespace VF_ISA {

// One word of 32 bits, and what Philox does with it.
VF_INLINE uint64_t product(uint32_t a, uint32_t b) { return uint64_t{a} * b; }
VF_INLINE uint32_t high(uint64_t p) { return static_cast<uint32_t>(p >> 32); }
VF_INLINE uint32_t low(uint64_t p) { return static_cast<uint32_t>(p); }
VF_INLINE uint32_t xor3(uint32_t a, uint32_t b, uint32_t key) { return a ^ b ^ key; }

// Philox4x32-10 (Salmon et al. 2011) of a counter of four words under a 64-bit key.
template <class W>
VF_INLINE void philox4x32(W& c0, W& c1, W& c2, W& c3, uint64_t key) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto p0 = product(c0, 0xD2511F53u), p1 = product(c2, 0xCD9E8D57u);
    c0 = xor3(high(p1), c1, k0);
    c1 = low(p1);
    c2 = xor3(high(p0), c3, k1);
    c3 = low(p0);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

// a, or −a where `sign` is negative.
template <class T>
VF_INLINE T change_sign(T a, Int<T> sign) {
  return from_bits<T>(bits(a) ^ (sign & kSignBit<Element<T>>));
}

template <class T>
VF_INLINE T radius(Int<T> x) {
  // x < 0: the word is in the upper half. ~x is its distance from the top, so both ends of (0, 1) keep their digits.
  const auto upper = x < 0;
  const T q = mul(add(to_float(select(upper, ~x, x)), splat<T>(0.5f)), splat<T>(0x1p-32f));
  const T fraction = select(upper, sub(splat<T>(1.0f), q), q);
  // fraction = 2ᵏ·mantissa, the mantissa between √½ and √2; k·2²³ is the difference of their bits.
  const Int<T> b = bits(fraction), exponent = (b - 0x3F3504F3) & ~0x7FFFFF;
  const T mantissa = from_bits<T>(b - exponent);
  const T t = select(exponent == 0, -q, sub(mantissa, splat<T>(1.0f)));
  T tail = add(mul(t, splat<T>(-0.17400802671909332f)), splat<T>(0.2853386402130127f));
  tail = add(mul(tail, t), splat<T>(-0.2982901632785797f));
  tail = add(mul(tail, t), splat<T>(0.33155304193496704f));
  tail = add(mul(tail, t), splat<T>(-0.399262011051178f));
  tail = add(mul(tail, t), splat<T>(0.5000267028808594f));
  tail = add(mul(tail, t), splat<T>(-0.6666781902313232f));
  const T inner = sub(mul(t, add(mul(t, tail), splat<T>(1.0f))), splat<T>(2.0f));
  return sqrt(add(mul(to_float(exponent), splat<T>(-0x1p-23f * 1.3862943649291992f)), mul(t, inner)));
}

template <class T>
VF_INLINE void cos_sin(Int<T> x, T& cos, T& sin) {
  // The two upper bits of x + 2²⁹ are the quarter, the others the angle in it.
  const Int<T> turned = wrapping_add(x, 1 << 29), angle = (turned & 0x3FFFFFFF) - (1 << 29);
  const T w = mul(add(to_float(angle), splat<T>(0.5f)), splat<T>(0x1p-32f));
  const T u = mul(w, w);
  T s = add(mul(u, splat<T>(-76.82975769042969f)), splat<T>(81.62667083740234f));
  s = add(mul(s, u), splat<T>(-41.34186935424805f));
  s = mul(w, add(mul(s, u), splat<T>(6.2831854820251465f)));
  T c = add(mul(u, splat<T>(-83.67292785644531f)), splat<T>(64.92339324951172f));
  c = add(mul(u, add(mul(c, u), splat<T>(-19.739168167114258f))), splat<T>(1.0f));
  const auto odd = (turned & 0x40000000) != 0;
  // Negative: the cosine in quarters 1 and 2, the sine in 2 and 3.
  cos = change_sign(select(odd, s, c), wrapping_add(turned, 1 << 30));
  sin = change_sign(select(odd, c, s), turned);
}

// Words (x0, x1) make a pair of normals.
template <class T>
VF_INLINE void box_muller(Int<T> x0, Int<T> x1, T& first, T& second) {
  const T r = radius<T>(x0);
  T cos, sin;
  cos_sin(x1, cos, sin);
  first = mul(r, cos);
  second = mul(r, sin);
}

}  // namespace VF_ISA
}  // namespace vae_fast
