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
  static constexpr int kLoad = kMiddling;
  Form scale;
  T x_scale;
  bool weighted;

  bool plain() const { return !weighted; }
  Even even() const { return {scale, x_scale, false}; }
  static constexpr __device__ __forceinline__ bool always(int k) { return k < 3; }
  // Which of them are dense in every call with even chunks.
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k != 1; }
  // Which of them have the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < 2; }

  // in: mean, logvar, x, weight; out: log p, dmean, dlogvar, dx.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    T difference = in[2] * x_scale - in[0], r = in[1];
    if constexpr (!kEven) {
      if (weighted) {
        difference = select(in[3] == T(0), T(0), difference);
        r = select(in[3] == T(0), T(1), r);
        g = g * in[3];
      }
    }
    const GaussianTerm<T> term = gaussian(difference, scale.clamp(r), scale);
    const T slope = g * term.dmean;
    out[0] = term.log_prob;
    out[1] = slope;
    out[2] = scale.inside(in[1], g * term.draw);
    if constexpr (!kEven) {
      if (weighted) out[0] = out[0] * in[3];
      out[3] = -slope * x_scale;
    }
  }
};

}  // namespace

void gaussian_log_prob(const GaussianArgs& args) {
  in_storage({&args.mean, &args.logvar}, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_scale<T>(args.form, [&](auto scale) {
      const GaussianOp<T, decltype(scale)> op{scale, static_cast<T>(args.x_scale), static_cast<bool>(args.weight)};
      run_density<S>("gaussian_log_prob", args, op, {&args.mean, &args.logvar, &args.x, &args.weight},
                     {&args.dmean, &args.dlogvar, &args.dx});
    });
  });
}

}  // namespace cuda
}  // namespace vae_fast
