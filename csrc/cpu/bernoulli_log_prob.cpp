// log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {

void bernoulli_log_prob(const BernoulliArgs& args) {
  in_dtype(args.is_double, [&](auto number) {
    using T = decltype(number);
    const auto run = [&](auto op) {
      run_density<T>(args, op, 1.0, {&args.logits, &args.x}, {&args.dlogits, &args.dx});
    };
    const T x_scale = static_cast<T>(args.x_scale);
    args.probs ? run(BernoulliDensity<T, true>{x_scale}) : run(BernoulliDensity<T, false>{x_scale});
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
