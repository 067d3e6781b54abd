// The raw operators: arguments as vae_fast/schemas.py has them, to kernels and back. Compiled once a device.
#pragma once

#include "calls.h"
#include "softmax.h"
#include "sparse.h"

namespace vae_fast {

// ---- bernoulli_log_prob ----------------------------------------------------------------------------------

inline std::array<Tensor, 5> bernoulli(DensityTensors<3>&& tensors, const DensityOptions& options, double x_scale,
                                       int64_t param) {
  check_code("param", param, 2);
  VF_CHECK(param == 0 || !tensors.operands[2], "pos_weight is for logits, not for probabilities");
  BernoulliArgs args;
  args.x_scale = x_scale;
  args.probs = param == 1;
  return run_density(kernels().bernoulli_log_prob, args, tensors, options);
}

// pos_weight has no gradient.
inline std::tuple<Tensor, Tensor, Tensor> bernoulli_log_prob_fwd(Tensor logits, Tensor x, OptionalTensor pos_weight,
                                                                 OptionalTensor weight, int64_t event_ndim,
                                                                 int64_t reduction, double scale, double x_scale,
                                                                 int64_t param, bool need_dlogits, bool need_dx) {
  const auto [log_prob, dlogits, dx, none, dweight] =
      bernoulli({OnDevice(logits),
                 {{"logits", logits}, {"x", x}, {"pos_weight", pos_weight}, {"weight", weight}},
                 {},
                 {need_dlogits, need_dx}},
                {event_ndim, reduction, scale}, x_scale, param);
  return {log_prob, dlogits, dx};
}

inline std::tuple<Tensor, Tensor, Tensor> bernoulli_log_prob_bwd(Tensor dlog_prob, Tensor logits, Tensor x,
                                                                 OptionalTensor pos_weight, OptionalTensor weight,
                                                                 int64_t event_ndim, int64_t reduction, double scale,
                                                                 double x_scale, int64_t param, bool need_dlogits,
                                                                 bool need_dx, bool need_dweight) {
  const auto [log_prob, dlogits, dx, none, dweight] =
      bernoulli({OnDevice(logits),
                 {{"logits", logits}, {"x", x}, {"pos_weight", pos_weight}, {"weight", weight}},
                 {"dlog_prob", dlog_prob},
                 {need_dlogits, need_dx, false, need_dweight}},
                {event_ndim, reduction, scale}, x_scale, param);
  return {dlogits, dx, dweight};
}

// ---- gaussian_log_prob -----------------------------------------------------------------------------------

inline std::array<Tensor, 5> gaussian(DensityTensors<3>&& tensors, const DensityOptions& options, double x_scale,
                                      const SigmaOptions& form) {
  GaussianArgs args;
  args.x_scale = x_scale;
  args.form = form;
  return run_density(kernels().gaussian_log_prob, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_log_prob_fwd(
    Tensor mean, Tensor logvar, Tensor x, OptionalTensor weight, int64_t event_ndim, int64_t reduction, double scale,
    double x_scale, int64_t param, double eps, double low, double high, int64_t bounds_grad, bool need_dmean,
    bool need_dlogvar, bool need_dx) {
  return forward(gaussian({OnDevice(mean),
                           {{"mean", mean}, {"logvar", logvar}, {"x", x}, {"weight", weight}},
                           {},
                           {need_dmean, need_dlogvar, need_dx}},
                          {event_ndim, reduction, scale}, x_scale,
                          form_of("param", param, eps, low, high, bounds_grad)));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> gaussian_log_prob_bwd(
    Tensor dlog_prob, Tensor mean, Tensor logvar, Tensor x, OptionalTensor weight, int64_t event_ndim,
    int64_t reduction, double scale, double x_scale, int64_t param, double eps, double low, double high,
    int64_t bounds_grad, bool need_dmean, bool need_dlogvar, bool need_dx, bool need_dweight, OptionalTensor packed,
    int64_t packed_dim) {
  return backward(gaussian({OnDevice(mean),
                            {{"mean", mean}, {"logvar", logvar}, {"x", x}, {"weight", weight}},
                            {"dlog_prob", dlog_prob},
                            {need_dmean, need_dlogvar, need_dx, need_dweight},
                            {"packed", packed},
                            packed_dim},
                           {event_ndim, reduction, scale}, x_scale,
                           form_of("param", param, eps, low, high, bounds_grad)));
}

// ---- continuous_bernoulli_log_prob -----------------------------------------------------------------------

inline std::array<Tensor, 4> continuous_bernoulli(DensityTensors<2>&& tensors, const DensityOptions& options,
                                                  double x_scale) {
  ContinuousBernoulliArgs args;
  args.x_scale = x_scale;
  return run_density(kernels().continuous_bernoulli_log_prob, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor> continuous_bernoulli_log_prob_fwd(Tensor logits, Tensor x,
                                                                            OptionalTensor weight, int64_t event_ndim,
                                                                            int64_t reduction, double scale,
                                                                            double x_scale, bool need_dlogits,
                                                                            bool need_dx) {
  return forward(continuous_bernoulli(
      {OnDevice(logits), {{"logits", logits}, {"x", x}, {"weight", weight}}, {}, {need_dlogits, need_dx}},
      {event_ndim, reduction, scale}, x_scale));
}

inline std::tuple<Tensor, Tensor, Tensor> continuous_bernoulli_log_prob_bwd(Tensor dlog_prob, Tensor logits, Tensor x,
                                                                            OptionalTensor weight, int64_t event_ndim,
                                                                            int64_t reduction, double scale,
                                                                            double x_scale, bool need_dlogits,
                                                                            bool need_dx, bool need_dweight) {
  return backward(continuous_bernoulli({OnDevice(logits),
                                        {{"logits", logits}, {"x", x}, {"weight", weight}},
                                        {"dlog_prob", dlog_prob},
                                        {need_dlogits, need_dx, need_dweight}},
                                       {event_ndim, reduction, scale}, x_scale));
}

// ---- laplace_log_prob ------------------------------------------------------------------------------------

inline std::array<Tensor, 5> laplace(DensityTensors<3>&& tensors, const DensityOptions& options, double x_scale,
                                     int64_t param) {
  check_code("param", param, 2);
  LaplaceArgs args;
  args.x_scale = x_scale;
  args.log_scale = param == 1;
  return run_density(kernels().laplace_log_prob, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> laplace_log_prob_fwd(Tensor loc, Tensor b, Tensor x,
                                                                       OptionalTensor weight, int64_t event_ndim,
                                                                       int64_t reduction, double scale, double x_scale,
                                                                       int64_t param, bool need_dloc, bool need_db,
                                                                       bool need_dx) {
  return forward(laplace(
      {OnDevice(loc), {{"loc", loc}, {"b", b}, {"x", x}, {"weight", weight}}, {}, {need_dloc, need_db, need_dx}},
      {event_ndim, reduction, scale}, x_scale, param));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> laplace_log_prob_bwd(Tensor dlog_prob, Tensor loc, Tensor b, Tensor x,
                                                                       OptionalTensor weight, int64_t event_ndim,
                                                                       int64_t reduction, double scale, double x_scale,
                                                                       int64_t param, bool need_dloc, bool need_db,
                                                                       bool need_dx, bool need_dweight) {
  return backward(laplace({OnDevice(loc),
                           {{"loc", loc}, {"b", b}, {"x", x}, {"weight", weight}},
                           {"dlog_prob", dlog_prob},
                           {need_dloc, need_db, need_dx, need_dweight}},
                          {event_ndim, reduction, scale}, x_scale, param));
}

// ---- student_t_log_prob ----------------------------------------------------------------------------------

inline std::array<Tensor, 6> student_t(DensityTensors<4>&& tensors, const DensityOptions& options, double x_scale,
                                       int64_t param) {
  check_code("param", param, 2);
  StudentTArgs args;
  args.x_scale = x_scale;
  args.log_scale = param == 1;
  return run_density(kernels().student_t_log_prob, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> student_t_log_prob_fwd(
    Tensor loc, Tensor sigma, Tensor df, Tensor x, OptionalTensor weight, int64_t event_ndim, int64_t reduction,
    double scale, double x_scale, int64_t param, bool need_dloc, bool need_dsigma, bool need_ddf, bool need_dx) {
  return forward(student_t({OnDevice(loc),
                            {{"loc", loc}, {"sigma", sigma}, {"df", df}, {"x", x}, {"weight", weight}},
                            {},
                            {need_dloc, need_dsigma, need_ddf, need_dx}},
                           {event_ndim, reduction, scale}, x_scale, param));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> student_t_log_prob_bwd(
    Tensor dlog_prob, Tensor loc, Tensor sigma, Tensor df, Tensor x, OptionalTensor weight, int64_t event_ndim,
    int64_t reduction, double scale, double x_scale, int64_t param, bool need_dloc, bool need_dsigma, bool need_ddf,
    bool need_dx, bool need_dweight) {
  return backward(student_t({OnDevice(loc),
                             {{"loc", loc}, {"sigma", sigma}, {"df", df}, {"x", x}, {"weight", weight}},
                             {"dlog_prob", dlog_prob},
                             {need_dloc, need_dsigma, need_ddf, need_dx, need_dweight}},
                            {event_ndim, reduction, scale}, x_scale, param));
}

// ---- negative_binomial_log_prob --------------------------------------------------------------------------

struct CountOptions {
  int64_t param, theta_param;
  double eps;
};

inline std::array<Tensor, 6> negative_binomial(DensityTensors<4>&& tensors, const SparseRows& sparse,
                                               const DensityOptions& options, const CountOptions& count) {
  NegativeBinomialArgs args;
  args.sparse = sparse;
  args.log_mean = count.param == 1;
  args.log_theta = count.theta_param == 1;
  args.eps = count.eps;
  return run_density(kernels().negative_binomial_log_prob, args, tensors, options);
}

// The mean is a softmax's share of the library: sums, and the gradients by logits, theta, zero_logits, log_library,
// weight.
inline std::array<Tensor, 6> negative_binomial_of_shares(const Operand (&operands)[6], const SparseRows& sparse,
                                                         const Operand& upstream, const bool (&needs)[6],
                                                         const DensityOptions& options, const CountOptions& count) {
  const Operand &mean = operands[0], &library = operands[3], &x = operands[4];
  const Arithmetic arithmetic = arithmetic_of(Operands(operands, 4), Operands(operands + 4, 2));
  const Softmax shares(mean, Space(operands), options.event_ndim, arithmetic.compute);
  NegativeBinomialSharesArgs args;
  args.sparse = sparse;
  args.log_theta = count.theta_param == 1;
  args.eps = count.eps;
  args.softmax = shares.rows();
  DensityTensors<7> tensors{OnDevice(*mean.tensor),
                            {{"mean", shares.logits()},
                             operands[1],
                             operands[2],
                             library,
                             x,
                             {"top", shares.top()},
                             {"log_sum", shares.log_sum()},
                             operands[5]},
                            upstream,
                            {needs[0], needs[1], needs[2], needs[3], false, false, needs[0], needs[5]}};
  auto results = run_density(kernels().negative_binomial_of_shares, args, tensors, options);
  auto& [log_prob, dmean, dtheta, dzero_logits, dlibrary, dx, dtop, total, dweight] = results;
  // What is not asked for has the first operand's dtype, which here is not that of the kernel's.
  const auto made = [&](int k, const Tensor& gradient) { return needs[k] && operands[k] ? gradient : nothing(mean); };
  return {upstream ? log_prob : in_dtype(log_prob, arithmetic.result),
          needs[0] ? shares.gradient(dmean, total, mean) : nothing(mean),
          made(1, dtheta),
          made(2, dzero_logits),
          made(3, dlibrary),
          made(5, dweight)};
}

// Their tensors, in the table's order.
struct CountTensors {
  const Tensor &mean, &theta;
  const OptionalTensor &zero_logits, &log_library;
  const Tensor& x;
  const OptionalTensor& weight;
};

// Sums, and the gradients by mean, theta, zero_logits, log_library, weight.
inline std::array<Tensor, 6> negative_binomial(const CountTensors& t, const Operand& upstream, const bool (&needs)[6],
                                               const DensityOptions& options, const CountOptions& count) {
  check_code("param", count.param, 3);
  check_code("theta_param", count.theta_param, 2);
  const Counts counts(t.x);
  const Operand mean("mean", t.mean), theta("theta", t.theta), zero_logits("zero_logits", t.zero_logits),
      library("log_library", t.log_library), x = counts.operand(), weight("weight", t.weight);
  counts.check(mean);
  if (count.param == 2)
    return negative_binomial_of_shares({mean, theta, zero_logits, library, x, weight}, counts.sparse(), upstream, needs,
                                       options, count);
  VF_CHECK(!library, "log_library is for a mean by softmax");
  auto [log_prob, dmean, dtheta, dzero_logits, dx, dweight] =
      negative_binomial({OnDevice(t.mean),
                         {mean, theta, zero_logits, x, weight},
                         upstream,
                         {needs[0], needs[1], needs[2], false, needs[5]}},
                        counts.sparse(), options, count);
  return {log_prob, dmean, dtheta, dzero_logits, nothing(mean), dweight};
}

// Counts have no gradient.
inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> negative_binomial_log_prob_fwd(
    Tensor mean, Tensor theta, OptionalTensor zero_logits, OptionalTensor log_library, Tensor x, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, int64_t param, int64_t theta_param, double eps,
    bool need_dmean, bool need_dtheta, bool need_dzero_logits, bool need_dlog_library) {
  return forward(negative_binomial({mean, theta, zero_logits, log_library, x, weight}, {},
                                   {need_dmean, need_dtheta, need_dzero_logits, need_dlog_library},
                                   {event_ndim, reduction, scale}, {param, theta_param, eps}));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> negative_binomial_log_prob_bwd(
    Tensor dlog_prob, Tensor mean, Tensor theta, OptionalTensor zero_logits, OptionalTensor log_library, Tensor x,
    OptionalTensor weight, int64_t event_ndim, int64_t reduction, double scale, int64_t param, int64_t theta_param,
    double eps, bool need_dmean, bool need_dtheta, bool need_dzero_logits, bool need_dlog_library, bool need_dweight) {
  return backward(
      negative_binomial({mean, theta, zero_logits, log_library, x, weight}, {"dlog_prob", dlog_prob},
                        {need_dmean, need_dtheta, need_dzero_logits, need_dlog_library, false, need_dweight},
                        {event_ndim, reduction, scale}, {param, theta_param, eps}));
}

// ---- poisson_log_prob ------------------------------------------------------------------------------------

// Sums, and the gradients by rate and weight.
inline std::array<Tensor, 3> poisson(const Tensor& rate, const Tensor& x, const OptionalTensor& weight,
                                     const Operand& upstream, const bool (&needs)[3], const DensityOptions& options,
                                     int64_t param, double eps) {
  check_code("param", param, 2);
  const Counts counts(x);
  PoissonArgs args;
  args.log_rate = param == 1;
  args.eps = eps;
  args.sparse = counts.sparse();
  DensityTensors<2> tensors{
      OnDevice(rate), {{"rate", rate}, counts.operand(), {"weight", weight}}, upstream, {needs[0], needs[1], needs[2]}};
  counts.check(tensors.operands[0]);
  const auto [log_prob, drate, none, dweight] = run_density(kernels().poisson_log_prob, args, tensors, options);
  return {log_prob, drate, dweight};
}

inline std::tuple<Tensor, Tensor> poisson_log_prob_fwd(Tensor rate, Tensor x, OptionalTensor weight, int64_t event_ndim,
                                                       int64_t reduction, double scale, int64_t param, double eps,
                                                       bool need_drate) {
  return forward(poisson(rate, x, weight, {}, {need_drate}, {event_ndim, reduction, scale}, param, eps));
}

inline std::tuple<Tensor, Tensor> poisson_log_prob_bwd(Tensor dlog_prob, Tensor rate, Tensor x, OptionalTensor weight,
                                                       int64_t event_ndim, int64_t reduction, double scale,
                                                       int64_t param, double eps, bool need_drate, bool need_dweight) {
  return backward(poisson(rate, x, weight, {"dlog_prob", dlog_prob}, {need_drate, false, need_dweight},
                          {event_ndim, reduction, scale}, param, eps));
}

// ---- gaussian_kl -----------------------------------------------------------------------------------------

inline std::array<Tensor, 6> kl(DensityTensors<4>&& tensors, const DensityOptions& options,
                                std::optional<double> free_bits, const SigmaOptions& form,
                                const SigmaOptions& prior_form) {
  KLArgs args;
  args.has_free_bits = free_bits.has_value();
  args.free_bits = free_bits.value_or(0.0);
  args.form = form;
  args.prior_form = prior_form;
  return run_density(kernels().gaussian_kl, args, tensors, options);
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_kl_fwd(
    Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, int64_t bounds_grad, int64_t prior_param, double prior_eps, double prior_low,
    double prior_high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar) {
  return forward(
      kl({OnDevice(mu),
          {{"mu", mu}, {"logvar", logvar}, {"prior_mu", prior_mu}, {"prior_logvar", prior_logvar}, {"weight", weight}},
          {},
          {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar}},
         {event_ndim, reduction, scale}, free_bits, form_of("param", param, eps, low, high, bounds_grad),
         form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)));
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> gaussian_kl_bwd(
    Tensor dkl, Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, OptionalTensor weight,
    int64_t event_ndim, int64_t reduction, double scale, std::optional<double> free_bits, int64_t param, double eps,
    double low, double high, int64_t bounds_grad, int64_t prior_param, double prior_eps, double prior_low,
    double prior_high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar,
    bool need_dweight, OptionalTensor packed, int64_t packed_dim) {
  return backward(
      kl({OnDevice(mu),
          {{"mu", mu}, {"logvar", logvar}, {"prior_mu", prior_mu}, {"prior_logvar", prior_logvar}, {"weight", weight}},
          {"dkl", dkl},
          {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar, need_dweight},
          {"packed", packed},
          packed_dim},
         {event_ndim, reduction, scale}, free_bits, form_of("param", param, eps, low, high, bounds_grad),
         form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)));
}

// ---- rsample and rsample_kl ------------------------------------------------------------------------------

struct SampleCall : Sampling<SampleArgs> {
  SampleCall(const Tensor& mu, const Tensor& logvar, const SampleOptions& options, double temperature,
             std::optional<double> free_bits = std::nullopt, const OptionalTensor& prior_mu = std::nullopt,
             const OptionalTensor& prior_logvar = std::nullopt)
      : Sampling(mu, logvar, options, prior_mu, prior_logvar) {
    args.temperature = temperature;
    args.has_free_bits = free_bits.has_value();
    args.free_bits = free_bits.value_or(0.0);
    args.kl = nullptr;
  }
};

inline Tensor rsample_fwd(Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape, int64_t seed,
                          OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, OptionalTensor noise,
                          double temperature, int64_t param, double eps, double low, double high, int64_t bounds_grad) {
  SampleCall sampling(mu, logvar,
                      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
                       form_of("param", param, eps, low, high, bounds_grad)},
                      temperature);
  Tensor z = sampling.make_z();
  run(kernels().rsample_fwd, sampling.args);
  return z;
}

inline std::tuple<Tensor, Tensor> rsample_bwd(Tensor dz, Tensor mu, Tensor logvar, std::vector<int64_t> sample_shape,
                                              int64_t seed, OptionalTensor seed_tensor, int64_t offset,
                                              int64_t first_sample, OptionalTensor noise, double temperature,
                                              int64_t param, double eps, double low, double high, int64_t bounds_grad,
                                              bool need_dmu, bool need_dlogvar, OptionalTensor packed,
                                              int64_t packed_dim) {
  SampleCall sampling(mu, logvar,
                      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
                       form_of("param", param, eps, low, high, bounds_grad)},
                      temperature);
  sampling.set_dz(dz);
  return sampling.differentiate(kernels().rsample_bwd, {need_dmu, need_dlogvar}, packed, packed_dim);
}

inline std::tuple<Tensor, Tensor> rsample_kl_fwd(
    Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, std::vector<int64_t> sample_shape,
    int64_t seed, OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, OptionalTensor noise,
    double temperature, int64_t event_ndim, std::optional<double> free_bits, int64_t param, double eps, double low,
    double high, int64_t bounds_grad, int64_t prior_param, double prior_eps, double prior_low, double prior_high) {
  SampleCall sampling(mu, logvar,
                      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
                       form_of("param", param, eps, low, high, bounds_grad), event_ndim,
                       form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)},
                      temperature, free_bits, prior_mu, prior_logvar);
  Tensor z = sampling.make_z();
  Tensor kl = empty(sampling.space.size, sampling.space.event, compute_type(sampling.args.compute));
  sampling.args.kl = data_of(kl);
  run(kernels().rsample_kl_fwd, sampling.args);
  return {z, kl};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> rsample_kl_bwd(
    OptionalTensor dz, OptionalTensor dkl, Tensor mu, Tensor logvar, OptionalTensor prior_mu,
    OptionalTensor prior_logvar, std::vector<int64_t> sample_shape, int64_t seed, OptionalTensor seed_tensor,
    int64_t offset, int64_t first_sample, OptionalTensor noise, double temperature, int64_t event_ndim,
    std::optional<double> free_bits, int64_t param, double eps, double low, double high, int64_t bounds_grad,
    int64_t prior_param, double prior_eps, double prior_low, double prior_high, bool need_dmu, bool need_dlogvar,
    bool need_dprior_mu, bool need_dprior_logvar, OptionalTensor packed, int64_t packed_dim) {
  SampleCall sampling(mu, logvar,
                      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
                       form_of("param", param, eps, low, high, bounds_grad), event_ndim,
                       form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)},
                      temperature, free_bits, prior_mu, prior_logvar);
  sampling.set_dz(dz);
  sampling.set_dkl(Operand("dkl", dkl));
  return sampling.differentiate(kernels().rsample_kl_bwd, {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar},
                                packed, packed_dim);
}

// ---- rsample_log_prob ------------------------------------------------------------------------------------

inline std::tuple<Tensor, Tensor, Tensor> rsample_log_prob_fwd(
    Tensor mu, Tensor logvar, OptionalTensor prior_mu, OptionalTensor prior_logvar, std::vector<int64_t> sample_shape,
    int64_t seed, OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, OptionalTensor noise,
    int64_t event_ndim, int64_t q_grad, int64_t param, double eps, double low, double high, int64_t bounds_grad,
    int64_t prior_param, double prior_eps, double prior_low, double prior_high) {
  check_code("q_grad", q_grad, 2);
  Sampling<SampleLogProbArgs> sampling(
      mu, logvar,
      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
       form_of("param", param, eps, low, high, bounds_grad), event_ndim,
       form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)},
      prior_mu, prior_logvar);
  Tensor z = sampling.make_z(), log_q = sampling.make_sums(), log_p = sampling.make_sums();
  sampling.args.path = q_grad == 1;
  sampling.args.log_q = data_of(log_q);
  sampling.args.log_p = data_of(log_p);
  run(kernels().rsample_log_prob_fwd, sampling.args);
  return {z, log_q, log_p};
}

inline std::tuple<Tensor, Tensor, Tensor, Tensor> rsample_log_prob_bwd(
    OptionalTensor dz, OptionalTensor dlog_q, OptionalTensor dlog_p, Tensor mu, Tensor logvar, OptionalTensor prior_mu,
    OptionalTensor prior_logvar, std::vector<int64_t> sample_shape, int64_t seed, OptionalTensor seed_tensor,
    int64_t offset, int64_t first_sample, OptionalTensor noise, int64_t event_ndim, int64_t q_grad, int64_t param,
    double eps, double low, double high, int64_t bounds_grad, int64_t prior_param, double prior_eps, double prior_low,
    double prior_high, bool need_dmu, bool need_dlogvar, bool need_dprior_mu, bool need_dprior_logvar) {
  check_code("q_grad", q_grad, 2);
  Sampling<SampleLogProbArgs> sampling(
      mu, logvar,
      {sample_shape, noise_of(seed, seed_tensor, offset, first_sample), noise,
       form_of("param", param, eps, low, high, bounds_grad), event_ndim,
       form_of("prior_param", prior_param, prior_eps, prior_low, prior_high, bounds_grad)},
      prior_mu, prior_logvar);
  sampling.args.path = q_grad == 1;
  sampling.set_dz(dz);
  sampling.args.dlog_q = sampling.of_sums("dlog_q", dlog_q, sampling.args.dlog_q_sample_stride);
  sampling.args.dlog_p = sampling.of_sums("dlog_p", dlog_p, sampling.args.dlog_p_sample_stride);
  return sampling.differentiate(kernels().rsample_log_prob_bwd,
                                {need_dmu, need_dlogvar, need_dprior_mu, need_dprior_logvar});
}

// ---- standard_normal -------------------------------------------------------------------------------------

inline Tensor standard_normal_fwd(std::vector<int64_t> sample_shape, std::vector<int64_t> shape, int64_t seed,
                                  OptionalTensor seed_tensor, int64_t offset, int64_t first_sample, ScalarType dtype,
                                  TorchDevice where) {
  const int32_t type = tensors::number_of(dtype);
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
  args.out = Space(own).view(own);
  run(kernels().standard_normal, args);
  return out;
}

}  // namespace vae_fast

// Every operator with both directions.
#define VF_OPERATORS(each)                                                                                       \
  each(bernoulli_log_prob) each(gaussian_log_prob) each(gaussian_kl) each(negative_binomial_log_prob)            \
      each(continuous_bernoulli_log_prob) each(laplace_log_prob) each(student_t_log_prob) each(poisson_log_prob) \
          each(rsample) each(rsample_kl) each(rsample_log_prob)
