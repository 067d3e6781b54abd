// log p(x) of a negative binomial by its mean, zero-inflated where it has logits of that, and its gradients, in one
// pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// As many registers as there are.
template <bool kInflated>
struct CountTraits : DensityTraits<kInflated ? 4 : 3, kInflated ? 3 : 2> {
  static constexpr bool kBytes = false, kFloat16 = false;
  static constexpr int kLoad = kInflated ? 3 : 2 + kMiddling;
  static constexpr __host__ __device__ __forceinline__ int operand(int k) { return k == 2 && !kInflated ? 3 : k; }
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k != 1; }
  static constexpr bool by_pass(bool even) { return even; }
};

}  // namespace

void negative_binomial_log_prob(const NegativeBinomialArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    const CountForm<T> form{args.log_mean, args.log_theta, static_cast<T>(args.eps)};
    const auto run = [&](auto inflated) {
      constexpr bool kInflated = decltype(inflated)::value;
      run_density<S, CountTraits<kInflated>>("negative_binomial_log_prob", args,
                                             NegativeBinomialDensity<T, kInflated>{form});
    };
    args.in[2] ? run(std::true_type()) : run(std::false_type());
  });
}

}  // namespace cuda
}  // namespace vae_fast
