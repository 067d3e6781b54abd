// A logistic distribution's probability of a bin of data, as its logarithm, and derivatives of that; and the tanh of
// the coefficients by which a channel's mean depends on those before it.
#pragma once

#include "continuous_bernoulli.h"

namespace vae_fast {
namespace VF_ISA {

// The bins: centres x, edges half a width beyond. Below `low` a bin has all that is below it, above `high` all above.
template <class E>
struct Bins {
  E half_width, log_width, min_log_scale, low, high, log_density_below;
  bool density;  // where a bin's probability is below a bound, the width times the density at its centre

  template <class Args>
  explicit Bins(const Args& args, double log_width, double log_density_below)
      : half_width(static_cast<E>(args.half_width)),
        log_width(static_cast<E>(log_width)),
        min_log_scale(static_cast<E>(args.min_log_scale)),
        low(static_cast<E>(args.low)),
        high(static_cast<E>(args.high)),
        log_density_below(static_cast<E>(log_density_below)),
        density(args.density_below > 0) {}
};

template <class T>
struct BinTerm {
  T value, by_mean, by_log_scale;
};

// log(1 − e^−2v), and 2v/(e^2v − 1), for v ≥ 0 with log 2v known: near 0 by the series of log(sinh v/v), beyond it of
// e^−2v, whose part of 1 is then small.
template <class T>
struct BinWidth {
  T value, slope;

  VF_INLINE BinWidth(T v, T log_twice) {
    using E = Element<T>;
    const T square = v * v;
    value = log_twice + fma(square, log_sinhc(square), -v);
    slope = fma(square + square, log_sinhc_slope(square), E(1) - v);
    const auto is_far = v > E(1);
    if (!any(is_far)) return;
    const T twice = v + v, e = exp_of_negative(-twice).value, f = -e, of_f = f * f;
    const T far = f + fma(of_f * f, log1p_cubic(f), of_f * E(-0.5));
    value = select(is_far, far, value);
    // Of no e^−2v there is none, however far.
    slope = select(is_far, select(e == E(0), splat<T>(0), twice * e / (E(1) - e)), slope);
  }
};

// The logarithm of the probability of x's bin, and its derivatives by the mean and by log s. What is symmetric is made
// of the distance D of x from the mean, towards the edge that x is nearer to; at the lowest and the highest bin of the
// other side's end. With q and r, 1/s times D less and plus half a width:
//   log P = log(1 − e^(q − r)) − log(1 + e^−r) − log(1 + e^q), at an end −log(1 + e^q):
// all of these are negative, so that nothing cancels.
template <class T, class E = Element<T>>
VF_INLINE BinTerm<T> bin_term(const Bins<E>& bins, T x, T distance, T log_scale) {
  const auto lowest = x<bins.low, highest = x> bins.high, negative = distance < E(0);
  const T size = abs(distance);
  const T away = select(lowest, -distance, select(highest, distance, size));
  const T s = at_least(log_scale, bins.min_log_scale), rate = exp_over<1>(-s);
  const T q = rate * (away - bins.half_width), r = rate * (away + bins.half_width);
  const LogisticOfNegative<T> of_q(minus_abs(q)), of_r(minus_abs(r));
  const auto above = q > E(0);
  const T share = of_q.share(), upper = select(above, E(1) - share, share);
  const T own = -(select(above, q, splat<T>(0)) + of_q.log_sum());
  const BinWidth<T> width(rate * bins.half_width, bins.log_width - s);
  const T lower = of_r.share();
  // A share of 0 is none of an infinite distance.
  const T by_r = select(lower == E(0), lower, r * lower), by_q = select(upper == E(0), upper, q * upper);
  T value = own + (width.value - of_r.log_sum()), slope = rate * (lower - upper);
  T by_log_scale = by_q - (width.slope + by_r);
  if (bins.density) {
    const T u = rate * size;
    const LogisticOfNegative<T> of_u(minus_abs(u));
    const T rest = E(1) - (of_u.share() + of_u.share());
    const auto rare = value < bins.log_density_below;
    const T density = (bins.log_width - s) - (u + (of_u.log_sum() + of_u.log_sum()));
    value = select(rare, density, value);
    slope = select(rare, -rate * rest, slope);
    by_log_scale = select(rare, fma(u, rest, splat<T>(-1)), by_log_scale);
  }
  const T at_end = -rate * upper;
  value = select(lowest, own, select(highest, own, value));
  slope = select(lowest, at_end, select(highest, at_end, slope));
  by_log_scale = select(lowest, by_q, select(highest, by_q, by_log_scale));
  // Of what is clamped there is no slope.
  by_log_scale = select(log_scale < bins.min_log_scale, splat<T>(0), by_log_scale);
  const T by_mean = select(lowest, slope, select(highest, -slope, select(negative, slope, -slope)));
  return {value, by_mean, by_log_scale};
}

template <class T>
struct Tanh {
  T value, slope;
};

// tanh c and its derivative: of h = ½(1 − e^−2|c|), which keeps its digits near 0, and of e^−2|c|, which keeps them far
// from it.
template <bool kSlope, class T>
VF_INLINE Tanh<T> tanh_of(T c) {
  using E = Element<T>;
  const T far = abs(c) * E(-2), h = -HalfExpm1<T>(far).value(), size = h / (E(1) - h);
  Tanh<T> made{select(c < E(0), -size, size), splat<T>(0)};
  if constexpr (kSlope) {
    const T share = LogisticOfNegative<T>(far).share();
    made.slope = share * (E(1) - share) * E(4);
  }
  return made;
}

}  // namespace VF_ISA
}  // namespace vae_fast
