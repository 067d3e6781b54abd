// log p(x|z) of a Laplace variable, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: without a gradient of x.
struct LaplaceTraits : DensityTraits<3, 2> {
  static constexpr int kLoad = kMiddling;
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k != 1; }
  static constexpr bool by_pass(bool even) { return even; }
};

}  // namespace

void laplace_log_prob(const LaplaceArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, LaplaceTraits>("laplace_log_prob", args,
                                  LaplaceDensity<T>{args.log_scale, static_cast<T>(args.x_scale)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
