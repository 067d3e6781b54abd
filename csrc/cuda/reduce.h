// Sums within a block in an order by its shape alone, and the last block's sum of all blocks' parts. No float atomics:
// an integer ticket says which block is the last.
#pragma once

#include "access.h"

namespace vae_fast {
namespace cuda {

// The sum of a chunk's terms: pairwise in fours, these in double. So half types, whose chunks are longer, are summed as
// float32 is.
template <class T, int N, bool kEven>
__device__ __forceinline__ double chunk_sum(const T (&terms)[N], const Chunk<N, kEven>& chunk) {
  constexpr int kFew = N < 4 ? N : 4;
  T part[N];
#pragma unroll
  for (int j = 0; j < N; ++j) part[j] = chunk.has(j) ? terms[j] : T(0);
  double sum = 0;
#pragma unroll
  for (int i = 0; i < N; i += kFew) {
#pragma unroll
    for (int half = kFew / 2; half > 0; half /= 2)
#pragma unroll
      for (int j = 0; j < half; ++j) part[i + j] += part[i + j + half];
    sum += static_cast<double>(part[i]);
  }
  return sum;
}

// The sum over each group of `group` neighbouring threads, a power of two, for the first of them. All threads of the
// block call it; `shared` has room for a double a warp.
__device__ __forceinline__ double group_sum(double value, int group, double* shared) {
  for (int step = (group < 32 ? group : 32) / 2; step > 0; step /= 2)
    value += __shfl_xor_sync(0xFFFFFFFFu, value, step);
  if (group <= 32) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  if (static_cast<int>(threadIdx.x) % group == 0) {
    value = 0;
    for (int w = 0; w < group / 32; ++w) value += shared[threadIdx.x / 32 + w];
  }
  // The next sum may write to the same memory.
  __syncthreads();
  return value;
}

// A row's sum, or what this unit has of it.
__device__ __forceinline__ void put_row(const Slot& slot, const Work& work, const Walk& walk, double sum) {
  if (!walk.some || static_cast<int>(threadIdx.x) % work.group != 0) return;
  if (slot.partial) {
    slot.partial[walk.row * work.segments + walk.segment] = sum;
  } else {
    store_one(sum * slot.factor, slot.out.data, slot.out.dtype, walk.row);
  }
}

// The rows' sums of slots from kFirst on, which then begin anew.
template <int kFirst, int kLast, int kSlots>
__device__ __forceinline__ void put_rows(const Slot (&slots)[kSlots], const Work& work, const Walk& walk,
                                         double (&sums)[kSlots], double* shared) {
#pragma unroll
  for (int k = kFirst; k < kLast; ++k) {
    if (slots[k].kind == Slot::kNone || slots[k].kind == Slot::kEach) continue;
    put_row(slots[k], work, walk, group_sum(sums[k], work.group, shared));
    sums[k] = 0;
  }
}

// Joins the sums of all blocks: every thread brings its own of each slot.
template <int kSlots>
__device__ __forceinline__ void put_totals(const Slot (&slots)[kSlots], int* ticket, double (&sums)[kSlots],
                                           double* shared) {
  __shared__ int last;
  const int threads = static_cast<int>(blockDim.x), blocks = static_cast<int>(gridDim.x);
#pragma unroll
  for (int k = 0; k < kSlots; ++k) {
    if (slots[k].kind != Slot::kTotal) continue;
    const double sum = group_sum(sums[k], threads, shared);
    if (threadIdx.x != 0) continue;
    if (ticket) {
      slots[k].partial[blockIdx.x] = sum;
    } else {
      store_one(sum * slots[k].factor, slots[k].out.data, slots[k].out.dtype, 0);
    }
  }
  if (!ticket) return;
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicAdd(ticket, 1) == blocks - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
#pragma unroll
  for (int k = 0; k < kSlots; ++k) {
    if (slots[k].kind != Slot::kTotal) continue;
    double sum = 0;
    // As many at a time as a thread has of the most blocks.
    constexpr int kAtOnce = (kMostBlocks + kThreads - 1) / kThreads;
    for (int b = static_cast<int>(threadIdx.x); b < blocks; b += kAtOnce * threads) {
      double part[kAtOnce];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i)
        part[i] = b + i * threads < blocks ? __ldcg(slots[k].partial + b + i * threads) : 0.0;
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) sum += part[i];
    }
    sum = group_sum(sum, threads, shared);
    if (threadIdx.x == 0) store_one(sum * slots[k].factor, slots[k].out.data, slots[k].out.dtype, 0);
  }
  if (threadIdx.x == 0) *ticket = 0;
}

}  // namespace cuda
}  // namespace vae_fast
