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
  int64_t count() const { return operand.size[0]; }
  int64_t dims() const { return operand.size[1]; }

  static Tensor own(const char* name, const Tensor& given) {
    const Operand whole(name, given);
    check_readable(name, given, whole.ndim);
    return contiguous(whole);
  }

  Tensor tensor;
  Operand operand;
};

// Adds `factor` times the mean of the kernel over pairs, of a set with itself without the pairs of a point and itself
// where `unbiased`, to the value and, where it is there, to x's gradient.
class Mean {
 public:
  Mean(OnDevice& device, const Tensor& constants, bool exponential) {
    const Operand all("constants", constants);
    device.equip(args_);
    args_.exponential = exponential;
    args_.constants = data_of(constants);
    args_.n_constants = all.size[0];
    args_.compute = all.dtype;
  }

  void add(const Points& x, const Points& y, double factor, bool unbiased, std::vector<double>* gradient) {
    const bool itself = &x == &y;
    std::vector<double> sums(static_cast<size_t>(x.count())), slopes;
    if (gradient) slopes.resize(gradient->size());
    args_.rows = x.count();
    args_.others = y.count();
    args_.dims = x.dims();
    args_.x = data_of(x.tensor);
    args_.y = data_of(y.tensor);
    args_.sums = sums.data();
    args_.slopes = gradient ? slopes.data() : nullptr;
    run(kernels().kernel_sums, args_);
    double total = 0;
    for (const double sum : sums) total += sum;
    const double n = static_cast<double>(x.count()), m = static_cast<double>(y.count());
    // A point's own kernel is 1 a constant.
    const bool without = itself && unbiased;
    if (without) total -= n * static_cast<double>(args_.exponential ? 1 : args_.n_constants);
    const double each = factor / (without ? n * (n - 1) : n * m);
    value += each * total;
    // Of a set with itself each point is in two places.
    for (size_t i = 0; i < slopes.size(); ++i) (*gradient)[i] += (itself ? 2 : 1) * each * slopes[i];
  }

  double value = 0;

 private:
  PairsArgs args_;
};

Tensor filled(const int64_t* size, int ndim, const Operand& like, const double* from) {
  const Tensor made = empty(size, ndim, like.scalar_type);
  int64_t n = 1;
  for (int d = 0; d < ndim; ++d) n *= size[d];
  for (int64_t i = 0; i < n; ++i) {
    if (like.dtype == DType::kFloat64)
      static_cast<double*>(data_of(made))[i] = from[i];
    else
      static_cast<float*>(data_of(made))[i] = static_cast<float>(from[i]);
  }
  return made;
}

std::tuple<Tensor, Tensor, Tensor> mmd_fwd(Tensor x, Tensor y, Tensor constants, bool exponential, bool unbiased,
                                           bool need_dx, bool need_dy) {
  OnDevice device(x);
  const Points first("x", x), second("y", y);
  const Tensor own = Points::own("constants", constants);
  const Operand scales("constants", own);
  VF_CHECK(second.dims() == first.dims(), "x and y must have points of as many dims, got ", first.dims(), " and ",
           second.dims());
  VF_CHECK(second.operand.scalar_type == first.operand.scalar_type && scales.scalar_type == first.operand.scalar_type,
           "y and constants must have the dtype of x");
  VF_CHECK(scales.ndim == 1 && scales.size[0] > 0, "constants must be of one dim, and not empty");
  Mean mean(device, own, exponential);
  std::vector<double> dx(static_cast<size_t>(need_dx ? first.count() * first.dims() : 0)),
      dy(static_cast<size_t>(need_dy ? second.count() * second.dims() : 0));
  mean.add(first, first, 1, unbiased, need_dx ? &dx : nullptr);
  mean.add(second, second, 1, unbiased, need_dy ? &dy : nullptr);
  mean.add(first, second, -2, false, need_dx ? &dx : nullptr);
  const double value = mean.value;
  if (need_dy) mean.add(second, first, -2, false, &dy);
  const int64_t none = 0;
  const auto made = [&](bool wanted, const Points& of, const std::vector<double>& from) {
    return filled(wanted ? of.operand.size : &none, wanted ? 2 : 1, of.operand, from.data());
  };
  return {filled(nullptr, 0, first.operand, &value), made(need_dx, first, dx), made(need_dy, second, dy)};
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) { m.impl("mmd_fwd", VF_BOX(mmd_fwd)); }
