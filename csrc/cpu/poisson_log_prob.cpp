// log p(x) of a Poisson variable by its rate, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void poisson_log_prob(const PoissonArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    run_density<T>(args, PoissonDensity<T>{args.log_rate, static_cast<T>(args.eps)}, 2.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
