// z = μ + σε and KL(N(μ, σ²) ‖ N(0, I)) in one pass, and their gradients in one.
#include "rsample.h"

namespace vae_fast {
namespace cuda {

void rsample_kl_fwd(const SampleArgs& args) { run_forward<true>("rsample_kl_fwd", args); }

void rsample_kl_bwd(const SampleArgs& args) { run_backward<true>("rsample_kl_bwd", args); }

}  // namespace cuda
}  // namespace vae_fast
