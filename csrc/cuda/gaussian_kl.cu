// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

// Even chunks: a prior has both its arguments, or none.
template <class T, class Form, bool kPrior>
struct KLTraits : DensityTraits<kPrior ? 4 : 2, kPrior ? 4 : 2> {
  static constexpr bool kPlain = std::is_same_v<Form, SigmaForm<T, true>>;
  static constexpr int kLoad = kPrior ? 2 : kPlain ? 0 : kMiddling;
  static constexpr __host__ __device__ __forceinline__ bool dense(int k) { return k < 2; }
  static constexpr bool by_pass(bool even) { return even && !kPrior && kPlain; }
};

}  // namespace

void gaussian_kl(const KLArgs& args) {
  in_storage(args, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_form<S>(args.form, [&](auto form) {
      using Form = decltype(form);
      const T floor = static_cast<T>(args.free_bits);
      if (args.in[3]) {
        run_density<S, KLTraits<T, Form, true>>("gaussian_kl", args,
                                                KLDensity<T, Form, true>{form, floor, args.has_free_bits});
      } else {
        run_density<S, KLTraits<T, Form, false>>("gaussian_kl", args,
                                                 KLDensity<T, Form, false>{form, floor, args.has_free_bits});
      }
    });
  });
}

}  // namespace cuda
}  // namespace vae_fast
