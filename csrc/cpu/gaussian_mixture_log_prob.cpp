// log Σ_k w_k N(z; μ_k, σ_k²) of every datum, of all dims together and of each alone, and its gradients. Nothing of
// data × components is kept: a pass over the components makes their terms anew, a second one for the gradients. What
// threads work on are parts of the components, by sizes alone, so that each sum has one order whatever the threads.
#include <algorithm>
#include <cmath>
#include <limits>

#include "../table.h"
#include "dispatch.h"
#include "lanes.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// The last panel of 16 components is filled up by such as have a weight of 0. Panels whose terms are made before their
// exponentials are summed:
constexpr int64_t kSteps = kTile<double> / kLanes < 32 ? kTile<double> / kLanes : 32;

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
      each<T>([&](int k) { return exp_to_a_unit(term_of.pack[k] - splat<Pack<T>>(shift)); }).to(terms + p * kLanes);
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
  // Of no gradient there is none, whatever the datum is.
  if (g == T(0)) return Lanes<T>::of(0);
  const T shift = value == -std::numeric_limits<T>::infinity() ? T(0) : value;
  return each<T>([&](int k) { return splat<Pack<T>>(g) * exp_to_a_unit(term.pack[k] - splat<Pack<T>>(shift)); });
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

  // The gradients of components [first, last) panels on, of data [begin, end): theirs go to the arrays from component
  // `place` on; what they add to z's is added to dz, of these data. Groups of panels meet blocks of data, whose sums
  // stay in the nearest cache.
  void backward(const Panels<T>& panels, int64_t first, int64_t last, int64_t begin, int64_t end, int64_t place,
                T* dz) const {
    const int64_t dims = args.dims, each_block = block_of(dims), each_group = group_of(dims);
    const std::unique_ptr<T[]> of_z(new T[each_block * dims * kLanes]);
    Sums sums(dims, last - first < each_group ? last - first : each_group);
    for (int64_t group = first; group < last; group += each_group) {
      const int64_t group_end = group + each_group < last ? group + each_group : last;
      sums.clear();
      for (int64_t block = begin; block < end; block += each_block) {
        const int64_t block_end = block + each_block < end ? block + each_block : end;
        std::fill_n(of_z.get(), (block_end - block) * dims * kLanes, T(0));
        for (int64_t p = group; p < group_end; ++p)
          for (int64_t b = block; b < block_end; ++b)
            add(panels, p, b, sums.of(p - group), of_z.get() + (b - block) * dims * kLanes);
        for (int64_t i = 0; i < (block_end - block) * dims; ++i)
          dz[(block - begin) * dims + i] += static_cast<T>(sum_of(of_z.get() + i * kLanes, kLanes));
        sums.flush();
      }
      write(panels, group, group_end, place, sums);
    }
  }

 private:
  // Panels of a group: as many as have 8192 sums, 16 at most.
  static int64_t group_of(int64_t dims) {
    const int64_t most = 8192 / ((dims * 3 + 1) * kLanes);
    return most < 1 ? 1 : most < 16 ? most : 16;
  }
  // Data of a block: as many as have 256 latents, 16 at most.
  static int64_t block_of(int64_t dims) { return dims <= 16 ? 16 : dims < 256 ? 256 / dims : 1; }

  // Of a group's panels, gradients by μ, 1/σ and −log σ of every dim, then by log w: in T of a block, in double of all.
  class Sums {
   public:
    Sums(int64_t dims, int64_t panels)
        : each_((dims * 3 + 1) * kLanes), n_(each_ * panels), narrow_(new T[n_]), wide_(new double[n_]) {}
    void clear() {
      std::fill_n(narrow_.get(), n_, T(0));
      std::fill_n(wide_.get(), n_, 0.0);
    }
    void flush() {
      for (int64_t i = 0; i < n_; ++i) {
        wide_[i] += static_cast<double>(narrow_[i]);
        narrow_[i] = 0;
      }
    }
    T* of(int64_t panel) { return narrow_.get() + panel * each_; }
    const double* total(int64_t panel) const { return wide_.get() + panel * each_; }

   private:
    int64_t each_, n_;
    std::unique_ptr<T[]> narrow_;
    std::unique_ptr<double[]> wide_;
  };

  // One datum and one panel.
  VF_INLINE void add(const Panels<T>& panels, int64_t p, int64_t b, T* sums, T* of_z) const {
    const T* point = z(b);
    const Lanes<T> weights =
        parts(panels, p, b, [&](int64_t d, const Lanes<T>& w, const Lanes<T>& u) __attribute__((always_inline)) {
          const T* dim = panels.dim(p, d);
          T *to = sums + d * 3 * kLanes, *to_z = of_z + d * kLanes;
          const Lanes<T> mu = Lanes<T>::at(dim), rate = Lanes<T>::at(dim + kLanes);
          // A share of 0 is none of an infinite slope.
          const auto times = [&](int k, Pack<T> a, Pack<T> by) __attribute__((always_inline)) {
            return select(w.pack[k] == splat<Pack<T>>(T(0)), w.pack[k], a * by);
          };
          const Lanes<T> slope = each<T>([&](int k) { return times(k, w.pack[k], u.pack[k]); });
          const Lanes<T> by_mu = each<T>([&](int k) { return times(k, slope.pack[k], rate.pack[k]); });
          const Lanes<T> by_rate =
              each<T>([&](int k) { return times(k, slope.pack[k], mu.pack[k] - splat<Pack<T>>(point[d])); });
          plus(to, by_mu);
          plus(to + kLanes, by_rate);
          plus(to + 2 * kLanes, w);
          const Lanes<T> before = Lanes<T>::at(to_z);
          each<T>([&](int k) { return before.pack[k] - by_mu.pack[k]; }).to(to_z);
        });
    plus(sums + args.dims * 3 * kLanes, weights);
    if (args.dlog_weight && args.own_weights)
      weights.to(static_cast<T*>(args.dlog_weight) + b * args.components + p * kLanes, panels.filled(p));
  }

  static VF_INLINE void plus(T* to, const Lanes<T>& more) {
    const Lanes<T> before = Lanes<T>::at(to);
    each<T>([&](int k) { return before.pack[k] + more.pack[k]; }).to(to);
  }

  void write(const Panels<T>& panels, int64_t first, int64_t last, int64_t place, const Sums& sums) const {
    void* const outs[3] = {args.dmu, args.drate, args.dlog_rate};
    for (int64_t p = first; p < last; ++p) {
      const double* total = sums.total(p - first);
      for (int64_t c = 0; c < kLanes && c < panels.filled(p); ++c) {
        const int64_t component = p * kLanes + c;
        for (int64_t d = 0; d < args.dims; ++d)
          for (int a = 0; a < 3; ++a)
            if (outs[a])
              static_cast<T*>(outs[a])[(place + component) * args.dims + d] =
                  static_cast<T>(total[(d * 3 + a) * kLanes + c]);
        if (args.dlog_weight && !args.own_weights)
          static_cast<T*>(args.dlog_weight)[component] = static_cast<T>(total[args.dims * 3 * kLanes + c]);
      }
    }
  }
};

// How many parts the panels are cut into for threads, by sizes alone: each has a table of its own of z's gradient,
// all together no more than a quarter of a MiB where that allows eight.
int64_t parts_of(int64_t panels, int64_t bytes) {
  int64_t parts = 64;
  while (parts > 8 && parts * bytes > 1 << 18) parts /= 2;
  return panels < parts ? panels : parts;
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
    const int64_t elements = args.rows * args.dims;
    T* dz = static_cast<T*>(args.dz);
    if (args.own_components) {
      for_all(args.parallel_for, args.rows, args.components * args.dims, [&](int64_t b) {
        Panels<T> own(args);
        own.read(args, b * args.components);
        const std::unique_ptr<T[]> sums(new T[args.dims]());
        mixture.backward(own, 0, own.count(), b, b + 1, b * args.components, sums.get());
        if (dz) std::copy_n(sums.get(), args.dims, dz + b * args.dims);
      });
      return;
    }
    Panels<T> shared(args);
    shared.read(args, 0);
    const int64_t parts = parts_of(shared.count(), elements * static_cast<int64_t>(sizeof(T))),
                  each = (shared.count() + parts - 1) / parts;
    const std::unique_ptr<T[]> sums(new T[parts * elements]());
    for_all(args.parallel_for, parts, elements * each * kLanes, [&](int64_t part) {
      const int64_t first = part * each, last = first + each < shared.count() ? first + each : shared.count();
      if (first < last) mixture.backward(shared, first, last, 0, args.rows, 0, sums.get() + part * elements);
    });
    for (int64_t i = 0; dz && i < elements; ++i) {
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) sum += static_cast<double>(sums[part * elements + i]);
      dz[i] = static_cast<T>(sum);
    }
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
