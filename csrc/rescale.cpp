// torch.ops.vae_fast.rescale_: a gradient of the forward pass times an upstream gradient, in place, without a look at it
// on the host. Of the CUDA library; on a CPU the host looks.
#include "operands.h"

#include "cuda/table.h"

namespace vae_fast {
namespace {

void rescale_(Tensor grad, Tensor factor) {
  OnDevice device(grad);
  const Operand to("grad", grad), by("factor", factor);
  STD_TORCH_CHECK(by.numel() == 1 && by.dtype == to.dtype, "factor must be one number of the gradient's dtype");
  STD_TORCH_CHECK(to.dtype == DType::kFloat32 || to.dtype == DType::kFloat64, "grad must be float32 or float64");
  // Dense in memory, in whatever order.
  int64_t most = to.numel() > 0 ? 1 : 0;
  for (int d = 0; d < to.ndim && most > 0; ++d) most += (to.size[d] - 1) * to.stride[d];
  STD_TORCH_CHECK(most == to.numel(), "grad must be dense");
  cuda::rescale(device, data_of(grad), to.numel(), data_of(factor), to.dtype == DType::kFloat64);
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(vae_fast, m) { m.def("rescale_(Tensor(a!) grad, Tensor factor) -> ()"); }

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) { m.impl("rescale_", TORCH_BOX(&vae_fast::rescale_)); }
