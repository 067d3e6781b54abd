// negative_binomial_log_prob whose mean is a softmax's share of a library, with what the softmax is made of
// (softmax.cpp).
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void negative_binomial_of_shares(const NegativeBinomialSharesArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const CountForm<T> form{true, args.log_theta, static_cast<T>(args.eps)};
    args.in[2] ? run_density<T>(args, NegativeBinomialSharesDensity<T, true>{{form}}, 6.0)
               : run_density<T>(args, NegativeBinomialSharesDensity<T, false>{{form}}, 4.0);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
