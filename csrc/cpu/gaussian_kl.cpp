// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void gaussian_kl(const KLArgs& args) {
  in_kl<StandardPrior>(args,
                       [&](auto number, const auto&, const auto& kl) { run_density<decltype(number)>(args, kl, 1.5); });
}

}  // namespace VF_ISA
}  // namespace vae_fast
