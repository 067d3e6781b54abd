// Numbers beyond the exponents of their type: vae_fast/wide.py, in the same words.
#pragma once

#include "lean.h"

// What hardly ever runs, and is to cost what runs always no registers. On a GPU a call would cost a stack.
#ifdef __CUDACC__
#define VF_RARE VF_INLINE
#else
#define VF_RARE inline __attribute__((noinline, cold))
#endif

namespace vae_fast {
namespace VF_ISA {

// m·4ⁿ, m within a few powers of two of 1 (of a subnormal number, within its digits), or 0, infinite, NaN; n integral.
template <class T>
struct Wide {
  T m, n;

  VF_INLINE Wide half() const { return {m * Element<T>(0.5), n}; }
  // In T: rounded once, where that is subnormal too; infinite or 0 where it is beyond.
  VF_INLINE T narrow() const {
    constexpr Element<T> limit = FormatOf<T>::kBias - 1;
    const T root = power_of_two(at_most(at_least(n, -limit), limit));
    return (m * root) * root;
  }
};

// Each of the three rounds m once: ½ ULP. Aligning, in the sum, is exact.
template <class T>
VF_INLINE Wide<T> operator*(Wide<T> a, Wide<T> b) {
  return {a.m * b.m, a.n + b.n};
}
template <class T>
VF_INLINE Wide<T> operator/(Wide<T> a, Wide<T> b) {
  return {a.m / b.m, a.n - b.n};
}
template <class T>
VF_INLINE Wide<T> operator+(Wide<T> a, Wide<T> b) {
  const T n = select(a.n > b.n, a.n, b.n);
  // What is smaller by 4⁻⁶⁰ is nothing beside the other.
  const auto shifted = [n](Wide<T> v) {
    const T root = power_of_two(at_least(v.n - n, -60));
    return (v.m * root) * root;
  };
  return {shifted(a) + shifted(b), n};
}

template <class M, class T>
VF_INLINE Wide<T> select(M mask, Wide<T> a, Wide<T> b) {
  return {select(mask, a.m, b.m), select(mask, a.n, b.n)};
}

// x, exactly.
template <class T>
VF_INLINE Wide<T> wide(T x) {
  using F = FormatOf<T>;
  // Half of x's exponent, rounded down; of a subnormal number that of the smallest normal one.
  const Int<T> exponent = bits(abs(x)) >> F::kDigits;
  const T n = to_float((exponent - F::kBias) >> 1);
  const T root = power_of_two(-n);
  return {(x * root) * root, n};
}

// e^a as whole·4ⁿ, for |a| ≤ kFarthest, with the error of `exp` where that is not subnormal.
template <class T>
VF_INLINE Wide<T> split_exp(T a) {
  using F = FormatOf<T>;
  const Expansion<T> e = expand(a);
  const T n = fma(e.n, splat<T>(0.5), splat<T>(F::kRound)) - F::kRound;
  return {e.whole() * power_of_two(e.n - (n + n)), n};
}

// e^a; 0 and infinity from where no product that it is a factor of is an ordinary number.
template <class T>
VF_INLINE Wide<T> wide_exp(T a) {
  using F = FormatOf<T>;
  const Wide<T> e = split_exp(at_most(at_least(a, -F::kFarthest), F::kFarthest));
  const T m = select(a < -F::kFarthest, splat<T>(0), e.m);
  return {select(a > F::kFarthest, infinity<T>(), m), e.n};
}

}  // namespace VF_ISA
}  // namespace vae_fast
