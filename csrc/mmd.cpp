// torch.ops.vae_fast.mmd_fwd: the squared maximum mean discrepancy of two sets of points, and its gradients.
#include "boxing.h"
#include "calls.h"

namespace vae_fast {
namespace {

// Points [n, D], in C order.
struct Points {
  Points(const char* name, const Tensor& given) : tensor(own(name, given)), operand(name, tensor) {
    VF_CHECK(operand.ndim == 2, name, " must have 2 dims, got shape ", shape_name(operand.size, operand.ndim));
    VF_CHECK(operand.dtype == DType::kFloat32 || operand.dtype == DType::kFloat64, name,
             " must be float32 or float64, got ", dtype_name(operand.scalar_type));
  }
  static Tensor own(const char* name, const Tensor& given) {
    const Operand whole(name, given);
    check_readable(name, given, whole.ndim);
    return contiguous(whole);
  }

  Tensor tensor;
  Operand operand;
};

std::tuple<Tensor, Tensor, Tensor> mmd_fwd(Tensor x, Tensor y, std::vector<double> constants, bool exponential,
                                           bool unbiased, bool need_dx, bool need_dy) {
  OnDevice device(x);
  const Points sets[] = {{"x", x}, {"y", y}};
  const Operand &first = sets[0].operand, &second = sets[1].operand;
  VF_CHECK(first.size[1] == second.size[1], "x and y must have points of as many dims, got ", first.size[1], " and ",
           second.size[1]);
  VF_CHECK(second.scalar_type == first.scalar_type, "y must have the dtype of x");
  VF_CHECK(exponential ? constants.size() == 1 : !constants.empty(), "constants must be ",
           exponential ? "one number" : "a number at least", ", got ", constants.size());
  MmdArgs args;
  device.equip(args);
  args.compute = first.dtype;
  args.dims = first.size[1];
  args.exponential = exponential;
  args.unbiased = unbiased;
  args.constants = constants.data();
  args.n_constants = static_cast<int64_t>(constants.size());
  const Tensor value = empty(nullptr, 0, first.scalar_type);
  args.value = data_of(value);
  const int64_t none = 0;
  const bool needs[] = {need_dx, need_dy};
  Tensor gradients[2];
  for (int k = 0; k < 2; ++k) {
    const Operand& of = sets[k].operand;
    args.points[k] = of.size[0];
    args.of[k] = data_of(sets[k].tensor);
    gradients[k] = needs[k] ? empty(of.size, 2, of.scalar_type) : empty(&none, 1, of.scalar_type);
    args.gradients[k] = needs[k] ? data_of(gradients[k]) : nullptr;
  }
  run(kernels().mmd, args);
  return {value, gradients[0], gradients[1]};
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) { m.impl("mmd_fwd", VF_BOX(mmd_fwd)); }
