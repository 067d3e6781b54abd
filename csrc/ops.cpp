// torch.ops.vae_fast.<op>_fwd and _bwd: arguments as vae_fast/schemas.py has them, to kernels and back. Compiled once a
// device, whose dispatch key is VF_DISPATCH_KEY.
#include <limits>

#include "boxing.h"
#include "operands.h"

namespace vae_fast {
namespace {

enum Reduction { kNone, kSum, kMean };

struct DensityOptions {
  int64_t event_ndim, reduction;
  double scale;
};

// Fills what all densities have, and returns the tensor that the sums go to.
template <class Args>
Tensor density(OnDevice& device, Args& args, Space& space, const Operand& anchor, const Operand& weight,
               const Operand* upstream, const DensityOptions& options) {
  STD_TORCH_CHECK(options.event_ndim >= 0 && options.event_ndim <= space.ndim, "event_ndim=", options.event_ndim,
                  " does not fit a shape of ", space.ndim, " dims");
  const int data_ndim = space.ndim - static_cast<int>(options.event_ndim);
  const bool each = options.reduction == kNone;
  device.equip(args);
  args.is_double = anchor.dtype == DType::kFloat64;
  args.scale = options.scale;
  args.divisor = options.reduction == kMean ? static_cast<double>(space.numel(0, data_ndim)) : 1.0;
  space.set_event(each ? data_ndim : 0, anchor);
  args.rows = space.rows();
  args.weight = space.view(weight);
  args.out = nullptr;
  if (upstream) {
    args.upstream = space.leading_view(*upstream);
    return Tensor();
  }
  Tensor out = empty(space.size, each ? data_ndim : 0, compute_type(anchor));
  args.out = data_of(out);
  return out;
}

ScaleOptions form_of(int64_t param, double eps, double low, double high) {
  // No bounds, as graphs have it: an AOTInductor package cannot hold an infinity.
  constexpr double kNone = std::numeric_limits<double>::max(), kInfinity = std::numeric_limits<double>::infinity();
  if (low == -kNone) low = -kInfinity;
  if (high == kNone) high = kInfinity;
  return {static_cast<int>(param), eps, low, high};
}

// ---- bernoulli_log_prob ----------------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor> bernoulli(const OptionalTensor& dlog_prob, const Tensor& logits_, const Tensor& x_,
                                             const OptionalTensor& weight_, const DensityOptions& options,
                                             double x_scale, int64_t param, bool need_dlogits, bool need_dx) {
  OnDevice device(logits_);
  const Operand logits("logits", logits_), x("x", x_), weight("weight", weight_), upstream("dlog_prob", dlog_prob);
  Space space({&logits, &x, &weight});
  BernoulliArgs args;
  Tensor out = density(device, args, space, logits, weight, upstream ? &upstream : nullptr, options);
  GradientOut dlogits(need_dlogits, logits, logits, space), dx(need_dx, x, logits, space);
  args.logits = space.view(logits);
  args.x = space.view(x);
  args.x_scale = x_scale;
  args.probs = param == 1;
  args.dlogits = dlogits.spec();
  args.dx = dx.spec();
  kernels().bernoulli_log_prob(args);
  return {std::move(out), dlogits.finish(), dx.finish()};
}

std::tuple<Tensor, Tensor, Tensor> bernoulli_log_prob_fwd(Tensor logits, Tensor x, OptionalTensor weight,
                                                          int64_t event_ndim, int64_t reduction, double scale,
                                                          double x_scale, int64_t param, bool need_dlogits,
                                                          bool need_dx) {
  return bernoulli(std::nullopt, logits, x, weight, {event_ndim, reduction, scale}, x_scale, param, need_dlogits,
                   need_dx);
}

std::tuple<Tensor, Tensor> bernoulli_log_prob_bwd(Tensor dlog_prob, Tensor logits, Tensor x, OptionalTensor weight,
                                                  int64_t event_ndim, int64_t reduction, double scale, double x_scale,
                                                  int64_t param, bool need_dlogits, bool need_dx) {
  auto [out, dlogits, dx] =
      bernoulli(dlog_prob, logits, x, weight, {event_ndim, reduction, scale}, x_scale, param, need_dlogits, need_dx);
  return {dlogits, dx};
}

// ---- gaussian_log_prob -----------------------------------------------------------------------------------

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian(const OptionalTensor& dlog_prob, const Tensor& mean_,
                                                    const Tensor& logvar_, const Tensor& x_,
                                                    const OptionalTensor& weight_, const DensityOptions& options,
                                                    double x_scale, const ScaleOptions& form, bool need_dmean,
                                                    bool need_dlogvar, bool need_dx,
                                                    const PackedGradient& packed) {
  OnDevice device(mean_);
  const Operand mean("mean", mean_), logvar("logvar", logvar_), x("x", x_), weight("weight", weight_),
      upstream("dlog_prob", dlog_prob);
  Space space({&mean, &logvar, &x, &weight});
  GaussianArgs args;
  Tensor out = density(device, args, space, mean, weight, upstream ? &upstream : nullptr, options);
  GradientOut dmean(need_dmean, mean, mean, space, packed.half(0)),
      dlogvar(need_dlogvar, logvar, mean, space, packed.half(1)), dx(need_dx, x, mean, space);
  args.mean = space.view(mean);
  args.logvar = space.view(logvar);
  args.x = space.view(x);
  args.x_scale = x_scale;
  args.form = form;
  args.dmean = dmean.spec();
  args.dlogvar = dlogvar.spec();
  args.dx = dx.spec();
  kernels().gaussian_log_prob(args);
  return {std::move(out), dmean.finish(), dlogvar.finish(), dx.finish()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_log_prob_fwd(Tensor mean, Tensor logvar, Tensor x,
                                                                 OptionalTensor weight, int64_t event_ndim,
                                                                 int64_t reduction, double scale, double x_scale,
                                                                 int64_t param, double eps, double low, double high,
                                                                 bool need_dmean, bool need_dlogvar, bool need_dx) {
  return gaussian(std::nullopt, mean, logvar, x, weight, {event_ndim, reduction, scale}, x_scale,
                  form_of(param, eps, low, high), need_dmean, need_dlogvar, need_dx, {std::nullopt, 0});
}

std::tuple<Tensor, Tensor, Tensor> gaussian_log_prob_bwd(Tensor dlog_prob, Tensor mean, Tensor logvar, Tensor x,
                                                         OptionalTensor weight, int64_t event_ndim, int64_t reduction,
                                                         double scale, double x_scale, int64_t param, double eps,
                                                         double low, double high, bool need_dmean, bool need_dlogvar,
                                                         bool need_dx, OptionalTensor packed, int64_t packed_dim) {
  const PackedGradient whole(packed, packed_dim);
  auto [out, dmean, dlogvar, dx] =
      gaussian(dlog_prob, mean, logvar, x, weight, {event_ndim, reduction, scale}, x_scale,
               form_of(param, eps, low, high), need_dmean, need_dlogvar, need_dx, whole);
  if (whole) return {whole.whole(), nothing(Operand("mean", mean)), dx};
  return {dmean, dlogvar, dx};
}

// ---- gaussian_kl -----------------------------------------------------------------------------------------

struct KLNeeds {
  bool dmu, dlogvar, dprior_mu, dprior_logvar;
};

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kl(const OptionalTensor& dkl, const Tensor& mu_,
                                                      const Tensor& logvar_, const OptionalTensor& prior_mu_,
                                                      const OptionalTensor& prior_logvar_,
                                                      const OptionalTensor& weight_, const DensityOptions& options,
                                                      std::optional<double> free_bits, const ScaleOptions& form,
                                                      const KLNeeds& needs, const PackedGradient& packed) {
  OnDevice device(mu_);
  const Operand mu("mu", mu_), logvar("logvar", logvar_), prior_mu("prior_mu", prior_mu_),
      prior_logvar("prior_logvar", prior_logvar_), weight("weight", weight_), upstream("dkl", dkl);
  Space space({&mu, &logvar, &prior_mu, &prior_logvar, &weight});
  KLArgs args;
  Tensor out = density(device, args, space, mu, weight, upstream ? &upstream : nullptr, options);
  GradientOut dmu(needs.dmu, mu, mu, space, packed.half(0)), dlogvar(needs.dlogvar, logvar, mu, space, packed.half(1)),
      dprior_mu(needs.dprior_mu, prior_mu, mu, space), dprior_logvar(needs.dprior_logvar, prior_logvar, mu, space);
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
  kernels().gaussian_kl(args);
  return {std::move(out), dmu.finish(), dlogvar.finish(), dprior_mu.finish(), dprior_logvar.finish()};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_kl_fwd(
    Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar) {
  return kl(std::nullopt, mu, logvar, prior_mu, prior_logvar, weight, {event_ndim, reduction, scale}, free_bits,
            form_of(param, eps, low, high), {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar},
            {std::nullopt, 0});
}

std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_kl_bwd(
    Tensor dkl, Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar,
    OptionalTensor packed, int64_t packed_dim) {
  const PackedGradient whole(packed, packed_dim);
  auto [out, dmu, dlogvar, dprior_mu, dprior_logvar] =
      kl(dkl, mu, logvar, prior_mu, prior_logvar, weight, {event_ndim, reduction, scale}, free_bits,
         form_of(param, eps, low, high), {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar}, whole);
  if (whole) return {whole.whole(), nothing(Operand("mu", mu)), dprior_mu, dprior_logvar};
  return {dmu, dlogvar, dprior_mu, dprior_logvar};
}

// ---- rsample and rsample_kl ------------------------------------------------------------------------------

NoiseOptions noise_of(int64_t seed, const OptionalTensor& seed_tensor, int64_t offset, int64_t first_sample) {
  NoiseOptions noise{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), static_cast<uint64_t>(first_sample)};
  if (seed_tensor) {
    int32_t type;
    STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(seed_tensor->get(), &type));
    STD_TORCH_CHECK(type == aoti_torch_dtype_int64() && seed_tensor->numel() == 1, "seed_tensor must hold one int64");
    read_seed(*seed_tensor, noise);
  }
  return noise;
}

// What both directions of both operators have.
struct Sampling {
  OnDevice device;
  Operand mu, logvar;
  Space space;
  SampleArgs args;

  // event_ndim < 0: no rows, as rsample has none.
  Sampling(const Tensor& mu_, const Tensor& logvar_, const std::vector<int64_t>& sample_shape,
           const NoiseOptions& noise, int64_t event_ndim, const ScaleOptions& form)
      : device(mu_), mu("mu", mu_), logvar("logvar", logvar_), space({&mu, &logvar}) {
    STD_TORCH_CHECK(event_ndim <= space.ndim, "event_ndim=", event_ndim, " does not fit a shape of ", space.ndim,
                    " dims");
    // Without set_event: the noise's order is that of μ's dims, wherever they are in memory.
    space.event = event_ndim < 0 ? 0 : space.ndim - static_cast<int>(event_ndim);
    device.equip(args);
    args.is_double = mu.dtype == DType::kFloat64;
    args.rows = space.rows();
    args.n_samples = 1;
    for (int64_t n : sample_shape) args.n_samples *= n;
    args.mu = space.view(mu);
    args.logvar = space.view(logvar);
    args.noise = noise;
    args.form = form;
    args.has_free_bits = false;
    args.free_bits = 0;
    args.kl = nullptr;
  }

  void set_free_bits(std::optional<double> free_bits) {
    args.has_free_bits = free_bits.has_value();
    args.free_bits = free_bits.value_or(0.0);
  }

  Tensor make_z(const std::vector<int64_t>& sample_shape) {
    const bool like_mu = sample_shape.empty() && space.ndim == mu.ndim && std::equal(mu.size, mu.size + mu.ndim, space.size);
    std::vector<int64_t> shape(sample_shape);
    shape.insert(shape.end(), space.size, space.size + space.ndim);
    STD_TORCH_CHECK(shape.size() <= kMaxDims, "z has more than ", kMaxDims, " dims");
    Tensor z = like_mu ? empty_like(mu) : empty(shape.data(), static_cast<int>(shape.size()), mu.scalar_type);
    Operand own("z", z);
    // The dims of one sample.
    own.ndim = space.ndim;
    own.size += sample_shape.size();
    own.stride += sample_shape.size();
    args.z = space.view(own);
    args.z_sample_stride = space.numel();
    return z;
  }

  // Tensors that the views of an upstream gradient point into are kept in `kept`.
  void set_dz(const OptionalTensor& dz, const std::vector<int64_t>& sample_shape, Tensor& kept) {
    if (!dz) return;
    const int samples = static_cast<int>(sample_shape.size());
    kept = *dz;
    for (;;) {
      Operand own("dz", kept);
      STD_TORCH_CHECK(own.ndim == samples + space.ndim, "dz has not the dims of z");
      View over_samples;
      for (int d = 0; d < samples; ++d) over_samples.append(own.size[d], own.stride[d]);
      // Of no samples there is nothing to read; their sums are 0, and still multiplied.
      if (over_samples.ndim == 1 || args.n_samples == 0) {
        args.dz_sample_stride = over_samples.stride[0];
        own.ndim = space.ndim;
        own.size += samples;
        own.stride += samples;
        args.dz = space.view(own);
        return;
      }
      kept = torch::stable::contiguous(kept);
    }
  }
};

Tensor rsample_fwd(Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape, int64_t seed,
                   OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, int64_t param, double eps,
                   double low, double high) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), -1,
                    form_of(param, eps, low, high));
  Tensor z = sampling.make_z(sample_shape);
  kernels().rsample_fwd(sampling.args);
  return z;
}

std::tuple<Tensor, Tensor> rsample_bwd(Tensor dz, Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape,
                                       int64_t seed, OptionalTensor seed_tensor, int64_t offset, int64_t first_sample,
                                       int64_t param, double eps, double low, double high, bool need_dmu,
                                       bool need_dlogvar, OptionalTensor packed, int64_t packed_dim) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), -1,
                    form_of(param, eps, low, high));
  Tensor kept;
  sampling.set_dz(dz, sample_shape, kept);
  const PackedGradient whole(packed, packed_dim);
  GradientOut dmu(need_dmu, sampling.mu, sampling.mu, sampling.space, whole.half(0)),
      dlogvar(need_dlogvar, sampling.logvar, sampling.mu, sampling.space, whole.half(1));
  sampling.args.dmu = dmu.spec();
  sampling.args.dlogvar = dlogvar.spec();
  kernels().rsample_bwd(sampling.args);
  if (whole) return {whole.whole(), nothing(sampling.mu)};
  return {dmu.finish(), dlogvar.finish()};
}

std::tuple<Tensor, Tensor> rsample_kl_fwd(Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape, int64_t seed,
                                          OptionalTensor seed_tensor, int64_t offset, int64_t first_sample,
                                          int64_t event_ndim, std::optional<double> free_bits, int64_t param,
                                          double eps, double low, double high) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), event_ndim,
                    form_of(param, eps, low, high));
  sampling.set_free_bits(free_bits);
  Tensor z = sampling.make_z(sample_shape);
  Tensor kl = empty(sampling.space.size, sampling.space.event, compute_type(sampling.mu));
  sampling.args.kl = data_of(kl);
  kernels().rsample_kl_fwd(sampling.args);
  return {z, kl};
}

std::tuple<Tensor, Tensor> rsample_kl_bwd(OptionalTensor dz, OptionalTensor dkl, Tensor mu, Tensor logvar,
                                          std::vector<int64_t> sample_shape, int64_t seed, OptionalTensor seed_tensor,
                                          int64_t offset, int64_t first_sample, int64_t event_ndim,
                                          std::optional<double> free_bits, int64_t param, double eps, double low,
                                          double high, bool need_dmu, bool need_dlogvar, OptionalTensor packed,
                                          int64_t packed_dim) {
  Sampling sampling(mu, logvar, sample_shape, noise_of(seed, seed_tensor, offset, first_sample), event_ndim,
                    form_of(param, eps, low, high));
  sampling.set_free_bits(free_bits);
  Tensor kept;
  sampling.set_dz(dz, sample_shape, kept);
  if (dkl) sampling.args.dkl = sampling.space.leading_view(Operand("dkl", *dkl));
  const PackedGradient whole(packed, packed_dim);
  GradientOut dmu(need_dmu, sampling.mu, sampling.mu, sampling.space, whole.half(0)),
      dlogvar(need_dlogvar, sampling.logvar, sampling.mu, sampling.space, whole.half(1));
  sampling.args.dmu = dmu.spec();
  sampling.args.dlogvar = dlogvar.spec();
  kernels().rsample_kl_bwd(sampling.args);
  if (whole) return {whole.whole(), nothing(sampling.mu)};
  return {dmu.finish(), dlogvar.finish()};
}

// ---- standard_normal -------------------------------------------------------------------------------------

Tensor standard_normal_fwd(std::vector<int64_t> sample_shape, std::vector<int64_t> shape, int64_t seed,
                           OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, ScalarType dtype,
                           torch::stable::Device where) {
  OnDevice device(where.index());
  NormalArgs args;
  device.equip(args);
  args.n_samples = args.n = 1;
  for (int64_t n : sample_shape) args.n_samples *= n;
  for (int64_t n : shape) args.n *= n;
  args.noise = noise_of(seed, seed_tensor, offset, first_sample);
  std::vector<int64_t> size(sample_shape);
  size.insert(size.end(), shape.begin(), shape.end());
  STD_TORCH_CHECK(size.size() <= kMaxDims, "more than ", kMaxDims, " dims");
  const int32_t type = torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype));
  Tensor out = empty(size.data(), static_cast<int>(size.size()), type);
  const Operand own("out", out);
  args.out = Space({&own}).view(own);
  kernels().standard_normal(args);
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
