// The scalar formulas of the operators, each once, for one number or a pack of them (arithmetic.h), host and device.
//
// No branch but on rare paths: `select` picks between results that are all computed.
//
// Errors are in units of the spacing of T at the exact value (ULP), "(A; B without FMA; float64 C; D)": the worst of
// float32 with a fused multiply-add and without one, over every argument, and of float64 over 10⁶ and more, rounded up
// to a twentieth. test_formulas.py reads them here and holds the kernels to them. NaN gives NaN. Polynomials are
// minimax, the errors beside them absolute and those of real coefficients: tools/coefficients.py makes the numbers.
#pragma once

#include "arithmetic.h"

namespace vae_fast {
namespace VF_ISA {

template <class T>
VF_INLINE T abs(T a) {
  return from_bits<T>(bits(a) & ~kSignBit<Element<T>>);
}

#ifdef __CUDA_ARCH__
// Part of the instruction that takes it.
VF_INLINE float abs(float a) { return ::fabsf(a); }
#endif

// Σ c[k]·xᵏ by Horner's rule.
template <class T>
VF_INLINE T polynomial(T, Element<T> c) {
  return splat<T>(c);
}
template <class T, class... C>
VF_INLINE T polynomial(T x, Element<T> c, C... rest) {
  return fma(polynomial(x, static_cast<Element<T>>(rest)...), x, splat<T>(c));
}

// What depends on the precision.
template <class E>
struct Format;
template <>
struct Format<float> {
  static constexpr int kDigits = 23, kBias = 127;
  static constexpr float kRound = 0x1.8p23f;  // added and taken away again: rounds to an integer
  // e^x is 0 below kLow and infinite above kHigh.
  static constexpr float kLow = -104.0f, kHigh = 89.0f;
  static constexpr float kLn2High = 0x1.62e4p-1f, kLn2Low = 0x1.7f7d1cp-20f;  // the first with 8 trailing zeros
  static constexpr float kMin = 0x1p-126f, kTwoDigits = 0x1p24f;
  // |log σ²| below which e^±log σ² and their products are ordinary numbers; such a σ's bounds; and what a product with
  // an ordinary number is ordinary of.
  static constexpr float kOrdinary = 85.0f, kSmall = 0x1p-61f, kLarge = 0x1p61f, kBig = 0x1p100f;
  // |log σ| beyond which no result depends on how far; and beyond which no product of them is an ordinary number.
  static constexpr float kFar = 175.0f, kFarthest = 350.0f;
  // Where log(1 + e^r) and its derivative are e^r.
  static constexpr float kSoftplusIsExp = -20.0f;
};
template <>
struct Format<double> {
  static constexpr int kDigits = 52, kBias = 1023;
  static constexpr double kRound = 0x1.8p52;
  static constexpr double kLow = -746.0, kHigh = 710.0;
  static constexpr double kLn2High = 0x1.62e42fefap-1, kLn2Low = 0x1.cf79abc9e3b3ap-40;
  static constexpr double kMin = 0x1p-1022, kTwoDigits = 0x1p53;
  static constexpr double kOrdinary = 700.0, kSmall = 0x1p-504, kLarge = 0x1p504, kBig = 0x1p1000;
  static constexpr double kFar = 1400.0, kFarthest = 3000.0;
  static constexpr double kSoftplusIsExp = -40.0;
};
template <class T>
using FormatOf = Format<Element<T>>;

template <class T>
VF_INLINE T infinity() {
  return splat<T>(static_cast<Element<T>>(__builtin_inf()));
}

// 2ⁿ, exact, for an integral n in the range of normal numbers: n + kBias is in the last bits of the sum, and the shift
// leaves only them.
template <class T>
VF_INLINE T power_of_two(T n) {
  using F = FormatOf<T>;
  return from_bits<T>(shift_left(bits(n + (F::kRound + F::kBias)), F::kDigits));
}

// 2ⁿa for an integral n of |n| < 2·kBias, exact but where it is subnormal, which is rounded once: by way of half the
// exponent. cpu/pack.h has the two for processors with an instruction for them.
template <class T>
VF_INLINE T ldexp_of(T a, T n) {
  using E = Element<T>;
  constexpr E way = (FormatOf<T>::kBias + 1) / 2, back = sizeof(E) == 4 ? E(0x1p-64) : E(0x1p-512);
  const auto down = n < E(0);
  const T first = power_of_two(n + select(down, splat<T>(way), splat<T>(-way)));
  return a * first * select(down, splat<T>(back), splat<T>(1 / back));
}
// The same for n ≤ 0.
template <class T>
VF_INLINE T ldexp_down(T a, T n) {
  using E = Element<T>;
  constexpr E way = (FormatOf<T>::kBias + 1) / 2, back = sizeof(E) == 4 ? E(0x1p-64) : E(0x1p-512);
  return a * power_of_two(n + way) * back;
}

// x, or the bound where x is beyond it; NaN where x is.
template <class T>
VF_INLINE T at_least(T x, Element<T> low) {
  return select(splat<T>(low) > x, splat<T>(low), x);
}
template <class T>
VF_INLINE T at_most(T x, Element<T> high) {
  return select(splat<T>(high) < x, splat<T>(high), x);
}

// e^x = 2ⁿ(1 + r + r²p + error), |r| ≤ ½ ln 2, `error` what r was rounded by; for |x| ≤ kFarthest. r is NaN where x is.
// n·kLn2High is exact, which ends in zeros enough, and so is its difference from x. So r + error lacks n times what
// kLn2Low is rounded by, and without FMA what n·kLn2Low is: below 10⁻³ ULP of e^x.
template <class T>
struct Expansion {
  T n, r, p, error;

  VF_INLINE T q() const { return fma(r * r, p, error); }

  // e^x/2ⁿ − 1.
  VF_INLINE T less_one() const { return r + q(); }
  // e^x/2ⁿ in two parts, the second one below 2⁻³: their sum lacks what r², p, q and the small part are rounded by and
  // the polynomial's error, together 0.21 ULP.
  VF_INLINE T high() const { return r + Element<T>(1); }
  VF_INLINE T low() const { return ((Element<T>(1) - high()) + r) + q(); }
  // e^x/2ⁿ, rounded.
  VF_INLINE T whole() const { return high() + low(); }
  VF_INLINE T to_a_unit() const {
    const T one = splat<T>(1);
    return fma(r, fma(r, p, one), one);
  }
};

template <class T>
VF_INLINE Expansion<T> expand(T x) {
  using F = FormatOf<T>;
  const T rounded = fma(x, splat<T>(static_cast<Element<T>>(1.44269504088896340736)), splat<T>(F::kRound)) - F::kRound;
  const T exact = fma(rounded, splat<T>(-F::kLn2High), x);
  const T r = fma(rounded, splat<T>(-F::kLn2Low), exact);
  const T error = fma(rounded, splat<T>(-F::kLn2Low), exact - r);
  T p;
  if constexpr (sizeof(Element<T>) == 4) {
    // (e^r − 1 − r)/r² on |r| ≤ 1.0001·½ ln 2, to 1.4e-9; as rounded 0.01 ULP of e^x.
    p = polynomial(r, 0.5f, 0.1666666716337204f, 0.04166646674275398f, 0.00833328627049923f, 0.0013933653244748712f,
                   0.00019907548266928643f);
  } else {
    // The same, to 1.7e-20.
    p = polynomial(r, 0.5, 0.16666666666666666, 0.04166666666666668, 0.008333333333333337, 0.0013888888888879073,
                   0.00019841269841253706, 2.480158733644327e-05, 2.7557319265468586e-06, 2.755726327811409e-07,
                   2.5052055903834265e-08, 2.0918138067301925e-09, 1.6091226040809938e-10);
  }
  return {rounded, r, p, error};
}

// e^x for every x (0.77; 0.77 without FMA; float64 0.80; 0.80): ½ for the sum of the two parts, 0.2 for what they lack;
// a subnormal result is rounded again.
template <class T>
VF_INLINE T exp(T x) {
  const Expansion<T> e = expand(at_most(at_least(x, FormatOf<T>::kLow), FormatOf<T>::kHigh));
  return ldexp_of(e.whole(), e.n);
}

// ½e^x for every x, which may be finite where e^x is not (0.76; 0.76 without FMA; float64 0.80; 0.80): as e^x.
template <class T>
VF_INLINE T half_exp(T x) {
  const Expansion<T> e = expand(at_most(at_least(x, FormatOf<T>::kLow), FormatOf<T>::kHigh + Element<T>(1)));
  return ldexp_of(e.whole(), e.n - Element<T>(1));
}

// e^x for every x at less cost, where other roundings follow (0.88; 1.16 without FMA; float64 0.90; 1.15): ½ for the
// last step, ¼ for r, whose error is left out, and 0.2 for the step before; without FMA both of these steps round
// twice.
template <class T>
VF_INLINE T exp_to_a_unit(T x) {
  const Expansion<T> e = expand(at_most(at_least(x, FormatOf<T>::kLow), FormatOf<T>::kHigh));
  return ldexp_of(e.to_a_unit(), e.n);
}

// 1/a to half its digits at least, for a between 1 and 2: here correctly rounded. cpu/pack.h has a faster one where
// there is.
template <class T>
VF_INLINE T reciprocal_estimate(T a) {
  return Element<T>(1) / a;
}
#ifdef __CUDA_ARCH__
// Good to 2 units, in one instruction.
VF_INLINE float reciprocal_estimate(float a) { return __fdividef(1.0f, a); }
#endif

// a − qb, rounded once (½ ULP), for ordinary numbers with qb within a few units of a. Without a fused multiply-add by
// the product's exact error, from the halves of both (Veltkamp, Dekker).
template <class T>
VF_INLINE T remainder(T a, T q, T b) {
  using E = Element<T>;
  if (VF_HAS_FMA) return fma(-q, b, a);
  constexpr E split = sizeof(E) == 4 ? E((1 << 12) + 1) : E((1 << 27) + 1);
  const T q_high = q * split - (q * split - q), q_low = q - q_high;
  const T b_high = b * split - (b * split - b), b_low = b - b_high;
  const T product = q * b;
  const T lost = ((q_high * b_high - product) + q_high * b_low + q_low * b_high) + q_low * b_low;
  return (a - product) - lost;
}

// A value and what is missing in it.
template <class T>
struct Corrected {
  T value, error;
};

// −|a|.
template <class T>
VF_INLINE T minus_abs(T a) {
  return from_bits<T>(bits(a) | kSignBit<Element<T>>);
}
#ifdef __CUDA_ARCH__
VF_INLINE float minus_abs(float a) { return -::fabsf(a); }
#endif

// e^a for a ≤ 0, as `exp` (0.77; 0.77 without FMA; float64 0.80; 0.80), and its rounding error: the sum of the two is
// that of the two parts, and within 0.21 ULP of e^a where both are normal numbers.
template <class T>
VF_INLINE Corrected<T> exp_of_negative(T a) {
  const Expansion<T> e = expand(at_least(a, FormatOf<T>::kLow));
  const T whole = e.whole();
  return {ldexp_down(whole, e.n), ldexp_down((e.high() - whole) + e.low(), e.n)};
}

// log(1 + e + error) − e for e in [0, 1] and an error of a ULP of it at most: within 0.6 ULP of log(1 + e). The
// polynomial takes 0.19 of these (float64 0.24), p an eighth, the product with e a quarter. 1 − ½e is near enough to
// 1/(1 + e), which the error is multiplied by.
template <class T>
VF_INLINE T log1p_unit_less(T e, T error) {
  using E = Element<T>;
  const T u = e - E(0.5);
  constexpr E first = static_cast<E>(-0.18906978378367123);
  T p;
  if constexpr (sizeof(E) == 4) {
    // (log(1 + e) − e)/e around ½, to 4e-9.
    p = polynomial(u, -0.28852713108062744f, 0.13260900974273682f, -0.0676870048046112f, 0.03663548454642296f,
                   -0.020580288022756577f, 0.011576083488762379f, -0.006696623750030994f, 0.005253483075648546f,
                   -0.003338758135214448f);
  } else {
    // The same, to 2.1e-19.
    p = polynomial(u, -0.2885270990993242, 0.132609753754204, -0.06768864331087386, 0.036611854522976245,
                   -0.020548811926962843, 0.011833792121159134, -0.006945394663326441, 0.004136178749516912,
                   -0.0024918480000973046, 0.0015153898432334627, -0.0009287681344435752, 0.0005729830138335455,
                   -0.00035555463758324434, 0.00022169476690141608, -0.00013828961140404487, 8.67351122593874e-05,
                   -5.695141674651429e-05, 3.651114764485752e-05, -1.6779606786738476e-05, 9.826512581106255e-06,
                   -1.6465201147823227e-05, 1.111816823342715e-05);
  }
  // The last step of Horner's rule with what it rounds away: near e = 1 that is a quarter of the result's last place.
  const T sum = fma(p, u, splat<T>(first)), lost = fma(p, u, splat<T>(first) - sum);
  const T small = fma(error, fma(e, splat<T>(E(-0.5)), splat<T>(1)), e * lost);
  if (VF_HAS_FMA) return fma(e, sum, small);
  const T product = e * sum;
  return product + (small - remainder(product, e, sum));
}

// log(1 + e + error), for the same e (1.04; 1.08 without FMA; float64 1.00; 1.00): ½ for this sum.
template <class T>
VF_INLINE T log1p_unit(T e, T error) {
  return e + log1p_unit_less(e, error);
}

// (numerator + error)/(1 + e), for 0 ≤ e ≤ 1 and a numerator from 0 to 1: by a reciprocal of some bits, and one step of
// Newton's method for what it and its operands lack. ½ ULP for the last step; 2⁻²⁸ of the quotient, 0.06 ULP, for the
// shortest reciprocal, of 14 bits; 0.2 for what e and the numerator lack.
template <class T>
VF_INLINE T over_one_plus(T numerator, T error, Corrected<T> e) {
  using E = Element<T>;
  const T sum = e.value + E(1), lost = ((E(1) - sum) + e.value) + e.error;
  const T estimate = reciprocal_estimate(sum), quotient = numerator * estimate;
  const T rest = fma(-quotient, lost, remainder(numerator, quotient, sum) + error);
  return fma(rest, estimate, quotient);
}

// k of a normal y = 2ᵏ(1 + f), 1 + f between √½ and √2.
template <class T>
VF_INLINE Int<T> exponent_of(T y) {
  const Int<T> root_half = bits(splat<T>(static_cast<Element<T>>(0.70710678118654752440)));
  return wrapping_sub(bits(y), root_half) >> FormatOf<T>::kDigits;
}

// y > 0 as k and f, both exact; y that is subnormal too.
template <class T>
struct LogParts {
  T k, f;
};
template <class T>
VF_INLINE LogParts<T> log_parts(T x) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const auto subnormal = x < F::kMin;
  const T y = select(subnormal, x * F::kTwoDigits, x);
  const Int<T> k = exponent_of(y);
  const T f = from_bits<T>(wrapping_sub(bits(y), shift_left(k, F::kDigits))) - E(1);
  return {to_float(k) - select(subnormal, splat<T>(E(F::kDigits + 1)), splat<T>(E(0))), f};
}

// (log(1 + f) − f + ½f²)/f³ for 1 + f between √½ and √2. Of a logarithm that is 0.06 ULP.
template <class T>
VF_INLINE T log1p_cubic(T f) {
  if constexpr (sizeof(Element<T>) == 4) {
    // To 2.3e-8.
    return polynomial(f, 0.3333333134651184f, -0.24999980628490448f, 0.2000068873167038f, -0.16669151186943054f,
                      0.14251156151294708f, -0.1239670068025589f, 0.1163465827703476f, -0.11659929901361465f,
                      0.07332541793584824f);
  } else {
    // To 4.4e-17.
    return polynomial(f, 0.33333333333333337, -0.25000000000000006, 0.19999999999992804, -0.16666666666659505,
                      0.1428571428766703, -0.12500000002653885, 0.11111110907216643, -0.0999999962837375,
                      0.09090919686429352, -0.0833335803741155, 0.07692004732903494, -0.07141974441967965,
                      0.06671482871640974, -0.06267843378099999, 0.0584452625820902, -0.053539815541616936,
                      0.053161309737646184, -0.06136837265023594, 0.05830889239975272, -0.026470598273608467);
  }
}

// log x; −∞ for 0, NaN below (0.87; 0.89 without FMA; float64 0.90; 0.95). ½ for the last step; where k is −1 or 1 the
// sum f + rest, as large as the result, has another half; `rest` and the square in it an eighth each; the polynomial
// 0.06. So at most 1.4.
template <class T>
VF_INLINE T log(T x) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const auto [k, f] = log_parts(x);
  const T square = f * f;
  // log(1 + f) = f − ½f² + f³p, its largest part last.
  const T rest = fma(k, splat<T>(F::kLn2Low), fma(square * f, log1p_cubic(f), square * E(-0.5)));
  T result = fma(k, splat<T>(F::kLn2High), f + rest);
  result = select(x == E(0), -infinity<T>(), result);
  result = select(x == infinity<T>(), x, result);
  return select(x < E(0), splat<T>(static_cast<E>(__builtin_nan(""))), select(x != x, x, result));
}

// log(2ᵏ(1 + f)) for exact k and f, nearer: what the sum of its largest parts is rounded by goes with the smaller ones.
// ½ for the last sum, the rest's roundings and the polynomial's 0.06: `clamped_log` has its error.
template <class T>
VF_INLINE T log_of(LogParts<T> y) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const T square = y.f * y.f, lost = fma(y.f, y.f, -square), half = square * E(-0.5);
  const T near = y.f + half, whole = y.k * F::kLn2High, sum = whole + near;
  const T missing = ((whole - sum) + near) + ((y.f - near) + half);
  const T rest = fma(square * y.f, log1p_cubic(y.f), fma(lost, splat<T>(E(-0.5)), missing));
  return sum + fma(y.k, splat<T>(F::kLn2Low), rest);
}

// max(log p, −100) (0.65; 0.72 without FMA; float64 0.70; 0.75) and max(log(1 − p), −100) (0.65; 0.74 without FMA;
// float64 0.70; 0.75) for p from 0 to 1; NaN beyond, of the one or the other.
template <class T>
VF_INLINE T clamped_log(T p) {
  using E = Element<T>;
  const T result = at_least(log_of(log_parts(p)), E(-100));
  const T beyond = select(p == E(0), splat<T>(E(-100)), splat<T>(static_cast<E>(__builtin_nan(""))));
  return select(p > E(0), result, beyond);
}
template <class T>
VF_INLINE T clamped_log1m(T p) {
  using E = Element<T>;
  const T q = E(1) - p;
  const Int<T> k = exponent_of(q);
  const T scale = from_bits<T>(wrapping_sub(bits(splat<T>(E(1))), shift_left(k, FormatOf<T>::kDigits)));
  // f = 2⁻ᵏ(1 − p) − 1 is a number of T whatever 1 − p was rounded by, and so are both parts of this difference.
  const T result = log_of(LogParts<T>{to_float(k), (scale - E(1)) - scale * p});
  const T beyond = select(q == E(0), splat<T>(E(-100)), splat<T>(static_cast<E>(__builtin_nan(""))));
  return select(q > E(0), result, beyond);
}

// log(1 + e^r) for every r (1.39; 1.45 without FMA; float64 1.40; 1.45): log1p_unit's error, 0.2 for what e and its
// error lack, and above 0 ½ for another sum.
template <class T>
VF_INLINE T softplus(T r) {
  const T above = select(r < Element<T>(0), splat<T>(0), r);
  const Corrected<T> e = exp_of_negative(minus_abs(r));
  return above + log1p_unit(e.value, e.error);
}

// 1/(1 + e^−y) for every y, from the end that loses nothing (0.78; 0.80 without FMA; float64 0.80; 0.80):
// over_one_plus's error; far below 0 it is e^y, which may be subnormal.
template <class T>
VF_INLINE T logistic(T y) {
  using E = Element<T>;
  const Corrected<T> e = exp_of_negative(minus_abs(y));
  const auto positive = y > E(0);
  return over_one_plus(select(positive, splat<T>(1), e.value), select(positive, splat<T>(0), e.error), e);
}

// ½(e^x − 1 − x) for |x| ≤ 1, where the differences cancel, never negative. p, x·p and the result are rounded, to a
// half each of their own ULP, which may be twice the result's; the polynomial takes 0.27 (float64 0.37).
template <class T>
VF_INLINE T half_expm1_minus_near(T x) {
  T p;
  if constexpr (sizeof(Element<T>) == 4) {
    // ½(e^x − 1 − x)/x² on |x| ≤ 1, to 1.1e-9.
    p = polynomial(x, 0.25f, 0.0833333358168602f, 0.020833367481827736f, 0.004166675265878439f, 0.0006942697800695896f,
                   9.917934949044138e-05f, 1.2679312021646183e-05f, 1.4095190863372409e-06f);
  } else {
    // The same, to 2.5e-21.
    p = polynomial(x, 0.25, 0.08333333333333333, 0.020833333333333332, 0.004166666666666667, 0.000694444444444438,
                   9.92063492063481e-05, 1.240079365084544e-05, 1.3778659612056715e-06, 1.3778659591655514e-07,
                   1.2526054173095448e-08, 1.0438382829894584e-09, 8.029525367691533e-11, 5.734860900572028e-12,
                   3.8232347113960273e-13, 2.421174313114974e-14, 1.424342431416202e-15);
  }
  // By x and by x again, so that a subnormal result is rounded once.
  return (x * p) * x;
}

// The expansion for the formulas that take 1 from it: n is kept where 2ⁿ⁻² is a normal number. Below, e^x is nothing
// beside 1; above, it is infinite.
template <class T>
VF_INLINE Expansion<T> expand_beside_one(T x) {
  using F = FormatOf<T>;
  constexpr Element<T> low = sizeof(Element<T>) == 4 ? Element<T>(-60) : Element<T>(-100);
  return expand(at_most(at_least(x, low), F::kHigh + Element<T>(0.5)));
}

// 2ⁿ(1 + t) − 1 and the like in units of `scale` = 2ⁿ⁻²: scale·e^x/2ⁿ + rest. `sum`, scale + rest, is exact or nearly
// so for small x; for large x it would be rounded to the last place of the result.
template <class T>
VF_INLINE T beside(T scale, const Expansion<T>& e, T x, T rest, T sum) {
  const T large = fma(scale, e.high(), fma(scale, e.low(), rest));
  return select(x > Element<T>(4), large, fma(scale, e.less_one(), sum));
}

// ½(e^x − 1 − x) for every x, never negative (2.49; 2.58 without FMA; float64 2.45; 2.45): the worst is the series'.
// Beyond it the sums that cancel most, near 1, are exact.
template <class T>
VF_INLINE T half_expm1_minus(T x) {
  using E = Element<T>;
  const Expansion<T> e = expand_beside_one(x);
  // A quarter of e^x − 1 − x, doubled at the end: 2ⁿ⁻¹ may overflow where the result does not.
  const T scale = power_of_two(e.n - E(2));
  // 1 + x is exact where it matters.
  const T rest = (x + E(1)) * E(-0.25);
  const T above = beside(scale, e, x, rest, (scale - E(0.25)) - x * E(0.25));
  // Below −1 both parts are positive.
  const T far = select(x < E(0), fma(scale, e.whole(), rest), above);
  // NaN for an infinite x, as ∞ − ∞ is.
  const T result = select(x > FormatOf<T>::kHigh + E(0.5), infinity<T>() - x, far + far);
  return select(abs(x) <= E(1), half_expm1_minus_near(x), result);
}

// ½(e^x − 1), its derivative, for every x (1.37; 1.50 without FMA; float64 1.60; 1.60). Just above ½ ln 2 the terms of
// the last sum are larger than it: half a ULP of r + q is then a whole one of the result, beside ½ for the sum.
template <class T>
VF_INLINE T half_expm1(T x) {
  using E = Element<T>;
  const Expansion<T> e = expand_beside_one(x);
  const T scale = power_of_two(e.n - E(2)), rest = splat<T>(E(-0.25));
  const T above = beside(scale, e, x, rest, scale - E(0.25));
  // Below −1, e^x − 1 is rounded once.
  const T q = select(x < E(-1), fma(scale, e.whole(), rest), above);
  return select(x > FormatOf<T>::kHigh + E(0.5), infinity<T>(), q + q);
}

// ½(e^x − 1 − x) where ½x and ½e^x are known better than x, of all three as they are (2.49; 2.58 without FMA; float64
// 2.45; 2.45): near x = 1 half a ULP of ½x + ½ is 2 of the result, beside ½ for the difference.
template <class T>
VF_INLINE T half_expm1_minus(T x, T half, T grown) {
  using E = Element<T>;
  return select(abs(x) <= E(1), half_expm1_minus_near(x), grown - (half + E(0.5)));
}

// The same two where root = e^(x/2) is known better than x, whose error the exponential would magnify (2.70; 4.01
// without FMA; float64 2.70; 4.05) and (1.37; 1.50 without FMA; float64 1.60; 1.60), of both as they are: as above;
// without FMA the product is rounded too, which near x = 1 is 2 ULP more of the first.
template <class T>
VF_INLINE T half_expm1_minus(T x, T root) {
  using E = Element<T>;
  const T far = fma(root * E(0.5), root, -fma(x, splat<T>(0.5), splat<T>(0.5)));
  return select(abs(x) <= E(1), half_expm1_minus_near(x), far);
}
template <class T>
VF_INLINE T half_expm1(T x, T root) {
  using E = Element<T>;
  return select(abs(x) <= E(1), half_expm1(x), fma(root * E(0.5), root, splat<T>(E(-0.5))));
}

}  // namespace VF_ISA
}  // namespace vae_fast
