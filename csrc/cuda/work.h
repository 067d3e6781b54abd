// What a kernel on a GPU sees of a call: how the elements are cut up, the operands, and where results go.
//
// Elements are rows of columns. Row r is (s, d), r = s·inner + d, and an operand has a stride for each; along the
// columns it is dense or constant. A row's columns are taken in chunks of 16 bytes of the main operand, whose
// boundaries are those of memory: the first and the last chunk of a row may be part of one.
#pragma once

#include "../kernels.h"

namespace vae_fast {
namespace cuda {

constexpr int kThreads = 256;
// Blocks that a call's elements are shared out to, where no row is cut for its own sum, and whose sums of everything
// the last one joins: at most. It is eight for each of 132 multiprocessors, whole rounds of one, two, four or eight at
// a time.
constexpr int64_t kMostBlocks = 8 * 132;
// How many blocks a multiprocessor holds at a time at least, and so how many registers a thread has: as many blocks as
// can be without spills. The chunks of half types are longer; where all chunks are even, a kernel needs fewer; and more
// where it computes many numbers of an element: `load` is from 0 to 3.
template <class S>
constexpr bool kAny = false;  // access.h
template <class S, bool kEven, int load = 0>
constexpr int kResident = [] {
  if (kAny<S> || sizeof(S) == 8 || (load > 1 && !kEven)) return 1;
  const int blocks = (sizeof(S) == 4 ? 2 : 1) + (kEven ? 2 - load : 0);
  return blocks < 1 ? 1 : blocks;
}();
// The compilers for other GPUs need more registers than that for sm_90.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ == 900
constexpr int kMiddling = 0;
#else
constexpr int kMiddling = 1;
#endif

// How many parts of a size n is.
inline int64_t parts_of(int64_t n, int64_t part) { return (n + part - 1) / part; }

struct Work {
  int64_t rows, inner, columns;
  // Columns of a row that a unit of work takes, a multiple of the chunk, and how many such segments a row has.
  int64_t segment, segments;
  int64_t units;
  int group;  // threads that share a row, 2^group_bits; of one row a warp at least
  int group_bits;
  int rows_per_block;  // rows a unit takes
  // The column at which chunks of row (s, d) begin is −(phase + s·phase_s + d·phase_d) modulo the chunk.
  int64_t phase, phase_s, phase_d;
};

struct Input {
  const void* data = nullptr;
  int64_t s = 0, d = 0;
  uint32_t bytes = 0;  // of an element
  DType dtype = DType::kFloat32;
  bool dense = false;   // along the columns; else constant
  bool number = false;  // `value` instead of the data
  double value = 0;
};

struct Output {
  void* data = nullptr;
  int64_t s = 0, d = 0;
  uint32_t bytes = 0;  // of an element
  DType dtype = DType::kFloat32;
};

// A result with a term for every element: as it is, or summed.
struct Slot {
  enum Kind : uint8_t { kNone, kEach, kRow, kTotal };
  Kind kind = kNone;
  Output out;
  double factor = 1;  // of the result
  // Where sums of parts go that another kernel, or the last block, joins.
  double* partial = nullptr;
};

}  // namespace cuda
}  // namespace vae_fast
