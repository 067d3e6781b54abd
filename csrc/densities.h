// Each density once: of one element its term, and the upstream gradient times its derivatives, for a number or a pack.
// cpu/density.h runs them on a CPU.
//
// An Op has kInputs operands, the first of its operator's, each with a gradient. Where one is not there, which `always`
// says, it is 0. Its operator takes them and an upstream gradient g; term and d are what it gives.
#pragma once

#include <type_traits>

#include "continuous_bernoulli.h"
#include "counts.h"
#include "location_scale.h"
#include "terms.h"

namespace vae_fast {
namespace VF_ISA {

template <bool some>
using Some = std::bool_constant<some>;

// The operand of an Op that is counts; −1 where none is.
template <class Op, class = void>
struct CountsOf : std::integral_constant<int, -1> {};
template <class Op>
struct CountsOf<Op, std::void_t<decltype(Op::kCounts)>> : std::integral_constant<int, Op::kCounts> {};

// logits (kProbs: p), x.
template <class E, bool kProbs>
struct BernoulliDensity {
  static constexpr int kInputs = 2;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const T t = in[1] * splat<T>(x_scale);
    const BernoulliTerm<T> bernoulli_ = kProbs ? bernoulli_of_probs(in[0], t) : bernoulli(in[0], t);
    term = bernoulli_.log_prob;
    d[0] = g * bernoulli_.slope;
    d[1] = g * bernoulli_.dt * splat<T>(x_scale);
  }
};

// logits, x, pos_weight.
template <class E>
struct WeightedBernoulliDensity {
  static constexpr int kInputs = 3;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const BernoulliTerm<T> bernoulli_ = bernoulli(in[0], in[1] * splat<T>(x_scale), in[2]);
    term = bernoulli_.log_prob;
    d[0] = g * bernoulli_.slope;
    d[1] = g * bernoulli_.dt * splat<T>(x_scale);
    d[2] = splat<T>(0);
  }
};

// logits, x.
template <class E>
struct ContinuousBernoulliDensity {
  static constexpr int kInputs = 2;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const BernoulliTerm<T> continuous = continuous_bernoulli(in[0], in[1] * splat<T>(x_scale));
    term = continuous.log_prob;
    d[0] = g * continuous.slope;
    d[1] = g * continuous.dt * splat<T>(x_scale);
  }
};

// loc, b, x.
template <class E>
struct LaplaceDensity {
  static constexpr int kInputs = 3;
  bool log_scale;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const LocationScaleTerm<T> laplace_ = laplace(in[2] * splat<T>(x_scale) - in[0], Scale<T>{in[1], log_scale});
    term = laplace_.log_prob;
    d[0] = g * laplace_.dloc;
    d[1] = g * laplace_.draw;
    d[2] = -d[0] * splat<T>(x_scale);
  }
};

// loc, sigma, df, x.
template <class E>
struct StudentTDensity {
  static constexpr int kInputs = 4;
  bool log_scale;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const StudentTTerm<T> t = student_t(in[2], in[3] * splat<T>(x_scale) - in[0], Scale<T>{in[1], log_scale});
    term = t.log_prob;
    d[0] = g * t.dloc;
    d[1] = g * t.draw;
    d[2] = g * t.ddf;
    d[3] = -d[0] * splat<T>(x_scale);
  }
};

// mean, logvar, x.
template <class E, class Form>
struct GaussianDensity {
  static constexpr int kInputs = 3;
  Form form;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    run<false>(in, g, term, d);
  }
  // kOrdinary: where σ is known to be an ordinary number (is_ordinary).
  template <bool kOrdinary, class T>
  VF_INLINE void run(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const GaussianTerm<T> normal = gaussian<kOrdinary>(in[2] * splat<T>(x_scale) - in[0], form.clamp(in[1]), form);
    term = normal.log_prob;
    d[0] = g * normal.dmean;
    d[1] = form.inside(in[1], g * normal.draw);
    d[2] = -d[0] * splat<T>(x_scale);
  }
};

// Of counts an Op has an operator besides whose `some` is false: of elements whose count, operand kCounts, is 0. Where
// kLater is an operand, these can be made in two steps, of which each waits less for itself: before(), an Op without
// that operand, and after(), whose share is a factor of the derivatives by the others.

// mean, theta, zero_logits, x.
template <class E, bool kInflated>
struct NegativeBinomialDensity {
  static constexpr int kInputs = 4, kCounts = 3, kLater = kInflated ? 2 : -1;
  CountForm<E> form;

  VF_INLINE static constexpr bool always(int k) { return k != 2 || kInflated; }
  template <class T, bool some = true>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs], Some<some> which = {}) const {
    of_mean(form.log_mean ? exp(in[0]) : in[0], in, g, term, d, which);
  }
  // The same where μ is known besides.
  template <class T, bool some>
  VF_INLINE void of_mean(T mu, const T (&in)[kInputs], T g, T& term, T (&d)[kInputs], Some<some>) const {
    const CountTerm<T> count = negative_binomial<some>(mu, in[0], in[1], in[3], form);
    term = count.log_prob;
    d[2] = d[3] = splat<T>(0);
    if constexpr (kInflated) {
      const InflatedTerm<T> inflated = zero_inflated<some>(in[2], count.log_prob, count.none, in[3]);
      term = inflated.log_prob;
      d[2] = g * inflated.dlogits;
      g = g * inflated.share;
    }
    d[0] = g * count.dmean;
    d[1] = g * count.dtheta;
  }
  VF_INLINE NegativeBinomialDensity<E, false> before() const { return {form}; }
  template <class T>
  VF_INLINE static InflatedTerm<T> after(T term, T logits) {
    return inflated_zero(logits, -term);
  }
};

// mean's logits, theta, zero_logits, log_library, x, and what the softmax over a row of the logits is made of: the mean
// is its share of the library.
template <class E, bool kInflated>
struct NegativeBinomialSharesDensity {
  static constexpr int kInputs = 7, kCounts = 4;
  NegativeBinomialDensity<E, kInflated> density;

  VF_INLINE static constexpr bool always(int k) { return k != 3 && (k != 2 || kInflated); }
  template <class T, bool some = true>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs], Some<some> which = {}) const {
    const T own[4] = {(in[0] - in[5]) + (in[3] - in[6]), in[1], in[2], in[4]};
    T by[4];
    density(own, g, term, by, which);
    d[0] = d[3] = d[6] = by[0];
    d[1] = by[1];
    d[2] = by[2];
    d[4] = d[5] = splat<T>(0);
  }
};

// log μ, theta, zero_logits, a library of which only the gradient is asked for, x, and μ.
template <class E, bool kInflated>
struct ShareDensity {
  static constexpr int kInputs = 6, kCounts = 4, kLater = kInflated ? 2 : -1;
  NegativeBinomialDensity<E, kInflated> density;

  VF_INLINE static constexpr bool always(int k) { return k != 3 && (k != 2 || kInflated); }
  template <class T, bool some = true>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs], Some<some> which = {}) const {
    const T own[4] = {in[0], in[1], in[2], in[4]};
    T by[4];
    density.of_mean(in[5], own, g, term, by, which);
    d[0] = d[3] = by[0];
    d[1] = by[1];
    d[2] = by[2];
    d[4] = d[5] = splat<T>(0);
  }
  VF_INLINE ShareDensity<E, false> before() const { return {{density.form}}; }
  template <class T>
  VF_INLINE static InflatedTerm<T> after(T term, T logits) {
    return inflated_zero(logits, -term);
  }
};

// rate, x.
template <class E>
struct PoissonDensity {
  static constexpr int kInputs = 2, kCounts = 1, kLater = -1;
  bool log_rate;
  E eps;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T, bool some = true>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs], Some<some> = {}) const {
    const CountTerm<T> count = poisson<some>(in[0], in[1], log_rate, eps);
    term = count.log_prob;
    d[0] = g * count.dmean;
    d[1] = splat<T>(0);
  }
};

// The prior of a KL: N(0, 1); one whose σ is 1; σ in the posterior's form; or, with a form in this place, in that one.
struct NoPrior {};
struct StandardPrior {};
struct AlikePrior {};

// Of a sample z the term of log p(z), and its slopes: `dmean` is that by the prior's mean, which is minus z's. Prior is
// NoPrior or the form of σp.
template <class Prior>
struct PriorDensity {
  static constexpr bool kStandard = std::is_same_v<Prior, NoPrior>;
  static constexpr int kInputs = kStandard ? 2 : 4;  // with mu and logvar before its own
  Prior form;

  template <class T>
  VF_INLINE GaussianTerm<T> operator()(T z, const T (&in)[kInputs]) const {
    if constexpr (kStandard) {
      constexpr Element<T> half_log_2pi = static_cast<Element<T>>(0.91893853320467274178);
      return {-fma(z * Element<T>(0.5), z, splat<T>(half_log_2pi)), z, T{}};
    } else {
      return gaussian(z - in[2], form.clamp(in[3]), form);
    }
  }
  template <class T>
  VF_INLINE T inside(const T (&in)[kInputs], T grad) const {
    if constexpr (kStandard) {
      return grad;
    } else {
      return form.inside(in[3], grad);
    }
  }
};

// mu, logvar, prior_mu, prior_logvar.
template <class E, class Form, class Prior>
struct KLDensity {
  static constexpr int kInputs = std::is_same_v<Prior, NoPrior> ? 2 : 4;
  static constexpr bool kStandard = kInputs == 2 || std::is_same_v<Prior, StandardPrior>;
  static constexpr bool kAlike = std::is_same_v<Prior, AlikePrior>;
  Form form;
  Prior prior;
  E floor;
  bool has_floor;

  VF_INLINE static constexpr bool always(int k) { return k < 2 || (!kStandard && k == 3); }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const KLTerm<T> kl = of(in);
    term = kl.kl;
    if (has_floor) {
      const auto below = kl.kl <= splat<T>(floor);
      term = select(below, splat<T>(floor), kl.kl);
      g = select(below, splat<T>(0), g);
    }
    d[0] = g * kl.dmu;
    d[1] = form.inside(in[1], g * kl.draw);
    if constexpr (kInputs == 4) {
      d[2] = -d[0];
      if constexpr (kStandard) {
        d[3] = splat<T>(0);
      } else if constexpr (kAlike) {
        d[3] = form.inside(in[3], g * kl.dprior_raw);
      } else {
        d[3] = prior.inside(in[3], g * kl.dprior_raw);
      }
    }
  }

 private:
  template <class T>
  VF_INLINE KLTerm<T> of(const T (&in)[kInputs]) const {
    const T r = form.clamp(in[1]);
    if constexpr (kInputs == 2) {
      return gaussian_kl(in[0], r, form);
    } else if constexpr (kStandard) {
      return gaussian_kl(in[0] - in[2], r, form);
    } else if constexpr (kAlike) {
      return gaussian_kl(in[0] - in[2], r, form.clamp(in[3]), form);
    } else {
      return gaussian_kl(in[0] - in[2], r, prior.clamp(in[3]), form, prior);
    }
  }
};

}  // namespace VF_ISA
}  // namespace vae_fast
