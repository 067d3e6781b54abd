// log p(x|z) of independent Laplace variables, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void laplace_log_prob(const LaplaceArgs& args) {
  in_storage(args, [&](auto element) {
    run_density<decltype(element), DensityTraits<>>("laplace_log_prob", args, LaplaceDensity{});
  });
}

}  // namespace cuda
}  // namespace vae_fast
