// What the second argument of a Gaussian is, and σ from it: vae_fast/scale.py, in the same words.
#pragma once

#include "formulas.h"

namespace vae_fast {
namespace VF_ISA {

enum ScaleKind { kLogvar, kLogstd, kStd, kVar, kSoftplus };

// r is the raw argument clamped to [low, high]; `eps` is added to σ, or to σ² for kVar. All are numbers of the call, on
// which a pack branches; for kPlain, log σ² itself, there is nothing to branch on.
template <class E, bool kPlain = false>
class Scale {
 public:
  template <class Options>
  VF_INLINE explicit Scale(const Options& options)
      : kind_(options.kind),
        eps_(static_cast<E>(options.eps)),
        low_(static_cast<E>(options.low)),
        high_(static_cast<E>(options.high)) {}

  VF_INLINE int kind() const { return kPlain ? int{kLogvar} : kind_; }
  VF_INLINE E eps() const { return kPlain ? E(0) : eps_; }
  VF_INLINE bool bounded() const { return !kPlain && (low_ > -infinity<E>() || high_ < infinity<E>()); }
  VF_INLINE bool plain() const { return kind() == kLogvar && eps() == E(0) && !bounded(); }
  // Whether log σ² is r, or twice it; otherwise σ is nearer to the argument.
  VF_INLINE bool logarithmic() const { return kind() <= kLogstd && eps() == E(0); }

  // −0 + 0 is 0, and 1/σ has a sign.
  template <class T>
  VF_INLINE T plus_eps(T a) const {
    return eps() == E(0) ? a : a + eps();
  }

  template <class T>
  VF_INLINE T clamp(T raw) const {
    return kPlain ? raw : at_most(at_least(raw, low_), high_);
  }
  // `grad` where `raw` is within the bounds, 0 elsewhere.
  template <class T>
  VF_INLINE T inside(T raw, T grad) const {
    if (!bounded()) return grad;
    return select(raw >= low_, select(raw <= high_, grad, splat<T>(0)), splat<T>(0));
  }

  template <class T>
  VF_INLINE T sigma(T r) const {
    switch (kind()) {
      case kLogvar: return plus_eps(exp(r * E(0.5)));
      case kLogstd: return plus_eps(exp(r));
      case kStd: return plus_eps(r);
      case kVar: return sqrt(plus_eps(r));
      default: return plus_eps(softplus(r));
    }
  }
  // dσ/dr.
  template <class T>
  VF_INLINE T dsigma(T r) const {
    switch (kind()) {
      case kLogvar: return exp(r * E(0.5)) * E(0.5);
      case kLogstd: return exp(r);
      case kStd: return splat<T>(1);
      case kVar: return E(0.5) / sigma(r);
      default: return logistic(r);
    }
  }
  template <class T>
  VF_INLINE T log_var(T r) const {
    if (kind() == kVar) return log(plus_eps(r));
    if (logarithmic()) return kind() == kLogvar ? r : r + r;
    return log(sigma(r)) * E(2);
  }
  // d log σ²/dr.
  template <class T>
  VF_INLINE T dlog_var(T r) const {
    if (kind() == kVar) return E(1) / plus_eps(r);
    if (logarithmic()) return splat<T>(kind() == kLogvar ? E(1) : E(2));
    return dsigma(r) * E(2) / sigma(r);
  }
  template <class T>
  VF_INLINE T inv_sigma(T r) const {
    if (logarithmic()) return exp(kind() == kLogvar ? r * E(-0.5) : -r);
    return E(1) / sigma(r);
  }
  template <class T>
  VF_INLINE T inv_var(T r) const {
    if (logarithmic()) return exp_to_a_unit(kind() == kLogvar ? -r : r * E(-2));
    if (kind() == kVar) return E(1) / plus_eps(r);
    const T inverse = inv_sigma(r);
    return inverse * inverse;
  }

 private:
  int kind_;
  E eps_, low_, high_;
};

}  // namespace VF_ISA
}  // namespace vae_fast
