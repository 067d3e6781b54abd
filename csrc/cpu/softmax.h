// A mean by a softmax's share of a library, made and read a block of rows at a time: of each row the means and their
// logarithms before the density, and after it the gradient by the logits, while all of it is in a core's caches.
#pragma once

#include <limits>

#include "dispatch.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {

template <class T>
T largest(const T* values, int64_t n) {
  T top = values[0];
  int64_t i = 0;
  if (n >= kWidth<T>) {
    Pack<T> most = load(values);
    for (i = kWidth<T>; i + kWidth<T> <= n; i += kWidth<T>) {
      const Pack<T> next = load(values + i);
      most = select(next > most, next, most);
    }
    for (int k = 0; k < kWidth<T>; ++k) top = most[k] > top ? most[k] : top;
  }
  for (; i < n; ++i) top = values[i] > top ? values[i] : top;
  return top;
}

// Calls part(first, n) for the parts of a row whose sums are added up.
template <class T, class F>
VF_INLINE void for_parts(int64_t size, F&& part) {
  for (int64_t first = 0; first < size; first += kTile<T>)
    part(first, static_cast<int>(size - first < kTile<T> ? size - first : kTile<T>));
}

// The operands of ShareDensity, whose first and last a thread makes a block of.
struct ShareArgs : CountArgs<6, 4, 4> {
  View logits, library;

  explicit ShareArgs(const NegativeBinomialSharesArgs& args) {
    static_cast<DensityCall&>(*this) = args;
    sparse = args.sparse;
    for (int k = 0; k < 5; ++k) in[k] = args.in[k], gradients[k] = args.gradients[k];
    logits = in[0];
    library = in[3];
    in[3] = View();
    // "sum" and "mean" have one row, a softmax more; of no elements nothing is made.
    if (rows.count == args.softmax.count || rows.size == 0) return;
    rows = args.softmax;
    for (Gradient* g : {gradients, gradients + 1, gradients + 2, gradients + 3, &dweight})
      if (g->kind == Gradient::kRow) g->kind = Gradient::kPartial;
  }
};

// A thread's block, as run_density's Around.
template <class T>
class ShareBlocks {
 public:
  static constexpr bool kBlocks = true;
  ShareArgs args;

  ShareBlocks(const ShareArgs& all, const Pieces& pieces)
      : args(all),
        rows_(all.rows),
        each_(pieces.rows_each()),
        logits_(static_cast<const T*>(all.logits.data)),
        gradient_(all.gradients[0].kind == Gradient::kNone ? nullptr : static_cast<T*>(all.gradients[0].view.data)),
        library_(args.library),
        log_means_(new T[each_ * rows_.size]),
        means_(new T[each_ * rows_.size]),
        made_(new Row[each_]) {
    const View& view = args.library;
    even_ = !library_ || (view.stride[view.ndim - 1] == 0 && view.size[view.ndim - 1] % rows_.size == 0);
    args.in[0] = over_blocks(log_means_.get());
    args.in[5] = over_blocks(means_.get());
  }

  // Of the rows from `row` on.
  void begin(int64_t row) {
    for (int64_t k = 0; k < each_ && row + k < rows_.count; ++k) make(row + k, k);
  }

  void end(int64_t row) {
    if (!gradient_) return;
    for (int64_t k = 0; k < each_ && row + k < rows_.count; ++k) by_logits(row + k, k);
  }

 private:
  struct Row {
    T top, library;  // e^library; 0 where it is not one number
    double sum;
  };

  // A view of every block's elements, of which there is one.
  View over_blocks(T* data) const {
    View view;
    view.data = data;
    view.dtype = kDType<T>;
    view.append((rows_.count + each_ - 1) / each_, 0);
    view.append(each_ * rows_.size, 1);
    return view;
  }

  __attribute__((noinline)) void make(int64_t row, int64_t k) {
    const T* logits = logits_ + row * rows_.size;
    T *means = means_.get() + k * rows_.size, *log_means = log_means_.get() + k * rows_.size;
    const T top = largest(logits, rows_.size), least = -std::numeric_limits<T>::infinity();
    // Of nothing but −∞ the sum is 0.
    const T shift = top == least ? T(0) : top;
    double sum = 0;
    for_parts<T>(rows_.size, [&](int64_t first, int n) __attribute__((always_inline)) {
      for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
        part.store(means + first + i, exp_to_a_unit(part.load(logits + first + i) - shift));
      });
      sum += sum_of(means + first, n);
    });
    const double library = even_ && library_ ? static_cast<double>(*library_.read(row * rows_.size, 1)) : 0.0;
    const T log_factor = static_cast<T>(library - log(sum)), factor = static_cast<T>(exp(library) / sum);
    made_[k] = {top, even_ ? static_cast<T>(exp(library)) : T(0), sum};
    for_parts<T>(rows_.size, [&](int64_t first, int n) __attribute__((always_inline)) {
      const T* each = even_ ? nullptr : library_.read(row * rows_.size + first, n);
      for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
        Pack<T> log_mean = (part.load(logits + first + i) - top) + log_factor;
        if (each) {
          log_mean = (part.load(logits + first + i) - top) + (part.load(each + i) + log_factor);
          part.store(means + first + i, exp(log_mean));
        } else {
          part.store(means + first + i, part.load(means + first + i) * factor);
        }
        part.store(log_means + first + i, log_mean);
      });
    });
  }

  // From the gradient by the logarithms of the shares: less each share of its sum.
  __attribute__((noinline)) void by_logits(int64_t row, int64_t k) {
    const Row& of = made_[k];
    const T *logits = logits_ + row * rows_.size, *means = means_.get() + k * rows_.size;
    T* gradient = gradient_ + row * rows_.size;
    double total = 0;
    for_parts<T>(rows_.size, [&](int64_t first, int n) { total += sum_of(gradient + first, n); });
    // The means are the shares times e^library, where that has left their digits.
    const bool kept = of.library > T(1e-20) && of.library < T(1e20);
    const T factor = static_cast<T>(kept ? total / static_cast<double>(of.library) : total / of.sum);
    for_parts<T>(rows_.size, [&](int64_t first, int n) __attribute__((always_inline)) {
      for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
        const int64_t at = first + i;
        const Pack<T> share = kept ? part.load(means + at) : exp(part.load(logits + at) - of.top);
        part.store(gradient + at, part.load(gradient + at) - share * factor);
      });
    });
  }

  Rows rows_;
  int64_t each_;
  const T* logits_;
  T* gradient_;
  Reader<T> library_;
  bool even_;  // the library is one number a row
  std::unique_ptr<T[]> log_means_, means_;
  std::unique_ptr<Row[]> made_;
};

}  // namespace VF_ISA
}  // namespace vae_fast
