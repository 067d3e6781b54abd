// One element's term of each density, and its derivatives: what the operators sum. Results nobody uses cost nothing.
// S is a Scale.
#pragma once

#include "scale.h"

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
  const Corrected<T> e = exp_of_negative(size);
  const auto positive = y > E(0);
  // How far t is from what y's sign says.
  const T wrong = select(positive, E(1) - t, t);
  // An infinite logit of the matching target costs nothing; 0·∞ would be NaN.
  const T cost = select(wrong == E(0), splat<T>(0), size * wrong);
  // σ(−|y|).
  const T s = over_one_plus(e.value, e.error, e);
  return {cost - log1p_unit(e.value, e.error), select(positive, s - wrong, wrong - s), y};
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

template <class T, class S>
VF_INLINE Standardised<T> standardised(T difference, T r, T log_var, const S& scale) {
  using E = Element<T>;
  const auto extreme = !(abs(log_var) < FormatOf<T>::kOrdinary);
  const T slope = difference * scale.inv_var(r);
  const T half_square = difference * E(0.5) * slope;
  if (!any(extreme)) return {half_square, slope};
  // In two steps of 1/σ where 1/σ² is no ordinary number.
  T inv_sigma = scale.inv_sigma(r);
  inv_sigma = select(difference == E(0), select(abs(inv_sigma) == infinity<T>(), splat<T>(0), inv_sigma), inv_sigma);
  const T t = difference * inv_sigma;
  return {select(extreme, t * E(0.5) * t, half_square), select(extreme, t * inv_sigma, slope)};
}

template <class T>
struct GaussianTerm {
  T log_prob, dmean, draw;
};

// −½(log σ² + (difference/σ)² + log 2π); difference = x − m.
template <class T, class S>
VF_INLINE GaussianTerm<T> gaussian(T difference, T r, const S& scale) {
  using E = Element<T>;
  const T log_var = scale.log_var(r);
  const Standardised<T> s = standardised(difference, r, log_var, scale);
  const T log_prob = -(s.half_square + (log_var + static_cast<E>(1.8378770664093454836)) * E(0.5));
  return {log_prob, s.slope, (s.half_square - E(0.5)) * scale.dlog_var(r)};
}

template <class T>
struct KLTerm {
  T kl, dmu, draw, dprior_raw;
};

// KL(N(μ, σ²) ‖ N(μp, 1)); dm = μ − μp.
template <class T, class S>
VF_INLINE KLTerm<T> gaussian_kl(T dm, T r, const S& scale) {
  using E = Element<T>;
  const T log_var = scale.log_var(r);
  T spread, growth;
  if (scale.logarithmic()) {
    spread = half_expm1_minus(log_var);
    growth = half_expm1(log_var);
  } else {
    const T sigma = scale.sigma(r);
    spread = half_expm1_minus(log_var, sigma);
    growth = half_expm1(log_var, sigma);
  }
  return {fma(dm * E(0.5), dm, spread), dm, growth * scale.dlog_var(r), T{}};
}

// value + error·slope, a first-order correction; an infinite value needs none.
template <class T>
VF_INLINE T corrected(T value, T error, T slope) {
  const T result = fma(error, slope, value);
  return select(error == Element<T>(0), value, select(abs(value) == infinity<T>(), value, result));
}

// KL(N(μ, σ²) ‖ N(μp, σp²)).
template <class T, class S>
VF_INLINE KLTerm<T> gaussian_kl(T dm, T r, T prior_r, const S& scale) {
  using E = Element<T>;
  const T log_var = scale.log_var(r), prior_log_var = scale.log_var(prior_r), d = log_var - prior_log_var;
  T spread, growth;
  if (scale.logarithmic()) {
    // The rounding error of d (Knuth's two-sum), which e^d would magnify; none where d is infinite.
    const T part = log_var - d;
    T error = (log_var - (d + part)) + (part - prior_log_var);
    error = select(abs(d) < infinity<T>(), error, splat<T>(0));
    growth = half_expm1(d);
    spread = corrected(half_expm1_minus(d), error, growth);
    growth = corrected(growth, error, growth + E(0.5));
  } else {
    const T ratio = scale.sigma(r) * scale.inv_sigma(prior_r);
    spread = half_expm1_minus(d, ratio);
    growth = half_expm1(d, ratio);
  }
  const Standardised<T> s = standardised(dm, prior_r, prior_log_var, scale);
  return {s.half_square + spread, s.slope, growth * scale.dlog_var(r),
          -(s.half_square + growth) * scale.dlog_var(prior_r)};
}

}  // namespace VF_ISA
}  // namespace vae_fast
