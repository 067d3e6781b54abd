// torch.ops.vae_fast.logistic_mixture_log_prob_fwd: tensors of one floating dtype and any strides, whose data are of
// two dims, and the gradients that are asked for.
#include "boxing.h"
#include "calls.h"

namespace vae_fast {
namespace {

// A tensor as kernels take it, of the dims after the data's that it has.
StridedTable table_of(const Tensor& tensor, const Operand& o, bool channels, bool components) {
  StridedTable table;
  table.data = data_of(tensor);
  table.outer = o.stride[0];
  table.inner = o.stride[1];
  if (channels) table.channel = o.stride[2];
  if (components) table.component = o.stride[o.ndim - 1];
  return table;
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> logistic_mixture_log_prob_fwd(
    Tensor logits, Tensor mean, Tensor log_scale, OptionalTensor coefficients, Tensor x, OptionalTensor dlog_prob,
    double half_width, double min_log_scale, double low, double high, double density_below, bool need_dlogits,
    bool need_dmean, bool need_dlog_scale, bool need_dcoefficients) {
  OnDevice device(logits);
  const Operand weights("logits", logits), means("mean", mean), scales("log_scale", log_scale),
      slopes("coefficients", coefficients), data("x", x), upstream("dlog_prob", dlog_prob);
  VF_CHECK(means.dtype == DType::kFloat32 || means.dtype == DType::kFloat64, "mean must be float32 or float64, got ",
           dtype_name(means.scalar_type));
  VF_CHECK(means.ndim == 4, "mean must have 4 dims, two of data, channels and components, got shape ",
           shape_name(means.size, means.ndim));
  LogisticMixtureArgs args;
  args.compute = means.dtype;
  args.outer = means.size[0];
  args.inner = means.size[1];
  args.channels = means.size[2];
  args.components = means.size[3];
  VF_CHECK(args.channels > 0 && args.components > 0, "a mixture needs a channel and a component, got shape ",
           shape_name(means.size, means.ndim));
  const int64_t pairs = args.channels * (args.channels - 1) / 2;
  const int64_t of_weights[] = {args.outer, args.inner, args.components},
                of_slopes[] = {args.outer, args.inner, pairs, args.components},
                of_data[] = {args.outer, args.inner, args.channels};
  const auto check = [&](const Operand& o, const int64_t* size, int ndim) {
    if (!o) return;
    check_readable(o.name, *o.tensor, o.ndim);
    check_memory(o.name, *o.tensor, args.compute == DType::kFloat64 ? 8 : 4);
    VF_CHECK(o.scalar_type == means.scalar_type, o.name, " must have the dtype of mean");
    VF_CHECK(o.ndim == ndim && std::equal(size, size + ndim, o.size), o.name, " of shape ", shape_name(o.size, o.ndim),
             " does not fit mean of shape ", shape_name(means.size, means.ndim));
  };
  check(means, means.size, 4);
  check(weights, of_weights, 3);
  check(scales, means.size, 4);
  check(slopes, of_slopes, 4);
  check(data, of_data, 3);
  check(upstream, means.size, 2);
  VF_CHECK(!need_dcoefficients || slopes, "there are no coefficients to have a gradient");
  VF_CHECK(half_width > 0 && half_width <= 1, "half_width must be above 0 and no more than 1, got ", half_width);
  VF_CHECK(min_log_scale >= -80, "min_log_scale must be -80 at least, got ", min_log_scale);
  device.equip(args);
  args.logits = table_of(logits, weights, false, true);
  args.mean = table_of(mean, means, true, true);
  args.log_scale = table_of(log_scale, scales, true, true);
  if (slopes) args.coefficients = table_of(*coefficients, slopes, true, true);
  args.x = table_of(x, data, true, false);
  if (upstream) args.upstream = table_of(*dlog_prob, upstream, false, false);
  args.half_width = half_width;
  args.min_log_scale = min_log_scale;
  args.low = low;
  args.high = high;
  args.density_below = density_below;
  const Tensor log_prob = empty(means.size, 2, means.scalar_type);
  args.log_prob = data_of(log_prob);
  const auto gradient = [&](bool wanted, const Operand& of, StridedTable& to) {
    if (!wanted) return nothing(means);
    const Tensor made = empty_like(of);
    to = table_of(made, Operand("", made), of.ndim == 4, true);
    return made;
  };
  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> results = {
      log_prob, gradient(need_dlogits, weights, args.dlogits), gradient(need_dmean, means, args.dmean),
      gradient(need_dlog_scale, scales, args.dlog_scale), gradient(need_dcoefficients, slopes, args.dcoefficients)};
  run(kernels().logistic_mixture, args);
  return results;
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) {
  m.impl("logistic_mixture_log_prob_fwd", VF_BOX(logistic_mixture_log_prob_fwd));
}
