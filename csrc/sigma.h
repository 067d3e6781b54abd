// What the second argument of a Gaussian is, and σ from it: vae_fast/sigma.py, in the same words.
#pragma once

#include "wide.h"

namespace vae_fast {
namespace VF_ISA {

enum SigmaParam { kLogvar, kLogstd, kStd, kVar, kSoftplus };

// r is the raw argument clamped to [low, high]; `eps` is added to σ, or to σ² for kVar. All are numbers of the call, on
// which a pack branches; for kPlain, log σ² itself, there is nothing to branch on.
template <class E, bool kPlain = false>
class SigmaForm {
 public:
  template <class Options>
  VF_INLINE explicit SigmaForm(const Options& options)
      : param_(options.param),
        eps_(static_cast<E>(options.eps)),
        low_(static_cast<E>(options.low)),
        high_(static_cast<E>(options.high)),
        // With bounds of its own a gradient that passes is one question less for every element.
        gradient_low_(options.pass_gradient ? -infinity<E>() : low_),
        gradient_high_(options.pass_gradient ? infinity<E>() : high_) {}

  VF_INLINE int param() const { return kPlain ? int{kLogvar} : param_; }
  VF_INLINE E eps() const { return kPlain ? E(0) : eps_; }
  VF_INLINE bool bounded() const { return !kPlain && (low_ > -infinity<E>() || high_ < infinity<E>()); }
  VF_INLINE bool plain() const { return param() == kLogvar && eps() == E(0) && !bounded(); }
  // Whether log σ² is r, or twice it; otherwise σ is nearer to the argument.
  VF_INLINE bool logarithmic() const { return param() <= kLogstd && eps() == E(0); }

  // −0 + 0 is 0, and 1/σ has a sign.
  template <class T>
  VF_INLINE T plus_eps(T a) const {
    return eps() == E(0) ? a : a + eps();
  }

  template <class T>
  VF_INLINE T clamp(T raw) const {
    return kPlain ? raw : at_most(at_least(raw, low_), high_);
  }
  // `grad` where `raw` is within the bounds, 0 elsewhere unless bounds pass it on.
  template <class T>
  VF_INLINE T inside(T raw, T grad) const {
    if (kPlain || !(gradient_low_ > -infinity<E>() || gradient_high_ < infinity<E>())) return grad;
    return select(raw >= gradient_low_, select(raw <= gradient_high_, grad, splat<T>(0)), splat<T>(0));
  }

  template <class T>
  VF_INLINE T sigma(T r) const {
    switch (param()) {
      case kLogvar: return plus_eps(exp_over<2>(r));
      case kLogstd: return plus_eps(exp_over<1>(r));
      case kStd: return plus_eps(r);
      case kVar: return sqrt(plus_eps(r));
      default: return plus_eps(softplus(r));
    }
  }
  // dσ/dr.
  template <class T>
  VF_INLINE T dsigma(T r) const {
    switch (param()) {
      case kLogvar: return half_exp_over<2>(r);
      case kLogstd: return exp_over<1>(r);
      case kStd: return splat<T>(1);
      case kVar: return E(0.5) / sigma(r);
      default: return logistic(r);
    }
  }

  // Where log σ² is r, or twice it.

  template <class T>
  VF_INLINE T log_sigma(T r) const {
    return param() == kLogvar ? r * E(0.5) : r;
  }
  // e^(log σ²), and d log σ²/dr = 1 or 2.
  template <class T>
  VF_INLINE T twice(T a) const {
    return param() == kLogvar ? a : a + a;
  }
  // 1/σ² where |log σ²| < kOrdinary.
  template <class T>
  VF_INLINE T ordinary_inv_var(T r) const {
    return exp_of_ordinary(param() == kLogvar ? -r : r * E(-2));
  }

  // Elsewhere. x is what is nearest to the argument: σ, or σ² for kVar.

  template <class T>
  VF_INLINE T nearest(T r) const {
    return param() == kVar ? plus_eps(r) : sigma(r);
  }
  template <class T>
  VF_INLINE T sigma_of(T x) const {
    return param() == kVar ? sqrt(x) : x;
  }
  template <class T>
  VF_INLINE T log_sigma_of(T x) const {
    return param() == kVar ? log(x) * E(0.5) : log(x);
  }
  template <class T>
  VF_INLINE T inv_var_of(T x) const {
    const T inverse = E(1) / x;
    return param() == kVar ? inverse : inverse * inverse;
  }
  // d log σ²/dr.
  template <class T>
  VF_INLINE T dlog_var(T r, T x) const {
    return param() == kVar ? E(1) / x : dsigma(r) * E(2) / x;
  }
  // `value` where x, its square, d log σ²/dr and their quotients are ordinary numbers; else NaN.
  template <class T>
  VF_INLINE T if_ordinary(T r, T x, T value) const {
    using F = Format<E>;
    const T nan = splat<T>(static_cast<E>(__builtin_nan("")));
    value = select(x > F::kSmall, select(x < F::kLarge, value, nan), nan);
    if (param() == kStd || param() == kVar) return value;
    const T a = param() == kLogvar ? r * E(0.5) : r;
    value = select(a > F::kOrdinary * E(-0.5), value, nan);
    return param() == kSoftplus ? value : select(a < F::kOrdinary * E(0.5), value, nan);
  }

  // σ = s·e^q: q is not 0 only for arguments so far out that e^q alone is left of σ.
  template <class T>
  struct Parts {
    T s, q;
  };
  template <class T>
  VF_INLINE Parts<T> parts(T r) const {
    using F = Format<E>;
    const T zero = splat<T>(0), one = splat<T>(1);
    if (param() == kStd || param() == kVar || (param() == kSoftplus && eps() != E(0))) return {sigma(r), zero};
    if (param() == kSoftplus) {
      const auto far = r < F::kSoftplusIsExp;
      return {select(far, one, softplus(r)), select(far, r, zero)};
    }
    const T a = param() == kLogvar ? r * E(0.5) : r;
    const auto far = (eps() == E(0) ? abs(a) : a) > F::kOrdinary * E(0.75);
    return {select(far, one, plus_eps(exp(a))), select(far, a, zero)};
  }
  // d log σ²/dr = s·e^q, not for kVar; of this q and σ's one is 0.
  template <class T>
  VF_INLINE Parts<T> slope_parts(T r, Parts<T> sigma) const {
    const T zero = splat<T>(0);
    if (param() == kStd) return {E(2) / sigma.s, zero};
    if (param() == kSoftplus) {
      const auto far = r < Format<E>::kSoftplusIsExp;
      const T slope = select(far, splat<T>(2), logistic(r) * E(2)) / sigma.s;
      // dσ/dr is e^r there, as σ is without eps.
      return {slope, eps() == E(0) ? zero : select(far, r, zero)};
    }
    const T a = param() == kLogvar ? r * E(0.5) : r;
    return {(param() == kLogvar ? E(1) : E(2)) / sigma.s, select(sigma.q == E(0), a, zero)};
  }

  // The same as above where they are no ordinary numbers.

  template <class T>
  struct Far {
    Wide<T> var, dlog_var;
    T log_sigma;
    Parts<T> sigma, slope;
  };
  template <class T>
  VF_INLINE Far<T> far(T r) const {
    if (param() == kVar) {
      const T x = plus_eps(r);
      const Wide<T> v = wide(x);
      return {v, Wide<T>{E(1) / v.m, -v.n}, log(x) * E(0.5), parts(r), Parts<T>{}};
    }
    const Parts<T> p = parts(r), d = slope_parts(r, p);
    const Wide<T> s = wide(p.s), sigma = s * wide_exp(p.q);
    // Of a subnormal σ the quotient may be beyond its type.
    const Wide<T> slope = logarithmic()     ? wide(twice(splat<T>(1)))
                          : param() == kStd ? Wide<T>{E(2) / s.m, -s.n}
                                            : wide(d.s) * wide_exp(d.q);
    return {sigma * sigma, slope, logarithmic() ? log_sigma(r) : log(p.s) + p.q, p, d};
  }
  // σ²/σp², σp of the form `prior`.
  template <class T>
  VF_INLINE Wide<T> var_ratio(const Far<T>& a, const SigmaForm& prior, const Far<T>& b) const {
    return param() == kVar && prior.param() == kVar ? a.var / b.var : square_of_ratio(a.sigma, b.sigma);
  }
  // The same times d log σ²/dr, and times d log σp²/dr: in one exponential, since the ratio may be beyond all range and
  // the derivative below it.
  template <class T>
  VF_INLINE Wide<T> var_ratio_slope(const Far<T>& a, const SigmaForm& prior, const Far<T>& b) const {
    if (!exponential_slope()) return var_ratio(a, prior, b) * a.dlog_var;
    return square_of_ratio(Parts<T>{a.sigma.s, a.sigma.q + a.slope.q * E(0.5)}, b.sigma) * wide(a.slope.s);
  }
  template <class T>
  VF_INLINE Wide<T> var_ratio_prior_slope(const Far<T>& a, const SigmaForm& prior, const Far<T>& b) const {
    if (!prior.exponential_slope()) return var_ratio(a, prior, b) * b.dlog_var;
    return square_of_ratio(a.sigma, Parts<T>{b.sigma.s, b.sigma.q - b.slope.q * E(0.5)}) * wide(b.slope.s);
  }

 private:
  // Whether d log σ²/dr may be an exponential where σ is none.
  VF_INLINE bool exponential_slope() const { return eps() != E(0) && param() != kStd && param() != kVar; }

  template <class T>
  VF_INLINE static Wide<T> square_of_ratio(Parts<T> a, Parts<T> b) {
    // The difference's rounding error (Knuth's two-sum), which the exponential would magnify.
    const T d = a.q - b.q, part = a.q - d, error = (a.q - (d + part)) + (part - b.q);
    Wide<T> e = wide_exp(d);
    e.m = select(e.m < infinity<T>(), select(e.m > E(0), fma(e.m, error, e.m), e.m), e.m);
    const Wide<T> ratio = wide(a.s) / wide(b.s) * e;
    return ratio * ratio;
  }

  int param_;
  E eps_, low_, high_, gradient_low_, gradient_high_;
};

}  // namespace VF_ISA
}  // namespace vae_fast
