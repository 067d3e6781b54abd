// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: a prior has both its arguments, or none.
template <class T, class Form, bool kPrior>
struct KLTraits : DensityTraits<kPrior ? 4 : 2, kPrior ? 4 : 2> {
  static constexpr bool kPlain = std::is_same_v<Form, SigmaForm<T, true>>;
  static constexpr int kLoad = kPrior ? 2 : kPlain ? 0 : 1;
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k < 2; }
  static constexpr bool by_pass(bool even) { return even && !kPrior && kPlain; }
  template <class Density>
  static bool serves(const Density& density) {
    if constexpr (kHasLight<Density>) {
      return !density.exact.has_floor;
    } else {
      return !density.has_floor;
    }
  }
  template <class Density>
  static auto even(const Density& density) {
    if constexpr (kHasLight<Density>) {
      return light_or(Unfloored(density.exact), Unfloored(density.light), density.is_light);
    } else {
      return Unfloored<Density>(density);
    }
  }
};

}  // namespace

void gaussian_kl(const KLArgs& args) {
  const bool own_form = args.in[3] && !(args.form == args.prior_form);
  in_storage(args, own_form, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_form<S>(args.form, [&](auto form) {
      using Form = decltype(form);
      const T floor = static_cast<T>(args.free_bits);
      const auto run = [&](auto prior) {
        using Prior = decltype(prior);
        using Traits = KLTraits<T, Form, !std::is_same_v<Prior, StandardPrior>>;
        const KLDensity<T, Form, Prior> density{form, prior, floor, args.has_free_bits};
        if constexpr (std::is_same_v<S, Half> && Traits::kPlain && std::is_same_v<Prior, StandardPrior>) {
          const LightKL<Prior> light{floor, args.has_free_bits};
          run_density<S, Traits>("gaussian_kl", args, with_light(args, density, light));
        } else {
          run_density<S, Traits>("gaussian_kl", args, density);
        }
      };
      if constexpr (kAny<S>) {
        if (own_form) return run(SigmaForm<T>(args.prior_form));
      }
      args.in[3] ? run(AlikePrior{}) : run(StandardPrior{});
    });
  });
}

}  // namespace cuda
}  // namespace vae_fast
