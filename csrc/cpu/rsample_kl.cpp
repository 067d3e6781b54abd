// z = μ + σε and KL(N(μ, σ²) ‖ N(0, I)) in one pass, and their gradients in one.
#include "rsample.h"

namespace vae_fast {
namespace VF_ISA {

void rsample_kl_fwd(const SampleArgs& args) { run_forward<true>(args); }

void rsample_kl_bwd(const SampleArgs& args) { run_backward<true>(args); }

}  // namespace VF_ISA
}  // namespace vae_fast
