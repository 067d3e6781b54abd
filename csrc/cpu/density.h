// What the densities share: the upstream gradient and the sums of a tile of terms.
#pragma once

#include <initializer_list>

#include "dispatch.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {

// The upstream gradient of every element, times what the reduction makes of it.
template <class T>
class Upstream {
 public:
  explicit Upstream(const DensityArgs& args)
      : reader_(args.upstream), scale_(static_cast<T>(args.scale)), each_(args.upstream && !args.upstream.constant()) {
    const T divisor = static_cast<T>(args.divisor);
    if (each_ || args.rows.count * args.rows.size == 0) return;
    const T value = (args.upstream ? *reader_.read(0, 1) : T(1)) * scale_ / divisor;
    for (T& b : buffer_) b = value;
  }

  const T* read(int64_t first, int n) {
    if (!each_) return buffer_;
    const T* from = reader_.read(first, n);
    if (scale_ == T(1)) return from;
    for (int i = 0; i < n; ++i) buffer_[i] = from[i] * scale_;
    return buffer_;
  }

 private:
  Reader<T> reader_;
  T scale_;
  bool each_;
  alignas(64) T buffer_[kTile<T>];
};

// A call's weights, in passes of their own over tiles that are in a core's first cache: the loops between them make terms
// and slopes of the operands as they are, and know nothing of weights.
template <class T>
class Weights {
 public:
  explicit Weights(const View& view) : reader_(view) {}

  explicit operator bool() const { return static_cast<bool>(reader_); }

  // The upstream gradients times the weights of a tile.
  __attribute__((noinline)) const T* times(const T* upstream, int64_t first, int n) {
    const T* w_ = reader_.read(first, n);
    bool zeros = false;
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const Pack<T> w = part.load(w_ + i);
      zeros = zeros || any(w == T(0));
      part.store(weighted_ + i, part.load(upstream + i) * w);
    });
    zeros_ = zeros;
    return weighted_;
  }

  // Terms times weights; 0 where the weight is, whatever the term.
  __attribute__((noinline)) void weigh(T* terms, int64_t first, int n) {
    const T* w_ = reader_.read(first, n);
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const Pack<T> w = part.load(w_ + i);
      part.store(terms + i, select(w == T(0), splat<Pack<T>>(0), part.load(terms + i) * w));
    });
  }

  // The same of gradients made of times()'s: what they are elsewhere is right already.
  void mask(std::initializer_list<T*> gradients, int64_t first, int n) {
    if (!zeros_) return;
    const T* w_ = reader_.read(first, n);
    for (T* values : gradients)
      if (values) mask(values, w_, n);
  }

 private:
  __attribute__((noinline)) static void mask(T* values, const T* w_, int n) {
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      part.store(values + i, select(part.load(w_ + i) == T(0), splat<Pack<T>>(0), part.load(values + i)));
    });
  }

  Reader<T> reader_;
  bool zeros_ = false;
  alignas(64) T weighted_[kTile<T>];
};

// Runs body(tile) over all elements: `make()` gives every thread its own body, called with (unit, piece, first, n) and
// the memory for the tile's terms. Sums the terms by row into args.out where that is asked for.
template <class T, class Make>
void sum_rows(const DensityArgs& args, const Pieces& pieces, int64_t units, double cost, const Make& make) {
  RowSums<T> sums(pieces, args.scale / args.divisor);
  sums.start(static_cast<T*>(args.out));
  parallel(args.parallel_for, args.rows, units, cost, [&](int64_t begin, int64_t end) {
    auto body = make();
    alignas(64) T terms[kTile<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t last = unit_start(pieces, units, unit + 1);
      for (int64_t piece = unit_start(pieces, units, unit); piece < last; ++piece) {
        double running = 0;
        pieces.template for_tiles<T>(piece, [&](int64_t first, int n) {
          body(unit, piece, first, n, terms);
          if (sums) sums.add(piece, first, n, terms, running);
        });
      }
    }
  });
  sums.finish();
}

}  // namespace VF_ISA
}  // namespace vae_fast
