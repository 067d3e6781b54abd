// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

// kPrior: whether the prior has a σ of its own.
template <class T, class Form, bool kPrior>
struct KLOp {
  using Number = T;
  static constexpr int kInputs = 5, kSlots = 5;
  static constexpr bool kByPass = false;
  Form scale;
  T floor;
  bool has_floor, weighted, has_prior_mu;

  static constexpr __device__ __forceinline__ bool always(int k) { return k < 2; }
  // Which of them have the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < 4; }

  // in: mu, logvar, prior_mu, prior_logvar, weight; out: KL, dmu, dlogvar, dprior_mu, dprior_logvar.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    const bool masked = weighted && in[4] == T(0);
    T dm = masked ? T(0) : in[0];
    const T r = scale.clamp(masked ? T(1) : in[1]);
    if (weighted) g = g * in[4];
    if (has_prior_mu) dm = dm - (masked ? T(0) : in[2]);
    KLTerm<T> term;
    if constexpr (kPrior) {
      term = vae_fast::cuda::gaussian_kl(dm, r, scale.clamp(masked ? T(1) : in[3]), scale);
    } else {
      term = vae_fast::cuda::gaussian_kl(dm, r, scale);
    }
    if (has_floor && term.kl <= floor) {
      term.kl = floor;
      g = T(0);
    }
    const T slope = g * term.dmu;
    out[0] = weighted ? term.kl * in[4] : term.kl;
    out[1] = slope;
    out[2] = scale.inside(in[1], g * term.draw);
    out[3] = -slope;
    out[4] = kPrior ? scale.inside(in[3], g * term.dprior_raw) : T(0);
  }
};

template <class S, bool kPrior>
void run(const KLArgs& args) {
  using T = typename Compute<S>::Type;
  in_scale<T>(args.form, [&](auto scale) {
    const KLOp<T, decltype(scale), kPrior> op{scale, static_cast<T>(args.free_bits), args.has_free_bits,
                                              static_cast<bool>(args.weight), static_cast<bool>(args.prior_mu)};
    run_density<S>("gaussian_kl", args, op,
                   {&args.mu, &args.logvar, &args.prior_mu, &args.prior_logvar, &args.weight},
                   {&args.dmu, &args.dlogvar, &args.dprior_mu, &args.dprior_logvar});
  });
}

}  // namespace

void gaussian_kl(const KLArgs& args) {
  in_storage({&args.mu, &args.logvar, &args.prior_mu, &args.prior_logvar}, [&](auto element) {
    using S = decltype(element);
    if (args.prior_logvar) {
      run<S, true>(args);
    } else {
      run<S, false>(args);
    }
  });
}

}  // namespace cuda
}  // namespace vae_fast
