// log p(x|z) of a continuous Bernoulli variable by its logits, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void continuous_bernoulli_log_prob(const ContinuousBernoulliArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    run_density<T>(args, ContinuousBernoulliDensity<T>{static_cast<T>(args.x_scale)}, 2.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
