// Sums that are no part of an operator's own kernel, and copies between layouts: declared for plan.cpp.
#pragma once

#include "work.h"

namespace vae_fast {
namespace cuda {

// out[i] = factor·Σ_j parts[i·row + j·step], j < n, for i < count, in an order by n alone. out is dense.
void join(Device& device, const double* parts, int64_t count, int64_t n, int64_t row, int64_t step, double factor,
          void* out, DType dtype);

// out[c] = Σ_r values[r·columns + c], of values in compute dtype.
void sum_columns(Device& device, const void* values, DType compute, int64_t rows, int64_t columns, void* out,
                 DType dtype);

// out[r] = factor·Σ_c values[r·columns + c].
void sum_rows(Device& device, const void* values, DType compute, int64_t rows, int64_t columns, double factor,
              void* out, DType dtype);

// A view's elements one after the other in a dtype, and back.
void gather(Device& device, const View& from, int64_t numel, void* to, DType dtype);
void scatter(Device& device, const void* from, DType dtype, int64_t numel, const View& to);

}  // namespace cuda
}  // namespace vae_fast
