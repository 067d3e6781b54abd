// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

// kPrior: whether the prior has a σ of its own. With even chunks: without weights; a prior has both its arguments.
template <class T, class Form, bool kPrior, bool even_chunks = false>
struct KLOp {
  using Number = T;
  using Even = KLOp<T, Form, kPrior, sizeof(T) == 4>;
  static constexpr bool kEven = even_chunks;
  static constexpr int kInputs = !kEven ? 5 : kPrior ? 4 : 2, kSlots = !kEven || kPrior ? 5 : 3;
  static constexpr bool kByPass = kEven && !kPrior && std::is_same_v<Form, Scale<T, true>>;
  // Registers that a kernel needs (kResident).
  static constexpr int kLoad = kPrior ? 2 : std::is_same_v<Form, Scale<T, true>> ? 0 : kMiddling;
  Form scale;
  T floor;
  bool has_floor, weighted, has_prior_mu, dweight;

  bool plain() const { return !weighted && has_prior_mu == kPrior; }
  Even even() const { return {scale, floor, has_floor, false, kPrior, false}; }
  static constexpr __device__ __forceinline__ bool always(int k) { return kEven || k < 2; }
  // Which of them are dense in every call with even chunks.
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k < 2; }
  // Which of them have the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < 4; }

  // in: mu, logvar, prior_mu, prior_logvar, weight; out: KL, dmu, dlogvar, dprior_mu, dprior_logvar.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    T dm = in[0];
    if constexpr (kPrior || !kEven) {
      if (kEven || has_prior_mu) dm = dm - in[2];
    }
    const T r = scale.clamp(in[1]);
    KLTerm<T> term;
    if constexpr (kPrior) {
      term = vae_fast::cuda::gaussian_kl(dm, r, scale.clamp(in[3]), scale);
    } else {
      term = vae_fast::cuda::gaussian_kl(dm, r, scale);
    }
    const bool below = has_floor && term.kl <= floor;
    if (below) term.kl = floor;
    if constexpr (kEven) {
      if (below) g = T(0);
      const T slope = g * term.dmu;
      out[0] = term.kl;
      out[1] = slope;
      out[2] = scale.inside(in[1], g * term.draw);
      if constexpr (kPrior) {
        out[3] = -slope;
        out[4] = scale.inside(in[3], g * term.dprior_raw);
      }
    } else {
      const Weighted<T> w(g, in[4], weighted, dweight);
      g = below ? T(0) : w.with;
      const T slope = w.gradient(g * term.dmu);
      out[0] = w.value(term.kl);
      out[1] = slope;
      out[2] = w.gradient(scale.inside(in[1], g * term.draw));
      out[3] = -slope;
      out[4] = kPrior ? w.gradient(scale.inside(in[3], g * term.dprior_raw)) : T(0);
    }
  }
};

template <class S, bool kPrior>
void run(const KLArgs& args) {
  using T = typename Compute<S>::Type;
  in_scale<S>(args.form, [&](auto scale) {
    const KLOp<T, decltype(scale), kPrior> op{scale, static_cast<T>(args.free_bits), args.has_free_bits,
                                              static_cast<bool>(args.weight), static_cast<bool>(args.prior_mu),
                                              args.dweight.kind != Gradient::kNone};
    run_density<S>("gaussian_kl", args, op,
                   {&args.mu, &args.logvar, &args.prior_mu, &args.prior_logvar, &args.weight},
                   {&args.dmu, &args.dlogvar, &args.dprior_mu, &args.dprior_logvar});
  });
}

}  // namespace

void gaussian_kl(const KLArgs& args) {
  const Storage storage = storage_of(args, {&args.mu, &args.logvar, &args.prior_mu, &args.prior_logvar}, {},
                                     {&args.dmu, &args.dlogvar, &args.dprior_mu, &args.dprior_logvar});
  storage.call([&](auto element) {
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
