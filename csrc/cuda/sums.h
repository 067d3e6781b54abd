// Sums that are no part of an operator's own kernel, and copies between layouts: declared for plan.cpp.
#pragma once

#include "work.h"

namespace vae_fast {
namespace cuda {

// n parts of each of `count` sums: part j of sum i is data[i·row + j·step]. None of sums of nothing.
struct Parts {
  const double* data = nullptr;
  int64_t count, n = 0, row = 0, step = 0;
};

// out[i] = factor·Σ of its parts, in an order by their number alone. out is dense.
void join(Device& device, const Parts& parts, double factor, void* out, DType dtype);

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
