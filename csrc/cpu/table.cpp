// The table of this instruction set's kernels.
#include "table.h"

#include "pack.h"

namespace vae_fast {
namespace VF_ISA {

#define VF_NAME_OF(isa) #isa
#define VF_NAME(isa) VF_NAME_OF(isa)

const Kernels& table() {
  static const Kernels kernels = {VF_NAME(VF_ISA), bernoulli_log_prob, gaussian_log_prob, gaussian_kl,    rsample_fwd,
                                  rsample_bwd,     rsample_kl_fwd,     rsample_kl_bwd,    standard_normal};
  return kernels;
}

}  // namespace VF_ISA
}  // namespace vae_fast
