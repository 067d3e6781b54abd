// The work of an operator on rows of elements: how it is cut into pieces for threads, and sums that no number of
// threads changes.
#pragma once

#include <memory>

#include "../kernels.h"
#include "views.h"

namespace vae_fast {
namespace VF_ISA {

constexpr int64_t kPiece = 8192;

// The elements of all rows in pieces of about kPiece: part of one long row, or several short rows.
class Pieces {
 public:
  explicit Pieces(const Rows& rows) : rows_(rows) {
    if (rows.size > kPiece) {
      per_row_ = (rows.size + kPiece - 1) / kPiece;
      count_ = rows.count * per_row_;
    } else {
      // Of no elements there are none, however many rows.
      if (rows.size == 0) return;
      rows_each_ = kPiece / rows.size;
      count_ = (rows.count + rows_each_ - 1) / rows_each_;
    }
  }

  const Rows& rows() const { return rows_; }
  int64_t count() const { return count_; }
  // How many pieces a row is cut into: 1 for short rows, of which a piece has `rows_each`.
  int64_t per_row() const { return per_row_; }
  int64_t rows_each() const { return rows_each_; }

  // Calls tile(first, n) for the tiles of a piece: whole rows, or elements of one row.
  template <class T, class F>
  VF_INLINE void for_tiles(int64_t piece, F&& tile) const {
    int64_t first, last;
    if (per_row_ > 1) {
      first = piece / per_row_ * rows_.size + piece % per_row_ * kPiece;
      const int64_t end = (piece / per_row_ + 1) * rows_.size;
      last = first + kPiece < end ? first + kPiece : end;
    } else {
      const int64_t row = piece * rows_each_, end = row + rows_each_;
      first = row * rows_.size;
      last = (end < rows_.count ? end : rows_.count) * rows_.size;
    }
    const bool whole = rows_.size <= kTile<T>;
    const int64_t step = whole ? kTile<T> / rows_.size * rows_.size : kTile<T>;
    while (first < last) {
      int64_t next = first + step;
      if (!whole) {
        const int64_t row_end = (first / rows_.size + 1) * rows_.size;
        next = next < row_end ? next : row_end;
      }
      next = next < last ? next : last;
      tile(first, static_cast<int>(next - first));
      first = next;
    }
  }

 private:
  Rows rows_;
  int64_t per_row_ = 1, rows_each_ = 1, count_ = 0;
};

// Σ of n terms, n ≤ kTile: in 16 lanes whatever the instruction set, 16 additions in T at a time, the rest in double.
template <class T>
VF_INLINE double sum_of(const T* terms, int n) {
  constexpr int kLanes = 16, kSteps = 16, kPacks = kLanes / kWidth<T>;
  double wide[kLanes] = {};
  int i = 0;
  while (i + kLanes <= n) {
    Pack<T> sum[kPacks] = {};
    const int last = i + kLanes * kSteps <= n ? i + kLanes * kSteps : n - n % kLanes;
    for (; i < last; i += kLanes)
      for (int k = 0; k < kPacks; ++k) sum[k] += load(terms + i + k * kWidth<T>);
    T lane[kLanes];
    std::memcpy(lane, sum, sizeof lane);
    for (int k = 0; k < kLanes; ++k) wide[k] += static_cast<double>(lane[k]);
  }
  for (int k = 0; i < n; ++i, ++k) wide[k] += static_cast<double>(terms[i]);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int k = 0; k < half; ++k) wide[k] += wide[k + half];
  return wide[0];
}

// One sum a row. Pieces add to it on any thread; finish() gives the sums.
template <class T>
class RowSums {
 public:
  RowSums(const Pieces& pieces, double factor) : pieces_(pieces), factor_(factor) {}

  // The sum of every row goes to `out`; where it is null nothing is summed.
  void start(T* out) {
    out_ = out;
    if (!out_) return;
    if (pieces_.per_row() > 1) partial_.reset(new double[pieces_.count()]);
    if (pieces_.rows().size == 0)
      for (int64_t r = 0; r < pieces_.rows().count; ++r) out_[r] = static_cast<T>(0.0 * factor_);
  }
  explicit operator bool() const { return out_ != nullptr; }

  // A tile's terms. `running` belongs to the piece, and is 0 at its start.
  VF_INLINE void add(int64_t piece, int64_t first, int n, const T* terms, double& running) const {
    const int64_t size = pieces_.rows().size;
    if (pieces_.per_row() > 1) {
      running += sum_of(terms, n);
      partial_[piece] = running;
    } else if (size > kTile<T>) {
      running += sum_of(terms, n);
      if ((first + n) % size == 0) {
        out_[first / size] = static_cast<T>(running * factor_);
        running = 0;
      }
    } else {
      short_rows(out_ + first / size, n / static_cast<int>(size), static_cast<int>(size), terms);
    }
  }

  void finish() const {
    const int64_t per_row = pieces_.per_row();
    if (!out_ || per_row == 1) return;
    for (int64_t r = 0; r < pieces_.rows().count; ++r) {
      double sum = 0;
      for (int64_t k = 0; k < per_row; ++k) sum += partial_[r * per_row + k];
      out_[r] = static_cast<T>(sum * factor_);
    }
  }

 private:
  VF_INLINE void short_rows(T* out, int count, int size, const T* terms) const {
    int r = 0;
    if (size == 1) {
      for (; r < count; ++r) out[r] = static_cast<T>((0.0 + static_cast<double>(terms[r])) * factor_);
      return;
    }
    if (size < 32) {
      // Rows side by side: each sum waits for its own additions only.
      constexpr int kBeside = 8;
      for (; r + kBeside <= count; r += kBeside) {
        double sum[kBeside] = {};
        for (int i = 0; i < size; ++i)
          for (int k = 0; k < kBeside; ++k) sum[k] += static_cast<double>(terms[(r + k) * size + i]);
        for (int k = 0; k < kBeside; ++k) out[r + k] = static_cast<T>(sum[k] * factor_);
      }
      for (; r < count; ++r) {
        double sum = 0;
        for (int i = 0; i < size; ++i) sum += static_cast<double>(terms[r * size + i]);
        out[r] = static_cast<T>(sum * factor_);
      }
      return;
    }
    for (; r < count; ++r) out[r] = static_cast<T>(sum_of(terms + r * size, size) * factor_);
  }

  const Pieces& pieces_;
  double factor_;
  T* out_ = nullptr;
  std::unique_ptr<double[]> partial_;
};

// A gradient in the making: shared by all threads, each of which has a GradientTiles.
template <class T>
class GradientSum {
 public:
  GradientSum(const Gradient& gradient, const Pieces& pieces, int64_t units)
      : gradient_(gradient), pieces_(pieces), units_(units), sums_(pieces, 1.0) {
    if (gradient.kind == Gradient::kRow) {
      rows_.reset(new T[pieces.rows().count]);
      sums_.start(rows_.get());
    } else if (gradient.kind == Gradient::kPartial) {
      partial_.reset(new double[units * gradient.numel]());
    }
  }

  void finish() const {
    if (gradient_.kind == Gradient::kRow) {
      sums_.finish();
      write(rows_.get());
    } else if (gradient_.kind == Gradient::kPartial) {
      const int64_t n = gradient_.numel;
      std::unique_ptr<T[]> total(new T[n]);
      for (int64_t i = 0; i < n; ++i) {
        double sum = 0;
        for (int64_t u = 0; u < units_; ++u) sum += partial_[u * n + i];
        total[i] = static_cast<T>(sum);
      }
      write(total.get());
    }
  }

 private:
  template <class>
  friend class GradientTiles;

  void write(const T* values) const {
    Writer<T> writer(gradient_.view);
    for (int64_t first = 0; first < gradient_.numel; first += kTile<T>) {
      const int64_t left = gradient_.numel - first;
      const int n = left < kTile<T> ? static_cast<int>(left) : kTile<T>;
      std::memcpy(writer.place(first), values + first, n * sizeof(T));
      writer.commit(first, n);
    }
  }

  const Gradient& gradient_;
  const Pieces& pieces_;
  int64_t units_;
  RowSums<T> sums_;
  std::unique_ptr<T[]> rows_;
  std::unique_ptr<double[]> partial_;
};

// A thread's way to a gradient: place() gives the memory for a tile's values, commit() takes them.
template <class T>
class GradientTiles {
 public:
  explicit GradientTiles(const GradientSum<T>& sum) : sum_(sum), kind_(sum.gradient_.kind), each_(sum.gradient_.view) {}

  explicit operator bool() const { return kind_ != Gradient::kNone; }

  T* place(int64_t first) { return kind_ == Gradient::kEach ? each_.place(first) : buffer_; }

  VF_INLINE void commit(int64_t unit, int64_t piece, int64_t first, int n) {
    switch (kind_) {
      case Gradient::kNone: break;
      case Gradient::kEach: each_.commit(first, n); break;
      case Gradient::kRow:
        if (piece != piece_) running_ = 0;
        piece_ = piece;
        sum_.sums_.add(piece, first, n, buffer_, running_);
        break;
      case Gradient::kPartial: accumulate(unit, first, n); break;
    }
  }

 private:
  __attribute__((noinline)) void accumulate(int64_t unit, int64_t first, int n) {
    double* total = sum_.partial_.get() + unit * sum_.gradient_.numel;
    const T* from = buffer_;
    for_runs(sum_.gradient_.index, first, n, [&](int64_t position, int64_t stride, int run) {
      double* to = total + position;
      if (stride == 0) {
        *to += sum_of(from, run);
      } else if (stride == 1) {
        for (int i = 0; i < run; ++i) to[i] += static_cast<double>(from[i]);
      } else {
        for (int i = 0; i < run; ++i) to[i * stride] += static_cast<double>(from[i]);
      }
      from += run;
    });
  }

  const GradientSum<T>& sum_;
  Gradient::Kind kind_;
  Writer<T> each_;
  int64_t piece_ = -1;
  double running_ = 0;
  alignas(64) T buffer_[kTile<T>];
};

// How many units of work the pieces make. With partial sums to keep there are few, whatever the number of threads.
template <class... G>
int64_t units_of(const Pieces& pieces, const G&... gradients) {
  int64_t units = pieces.count();
  const auto limit = [&](const Gradient& g) {
    if (g.kind != Gradient::kPartial) return;
    const int64_t room = (int64_t{1} << 19) / (g.numel > 0 ? g.numel : 1);
    const int64_t most = room < 1 ? 1 : room < 32 ? room : 32;
    units = units < most ? units : most;
  };
  (limit(gradients), ...);
  return units;
}

// Calls body(first_unit, last_unit) on ranges of units, on several threads where the work is worth it.
// `cost` is about how many nanoseconds an element takes.
template <class F>
void parallel(ParallelFor parallel_for, const Rows& rows, int64_t units, double cost, const F& body) {
  constexpr double kWorthAThread = 20e3;
  const double unit_cost =
      cost * static_cast<double>(rows.count * rows.size) / static_cast<double>(units > 0 ? units : 1);
  const int64_t grain = unit_cost >= kWorthAThread ? 1 : 1 + static_cast<int64_t>(kWorthAThread / (unit_cost + 1));
  if (units > grain) {
    parallel_for(
        units, grain,
        [](void* context, int64_t first, int64_t last) { (*static_cast<const F*>(context))(first, last); },
        const_cast<void*>(static_cast<const void*>(&body)));
  } else if (units > 0) {
    body(0, units);
  }
}

// The pieces of a unit, as a range.
VF_INLINE int64_t unit_start(const Pieces& pieces, int64_t units, int64_t unit) {
  return pieces.count() * unit / units;
}

// The elements of a tile by packs: full ones, then the rest.
struct Full {
  template <class T>
  VF_INLINE Pack<T> load(const T* from) const {
    return VF_ISA::load(from);
  }
  template <class T>
  VF_INLINE void store(T* to, Pack<T> a) const {
    VF_ISA::store(to, a);
  }
};
struct Part {
  int n;
  template <class T>
  VF_INLINE Pack<T> load(const T* from) const {
    return VF_ISA::load(from, n);
  }
  template <class T>
  VF_INLINE void store(T* to, Pack<T> a) const {
    VF_ISA::store(to, a, n);
  }
};

template <class T, class F>
VF_INLINE void for_packs(int n, F&& f) {
  int i = 0;
  for (; i + kWidth<T> <= n; i += kWidth<T>) f(i, Full{});
  if (i < n) f(i, Part{n - i});
}

}  // namespace VF_ISA
}  // namespace vae_fast
