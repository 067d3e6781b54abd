// log Σ_k w_k Π_c P_k(x_c) of every pixel, P the probability of a bin under a logistic distribution whose mean depends
// on the channels before, and its gradients: a pack of neighbouring pixels at a time, whose tables are read into a
// panel of packs. Every pixel is made by itself, so that no result depends on threads or on the width of a pack.
#include <cmath>
#include <memory>

#include "../table.h"
#include "dispatch.h"

#include "../logistic.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

// Terms that are summed one after the other, before their sum is.
constexpr int64_t kSteps = 16;

template <class T>
class Mixture {
 public:
  explicit Mixture(const LogisticMixtureArgs& args)
      : args_(args),
        bins_(args, std::log(2 * args.half_width), std::log(args.density_below)),
        pairs_(args.coefficients.data ? args.channels * (args.channels - 1) / 2 : 0),
        panels_((args.inner + kPixels - 1) / kPixels) {}

  bool slopes() const { return args_.gradients(); }
  int64_t panels() const { return args_.outer * panels_; }
  // Numbers of a pixel in a panel: logits, terms, means, log-scales, coefficients, data.
  int64_t numbers() const { return args_.components * (2 + 2 * args_.channels + pairs_) + args_.channels; }

  // All of a panel: `space` holds its numbers, of kPixels pixels.
  template <bool kSlopes>
  void run(int64_t panel, T* space) const {
    const int64_t c = args_.channels, k = args_.components, outer = panel / panels_;
    const int64_t first = panel % panels_ * kPixels, left = args_.inner - first;
    const Pixels at{outer, first, static_cast<int>(left < kPixels ? left : kPixels)};
    T *const logits = space, *const terms = logits + k * kPixels, *const means = terms + k * kPixels,
             *const scales = means + c * k * kPixels, *const slopes = scales + c * k * kPixels,
             *const x = slopes + pairs_ * k * kPixels;
    read(args_.logits, at, 1, k, logits);
    read(args_.mean, at, c, k, means);
    read(args_.log_scale, at, c, k, scales);
    if (pairs_) read(args_.coefficients, at, pairs_, k, slopes);
    read(args_.x, at, c, 1, x);

    const Pack<T> zero = splat<Pack<T>>(0), weight_shift = finite(largest(logits, k));
    for (int64_t i = 0; i < k; ++i) {
      const Pack<T> weight = get(logits, i) - weight_shift;
      const Pack<T> term = weight + density<kSlopes>(i, means, scales, slopes, x);
      put(logits, i, weight);
      put(terms, i, term);
    }
    const Pack<T> shift = finite(largest(terms, k));
    const Pack<T> sum = exponentials(terms, k, shift), weight_sum = exponentials(logits, k, zero);
    T values[kPixels];
    store(values, (shift + log(sum)) - log(weight_sum));
    for (int i = 0; i < at.count; ++i) static_cast<T*>(args_.log_prob)[outer * args_.inner + first + i] = values[i];
    if constexpr (kSlopes) {
      Pack<T> upstream = splat<Pack<T>>(1);
      if (args_.upstream.data) {
        T own[kPixels];
        read(args_.upstream, at, 1, 1, own);
        upstream = load(own);
      }
      // Of no upstream gradient there is none, whatever the pixel is.
      const auto none = upstream == T(0);
      const Pack<T> over = select(none, zero, select(sum == T(0), zero, upstream / sum));
      const Pack<T> over_weights = select(none, zero, upstream / weight_sum);
      for (int64_t i = 0; i < k; ++i) {
        const Pack<T> share = times(over, get(terms, i));
        put(logits, i, share - times(over_weights, get(logits, i)));
        int64_t pair = 0;
        for (int64_t own = 0; own < c; ++own) {
          const int64_t of = own * k + i;
          const Pack<T> by_mean = times(share, get(means, of));
          put(means, of, by_mean);
          put(scales, of, times(share, get(scales, of)));
          for (int64_t before = 0; pairs_ && before < own; ++before, ++pair)
            put(slopes, pair * k + i, times(by_mean, get(slopes, pair * k + i)));
        }
      }
      write(args_.dlogits, at, 1, k, logits);
      write(args_.dmean, at, c, k, means);
      write(args_.dlog_scale, at, c, k, scales);
      write(args_.dcoefficients, at, pairs_, k, slopes);
    }
  }

  static constexpr int kPixels = kWidth<T>;

 private:
  struct Pixels {
    int64_t outer, first;
    int count;
  };

  static VF_INLINE Pack<T> get(const T* from, int64_t i) { return load(from + i * kPixels); }
  static VF_INLINE void put(T* to, int64_t i, Pack<T> value) { store(to + i * kPixels, value); }
  // A share of 0 is none of an infinite slope.
  static VF_INLINE Pack<T> times(Pack<T> share, Pack<T> slope) { return select(share == T(0), share, share * slope); }
  static VF_INLINE Pack<T> largest(const T* from, int64_t n) {
    Pack<T> top = get(from, 0);
    for (int64_t i = 1; i < n; ++i) top = select(get(from, i) > top, get(from, i), top);
    return top;
  }
  // Of infinities, and of what is NaN, none.
  static VF_INLINE Pack<T> finite(Pack<T> shift) {
    return select(abs(shift) < infinity<Pack<T>>(), shift, splat<Pack<T>>(0));
  }
  // e^(a − shift) in the place of each of n numbers, and their sum.
  static VF_INLINE Pack<T> exponentials(T* numbers, int64_t n, Pack<T> shift) {
    Pack<T> sum = splat<Pack<T>>(0);
    for (int64_t first = 0; first < n; first += kSteps) {
      Pack<T> part = splat<Pack<T>>(0);
      for (int64_t i = first; i < n && i < first + kSteps; ++i) {
        const Pack<T> e = exp_to_a_unit(get(numbers, i) - shift);
        put(numbers, i, e);
        part = part + e;
      }
      sum = sum + part;
    }
    return sum;
  }

  // log Π_c P of component i. With kSlopes the derivatives take the places of what they are by: those of the mean and
  // of log s, and of a coefficient that of its mean.
  template <bool kSlopes>
  VF_INLINE Pack<T> density(int64_t i, T* means, T* scales, T* slopes, const T* x) const {
    const int64_t k = args_.components;
    Pack<T> sum = splat<Pack<T>>(0);
    int64_t pair = 0;
    for (int64_t own = 0; own < args_.channels; ++own) {
      const int64_t of = own * k + i;
      const Pack<T> datum = get(x, own);
      Pack<T> distance = datum - get(means, of);
      for (int64_t before = 0; pairs_ && before < own; ++before, ++pair) {
        const Tanh<Pack<T>> slope = tanh_of<kSlopes>(get(slopes, pair * k + i));
        distance = fma(-slope.value, get(x, before), distance);
        if (kSlopes) put(slopes, pair * k + i, slope.slope * get(x, before));
      }
      const BinTerm<Pack<T>> term = bin_term(bins_, datum, distance, get(scales, of));
      sum = sum + term.value;
      if (kSlopes) {
        put(means, of, term.by_mean);
        put(scales, of, term.by_log_scale);
      }
    }
    return sum;
  }

  // Of fewer pixels than a pack has, the last one again.
  void read(const StridedTable& from, const Pixels& at, int64_t channels, int64_t components, T* to) const {
    const T* data = static_cast<const T*>(from.data) + at.outer * from.outer + at.first * from.inner;
    if (from.inner == 1 && at.count == kPixels) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < components; ++i, to += kPixels)
          store(to, load(data + c * from.channel + i * from.component));
      return;
    }
    for (int pixel = 0; pixel < kPixels; ++pixel) {
      const T* own = data + (pixel < at.count ? pixel : at.count - 1) * from.inner;
      T* place = to + pixel;
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < components; ++i, place += kPixels) *place = own[c * from.channel + i * from.component];
    }
  }
  void write(const StridedTable& to, const Pixels& at, int64_t channels, int64_t components, const T* from) const {
    if (!to.data) return;
    T* data = static_cast<T*>(to.data) + at.outer * to.outer + at.first * to.inner;
    if (to.inner == 1 && at.count == kPixels) {
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < components; ++i, from += kPixels)
          store(data + c * to.channel + i * to.component, load(from));
      return;
    }
    for (int pixel = 0; pixel < at.count; ++pixel) {
      T* own = data + pixel * to.inner;
      const T* place = from + pixel;
      for (int64_t c = 0; c < channels; ++c)
        for (int64_t i = 0; i < components; ++i, place += kPixels) own[c * to.channel + i * to.component] = *place;
    }
  }

  const LogisticMixtureArgs& args_;
  Bins<T> bins_;
  int64_t pairs_, panels_;
};

}  // namespace

void logistic_mixture(const LogisticMixtureArgs& args) {
  in_dtype(args.compute, [&](auto number) {
    using T = decltype(number);
    const Mixture<T> mixture(args);
    constexpr int64_t kTerms = 1 << 12;
    const int64_t each = args.components * args.channels * mixture.kPixels, grain = each < kTerms ? kTerms / each : 1;
    const auto body = [](void* context, int64_t first, int64_t last) {
      const Mixture<T>& mixture = *static_cast<const Mixture<T>*>(context);
      const std::unique_ptr<T[]> space(new T[mixture.numbers() * mixture.kPixels]);
      for (int64_t panel = first; panel < last; ++panel)
        mixture.slopes() ? mixture.template run<true>(panel, space.get())
                         : mixture.template run<false>(panel, space.get());
    };
    args.parallel_for(mixture.panels(), grain, body, const_cast<Mixture<T>*>(&mixture));
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
