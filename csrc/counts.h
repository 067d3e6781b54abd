// One element's term of the count densities, and its derivatives: of the negative binomial and what becomes of it.
//
//   log p(x | μ, θ) = x·log μ − x·log(1 + r) − θ·log(1 + r) + Σ_{k<x} log(1 + k/θ) − log x!,  r = μ/θ
//
// No part of it cancels within itself, for any θ up to ∞, where it is Poisson's. The sum over k, and that of the
// derivative by θ, are taken in two: eight factors one by one, and all others by Stirling's series of θ + 8 on.
//
// Errors are written as in formulas.h, a set for each result, in ULP or where it is said in ε·Σ|terms|, ε being twice a
// rounding, u; test_count_formulas.py reads them here. Those of one argument are of the float32 it sweeps, and stand
// for float64 too where the roundings are the same; all others a fifth more than the worst of some thousand arguments.
#pragma once

#include "wide.h"

namespace vae_fast {
namespace VF_ISA {

// log(1 + r), how much more it is than r/(1 + r), that, and 1/(1 + r), for r ≥ 0 up to ∞.
template <class T>
struct Growth {
  T log, excess, share, rest;
};

// (artanh(t)/t − 1)/t² of t², from 0 to 0.22 (2.05; 2.20 without FMA; float64 1.30; 1.40): the coefficients as they are
// rounded take 1.3 (float64 0.5), the last step ½, the others an eighth. Minimax up to 0.221, for t² is rounded itself.
template <class T>
VF_INLINE T artanh_cubic(T square) {
  if constexpr (sizeof(Element<T>) == 4) {
    // To 8.1e-9.
    return polynomial(square, 0.3333333134651184f, 0.200002521276474f, 0.1427287459373474f, 0.11347521096467972f,
                      0.07168065756559372f, 0.14467915892601013f);
  } else {
    // To 1.6e-17.
    return polynomial(square, 0.33333333333333337, 0.19999999999997733, 0.14285714286279055, 0.11111111055901254,
                      0.090909118903706468, 0.076922234314583213, 0.066682884358054903, 0.058615527880766384,
                      0.054442298770068683, 0.036940030811300255, 0.085035270201214763, -0.059672522324834283,
                      0.16065833295794849);
  }
}

// Of 1 + r = 2ᵏ(1 + f) the parts: k is 0 and f is r to r = 1.75, where log and excess have their digits of r itself,
// and beyond 1 + f is between √½ and √2. log(1 + r) = k·log 2 + 2·artanh(t), t = f/(2 + f), and what it is more than
// r/(1 + r) is t·r/(1 + r) + 2t³(⅓ + t²/5 + …), a sum of positive terms, where k is 0; elsewhere r/(1 + r) is no large
// part of the logarithm. One division is for both quotients.
//
// For r ≥ 0 up to ∞: log (4.30; 4.30 without FMA; float64 4.30; 4.30), excess (8.35; 8.10 without FMA; float64 8.35;
// 8.35), share (3.30; 3.30 without FMA; float64 3.30; 3.30), rest (2.95; 2.95 without FMA; float64 2.95; 2.95). u is at
// most 1 ULP. `rest` has four: of 1 + r, the product, the division and its own, that of 2 + f falling out; `share` one
// more; t five too, and so has the logarithm beside its last step; the excess those of t and of the share.
template <class T>
VF_INLINE Growth<T> growth(T r) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const T one = r + E(1);
  const auto far = r > E(1.75);
  const Int<T> exponent = select(far, exponent_of(one), Int<T>{});
  const T k = to_float(exponent), scaled = from_bits<T>(wrapping_sub(bits(one), shift_left(exponent, F::kDigits)));
  const T f = select(far, scaled - E(1), r), two = f + E(2), both = E(1) / (scaled * two);
  const T t = f * (scaled * both), square = t * t, cubic = t * E(2) * square * artanh_cubic(square);
  const auto beyond = r == infinity<T>();
  const T rest = select(beyond, splat<T>(0), ldexp_down(two * both, -k));
  const T share = select(far, E(1) - rest, r * rest);
  const T log = fma(k, splat<T>(F::kLn2High), fma(t, splat<T>(2), fma(k, splat<T>(F::kLn2Low), cubic)));
  return {select(beyond, r, log), select(far, select(beyond, r, log - share), fma(t, share, cubic)), share, rest};
}

// What Stirling's formula lacks of log Γ(z), and −d/dz of it, for z ≥ 8: rest (2.45; 2.45 without FMA; float64 2.45;
// 2.45) and slope (4.75; 4.75 without FMA; float64 20.00; 20.00). 1/z has one rounding, its square three, the last
// product one. At z = 8 what the slope's series leaves out is 2.5e-10, 2 ULP of float32, and 3.8e-18, 17 ULP of
// float64: both are nothing beside the slopes of eight factors, 28/(θ(θ + 7)) together, of which it is a 336th at most.
template <class T>
struct Stirling {
  T rest, slope;
};
template <class T>
VF_INLINE Stirling<T> stirling(T z) {
  using E = Element<T>;
  const T inverse = E(1) / z, square = inverse * inverse;
  T rest, slope;
  if constexpr (sizeof(E) == 4) {
    // Σ B₂ₖ/(2k(2k − 1)z²ᵏ⁻¹), to 3e-10.
    rest = polynomial(square, 1.0f / 12, -1.0f / 360, 1.0f / 1260);
    slope = polynomial(square, 1.0f / 12, -3.0f / 360, 5.0f / 1260);
  } else {
    // To 2e-18.
    rest = polynomial(square, 1.0 / 12, -1.0 / 360, 1.0 / 1260, -1.0 / 1680, 1.0 / 1188, -691.0 / 360360, 1.0 / 156,
                      -3617.0 / 122400, 43867.0 / 244188, -174611.0 / 125400);
    slope = polynomial(square, 1.0 / 12, -3.0 / 360, 5.0 / 1260, -7.0 / 1680, 9.0 / 1188, -11 * 691.0 / 360360,
                       13.0 / 156, -15 * 3617.0 / 122400, 17 * 43867.0 / 244188, -19 * 174611.0 / 125400);
  }
  return {rest * inverse, slope * square};
}

// Σ_{k<x} log(1 + k/θ) − log x!, and Σ_{k<x} k/(θ(θ + k)), minus the derivative of the first by θ: `rising`.
template <class T>
struct Rising {
  T value, slope;
};

// log Γ(from + more) − log Γ(from) − more·log from, and minus its derivative by `from`, for from from 8 to
// ∞ and more ≥ 0; `rising` has its errors.
template <class T>
VF_INLINE Rising<T> stirling_rising(T more, T from) {
  using E = Element<T>;
  // from·h − ½log(1 + q) − …, h = (1 + q)log(1 + q) − q, q = more/from; its slope q − log(1 + q) − ….
  const T to = from + more, q = more / from;
  const Growth<T> g = growth(q);
  const Stirling<T> a = stirling(from), b = stirling(to);
  const T h = select(g.excess == E(0), splat<T>(0), to * g.excess);
  return {(h - g.log * E(0.5)) - (a.rest - b.rest), ((q * g.share - g.excess) - q / to * E(0.5)) - (a.slope - b.slope)};
}

// log Γ(x + 1) for x ≥ 8; `log_factorial` has its errors.
template <class T>
VF_INLINE T stirling_factorial(T x) {
  using E = Element<T>;
  constexpr E half_log_2pi = static_cast<E>(0.91893853320467274178);
  const T log_x = log(x);
  return fma(x, log_x - E(1), fma(log_x, splat<T>(E(0.5)), stirling(x).rest + half_log_2pi));
}

// log x of a normal number x: as `log`, which asks what x is.
template <class T>
VF_INLINE T log_of_normal(T x) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const Int<T> k = exponent_of(x);
  const T f = from_bits<T>(wrapping_sub(bits(x), shift_left(k, F::kDigits))) - E(1), n = to_float(k), square = f * f;
  const T rest = fma(n, splat<T>(F::kLn2Low), fma(square * f, log1p_cubic(f), square * E(-0.5)));
  return fma(n, splat<T>(F::kLn2High), f + rest);
}

// Of the factors (a + kb)/(k + 1) for 0 < k < x, k ≤ 7: their product, and Σ k/(a + kb).
template <class T>
struct Factors {
  T product, share;
};
template <class T>
VF_INLINE Factors<T> eight_factors(T x, T a, T b) {
  using E = Element<T>;
  T product = splat<T>(1), sum = splat<T>(0);
#pragma GCC unroll 8
  for (int k = 1; k < 8; ++k) {
    const auto in = x > E(k);
    const T factor = select(in, fma(b, splat<T>(E(k) / E(k + 1)), a * (E(1) / E(k + 1))), splat<T>(1));
    sum = fma(sum, factor, select(in, product * (E(k) / E(k + 1)), splat<T>(0)));
    product = product * factor;
  }
  return {product, sum / product};
}

// The first eight of θ so small that a product of 1 + k/θ would overflow: θ + k, by θ's logarithm.
template <class T>
VF_RARE Rising<T> rising_of_tiny(T x, T theta) {
  using E = Element<T>;
  const Factors<T> factors = eight_factors(x, theta, splat<T>(1));
  const T n = at_most(at_least(x - E(1), E(0)), E(7));
  return {log(factors.product) - n * log(theta), factors.share / theta};
}

// What the factors from k = 8 on are more, and log (x!/8!); for x > 8.
template <class T>
VF_RARE Rising<T> rising_beyond(T x, T theta, T inverse) {
  using E = Element<T>;
  const T more = x - E(8), from = theta + E(8);
  const Rising<T> rest = stirling_rising(more, from);
  constexpr E log_of_eight = static_cast<E>(10.604602902745250228);
  return {fma(more, growth(inverse * E(8)).log, rest.value) - (stirling_factorial(x) - log_of_eight),
          fma(more * E(8) * inverse, E(1) / from, rest.slope)};
}

// The same for any x > −1 with x + θ > 0, by both Γ's at eight more than their arguments.
template <class T>
VF_RARE Rising<T> rising_of_fraction(T x, T theta, T inverse) {
  using E = Element<T>;
  Rising<T> sum = stirling_rising(x, theta + E(8));
  sum.value = fma(x, growth(inverse * E(8)).log, sum.value) - stirling_factorial(x + E(8));
  sum.slope = fma(x * E(8) * inverse, E(1) / (theta + E(8)), sum.slope);
  for (int k = 0; k < 8; ++k) {
    const T factor = theta + E(k);
    sum.value = sum.value - log((factor + x) / factor) + log(x + E(k + 1));
    sum.slope = sum.slope - x / factor / (factor + x);
  }
  return sum;
}

template <class T>
VF_INLINE auto is_fraction(T x) {
  using E = Element<T>;
  // Beyond 2ᵈ, d the digits, there are none.
  constexpr E whole = sizeof(E) == 4 ? E(0x1p23) : E(0x1p52);
  const T size = abs(x);
  return ((size + whole) - whole != size) & (size < whole);
}

// For x ≥ 0, and θ > 0 up to ∞; inverse = 1/θ, a number of T.
//
// Counts up to 8: the value, in ε·(Σ log(1 + k/θ) + log x!) (1.35; 1.35 without FMA; float64 1.35; 1.35), 0 for 0 and
// 1; the slope, in ULP (5.40; 5.40 without FMA; float64 5.40; 5.40). Up to seven factors of a rounding and two products
// of others are in the logarithm's argument, each of u; θ's logarithm and its product have two of their own. The slope
// is a sum of positive terms over a product, which share their factors, by 1/θ twice.
//
// Counts beyond: the value in the same measure (1.70; 2.10 without FMA; float64 1.70; 2.10), the slope in ULP (6.40;
// 6.40 without FMA; float64 6.40; 6.40). `growth`'s errors are of a part each; h, half the logarithm and both series
// are smaller than Σ|terms|. The slope's q·share − excess is half of either.
//
// Fractions: the value in ε of what is added up, two log Γ's and eight logarithms of either kind (5.00; 6.30 without
// FMA; float64 5.80; 5.80): sixteen sums of ½ each; and the slope likewise, in ε·(8x/(θ(θ + 8)) + Σ_{k<8} x/((θ + k)(θ
// + k + x)) + |slope|) (6.70; 6.70 without FMA; float64 6.70; 6.70): both are 0 at x = 0 and 1, their terms are not.
template <class T>
VF_INLINE Rising<T> rising(T x, T theta, T inverse) {
  using E = Element<T>;
  const Factors<T> factors = eight_factors(x, splat<T>(1), inverse);
  const auto beyond = x > E(8);
  T value = log_of_normal(factors.product), slope = factors.share * inverse * inverse;
  const auto tiny = theta < E(0x1p-16);
  if (any(tiny)) {
    const Rising<T> own = rising_of_tiny(x, select(tiny, theta, splat<T>(1)));
    value = select(tiny, own.value, value);
    slope = select(tiny, own.slope, slope);
  }
  if (any(beyond)) {
    const Rising<T> more = rising_beyond(select(beyond, x, splat<T>(9)), theta, inverse);
    value = select(beyond, value + more.value, value);
    slope = select(beyond, slope + more.slope, slope);
  }
  const auto fraction = is_fraction(x) | (x < E(0));
  if (any(fraction)) {
    const Rising<T> other = rising_of_fraction(select(fraction, x, splat<T>(0.5)), theta, inverse);
    value = select(fraction, other.value, value);
    slope = select(fraction, other.slope, slope);
  }
  return {value, slope};
}

// What is left of the term where x is many times θ, without its part of θ·log(1 + μ/θ): there log x!, x·log μ and the
// sum over k are far larger than what they add up to. Of x > 8, θ ≤ x/8 and m = μ + ε:
//   log Γ(x + θ) − log x! − log Γ(θ) − x·log(1 + θ/m), and Σ_{k<x} 1/(θ + k) − x/(θ + m), its derivative by θ.
template <class T>
VF_RARE Rising<T> many_times(T x, T theta, T m) {
  using E = Element<T>;
  constexpr E half_log_2pi = static_cast<E>(0.91893853320467274178);
  const T next = x + E(1), end = x + theta, from = theta + E(8);
  const T log_from = log(from);
  const Stirling<T> a = stirling(from), b = stirling(end);
  // log Γ(θ) is log Γ(θ + 8) less eight logarithms, two factors in each.
  T gamma = fma(from - E(0.5), log_from, (half_log_2pi - from) + a.rest), inverses = splat<T>(0);
  for (int k = 0; k < 8; k += 2) {
    const T one = theta + E(k), two = theta + E(k + 1);
    gamma = gamma - (log(one) + log(two));
    inverses = inverses + (E(1) / one + E(1) / two);
  }
  // log Γ(x + θ) − log Γ(x + 1): θ − 1 is little beside x.
  const T more = theta - E(1);
  const T ratio = fma(more, log(next), stirling_rising(more, next).value);
  const T value = (ratio - gamma) - x * growth(theta / m).log;
  const T psi = growth((x - E(8)) / from).log + ((E(0.5) / from - E(0.5) / end) + (a.slope - b.slope));
  return {value, (inverses + psi) - x / (theta + m)};
}

// log x! for x ≥ 0. Counts, 0 for 0 and 1 (1.60; 2.00 without FMA; float64 1.60; 2.00): `log` of an exact product has
// its own, and from 9 on log x − 1 and its product have it enlarged by log x/(log x − 1). Fractions, in ε·(log Γ(x + 9)
// + Σ log(x + k)) (3.35; 3.35 without FMA; float64 3.35; 3.50): nine sums of ½ ULP each.
template <class T>
VF_INLINE T log_factorial(T x) {
  using E = Element<T>;
  T factorial = splat<T>(1);
#pragma GCC unroll 8
  for (int k = 1; k < 8; ++k) factorial = factorial * select(x > E(k), splat<T>(E(k + 1)), splat<T>(1));
  T value = log(factorial);
  const auto beyond = x > E(8);
  if (any(beyond)) value = select(beyond, stirling_factorial(select(beyond, x, splat<T>(9))), value);
  const auto fraction = is_fraction(x) | (x < E(0));
  if (any(fraction)) {
    T other = stirling_factorial(x + E(8));
    for (int k = 1; k < 9; ++k) other = other - log(x + E(k));
    value = select(fraction, other, value);
  }
  return value;
}

// What a count density's parameters are: μ or its logarithm, θ or its logarithm; eps, which is added to the arguments
// of the negative binomial's logarithms.
template <class E>
struct CountForm {
  bool log_mean, log_theta;
  E eps;
};

template <class T>
struct CountTerm {
  T log_prob, dmean, dtheta;  // by the parameters as they are given
  T none;                     // −log p of a count of 0
};

// `some` says that a count may be another than 0; `mu` is the mean, whatever of it `mean` is.
template <bool some = true, class T, class E>
VF_INLINE CountTerm<T> negative_binomial(T mu, T mean, T theta, T x, const CountForm<E>& form) {
  const T shape = form.log_theta ? exp(theta) : theta;
  const T inverse = E(1) / shape;
  const bool has_eps = form.eps != E(0);
  // Of log((θ + μ + ε)/θ) and of log((θ + μ + ε)/(θ + ε)).
  const T m = has_eps ? mu + form.eps : mu, from = has_eps ? shape + form.eps : shape;
  const T r = mu / from;
  const Growth<T> g = growth(r), g_count = has_eps ? growth(m * inverse) : g;
  // θ·log(1 + r), which is μ where r is nothing beside 1.
  T none = select(r < E(sizeof(E) == 4 ? 0x1p-25 : 0x1p-54), mu, shape * g.log);
  const T rest = g_count.rest;
  T by_theta = -g.excess;
  if (has_eps) by_theta = by_theta - g.share * (form.eps / from);
  T value = -none, by_mean = form.log_mean ? -rest * mu : -rest;
  if constexpr (some) {
    const auto counted = x != E(0);
    if (any(counted)) {
      const Rising<T> c = rising(x, shape, inverse);
      const T log_m = form.log_mean && !has_eps ? mean : log(m);
      value = select(counted, (x * log_m - x * g_count.log) + (c.value - none), value);
      const T base = by_theta;
      by_theta = select(counted, (x * inverse * g_count.share + by_theta) - c.slope, by_theta);
      // A quotient of m beyond the exponents is left to the other form.
      const auto many = (x > at_least(shape * E(8), E(8))) & (m * inverse > E(0x1p-100));
      if (any(many)) {
        const T one = splat<T>(1);
        const Rising<T> left = many_times(select(many, x, splat<T>(9)), select(many, shape, one), select(many, m, one));
        value = select(many, left.value - none, value);
        by_theta = select(many, base + left.slope, by_theta);
      }
      const T by_log = (x - m) * rest;
      by_mean = select(counted, !form.log_mean ? by_log / m : has_eps ? by_log / m * mu : by_log, by_mean);
    }
  }
  return {value, by_mean, form.log_theta ? by_theta * shape : by_theta, none};
}
template <bool some = true, class T, class E>
VF_INLINE CountTerm<T> negative_binomial(T mean, T theta, T x, const CountForm<E>& form) {
  return negative_binomial<some>(form.log_mean ? exp(mean) : mean, mean, theta, x, form);
}

// x·log(λ + ε) − λ − log x!, and its slope by λ or its logarithm.
template <bool some = true, class T>
VF_INLINE CountTerm<T> poisson(T rate, T x, bool log_rate, Element<T> eps) {
  using E = Element<T>;
  const T lambda = log_rate ? exp(rate) : rate, m = eps != E(0) ? lambda + eps : lambda;
  T value = -lambda, slope = log_rate ? -lambda : splat<T>(-1);
  if constexpr (some) {
    const auto counted = x != E(0);
    if (any(counted)) {
      const T log_m = log_rate && eps == E(0) ? rate : log(m);
      value = select(counted, (x * log_m - lambda) - log_factorial(x), value);
      // Where ε is 0, of one difference.
      const T by_log = eps != E(0) ? x * (lambda / m) - lambda : x - lambda;
      slope = select(counted, log_rate ? by_log : eps != E(0) ? x / m - E(1) : by_log / lambda, slope);
    }
  }
  return {value, slope, T{}, lambda};
}

template <class T>
struct InflatedTerm {
  T log_prob, share, dlogits;  // share: of the count density, in its gradients
};

// log(σ(π) + σ(−π)e^−u), and by π, where e^−u or σ(π) is no ordinary number: log p (0.70; 0.70 without FMA; float64
// 0.70; 0.70), share (0.80; 0.80 without FMA; float64 0.80; 0.80), and the slope in ε, for it is a difference from 1
// (0.70; 0.70 without FMA; float64 0.70; 0.70). u + π is exact where a result depends on it, for both are large; the
// larger softplus is its argument. The others are `logistic`'s.
template <class T>
VF_RARE InflatedTerm<T> inflated_far(T u, T logits) {
  const T up = u + logits;
  return {softplus(-up) - softplus(-logits), logistic(-up), logistic(-logits) - logistic(-up)};
}

// σ(π), σ(−π), and −log σ(−π), for every π: dead (0.90; 0.90 without FMA; float64 0.90; 0.90), alive (0.90; 0.90
// without FMA; float64 0.90; 0.90), loss (1.40; 1.45 without FMA; float64 1.40; 1.45). The smaller share has
// `logistic`'s error, the larger ½ for the difference and at most half of that; the loss is `softplus`.
template <class T>
struct Gate {
  T dead, alive, loss;
};
template <class T>
VF_INLINE Gate<T> gate_of(T logits) {
  using E = Element<T>;
  const Corrected<T> e = exp_of_negative(minus_abs(logits));
  const T s = over_one_plus(e.value, e.error, e), other = E(1) - s;
  const auto positive = logits > E(0);
  return {select(positive, other, s), select(positive, s, other),
          select(positive, logits, splat<T>(0)) + log1p_unit(e.value, e.error)};
}

// e^−u and 1 − e^−u for u ≥ 0, from one expansion.
template <class T>
struct Survival {
  T share, lost;
};
template <class T>
VF_INLINE Survival<T> survival(T u) {
  using E = Element<T>;
  const Expansion<T> e = expand(at_least(-u, FormatOf<T>::kLow));
  // Beside 1, 2⁻⁶⁰ is nothing.
  const T scale = power_of_two(at_least(e.n, E(-60)));
  return {ldexp_down(e.to_a_unit(), e.n), fma(-scale, fma(e.r * e.r, e.p, e.r), E(1) - scale)};
}

// A count that is 0 by σ(π) besides, of one that is 0: of u ≥ 0, −log p of its 0. log p (4.75; 4.75 without FMA;
// float64 4.75; 4.75), share (4.90; 4.90 without FMA; float64 4.90; 4.90), slope (5.70; 5.70 without FMA; float64 5.70;
// 5.70); where either is far, inflated_far's.
//
// σ(π) and σ(−π) are a/s and b/s, one of a and b 1 and the other e^−|π|, s = a + b; log p is that of q/s, q = a +
// be^−u, whose difference from s, b(1 − e^−u), is known: by artanh of (s − q)/(s + q), of q times a power of two where
// it is much smaller. One division is for all quotients, each of which has the errors of one exponential, or of two
// where b is not 1, a rounding for every product, for s and for q, and four of the division's.
template <class T>
VF_INLINE InflatedTerm<T> inflated_zero(T logits, T u) {
  using F = FormatOf<T>;
  using E = Element<T>;
  const Expansion<T> power = expand(at_least(minus_abs(logits), F::kLow));
  const T e = ldexp_down(power.to_a_unit(), power.n), s = e + E(1);
  const auto positive = logits > E(0);
  const T a = select(positive, splat<T>(1), e), b = select(positive, e, splat<T>(1));
  const Survival<T> count = survival(u);
  const T own = b * count.share, lost = b * count.lost, q = a + own;
  const auto less = q < s * E(0.36);
  const Int<T> exponent = select(less, (bits(s) >> F::kDigits) - (bits(q) >> F::kDigits), Int<T>{});
  const T k = to_float(exponent), scale = power_of_two(k), even = q * scale;
  const T product = s * even, sum = s + even, both = E(1) / (product * sum), of_product = sum * both;
  const T t = select(less, s - even, lost) * (product * both), square = t * t;
  const T cubic = t * E(2) * square * artanh_cubic(square);
  const T log = fma(k, splat<T>(F::kLn2High), fma(t, splat<T>(2), fma(k, splat<T>(F::kLn2Low), cubic)));
  InflatedTerm<T> zero{-log, own * scale * (s * of_product), a * scale * (lost * of_product)};
  const auto far = q < E(sizeof(E) == 4 ? 0x1p-100 : 0x1p-900);
  if (any(far)) {
    const InflatedTerm<T> f = inflated_far(u, logits);
    zero = {select(far, f.log_prob, zero.log_prob), select(far, f.share, zero.share),
            select(far, f.dlogits, zero.dlogits)};
  }
  return zero;
}

// And of any: of the count density's log p besides. Where x is not 0, log p (1.20; 1.20 without FMA; float64 1.20;
// 1.20): the loss's error, of which a larger sum has less, and ½; the share, which is 1 (0.00; 0.00 without FMA;
// float64 0.00; 0.00); the slope, −σ(π) (0.90; 0.90 without FMA; float64 0.90; 0.90).
template <bool some = true, class T>
VF_INLINE InflatedTerm<T> zero_inflated(T logits, T log_prob, T u, T x) {
  if constexpr (!some) return inflated_zero(logits, u);
  const Gate<T> gate = gate_of(logits);
  const auto zero = x == Element<T>(0);
  InflatedTerm<T> out{log_prob - gate.loss, splat<T>(1), -gate.dead};
  if (any(zero)) {
    const InflatedTerm<T> at_zero = inflated_zero(logits, u);
    out = {select(zero, at_zero.log_prob, out.log_prob), select(zero, at_zero.share, out.share),
           select(zero, at_zero.dlogits, out.dlogits)};
  }
  return out;
}

}  // namespace VF_ISA
}  // namespace vae_fast
