// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {

void gaussian_kl(const KLArgs& args) {
  in_dtype_and_scale(args.is_double, args.form, [&](auto number, auto form) {
    using T = decltype(number);
    using Form = decltype(form);
    const auto run = [&](auto op) {
      run_density<T>(args, op, 1.5, {&args.mu, &args.logvar, &args.prior_mu, &args.prior_logvar},
                     {&args.dmu, &args.dlogvar, &args.dprior_mu, &args.dprior_logvar});
    };
    const T floor = static_cast<T>(args.free_bits);
    args.prior_logvar ? run(KLDensity<T, Form, true>{form, floor, args.has_free_bits})
                      : run(KLDensity<T, Form, false>{form, floor, args.has_free_bits});
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
