// From a call's numbers to types: the dtype it computes in, and a form of σ that has nothing to branch on where it can.
#pragma once

#include "pack.h"

#include "../kernels.h"
#include "../terms.h"

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

}  // namespace VF_ISA
}  // namespace vae_fast
