// The raw operators as torch.ops.vae_fast.<op>_fwd and _bwd, of the dispatch key VF_DISPATCH_KEY.
#include "ops.h"

#include "boxing.h"

#include <cmath>

namespace vae_fast {
namespace {

// Some of several results.
template <size_t... places, class Results>
auto chosen(Results&& made) {
  if constexpr (sizeof...(places) == 1)
    return std::get<places...>(std::move(made));
  else
    return std::make_tuple(std::get<places>(std::move(made))...);
}

}  // namespace

#include "common.inc"

}  // namespace vae_fast

// Both directions of an operator, and its overloads, for graphs and for common calls.
#define VF_REGISTER(op)                                        \
  m.impl(#op "_fwd", VF_BOX(op##_fwd));                        \
  m.impl(#op "_fwd.autograd", VF_BOX(op##_fwd));               \
  m.impl(#op "_bwd", VF_BOX(op##_bwd));                        \
  m.impl(#op "_fwd.common", VF_BOX(op##_fwd_common));          \
  m.impl(#op "_fwd.common_autograd", VF_BOX(op##_fwd_common)); \
  m.impl(#op "_bwd.common", VF_BOX(op##_bwd_common));

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
