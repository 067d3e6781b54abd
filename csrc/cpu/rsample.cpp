// z = μ + σε, and its gradients.
#include "rsample.h"

namespace vae_fast {
namespace VF_ISA {

void rsample_fwd(const SampleArgs& args) { run_forward<false>(args); }

void rsample_bwd(const SampleArgs& args) { run_backward<false>(args); }

}  // namespace VF_ISA
}  // namespace vae_fast
