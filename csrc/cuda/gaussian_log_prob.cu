// log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// A chunk is looked at once for a σ that is no ordinary number, and not each of its elements.
template <class Density>
struct Quick : Density {
  explicit Quick(const Density& density) : Density(density) {}

  VF_INLINE bool is_quick(const float (&in)[Density::kInputs]) const { return is_ordinary(in[1] * 0.5f); }
  VF_INLINE void quick(const float (&in)[Density::kInputs], float g, float& term, float (&d)[Density::kInputs]) const {
    this->template run<true>(in, g, term, d);
  }
};

// Even chunks: without a gradient of x.
template <class T, class Form>
struct GaussianTraits : DensityTraits<3, 2> {
  static constexpr bool kPlain = std::is_same_v<Form, SigmaForm<T, true>>;
  static constexpr int kLoad = kPlain ? kMiddling : 1;
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k != 1; }
  static constexpr bool by_pass(bool) { return kPlain && std::is_same_v<T, float>; }
  template <class Density>
  static auto even(const Density& density) {
    if constexpr (kHasLight<Density>) {
      return light_or(Quick(density.exact), density.light, density.is_light);
    } else if constexpr (kPlain) {
      return Quick<Density>(density);
    } else {
      return density;
    }
  }
};

}  // namespace

void gaussian_log_prob(const GaussianArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_form<S>(args.form, [&](auto form) {
      using Form = decltype(form);
      using Traits = GaussianTraits<T, Form>;
      const T x_scale = static_cast<T>(args.x_scale);
      const GaussianDensity<T, Form> density{form, x_scale};
      if constexpr (std::is_same_v<S, Half> && Traits::kPlain) {
        run_density<S, Traits>("gaussian_log_prob", args, with_light(args, density, LightGaussian{x_scale, density}));
      } else {
        run_density<S, Traits>("gaussian_log_prob", args, density);
      }
    });
  });
}

}  // namespace cuda
}  // namespace vae_fast
