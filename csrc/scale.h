// What the second argument of a Gaussian is, and σ from it: vae_fast/scale.py, in the same words.
#pragma once

#include "formulas.h"

namespace vae_fast {
namespace VF_ISA {

// r is the raw argument clamped to [low, high]; `eps` is added to σ, or to σ² for kVar. The kind is a number of the
// call: a branch on it costs a predicted jump for a pack.
template <class E>
struct Scale {
  enum Kind { kLogvar, kLogstd, kStd, kVar, kSoftplus };

  int kind;
  E eps, low, high;

  VF_INLINE bool bounded() const { return low > -infinity<E>() || high < infinity<E>(); }
  // Whether log σ² is r, or twice it; otherwise σ is nearer to the argument.
  VF_INLINE bool logarithmic() const { return kind <= kLogstd && eps == E(0); }

  // −0 + 0 is 0, and 1/σ has a sign.
  template <class T>
  VF_INLINE T plus_eps(T a) const {
    return eps == E(0) ? a : a + eps;
  }

  template <class T>
  VF_INLINE T clamp(T raw) const {
    const T above = select(raw < low, splat<T>(low), raw);
    return select(above > high, splat<T>(high), above);
  }
  // `grad` where `raw` is within the bounds, 0 elsewhere.
  template <class T>
  VF_INLINE T inside(T raw, T grad) const {
    if (!bounded()) return grad;
    return select(raw >= low, select(raw <= high, grad, splat<T>(0)), splat<T>(0));
  }

  template <class T>
  VF_INLINE T sigma(T r) const {
    switch (kind) {
      case kLogvar: return exp(r * E(0.5)) + eps;
      case kLogstd: return exp(r) + eps;
      case kStd: return plus_eps(r);
      case kVar: return sqrt(plus_eps(r));
      default: return softplus(r) + eps;
    }
  }
  // dσ/dr.
  template <class T>
  VF_INLINE T dsigma(T r) const {
    switch (kind) {
      case kLogvar: return exp(r * E(0.5)) * E(0.5);
      case kLogstd: return exp(r);
      case kStd: return splat<T>(1);
      case kVar: return E(0.5) / sigma(r);
      default: return logistic(r);
    }
  }
  template <class T>
  VF_INLINE T log_var(T r) const {
    if (kind == kVar) return log(plus_eps(r));
    if (logarithmic()) return kind == kLogvar ? r : r + r;
    return log(sigma(r)) * E(2);
  }
  // d log σ²/dr.
  template <class T>
  VF_INLINE T dlog_var(T r) const {
    if (kind == kVar) return E(1) / plus_eps(r);
    if (logarithmic()) return splat<T>(kind == kLogvar ? E(1) : E(2));
    return dsigma(r) * E(2) / sigma(r);
  }
  template <class T>
  VF_INLINE T inv_sigma(T r) const {
    if (logarithmic()) return exp(kind == kLogvar ? r * E(-0.5) : -r);
    return E(1) / sigma(r);
  }
  template <class T>
  VF_INLINE T inv_var(T r) const {
    if (logarithmic()) return exp(kind == kLogvar ? -r : r * E(-2));
    if (kind == kVar) return E(1) / plus_eps(r);
    const T inverse = inv_sigma(r);
    return inverse * inverse;
  }
};

// From a call's options, which are in double.
template <class E, class Options>
VF_INLINE Scale<E> scale_of(const Options& options) {
  return {options.kind, static_cast<E>(options.eps), static_cast<E>(options.low), static_cast<E>(options.high)};
}

}  // namespace VF_ISA
}  // namespace vae_fast
