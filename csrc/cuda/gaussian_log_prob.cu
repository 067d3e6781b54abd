// log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

// With even chunks: without weights, and without a gradient of x.
template <class T, class Form, bool even_chunks = false>
struct GaussianOp {
  using Number = T;
  using Even = GaussianOp<T, Form, sizeof(T) == 4>;
  static constexpr bool kEven = even_chunks;
  static constexpr int kInputs = kEven ? 3 : 4, kSlots = kEven ? 3 : 4;
  static constexpr bool kByPass = std::is_same_v<Form, Scale<T, true>> && sizeof(T) == 4;
  // Registers that a kernel needs (kResident).
  static constexpr int kLoad = std::is_same_v<Form, Scale<T, true>> ? kMiddling : 1;
  Form scale;
  T x_scale;
  bool weighted, dweight;

  bool plain() const { return !weighted; }
  Even even() const { return {scale, x_scale, false, false}; }
  static constexpr __device__ __forceinline__ bool always(int k) { return k < 3; }
  // Which of them are dense in every call with even chunks.
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k != 1; }
  // Which of them have the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < 2; }

  // in: mean, logvar, x, weight; out: log p, dmean, dlogvar, dx.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    const GaussianTerm<T> term = gaussian(in[2] * x_scale - in[0], scale.clamp(in[1]), scale);
    if constexpr (kEven) {
      out[0] = term.log_prob;
      out[1] = g * term.dmean;
      out[2] = scale.inside(in[1], g * term.draw);
    } else {
      const Weighted<T> w(g, in[3], weighted, dweight);
      const T slope = w.gradient(w.with * term.dmean);
      out[0] = w.value(term.log_prob);
      out[1] = slope;
      out[2] = w.gradient(scale.inside(in[1], w.with * term.draw));
      out[3] = -slope * x_scale;
    }
  }
};

}  // namespace

void gaussian_log_prob(const GaussianArgs& args) {
  const Storage storage =
      storage_of(args, {&args.mean, &args.logvar}, {&args.x}, {&args.dmean, &args.dlogvar, &args.dx});
  storage.call([&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_scale<S>(args.form, [&](auto scale) {
      const GaussianOp<T, decltype(scale)> op{scale, static_cast<T>(args.x_scale), static_cast<bool>(args.weight),
                                           args.dweight.kind != Gradient::kNone};
      run_density<S>("gaussian_log_prob", args, op, {&args.mean, &args.logvar, &args.x, &args.weight},
                     {&args.dmean, &args.dlogvar, &args.dx});
    });
  });
}

}  // namespace cuda
}  // namespace vae_fast
