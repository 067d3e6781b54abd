// One element's term of densities of a location and a scale beside the Gaussian's, and its derivatives: Laplace's and
// Student's t.
#pragma once

#include "counts.h"

namespace vae_fast {
namespace VF_ISA {

// value·e^−r, of an e^−r that is no ordinary number.
template <class T>
VF_RARE T over_exp(T value, T r) {
  return (wide(value) * wide_exp(-r)).narrow();
}

// A scale as its parameter says it: itself, or its logarithm.
template <class T>
struct Scale {
  T raw;
  bool by_log;

  VF_INLINE T log() const { return by_log ? raw : VF_ISA::log(raw); }
  // value/scale, 0 where the value is, whatever the scale but NaN; by 1.3 ULP and ½ where it is by its logarithm.
  VF_INLINE T under(T value) const {
    const auto none = select(raw == raw, value, splat<T>(1)) == Element<T>(0);
    if (!by_log) return select(none, value, value / raw);
    T result = value * exp(-raw);
    const auto extreme = !(abs(raw) < FormatOf<T>::kOrdinary);
    if (any(extreme)) result = select(extreme, over_exp(value, raw), result);
    return select(none, value, result);
  }
  // The derivative by the parameter, of one by the logarithm.
  VF_INLINE T by_raw(T slope) const { return by_log ? slope : slope / raw; }
};

template <class T>
struct LocationScaleTerm {
  T log_prob, dloc, draw;
};

// −|difference|/b − log 2b; difference = x − loc.
template <class T>
VF_INLINE LocationScaleTerm<T> laplace(T difference, const Scale<T>& b) {
  using E = Element<T>;
  constexpr E log_2 = static_cast<E>(0.69314718055994530942);
  const T size = b.under(abs(difference));
  const T sign = select(difference > E(0), splat<T>(1), select(difference < E(0), splat<T>(-1), difference));
  return {-(size + (b.log() + log_2)), b.under(sign), b.by_raw(size - E(1))};
}

// log Γ(a + ½) − log Γ(a) − ½log a, and its derivative, for a > 0 up to ∞: of a gamma function's halves the part that
// Stirling's formulas lack, s(2a) − 2s(a), where s is the rest of one. Below 12 by way of a + 8:
//   f(a) − f(a + 1) = −½log(1 + d), d = ¼/(a(a + 1)),  f′(a) − f′(a + 1) = d/(a + ½),
// sums of one sign both, like the series' largest parts.
template <class T>
struct HalfStep {
  T value, slope;
};

template <class T>
VF_INLINE HalfStep<T> half_step(T a) {
  using E = Element<T>;
  const auto small = a < E(12);
  const T inverse = E(1) / select(small, a + E(8), a), square = inverse * inverse;
  T value, slope;
  if constexpr (sizeof(E) == 4) {
    // Σ −2(1 − 4⁻ᵏ)B₂ₖ/(2k(2k − 1)a²ᵏ⁻¹), to 1.3e-11.
    value = polynomial(square, -1.0f / 8, 1.0f / 192, -1.0f / 640, 17.0f / 14336);
    slope = polynomial(square, 1.0f / 8, -3.0f / 192, 5.0f / 640, -7 * 17.0f / 14336);
  } else {
    // To 3e-18.
    value = polynomial(square, -1.0 / 8, 1.0 / 192, -1.0 / 640, 17.0 / 14336, -31.0 / 18432, 691.0 / 180224,
                       -5461.0 / 425984, 929569.0 / 15728640, -3202291.0 / 8912896, 221930581.0 / 79691776);
    slope = polynomial(square, 1.0 / 8, -3.0 / 192, 5.0 / 640, -7 * 17.0 / 14336, 9 * 31.0 / 18432,
                       -11 * 691.0 / 180224, 13 * 5461.0 / 425984, -15 * 929569.0 / 15728640, 17 * 3202291.0 / 8912896,
                       -19 * 221930581.0 / 79691776);
  }
  HalfStep<T> step{value * inverse, slope * square};
  if (any(small)) {
    // Π(1 + d) − 1, and Σ d/(a + ½).
    T grown = splat<T>(0), steepness = splat<T>(0);
    for (int k = 0; k < 8; ++k) {
      const T from = a + E(k), middle = from + E(0.5);
      const T d = E(0.25) / (from * (from + E(1)));
      grown = fma(d, grown + E(1), grown);
      steepness = steepness + d / middle;
    }
    step.value = select(small, fma(growth(grown).log, splat<T>(E(-0.5)), step.value), step.value);
    step.slope = select(small, step.slope + steepness, step.slope);
  }
  return step;
}

template <class T>
struct StudentTTerm {
  T log_prob, ddf, dloc, draw;
};

// factor·difference/σ², of a difference/σ that is subnormal where all of it is not.
template <class T>
VF_RARE T faint_slope(T difference, T factor, const Scale<T>& sigma) {
  const Wide<T> product = wide(difference) * wide(factor);
  if (!sigma.by_log) return (product / (wide(sigma.raw) * wide(sigma.raw))).narrow();
  const Wide<T> inverse = wide_exp(-sigma.raw);
  return (product * inverse * inverse).narrow();
}

// log of w = ((x − loc)/σ)²/ν, which itself is beyond its type.
template <class T>
VF_RARE T log_of_square(T difference, T df, const Scale<T>& sigma) {
  return (log(abs(difference)) - sigma.log()) * Element<T>(2) - log(df);
}

// log Γ(½(ν + 1)) − log Γ(½ν) − ½log πν − log σ − ½(ν + 1)·log(1 + w), w = y²/ν, y = (x − loc)/σ; for ν up to ∞, where
// it is a Gaussian's.
template <class T>
VF_INLINE StudentTTerm<T> student_t(T df, T difference, const Scale<T>& sigma) {
  using E = Element<T>;
  using F = FormatOf<T>;
  constexpr E half_log_2pi = static_cast<E>(0.91893853320467274178);
  const T inverse = E(1) / df, more = E(1) + inverse, y = sigma.under(difference);
  const T w = (y / df) * y;
  const Growth<T> g = growth(at_most(w, F::kBig));
  T log_1p = g.log, excess = g.excess;
  const auto far = w >= F::kBig;
  if (any(far)) {
    const T log_w = log_of_square(difference, df, sigma);
    log_1p = select(far, log_w, log_1p);
    excess = select(far, log_w - E(1), excess);
  }
  // Where w is not nothing beside 1; with ν = ∞ it is 0, or NaN where y is beyond its type.
  const auto some = w >= E(sizeof(E) == 4 ? 0x1p-25 : 0x1p-54), large = w >= E(1);
  // σ times the slope by loc where w is small: of fewer roundings than with 1/ν.
  const T slope = select(some, y / (df + y * y) * (df + E(1)), more * y);
  const T loss = select(some, (df + E(1)) * E(0.5) * log_1p, more * y * E(0.5) * y);
  // The slopes by log σ and by loc; of the two forms of each the one that magnifies no rounding of w.
  const T square = slope * y, pull = select(large, df * g.share - g.rest, square - E(1));
  T dloc = select(large, (df + E(1)) * g.share / difference, sigma.under(slope));
  const auto faint = (abs(y) < F::kMin * F::kTwoDigits) & (difference != E(0));
  if (any(faint)) dloc = select(faint, faint_slope(difference, more, sigma), dloc);
  const HalfStep<T> h = half_step(df * E(0.5));
  const T ddf = select(inverse == E(0), inverse, ((h.slope - excess) + g.share * inverse) * E(0.5));
  // A square may be beyond its type where its quotient by σ is not.
  T draw = sigma.by_raw(pull);
  if (!sigma.by_log) draw = select((w < E(1)) & (square == infinity<T>()), dloc * y, draw);
  return {((h.value - half_log_2pi) - sigma.log()) - loss, ddf, dloc, draw};
}

}  // namespace VF_ISA
}  // namespace vae_fast
