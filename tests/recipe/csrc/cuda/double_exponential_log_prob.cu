// log p(x|z) of independent Laplace variables, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void double_exponential_log_prob(const DoubleExponentialArgs& args) {
  in_storage(args, [&](auto element) {
    run_density<decltype(element), DensityTraits<>>("double_exponential_log_prob", args, DoubleExponentialDensity{});
  });
}

}  // namespace cuda
}  // namespace vae_fast
