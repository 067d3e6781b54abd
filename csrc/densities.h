// Each density once: of one element its term, and the upstream gradient times its derivatives, for a number or a pack.
// cpu/density.h runs them on a CPU.
//
// An Op has kInputs operands, each with a gradient. Where one is not there, which `always` says, it is 0. Its operator
// takes them and an upstream gradient g; term and d are what it gives.
#pragma once

#include "terms.h"

namespace vae_fast {
namespace VF_ISA {

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

// mean, logvar, x.
template <class E, class Form>
struct GaussianDensity {
  static constexpr int kInputs = 3;
  Form form;
  E x_scale;

  VF_INLINE static constexpr bool always(int) { return true; }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const GaussianTerm<T> normal = gaussian(in[2] * splat<T>(x_scale) - in[0], form.clamp(in[1]), form);
    term = normal.log_prob;
    d[0] = g * normal.dmean;
    d[1] = form.inside(in[1], g * normal.draw);
    d[2] = -d[0] * splat<T>(x_scale);
  }
};

// mu, logvar, prior_mu, prior_logvar; the prior has a σ of its own where kPrior.
template <class E, class Form, bool kPrior>
struct KLDensity {
  static constexpr int kInputs = 4;
  Form form;
  E floor;
  bool has_floor;

  VF_INLINE static constexpr bool always(int k) { return k < 2 || (kPrior && k == 3); }
  template <class T>
  VF_INLINE void operator()(const T (&in)[kInputs], T g, T& term, T (&d)[kInputs]) const {
    const T dm = in[0] - in[2], r = form.clamp(in[1]);
    const KLTerm<T> kl = kPrior ? gaussian_kl(dm, r, form.clamp(in[3]), form) : gaussian_kl(dm, r, form);
    term = kl.kl;
    if (has_floor) {
      const auto below = kl.kl <= splat<T>(floor);
      term = select(below, splat<T>(floor), kl.kl);
      g = select(below, splat<T>(0), g);
    }
    d[0] = g * kl.dmu;
    d[1] = form.inside(in[1], g * kl.draw);
    d[2] = -d[0];
    d[3] = kPrior ? form.inside(in[3], g * kl.dprior_raw) : splat<T>(0);
  }
};

}  // namespace VF_ISA
}  // namespace vae_fast
