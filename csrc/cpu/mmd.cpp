// The squared maximum mean discrepancy of two sets of points, and its gradients: sums of a kernel over pairs of points,
// and of its slopes, row by row. Nothing of points × points is kept.
#include <algorithm>
#include <memory>
#include <vector>

#include "../table.h"
#include "dispatch.h"
#include "lanes.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// Panels whose terms are summed in T.
constexpr int64_t kSteps = 16;

// Sums over pairs of points: of each row of x, that over all rows of y of the kernel at their squared distance; and,
// where `slopes` is there, that of its derivative by the row of x.
template <class T>
struct Pairs {
  int64_t rows, others, dims;
  bool exponential;
  const T *x, *y;
  const std::vector<T>& constants;
  double* sums;
  double* slopes;
};

// The other points, dim by dim of 16 at a time.
template <class T>
class Points {
 public:
  explicit Points(const Pairs<T>& args) : n_(args.others), dims_(args.dims), count_((n_ + kLanes - 1) / kLanes) {
    values_.reset(new T[count_ * dims_ * kLanes]());
    const T* from = args.y;
    for (int64_t i = 0; i < n_; ++i)
      for (int64_t d = 0; d < dims_; ++d) values_[(i / kLanes * dims_ + d) * kLanes + i % kLanes] = from[i * dims_ + d];
  }

  int64_t count() const { return count_; }
  VF_INLINE Lanes<T> at(int64_t panel, int64_t d) const {
    return Lanes<T>::at(values_.get() + (panel * dims_ + d) * kLanes);
  }
  // 1 of a point, 0 where a panel has none.
  VF_INLINE Lanes<T> there(int64_t panel) const {
    T all[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) all[k] = panel * kLanes + k < n_ ? T(1) : T(0);
    return Lanes<T>::at(all);
  }
  VF_INLINE bool full(int64_t panel) const { return (panel + 1) * kLanes <= n_; }

 private:
  int64_t n_, dims_, count_;
  std::unique_ptr<T[]> values_;
};

// The kernel at d² and, of twice its derivative by d², the negative.
template <class T>
struct Value {
  Lanes<T> value, slope;
};

template <class T>
VF_INLINE Value<T> kernel_at(const Pairs<T>& args, const Lanes<T>& square) {
  Value<T> made{Lanes<T>::of(0), Lanes<T>::of(0)};
  if (args.exponential) {
    const T rate = T(1) / args.constants[0];
    made.value = each<T>([&](int k) { return exp(square.pack[k] * splat<Pack<T>>(-rate)); });
    made.slope = each<T>([&](int k) { return made.value.pack[k] * splat<Pack<T>>(2 * rate); });
    return made;
  }
  for (const T constant : args.constants) {
    const Pack<T> c = splat<Pack<T>>(constant);
    const Lanes<T> over = each<T>([&](int k) { return splat<Pack<T>>(T(1)) / (c + square.pack[k]); });
    const Lanes<T> term = each<T>([&](int k) { return c * over.pack[k]; });
    made.value = each<T>([&](int k) { return made.value.pack[k] + term.pack[k]; });
    made.slope = each<T>([&](int k) { return fma(term.pack[k], over.pack[k] + over.pack[k], made.slope.pack[k]); });
  }
  return made;
}

template <class T>
void row(const Pairs<T>& args, const Points<T>& others, int64_t i) {
  const T* point = args.x + i * args.dims;
  double total = 0;
  double* wide = args.slopes ? args.slopes + i * args.dims : nullptr;
  const std::unique_ptr<T[]> slopes(wide ? new T[args.dims * kLanes] : nullptr);
  for (int64_t d = 0; wide && d < args.dims; ++d) wide[d] = 0;
  for (int64_t first = 0; first < others.count(); first += kSteps) {
    const int64_t last = first + kSteps < others.count() ? first + kSteps : others.count();
    Lanes<T> sum = Lanes<T>::of(0);
    if (wide) std::fill_n(slopes.get(), args.dims * kLanes, T(0));
    for (int64_t p = first; p < last; ++p) {
      Lanes<T> square = Lanes<T>::of(0);
      for (int64_t d = 0; d < args.dims; ++d) {
        const Lanes<T> other = others.at(p, d);
        square = each<T>([&](int k) {
          const Pack<T> difference = splat<Pack<T>>(point[d]) - other.pack[k];
          return fma(difference, difference, square.pack[k]);
        });
      }
      Value<T> at = kernel_at(args, square);
      if (!others.full(p)) {
        const Lanes<T> there = others.there(p);
        at.value = each<T>([&](int k) { return select(there.pack[k] > T(0), at.value.pack[k], there.pack[k]); });
        at.slope = each<T>([&](int k) { return select(there.pack[k] > T(0), at.slope.pack[k], there.pack[k]); });
      }
      sum = each<T>([&](int k) { return sum.pack[k] + at.value.pack[k]; });
      for (int64_t d = 0; wide && d < args.dims; ++d) {
        const Lanes<T> other = others.at(p, d), before = Lanes<T>::at(slopes.get() + d * kLanes);
        each<T>([&](int k) {
          // A slope of 0 is none of an infinite distance.
          const Pack<T> by = at.slope.pack[k] * (splat<Pack<T>>(point[d]) - other.pack[k]);
          return before.pack[k] - select(at.slope.pack[k] == T(0), at.slope.pack[k], by);
        }).to(slopes.get() + d * kLanes);
      }
    }
    T lanes[kLanes];
    sum.to(lanes);
    total += sum_of(lanes, kLanes);
    for (int64_t d = 0; wide && d < args.dims; ++d) wide[d] += sum_of(slopes.get() + d * kLanes, kLanes);
  }
  args.sums[i] = total;
}

// What the mean over pairs of set `of` with set `with`, times a factor, adds to the value and, where it is there, to
// the gradient of the first.
template <class T>
double mean(const MmdArgs& args, const std::vector<T>& constants, int of, int with, double factor,
            std::vector<double>* gradient) {
  const int64_t rows = args.points[of], others = args.points[with];
  std::vector<double> sums(static_cast<size_t>(rows)), slopes(gradient ? gradient->size() : 0);
  const Pairs<T> pairs{rows,
                       others,
                       args.dims,
                       args.exponential,
                       static_cast<const T*>(args.of[of]),
                       static_cast<const T*>(args.of[with]),
                       constants,
                       sums.data(),
                       gradient ? slopes.data() : nullptr};
  const Points<T> points(pairs);
  for_all(args.parallel_for, rows, others * args.dims, [&](int64_t i) { row(pairs, points, i); });
  double total = 0;
  for (const double sum : sums) total += sum;
  const double n = static_cast<double>(rows), m = static_cast<double>(others);
  // A point's own kernel is 1 a constant.
  const bool itself = of == with, without = itself && args.unbiased;
  if (without) total -= n * static_cast<double>(constants.size());
  const double each = factor / (without ? n * (n - 1) : n * m);
  // Of a set with itself each point is in two places.
  for (size_t i = 0; i < slopes.size(); ++i) (*gradient)[i] += (itself ? 2 : 1) * each * slopes[i];
  return each * total;
}

template <class T>
void put(const std::vector<double>& from, void* to) {
  for (size_t i = 0; i < from.size(); ++i) static_cast<T*>(to)[i] = static_cast<T>(from[i]);
}

}  // namespace

void mmd(const MmdArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const std::vector<T> constants(args.constants, args.constants + args.n_constants);
    std::vector<double> made[2];
    std::vector<double>* wanted[2] = {};
    for (int k = 0; k < 2; ++k)
      if (args.gradients[k]) {
        made[k].resize(static_cast<size_t>(args.points[k] * args.dims));
        wanted[k] = &made[k];
      }
    double value = mean(args, constants, 0, 0, 1, wanted[0]);
    value += mean(args, constants, 1, 1, 1, wanted[1]);
    value += mean(args, constants, 0, 1, -2, wanted[0]);
    if (wanted[1]) mean(args, constants, 1, 0, -2, wanted[1]);
    *static_cast<T*>(args.value) = static_cast<T>(value);
    for (int k = 0; k < 2; ++k) put<T>(made[k], args.gradients[k]);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
