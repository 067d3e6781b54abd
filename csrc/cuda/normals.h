// The noise on a GPU: four normals a counter, in the order of their indices.
#pragma once

#include "../kernels.h"
#include "../noise.h"
#include "access.h"

namespace vae_fast {
namespace cuda {

// Elements of a chunk of samples: whole counters.
template <class S>
constexpr int kSampleChunk = kChunk<S> < 4 ? 4 : kChunk<S>;

__device__ __forceinline__ uint64_t seed_of(const NoiseOptions& noise) {
  return noise.seed_on_device ? static_cast<uint64_t>(*noise.seed_on_device) : noise.seed;
}

// ε of N indices from a multiple of 4 on.
template <int N>
__device__ __forceinline__ void normals(uint64_t seed, uint64_t sample, uint64_t index, float (&eps)[N]) {
#pragma unroll
  for (int j = 0; j < N; j += 4) {
    const uint64_t counter = (index + static_cast<uint64_t>(j)) >> 2;
    uint32_t x0 = static_cast<uint32_t>(counter), x1 = static_cast<uint32_t>(counter >> 32);
    uint32_t x2 = static_cast<uint32_t>(sample), x3 = static_cast<uint32_t>(sample >> 32);
    philox4x32(x0, x1, x2, x3, seed);
    box_muller<float>(static_cast<int32_t>(x0), static_cast<int32_t>(x1), eps[j], eps[j + 1]);
    box_muller<float>(static_cast<int32_t>(x2), static_cast<int32_t>(x3), eps[j + 2], eps[j + 3]);
  }
}

// The index of a chunk's first column in row r of μ.
template <int N, bool kEven>
__device__ __forceinline__ uint64_t index_of(const NoiseOptions& noise, int64_t row,
                                             const Chunk<N, kEven>& chunk) {
  return static_cast<uint64_t>(row * chunk.columns + chunk.column) + noise.offset;
}

}  // namespace cuda
}  // namespace vae_fast
