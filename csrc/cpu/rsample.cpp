// z = μ + σε, and its gradients.
#include "rsample.h"

namespace vae_fast {
namespace VF_ISA {

void rsample_fwd(const SampleArgs& args) {
  args.is_double ? sample_fwd<double, false>(args) : sample_fwd<float, false>(args);
}

void rsample_bwd(const SampleArgs& args) {
  args.is_double ? SampleBackward<double, false>(args).run() : SampleBackward<float, false>(args).run();
}

}  // namespace VF_ISA
}  // namespace vae_fast
