// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace VF_ISA {

void gaussian_kl(const KLArgs& args) {
  in_dtype_and_form(args.compute, args.form, [&](auto number, auto form) {
    using T = decltype(number);
    using Form = decltype(form);
    const T floor = static_cast<T>(args.free_bits);
    args.in[3] ? run_density<T>(args, KLDensity<T, Form, true>{form, floor, args.has_free_bits}, 1.5)
               : run_density<T>(args, KLDensity<T, Form, false>{form, floor, args.has_free_bits}, 1.5);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
