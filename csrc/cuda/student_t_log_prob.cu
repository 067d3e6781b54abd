// log p(x|z) of Student's t, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: without a gradient of x.
struct StudentTTraits : DensityTraits<4, 3> {
  static constexpr bool kBytes = false, kFloat16 = false;
  static constexpr int kLoad = 2 + kMiddling;
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k == 0 || k == 3; }
  static constexpr bool by_pass(bool even) { return even; }
};

}  // namespace

void student_t_log_prob(const StudentTArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, StudentTTraits>("student_t_log_prob", args,
                                   StudentTDensity<T>{args.log_scale, static_cast<T>(args.x_scale)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
