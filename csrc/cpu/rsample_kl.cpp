// z = μ + σε and KL(N(μ, σ²) ‖ N(0, I)) in one pass, and their gradients in one.
#include "rsample.h"

namespace vae_fast {
namespace VF_ISA {

void rsample_kl_fwd(const SampleArgs& args) {
  args.is_double ? sample_fwd<double, true>(args) : sample_fwd<float, true>(args);
}

void rsample_kl_bwd(const SampleArgs& args) {
  args.is_double ? SampleBackward<double, true>(args).run() : SampleBackward<float, true>(args).run();
}

}  // namespace VF_ISA
}  // namespace vae_fast
