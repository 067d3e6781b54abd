// z = μ + σε, and its gradients.
#include "rsample.h"

namespace vae_fast {
namespace cuda {

void rsample_fwd(const SampleArgs& args) { run_forward<false>("rsample_fwd", args); }

void rsample_bwd(const SampleArgs& args) { run_backward<false>("rsample_bwd", args); }

}  // namespace cuda
}  // namespace vae_fast
