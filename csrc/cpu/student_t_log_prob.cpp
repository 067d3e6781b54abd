// log p(x|z) of Student's t, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void student_t_log_prob(const StudentTArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    run_density<T>(args, StudentTDensity<T>{args.log_scale, static_cast<T>(args.x_scale)}, 4.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
