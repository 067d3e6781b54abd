// Pairs of one set of points with another, in tiles: a block meets the points that it owns with all others of its part,
// a tile of these at a time. What a pair is, a sum over dims, is made of 16 dims at a time; what is made of it for each
// dim of an owner is summed over the others of a tile in T, and over tiles in double, in a table. No table is of pairs.
#pragma once

#include "../lean.h"
#include "launch.h"
#include "reduce.h"
#include "sums.h"

namespace vae_fast {
namespace cuda {

// Threads along either side of a tile, dims at a time, and points of a thread along a side, which are 16 bytes.
constexpr int kSide = 16;
constexpr int kDims = 16;
template <class T>
constexpr int kEach = 16 / static_cast<int>(sizeof(T));
// Points along a side of a tile; and a row of them in memory, a 16-byte access more, for its banks.
template <class T>
constexpr int kTile = kSide * kEach<T>;
template <class T>
constexpr int kRow = kTile<T> + kEach<T>;
static_assert(kSide * kSide == kThreads && kSide == kDims, "a thread for every few pairs, and for a dim of few owners");

// What a thread reads of a side at once.
template <class T>
struct alignas(16) Few {
  T at[kEach<T>];
};

// Points of a tile, dim by dim.
template <class T>
struct alignas(16) Points {
  T at[kDims][kRow<T>];

  __device__ __forceinline__ const Few<T>& few(int d, int group) const {
    return reinterpret_cast<const Few<T>*>(at[d])[group];
  }
};

// Numbers of a tile's pairs: at[other][owner].
template <class T>
struct alignas(16) PairTable {
  T at[kTile<T>][kRow<T>];

  __device__ __forceinline__ Few<T>& few(int other, int group) { return reinterpret_cast<Few<T>*>(at[other])[group]; }
};

// One of the arrays [count, dims] that tiles are read of.
template <class T>
struct Source {
  const T* data;
  int64_t first, count;
  Points<T>& to;
};

// Reads 16 dims of tiles, 0 where there are none. Whoever reads what was there has to be done before.
template <class T, class... Sources>
__device__ __forceinline__ void read_tiles(int64_t first_dim, int64_t dims, const Sources&... sources) {
  const int d = static_cast<int>(threadIdx.x) % kDims;
  const auto read = [&](const Source<T>& s) {
    for (int i = static_cast<int>(threadIdx.x) / kDims; i < kTile<T>; i += kThreads / kDims) {
      const bool there = s.first + i < s.count && first_dim + d < dims;
      s.to.at[d][i] = there ? s.data[(s.first + i) * dims + first_dim + d] : T(0);
    }
  };
  __syncthreads();
  (read(sources), ...);
  __syncthreads();
}

// A number of each of a thread's pairs: [owner][other].
template <class T>
using FewPairs = T[kEach<T>][kEach<T>];

// The units that a call is cut into: tiles of owners, and parts of the others' tiles, as many as keep a GPU busy.
struct PairUnits {
  int64_t owners, each, parts;

  static PairUnits of(int64_t owners, int64_t others, int tile) {
    constexpr int64_t kMost = 256;
    PairUnits units;
    units.owners = parts_of(owners, tile);
    const int64_t tiles = parts_of(others, tile),
                  wanted = units.owners < kMost ? kMost / (units.owners + !units.owners) : 1;
    units.each = parts_of(tiles, wanted < tiles ? wanted : tiles + !tiles);
    units.parts = units.each > 0 ? parts_of(tiles, units.each) : 0;
    return units;
  }
};

// Sums over the others of a tile, of N numbers of an owner's dim, for each of a thread's owners: 16 in T, these in T.
template <class T, int N>
struct TileSums {
  T part[N][kEach<T>] = {}, all[N][kEach<T>] = {};

  __device__ __forceinline__ void flush() {
#pragma unroll
    for (int n = 0; n < N; ++n)
#pragma unroll
      for (int i = 0; i < kEach<T>; ++i) {
        all[n][i] += part[n][i];
        part[n][i] = T(0);
      }
  }
};

// e^a for a ≤ 0, or above it by a rounding.
template <class T>
VF_INLINE T exp_of_share(T a) {
  if constexpr (kLean<T>) {
    return lean_exp_of_negative(a);
  } else {
    return exp_to_a_unit(a);
  }
}

}  // namespace cuda
}  // namespace vae_fast
