// log p(x) of a negative binomial by its mean, zero-inflated where it has logits of that, and its gradients, in one
// pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// As many registers as there are.
struct CountTraits : DensityTraits<> {
  static constexpr int kLoad = 2;
};

}  // namespace

void negative_binomial_log_prob(const NegativeBinomialArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    const CountForm<T> form{args.log_mean, args.log_theta, static_cast<T>(args.eps)};
    const auto run = [&](auto density) { run_density<S, CountTraits>("negative_binomial_log_prob", args, density); };
    args.in[2] ? run(NegativeBinomialDensity<T, true>{form}) : run(NegativeBinomialDensity<T, false>{form});
  });
}

}  // namespace cuda
}  // namespace vae_fast
