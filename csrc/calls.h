// From an operator's arguments to its kernel's: what all densities have, and what both samplers have. All checks are
// made here, before a kernel runs.
#pragma once

#include <array>
#include <limits>
#include <new>
#include <tuple>

#include "checks.h"

namespace vae_fast {

template <class Args>
void run(void (*kernel)(const Args&), const Args& args) {
  try {
    kernel(args);
  } catch (const std::bad_alloc&) {
    throw std::runtime_error("can't allocate memory for the partial sums of a call");
  }
}

// ---- densities -------------------------------------------------------------------------------------------

enum Reduction { kNone, kSum, kMean };

struct DensityOptions {
  int64_t event_ndim, reduction;
  double scale;
};

// Sums in the dtype of a result: a copy where that is float32, and they were computed in float64.
inline Tensor in_dtype(const Tensor& sums, DType result) {
  const Operand own("sums", sums);
  if (own.dtype != DType::kFloat64 || result == DType::kFloat64) return sums;
  Tensor copy = empty(own.size, own.ndim, compute_type(DType::kFloat32));
  tensors::copy_(copy, sums);
  return copy;
}

// The tensor that a density's sums go to.
class Sums {
 public:
  // Fills what all densities have in common. With an upstream gradient there are no sums.
  // `like` is what says in which order event dims are walked.
  Sums(OnDevice& device, DensityCall& args, Space& space, const Arithmetic& arithmetic, const Operand& like,
       const Operand& weight, const Operand& upstream, const DensityOptions& options) {
    check_event_ndim(options.event_ndim, space);
    check_code("reduction", options.reduction, 3);
    const int data_ndim = space.ndim - static_cast<int>(options.event_ndim);
    const bool each = options.reduction == kNone;
    check_floating(upstream);
    check_like(upstream, space.size, each ? data_ndim : 0);
    device.equip(args);
    args.compute = arithmetic.compute;
    args.scale = options.scale;
    args.divisor = options.reduction == kMean ? static_cast<double>(space.numel(0, data_ndim)) : 1.0;
    args.out = nullptr;
    if (!upstream) {
      sums_ = empty(space.size, each ? data_ndim : 0, compute_type(args.compute));
      args.out = data_of(sums_);
      // Where float32 parameters meet float64 data.
      narrower_ = args.compute == DType::kFloat64 && arithmetic.result != DType::kFloat64;
    }
    space.set_event(each ? data_ndim : 0, like);
    args.rows = space.rows();
    args.weight = space.view(weight);
    if (upstream) args.upstream = space.leading_view(upstream);
  }

  // After the kernel has run.
  Tensor finish() const { return narrower_ ? in_dtype(sums_, DType::kFloat32) : sums_; }

 private:
  Tensor sums_;
  bool narrower_ = false;
};

// The tensors of a density's call: its operands in order, the weight after them, and which gradients are asked for.
// Without an upstream gradient it is a forward pass.
template <size_t inputs>
struct DensityTensors {
  OnDevice device;
  Operand operands[inputs + 1];
  Operand upstream;
  bool needs[inputs + 1] = {};
  Operand packed = {};  // the first two operands are its halves along a dim
  int64_t packed_dim = 0;
};

// Gradients of a forward pass, for an upstream gradient of 1, on their way to a backward pass that may leave them as
// they are, or scale them (DensityCall::kept): one an operand, undefined where there is none. An operator's signature
// has no place for them. They go beside it, on the thread that makes the call.
class KeptGradients {
 public:
  explicit KeptGradients(const OptionalTensor* of_operands) { current_ = of_operands; }
  KeptGradients(const KeptGradients&) = delete;
  ~KeptGradients() { current_ = nullptr; }

  // Those of a density's call, where there is one for each gradient that is asked for, like the operand; else null.
  template <size_t inputs>
  static const OptionalTensor* take(const DensityTensors<inputs>& tensors) {
    const OptionalTensor* kept = current_;
    current_ = nullptr;
    for (size_t k = 0; kept && k <= inputs; ++k) {
      if (!tensors.needs[k] || !tensors.operands[k]) continue;
      const Operand &operand = tensors.operands[k], gradient("gradient", kept[k]);
      const bool alike = gradient && gradient.dtype == operand.dtype && gradient.ndim == operand.ndim &&
                         std::equal(operand.size, operand.size + operand.ndim, gradient.size);
      if (!alike) return nullptr;
    }
    return kept;
  }

 private:
  static inline thread_local const OptionalTensor* current_ = nullptr;
};

// Whether a call's elements are walked in C order, whatever their strides: as a CSR matrix has them.
template <class Args>
bool in_c_order(const Args& args) {
  if constexpr (Args::kCounts >= 0) return args.sparse.starts;
  return false;
}

// Runs a density's kernel: its sums, and the gradients in the operands' order.
template <class Args, size_t inputs, size_t... I>
std::array<Tensor, inputs + 2> run_density(void (*kernel)(const Args&), Args& args, DensityTensors<inputs>& tensors,
                                           const DensityOptions& options, std::index_sequence<I...>) {
  const auto& operands = tensors.operands;
  const Operand& anchor = operands[0];
  const Operands parameters(operands, Args::kParameters), others(operands + Args::kParameters, operands + inputs + 1);
  check_floating(parameters);
  for (size_t k = Args::kParameters; k <= inputs; ++k)
    if (static_cast<int>(k) != Args::kCounts) check_no_integers(operands[k]);
  check_packed(tensors.packed, tensors.packed_dim, operands[0], operands[1], tensors.needs[0], tensors.needs[1]);
  Space space(operands);
  const Sums sums(tensors.device, args, space, arithmetic_of(parameters, others), in_c_order(args) ? Operand() : anchor,
                  operands[inputs], tensors.upstream, options);
  const PackedGradient whole(tensors.packed, tensors.packed_dim);
  const OptionalTensor* kept = KeptGradients::take(tensors);
  GradientOut gradients[] = {
      GradientOut(tensors.needs[I], operands[I], anchor, space, args.compute, kept ? kept[I] : whole.half(I))...};
  for (size_t k = 0; k < inputs; ++k) {
    args.in[k] = space.view(operands[k]);
    args.gradients[k] = gradients[k].spec();
  }
  args.dweight = gradients[inputs].spec();
  args.kept = kept != nullptr;
  run(kernel, args);
  std::array<Tensor, inputs + 2> results{sums.finish(), gradients[I].finish()...};
  if (whole) {
    results[1] = whole.whole();
    results[2] = nothing(anchor);
  }
  return results;
}

template <class Args, size_t inputs>
std::array<Tensor, inputs + 2> run_density(void (*kernel)(const Args&), Args& args, DensityTensors<inputs>& tensors,
                                           const DensityOptions& options) {
  static_assert(Args::kInputs == inputs, "an operand is missing");
  return run_density(kernel, args, tensors, options, std::make_index_sequence<inputs + 1>());
}

// What the raw operator of a direction returns: sums and gradients but the weight's, or all gradients.
template <size_t first, size_t n, size_t... I>
auto all_but_one(const std::array<Tensor, n>& results, std::index_sequence<I...>) {
  return std::make_tuple(results[first + I]...);
}
template <size_t n>
auto forward(const std::array<Tensor, n>& results) {
  return all_but_one<0>(results, std::make_index_sequence<n - 1>());
}
template <size_t n>
auto backward(const std::array<Tensor, n>& results) {
  return all_but_one<1>(results, std::make_index_sequence<n - 1>());
}

inline SigmaOptions form_of(const char* name, int64_t param, double eps, double low, double high, int64_t bounds_grad) {
  check_code(name, param, 5);
  check_code("bounds_grad", bounds_grad, 2);
  // No bounds, as graphs have it: an AOTInductor package cannot hold an infinity.
  constexpr double kLargest = std::numeric_limits<double>::max(), kInfinity = std::numeric_limits<double>::infinity();
  if (low == -kLargest) low = -kInfinity;
  if (high == kLargest) high = kInfinity;
  return {static_cast<int>(param), eps, low, high, bounds_grad == 1};
}

// ---- samplers --------------------------------------------------------------------------------------------

inline NoiseOptions noise_of(int64_t seed, const OptionalTensor& seed_tensor, int64_t offset, int64_t first_sample) {
  NoiseOptions noise{static_cast<uint64_t>(seed), static_cast<uint64_t>(offset), static_cast<uint64_t>(first_sample)};
  if (seed_tensor) {
    check_seed(*seed_tensor);
    read_seed(*seed_tensor, noise);
  }
  return noise;
}

// A shape of samples of something.
inline std::vector<int64_t> sampled(const char* what, const std::vector<int64_t>& sample_shape, const int64_t* size,
                                    int ndim) {
  std::vector<int64_t> shape(sample_shape);
  shape.insert(shape.end(), size, size + ndim);
  VF_CHECK(shape.size() <= kMaxDims, what, " has more than ", kMaxDims, " dims");
  check_elements(what, shape.data(), static_cast<int>(shape.size()));
  return shape;
}

inline int64_t product(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (const int64_t size : shape) n *= size;
  return n;
}

// The options that all samplers have, and those of a prior.
struct SampleOptions {
  const std::vector<int64_t>& sample_shape;
  NoiseOptions noise;
  const OptionalTensor& eps;
  SigmaOptions form;
  std::optional<int64_t> event_ndim = std::nullopt;  // none: no rows, as rsample has none
  SigmaOptions prior_form = {};
};

// What both directions of all of them have.
template <class Args>
struct Sampling {
  OnDevice device;
  Operand operands[4];  // mu, logvar, prior_mu, prior_logvar
  Space space;
  Arithmetic arithmetic;
  std::vector<int64_t> z_shape;
  Args args;

  Sampling(const Tensor& mu, const Tensor& logvar, const SampleOptions& options,
           const OptionalTensor& prior_mu = std::nullopt, const OptionalTensor& prior_logvar = std::nullopt)
      : device(mu),
        operands{{"mu", mu}, {"logvar", logvar}, {"prior_mu", prior_mu}, {"prior_logvar", prior_logvar}},
        space(Operands(operands, 2)),
        arithmetic(arithmetic_of(operands)),
        z_shape(sampled("z", options.sample_shape, space.size, space.ndim)) {
    check_floating(operands);
    const Space all(operands);
    VF_CHECK(all.ndim == space.ndim && std::equal(all.size, all.size + all.ndim, space.size),
             "the prior does not broadcast to the shape of mu and logvar, ", shape_name(space.size, space.ndim));
    if (options.event_ndim) check_event_ndim(*options.event_ndim, space);
    // Without set_event: the noise's order is that of μ's dims, wherever they are in memory.
    space.event = options.event_ndim ? space.ndim - static_cast<int>(*options.event_ndim) : 0;
    device.equip(args);
    args.compute = arithmetic.compute;
    args.rows = space.rows();
    args.n_samples = product(options.sample_shape);
    for (int k = 0; k < 4; ++k) args.in[k] = space.view(operands[k]);
    args.noise = options.noise;
    args.eps = of_sample("noise", options.eps, kept_[0], args.eps_sample_stride);
    args.form = options.form;
    args.prior_form = options.prior_form;
  }

  // Of mu's and logvar's dtype: a prior takes no part in it.
  Tensor make_z() {
    const Operand& mu = operands[0];
    const bool like_mu = samples() == 0 && space.ndim == mu.ndim && std::equal(mu.size, mu.size + mu.ndim, space.size);
    const int32_t type = scalar_type_of(arithmetic_of(Operands(operands, 2)).result);
    Tensor z = like_mu ? empty_like(mu, type) : empty(z_shape.data(), static_cast<int>(z_shape.size()), type);
    Operand own("z", z);
    skip_samples(own);
    args.z = space.view(own);
    args.z_sample_stride = space.numel();
    return z;
  }

  void set_dz(const OptionalTensor& dz) { args.dz = of_sample("dz", dz, kept_[1], args.dz_sample_stride); }

  void set_dkl(const Operand& dkl) {
    check_floating(dkl);
    check_like(dkl, space.size, space.event);
    if (dkl) args.dkl = space.leading_view(dkl);
  }

  // One number a row of every sample.
  Tensor make_sums() const { return empty(z_shape.data(), samples() + space.event, compute_type(args.compute)); }
  // The gradient of such a result.
  View of_sums(const char* name, const OptionalTensor& tensor, int64_t& sample_stride) {
    return of_sample(name, tensor, kept_[kept_of_sums_++], sample_stride, true);
  }

  // The gradients of the first `inputs` operands, by a kernel.
  template <size_t inputs>
  auto differentiate(void (*kernel)(const Args&), const bool (&needs)[inputs],
                     const OptionalTensor& packed = std::nullopt, int64_t packed_dim = 0) {
    return differentiate(kernel, needs, Operand("packed", packed), packed_dim, std::make_index_sequence<inputs>());
  }

 private:
  int samples() const { return static_cast<int>(z_shape.size()) - space.ndim; }

  // The dims of one sample.
  void skip_samples(Operand& own) const {
    own.ndim -= samples();
    own.size += samples();
    own.stride += samples();
  }

  // A view of a tensor of z's shape, or of its sums'. One that it points into, if it is not the tensor itself, is kept
  // in `kept`.
  View of_sample(const char* name, const OptionalTensor& tensor, Tensor& kept, int64_t& sample_stride,
                 bool sums = false) const {
    sample_stride = 0;
    if (!tensor) return {};
    Operand own(name, *tensor);
    check_floating(own);
    check_like(own, z_shape.data(), sums ? samples() + space.event : static_cast<int>(z_shape.size()));
    const auto over_samples = [&] {
      View view;
      for (int d = 0; d < samples(); ++d) view.append(own.size[d], own.stride[d]);
      return view;
    };
    // Of no elements there is nothing to read, at whatever strides; of no samples the sums are 0, and still multiplied.
    const bool none = own.numel() == 0;
    if (!none && over_samples().ndim > 1) {
      kept = contiguous(own);
      own = Operand(name, kept);
    }
    if (!none) sample_stride = over_samples().stride[0];
    skip_samples(own);
    return sums ? space.leading_view(own) : space.view(own);
  }

  template <size_t inputs, size_t... I>
  auto differentiate(void (*kernel)(const Args&), const bool (&needs)[inputs], const Operand& packed,
                     int64_t packed_dim, std::index_sequence<I...>) {
    const Operand& mu = operands[0];
    check_packed(packed, packed_dim, mu, operands[1], needs[0], needs[1]);
    const PackedGradient whole(packed, packed_dim);
    GradientOut gradients[] = {GradientOut(needs[I], operands[I], mu, space, args.compute, whole.half(I))...};
    for (size_t k = 0; k < inputs; ++k) args.gradients[k] = gradients[k].spec();
    run(kernel, args);
    std::array<Tensor, inputs> results{gradients[I].finish()...};
    if (whole) {
      results[0] = whole.whole();
      results[1] = nothing(mu);
    }
    return std::make_tuple(results[I]...);
  }

  Tensor kept_[4];
  int kept_of_sums_ = 2;
};

}  // namespace vae_fast
