// log p(x|z) of a Laplace variable, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void laplace_log_prob(const LaplaceArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    run_density<T>(args, LaplaceDensity<T>{args.log_scale, static_cast<T>(args.x_scale)}, 1.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
