// log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void gaussian_log_prob(const GaussianArgs& args) {
  in_dtype_and_form(args.compute, args.form, [&](auto number, auto form) {
    using T = decltype(number);
    run_density<T>(args, GaussianDensity<T, decltype(form)>{form, static_cast<T>(args.x_scale)}, 1.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
