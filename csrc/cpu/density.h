// The pass that all densities (densities.h) make over their elements: terms and gradients in one, as they are or
// summed.
#pragma once

#include <array>
#include <utility>

#include "dispatch.h"
#include "kept.h"
#include "nonzeros.h"
#include "rows.h"

#include "../densities.h"

namespace vae_fast {
namespace VF_ISA {

// The upstream gradient of every element, times what the reduction makes of it.
template <class T>
class Upstream {
 public:
  explicit Upstream(const DensityCall& args)
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

// A call's weights, in passes of their own over tiles that are in a core's first cache: the loops between them make
// terms and slopes of the operands as they are, and know nothing of weights.
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
  template <size_t N>
  void mask(T* const (&gradients)[N], int64_t first, int n) {
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

// An operator's operands, of which a thread reads a tile at a time, and its gradients.
template <class T, class Op>
class DensityTiles {
  static constexpr int N = Op::kInputs, kCounts = CountsOf<Op>::value;
  using P = Pack<T>;
  using Sums = std::array<GradientSum<T>, N>;

 public:
  template <class Args, size_t... I>
  DensityTiles(const Args& args, const Op& op, const Sums& sums, const GradientSum<T>& dweight,
               std::index_sequence<I...>)
      : op_(op),
        in_{Reader<T>(args.in[I])...},
        weight_(args.weight),
        upstream_(args),
        out_{GradientTiles<T>(sums[I])...},
        dweight_(dweight),
        nonzeros_(args),
        value_(args.out != nullptr) {
    for (const auto& out : out_) grad_ = grad_ || out;
    for (T& one : ones_) one = T(1);
  }

  // `terms` has room for a tile's, whether they are asked for or not.
  void operator()(int64_t unit, int64_t piece, int64_t first, int n, T* terms) {
    if constexpr (kCounts >= 0) {
      // Their code is long: what makes both makes the weight's gradient too.
      if (dweight_ || (value_ && grad_)) {
        run<true, true, true>(first, n, terms);
      } else {
        value_ ? run<true, false, false>(first, n, terms) : run<false, true, false>(first, n, terms);
      }
    } else if (dweight_) {
      run<false, true, true>(first, n, terms);
    } else if (value_) {
      grad_ ? run<true, true, false>(first, n, terms) : run<true, false, false>(first, n, terms);
    } else {
      run<false, true, false>(first, n, terms);
    }
    for (auto& out : out_) out.commit(unit, piece, first, n);
    dweight_.commit(unit, piece, first, n);
  }

 private:
  // What a tile has: operands and gradients, upstream gradients, without and with weights, the weight's gradient,
  // terms.
  struct Tile {
    const T* in[N];
    T* out[N];
    const T *u, *g;
    T *dw, *terms;
    int n;
  };

  // Terms, gradients, and the weight's gradient.
  template <bool kValue, bool kGrad, bool kTerm>
  VF_INLINE void run(int64_t first, int n, T* terms) {
    Tile tile;
    for (int k = 0; k < N; ++k) {
      tile.in[k] = Op::always(k) || in_[k] ? in_[k].read(first, n) : nullptr;
      tile.out[k] = kGrad && out_[k] ? out_[k].place(first) : nullptr;
    }
    tile.u = upstream_.read(first, n);
    tile.g = weight_ && kGrad ? weight_.times(tile.u, first, n) : tile.u;
    tile.dw = kTerm && dweight_ ? dweight_.place(first) : nullptr;
    tile.terms = terms;
    tile.n = n;
    // A copy that no store into a gradient can change.
    const Op op = op_;
    if constexpr (kCounts < 0) {
      for_packs<T>(n, [&](int i, auto part)
                          __attribute__((always_inline)) { elements<kValue, kGrad, kTerm>(op, tile, i, part); });
    } else {
      if (nonzeros_.find(tile.in[kCounts], first, n)) zeros<kValue, kGrad, kTerm>(op, tile);
      nonzeros<kValue, kGrad, kTerm>(op, tile);
    }
    if (weight_ && kValue) weight_.weigh(terms, first, n);
    if (weight_ && kGrad) weight_.mask(tile.out, first, n);
  }

  // A pack of a tile's elements.
  template <bool kValue, bool kGrad, bool kTerm, class Made, class Part, class... Which>
  static VF_INLINE void elements(const Made& op, const Tile& tile, int i, Part part, Which... which) {
    P a[N], d[N], term;
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k) a[k] = Op::always(k) || tile.in[k] ? part.load(tile.in[k] + i) : P{};
    op(a, part.load(tile.g + i), term, d, which...);
    if (kValue) part.store(tile.terms + i, term);
#pragma GCC unroll 8
    for (int k = 0; k < N; ++k)
      if (kGrad && tile.out[k]) part.store(tile.out[k] + i, d[k]);
    if (kTerm && (kCounts < 0 || tile.dw)) part.store(tile.dw + i, part.load(tile.u + i) * term);
  }

  // All elements, as if their counts were 0.
  template <bool kValue, bool kGrad, bool kTerm>
  VF_INLINE void zeros(const Op& op, const Tile& tile) {
    if constexpr (!Nonzeros<T>::kLooks) {
    } else if constexpr (Op::kLater < 0) {
      for_packs<T>(tile.n, [&](int i, auto part) __attribute__((always_inline)) {
        elements<kValue, kGrad, kTerm>(op, tile, i, part, Some<false>{});
      });
    } else {
      constexpr int kLater = Op::kLater;
      const auto before = op.before();
      Tile first = tile;
      first.g = ones_;
      first.out[kLater] = nullptr;
      for_packs<T>(tile.n, [&](int i, auto part) __attribute__((always_inline)) {
        elements<true, kGrad, false>(before, first, i, part, Some<false>{});
      });
      for_packs<T>(tile.n, [&](int i, auto part) __attribute__((always_inline)) {
        const InflatedTerm<P> made = op.after(part.load(tile.terms + i), part.load(tile.in[kLater] + i));
        const P g = part.load(tile.g + i), share = g * made.share;
        if (kValue) part.store(tile.terms + i, made.log_prob);
#pragma GCC unroll 8
        for (int k = 0; k < kCounts; ++k)
          if (kGrad && k != kLater && tile.out[k]) part.store(tile.out[k] + i, share * part.load(tile.out[k] + i));
        if (kGrad && tile.out[kLater]) part.store(tile.out[kLater] + i, g * made.dlogits);
        if (kTerm && tile.dw) part.store(tile.dw + i, part.load(tile.u + i) * made.log_prob);
      });
    }
  }

  // Those whose counts are others, side by side.
  template <bool kValue, bool kGrad, bool kTerm>
  VF_INLINE void nonzeros(const Op& op, const Tile& tile) {
    Tile packed = tile;
    packed.n = nonzeros_.padded();
    for (int k = 0; k < N; ++k) {
      if (k == kCounts) {
        packed.in[k] = nonzeros_.counts();
      } else if (Op::always(k) || tile.in[k]) {
        packed.in[k] = nonzeros_.gather(tile.in[k], room_[k]);
      }
      // Written where what was read is read no more.
      if (kGrad && tile.out[k]) packed.out[k] = nonzeros_.place(tile.out[k], room_[k]);
    }
    packed.g = nonzeros_.gather(tile.g, room_[N]);
    packed.terms = nonzeros_.place(tile.terms, room_[N]);
    if (kTerm && tile.dw) {
      packed.u = nonzeros_.gather(tile.u, room_[N + 1]);
      packed.dw = nonzeros_.place(tile.dw, room_[N + 1]);
    }
    for (int i = 0; i < packed.n; i += kWidth<T>) elements<kValue, kGrad, kTerm>(op, packed, i, Full{}, Some<true>{});
    if (kValue) nonzeros_.scatter(packed.terms, tile.terms);
    for (int k = 0; k < N; ++k)
      if (kGrad && tile.out[k]) nonzeros_.scatter(packed.out[k], tile.out[k]);
    if (kTerm && tile.dw) nonzeros_.scatter(packed.dw, tile.dw);
  }

  Op op_;
  std::array<Reader<T>, N> in_;
  Weights<T> weight_;
  Upstream<T> upstream_;
  std::array<GradientTiles<T>, N> out_;
  GradientTiles<T> dweight_;
  std::conditional_t<(kCounts < 0), NoNonzeros, Nonzeros<T>> nonzeros_;
  bool value_, grad_ = false;
  // Of counts: what stands at those that are not 0; and 1 for every element.
  alignas(64) T room_[kCounts < 0 ? 1 : N + 2][kCounts < 0 ? 1 : kTile<T> + kWidth<T>];
  alignas(64) T ones_[kCounts < 0 ? 1 : kTile<T>];
};

// What a thread does of a call before it reads a block, which is the rows of a piece or the pieces of a row, and after
// it: nothing. `args` are what it reads.
template <class Args>
struct AsTheyAre {
  static constexpr bool kBlocks = false;
  const Args& args;

  AsTheyAre(const Args& args, const Pieces&) : args(args) {}
  void begin(int64_t) {}
  void end(int64_t) {}
};

template <class T, class Around, class Args, class Op, size_t... I>
void run_density(const Args& args, const Op& op, double cost, std::index_sequence<I...> all) {
  const KeptTiles kept(args, args.gradients);
  if (kept.as_they_are()) return;
  const Pieces pieces(args.rows);
  const int64_t units = units_of(pieces, args.gradients[I]..., args.dweight);
  const std::array<GradientSum<T>, Op::kInputs> sums{GradientSum<T>(args.gradients[I], pieces, units)...};
  const GradientSum<T> dweight(args.dweight, pieces, units);
  RowSums<T> rows(pieces, args.scale / args.divisor);
  rows.start(static_cast<T*>(args.out));
  parallel(args.parallel_for, args.rows, units, cost, [&](int64_t begin, int64_t end) {
    Around around(args, pieces);
    DensityTiles<T, Op> tiles(around.args, op, sums, dweight, all);
    alignas(64) T terms[kTile<T>];
    const int64_t per_block = Around::kBlocks ? pieces.per_row() : 1;
    const auto start = [&](int64_t unit) {
      const int64_t piece = unit_start(pieces, units, unit);
      return piece - piece % per_block;
    };
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t last = start(unit + 1);
      for (int64_t piece = start(unit); piece < last; ++piece) {
        const int64_t row = piece / per_block * pieces.rows_each();
        if (piece % per_block == 0) around.begin(row);
        double running = 0;
        pieces.template for_tiles<T>(piece, [&](int64_t first, int n) {
          if (kept.scale(first, n)) return;
          tiles(unit, piece, first, n, terms);
          if (rows) rows.add(piece, first, n, terms, running);
        });
        if ((piece + 1) % per_block == 0) around.end(row);
      }
    }
  });
  rows.finish();
  for (const auto& sum : sums) sum.finish();
  dweight.finish();
}

// Runs an operator that computes in T, with something Around its blocks or nothing; `cost` is about how many
// nanoseconds an element takes.
template <class T, class Around = void, class Args, class Op>
void run_density(const Args& args, const Op& op, double cost) {
  static_assert(Args::kInputs >= Op::kInputs, "an operand is missing");
  using Own = std::conditional_t<std::is_void_v<Around>, AsTheyAre<Args>, Around>;
  run_density<T, Own>(args, op, cost, std::make_index_sequence<Op::kInputs>());
}

}  // namespace VF_ISA
}  // namespace vae_fast
