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
    found_ = 0;
    if (sparse_.starts) {
      sparse_.wide ? find<int64_t>(first, n) : find<int32_t>(first, n);
      const T* stored = found_ ? stored_.read(stored_first_, found_) : nullptr;
      if (!kLooks) {
        for (T& value : own_) value = T(0);
        for (int j = 0; j < found_; ++j) own_[at_[j]] = stored[j];
        return take(own_, n);
      }
      for (int j = 0; j < found_; ++j) own_[j] = stored[j];
      return pad();
    }
    if (!kLooks) return take(counts, n);
    look(counts, n);
    return 2 * found_ > n ? take(counts, n) : pad();
  }

  // How many elements of whole packs they are: beyond the last one stands the first again.
  int padded() const { return padded_; }
  const T* counts() const { return values_; }
  // What else of a tile stands at theirs, one after the other: where it is, or brought into `room`.
  const T* gather(const T* from, T* room) const {
    if (in_place_) return from;
    for (int j = 0; j < padded_; ++j) room[j] = from[at_[j]];
    return room;
  }
  // Where to put what is to stand at theirs, and bringing it there.
  T* place(T* to, T* room) const { return in_place_ ? to : room; }
  void scatter(const T* room, T* to) const {
    if (in_place_) return;
    for (int j = 0; j < found_; ++j) to[at_[j]] = room[j];
  }

 private:
#ifdef __AVX512F__
  VF_INLINE void look(const T* counts, int n) {
    if constexpr (kLooks) {
      const __m512i numbers = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
      for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
        const Pack<T> pack = part.load(counts + i);
        const auto mask = static_cast<__mmask16>(bits_of(pack != T(0)));
        const __m512i at = _mm512_add_epi32(_mm512_set1_epi32(i), numbers);
        // In a register first: to memory the instruction takes a hundred cycles on some processors.
        _mm512_storeu_si512(at_ + found_, _mm512_maskz_compress_epi32(mask, at));
        _mm512_storeu_ps(own_ + found_, _mm512_maskz_compress_ps(mask, (__m512)pack));
        found_ += __builtin_popcount(mask);
      });
    }
  }
#else
  VF_INLINE void look(const T* counts, int n) {
    // By 64, for a loop whose end cannot be foretold takes as long as some turns of it.
    for (int i = 0; i < n; i += 64) {
      uint64_t left = 0;
      for_packs<T>(n - i < 64 ? n - i : 64, [&](int k, auto part) __attribute__((always_inline)) {
        left |= uint64_t{bits_of(part.load(counts + i + k) != T(0))} << k;
      });
      for (; left != 0; left &= left - 1) at_[found_++] = i + __builtin_ctzll(left);
    }
    for (int j = 0; j < found_; ++j) own_[j] = counts[at_[j]];
  }
#endif

  // All elements of a tile, which are no whole packs only at a row's end.
  bool take(const T* counts, int n) {
    found_ = padded_ = n;
    in_place_ = n % W == 0;
    values_ = counts;
    if (in_place_) return false;
    for (int j = 0; j < n; ++j) at_[j] = j, own_[j] = counts[j];
    pad();
    return false;
  }

  bool pad() {
    in_place_ = false;
    values_ = own_;
    for (padded_ = found_; padded_ % W != 0; ++padded_) at_[padded_] = at_[0], own_[padded_] = own_[0];
    return true;
  }

  // A tile is part of a row, or some whole rows.
  template <class Index>
  void find(int64_t first, int n) {
    const Index *starts = static_cast<const Index*>(sparse_.starts),
                *columns = static_cast<const Index*>(sparse_.columns);
    int64_t row = first / sparse_.width, left = first % sparse_.width;
    for (int done = 0; done < n; ++row, left = 0) {
      const int64_t right = std::min(sparse_.width, left + n - done);
      const Index* end = columns + starts[row + 1];
      const Index* first_one = std::lower_bound(columns + starts[row], end, static_cast<Index>(left));
      const Index* last_one = std::lower_bound(first_one, end, static_cast<Index>(right));
      if (done == 0) stored_first_ = first_one - columns;
      const int count = static_cast<int>(std::min<int64_t>(last_one - first_one, n - found_));
      for (int k = 0; k < count; ++k) {
        // None is elsewhere, unless it is no CSR matrix.
        const auto column = std::clamp<Index>(first_one[k], static_cast<Index>(left), static_cast<Index>(right - 1));
        at_[found_ + k] = done + static_cast<int>(column - static_cast<Index>(left));
      }
      found_ += count;
      done += static_cast<int>(right - left);
    }
  }

  const SparseRows& sparse_;
  Reader<T> stored_;
  int64_t stored_first_ = 0;
  const T* values_ = nullptr;
  int found_ = 0, padded_ = 0;
  bool in_place_ = false;
  int at_[kTile<T> + W];
  alignas(64) T own_[kTile<T> + W];
};

}  // namespace VF_ISA
}  // namespace vae_fast
