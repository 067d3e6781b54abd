// Kernels' chunks where all of a call's are even: of 16 bytes, aligned, all of their columns there, in operands of one
// storage type. A chunk's operands are read before any of it is computed with, from a pointer of each that a thread
// keeps along its row.
#pragma once

#include "../light.h"
#include "reduce.h"

namespace vae_fast {
namespace cuda {

// An address that a thread keeps. A compiler would rather work it out anew for every chunk, in ten instructions.
__device__ __forceinline__ const char* kept(const char* at) {
#ifdef __CUDA_ARCH__
  // By way of the window that it is in, which a compiler would forget.
  size_t address = __cvta_generic_to_global(at);
  hide(address);
  at = static_cast<const char*>(__cvta_global_to_generic(address));
#endif
  return at;
}
__device__ __forceinline__ char* kept(char* at) { return const_cast<char*>(kept(const_cast<const char*>(at))); }

// Where a thread's first chunk of its row is, in an operand or a result whose data begin there.
template <class Char, class Tensor>
__device__ __forceinline__ Char* start_from(Char* data, const Tensor& tensor, const Walk& walk) {
  Char* at = data + walk.first * tensor.bytes;
  if (!walk.alone) at = kept(at + walk.offset(tensor) * tensor.bytes);
  return kept(at);
}
__device__ __forceinline__ const char* start_of(const Input& input, const Walk& walk) {
  return start_from(static_cast<const char*>(input.data), input, walk);
}
__device__ __forceinline__ char* start_of(const Output& out, const Walk& walk) {
  return start_from(static_cast<char*>(out.data), out, walk);
}

// From there to the end of its unit, which a compiler would work out anew in each turn.
__device__ __forceinline__ uint32_t columns_of(const Walk& walk) {
  uint32_t columns = walk.first < walk.last ? static_cast<uint32_t>(walk.last - walk.first) : 0;
  hide(columns);
  return columns;
}

template <class S>
constexpr DType kStorage = std::is_same_v<S, float>      ? DType::kFloat32
                           : std::is_same_v<S, BFloat16> ? DType::kBFloat16
                                                         : DType::kFloat16;

template <int kWords>
struct alignas(4 * (kWords < 4 ? kWords : 4)) Words {
  uint32_t word[kWords];
};

// N elements of an operand as they are in memory; those of float32 beside a half type have the most bytes.
template <int N>
struct Raw {
  Words<N> words;

  // From `at`, so many of them.
  template <int kWords>
  __device__ __forceinline__ void read(const char* at) {
    constexpr int kAtOnce = kWords < 4 ? kWords : 4;
#pragma unroll
    for (int i = 0; i < kWords; i += kAtOnce) {
      const auto some = *reinterpret_cast<const Words<kAtOnce>*>(at + 4 * i);
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) words.word[i + j] = some.word[j];
    }
  }
};

__device__ __forceinline__ float number_of_bits(float, uint32_t word, int) { return from_bits<float>(word); }
__device__ __forceinline__ float number_of_bits(BFloat16, uint32_t word, int j) {
  return from_bits<float>(static_cast<int32_t>(j ? word & 0xFFFF0000u : word << 16));
}
__device__ __forceinline__ float number_of_bits(Float16, uint32_t word, int j) {
  return widen(Float16{static_cast<uint16_t>(j ? word >> 16 : word)});
}

// Elements of S.
template <class S, int N>
__device__ __forceinline__ void unpack(const Raw<N>& raw, float (&to)[N]) {
  constexpr int kEach = 4 / static_cast<int>(sizeof(S));
#pragma unroll
  for (int j = 0; j < N; ++j) to[j] = number_of_bits(S{}, raw.words.word[j / kEach], j % kEach);
}

// An operand that may be of another type than S: bytes or bools, or, beside a half type, float32.
enum class Kind : uint8_t { kOwn, kBytes, kFloat };

// The operand's chunk, `place` columns from where the thread began.
template <class S, Kind kKind, int N>
__device__ __forceinline__ void fetch(Raw<N>& raw, const char* start, uint32_t place) {
  if constexpr (kKind == Kind::kBytes) {
    raw.template read<N / 4>(start + place);
  } else if constexpr (kKind == Kind::kFloat) {
    raw.template read<N>(start + uint64_t{place} * 4);
  } else {
    raw.template read<4>(start + uint64_t{place} * sizeof(S));
  }
}

template <class S, Kind kKind, int N>
__device__ __forceinline__ void numbers(const Raw<N>& raw, DType dtype, float (&to)[N]) {
  if constexpr (kKind == Kind::kBytes) {
    Vector<uint8_t, N> v;
#pragma unroll
    for (int i = 0; i < N / 4; ++i) v.word[i] = raw.words.word[i];
    if (dtype == DType::kBool) booleans(v);
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = static_cast<float>(v.get(j));
  } else if constexpr (kKind == Kind::kFloat) {
    unpack<float>(raw, to);
  } else {
    unpack<S>(raw, to);
  }
}

// Calls body with the kind as a constant; with kBytes only where there are kernels for them.
template <class S, bool kBytes, class Body>
__device__ __forceinline__ void in_kind(DType dtype, const Body& body) {
  if constexpr (kBytes) {
    if (bytes(dtype)) return body(std::integral_constant<Kind, Kind::kBytes>());
  }
  if constexpr (sizeof(S) < 4) {
    if (dtype == DType::kFloat32) return body(std::integral_constant<Kind, Kind::kFloat>());
  }
  body(std::integral_constant<Kind, Kind::kOwn>());
}

__device__ __forceinline__ uint32_t pair_of(BFloat16, float low, float high) {
#ifdef __CUDA_ARCH__
  const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);
  return uint32_t{__bfloat16_as_ushort(both.x)} | uint32_t{__bfloat16_as_ushort(both.y)} << 16;
#else
  BFloat16 first, second;
  narrow(low, first);
  narrow(high, second);
  return first.bits | uint32_t{second.bits} << 16;
#endif
}
__device__ __forceinline__ uint32_t pair_of(Float16, float low, float high) {
  Float16 first, second;
  narrow(low, first);
  narrow(high, second);
  return first.bits | uint32_t{second.bits} << 16;
}

// A result's chunk, of S or of float32.
template <class S, int N>
__device__ __forceinline__ void put(const float (&from)[N], char* start, uint32_t place) {
  constexpr int kEach = 4 / static_cast<int>(sizeof(S)), kWords = N / kEach, kAtOnce = 4;
  char* at = start + uint64_t{place} * sizeof(S);
#pragma unroll
  for (int i = 0; i < kWords; i += kAtOnce) {
    Words<kAtOnce> some;
#pragma unroll
    for (int j = 0; j < kAtOnce; ++j) {
      if constexpr (kEach == 1) {
        some.word[j] = static_cast<uint32_t>(bits(from[i + j]));
      } else {
        some.word[j] = pair_of(S{}, from[2 * (i + j)], from[2 * (i + j) + 1]);
      }
    }
    *reinterpret_cast<Words<kAtOnce>*>(at + 4 * i) = some;
  }
}

// A KL without a floor, which is two questions less for every element.
template <class Density>
struct Unfloored : Density {
  VF_INLINE explicit Unfloored(const Density& density) : Density(density) {}

  template <class T>
  VF_INLINE void operator()(const T (&in)[Density::kInputs], T g, T& term, T (&d)[Density::kInputs]) const {
    Density density = *this;
    density.has_floor = false;
    density(in, g, term, d);
  }
};

// The sum of a chunk's terms, as chunk_sum.
template <int N>
__device__ __forceinline__ double even_sum(const float (&terms)[N]) {
  double sum;
#pragma unroll
  for (int i = 0; i < N; i += 4) {
    const double four = static_cast<double>((terms[i] + terms[i + 2]) + (terms[i + 1] + terms[i + 3]));
    sum = i == 0 ? four : sum + four;
  }
  return sum;
}

}  // namespace cuda
}  // namespace vae_fast
