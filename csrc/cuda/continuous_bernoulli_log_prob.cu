// log p(x|z) of a continuous Bernoulli variable by its logits, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void continuous_bernoulli_log_prob(const ContinuousBernoulliArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, DensityTraits<>>("continuous_bernoulli_log_prob", args,
                                    ContinuousBernoulliDensity<T>{static_cast<T>(args.x_scale)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
