// torch.ops.vae_fast.gaussian_mixture_log_prob_fwd and _bwd: tensors of one floating dtype, with the data in one dim.
#include "boxing.h"
#include "calls.h"

namespace vae_fast {
namespace {

// The operands of a call, in C order: z [B, D], μ, 1/σ and −log σ [K, D] or [B, K, D], log w [K] or [B, K].
class MixtureCall {
 public:
  MixtureCall(const Tensor& z, const Tensor& mu, const Tensor& rate, const Tensor& log_rate, const Tensor& log_weight)
      : device_(z),
        z_(own("z", z)),
        mu_(own("mu", mu)),
        rate_(own("rate", rate)),
        log_rate_(own("log_rate", log_rate)),
        log_weight_(own("log_weight", log_weight)) {
    const Operand points("z", z_), weights("log_weight", log_weight_);
    const Operand components[] = {{"mu", mu_}, {"rate", rate_}, {"log_rate", log_rate_}};
    VF_CHECK(points.dtype == DType::kFloat32 || points.dtype == DType::kFloat64, "z must be float32 or float64, got ",
             dtype_name(points.scalar_type));
    VF_CHECK(points.ndim == 2, "z must have 2 dims, data and latents, got shape ",
             shape_name(points.size, points.ndim));
    const Operand& means = components[0];
    args.compute = points.dtype;
    args.rows = points.size[0];
    args.dims = points.size[1];
    args.own_components = means.ndim == 3;
    args.own_weights = weights.ndim == 2;
    args.components = means.ndim >= 2 ? means.size[means.ndim - 2] : 0;
    for (const Operand& o : components) {
      VF_CHECK(o.scalar_type == points.scalar_type, o.name, " must have the dtype of z");
      const bool fits = (o.ndim == 2 || (o.ndim == 3 && o.size[0] == args.rows)) && o.ndim == means.ndim &&
                        o.size[o.ndim - 2] == args.components && o.size[o.ndim - 1] == args.dims;
      VF_CHECK(fits, o.name, " of shape ", shape_name(o.size, o.ndim), " does not fit z of shape ",
               shape_name(points.size, points.ndim));
    }
    VF_CHECK(weights.scalar_type == points.scalar_type, "log_weight must have the dtype of z");
    VF_CHECK((weights.ndim == 1 || (weights.ndim == 2 && weights.size[0] == args.rows)) &&
                 weights.size[weights.ndim - 1] == args.components,
             "log_weight of shape ", shape_name(weights.size, weights.ndim), " does not fit ", args.components,
             " components");
    VF_CHECK(args.own_weights || !args.own_components,
             "components of each datum's own need log_weight so too: expand it to [B, K]");
    device_.equip(args);
    args.z = data_of(z_);
    args.mu = data_of(mu_);
    args.rate = data_of(rate_);
    args.log_rate = data_of(log_rate_);
    args.log_weight = data_of(log_weight_);
  }

  MixtureArgs args;

  // A result [B] or [B, D]; [0] where it is not wanted.
  Tensor of_data(int ndim, bool wanted = true) const {
    const int64_t size[] = {wanted ? args.rows : 0, args.dims};
    return empty(size, wanted ? ndim : 1, compute_type(args.compute));
  }
  // A gradient, and where the kernel is to put it.
  Tensor gradient(const Tensor& of, bool wanted, void*& to) const {
    const Operand operand("", of);
    const int64_t none = 0;
    const Tensor made =
        wanted ? empty(operand.size, operand.ndim, operand.scalar_type) : empty(&none, 1, operand.scalar_type);
    to = wanted ? data_of(made) : nullptr;
    return made;
  }
  Tensor dz(bool wanted) { return gradient(z_, wanted, args.dz); }
  Tensor dmu(bool wanted) { return gradient(mu_, wanted, args.dmu); }
  Tensor drate(bool wanted) { return gradient(rate_, wanted, args.drate); }
  Tensor dlog_rate(bool wanted) { return gradient(log_rate_, wanted, args.dlog_rate); }
  Tensor dlog_weight(bool wanted) { return gradient(log_weight_, wanted, args.dlog_weight); }

  // An upstream gradient or a result of the forward pass, of `ndim` dims of the data's.
  OptionalTensor like_data(const char* name, const OptionalTensor& tensor, int ndim) const {
    if (!tensor) return std::nullopt;
    const Operand operand(name, *tensor);
    check_readable(name, *tensor, operand.ndim);
    const int64_t size[] = {args.rows, args.dims};
    check_like(operand, size, ndim);
    VF_CHECK(operand.dtype == args.compute, name, " must have the dtype of z");
    return contiguous(operand);
  }

 private:
  static Tensor own(const char* name, const Tensor& tensor) {
    const Operand operand(name, tensor);
    check_readable(name, tensor, operand.ndim);
    return contiguous(operand);
  }

  OnDevice device_;
  Tensor z_, mu_, rate_, log_rate_, log_weight_;
};

std::tuple<Tensor, Tensor> gaussian_mixture_log_prob_fwd(Tensor z, Tensor mu, Tensor rate, Tensor log_rate,
                                                         Tensor log_weight, bool per_dim) {
  MixtureCall call(z, mu, rate, log_rate, log_weight);
  const Tensor log_prob = call.of_data(1), marginals = call.of_data(2, per_dim);
  call.args.per_dim = per_dim;
  call.args.log_prob = data_of(log_prob);
  call.args.marginals = data_of(marginals);
  run(kernels().gaussian_mixture_fwd, call.args);
  return {log_prob, marginals};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_mixture_log_prob_bwd(
    OptionalTensor dlog_prob, OptionalTensor dmarginals, Tensor z, Tensor mu, Tensor rate, Tensor log_rate,
    Tensor log_weight, Tensor log_prob, Tensor marginals, bool need_dz, bool need_dmu, bool need_drate,
    bool need_dlog_rate, bool need_dlog_weight) {
  MixtureCall call(z, mu, rate, log_rate, log_weight);
  const OptionalTensor by_all = call.like_data("dlog_prob", dlog_prob, 1),
                       by_dim = call.like_data("dmarginals", dmarginals, 2),
                       values = call.like_data("log_prob", log_prob, 1),
                       values_of_dims = by_dim ? call.like_data("marginals", marginals, 2) : std::nullopt;
  call.args.per_dim = by_dim.has_value();
  call.args.log_prob = data_of(*values);
  call.args.marginals = by_dim ? data_of(*values_of_dims) : nullptr;
  call.args.dlog_prob = by_all ? data_of(*by_all) : nullptr;
  call.args.dmarginals = by_dim ? data_of(*by_dim) : nullptr;
  std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> made = {call.dz(need_dz), call.dmu(need_dmu),
                                                             call.drate(need_drate), call.dlog_rate(need_dlog_rate),
                                                             call.dlog_weight(need_dlog_weight)};
  run(kernels().gaussian_mixture_bwd, call.args);
  return made;
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) {
  m.impl("gaussian_mixture_log_prob_fwd", VF_BOX(gaussian_mixture_log_prob_fwd));
  m.impl("gaussian_mixture_log_prob_bwd", VF_BOX(gaussian_mixture_log_prob_bwd));
}
