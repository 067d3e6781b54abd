// Sums of a kernel over pairs of points and its slopes, row by row: nothing of points × points is kept.
#include <algorithm>
#include <memory>

#include "../table.h"
#include "dispatch.h"
#include "lanes.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// Panels whose terms are summed in T.
constexpr int64_t kSteps = 16;

// The other points, dim by dim of 16 at a time.
template <class T>
class Points {
 public:
  explicit Points(const PairsArgs& args) : n_(args.others), dims_(args.dims), count_((n_ + kLanes - 1) / kLanes) {
    values_.reset(new T[count_ * dims_ * kLanes]());
    const T* from = static_cast<const T*>(args.y);
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
VF_INLINE Value<T> kernel_at(const PairsArgs& args, const Lanes<T>& square) {
  const T* constants = static_cast<const T*>(args.constants);
  Value<T> made{Lanes<T>::of(0), Lanes<T>::of(0)};
  if (args.exponential) {
    const T rate = T(1) / constants[0];
    made.value = each<T>([&](int k) { return exp(square.pack[k] * splat<Pack<T>>(-rate)); });
    made.slope = each<T>([&](int k) { return made.value.pack[k] * splat<Pack<T>>(2 * rate); });
    return made;
  }
  for (int64_t s = 0; s < args.n_constants; ++s) {
    const Pack<T> c = splat<Pack<T>>(constants[s]);
    const Lanes<T> over = each<T>([&](int k) { return splat<Pack<T>>(T(1)) / (c + square.pack[k]); });
    const Lanes<T> term = each<T>([&](int k) { return c * over.pack[k]; });
    made.value = each<T>([&](int k) { return made.value.pack[k] + term.pack[k]; });
    made.slope = each<T>([&](int k) { return fma(term.pack[k], over.pack[k] + over.pack[k], made.slope.pack[k]); });
  }
  return made;
}

template <class T>
void row(const PairsArgs& args, const Points<T>& others, int64_t i) {
  const T* point = static_cast<const T*>(args.x) + i * args.dims;
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

}  // namespace

void kernel_sums(const PairsArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const Points<T> others(args);
    for_all(args.parallel_for, args.rows, args.others * args.dims, [&](int64_t i) { row(args, others, i); });
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
