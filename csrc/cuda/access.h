// Chunks of operands and results: 16 bytes at a time where memory and the row allow, else element by element.
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#include "../elements.h"
#include "work.h"

namespace vae_fast {
namespace cuda {

// Bits of either half type; which of them is a number of the call, so that both have one kernel.
struct Half {
  uint16_t bits;
};

// Stands for a storage type where the operands of a call are not of one: each is read in its own dtype, and results are
// written in theirs, as many elements at a time as those of compute type T are.
template <class T>
struct Any {
  T number;
};
template <class T>
constexpr bool kAny<Any<T>> = true;

template <class S>
using Bits = std::conditional_t<sizeof(S) == 1, uint8_t, uint16_t>;
__device__ __forceinline__ uint8_t bits_of(uint8_t a) { return a; }
__device__ __forceinline__ uint16_t bits_of(Half a) { return a.bits; }

// Elements of a chunk: those in 16 bytes of storage type S.
template <class S>
constexpr int kChunk = 16 / static_cast<int>(sizeof(S));

// The type to compute in for a storage type.
template <class S>
struct Compute {
  using Type = float;
};
template <>
struct Compute<double> {
  using Type = double;
};
template <class T>
struct Compute<Any<T>> {
  using Type = T;
};

template <class T>
constexpr DType kDType = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;

// N elements that are read and written at once. Those of less than 32 bits are kept in words: a compiler would read and
// write four of them at a time at most.
template <class S, int N, bool kWords = (sizeof(S) < 4 && sizeof(S) * N >= 4)>
struct alignas(sizeof(S) * N < 16 ? sizeof(S) * N : 16) Vector {
  S element[N];

  __device__ __forceinline__ S get(int j) const { return element[j]; }
  __device__ __forceinline__ void set(int j, S value) { element[j] = value; }
};
template <class S, int N>
struct alignas(sizeof(S) * N < 16 ? sizeof(S) * N : 16) Vector<S, N, true> {
  static constexpr int kEach = 4 / static_cast<int>(sizeof(S)), kBits = 8 * static_cast<int>(sizeof(S));
  uint32_t word[N / kEach] = {};

  __device__ __forceinline__ S get(int j) const {
    return S{static_cast<Bits<S>>(word[j / kEach] >> (kBits * (j % kEach)))};
  }
  // Once for every j.
  __device__ __forceinline__ void set(int j, S value) {
    word[j / kEach] |= uint32_t{bits_of(value)} << (kBits * (j % kEach));
  }
};

// Of a bool's bytes all but 0 is 1.
template <int N>
__device__ __forceinline__ void booleans(Vector<uint8_t, N, true>& v) {
#pragma unroll
  for (uint32_t& four : v.word) four = ((((four & 0x7f7f7f7f) + 0x7f7f7f7f) | four) >> 7) & 0x01010101;
}
template <int N>
__device__ __forceinline__ void booleans(Vector<uint8_t, N, false>& v) {
#pragma unroll
  for (uint8_t& one : v.element) one = one != 0;
}

template <class S, int N>
__device__ __forceinline__ bool aligned(const S* at) {
  return reinterpret_cast<uintptr_t>(at) % alignof(Vector<S, N>) == 0;
}

// Where a thread stands: a chunk of N columns from `column` on, of which those in [0, columns) are there. kEven: all of
// them are, in every chunk of the call, and every operand's chunk is aligned.
template <int N, bool kEven = false>
struct Chunk {
  int64_t column, columns;
  bool full;

  __device__ __forceinline__ Chunk(int64_t first, int64_t count)
      : column(first), columns(count), full(kEven || (first >= 0 && first + N <= count)) {}
  __device__ __forceinline__ bool has(int j) const {
    return kEven || full || (column + j >= 0 && column + j < columns);
  }
  template <class S>
  __device__ __forceinline__ bool at_once(const S* at) const {
    return kEven || (full && aligned<S, N>(at));
  }
};

// A dense operand's chunk as it is stored.
template <class S, int N, bool kEven>
__device__ __forceinline__ Vector<S, N> read_run(const void* data, int64_t offset, const Chunk<N, kEven>& chunk) {
  const S* at = static_cast<const S*>(data) + offset + chunk.column;
  if (chunk.at_once(at)) return *reinterpret_cast<const Vector<S, N>*>(at);
  Vector<S, N> v;
#pragma unroll
  for (int j = 0; j < N; ++j) v.set(j, chunk.has(j) ? at[j] : S{});
  return v;
}

template <class T, class S, int N>
__device__ __forceinline__ void widen_run(Vector<S, N> v, DType dtype, T (&to)[N]) {
  if constexpr (std::is_same_v<S, Half>) {
    if (dtype == DType::kBFloat16) {
#pragma unroll
      for (int j = 0; j < N; ++j) to[j] = static_cast<T>(widen(BFloat16{v.get(j).bits}));
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) to[j] = static_cast<T>(widen(Float16{v.get(j).bits}));
    }
  } else if constexpr (std::is_same_v<S, uint8_t>) {
    if (__builtin_expect(dtype == DType::kBool, 0)) booleans(v);
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = static_cast<T>(v.get(j));
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) to[j] = static_cast<T>(widen(v.get(j)));
  }
}

template <class T, class S, int N, bool kEven>
__device__ __forceinline__ void load_run(const void* data, DType dtype, int64_t offset, const Chunk<N, kEven>& chunk,
                                         T (&to)[N]) {
  widen_run(read_run<S>(data, offset, chunk), dtype, to);
}

template <class T>
__device__ __forceinline__ T load_one(const void* data, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::kFloat32: return static_cast<T>(static_cast<const float*>(data)[at]);
    case DType::kFloat64: return static_cast<T>(static_cast<const double*>(data)[at]);
    case DType::kBFloat16: return static_cast<T>(widen(static_cast<const BFloat16*>(data)[at]));
    case DType::kFloat16: return static_cast<T>(widen(static_cast<const Float16*>(data)[at]));
    case DType::kBool: return static_cast<T>(widen(static_cast<const Bool*>(data)[at]));
    case DType::kInt16: return static_cast<T>(static_cast<const int16_t*>(data)[at]);
    case DType::kInt32: return static_cast<T>(static_cast<const int32_t*>(data)[at]);
    case DType::kInt64: return static_cast<T>(static_cast<const int64_t*>(data)[at]);
    default: return static_cast<T>(static_cast<const uint8_t*>(data)[at]);
  }
}

// What an operand is all along row `offset`, where it is not dense; anything where it is.
template <class T>
__device__ __forceinline__ T constant_of(const Input& input, int64_t offset) {
  if (input.dense) return T(0);
  return input.number ? static_cast<T>(input.value) : load_one<T>(input.data, input.dtype, offset);
}

__host__ __device__ __forceinline__ bool bytes(DType dtype) { return dtype == DType::kByte || dtype == DType::kBool; }

// A chunk of any dtype, element by element.
template <class T, int N, bool kEven>
__device__ __forceinline__ void load_each(const Input& input, int64_t offset, const Chunk<N, kEven>& chunk,
                                          T (&to)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j)
    to[j] = chunk.has(j) ? load_one<T>(input.data, input.dtype, offset + chunk.column + j) : T(0);
}

// A dense operand's chunk in row `offset`. It is of storage type S, or, where `any`, float or bytes.
template <class T, class S, int N, bool kEven>
__device__ __forceinline__ void load_dense(const Input& input, bool any, int64_t offset, const Chunk<N, kEven>& chunk,
                                           T (&to)[N]) {
  if constexpr (kAny<S>) {
    switch (input.dtype) {
      case DType::kFloat32: return load_run<T, float>(input.data, input.dtype, offset, chunk, to);
      case DType::kFloat64: return load_run<T, double>(input.data, input.dtype, offset, chunk, to);
      case DType::kByte:
      case DType::kBool: return load_run<T, uint8_t>(input.data, input.dtype, offset, chunk, to);
      case DType::kInt16:
      case DType::kInt32:
      case DType::kInt64: return load_each(input, offset, chunk, to);
      default: return load_run<T, Half>(input.data, input.dtype, offset, chunk, to);
    }
  } else if (any && bytes(input.dtype)) {
    load_run<T, uint8_t>(input.data, input.dtype, offset, chunk, to);
  } else if (any && std::is_same_v<S, Half> && input.dtype == DType::kFloat32) {
    load_run<T, float>(input.data, input.dtype, offset, chunk, to);
  } else {
    load_run<T, S>(input.data, input.dtype, offset, chunk, to);
  }
}

template <class T, int N>
__device__ __forceinline__ void fill(T value, T (&to)[N]) {
#pragma unroll
  for (int j = 0; j < N; ++j) to[j] = value;
}

// An operand's chunk in row `offset`, along which it is `constant` where it is not dense.
template <class T, class S, int N, bool kEven>
__device__ __forceinline__ void load(const Input& input, bool any, int64_t offset, T constant,
                                     const Chunk<N, kEven>& chunk, T (&to)[N]) {
  if (input.dense) {
    load_dense<T, S>(input, any, offset, chunk, to);
  } else {
    fill(constant, to);
  }
}

template <class T, class S, int N, bool kEven>
__device__ __forceinline__ void store_run(const T (&from)[N], const Output& out, int64_t offset,
                                          const Chunk<N, kEven>& chunk) {
  S* at = static_cast<S*>(out.data) + offset + chunk.column;
  Vector<S, N> v;
  if constexpr (std::is_same_v<S, Half>) {
    if (out.dtype == DType::kBFloat16) {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        BFloat16 to;
        narrow(from[j], to);
        v.set(j, Half{to.bits});
      }
    } else {
#pragma unroll
      for (int j = 0; j < N; ++j) {
        Float16 to;
        narrow(from[j], to);
        v.set(j, Half{to.bits});
      }
    }
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j) v.set(j, static_cast<S>(from[j]));
  }
  if (chunk.at_once(at)) {
    *reinterpret_cast<Vector<S, N>*>(at) = v;
  } else {
#pragma unroll
    for (int j = 0; j < N; ++j)
      if (chunk.has(j)) at[j] = v.get(j);
  }
}

// A result's chunk: of storage type S, or of compute type T.
template <class T, class S, int N, bool kEven>
__device__ __forceinline__ void store(const T (&from)[N], const Output& out, int64_t offset,
                                      const Chunk<N, kEven>& chunk) {
  if constexpr (kAny<S>) {
    switch (out.dtype) {
      case DType::kFloat32: return store_run<T, float>(from, out, offset, chunk);
      case DType::kFloat64: return store_run<T, double>(from, out, offset, chunk);
      default: return store_run<T, Half>(from, out, offset, chunk);
    }
  } else if (std::is_same_v<S, Half> && out.dtype == DType::kFloat32) {
    store_run<T, float>(from, out, offset, chunk);
  } else {
    store_run<T, S>(from, out, offset, chunk);
  }
}

__device__ __forceinline__ void store_one(double value, void* data, DType dtype, int64_t at) {
  switch (dtype) {
    case DType::kFloat32: return narrow(value, static_cast<float*>(data)[at]);
    case DType::kFloat64: return narrow(value, static_cast<double*>(data)[at]);
    case DType::kBFloat16: return narrow(value, static_cast<BFloat16*>(data)[at]);
    case DType::kFloat16: return narrow(value, static_cast<Float16*>(data)[at]);
    default: return;  // no result is of integers
  }
}

// a / b of numbers that are not negative; most have 32 bits, where it takes a fifth of the time.
__device__ __forceinline__ int64_t quotient(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

// A number of 32 or 64 bits, of which the compiler is not to know what it is made of.
template <class T>
__device__ __forceinline__ void hide(T& number) {
#ifdef __CUDA_ARCH__
  if constexpr (sizeof(T) == 8) {
    asm volatile("" : "+l"(number));
  } else {
    asm volatile("" : "+r"(number));
  }
#endif
}

// A unit's rows and columns, as one thread walks them.
struct Walk {
  int64_t row, s, d, segment, first, last;
  bool alone;  // whether there is one row, the usual case, in which nothing has to be found
  bool some;   // whether the thread has a row

  // `chunk` is a power of two.
  __device__ __forceinline__ Walk(const Work& work, int64_t unit, int chunk) {
    int64_t shift = work.phase, columns = work.columns;
    alone = work.rows == 1;
    row = s = d = 0;
    segment = unit;
    some = true;
    if (!alone) {
      const int64_t rows = work.segments == 1 ? unit : quotient(unit, work.segments);
      segment = unit - rows * work.segments;
      row = rows * work.rows_per_block + (static_cast<int>(threadIdx.x) >> work.group_bits);
      some = row < work.rows;
      s = work.inner == work.rows ? 0 : quotient(row, work.inner);
      d = row - s * work.inner;
      shift += s * work.phase_s + d * work.phase_d;
      // Before the first, wherever that is.
      if (!some) columns = -chunk;
    }
    const int lane = static_cast<int>(threadIdx.x) & (work.group - 1);
    const int64_t begin = segment * work.segment - (shift & (chunk - 1)), end = begin + work.segment;
    first = begin + static_cast<int64_t>(lane) * chunk;
    last = end < columns ? end : columns;
    // A compiler that knew would write chunks of 16 bytes one element at a time.
    hide(first);
  }

  __device__ __forceinline__ int64_t offset(const Input& input) const { return s * input.s + d * input.d; }
  __device__ __forceinline__ int64_t offset(const Output& out) const { return s * out.s + d * out.d; }
};

// The chunks of all operands, which are of storage type S, at the walk's row. Of half types all are read before any is
// widened: which of the two they are is a branch, and no compiler moves a load over one.
template <class T, class S, int K, int N, bool kEven>
__device__ __forceinline__ void load_all(const Input (&in)[K], const Walk& walk, const T (&constants)[K],
                                         const Chunk<N, kEven>& chunk, T (&to)[K][N]) {
  if constexpr (std::is_same_v<S, Half>) {
    Vector<S, N> stored[K];
#pragma unroll
    for (int k = 0; k < K; ++k)
      if (in[k].dense) stored[k] = read_run<S>(in[k].data, walk.offset(in[k]), chunk);
#pragma unroll
    for (int k = 0; k < K; ++k) {
      if (in[k].dense) {
        widen_run(stored[k], in[k].dtype, to[k]);
      } else {
        fill(constants[k], to[k]);
      }
    }
  } else {
#pragma unroll
    for (int k = 0; k < K; ++k) load<T, S>(in[k], false, walk.offset(in[k]), constants[k], chunk, to[k]);
  }
}

}  // namespace cuda
}  // namespace vae_fast
