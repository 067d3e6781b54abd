// negative_binomial_log_prob whose mean is a softmax's share of a library, with what the softmax is made of
// (softmax.cu).
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {

void negative_binomial_of_shares(const NegativeBinomialSharesArgs& args) {
  // Of any storage type: kernels for each would be long to compile, and the softmax around them reads as much again.
  const auto in_type = [&](auto number) {
    using T = decltype(number);
    const CountForm<T> form{true, args.log_theta, static_cast<T>(args.eps)};
    const auto run = [&](auto density) {
      run_density<Any<T>, DensityTraits<>>("negative_binomial_of_shares", args, density);
    };
    args.in[2] ? run(NegativeBinomialSharesDensity<T, true>{{form}})
               : run(NegativeBinomialSharesDensity<T, false>{{form}});
  };
  args.compute == DType::kFloat64 ? in_type(0.0) : in_type(0.0f);
}

}  // namespace cuda
}  // namespace vae_fast
