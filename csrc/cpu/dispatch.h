// From a call's numbers to types: the dtype it computes in, and a form of σ that has nothing to branch on where it can.
#pragma once

#include "pack.h"

#include "../kernels.h"
#include "../terms.h"

namespace vae_fast {
namespace VF_ISA {

// Calls f with a float or a double to compute in.
template <class F>
VF_INLINE void in_dtype(bool is_double, F&& f) {
  is_double ? f(0.0) : f(0.0f);
}

// And with the call's form of σ.
template <class F>
VF_INLINE void in_dtype_and_form(bool is_double, const SigmaOptions& options, F&& f) {
  in_dtype(is_double, [&](auto number) {
    using E = decltype(number);
    const SigmaForm<E> form(options);
    form.plain() ? f(number, SigmaForm<E, true>(options)) : f(number, form);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
