// From a call's numbers to types: the dtype it computes in, and a form of σ that has nothing to branch on where it can.
#pragma once

#include "pack.h"

#include "../densities.h"
#include "../kernels.h"

namespace vae_fast {
namespace VF_ISA {

// Calls f with a float or a double to compute in.
template <class F>
VF_INLINE void in_dtype(DType compute, F&& f) {
  compute == DType::kFloat64 ? f(0.0) : f(0.0f);
}

// And with the call's form of σ.
template <class F>
VF_INLINE void in_dtype_and_form(DType compute, const SigmaOptions& options, F&& f) {
  in_dtype(compute, [&](auto number) {
    using E = decltype(number);
    const SigmaForm<E> form(options);
    form.plain() ? f(number, SigmaForm<E, true>(options)) : f(number, form);
  });
}

// Calls f with a number of the call's dtype, its form of σ, and its KL: to `Least` where there is no σp.
template <class Least, class Args, class F>
VF_INLINE void in_kl(const Args& args, F&& f) {
  in_dtype(args.compute, [&](auto number) {
    using E = decltype(number);
    const E floor = static_cast<E>(args.free_bits);
    const SigmaForm<E> form(args.form);
    if (args.in[3] && !(args.form == args.prior_form)) {
      const SigmaForm<E> prior(args.prior_form);
      f(number, form, KLDensity<E, SigmaForm<E>, SigmaForm<E>>{form, prior, floor, args.has_free_bits});
      return;
    }
    const auto to_prior = [&](const auto& form) {
      using Form = std::decay_t<decltype(form)>;
      args.in[3] ? f(number, form, KLDensity<E, Form, AlikePrior>{form, {}, floor, args.has_free_bits})
                 : f(number, form, KLDensity<E, Form, Least>{form, {}, floor, args.has_free_bits});
    };
    form.plain() ? to_prior(SigmaForm<E, true>(args.form)) : to_prior(form);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
