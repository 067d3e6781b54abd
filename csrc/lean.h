// The float32 formulas of terms.h and sigma.h again with fewer instructions, for GPUs, whose time they are: a
// multiply-add is one there, and memory is faster than the arithmetic of formulas.h. A CPU's packs wait for memory
// either way, and keep formulas that are right to the last digit or two without a fused multiply-add too.
//
// Errors are as in formulas.h, of float32 with a fused multiply-add: "(A lean)".
#pragma once

#include <type_traits>

#include "formulas.h"

// Compiled for a GPU, or on a host in the place of one.
#ifndef VF_LEAN
#define VF_LEAN 0
#endif

namespace vae_fast {
namespace VF_ISA {

template <class T>
constexpr bool kLean = VF_LEAN && std::is_same_v<T, float>;

// The smaller and the larger of two; NaN where x is.
template <class T>
VF_INLINE T least(T x, T high) {
  return select(high < x, high, x);
}
template <class T>
VF_INLINE T most(T x, T low) {
  return select(low > x, low, x);
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
// One instruction.
VF_INLINE float least(float x, float high) {
  float y;
  asm("min.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(high));
  return y;
}
VF_INLINE float most(float x, float low) {
  float y;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(y) : "f"(x), "f"(low));
  return y;
}
#endif

// 2ⁿ⁺ᵇ of sum = n + b + kBias + kRound.
template <class T>
VF_INLINE T power_of_sum(T sum) {
  return from_bits<T>(shift_left(bits(sum), FormatOf<T>::kDigits));
}

// 2^f for |f| ≤ ½.
template <class T>
VF_INLINE T exp2_near(T f) {
  // (2^f − 1)/f on |f| ≤ 1.0001·½, to 9.2e-9.
  const T p = polynomial(f, 0.6931471824645996f, 0.24022650718688965f, 0.05550365895032883f, 0.009618083015084267f,
                         0.0013388072839006782f, 0.00015453877858817577f);
  return fma(f, p, splat<T>(1));
}

// e^(x/kOver) = 2ⁿm for kOver = 1 or 2: m, and n + magic. What x/ln 2 lacks as a float is in a second factor, and its
// difference from n is exact.
template <class T>
struct Split {
  T sum, m;
};
template <int kOver, class T>
VF_INLINE Split<T> lean_split(T x, T magic) {
  const T high = splat<T>(1.44269502162933349609375f / kOver), low = splat<T>(1.925963033500011079e-08f / kOver);
  const T sum = fma(x, high, magic), n = sum - magic;
  return {sum, exp2_near(fma(x, low, fma(x, high, -n)))};
}

// e^(x/kOver)·2^kShift for every x: 2ⁿ in two factors, of which the second is 2^±64, so that a subnormal result is
// rounded once more and nothing before it is (1.05 lean).
template <int kOver, int kShift = 0, class T>
VF_INLINE T lean_exp(T x) {
  using F = FormatOf<T>;
  constexpr float shift = kShift < 0 ? 0.5f : 1.0f;
  const T c = most(least(x, splat<T>(90.0f * kOver)), splat<T>(F::kLow * kOver));
  const auto down = c < 0.0f;
  const Split<T> e = lean_split<kOver>(c, select(down, splat<T>(F::kRound + 191.0f), splat<T>(F::kRound + 63.0f)));
  return e.m * power_of_sum(e.sum) * select(down, splat<T>(0x1p-64f * shift), splat<T>(0x1p64f * shift));
}

// e^x for |x| < 85, whose power of two is a normal number (1.05 lean); anything elsewhere.
template <class T>
VF_INLINE T lean_exp_ordinary(T x) {
  const Split<T> e = lean_split<1>(x, splat<T>(FormatOf<T>::kRound + 127.0f));
  return e.m * power_of_sum(e.sum);
}

// e^a for a ≤ 0, as lean_exp (1.05 lean).
template <class T>
VF_INLINE T lean_exp_of_negative(T a) {
  using F = FormatOf<T>;
  const Split<T> e = lean_split<1>(most(a, splat<T>(F::kLow)), splat<T>(F::kRound + 191.0f));
  return e.m * power_of_sum(e.sum) * 0x1p-64f;
}

// 1/a for a from 1 to 2, good to 2 units: one step of Newton's method from it is good to the last.
template <class T>
VF_INLINE T lean_reciprocal(T a) {
  return 1.0f / a;
}
#ifdef __CUDA_ARCH__
VF_INLINE float lean_reciprocal(float a) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(a));
  return y;
}
#endif

// log(1 + e) for e in [0, 1] (1.30 lean).
template <class T>
VF_INLINE T lean_log1p_unit(T e) {
  // (log(1 + e) − e)/e, to 4.7e-9.
  const T p = polynomial(e, -4.615146931286063e-09f, -0.4999990463256836f, 0.3333002030849457f, -0.24954712390899658f,
                         0.196788489818573f, -0.15313845872879028f, 0.106174536049366f, -0.05709433928132057f,
                         0.019922619685530663f, -0.0032596986275166273f);
  return fma(e, p, e);
}

// e/(1 + e) for e in [0, 1] (1.50 lean).
template <class T>
VF_INLINE T lean_share(T e) {
  const T sum = e + 1.0f, estimate = lean_reciprocal(sum), quotient = e * estimate;
  return fma(fma(-quotient, sum, e), estimate, quotient);
}

template <class T>
struct LeanGrowth {
  T growth, spread;
};

// ½(e^x − 1), and ½(e^x − 1 − x), never negative, from one expansion e^x = 2ⁿ(1 + r + r²p) (1.70 lean) and (2.30 lean).
// n is 0 from −½ ln 2 to 0.6, where the second is ½r²p with nothing to cancel. Beyond, the sums that cancel most are
// exact. NaN for an infinite x, as ∞ − ∞ is.
template <class T>
VF_INLINE LeanGrowth<T> lean_growth(T x) {
  using F = FormatOf<T>;
  const T top = least(x, splat<T>(90.0f)), c = most(top, splat<T>(-60.0f));
  const T rounded = fma(c, splat<T>(1.44269502162933349609375f), splat<T>(F::kRound)) - F::kRound;
  const T n = least(rounded, select(c < 0.6f, splat<T>(0.0f), splat<T>(128.0f)));
  const T r = fma(n, splat<T>(-F::kLn2Low), fma(n, splat<T>(-F::kLn2High), c));
  // (e^r − 1 − r)/r² on −1.0001·½ ln 2 ≤ r ≤ 0.6, to 1.1e-8.
  const T p = polynomial(r, 0.5f, 0.16666679084300995f, 0.041666679084300995f, 0.008329834789037704f,
                         0.0013911103596910834f, 0.00021921860752627254f);
  const T q = r * r * p, half = power_of_sum(n + (F::kRound + 126.0f)), base = half - 0.5f;
  const T flat = fma(half, r, fma(splat<T>(-0.5f), top, base));
  const T spread = fma(half, q, flat);
  return {fma(half, r + q, base), select(x == infinity<T>(), splat<T>(__builtin_nanf("")), spread)};
}

// ---- what terms.h and sigma.h are made of: the lean ones, or those of formulas.h

// e^(x/kOver), and half of it.
template <int kOver, class T>
VF_INLINE T exp_over(T x) {
  if constexpr (kLean<T>) {
    return lean_exp<kOver>(x);
  } else {
    return exp(kOver == 1 ? x : x * Element<T>(1.0 / kOver));
  }
}
template <int kOver, class T>
VF_INLINE T half_exp_over(T x) {
  if constexpr (kLean<T>) {
    return lean_exp<kOver, -1>(x);
  } else {
    return half_exp(kOver == 1 ? x : x * Element<T>(1.0 / kOver));
  }
}

// e^x where |x| < kOrdinary.
template <class T>
VF_INLINE T exp_of_ordinary(T x) {
  if constexpr (kLean<T>) {
    return lean_exp_ordinary(x);
  } else {
    return exp_to_a_unit(x);
  }
}

// ½(e^x − 1), and ½(e^x − 1 − x).
template <class T, bool lean = kLean<T>>
class HalfExpm1 {
 public:
  VF_INLINE explicit HalfExpm1(T x) : x_(x) {}
  VF_INLINE T value() const { return half_expm1(x_); }
  VF_INLINE T minus() const { return half_expm1_minus(x_); }

 private:
  T x_;
};
template <class T>
class HalfExpm1<T, true> {
 public:
  VF_INLINE explicit HalfExpm1(T x) : both_(lean_growth(x)) {}
  VF_INLINE T value() const { return both_.growth; }
  VF_INLINE T minus() const { return both_.spread; }

 private:
  LeanGrowth<T> both_;
};

// σ(a) and log(1 + e^a) for a ≤ 0.
template <class T, bool lean = kLean<T>>
class LogisticOfNegative {
 public:
  VF_INLINE explicit LogisticOfNegative(T a) : e_(exp_of_negative(a)) {}
  VF_INLINE T share() const { return over_one_plus(e_.value, e_.error, e_); }
  VF_INLINE T log_sum() const { return log1p_unit(e_.value, e_.error); }

 private:
  Corrected<T> e_;
};
template <class T>
class LogisticOfNegative<T, true> {
 public:
  VF_INLINE explicit LogisticOfNegative(T a) : e_(lean_exp_of_negative(a)) {}
  VF_INLINE T share() const { return lean_share(e_); }
  VF_INLINE T log_sum() const { return lean_log1p_unit(e_); }

 private:
  T e_;
};

}  // namespace VF_ISA
}  // namespace vae_fast
