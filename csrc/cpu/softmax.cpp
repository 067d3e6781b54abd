// softmax over rows, as its largest logit and the logarithm of its sum, and the gradient by the logits.
#include <limits>

#include "../table.h"
#include "dispatch.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// A row, or a part of one that is a piece long at most: the order of its sum is by the row's length alone.
struct Segments {
  Rows rows;
  int64_t each, per_row;

  explicit Segments(const Rows& rows)
      : rows(rows), each(rows.size < kPiece ? rows.size : kPiece), per_row((rows.size + kPiece - 1) / kPiece) {}

  int64_t count() const { return rows.count * per_row; }
  int64_t first(int64_t segment) const { return segment / per_row * rows.size + segment % per_row * each; }
  int64_t size(int64_t segment) const {
    const int64_t left = rows.size - segment % per_row * each;
    return left < each ? left : each;
  }
};

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

// Σ e^(value − top); of nothing but −∞ it is 0.
template <class T>
double sum_of_exponentials(const T* values, int64_t n, T top) {
  const T shift = top == -std::numeric_limits<T>::infinity() ? T(0) : top;
  alignas(64) T terms[kTile<T>];
  double sum = 0;
  for (int64_t first = 0; first < n; first += kTile<T>) {
    const int m = static_cast<int>(n - first < kTile<T> ? n - first : kTile<T>);
    for_packs<T>(m, [&](int i, auto part) __attribute__((always_inline)) {
      part.store(terms + i, exp(part.load(values + first + i) - shift));
    });
    sum += sum_of(terms, m);
  }
  return sum;
}

// Calls body(segment) for each, on several threads.
template <class F>
void for_segments(const SoftmaxArgs& args, const Segments& segments, double cost, const F& body) {
  parallel(args.parallel_for, args.rows, segments.count(), cost, [&](int64_t begin, int64_t end) {
    for (int64_t segment = begin; segment < end; ++segment) body(segment);
  });
}

template <class T>
void forward(const SoftmaxArgs& args) {
  const T* logits = static_cast<const T*>(args.logits);
  T *top = static_cast<T*>(args.top), *log_sum = static_cast<T*>(args.log_sum);
  const Segments segments(args.rows);
  std::unique_ptr<T[]> tops(new T[segments.count()]);
  std::unique_ptr<double[]> sums(new double[segments.count()]);
  for_segments(args, segments, 1.0, [&](int64_t segment) {
    const T* values = logits + segments.first(segment);
    tops[segment] = largest(values, segments.size(segment));
    sums[segment] = sum_of_exponentials(values, segments.size(segment), tops[segment]);
  });
  for (int64_t r = 0; r < args.rows.count; ++r) {
    const int64_t from = r * segments.per_row;
    const T all = largest(tops.get() + from, segments.per_row);
    double sum = 0;
    for (int64_t k = from; k < from + segments.per_row; ++k)
      sum += tops[k] == all ? sums[k] : sums[k] * exp(static_cast<double>(tops[k]) - static_cast<double>(all));
    top[r] = all;
    log_sum[r] = static_cast<T>(log(sum));
  }
}

template <class T>
void backward(const SoftmaxArgs& args) {
  const T *logits = static_cast<const T*>(args.logits), *top = static_cast<const T*>(args.top);
  const T *log_sum = static_cast<const T*>(args.log_sum), *total = static_cast<const T*>(args.total);
  T* gradient = static_cast<T*>(args.gradient);
  const Segments segments(args.rows);
  for_segments(args, segments, 0.7, [&](int64_t segment) {
    const int64_t r = segment / segments.per_row, first = segments.first(segment);
    for_packs<T>(static_cast<int>(segments.size(segment)), [&](int i, auto part) __attribute__((always_inline)) {
      const Pack<T> share = exp((part.load(logits + first + i) - top[r]) - log_sum[r]);
      part.store(gradient + first + i, part.load(gradient + first + i) - share * total[r]);
    });
  });
}

}  // namespace

void softmax_fwd(const SoftmaxArgs& args) {
  if (args.rows.count * args.rows.size == 0) return;
  in_dtype(args.compute, [&](auto number) { forward<decltype(number)>(args); });
}

void softmax_bwd(const SoftmaxArgs& args) {
  if (args.rows.count * args.rows.size == 0) return;
  in_dtype(args.compute, [&](auto number) { backward<decltype(number)>(args); });
}

}  // namespace VF_ISA
}  // namespace vae_fast
