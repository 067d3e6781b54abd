// torch.ops.vae_fast.<op>_fwd and _bwd: arguments as vae_fast/schemas.py has them, to kernels and back. Compiled once a
// device, whose dispatch key is VF_DISPATCH_KEY.
#include "boxing.h"
#include "calls.h"

namespace vae_fast {
namespace {

// ---- bernoulli_log_prob ----------------------------------------------------------------------------------

struct BernoulliNeeds {
  bool dlogits, dx, dweight;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> bernoulli(const OptionalTensor& dlog_prob, const Tensor& logits_,
                                                     const Tensor& x_, const OptionalTensor& weight_,
                                                     const DensityOptions& options, double x_scale, int64_t param,
                                                     const BernoulliNeeds& needs) {
  OnDevice device(logits_);
  const Operand logits("logits", logits_), x("x", x_), weight("weight", weight_), upstream("dlog_prob", dlog_prob);
  check_floating({&logits});
  check_code("param", param, 2);
  Space space({&logits, &x, &weight});
  BernoulliArgs args;
  const Sums sums(device, args, space, arithmetic_of({&logits}, {&x, &weight}), logits, weight, upstream, options);
  GradientOut dlogits(needs.dlogits, logits, logits, space, args.is_double),
      dx(needs.dx, x, logits, space, args.is_double), dweight(needs.dweight, weight, logits, space, args.is_double);
  args.logits = space.view(logits);
  args.x = space.view(x);
  args.x_scale = x_scale;
  args.probs = param == 1;
  args.dlogits = dlogits.spec();
  args.dx = dx.spec();
  args.dweight = dweight.spec();
  run(kernels().bernoulli_log_prob, args);
  return {sums.finish(), dlogits.finish(), dx.finish(), dweight.finish()};
}

std::tuple<Tensor, Tensor, Tensor> bernoulli_log_prob_fwd(Tensor logits, Tensor x, OptionalTensor weight,
                                                          int64_t event_ndim, int64_t reduction, double scale,
                                                          double x_scale, int64_t param, bool need_dlogits,
                                                          bool need_dx) {
  auto [out, dlogits, dx, dweight] = bernoulli(std::nullopt, logits, x, weight, {event_ndim, reduction, scale}, x_scale,
                                               param, {need_dlogits, need_dx, false});
  return {out, dlogits, dx};
}

std::tuple<Tensor, Tensor, Tensor> bernoulli_log_prob_bwd(Tensor dlog_prob, Tensor logits, Tensor x,
                                                          OptionalTensor weight, int64_t event_ndim, int64_t reduction,
                                                          double scale, double x_scale, int64_t param,
                                                          bool need_dlogits, bool need_dx, bool need_dweight) {
  auto [out, dlogits, dx, dweight] = bernoulli(dlog_prob, logits, x, weight, {event_ndim, reduction, scale}, x_scale,
                                               param, {need_dlogits, need_dx, need_dweight});
  return {dlogits, dx, dweight};
}

// ---- gaussian_log_prob -----------------------------------------------------------------------------------

struct GaussianNeeds {
  bool dmean, dlogvar, dx, dweight;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian(const OptionalTensor& dlog_prob, const Tensor& mean_,
                                                            const Tensor& logvar_, const Tensor& x_,
                                                            const OptionalTensor& weight_,
                                                            const DensityOptions& options, double x_scale,
                                                            const ScaleOptions& form, const GaussianNeeds& needs,
                                                            const OptionalTensor& packed_, int64_t packed_dim) {
  OnDevice device(mean_);
  const Operand mean("mean", mean_), logvar("logvar", logvar_), x("x", x_), weight("weight", weight_),
      upstream("dlog_prob", dlog_prob), packed("packed", packed_);
  check_floating({&mean, &logvar});
  check_packed(packed, packed_dim, mean, logvar, needs.dmean, needs.dlogvar);
  Space space({&mean, &logvar, &x, &weight});
  GaussianArgs args;
  const Sums sums(device, args, space, arithmetic_of({&mean, &logvar}, {&x, &weight}), mean, weight, upstream, options);
  const PackedGradient whole(packed, packed_dim);
  GradientOut dmean(needs.dmean, mean, mean, space, args.is_double, whole.half(0)),
      dlogvar(needs.dlogvar, logvar, mean, space, args.is_double, whole.half(1)),
      dx(needs.dx, x, mean, space, args.is_double), dweight(needs.dweight, weight, mean, space, args.is_double);
  args.mean = space.view(mean);
  args.logvar = space.view(logvar);
  args.x = space.view(x);
  args.x_scale = x_scale;
  args.form = form;
  args.dmean = dmean.spec();
  args.dlogvar = dlogvar.spec();
  args.dx = dx.spec();
  args.dweight = dweight.spec();
  run(kernels().gaussian_log_prob, args);
  if (whole) return {sums.finish(), whole.whole(), nothing(mean), dx.finish(), dweight.finish()};
  return {sums.finish(), dmean.finish(), dlogvar.finish(), dx.finish(), dweight.finish()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_log_prob_fwd(Tensor mean, Tensor logvar, Tensor x,
                                                                 OptionalTensor weight, int64_t event_ndim,
                                                                 int64_t reduction, double scale, double x_scale,
                                                                 int64_t param, double eps, double low, double high,
                                                                 bool need_dmean, bool need_dlogvar, bool need_dx) {
  auto [out, dmean, dlogvar, dx, dweight] =
      gaussian(std::nullopt, mean, logvar, x, weight, {event_ndim, reduction, scale}, x_scale,
               form_of(param, eps, low, high), {need_dmean, need_dlogvar, need_dx, false}, std::nullopt, 0);
  return {out, dmean, dlogvar, dx};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_log_prob_bwd(
    Tensor dlog_prob, Tensor mean, Tensor logvar, Tensor x, OptionalTensor weight, int64_t event_ndim,
    int64_t reduction, double scale, double x_scale, int64_t param, double eps, double low, double high,
    bool need_dmean, bool need_dlogvar, bool need_dx, bool need_dweight, OptionalTensor packed, int64_t packed_dim) {
  auto [out, dmean, dlogvar, dx, dweight] =
      gaussian(dlog_prob, mean, logvar, x, weight, {event_ndim, reduction, scale}, x_scale,
               form_of(param, eps, low, high), {need_dmean, need_dlogvar, need_dx, need_dweight}, packed, packed_dim);
  return {dmean, dlogvar, dx, dweight};
}

// ---- gaussian_kl -----------------------------------------------------------------------------------------

struct KLNeeds {
  bool dmu, dlogvar, dprior_mu, dprior_logvar, dweight;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> kl(
    const OptionalTensor& dkl, const Tensor& mu_, const Tensor& logvar_, const OptionalTensor& prior_mu_,
    const OptionalTensor& prior_logvar_, const OptionalTensor& weight_, const DensityOptions& options,
    std::optional<double> free_bits, const ScaleOptions& form, const KLNeeds& needs, const OptionalTensor& packed_,
    int64_t packed_dim) {
  OnDevice device(mu_);
  const Operand mu("mu", mu_), logvar("logvar", logvar_), prior_mu("prior_mu", prior_mu_),
      prior_logvar("prior_logvar", prior_logvar_), weight("weight", weight_), upstream("dkl", dkl),
      packed("packed", packed_);
  check_floating({&mu, &logvar, &prior_mu, &prior_logvar});
  check_packed(packed, packed_dim, mu, logvar, needs.dmu, needs.dlogvar);
  Space space({&mu, &logvar, &prior_mu, &prior_logvar, &weight});
  KLArgs args;
  const Arithmetic arithmetic = arithmetic_of({&mu, &logvar, &prior_mu, &prior_logvar}, {&weight});
  const Sums sums(device, args, space, arithmetic, mu, weight, upstream, options);
  const PackedGradient whole(packed, packed_dim);
  GradientOut dmu(needs.dmu, mu, mu, space, args.is_double, whole.half(0)),
      dlogvar(needs.dlogvar, logvar, mu, space, args.is_double, whole.half(1)),
      dprior_mu(needs.dprior_mu, prior_mu, mu, space, args.is_double),
      dprior_logvar(needs.dprior_logvar, prior_logvar, mu, space, args.is_double),
      dweight(needs.dweight, weight, mu, space, args.is_double);
  args.mu = space.view(mu);
  args.logvar = space.view(logvar);
  args.prior_mu = space.view(prior_mu);
  args.prior_logvar = space.view(prior_logvar);
  args.has_free_bits = free_bits.has_value();
  args.free_bits = free_bits.value_or(0.0);
  args.form = form;
  args.dmu = dmu.spec();
  args.dlogvar = dlogvar.spec();
  args.dprior_mu = dprior_mu.spec();
  args.dprior_logvar = dprior_logvar.spec();
  args.dweight = dweight.spec();
  run(kernels().gaussian_kl, args);
  return {sums.finish(),
          whole ? whole.whole() : dmu.finish(),
          whole ? nothing(mu) : dlogvar.finish(),
          dprior_mu.finish(),
          dprior_logvar.finish(),
          dweight.finish()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_kl_fwd(
    Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar) {
  auto [out, dmu, dlogvar, dprior_mu, dprior_logvar, dweight] =
      kl(std::nullopt, mu, logvar, prior_mu, prior_logvar, weight, {event_ndim, reduction, scale}, free_bits,
         form_of(param, eps, low, high), {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar, false},
         std::nullopt, 0);
  return {out, dmu, dlogvar, dprior_mu, dprior_logvar};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_kl_bwd(
    Tensor dkl, Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar,
    bool need_dweight, OptionalTensor packed, int64_t packed_dim) {
  auto [out, dmu, dlogvar, dprior_mu, dprior_logvar, dweight] =
      kl(dkl, mu, logvar, prior_mu, prior_logvar, weight, {event_ndim, reduction, scale}, free_bits,
         form_of(param, eps, low, high), {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar, need_dweight},
         packed, packed_dim);
  return {dmu, dlogvar, dprior_mu, dprior_logvar, dweight};
}

// ---- rsample and rsample_kl ------------------------------------------------------------------------------

Tensor rsample_fwd(Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape, int64_t seed,
                   OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, int64_t param, double eps,
                   double low, double high) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), std::nullopt,
                    std::nullopt, form_of(param, eps, low, high));
  Tensor z = sampling.make_z();
  run(kernels().rsample_fwd, sampling.args);
  return z;
}

std::tuple<Tensor, Tensor> rsample_bwd(Tensor dz, Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape,
                                       int64_t seed, OptionalTensor seed_tensor, int64_t offset, int64_t first_sample,
                                       int64_t param, double eps, double low, double high, bool need_dmu,
                                       bool need_dlogvar, OptionalTensor packed, int64_t packed_dim) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), std::nullopt,
                    std::nullopt, form_of(param, eps, low, high));
  Tensor kept;
  sampling.set_dz(dz, kept);
  return sampling.differentiate(kernels().rsample_bwd, need_dmu, need_dlogvar, packed, packed_dim);
}

std::tuple<Tensor, Tensor> rsample_kl_fwd(Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape, int64_t seed,
                                          OptionalTensor seed_tensor, int64_t offset, int64_t first_sample,
                                          int64_t event_ndim, std::optional<double> free_bits, int64_t param,
                                          double eps, double low, double high) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), event_ndim, free_bits,
                    form_of(param, eps, low, high));
  Tensor z = sampling.make_z();
  Tensor kl = empty(sampling.space.size, sampling.space.event, compute_type(sampling.args.is_double));
  sampling.args.kl = data_of(kl);
  run(kernels().rsample_kl_fwd, sampling.args);
  return {z, kl};
}

std::tuple<Tensor, Tensor> rsample_kl_bwd(OptionalTensor dz, OptionalTensor dkl, Tensor mu, Tensor logvar,
                                          std::vector<int64_t> sample_shape, int64_t seed, OptionalTensor seed_tensor,
                                          int64_t offset, int64_t first_sample, int64_t event_ndim,
                                          std::optional<double> free_bits, int64_t param, double eps, double low,
                                          double high, bool need_dmu, bool need_dlogvar, OptionalTensor packed,
                                          int64_t packed_dim) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), event_ndim, free_bits,
                    form_of(param, eps, low, high));
  Tensor kept;
  sampling.set_dz(dz, kept);
  sampling.set_dkl(Operand("dkl", dkl));
  return sampling.differentiate(kernels().rsample_kl_bwd, need_dmu, need_dlogvar, packed, packed_dim);
}

// ---- standard_normal -------------------------------------------------------------------------------------

Tensor standard_normal_fwd(std::vector<int64_t> sample_shape, std::vector<int64_t> shape, int64_t seed,
                           OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, ScalarType dtype,
                           torch::stable::Device where) {
  const int32_t type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  check_dtype(type);
  const std::vector<int64_t> size = sampled("the result", sample_shape, shape.data(), static_cast<int>(shape.size()));
  OnDevice device(where.index());
  NormalArgs args;
  device.equip(args);
  args.n_samples = product(sample_shape);
  args.n = product(shape);
  args.noise = noise_of(seed, seed_tensor, offset, first_sample);
  Tensor out = empty(size.data(), static_cast<int>(size.size()), type);
  const Operand own("out", out);
  args.out = Space({&own}).view(own);
  run(kernels().standard_normal, args);
  return out;
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_IMPL(vae_fast, VF_DISPATCH_KEY, m) {
  using namespace vae_fast;
  m.impl("bernoulli_log_prob_fwd", VF_BOX(bernoulli_log_prob_fwd));
  m.impl("bernoulli_log_prob_fwd.autograd", VF_BOX(bernoulli_log_prob_fwd));
  m.impl("bernoulli_log_prob_bwd", VF_BOX(bernoulli_log_prob_bwd));
  m.impl("gaussian_log_prob_fwd", VF_BOX(gaussian_log_prob_fwd));
  m.impl("gaussian_log_prob_fwd.autograd", VF_BOX(gaussian_log_prob_fwd));
  m.impl("gaussian_log_prob_bwd", VF_BOX(gaussian_log_prob_bwd));
  m.impl("gaussian_kl_fwd", VF_BOX(gaussian_kl_fwd));
  m.impl("gaussian_kl_fwd.autograd", VF_BOX(gaussian_kl_fwd));
  m.impl("gaussian_kl_bwd", VF_BOX(gaussian_kl_bwd));
  m.impl("rsample_fwd", VF_BOX(rsample_fwd));
  m.impl("rsample_fwd.autograd", VF_BOX(rsample_fwd));
  m.impl("rsample_bwd", VF_BOX(rsample_bwd));
  m.impl("rsample_kl_fwd", VF_BOX(rsample_kl_fwd));
  m.impl("rsample_kl_fwd.autograd", VF_BOX(rsample_kl_fwd));
  m.impl("rsample_kl_bwd", VF_BOX(rsample_kl_bwd));
  m.impl("standard_normal_fwd", VF_BOX(standard_normal_fwd));
}
