// What the raw operators demand of their arguments before a kernel runs: each against the others, as vae_fast/checks.py
// does for the reference.
#pragma once

#include <string>

#include "operands.h"

namespace vae_fast {

// A parameter of a distribution, an upstream gradient: no bytes.
inline void check_floating(const Operands& operands) {
  for (const Operand& o : operands)
    VF_CHECK(!o || is_floating(o.dtype), o.name, " must be a dense tensor of a floating dtype, got ",
             dtype_name(o.scalar_type));
}

// Data and weights that are no counts.
inline void check_no_integers(const Operand& o) {
  VF_CHECK(!o || !is_wide_integer(o.dtype), o.name, " must be of a floating dtype, uint8 or bool, got ",
           dtype_name(o.scalar_type));
}

// An upstream gradient: of the result's shape.
inline void check_like(const Operand& gradient, const int64_t* size, int ndim) {
  if (!gradient) return;
  VF_CHECK(gradient.ndim == ndim && std::equal(size, size + ndim, gradient.size), gradient.name, " has shape ",
           shape_name(gradient.size, gradient.ndim), ", and not ", shape_name(size, ndim), " as the result has");
}

inline void check_code(const char* name, int64_t code, int64_t count) {
  VF_CHECK(code >= 0 && code < count, name, " must be a code from 0 to ", count - 1, ", got ", code);
}

inline void check_event_ndim(int64_t event_ndim, const Space& space) {
  VF_CHECK(event_ndim >= 0 && event_ndim <= space.ndim, "event_ndim=", event_ndim, " does not fit a shape of ",
           space.ndim, " dims");
}

// `packed` is the tensor whose halves along `dim` the two operands are; its gradient is that of both.
inline void check_packed(const Operand& packed, int64_t dim, const Operand& first, const Operand& second,
                         bool need_first, bool need_second) {
  if (!packed) return;
  bool fits = dim >= -packed.ndim && dim < packed.ndim && packed.ndim == first.ndim && packed.ndim == second.ndim &&
              first.scalar_type == packed.scalar_type && second.scalar_type == packed.scalar_type;
  const int64_t along = dim < 0 ? dim + packed.ndim : dim;
  for (int d = 0; fits && d < packed.ndim; ++d)
    fits = first.size[d] == second.size[d] && packed.size[d] == first.size[d] * (d == along ? 2 : 1);
  VF_CHECK(fits, "packed, of shape ", shape_name(packed.size, packed.ndim), " and ", dtype_name(packed.scalar_type),
           ", must hold operands of shapes ", shape_name(first.size, first.ndim), " and ",
           shape_name(second.size, second.ndim), " as its halves along dim ", dim);
  VF_CHECK(need_first && need_second, "packed stands for both gradients, and one of them is not asked for");
}

inline void check_dtype(int32_t scalar_type) {
  VF_CHECK(is_floating(dtype_of("dtype", scalar_type)), "dtype must be float32, bfloat16, float16 or float64, got ",
           dtype_name(scalar_type));
}

inline void check_seed(const Tensor& seed) {
  const int32_t type = tensors::scalar_type(seed);
  VF_CHECK(type == aoti_torch_dtype_int64() && seed.numel() == 1, "seed_tensor must hold one int64, got ", seed.numel(),
           " of ", dtype_name(type));
  check_memory("seed_tensor", seed, 8);
}

}  // namespace vae_fast
