// Sums over rows, one a column: by slabs of rows, in an order by shape alone.
#pragma once

#include "launch.h"
#include "reduce.h"
#include "sums.h"

namespace vae_fast {
namespace cuda {

// A block is 32 columns by 8 rows at a time.
constexpr int kAcross = 32, kDown = kThreads / kAcross;

struct ColumnSums {
  int64_t rows, columns, slab;
  int64_t blocks, slabs;
  double* partial;  // [slabs, columns], or null where there is one slab
  void* out;
  DType dtype;

  // Slabs of 64 rows at least, and about 1024 blocks.
  ColumnSums(Device& device, int64_t rows_, int64_t columns_, void* out_, DType dtype_)
      : rows(rows_), columns(columns_), out(out_), dtype(dtype_) {
    const int64_t across = parts_of(columns, kAcross), wanted = parts_of(1024, across);
    const int64_t most = parts_of(rows, 64), count = wanted < most ? wanted : most;
    slab = parts_of(rows, count);
    slabs = parts_of(rows, slab);
    blocks = across < 512 ? across : 512;
    partial = slabs > 1 ? static_cast<double*>(device.scratch(8 * slabs * columns)) : nullptr;
  }
  // After the kernel.
  void finish(Device& device) const {
    if (partial) join(device, {partial, columns, slabs, 1, columns}, 1.0, out, dtype);
  }
};

// Σ term(row, column) over a block's slab, for its columns.
template <class F>
__device__ __forceinline__ void sum_slabs(const ColumnSums& p, double (&shared)[kDown][kAcross], const F& term) {
  const int across = static_cast<int>(threadIdx.x) % kAcross, down = static_cast<int>(threadIdx.x) / kAcross;
  const int64_t first = blockIdx.y * p.slab, last = first + p.slab < p.rows ? first + p.slab : p.rows;
  for (int64_t block = blockIdx.x * static_cast<int64_t>(kAcross); block < p.columns;
       block += gridDim.x * static_cast<int64_t>(kAcross)) {
    const int64_t column = block + across;
    double sum = 0;
    if (column < p.columns)
      for (int64_t r = first + down; r < last; r += kDown) sum += term(r, column);
    shared[down][across] = sum;
    __syncthreads();
    if (down == 0 && column < p.columns) {
      for (int k = 1; k < kDown; ++k) sum += shared[k][across];
      if (p.partial) {
        p.partial[blockIdx.y * p.columns + column] = sum;
      } else {
        store_one(sum, p.out, p.dtype, column);
      }
    }
    // The next columns' sums go to the same memory.
    __syncthreads();
  }
}

}  // namespace cuda
}  // namespace vae_fast
