// negative_binomial_log_prob whose mean is a softmax's share of a library, with what the softmax is made of
// (softmax.cu).
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void negative_binomial_of_shares(const NegativeBinomialSharesArgs& args) {
  in_storage(args, true, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    const CountForm<T> form{true, args.log_theta, static_cast<T>(args.eps)};
    const auto run = [&](auto density) {
      run_density<S, DensityTraits<>>("negative_binomial_of_shares", args, density);
    };
    args.in[2] ? run(NegativeBinomialSharesDensity<T, true>{{form}})
               : run(NegativeBinomialSharesDensity<T, false>{{form}});
  });
}

}  // namespace cuda
}  // namespace vae_fast
