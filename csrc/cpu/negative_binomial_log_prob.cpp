// log p(x) of a negative binomial by its mean, zero-inflated where it has logits of that, and its gradients, in one
// pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void negative_binomial_log_prob(const NegativeBinomialArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const CountForm<T> form{args.log_mean, args.log_theta, static_cast<T>(args.eps)};
    args.in[2] ? run_density<T>(args, NegativeBinomialDensity<T, true>{form}, 6.0)
               : run_density<T>(args, NegativeBinomialDensity<T, false>{form}, 4.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
