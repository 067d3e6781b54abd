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

  // Whether they are looked for: of float64, which few data are, all elements are taken as they come.
  static constexpr bool kLooks = sizeof(T) == 4;

  // Finds those of a tile; all elements are, where nearly so many are that each is better taken as it comes. Returns
  // whether there are others.
  bool find(const T* counts, int64_t first, int n) {
    all_ = false;
    if (sparse_.starts) {
      sparse_.wide ? find<int64_t>(first, n) : find<int32_t>(first, n);
      if (kLooks) return true;
      for (T& value : own_) value = T(0);
      for (int j = 0; j < found_; ++j) own_[at_[j]] = values_[j];
      return take(own_, n);
    }
    if (!kLooks) return take(counts, n);
    found_ = 0;
    // By 64, for a loop whose end cannot be foretold takes as long as some turns of it.
    for (int i = 0; i < n; i += 64) {
      uint64_t left = 0;
      VF_ISA::for_packs<T>(n - i < 64 ? n - i : 64, [&](int k, auto part) __attribute__((always_inline)) {
        left |= uint64_t{bits_of(part.load(counts + i + k) != T(0))} << k;
      });
      for (; left != 0; left &= left - 1) at_[found_++] = i + __builtin_ctzll(left);
    }
    if (2 * found_ > n) return take(counts, n);
    for (int j = 0; j < found_; ++j) own_[j] = counts[at_[j]];
    values_ = own_;
    return true;
  }

  // Calls f(load, store, counts) for packs of them; load(from) and store(to, pack) are of a tile's elements.
  template <class F>
  VF_INLINE void for_packs(F&& f) const {
    for (int j = 0; j < found_; j += W) {
      const int* at = at_ + j;
      const int m = found_ - j < W ? found_ - j : W;
      // Beyond the last ones the first again.
      const auto each = [&](const T* from, auto place) __attribute__((always_inline)) {
        alignas(64) T values[W];
        for (int k = 0; k < W; ++k) values[k] = from[place(k < m ? k : 0)];
        return VF_ISA::load(values);
      };
      f(
          [&](const T* from) __attribute__((always_inline)) {
            if (all_ && m == W) return VF_ISA::load(from + j);
            return each(from, [&](int k) { return all_ ? j + k : at[k]; });
          },
          [&](T* to, Pack<T> values) __attribute__((always_inline)) {
            if (all_ && m == W) return VF_ISA::store(to + j, values);
            alignas(64) T own[W];
            VF_ISA::store(own, values);
            for (int k = 0; k < m; ++k) to[all_ ? j + k : at[k]] = own[k];
          },
          m == W ? VF_ISA::load(values_ + j) : each(values_, [&](int k) { return j + k; }));
    }
  }

 private:
  bool take(const T* counts, int n) {
    all_ = true;
    found_ = n;
    values_ = counts;
    return false;
  }

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
  bool all_ = false;
  int at_[kTile<T> + W];
  alignas(64) T own_[kTile<T>];
};

}  // namespace VF_ISA
}  // namespace vae_fast
