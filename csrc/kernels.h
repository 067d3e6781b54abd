// The kernels as ops.cpp calls them: their arguments, and a table of them, one per instruction set of a CPU, or one for
// GPUs. Plain C++, without PyTorch.
#pragma once

#include "views.h"

namespace vae_fast {

// Calls body(context, first, last) on ranges that make up [0, n), on several threads where n is above `grain`.
using Body = void (*)(void* context, int64_t first, int64_t last);
using ParallelFor = void (*)(int64_t n, int64_t grain, Body body, void* context);

// What a GPU's kernels need of a call: its stream, memory that they may use until the call's last kernel has run, and
// an int that is 0 whenever no kernel of the stream is running.
struct Device {
  void* stream = nullptr;
  virtual void* scratch(int64_t bytes) = 0;
  virtual int* ticket() = 0;

 protected:
  ~Device() = default;
};

// Rows of equal size, one after the other in C order. A density sums over each; for "sum" and "mean" there is one row.
struct Rows {
  int64_t count;
  int64_t size;
};

// Where a gradient goes, and how it gets the shape of its operand.
struct Gradient {
  enum Kind : uint8_t {
    kNone,
    kEach,     // one value an element: `view` is over the elements
    kRow,      // one a row
    kPartial,  // any other: every unit of work sums into an array of its own, and the arrays are added in order
  };
  Kind kind = kNone;
  View view;          // kEach: over the elements; else over the operand's own elements, in C order
  View index;         // kPartial: element → position in the operand's own C order; no data
  int64_t numel = 0;  // of the operand
};

// σ from the second argument of a Gaussian, as sigma.h reads it.
struct SigmaOptions {
  int param;
  double eps, low, high;
  bool pass_gradient;  // what the bounds clamp has the gradient of the value at the bound
};

inline bool operator==(const SigmaOptions& a, const SigmaOptions& b) {
  return a.param == b.param && a.eps == b.eps && a.low == b.low && a.high == b.high &&
         a.pass_gradient == b.pass_gradient;
}

struct NoiseOptions {
  uint64_t seed, offset, first_sample;
  const int64_t* seed_on_device = nullptr;  // replaces the seed where it is not null
};

// What all densities have. `out` holds one value a row, null where only gradients are asked for; `upstream` is over
// the elements, or has no data where the upstream gradient is 1. The weight's gradient, which only a backward pass asks
// for, is the upstream gradient times the term of the operands as they are, at a weight of 0 too.
struct DensityCall {
  ParallelFor parallel_for = nullptr;  // on a CPU
  Device* device = nullptr;            // on a GPU
  DType compute;                       // float32 or float64
  Rows rows;
  View weight;
  View upstream;
  void* out;
  double scale;    // of the result
  double divisor;  // "mean": the number of data; else 1
  Gradient dweight;
  // Where gradients go there stand those of a forward pass, for an upstream gradient of 1: kept.h. Each is kEach, of
  // bfloat16 or float32.
  bool kept = false;
};

// And one of `inputs` operands, of which the first `parameters` decide the result's dtype: of a GPU's storage types
// they are of the main one, and the others may be bytes.
template <int inputs, int parameters>
struct DensityArgs : DensityCall {
  static constexpr int kInputs = inputs, kParameters = parameters;
  static constexpr int kCounts = -1;  // the operand that may be of wide integers
  View in[inputs];
  Gradient gradients[inputs];
};

// logits, x, pos_weight.
struct BernoulliArgs : DensityArgs<3, 1> {
  double x_scale;
  bool probs = false;  // the first operand is p, not its logits
};

// mean, logvar, x.
struct GaussianArgs : DensityArgs<3, 2> {
  double x_scale;
  SigmaOptions form;
};

// logits, x.
struct ContinuousBernoulliArgs : DensityArgs<2, 1> {
  double x_scale;
};

// loc, b, x.
struct LaplaceArgs : DensityArgs<3, 2> {
  double x_scale;
  bool log_scale;
};

// loc, sigma, df, x.
struct StudentTArgs : DensityArgs<4, 3> {
  double x_scale;
  bool log_scale;
};

// The elements of a table that are not 0, as a CSR matrix has them: those of row r are from starts[r] to starts[r + 1],
// in the order of their columns. Without starts it has none.
struct SparseRows {
  const void *starts = nullptr, *columns = nullptr;
  bool wide;  // these are of 64 bits; else of 32
  int64_t width;
  View values;
};

// Of counts, operand `counts`; or these in sparse form, and the operand is 0.
template <int inputs, int parameters, int counts>
struct CountArgs : DensityArgs<inputs, parameters> {
  static constexpr int kCounts = counts;
  SparseRows sparse;  // on a CPU
  double eps;
};

// mean, theta, zero_logits, x.
struct NegativeBinomialArgs : CountArgs<4, 3, 3> {
  bool log_mean, log_theta;
};

// mean's logits, theta, zero_logits, log_library, x, and of each row of the softmax the largest logit and the logarithm
// of its sum.
struct NegativeBinomialSharesArgs : CountArgs<7, 4, 4> {
  bool log_theta;
  Rows softmax;
};

// rate, x.
struct PoissonArgs : CountArgs<2, 1, 1> {
  bool log_rate;
};

// mu, logvar, prior_mu, prior_logvar.
struct KLArgs : DensityArgs<4, 4> {
  bool has_free_bits;
  double free_bits;
  SigmaOptions form, prior_form;
};

// softmax over each of contiguous rows, of compute dtype, as what it is made of: `top`, the largest logit of a row, and
// `log_sum`, log Σ e^(logit − top). softmax_bwd makes the gradient by the logarithms of the shares, in place, that by
// the logits: less each share of its row's sum, `total`.
struct SoftmaxArgs {
  ParallelFor parallel_for = nullptr;  // on a CPU
  Device* device = nullptr;            // on a GPU
  DType compute;
  Rows rows;
  const void* logits;
  void *top, *log_sum;
  const void* total = nullptr;
  void* gradient = nullptr;
};

// What all samplers have. Rows are those of mu: samples are a loop inside.
struct SamplerArgs {
  ParallelFor parallel_for = nullptr;  // on a CPU
  Device* device = nullptr;            // on a GPU
  DType compute;                       // float32 or float64
  Rows rows;
  int64_t n_samples;
  View in[4];  // mu, logvar, prior_mu, prior_logvar
  NoiseOptions noise;
  // ε itself, in the noise's place where it is there.
  View eps;
  int64_t eps_sample_stride;
  SigmaOptions form, prior_form;
  // Forward.
  View z;
  int64_t z_sample_stride;
  // Backward; a view without data is a gradient of 0.
  View dz;
  int64_t dz_sample_stride;
  Gradient gradients[4];  // of `in`
};

// rsample and rsample_kl; kl is null for rsample.
struct SampleArgs : SamplerArgs {
  double temperature;
  bool has_free_bits;
  double free_bits;
  void* kl;
  View dkl;
};

// rsample_log_prob: log q and log p, [samples, rows]; `path`: log q's gradient is that by z alone.
struct SampleLogProbArgs : SamplerArgs {
  bool path;
  void *log_q, *log_p;
  View dlog_q, dlog_p;
  int64_t dlog_q_sample_stride, dlog_p_sample_stride;
};

// Gradients of one call, as many as a density's forward pass makes, each dense in memory, of float32 or float64: in
// place times the one factor.
struct RescaleArgs {
  static constexpr int kMost = 4;
  ParallelFor parallel_for = nullptr;  // on a CPU
  Device* device = nullptr;            // on a GPU
  void* data[kMost];
  DType dtype[kMost];
  int64_t numel[kMost];
  int count = 0;
  const void* factor;
  DType factor_dtype;

  void add(void* gradient, DType type, int64_t n) {
    data[count] = gradient;
    dtype[count] = type;
    numel[count++] = n;
  }
};

struct NormalArgs {
  ParallelFor parallel_for = nullptr;  // on a CPU
  Device* device = nullptr;            // on a GPU
  int64_t n_samples, n;
  NoiseOptions noise;
  View out;  // over samples and elements
};

// A mixture of Gaussians: `components` of `dims` dims each, one set for all rows or one a row, and their weights, too.
// All in C order and of compute dtype: z [rows, dims], μ, 1/σ and −log σ [components, dims] or with rows before, log w.
// Forward, log_prob [rows] and, where per_dim, marginals [rows, dims]. Backward these are read; what has no upstream
// gradient, and what is not asked for, is null.
struct MixtureArgs {
  ParallelFor parallel_for = nullptr;
  Device* device = nullptr;
  DType compute;
  int64_t rows, components, dims;
  bool own_components, own_weights, per_dim;
  const void *z, *mu, *rate, *log_rate, *log_weight;
  void *log_prob, *marginals;
  const void *dlog_prob = nullptr, *dmarginals = nullptr;
  void *dz = nullptr, *dmu = nullptr, *drate = nullptr, *dlog_rate = nullptr, *dlog_weight = nullptr;
};

// The squared maximum mean discrepancy of two sets of points, x and y, [points, dims] in C order and of compute dtype:
// of the kernel Σ_s c/(c + d²) of their squared distances, or e^(−d²/c) of one c. It and the gradients that are asked
// for, of the points' own shapes; the others are null.
struct MmdArgs {
  ParallelFor parallel_for = nullptr;
  Device* device = nullptr;
  DType compute;
  int64_t points[2], dims;
  const void* of[2];
  bool exponential, unbiased;
  const double* constants;
  int64_t n_constants;
  void* value;
  void* gradients[2];
};

// A table over [outer, inner, channels, components] of any strides; without channels, or components, of a stride of 0.
struct StridedTable {
  void* data = nullptr;
  int64_t outer = 0, inner = 0, channel = 0, component = 0;
};

// A mixture of discretised logistics over the channels of each of outer × inner pixels. The tables are of compute
// dtype: logits [outer, inner, components], mean and log_scale [outer, inner, channels, components], coefficients of a
// channel's mean by those before it, of which there may be no table, x [outer, inner, channels] and the upstream
// gradient [outer, inner], 1 where there is none. The log-density, in C order, and the gradients that are asked for;
// the others have no data.
struct LogisticMixtureArgs {
  ParallelFor parallel_for = nullptr;
  Device* device = nullptr;
  DType compute;
  int64_t outer, inner, channels, components;
  StridedTable logits, mean, log_scale, coefficients, x, upstream;
  double half_width, min_log_scale, low, high, density_below;
  void* log_prob;
  StridedTable dlogits, dmean, dlog_scale, dcoefficients;

  bool gradients() const { return dlogits.data || dmean.data || dlog_scale.data || dcoefficients.data; }
};

// Every kernel, and what it takes.
#define VF_KERNELS(kernel)                                                                                          \
  kernel(bernoulli_log_prob, BernoulliArgs) kernel(gaussian_log_prob, GaussianArgs) kernel(gaussian_kl, KLArgs)     \
      kernel(continuous_bernoulli_log_prob, ContinuousBernoulliArgs) kernel(laplace_log_prob, LaplaceArgs)          \
          kernel(student_t_log_prob, StudentTArgs) kernel(negative_binomial_log_prob, NegativeBinomialArgs)         \
              kernel(poisson_log_prob, PoissonArgs) kernel(negative_binomial_of_shares, NegativeBinomialSharesArgs) \
                  kernel(softmax_fwd, SoftmaxArgs) kernel(softmax_bwd, SoftmaxArgs) kernel(rsample_fwd, SampleArgs) \
                      kernel(rsample_bwd, SampleArgs) kernel(rsample_kl_fwd, SampleArgs)                            \
                          kernel(rsample_kl_bwd, SampleArgs) kernel(rsample_log_prob_fwd, SampleLogProbArgs)        \
                              kernel(rsample_log_prob_bwd, SampleLogProbArgs) kernel(standard_normal, NormalArgs)   \
                                  kernel(rescale, RescaleArgs) kernel(gaussian_mixture_fwd, MixtureArgs)            \
                                      kernel(gaussian_mixture_bwd, MixtureArgs) kernel(mmd, MmdArgs)                \
                                          kernel(logistic_mixture, LogisticMixtureArgs)

struct Kernels {
  const char* isa;
#define VF_KERNEL(name, Args) void (*name)(const Args&);
  VF_KERNELS(VF_KERNEL)
#undef VF_KERNEL
};

// The table of the best instruction set of this processor that VAE_FAST_CPU_ISA allows.
const Kernels& kernels();

}  // namespace vae_fast
