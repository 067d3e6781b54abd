// log p(x) of a Poisson variable by its rate, and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks.
struct PoissonTraits : DensityTraits<2, 1> {
  static constexpr bool by_pass(bool even) { return even; }
};

}  // namespace

void poisson_log_prob(const PoissonArgs& args) {
  in_storage(args, false, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    run_density<S, PoissonTraits>("poisson_log_prob", args, PoissonDensity<T>{args.log_rate, static_cast<T>(args.eps)});
  });
}

}  // namespace cuda
}  // namespace vae_fast
