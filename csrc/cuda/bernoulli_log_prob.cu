// log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

// With even chunks: without weights, and without a gradient of x.
template <class T, bool kProbs, bool even_chunks = false>
struct BernoulliOp {
  using Number = T;
  using Even = BernoulliOp<T, kProbs, sizeof(T) == 4>;
  static constexpr bool kEven = even_chunks;
  static constexpr int kInputs = kEven ? 2 : 3, kSlots = kEven ? 2 : 3;
  // Whether there are kernels of their own for the value, for the gradients, and for both.
  static constexpr bool kByPass = std::is_same_v<T, float>;
  // Registers that a kernel needs (kResident).
  static constexpr int kLoad = 0;
  T x_scale;
  bool weighted, dweight;

  bool plain() const { return !weighted; }
  Even even() const { return {x_scale, false, false}; }
  // Which operands are there in every call.
  static constexpr __device__ __forceinline__ bool always(int k) { return k < 2; }
  // Which of them are dense in every call with even chunks.
  static constexpr __host__ __device__ __forceinline__ bool dense(int) { return true; }
  // Which of them have the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < 1; }

  // in: logits, x, weight; out: log p, dlogits, dx.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    const T y = in[0], t = in[1] * x_scale;
    const BernoulliTerm<T> term = kProbs ? bernoulli_of_probs(y, t) : bernoulli(y, t);
    if constexpr (kEven) {
      out[0] = term.log_prob;
      out[1] = g * term.slope;
    } else {
      const Weighted<T> w(g, in[2], weighted, dweight);
      out[0] = w.value(term.log_prob);
      out[1] = w.gradient(w.with * term.slope);
      out[2] = w.gradient(w.with * term.dt * x_scale);
    }
  }
};

}  // namespace

void bernoulli_log_prob(const BernoulliArgs& args) {
  const Storage storage = storage_of(args, {&args.logits}, {&args.x}, {&args.dlogits, &args.dx});
  storage.call([&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    const auto run = [&](auto op) {
      run_density<S>("bernoulli_log_prob", args, op, {&args.logits, &args.x, &args.weight},
                     {&args.dlogits, &args.dx});
    };
    const T x_scale = static_cast<T>(args.x_scale);
    const bool weighted = static_cast<bool>(args.weight), dweight = args.dweight.kind != Gradient::kNone;
    args.probs ? run(BernoulliOp<T, true>{x_scale, weighted, dweight})
               : run(BernoulliOp<T, false>{x_scale, weighted, dweight});
  });
}

}  // namespace cuda
}  // namespace vae_fast
