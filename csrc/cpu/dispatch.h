// From a call's numbers to types: the dtype it computes in, and a scale that has nothing to branch on where it can.
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

// And with the scale of a call.
template <class F>
VF_INLINE void in_dtype_and_scale(bool is_double, const ScaleOptions& form, F&& f) {
  in_dtype(is_double, [&](auto number) {
    using E = decltype(number);
    const Scale<E> scale(form);
    scale.plain() ? f(number, Scale<E, true>(form)) : f(number, scale);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
