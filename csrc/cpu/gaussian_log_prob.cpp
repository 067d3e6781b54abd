// log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {

void gaussian_log_prob(const GaussianArgs& args) {
  in_dtype_and_scale(args.is_double, args.form, [&](auto number, auto form) {
    using T = decltype(number);
    const GaussianDensity<T, decltype(form)> op{form, static_cast<T>(args.x_scale)};
    run_density<T>(args, op, 1.0, {&args.mean, &args.logvar, &args.x}, {&args.dmean, &args.dlogvar, &args.dx});
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
