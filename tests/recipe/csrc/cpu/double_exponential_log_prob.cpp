// log p(x|z) of independent Laplace variables, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void double_exponential_log_prob(const DoubleExponentialArgs& args) {
  in_dtype(args.compute, [&](auto number) { run_density<decltype(number)>(args, DoubleExponentialDensity{}, 1.0); });
}

}  // namespace VF_ISA
}  // namespace vae_fast
