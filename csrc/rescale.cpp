// torch.ops.vae_fast.rescale_: the gradients of a forward pass, each of a dtype of its own, times an upstream gradient,
// in place, without a look at it on the host. Of the CUDA library; on a CPU the host looks.
#include "calls.h"

namespace vae_fast {
namespace {

void rescale_(Tensor factor, OptionalTensor grad0, OptionalTensor grad1, OptionalTensor grad2, OptionalTensor grad3) {
  OnDevice device(factor);
  const Operand by("factor", factor);
  STD_TORCH_CHECK(by.dtype == DType::kFloat32 || by.dtype == DType::kFloat64, "factor must be float32 or float64");
  STD_TORCH_CHECK(by.numel() == 1, "factor must be one number");
  RescaleArgs args;
  device.equip(args);
  args.factor = data_of(factor);
  args.factor_dtype = by.dtype;
  for (const OptionalTensor& grad : {grad0, grad1, grad2, grad3}) {
    if (!grad.has_value()) continue;
    const Operand to("grad", *grad);
    STD_TORCH_CHECK(to.dtype == DType::kFloat32 || to.dtype == DType::kFloat64, "grad must be float32 or float64");
    // Dense in memory, in whatever order.
    int64_t most = to.numel() > 0 ? 1 : 0;
    for (int d = 0; d < to.ndim && most > 0; ++d) most += (to.size[d] - 1) * to.stride[d];
    STD_TORCH_CHECK(most == to.numel(), "grad must be dense");
    args.add(data_of(*grad), to.dtype, to.numel());
  }
  run(kernels().rescale, args);
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(vae_fast, m) {
  m.def("rescale_(Tensor factor, Tensor(a!)? grad0, Tensor(b!)? grad1, Tensor(c!)? grad2, Tensor(d!)? grad3) -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) { m.impl("rescale_", TORCH_BOX(&vae_fast::rescale_)); }
