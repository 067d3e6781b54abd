// One element's term of each density, and its derivatives: what the operators sum. Results nobody uses cost nothing.
// S is a Scale.
#pragma once

#include "sigma.h"

namespace vae_fast {
namespace VF_ISA {

template <class T>
struct BernoulliTerm {
  T log_prob, slope, dt;
};

// t·log σ(y) + (1 − t)·log(1 − σ(y)) and t − σ(y), without a difference that cancels.
template <class T>
VF_INLINE BernoulliTerm<T> bernoulli(T y, T t) {
  using E = Element<T>;
  const T size = minus_abs(y);
  const LogisticOfNegative<T> tail(size);
  const auto positive = y > E(0);
  // How far t is from what y's sign says.
  const T wrong = select(positive, E(1) - t, t);
  // An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
  const T cost = select(wrong == E(0), splat<T>(0), size * wrong);
  // σ(−|y|).
  const T s = tail.share();
  return {cost - tail.log_sum(), select(positive, s - wrong, wrong - s), y};
}

// p·t·log σ(y) + (1 − t)·log(1 − σ(y)), p the weight of the positive.
template <class T>
VF_INLINE BernoulliTerm<T> bernoulli(T y, T t, T pos_weight) {
  using E = Element<T>;
  const T size = minus_abs(y);
  const LogisticOfNegative<T> tail(size);
  const auto positive = y > E(0);
  const T of_one = pos_weight * t, of_zero = E(1) - t;
  const T wrong = select(positive, of_zero, of_one);
  const T cost = select(wrong == E(0), splat<T>(0), size * wrong);
  const T log_sum = tail.log_sum();
  // σ(−|y|), and σ(|y|).
  const T s = tail.share(), rest = E(1) - s;
  return {cost - (of_one + of_zero) * log_sum, of_one * select(positive, s, rest) - of_zero * select(positive, rest, s),
          select(positive, y, pos_weight * y) + (E(1) - pos_weight) * log_sum};
}

// t·max(log p, −100) + (1 − t)·max(log(1 − p), −100), and the slope that F.binary_cross_entropy gives it by p.
template <class T>
VF_INLINE BernoulliTerm<T> bernoulli_of_probs(T p, T t) {
  using E = Element<T>;
  const T log_p = clamped_log(p), log_q = clamped_log1m(p);
  const T variance = at_least(p * (E(1) - p), static_cast<E>(1e-12));
  return {fma(t, log_p, (E(1) - t) * log_q), (t - p) / variance, log_p - log_q};
}

// ½(difference/σ)² and difference/σ², finite whenever they are; a difference of 0 gives 0 whatever σ.
template <class T>
struct Standardised {
  T half_square, slope;
};

// In two steps of 1/σ, each with its power of two in two steps.
template <class T>
VF_INLINE Standardised<T> standardised_far(T difference, T log_sigma) {
  using F = FormatOf<T>;
  const Wide<T> inverse = split_exp(at_most(at_least(-log_sigma, -F::kFar), F::kFar));
  const T root = power_of_two(inverse.n), m = select(log_sigma == infinity<T>(), splat<T>(0), inverse.m);
  const T t = ((difference * root) * m) * root;
  return {t * Element<T>(0.5) * t, ((t * root) * m) * root};
}

// Whether 1/σ² is an ordinary number, of which all products here are.
template <class T>
VF_INLINE auto is_ordinary(T log_sigma) {
  return abs(log_sigma) < FormatOf<T>::kOrdinary * Element<T>(0.5);
}

// Where log σ² is the argument, or twice it; rarely() runs where a 1/σ² is no ordinary number. kOrdinary: none is that.
template <bool kOrdinary = false, class T, class Form, class Rarely>
VF_INLINE Standardised<T> standardised(T difference, T r, T log_sigma, const Form& form, Rarely&& rarely) {
  using E = Element<T>;
  const auto extreme = !is_ordinary(log_sigma);
  const T slope = difference * form.ordinary_inv_var(r);
  const T half_square = difference * E(0.5) * slope;
  if (kOrdinary || !any(extreme)) return {half_square, slope};
  rarely();
  const Standardised<T> far = standardised_far(difference, log_sigma);
  return {select(extreme, far.half_square, half_square), select(extreme, far.slope, slope)};
}

// The same elsewhere, of a σ² that is no ordinary number; the square may be beyond its type.
template <class T>
struct WideStandardised {
  Wide<T> half_square;
  T slope;
};

template <class T>
VF_INLINE WideStandardised<T> wide_standardised(T difference, Wide<T> var) {
  using E = Element<T>;
  const Wide<T> d = wide(difference);
  Wide<T> square = (d * d / var).half();
  T slope = (d / var).narrow();
  // A 0 is smaller than any number that it is added to.
  const T none = select(var.m == var.m, difference, splat<T>(1));
  square = select(none == E(0), Wide<T>{splat<T>(0), splat<T>(E(-4096))}, square);
  return {square, select(none == E(0), splat<T>(0), slope)};
}

template <class T>
struct GaussianTerm {
  T log_prob, dmean, draw;
};

// growth·slope, or `beyond` where growth is no ordinary number.
template <class T>
VF_INLINE Wide<T> wide_product(T growth, Wide<T> slope, Wide<T> beyond) {
  return select(abs(growth) >= FormatOf<T>::kBig, beyond, wide(growth) * slope);
}

template <class T, class Form>
VF_RARE GaussianTerm<T> gaussian_far(T difference, T r, const Form& form) {
  using E = Element<T>;
  const auto f = form.far(r);
  const WideStandardised<T> s = wide_standardised(difference, f.var);
  const T half_square = s.half_square.narrow();
  const T log_prob = -(half_square + (f.log_sigma + static_cast<E>(0.91893853320467274178)));
  return {log_prob, s.slope, wide_product(half_square - E(0.5), f.dlog_var, s.half_square * f.dlog_var).narrow()};
}

// −½(log σ² + (difference/σ)² + log 2π); difference = x − m. kOrdinary: as of `standardised`.
template <bool kOrdinary = false, class T, class Form>
VF_INLINE GaussianTerm<T> gaussian(T difference, T r, const Form& form) {
  using E = Element<T>;
  constexpr E half_log_2pi = static_cast<E>(0.91893853320467274178);
  if (form.logarithmic()) {
    const T log_sigma = form.log_sigma(r);
    const Standardised<T> s = standardised<kOrdinary>(difference, r, log_sigma, form, [] {});
    return {-(s.half_square + (log_sigma + half_log_2pi)), s.slope, form.twice(s.half_square - E(0.5))};
  }
  const T x = form.nearest(r), slope = difference * form.inv_var_of(x);
  const T half_square = difference * E(0.5) * slope;
  const T log_prob = -(half_square + (form.log_sigma_of(x) + half_log_2pi));
  const T draw = (half_square - E(0.5)) * form.dlog_var(r, x);
  const auto ordinary = form.if_ordinary(r, x, half_square) < FormatOf<T>::kBig;
  if (!any(!ordinary)) return {log_prob, slope, draw};
  const GaussianTerm<T> far = gaussian_far(difference, r, form);
  return {select(ordinary, log_prob, far.log_prob), select(ordinary, slope, far.dmean),
          select(ordinary, draw, far.draw)};
}

// log σ and ½ d log σ²/dr.
template <class T>
struct LogScale {
  T log_sigma, draw;
};

template <class T, class Form>
VF_RARE LogScale<T> log_scale_far(T r, const Form& form) {
  const auto f = form.far(r);
  return {f.log_sigma, f.dlog_var.half().narrow()};
}

template <class T, class Form>
VF_INLINE LogScale<T> log_scale(T r, const Form& form) {
  using E = Element<T>;
  if (form.logarithmic()) return {form.log_sigma(r), form.twice(splat<T>(E(0.5)))};
  const T x = form.nearest(r), log_sigma = form.log_sigma_of(x), draw = form.dlog_var(r, x) * E(0.5);
  const auto ordinary = form.if_ordinary(r, x, splat<T>(0)) == E(0);
  if (!any(!ordinary)) return {log_sigma, draw};
  const LogScale<T> far = log_scale_far(r, form);
  return {select(ordinary, log_sigma, far.log_sigma), select(ordinary, draw, far.draw)};
}

template <class T>
struct KLTerm {
  T kl, dmu, draw, dprior_raw;
};

// ½(e^d − 1 − d) where d is infinite: of d's half, and of −½d where that is finite.
template <class T>
VF_RARE T spread_of_infinite(T half, T minus_half) {
  return select(half < Element<T>(0), minus_half, infinity<T>() - half);
}

template <class T, class Form>
VF_RARE KLTerm<T> gaussian_kl_far(T dm, T r, const Form& form) {
  using E = Element<T>;
  const auto f = form.far(r);
  const Wide<T> grown = f.var.half();
  const T d = f.log_sigma + f.log_sigma, half = grown.narrow();
  const T spread = half_expm1_minus(d, f.log_sigma, half);
  const T growth = select(abs(d) <= E(1), half_expm1(d), half - E(0.5));
  return {fma(dm * E(0.5), dm, spread), dm, wide_product(growth, f.dlog_var, grown * f.dlog_var).narrow(), T{}};
}

// KL(N(μ, σ²) ‖ N(μp, 1)); dm = μ − μp.
template <class T, class Form>
VF_INLINE KLTerm<T> gaussian_kl(T dm, T r, const Form& form) {
  using E = Element<T>;
  if (form.logarithmic()) {
    const T log_var = form.twice(r);
    const HalfExpm1<T> e(log_var);
    T spread = e.minus();
    if (form.param() == kLogstd) {
      spread = select(abs(log_var) < infinity<T>(), spread, spread_of_infinite(r, -r));
    }
    return {fma(dm * E(0.5), dm, spread), dm, form.twice(e.value()), T{}};
  }
  const T x = form.nearest(r), sigma = form.sigma_of(x), log_var = form.log_sigma_of(x) * E(2);
  const T kl = fma(dm * E(0.5), dm, half_expm1_minus(log_var, sigma));
  const T draw = half_expm1(log_var, sigma) * form.dlog_var(r, x);
  const auto ordinary = form.if_ordinary(r, x, splat<T>(0)) == E(0);
  if (!any(!ordinary)) return {kl, dm, draw, T{}};
  const KLTerm<T> far = gaussian_kl_far(dm, r, form);
  return {select(ordinary, kl, far.kl), dm, select(ordinary, draw, far.draw), T{}};
}

// value + error·slope, a first-order correction; an infinite value needs none.
template <class T>
VF_INLINE T corrected(T value, T error, T slope) {
  const T result = fma(error, slope, value);
  return select(error == Element<T>(0), value, select(abs(value) == infinity<T>(), value, result));
}

// kOwn: σp is in a form of its own.
template <bool kOwn, class T, class Form>
VF_RARE KLTerm<T> gaussian_kl_far(T dm, T r, T prior_r, const Form& form, const Form& prior_form) {
  using E = Element<T>;
  using F = FormatOf<T>;
  const auto f = form.far(r), prior = prior_form.far(prior_r);
  const Wide<T> ratio = form.var_ratio(f, prior_form, prior);
  const Wide<T> own_beyond = kOwn ? form.var_ratio_slope(f, prior_form, prior) : ratio * f.dlog_var;
  const Wide<T> beyond = form.var_ratio_prior_slope(f, prior_form, prior).half();
  const T square = ratio.narrow(), grown = ratio.half().narrow();
  // Nearer than the difference of two logarithms where the ratio is an ordinary number; not where both are small, of
  // which one may be exact.
  const T difference = f.log_sigma - prior.log_sigma;
  T half = difference;
  half = select(square > E(1) / F::kBig, select(square < F::kBig, log(square) * E(0.5), half), half);
  if (kOwn) half = select(abs(f.log_sigma) <= E(1), select(abs(prior.log_sigma) <= E(1), difference, half), half);
  const T d = half + half;
  const T spread = half_expm1_minus(d, half, grown);
  const T growth = select(abs(d) <= E(1), half_expm1(d), grown - E(0.5));
  const WideStandardised<T> s = wide_standardised(dm, prior.var);
  const Wide<T> both = s.half_square * prior.dlog_var + wide_product(growth, prior.dlog_var, beyond);
  return {s.half_square.narrow() + spread, s.slope, wide_product(growth, f.dlog_var, own_beyond.half()).narrow(),
          -both.narrow()};
}

// KL(N(μ, σ²) ‖ N(μp, σp²)).
template <class T, class Form>
VF_INLINE KLTerm<T> gaussian_kl(T dm, T r, T prior_r, const Form& form) {
  using E = Element<T>;
  using F = FormatOf<T>;
  if (form.logarithmic()) {
    const T less = r - prior_r, d = form.twice(less);
    // The rounding error of d (Knuth's two-sum), which e^d would magnify; none where d, or a step of it, is infinite.
    const T part = r - less;
    T error = form.twice((r - (less + part)) + (part - prior_r));
    const auto finite = abs(d) < infinity<T>();
    error = select(abs(error) < infinity<T>(), error, splat<T>(0));
    const HalfExpm1<T> e(d);
    T growth = e.value();
    T spread = corrected(e.minus(), error, growth);
    growth = corrected(growth, error, growth + E(0.5));
    const auto mend = [&] {
      const T half = r * E(0.5) - prior_r * E(0.5);
      spread = select(finite, spread, spread_of_infinite(half, form.param() == kLogvar ? -half : -less));
    };
    if (form.param() == kLogstd && any(!finite)) mend();
    // A difference of two logarithms of variances is infinite only where both are huge.
    const Standardised<T> s = standardised(dm, prior_r, form.log_sigma(prior_r), form, mend);
    return {s.half_square + spread, s.slope, form.twice(growth), -form.twice(s.half_square + growth)};
  }
  const T x = form.nearest(r), prior_x = form.nearest(prior_r);
  const T ratio = form.sigma_of(x / prior_x), d = log(ratio) * E(2);
  const T spread = half_expm1_minus(d, ratio), growth = half_expm1(d, ratio);
  const T slope = dm * form.inv_var_of(prior_x), half_square = dm * E(0.5) * slope;
  const T draw = growth * form.dlog_var(r, x), dprior = -(half_square + growth) * form.dlog_var(prior_r, prior_x);
  const T size = fma(ratio, ratio, half_square);
  const auto ordinary = form.if_ordinary(r, x, form.if_ordinary(prior_r, prior_x, size)) < F::kBig;
  if (!any(!ordinary)) return {half_square + spread, slope, draw, dprior};
  const KLTerm<T> far = gaussian_kl_far<false>(dm, r, prior_r, form, form);
  return {select(ordinary, half_square + spread, far.kl), select(ordinary, slope, far.dmu),
          select(ordinary, draw, far.draw), select(ordinary, dprior, far.dprior_raw)};
}

// KL(N(μ, σ²) ‖ N(μp, σp²)), σp in a form of its own.
template <class T, class Form>
VF_INLINE KLTerm<T> gaussian_kl(T dm, T r, T prior_r, const Form& form, const Form& prior_form) {
  using E = Element<T>;
  if (!form.logarithmic() || !prior_form.logarithmic()) {
    return gaussian_kl_far<true>(dm, r, prior_r, form, prior_form);
  }
  // As above, of log σ.
  const T size = form.log_sigma(r), prior_size = prior_form.log_sigma(prior_r), less = size - prior_size;
  const T part = size - less, d = less + less;
  T error = ((size - (less + part)) + (part - prior_size)) * E(2);
  error = select(abs(error) < infinity<T>(), error, splat<T>(0));
  const HalfExpm1<T> e(d);
  T growth = e.value();
  T spread = corrected(e.minus(), error, growth);
  growth = corrected(growth, error, growth + E(0.5));
  spread = select(abs(d) < infinity<T>(), spread, spread_of_infinite(size * E(0.5) - prior_size * E(0.5), -less));
  const Standardised<T> s = standardised(dm, prior_r, prior_size, prior_form, [] {});
  return {s.half_square + spread, s.slope, form.twice(growth), -prior_form.twice(s.half_square + growth)};
}

}  // namespace VF_ISA
}  // namespace vae_fast
