// The raw operators as torch.ops.vae_fast.<op>_fwd and _bwd, of the dispatch key VF_DISPATCH_KEY.
#include "ops.h"

#include "boxing.h"

// Both directions of an operator, and its overload for graphs.
#define VF_REGISTER(op)                          \
  m.impl(#op "_fwd", VF_BOX(op##_fwd));          \
  m.impl(#op "_fwd.autograd", VF_BOX(op##_fwd)); \
  m.impl(#op "_bwd", VF_BOX(op##_bwd));

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) {
  VF_OPERATORS(VF_REGISTER)
  m.impl("standard_normal_fwd", VF_BOX(standard_normal_fwd));
}

#if defined(VF_SPARSE_DISPATCH_KEY)
// Counts as a CSR matrix.
STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_SPARSE_DISPATCH_KEY, m) {
  VF_REGISTER(negative_binomial_log_prob)
  VF_REGISTER(poisson_log_prob)
}
#endif
