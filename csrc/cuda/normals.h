// The noise on a GPU: four normals a counter, in the order of their indices.
#pragma once

#include "../kernels.h"
#include "../noise.h"
#include "access.h"

namespace vae_fast {
namespace cuda {

// Elements of a chunk of samples: whole counters.
template <class S>
constexpr int kSampleChunk = kChunk<S> < kPerCounter ? kPerCounter : kChunk<S>;

// The keys of Philox's rounds, worked out on the host: parameters of a kernel, which an instruction can take as they
// are.
struct HostKeys {
  static constexpr bool kOnHost = true;
  uint32_t key[2 * kRounds];

  explicit HostKeys(const NoiseOptions& noise) {
    const SeedKeys keys{noise.seed};
    for (int round = 0; round < kRounds; ++round) {
      key[2 * round] = keys.first(round);
      key[2 * round + 1] = keys.second(round);
    }
  }
  __device__ __forceinline__ const HostKeys& get() const { return *this; }
  __device__ __forceinline__ uint32_t first(int round) const { return key[2 * round]; }
  __device__ __forceinline__ uint32_t second(int round) const { return key[2 * round + 1]; }
};

// Or from the seed in every thread; one on the device is read there.
struct DeviceKeys {
  static constexpr bool kOnHost = false;
  const int64_t* seed_on_device;
  uint64_t seed;

  explicit DeviceKeys(const NoiseOptions& noise) : seed_on_device(noise.seed_on_device), seed(noise.seed) {}
  __device__ __forceinline__ SeedKeys get() const {
    return {seed_on_device ? static_cast<uint64_t>(*seed_on_device) : seed};
  }
};

// In the keys' place, of a call with an ε of its own.
struct GivenNoise {
  static constexpr bool kOnHost = false;
  __device__ __forceinline__ const GivenNoise& get() const { return *this; }
};

// Calls body(keys) with those that a call with this noise takes. Elements of 64 bits, or of several dtypes, have
// kernels for one kind only.
template <class S, class Body>
void in_keys(const NoiseOptions& noise, Body body) {
  if constexpr (sizeof(S) < 8 && !kAny<S>) {
    if (!noise.seed_on_device) return body(HostKeys(noise));
  }
  body(DeviceKeys(noise));
}

// The lower word by itself: where a compiler knows it as part of 64 bits, it multiplies those.
__device__ __forceinline__ uint32_t word_of(uint64_t number) {
  uint32_t word = static_cast<uint32_t>(number);
#ifdef __CUDA_ARCH__
  asm("" : "+r"(word));
#endif
  return word;
}

// ε of N indices, from a counter's first on.
template <int N, class Keys>
__device__ __forceinline__ void normals_from(const Keys& keys, uint64_t sample, uint64_t first, float (&eps)[N]) {
  // A thread that makes the keys itself has no registers to spare for words apart.
  const auto word = [](uint64_t number) {
    return std::is_same_v<Keys, HostKeys> ? word_of(number) : static_cast<uint32_t>(number);
  };
#pragma unroll
  for (int j = 0; j < N; j += kPerCounter) {
    const uint64_t counter = first + static_cast<uint64_t>(j / kPerCounter);
    uint32_t x0 = word(counter), x1 = static_cast<uint32_t>(counter >> 32);
    uint32_t x2 = word(sample), x3 = static_cast<uint32_t>(sample >> 32);
    philox4x32(x0, x1, x2, x3, keys);
    box_muller<float>(static_cast<int32_t>(x0), static_cast<int32_t>(x1), eps[j], eps[j + 1]);
    box_muller<float>(static_cast<int32_t>(x2), static_cast<int32_t>(x3), eps[j + 2], eps[j + 3]);
  }
}

// ε of N indices from a multiple of kPerCounter on.
template <int N, class Keys>
__device__ __forceinline__ void normals(const Keys& keys, uint64_t sample, uint64_t index, float (&eps)[N]) {
  normals_from(keys, sample, index / kPerCounter, eps);
}

// The index of a chunk's first column in row r of μ.
template <int N, bool kEven>
__device__ __forceinline__ uint64_t index_of(const NoiseOptions& noise, int64_t row, const Chunk<N, kEven>& chunk) {
  return static_cast<uint64_t>(row * chunk.columns + chunk.column) + noise.offset;
}

}  // namespace cuda
}  // namespace vae_fast
