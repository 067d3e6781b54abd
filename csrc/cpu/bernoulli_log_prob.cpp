// log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void bernoulli_log_prob(const BernoulliArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const T x_scale = static_cast<T>(args.x_scale);
    if (args.in[2]) return run_density<T>(args, WeightedBernoulliDensity<T>{x_scale}, 1.0);
    args.probs ? run_density<T>(args, BernoulliDensity<T, true>{x_scale}, 1.0)
               : run_density<T>(args, BernoulliDensity<T, false>{x_scale}, 1.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
