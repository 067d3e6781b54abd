// log p(x|z) of Student's t, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void student_t_log_prob(const StudentTArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, DensityTraits<>>("student_t_log_prob", args,
                                    StudentTDensity<T>{args.log_scale, static_cast<T>(args.x_scale)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
