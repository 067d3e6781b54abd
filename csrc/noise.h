// The noise ε in C++: the integers and the float32 operations of vae_fast/noise.py, in its order, so with its bits.
//
// Errors are the worst over every word, on every instruction set, whose bits are the same (tests/test_noise_words.py);
// the polynomials' are of these coefficients (tools/coefficients.py).
//
// Philox4x32-10 is a template over W, words of 32 bits (one, or a pack of them), Box–Muller over T, float32 numbers.
// mul, sub and fused of arithmetic.h are one correctly rounded operation each, which no compiler fuses further.
#pragma once

#include "arithmetic.h"

namespace vae_fast {
namespace VF_ISA {

// Words of a Philox counter, and normals made of them.
constexpr int kPerCounter = 4;

// One word of 32 bits, and what Philox does with it.
VF_INLINE uint64_t product(uint32_t a, uint32_t b) { return uint64_t{a} * b; }
VF_INLINE uint32_t high(uint64_t p) { return static_cast<uint32_t>(p >> 32); }
VF_INLINE uint32_t low(uint64_t p) { return static_cast<uint32_t>(p); }
VF_INLINE uint32_t xor3(uint32_t a, uint32_t b, uint32_t key) { return a ^ b ^ key; }

// The keys of Philox's rounds, from the seed.
struct SeedKeys {
  uint64_t seed;

  VF_INLINE uint32_t first(int round) const {
    return static_cast<uint32_t>(seed) + static_cast<uint32_t>(round) * 0x9E3779B9u;
  }
  VF_INLINE uint32_t second(int round) const {
    return static_cast<uint32_t>(seed >> 32) + static_cast<uint32_t>(round) * 0xBB67AE85u;
  }
};

constexpr int kRounds = 10;

// Philox4x32-10 (Salmon et al. 2011) of a counter of four words.
template <class W, class Keys>
VF_INLINE void philox4x32(W& c0, W& c1, W& c2, W& c3, const Keys& keys) {
  VF_UNROLL
  for (int round = 0; round < kRounds; ++round) {
    const auto p0 = product(c0, 0xD2511F53u), p1 = product(c2, 0xCD9E8D57u);
    c0 = xor3(high(p1), c1, keys.first(round));
    c1 = low(p1);
    c2 = xor3(high(p0), c3, keys.second(round));
    c3 = low(p0);
  }
}

// Σ c[k]·xᵏ.
template <class T>
VF_INLINE T horner(T, float c) {
  return splat<T>(c);
}
template <class T, class... C>
VF_INLINE T horner(T x, float c, C... rest) {
  return fused(horner(x, rest...), x, splat<T>(c));
}

// (x + ½)·2⁻³², in (−½, ½): x is rounded to 24 bits, and so is the sum, each within 2⁻²⁴ of the value.
template <class T>
VF_INLINE T signed_unit(Int<T> x) {
  return fused(to_float(x), splat<T>(0x1p-32f), splat<T>(0x1p-33f));
}

#ifdef __CUDA_ARCH__
// What a correctly rounded √ compiles to, without the question whether a is an ordinary number: r² is, always.
VF_INLINE float root(float a) {
  float y;
  asm("rsqrt.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(a));
  const float g = mul(a, y), half = mul(y, 0.5f);
  return fma(fma(-g, g, a), half, g);
}
#else
template <class T>
VF_INLINE T root(T a) {
  return sqrt(a);
}
#endif

// √(−2 ln u), within 1.5e-7·max(1, r), for every word; from 2⁻¹⁶ to 6.7638. What u is rounded by is 2.4e-7 in r², so
// 1e-7 in r at r = 1.18 and less above; on the other side of ½ it is 1.2e-7 of t, and half that of r. The polynomial's
// 2.5e-8 of the value, its last step and the product are halved by the root, which is rounded itself.
template <class T>
VF_INLINE T radius(Int<T> x) {
  const T q = signed_unit<T>(x);
  const auto lower = q >= 0.0f;
  // Below ½, u = q = 2ᵏ·mantissa, the mantissa in [½, 1); from ½ on u is 1 + q, and k = 0. k is the exponent's field,
  // as the last bits of 2²³, less what it has for 1.
  const Int<T> b = bits(q);
  const T k = sub(from_bits<T>((b >> 23) + 0x4B000000), splat<T>(8388608.0f + 126.0f));
  const T mantissa = from_bits<T>((b & 0x007FFFFF) | 0x3F000000);
  const T t = select(lower, sub(mantissa, splat<T>(1.0f)), q);
  const T square =
      mul(t, horner(t, -2.0f, 0.99999022483825684f, -0.66727113723754883f, 0.48728305101394653f, -0.52785891294479370f,
                    -0.36338910460472107f, -2.4199140071868896f, -3.2812252044677734f, -2.8297011852264404f));
  return root(select(lower, fused(k, splat<T>(-1.3862943649291992f), square), square));
}

// cos θ and sin θ within 1.8e-7, θ = π(y + ½)·2⁻³², for every word. Of these the polynomials take 6e-8, and
// 2.8e-8 of the value; what w is rounded by, 6e-8 of θ, and u again, turns θ; half a unit of 1 is 3e-8.
template <class T>
VF_INLINE void cos_sin(Int<T> y, T& cos, T& sin) {
  const T w = signed_unit<T>(y), u = mul(w, w);
  cos = horner(u, 0.99999994039535522f, -4.9347920417785645f, 4.0583992004394531f, -1.3318091630935669f,
               0.21956668794155121f);
  sin = mul(w, horner(u, 3.1415927410125732f, -5.1677150726318359f, 2.5501449108123779f, -0.59863293170928955f,
                      0.078240960836410522f));
}

// Words (x, y) make a pair of normals, within 3.5e-7·max(1, r) of the exact ones: r's error, the angle's, and the
// product's 6e-8.
template <class T>
VF_INLINE void box_muller(Int<T> x, Int<T> y, T& first, T& second) {
  T cos, sin;
  cos_sin(y, cos, sin);
  // The last bit of y is r's sign.
  const T r = from_bits<T>(bits(radius<T>(x)) + shift_left(y, 31));
  first = mul(r, cos);
  second = mul(r, sin);
}

}  // namespace VF_ISA
}  // namespace vae_fast
