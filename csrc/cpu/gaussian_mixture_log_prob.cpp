// log Σ_k w_k N(z; μ_k, σ_k²) of every datum, of all dims together and of each alone, and its gradients. Nothing of
// data × components is kept: a pass over the components makes their terms anew. Two passes make the gradients, one
// over the data, for z's, and one over the components, for theirs, so that each sum has one order whatever the threads.
#include <cmath>
#include <limits>

#include "../table.h"
#include "dispatch.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// Components are taken 16 at a time, whatever the instruction set: the last ones are filled up by such as have a weight
// of 0.
constexpr int kLanes = 16;
// Panels whose terms are summed in T, and data.
constexpr int64_t kSteps = kTile<double> / kLanes < 32 ? kTile<double> / kLanes : 32;

template <class T>
constexpr int kPacks = kLanes / kWidth<T>;

// 16 numbers.
template <class T>
struct Lanes {
  Pack<T> pack[kPacks<T>];

  static VF_INLINE Lanes of(T value) {
    Lanes all;
    for (auto& p : all.pack) p = splat<Pack<T>>(value);
    return all;
  }
  static VF_INLINE Lanes at(const T* from) {
    Lanes all;
    for (int k = 0; k < kPacks<T>; ++k) all.pack[k] = load(from + k * kWidth<T>);
    return all;
  }
  VF_INLINE void to(T* memory) const {
    for (int k = 0; k < kPacks<T>; ++k) store(memory + k * kWidth<T>, pack[k]);
  }
  // The first n.
  VF_INLINE void to(T* memory, int64_t n) const {
    T all[kLanes];
    to(all);
    for (int64_t k = 0; k < n && k < kLanes; ++k) memory[k] = all[k];
  }
};

template <class T, class F>
VF_INLINE Lanes<T> each(F&& f) {
  Lanes<T> made;
  for (int k = 0; k < kPacks<T>; ++k) made.pack[k] = f(k);
  return made;
}

// The components of one mixture: of every panel of 16, μ, 1/σ and −log σ dim by dim, and Σ −log σ.
template <class T>
class Panels {
 public:
  Panels(const MixtureArgs& args) : n_(args.components), dims_(args.dims), count_((n_ + kLanes - 1) / kLanes) {
    values_.reset(new T[count_ * dims_ * 3 * kLanes]);
    sums_.reset(new T[count_ * kLanes]);
  }

  // Reads those from component `first` of the arrays on.
  void read(const MixtureArgs& args, int64_t first) {
    const T* from[3] = {static_cast<const T*>(args.mu), static_cast<const T*>(args.rate),
                        static_cast<const T*>(args.log_rate)};
    for (int64_t c = 0; c < count_ * kLanes; ++c) {
      T* to = values_.get() + c / kLanes * dims_ * 3 * kLanes + c % kLanes;
      double sum = 0;
      for (int64_t d = 0; d < dims_; ++d)
        for (int a = 0; a < 3; ++a) {
          const T value = c < n_ ? from[a][(first + c) * dims_ + d] : T(0);
          to[(d * 3 + a) * kLanes] = value;
          if (a == 2) sum += static_cast<double>(value);
        }
      sums_[c] = static_cast<T>(sum);
    }
  }

  int64_t count() const { return count_; }
  // How many of a panel's are components.
  int64_t filled(int64_t panel) const { return n_ - panel * kLanes; }
  VF_INLINE const T* dim(int64_t panel, int64_t d) const { return values_.get() + (panel * dims_ + d) * 3 * kLanes; }
  VF_INLINE Lanes<T> log_rates(int64_t panel) const { return Lanes<T>::at(sums_.get() + panel * kLanes); }
  VF_INLINE Lanes<T> weights(const T* log_weight, int64_t panel) const {
    const T* own = log_weight + panel * kLanes;
    if (filled(panel) >= kLanes) return Lanes<T>::at(own);
    T all[kLanes];
    for (int64_t k = 0; k < kLanes; ++k) all[k] = k < filled(panel) ? own[k] : -std::numeric_limits<T>::infinity();
    return Lanes<T>::at(all);
  }

 private:
  int64_t n_, dims_, count_;
  std::unique_ptr<T[]> values_, sums_;
};

// log Σ exp of what term(panel) gives, in double.
template <class T, class F>
VF_INLINE double log_sum_exp(int64_t panels, F&& term) {
  T terms[kSteps * kLanes];
  double top = 0, sum = 0;
  bool some = false;
  for (int64_t first = 0; first < panels; first += kSteps) {
    const int64_t n = panels - first < kSteps ? panels - first : kSteps;
    Lanes<T> most = Lanes<T>::of(-std::numeric_limits<T>::infinity());
    for (int64_t p = 0; p < n; ++p) {
      const Lanes<T> next = term(first + p);
      next.to(terms + p * kLanes);
      most = each<T>([&](int k) { return select(next.pack[k] > most.pack[k], next.pack[k], most.pack[k]); });
    }
    T lanes[kLanes];
    most.to(lanes);
    T own = lanes[0];
    for (T lane : lanes) own = lane > own ? lane : own;
    // Of infinities, none: what is NaN stays so.
    const T shift = std::abs(own) <= std::numeric_limits<T>::max() ? own : T(0);
    for (int64_t p = 0; p < n; ++p) {
      const Lanes<T> term_of = Lanes<T>::at(terms + p * kLanes);
      each<T>([&](int k) { return exp(term_of.pack[k] - splat<Pack<T>>(shift)); }).to(terms + p * kLanes);
    }
    const double part = sum_of(terms, static_cast<int>(n * kLanes));
    if (part == 0) continue;
    const double base = static_cast<double>(shift), now = some && top > base ? top : base;
    sum = (some ? sum * std::exp(top - now) : 0.0) + part * std::exp(base - now);
    top = now;
    some = true;
  }
  return some ? top + std::log(sum) : -std::numeric_limits<double>::infinity();
}

// (z − μ)/σ in a dim of a panel.
template <class T>
VF_INLINE Lanes<T> standardised(const T* dim, T z) {
  const Lanes<T> mu = Lanes<T>::at(dim), rate = Lanes<T>::at(dim + kLanes);
  return each<T>([&](int k) { return (splat<Pack<T>>(z) - mu.pack[k]) * rate.pack[k]; });
}

template <class T>
VF_INLINE Lanes<T> less_half_square(const Lanes<T>& a, const Lanes<T>& u) {
  return each<T>([&](int k) { return fma(u.pack[k] * splat<Pack<T>>(T(-0.5)), u.pack[k], a.pack[k]); });
}

// log w + log N(z) but for its constant: squares are summed 16 at a time.
template <class T>
VF_INLINE Lanes<T> joint(const Panels<T>& panels, int64_t panel, int64_t dims, const T* z, const T* log_weight) {
  Lanes<T> squares = Lanes<T>::of(0);
  for (int64_t first = 0; first < dims; first += kLanes) {
    Lanes<T> part = Lanes<T>::of(0);
    const int64_t last = first + kLanes < dims ? first + kLanes : dims;
    for (int64_t d = first; d < last; ++d) part = less_half_square(part, standardised(panels.dim(panel, d), z[d]));
    squares = each<T>([&](int k) { return squares.pack[k] + part.pack[k]; });
  }
  const Lanes<T> rates = panels.log_rates(panel), weights = panels.weights(log_weight, panel);
  return each<T>([&](int k) { return squares.pack[k] + (rates.pack[k] + weights.pack[k]); });
}

template <class T>
VF_INLINE Lanes<T> of_dim(const Panels<T>& panels, int64_t panel, int64_t d, T z, const Lanes<T>& weights) {
  const T* dim = panels.dim(panel, d);
  const Lanes<T> rate = Lanes<T>::at(dim + 2 * kLanes);
  return less_half_square(each<T>([&](int k) { return rate.pack[k] + weights.pack[k]; }), standardised(dim, z));
}

// What of a component's share is in a value: g·exp(term − value).
template <class T>
VF_INLINE Lanes<T> share(const Lanes<T>& term, T value, T g) {
  const T shift = value == -std::numeric_limits<T>::infinity() ? T(0) : value;
  return each<T>([&](int k) { return splat<Pack<T>>(g) * exp(term.pack[k] - splat<Pack<T>>(shift)); });
}

constexpr double kHalfLog2Pi = 0.91893853320467274178;

template <class T>
struct Mixture {
  const MixtureArgs& args;

  const T* z(int64_t b) const { return static_cast<const T*>(args.z) + b * args.dims; }
  const T* log_weight(int64_t b) const {
    return static_cast<const T*>(args.log_weight) + (args.own_weights ? b * args.components : 0);
  }

  void forward(const Panels<T>& panels, int64_t b) const {
    const T *point = z(b), *weight = log_weight(b);
    const double sum = log_sum_exp<T>(panels.count(), [&](int64_t p) __attribute__((always_inline)) {
      return joint(panels, p, args.dims, point, weight);
    });
    static_cast<T*>(args.log_prob)[b] = static_cast<T>(sum - static_cast<double>(args.dims) * kHalfLog2Pi);
    if (!args.per_dim) return;
    T* out = static_cast<T*>(args.marginals) + b * args.dims;
    for (int64_t d = 0; d < args.dims; ++d)
      out[d] = static_cast<T>(log_sum_exp<T>(panels.count(),
                                             [&](int64_t p) __attribute__((always_inline)) {
                                               return of_dim(panels, p, d, point[d], panels.weights(weight, p));
                                             }) -
                              kHalfLog2Pi);
  }

  // Calls part(d, w, u) with the gradient's weight of every dim of a panel, and gives that by log w.
  template <class F>
  VF_INLINE Lanes<T> parts(const Panels<T>& panels, int64_t panel, int64_t b, F&& part) const {
    const T *point = z(b), *weight = log_weight(b);
    Lanes<T> all = Lanes<T>::of(0);
    if (args.dlog_prob) {
      const T value = static_cast<const T*>(args.log_prob)[b] + static_cast<T>(args.dims * kHalfLog2Pi);
      all = share(joint(panels, panel, args.dims, point, weight), value, static_cast<const T*>(args.dlog_prob)[b]);
    }
    const Lanes<T> of_all = all;
    const Lanes<T> weights = panels.weights(weight, panel);
    for (int64_t d = 0; d < args.dims; ++d) {
      Lanes<T> w = of_all;
      if (args.dmarginals) {
        const int64_t at = b * args.dims + d;
        const T value = static_cast<const T*>(args.marginals)[at] + static_cast<T>(kHalfLog2Pi);
        const Lanes<T> own =
            share(of_dim(panels, panel, d, point[d], weights), value, static_cast<const T*>(args.dmarginals)[at]);
        w = each<T>([&](int k) { return w.pack[k] + own.pack[k]; });
        all = each<T>([&](int k) { return all.pack[k] + own.pack[k]; });
      }
      part(d, w, standardised(panels.dim(panel, d), point[d]));
    }
    return all;
  }

  // Of one datum: z's gradient, and its own weights'.
  void by_datum(const Panels<T>& panels, int64_t b) const {
    std::unique_ptr<T[]> sums(new T[args.dims * kLanes]());
    std::unique_ptr<double[]> wide(new double[args.dims]());
    for (int64_t p = 0; p < panels.count(); ++p) {
      const Lanes<T> weights = parts(panels, p, b, [&](int64_t d, const Lanes<T>& w, const Lanes<T>& u) {
        const Lanes<T> rate = Lanes<T>::at(panels.dim(p, d) + kLanes), sum = Lanes<T>::at(sums.get() + d * kLanes);
        // A share of 0 is none of an infinite slope.
        each<T>([&](int k) {
          return sum.pack[k] -
                 select(w.pack[k] == splat<Pack<T>>(T(0)), w.pack[k], w.pack[k] * (u.pack[k] * rate.pack[k]));
        }).to(sums.get() + d * kLanes);
      });
      if (args.dlog_weight && args.own_weights)
        weights.to(static_cast<T*>(args.dlog_weight) + b * args.components + p * kLanes, panels.filled(p));
      if (p % kSteps == kSteps - 1 || p == panels.count() - 1)
        for (int64_t d = 0; d < args.dims; ++d) {
          wide[d] += sum_of(sums.get() + d * kLanes, kLanes);
          Lanes<T>::of(0).to(sums.get() + d * kLanes);
        }
    }
    if (args.dz)
      for (int64_t d = 0; d < args.dims; ++d) static_cast<T*>(args.dz)[b * args.dims + d] = static_cast<T>(wide[d]);
  }

  // Of one panel, whose components stand in the arrays from `first` on: their gradients, of data [begin, end).
  void by_panel(const Panels<T>& panels, int64_t panel, int64_t first, int64_t begin, int64_t end) const {
    // By μ, 1/σ and −log σ of every dim, then by log w.
    const int64_t n = args.dims * 3 + 1;
    std::unique_ptr<T[]> sums(new T[n * kLanes]());
    std::unique_ptr<double[]> wide(new double[n * kLanes]());
    for (int64_t b = begin; b < end; ++b) {
      const T* point = z(b);
      const Lanes<T> weights = parts(panels, panel, b, [&](int64_t d, const Lanes<T>& w, const Lanes<T>& u) {
        const T* dim = panels.dim(panel, d);
        T* to = sums.get() + d * 3 * kLanes;
        const Lanes<T> mu = Lanes<T>::at(dim), rate = Lanes<T>::at(dim + kLanes);
        const Lanes<T> of_mu = Lanes<T>::at(to), of_rate = Lanes<T>::at(to + kLanes),
                       of_log = Lanes<T>::at(to + 2 * kLanes);
        const Lanes<T> wu =
            each<T>([&](int k) { return select(w.pack[k] == splat<Pack<T>>(T(0)), w.pack[k], w.pack[k] * u.pack[k]); });
        const auto times = [&](int k, Pack<T> by) {
          return select(w.pack[k] == splat<Pack<T>>(T(0)), w.pack[k], wu.pack[k] * by);
        };
        each<T>([&](int k) { return of_mu.pack[k] + times(k, rate.pack[k]); }).to(to);
        each<T>([&](int k) {
          return of_rate.pack[k] - times(k, splat<Pack<T>>(point[d]) - mu.pack[k]);
        }).to(to + kLanes);
        each<T>([&](int k) { return of_log.pack[k] + w.pack[k]; }).to(to + 2 * kLanes);
      });
      T* to = sums.get() + args.dims * 3 * kLanes;
      const Lanes<T> before = Lanes<T>::at(to);
      each<T>([&](int k) { return before.pack[k] + weights.pack[k]; }).to(to);
      if ((b - begin) % kSteps == kSteps - 1 || b == end - 1)
        for (int64_t i = 0; i < n * kLanes; ++i) {
          wide[i] += static_cast<double>(sums[i]);
          sums[i] = 0;
        }
    }
    void* const outs[3] = {args.dmu, args.drate, args.dlog_rate};
    for (int64_t c = 0; c < kLanes && c < panels.filled(panel); ++c) {
      const int64_t component = first + panel * kLanes + c;
      for (int64_t d = 0; d < args.dims; ++d)
        for (int a = 0; a < 3; ++a)
          if (outs[a])
            static_cast<T*>(outs[a])[component * args.dims + d] = static_cast<T>(wide[(d * 3 + a) * kLanes + c]);
      if (args.dlog_weight && !args.own_weights)
        static_cast<T*>(args.dlog_weight)[panel * kLanes + c] = static_cast<T>(wide[args.dims * 3 * kLanes + c]);
    }
  }

  bool of_components() const {
    return args.dmu || args.drate || args.dlog_rate || (args.dlog_weight && !args.own_weights);
  }
};

// Calls f(i) for all i below n, on threads where they are worth it: each of about `work` terms.
template <class F>
void for_all(ParallelFor parallel_for, int64_t n, int64_t work, F&& f) {
  constexpr int64_t kTerms = 1 << 15;
  const int64_t grain = work > 0 && work < kTerms ? kTerms / work : 1;
  const auto body = [](void* context, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) (*static_cast<std::remove_reference_t<F>*>(context))(i);
  };
  parallel_for(n, grain, body, &f);
}

}  // namespace

void gaussian_mixture_fwd(const MixtureArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const Mixture<T> mixture{args};
    const int64_t work = args.components * args.dims;
    Panels<T> shared(args);
    if (!args.own_components) shared.read(args, 0);
    for_all(args.parallel_for, args.rows, work, [&](int64_t b) {
      if (!args.own_components) return mixture.forward(shared, b);
      Panels<T> own(args);
      own.read(args, b * args.components);
      mixture.forward(own, b);
    });
  });
}

void gaussian_mixture_bwd(const MixtureArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const Mixture<T> mixture{args};
    const int64_t work = args.components * args.dims;
    if (args.own_components) {
      for_all(args.parallel_for, args.rows, work, [&](int64_t b) {
        Panels<T> own(args);
        own.read(args, b * args.components);
        mixture.by_datum(own, b);
        for (int64_t p = 0; p < own.count(); ++p) mixture.by_panel(own, p, b * args.components, b, b + 1);
      });
      return;
    }
    Panels<T> shared(args);
    shared.read(args, 0);
    if (args.dz || (args.dlog_weight && args.own_weights))
      for_all(args.parallel_for, args.rows, work, [&](int64_t b) { mixture.by_datum(shared, b); });
    if (mixture.of_components())
      for_all(args.parallel_for, shared.count(), args.rows * args.dims * kLanes,
              [&](int64_t p) { mixture.by_panel(shared, p, 0, 0, args.rows); });
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
