// The kernels on threads of their own, for ThreadSanitizer: no PyTorch, no OpenMP, whose own synchronisation it cannot
// see. Every kernel runs with every kind of gradient on four threads, from two calling threads at once.
//
// With an argument the work is handed out wrongly, every range twice: a race that the sanitizer must report.
#include <cstdio>
#include <cstring>
#include <thread>
#include <vector>

#include "../../csrc/kernels.h"

using namespace vae_fast;

static bool twice = false;

static void on_threads(int64_t n, int64_t grain, Body body, void* context) {
  const int64_t ranges = (n + grain - 1) / grain, threads = ranges < 4 ? ranges : 4;
  std::vector<std::thread> pool;
  for (int64_t t = 0; t < threads; ++t) {
    for (int copy = 0; copy < (twice ? 2 : 1); ++copy)
      pool.emplace_back([=] { body(context, n * t / threads, n * (t + 1) / threads); });
  }
  for (std::thread& thread : pool) thread.join();
}

static View over(std::vector<float>& data, int64_t rows, int64_t row_step, int64_t size, int64_t step) {
  View view;
  view.data = data.data();
  view.append(rows, row_step);
  view.append(size, step);
  return view;
}

// A gradient of every kind: for the elements, a row, a feature.
static Gradient gradient(Gradient::Kind kind, std::vector<float>& data, int64_t rows, int64_t size) {
  Gradient g;
  g.kind = kind;
  g.numel = kind == Gradient::kEach ? rows * size : kind == Gradient::kRow ? rows : size;
  data.assign(g.numel, 0);
  g.view.data = data.data();
  if (kind == Gradient::kEach) {
    g.view.append(rows, size);
    g.view.append(size, 1);
  } else {
    g.view.append(g.numel, 1);
  }
  g.index.append(rows, 0);
  g.index.append(size, 1);
  return g;
}

static void run(int64_t rows, int64_t size, Gradient::Kind kind) {
  std::vector<float> a(rows * size, 0.5f), b(size, 0.25f), c(rows * size, 0.75f), out(rows), g[5], z(3 * rows * size);
  const auto density = [&](DensityCall& args) {
    args.parallel_for = on_threads;
    args.compute = DType::kFloat32;
    args.rows = {rows, size};
    args.out = out.data();
    args.scale = args.divisor = 1;
  };
  const SigmaOptions form{0, 0, -1e30, 1e30};
  BernoulliArgs bernoulli;
  density(bernoulli);
  bernoulli.in[0] = over(a, rows, size, size, 1);
  bernoulli.in[1] = over(c, rows, size, size, 1);
  bernoulli.x_scale = 1;
  bernoulli.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  bernoulli.gradients[1] = gradient(kind, g[1], rows, size);
  kernels().bernoulli_log_prob(bernoulli);
  bernoulli.probs = true;
  kernels().bernoulli_log_prob(bernoulli);
  // A backward pass with a gradient by the weight.
  const auto weighted = [&](DensityCall& args) {
    args.out = nullptr;
    args.weight = over(c, rows, size, size, 1);
    args.dweight = gradient(kind, g[4], rows, size);
  };
  weighted(bernoulli);
  kernels().bernoulli_log_prob(bernoulli);

  GaussianArgs gaussian;
  density(gaussian);
  gaussian.in[0] = over(a, rows, size, size, 1);
  gaussian.in[1] = over(b, rows, 0, size, 1);
  gaussian.in[2] = over(c, rows, size, size, 1);
  gaussian.x_scale = 1;
  gaussian.form = form;
  gaussian.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  gaussian.gradients[1] = gradient(kind, g[1], rows, size);
  kernels().gaussian_log_prob(gaussian);
  weighted(gaussian);
  kernels().gaussian_log_prob(gaussian);

  // Counts, of which most are 0; θ has one value a column.
  std::vector<float> counts(rows * size);
  for (size_t i = 0; i < counts.size(); i += 5) counts[i] = static_cast<float>(1 + i % 7);
  NegativeBinomialArgs negative_binomial;
  density(negative_binomial);
  negative_binomial.in[0] = over(a, rows, size, size, 1);
  negative_binomial.in[1] = over(b, rows, 0, size, 1);
  negative_binomial.in[3] = over(counts, rows, size, size, 1);
  negative_binomial.log_mean = negative_binomial.log_theta = false;
  negative_binomial.eps = 0;
  negative_binomial.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  negative_binomial.gradients[1] = gradient(kind, g[1], rows, size);
  kernels().negative_binomial_log_prob(negative_binomial);
  negative_binomial.in[2] = over(c, rows, size, size, 1);
  negative_binomial.gradients[2] = gradient(kind, g[2], rows, size);
  kernels().negative_binomial_log_prob(negative_binomial);

  NegativeBinomialSharesArgs shares;
  density(shares);
  shares.in[0] = over(a, rows, size, size, 1);
  shares.in[1] = over(b, rows, 0, size, 1);
  shares.in[4] = over(counts, rows, size, size, 1);
  shares.log_theta = false;
  shares.eps = 0;
  shares.softmax = {rows, size};
  shares.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  shares.gradients[1] = gradient(kind, g[1], rows, size);
  kernels().negative_binomial_of_shares(shares);

  PoissonArgs poisson;
  density(poisson);
  poisson.in[0] = over(a, rows, size, size, 1);
  poisson.in[1] = over(counts, rows, size, size, 1);
  poisson.log_rate = false;
  poisson.eps = 0;
  poisson.gradients[0] = gradient(kind, g[0], rows, size);
  kernels().poisson_log_prob(poisson);
  weighted(poisson);
  kernels().poisson_log_prob(poisson);

  KLArgs kl;
  density(kl);
  kl.in[0] = over(a, rows, size, size, 1);
  kl.in[1] = over(b, rows, 0, size, 1);
  kl.in[3] = over(c, rows, size, size, 1);
  kl.has_free_bits = false;
  kl.free_bits = 0;
  kl.form = kl.prior_form = form;
  kl.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  kl.gradients[1] = gradient(kind, g[1], rows, size);
  kl.gradients[3] = gradient(Gradient::kEach, g[2], rows, size);
  kernels().gaussian_kl(kl);
  weighted(kl);
  kernels().gaussian_kl(kl);

  SampleArgs sample;
  sample.parallel_for = on_threads;
  sample.compute = DType::kFloat32;
  sample.rows = {rows, size};
  sample.n_samples = 3;
  sample.in[0] = over(a, rows, size, size, 1);
  sample.in[1] = over(b, rows, 0, size, 1);
  sample.noise = {1, 2, 3};
  sample.temperature = 1;
  sample.form = sample.prior_form = form;
  sample.has_free_bits = false;
  sample.free_bits = 0;
  sample.z = over(z, rows, size, size, 1);
  sample.z_sample_stride = rows * size;
  sample.kl = out.data();
  kernels().rsample_kl_fwd(sample);
  sample.dz = sample.z;
  sample.dz_sample_stride = rows * size;
  sample.dkl = over(out, rows, 1, size, 0);
  sample.gradients[0] = gradient(Gradient::kEach, g[0], rows, size);
  sample.gradients[1] = gradient(kind, g[1], rows, size);
  kernels().rsample_kl_bwd(sample);

  SampleLogProbArgs densities;
  static_cast<SamplerArgs&>(densities) = sample;
  densities.path = true;
  std::vector<float> of_q(static_cast<size_t>(3 * rows)), of_p(static_cast<size_t>(3 * rows));
  densities.log_q = of_q.data();
  densities.log_p = of_p.data();
  kernels().rsample_log_prob_fwd(densities);
  densities.dlog_q = over(of_q, rows, 1, size, 0);
  densities.dlog_p = over(of_p, rows, 1, size, 0);
  densities.dlog_q_sample_stride = densities.dlog_p_sample_stride = rows;
  kernels().rsample_log_prob_bwd(densities);

  NormalArgs normal;
  normal.parallel_for = on_threads;
  normal.n_samples = rows;
  normal.n = size;
  normal.noise = {1, 2, 3};
  normal.out = over(a, rows, size, size, 1);
  kernels().standard_normal(normal);

  const float factor = 0.5f;
  RescaleArgs rescale;
  rescale.parallel_for = on_threads;
  rescale.factor = &factor;
  rescale.factor_dtype = DType::kFloat32;
  rescale.add(a.data(), DType::kFloat32, rows * size);
  rescale.add(b.data(), DType::kFloat32, size);
  kernels().rescale(rescale);
}

// Pairs of a datum and a component, one set of these for all data or one a datum, and of two points.
static void run_pairs(int64_t rows, int64_t components, int64_t dims, bool own) {
  const int64_t sets = own ? rows : 1, n = sets * components;
  std::vector<float> z(rows * dims, 0.5f), mu(n * dims, 0.25f), ones(n * dims, 1.0f), zeros(n * dims, 0.0f);
  std::vector<float> values(rows), marginals(rows * dims), upstream(rows * dims, 1.0f);
  std::vector<float> dz(rows * dims), dmu(n * dims), drate(n * dims), dlog_rate(n * dims), dlog_weight(n);
  MixtureArgs args;
  args.parallel_for = on_threads;
  args.compute = DType::kFloat32;
  args.rows = rows;
  args.components = components;
  args.dims = dims;
  args.own_components = args.own_weights = own;
  args.per_dim = true;
  args.z = z.data();
  args.mu = mu.data();
  args.rate = ones.data();
  args.log_rate = args.log_weight = zeros.data();
  args.log_prob = values.data();
  args.marginals = marginals.data();
  kernels().gaussian_mixture_fwd(args);
  args.dlog_prob = args.dmarginals = upstream.data();
  args.dz = dz.data();
  args.dmu = dmu.data();
  args.drate = drate.data();
  args.dlog_rate = dlog_rate.data();
  args.dlog_weight = dlog_weight.data();
  kernels().gaussian_mixture_bwd(args);

  float value;
  const double constants[] = {0.5, 2.0};
  MmdArgs mmd;
  mmd.parallel_for = on_threads;
  mmd.compute = DType::kFloat32;
  mmd.points[0] = rows;
  mmd.points[1] = n;
  mmd.dims = dims;
  mmd.of[0] = z.data();
  mmd.of[1] = mu.data();
  mmd.exponential = own;
  mmd.unbiased = true;
  mmd.constants = constants;
  mmd.n_constants = own ? 1 : 2;
  mmd.value = &value;
  mmd.gradients[0] = dz.data();
  mmd.gradients[1] = dmu.data();
  kernels().mmd(mmd);
}

// Pixels whose channels come last, or first.
static void run_logistics(int64_t outer, int64_t inner, bool first) {
  constexpr int64_t kChannels = 3, kComponents = 5;
  const auto table = [&](std::vector<float>& numbers, int64_t channels, int64_t components) {
    const int64_t all = channels * components;
    numbers.resize(outer * inner * all, 0.25f);
    const int64_t step = first ? inner : 1;
    return StridedTable{numbers.data(), inner * all, first ? 1 : all, components * step, step};
  };
  std::vector<float> numbers[9], values(outer * inner);
  LogisticMixtureArgs args;
  args.parallel_for = on_threads;
  args.compute = DType::kFloat32;
  args.outer = outer;
  args.inner = inner;
  args.channels = kChannels;
  args.components = kComponents;
  args.logits = table(numbers[0], 1, kComponents);
  args.mean = table(numbers[1], kChannels, kComponents);
  args.log_scale = table(numbers[2], kChannels, kComponents);
  args.coefficients = table(numbers[3], kChannels, kComponents);
  args.x = table(numbers[4], kChannels, 1);
  args.half_width = 1.0 / 255;
  args.min_log_scale = -7;
  args.low = -0.999;
  args.high = 0.999;
  args.density_below = 0;
  args.log_prob = values.data();
  kernels().logistic_mixture(args);
  args.dlogits = table(numbers[5], 1, kComponents);
  args.dmean = table(numbers[6], kChannels, kComponents);
  args.dlog_scale = table(numbers[7], kChannels, kComponents);
  args.dcoefficients = table(numbers[8], kChannels, kComponents);
  kernels().logistic_mixture(args);
}

int main(int argc, char**) {
  twice = argc > 1;
  const auto all = [] {
    for (const Gradient::Kind kind : {Gradient::kEach, Gradient::kRow, Gradient::kPartial})
      for (const auto& [rows, size] : {std::pair<int64_t, int64_t>{3, 40000}, {4000, 7}, {1, 100000}, {60, 1000}})
        run(rows, size, kind);
    for (const bool own : {false, true}) {
      run_pairs(200, 70, 20, own);
      run_logistics(3, 1000, own);
    }
  };
  std::thread other(all);
  all();
  other.join();
  std::printf("ran on %s\n", kernels().isa);
}
