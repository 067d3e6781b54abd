// Gradients that a forward pass kept, made those of an upstream gradient that the device alone knows: a thread leaves
// its own as they are, or scales them, or makes them anew.
#pragma once

#include "../kept.h"
#include "access.h"

namespace vae_fast {
namespace cuda {

// Whether kernels of a storage type may have kept gradients: bfloat16's, and those that serve it among others.
template <class S>
constexpr bool kKeeps = std::is_same_v<S, BFloat16> || std::is_same_v<S, Half> || std::is_same_v<S, Any<float>>;

// Two bfloat16 at a time, the halves of a word.
class KeptPairs {
 public:
  explicit __device__ __forceinline__ KeptPairs(const KeptFactor& factor)
      : some_(twice(factor.least())),
        least_(twice(static_cast<uint16_t>(0x8000u - factor.least()))),
        end_(twice(static_cast<uint16_t>(0x8000u - factor.end()))),
        one_(twice(factor.keeps_zero() ? 0x7FFF : 0x8000)),
        factor_(factor) {}

  // Of an element that is not there: one that may be multiplied.
  __device__ __forceinline__ Half some() const { return {static_cast<uint16_t>(some_)}; }

  // Multiplies a pair, and sets bits of `wrong` where it may not. The upper bit of a half is free for carries, which
  // say what its magnitude is no less than: the least that may be, the first that is too much, and 1 if 0 may be.
  __device__ __forceinline__ void multiply(uint32_t& pair, uint32_t& wrong) const {
    const uint32_t magnitude = pair & 0x7FFF7FFFu;
    wrong |= ((magnitude + one_) & ~(magnitude + least_)) | (magnitude + end_);
#ifdef __CUDA_ARCH__
    __nv_bfloat162 both;
    std::memcpy(&both, &pair, sizeof both);
    both = __hmul2(both, __float2bfloat162_rn(factor_.value()));
    std::memcpy(&pair, &both, sizeof both);
#else
    auto low = static_cast<uint16_t>(pair), high = static_cast<uint16_t>(pair >> 16);
    factor_.multiply(low);
    factor_.multiply(high);
    pair = low | uint32_t{high} << 16;
#endif
  }
  static __device__ __forceinline__ bool is_wrong(uint32_t wrong) { return (wrong & 0x80008000u) != 0; }

 private:
  static __device__ __forceinline__ uint32_t twice(uint16_t number) { return number | uint32_t{number} << 16; }

  uint32_t some_, least_, end_, one_;
  KeptFactor factor_;
};

// Multiplies a chunk of a kept gradient in row `offset`: whether all of it may be.
template <int N, bool kEven>
__device__ __forceinline__ bool scale_halves(const Output& out, int64_t offset, const Chunk<N, kEven>& chunk,
                                             const KeptPairs& factor) {
  Half* at = static_cast<Half*>(out.data) + offset + chunk.column;
  Vector<Half, N> v;
  const bool at_once = chunk.at_once(at);
  if (at_once) {
    v = *reinterpret_cast<const Vector<Half, N>*>(at);
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) v.set(j, chunk.has(j) ? at[j] : factor.some());
  }
  uint32_t wrong = 0;
#pragma unroll
  for (uint32_t& pair : v.word) factor.multiply(pair, wrong);
  if (at_once) {
    *reinterpret_cast<Vector<Half, N>*>(at) = v;
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (chunk.has(j)) at[j] = v.get(j);
  }
  return !KeptPairs::is_wrong(wrong);
}

// The same of float32, beside bfloat16.
template <int N, bool kEven>
__device__ __forceinline__ bool scale_floats(const Output& out, int64_t offset, const Chunk<N, kEven>& chunk,
                                             const KeptFactor& factor) {
  float* at = static_cast<float*>(out.data) + offset + chunk.column;
  bool all = true;
#pragma unroll
  for (int j = 0; j < N; ++j) {
    if (!chunk.has(j)) continue;
    auto number = static_cast<uint32_t>(bits(at[j]));
    const bool may = factor.multiply(number);
    all = all && may;
    at[j] = from_bits<float>(static_cast<int32_t>(number));
  }
  return all;
}

// Whether a thread's gradients are those of the upstream gradient without an operand read. If not, what is scaled of
// them is to be made anew.
template <class S, int N, class Params>
__device__ __forceinline__ bool scales_kept(const Params& p) {
  constexpr bool kEven = std::is_same_v<S, BFloat16>;
  const KeptFactor factor(constant_of<float>(p.upstream, 0), static_cast<float>(p.scale),
                          static_cast<float>(p.divisor));
  if (factor.is_one()) return true;
  if (!factor.is_power()) return false;
  const KeptPairs pairs(factor);
  bool all = true;
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
#pragma unroll 1
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N, kEven> chunk(column, p.work.columns);
#pragma unroll
      for (const Slot& slot : p.slots) {
        if (slot.kind == Slot::kNone) continue;
        const int64_t offset = walk.offset(slot.out);
        const bool floats = !kEven && slot.out.dtype == DType::kFloat32;
        const bool here =
            floats ? scale_floats(slot.out, offset, chunk, factor) : scale_halves(slot.out, offset, chunk, pairs);
        all = all && here;
      }
    }
  }
  return all;
}

}  // namespace cuda
}  // namespace vae_fast
