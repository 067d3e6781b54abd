// log p(x|z) of a continuous Bernoulli variable by its logits, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: without a gradient of x.
struct ContinuousBernoulliTraits : DensityTraits<2, 1> {
  static constexpr bool by_pass(bool even) { return even; }
};

}  // namespace

void continuous_bernoulli_log_prob(const ContinuousBernoulliArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, ContinuousBernoulliTraits>("continuous_bernoulli_log_prob", args,
                                              ContinuousBernoulliDensity<T>{static_cast<T>(args.x_scale)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
