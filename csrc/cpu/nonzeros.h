// The counts of a tile that are not 0, one after the other: of most data they are few, and what the others need is
// less.
#pragma once

#include <algorithm>

#include "rows.h"

namespace vae_fast {
namespace VF_ISA {

// Of a density that is none of counts.
struct NoNonzeros {
  template <class Args>
  explicit NoNonzeros(const Args&) {}
};

template <class T>
class Nonzeros {
  static constexpr int W = kWidth<T>;

 public:
  template <class Args>
  explicit Nonzeros(const Args& args) : sparse_(args.sparse), stored_(args.sparse.values) {}

  // Finds those of a tile. False where they are so many that each element is better taken as it comes.
  bool find(const T* counts, int64_t first, int n) {
    if (sparse_.starts) {
      sparse_.wide ? find<int64_t>(first, n) : find<int32_t>(first, n);
      return true;
    }
    int found = 0;
    for (int i = 0; i < n; ++i) {
      at_[found] = i;
      found += counts[i] != T(0);
    }
    if (2 * found > n) return false;
    for (int j = 0; j < found; ++j) own_[j] = counts[at_[j]];
    values_ = own_;
    found_ = found;
    return true;
  }

  // Calls f(load, store, counts) for packs of them; load(from) and store(to, pack) are of a tile's elements.
  template <class F>
  VF_INLINE void for_packs(F&& f) const {
    for (int j = 0; j < found_; j += W) {
      const int* at = at_ + j;
      const int m = found_ - j < W ? found_ - j : W;
      alignas(64) T x[W];
      // Beyond the last ones the first again.
      for (int k = 0; k < W; ++k) x[k] = values_[k < m ? j + k : j];
      f(
          [&](const T* from) __attribute__((always_inline)) {
            alignas(64) T each[W];
            for (int k = 0; k < W; ++k) each[k] = from[at[k < m ? k : 0]];
            return VF_ISA::load(each);
          },
          [&](T* to, Pack<T> values) __attribute__((always_inline)) {
            alignas(64) T each[W];
            VF_ISA::store(each, values);
            for (int k = 0; k < m; ++k) to[at[k]] = each[k];
          },
          VF_ISA::load(x));
    }
  }

 private:
  // A tile is part of a row, or some whole rows.
  template <class Index>
  void find(int64_t first, int n) {
    const Index *starts = static_cast<const Index*>(sparse_.starts),
                *columns = static_cast<const Index*>(sparse_.columns);
    int64_t row = first / sparse_.width, left = first % sparse_.width;
    const int64_t from = std::lower_bound(columns + starts[row], columns + starts[row + 1], left) - columns;
    int64_t p = from;
    found_ = 0;
    for (int done = 0; done < n; ++row, left = 0) {
      const int64_t right = std::min(sparse_.width, left + n - done);
      for (; p < starts[row + 1] && columns[p] < right && found_ < n; ++p) {
        const int64_t column = columns[p] - left;
        // None is elsewhere, unless it is no CSR matrix.
        at_[found_++] = done + static_cast<int>(column < 0 ? 0 : column);
      }
      done += static_cast<int>(right - left);
    }
    values_ = found_ ? stored_.read(from, found_) : own_;
  }

  const SparseRows& sparse_;
  Reader<T> stored_;
  const T* values_ = own_;
  int found_ = 0;
  int at_[kTile<T> + W];
  alignas(64) T own_[kTile<T>];
};

}  // namespace VF_ISA
}  // namespace vae_fast
