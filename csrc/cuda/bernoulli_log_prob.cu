// log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: without a gradient of x.
template <class T>
struct BernoulliTraits : DensityTraits<2, 1> {
  static constexpr bool by_pass(bool) { return std::is_same_v<T, float>; }
};

}  // namespace

void bernoulli_log_prob(const BernoulliArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    const T x_scale = static_cast<T>(args.x_scale);
    const auto run = [&](auto density) { run_density<S, BernoulliTraits<T>>("bernoulli_log_prob", args, density); };
    if (args.in[2])
      return run_density<S, DensityTraits<>>("bernoulli_log_prob", args, WeightedBernoulliDensity<T>{x_scale});
    if (args.probs) return run(BernoulliDensity<T, true>{x_scale});
    const BernoulliDensity<T, false> density{x_scale};
    if constexpr (std::is_same_v<S, Half>) {
      run(with_light(args, density, LightBernoulli{x_scale}));
    } else {
      run(density);
    }
  });
}

}  // namespace cuda
}  // namespace vae_fast
