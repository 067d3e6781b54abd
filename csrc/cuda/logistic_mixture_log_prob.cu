// The log-density of a mixture of discretised logistics, and its gradients: a thread a pixel, which meets the
// components one after the other, and for the gradients once more. Nothing is of channels × components but the
// operands; in between a component's term stands where its logit's gradient will be. Where neighbouring pixels are
// neighbours in memory, threads' accesses are, too.
#include <cmath>

#include "../logistic.h"
#include "../table.h"
#include "pairs.h"

namespace vae_fast {
namespace cuda {
namespace {

// A StridedTable's numbers of one pixel.
template <class T>
struct OfPixel {
  T* data;
  int64_t channel, component;

  __device__ __forceinline__ T& at(int64_t c, int64_t k) const { return data[c * channel + k * component]; }
};

template <class T>
struct LogisticMixtureParams {
  int64_t pixels, inner, channels, components;
  StridedTable logits, mean, log_scale, coefficients, x, upstream;
  StridedTable terms, dlogits, dmean, dlog_scale, dcoefficients;
  T* log_prob;
  Bins<T> bins;
};

template <class T>
__device__ __forceinline__ OfPixel<T> of_pixel(const StridedTable& table, int64_t outer, int64_t inner) {
  T* data = static_cast<T*>(table.data);
  return {data ? data + outer * table.outer + inner * table.inner : nullptr, table.channel, table.component};
}

// x − m of a channel and component; `pair` is the number of its first coefficient.
template <class T>
__device__ __forceinline__ T distance_of(const OfPixel<T>& mean, const OfPixel<T>& coefficients, const OfPixel<T>& x,
                                         int64_t c, int64_t k, int64_t pair) {
  T distance = x.at(c, 0) - mean.at(c, k);
  if (coefficients.data)
    for (int64_t before = 0; before < c; ++before)
      distance = fma(-tanh_of<false>(coefficients.at(pair + before, k)).value, x.at(before, 0), distance);
  return distance;
}

// log Σ exp of terms one after the other: the largest, and in double the sum of the exponentials less it.
template <class T>
struct LogSumOfOne {
  T top = -infinity<T>();
  double sum = 0;

  __device__ __forceinline__ T shift() const { return abs(top) < infinity<T>() ? top : T(0); }
  __device__ __forceinline__ void add(T term) {
    if (term > top) {
      sum *= static_cast<double>(exp_of_share(top - term));
      top = term;
    }
    sum += static_cast<double>(exp_of_share(term - shift()));
  }
};

template <class T, bool kSlopes>
__global__ void __launch_bounds__(kThreads, 1)
    logistic_mixture_kernel(const __grid_constant__ LogisticMixtureParams<T> p) {
  const int64_t pixel = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (pixel >= p.pixels) return;
  const int64_t outer = pixel / p.inner, inner = pixel % p.inner;
  const OfPixel<T> logits = of_pixel<T>(p.logits, outer, inner), mean = of_pixel<T>(p.mean, outer, inner),
                   log_scale = of_pixel<T>(p.log_scale, outer, inner),
                   coefficients = of_pixel<T>(p.coefficients, outer, inner), x = of_pixel<T>(p.x, outer, inner),
                   terms = of_pixel<T>(p.terms, outer, inner);
  T top = logits.at(0, 0);
  for (int64_t k = 1; k < p.components; ++k) top = logits.at(0, k) > top ? logits.at(0, k) : top;
  top = abs(top) < infinity<T>() ? top : T(0);
  LogSumOfOne<T> all;
  double weights = 0;
  for (int64_t k = 0; k < p.components; ++k) {
    const T weight = logits.at(0, k) - top;
    weights += static_cast<double>(exp_of_share(weight));
    T sum = T(0);
    int64_t pair = 0;
    for (int64_t c = 0; c < p.channels; pair += c, ++c) {
      // Read before the distance, which is waited for.
      const T scale = log_scale.at(c, k);
      sum += bin_term(p.bins, x.at(c, 0), distance_of(mean, coefficients, x, c, k, pair), scale).value;
    }
    const T term = weight + sum;
    all.add(term);
    if constexpr (kSlopes) terms.at(0, k) = term;
  }
  p.log_prob[pixel] = static_cast<T>((static_cast<double>(all.shift()) + log(all.sum)) - log(weights));
  if constexpr (kSlopes) {
    const OfPixel<T> dlogits = of_pixel<T>(p.dlogits, outer, inner), dmean = of_pixel<T>(p.dmean, outer, inner),
                     dlog_scale = of_pixel<T>(p.dlog_scale, outer, inner),
                     dcoefficients = of_pixel<T>(p.dcoefficients, outer, inner),
                     given = of_pixel<T>(p.upstream, outer, inner);
    const T upstream = given.data ? given.at(0, 0) : T(1);
    // Of no upstream gradient there is none, whatever the pixel is; and a share of 0 is none of an infinite slope.
    const bool none = upstream == T(0);
    const T over = none || all.sum == 0 ? T(0) : static_cast<T>(static_cast<double>(upstream) / all.sum);
    const T over_weights = none ? T(0) : static_cast<T>(static_cast<double>(upstream) / weights);
    const auto times = [](T share, T slope) { return share == T(0) ? T(0) : share * slope; };
    for (int64_t k = 0; k < p.components; ++k) {
      const T share = times(over, exp_of_share(terms.at(0, k) - all.shift()));
      const T weight = times(over_weights, exp_of_share(logits.at(0, k) - top));
      if (dlogits.data) dlogits.at(0, k) = share - weight;
      int64_t pair = 0;
      for (int64_t c = 0; c < p.channels; pair += c, ++c) {
        const T scale = log_scale.at(c, k), distance = distance_of(mean, coefficients, x, c, k, pair);
        const BinTerm<T> term = bin_term(p.bins, x.at(c, 0), distance, scale);
        const T by_mean = times(share, term.by_mean);
        if (dmean.data) dmean.at(c, k) = by_mean;
        if (dlog_scale.data) dlog_scale.at(c, k) = times(share, term.by_log_scale);
        if (!dcoefficients.data) continue;
        for (int64_t before = 0; before < c; ++before) {
          const T slope = tanh_of<true>(coefficients.at(pair + before, k)).slope;
          dcoefficients.at(pair + before, k) = times(by_mean, slope * x.at(before, 0));
        }
      }
    }
  }
}

template <class T>
void run(const LogisticMixtureArgs& args) {
  const int64_t pixels = args.outer * args.inner;
  LogisticMixtureParams<T> p{pixels,
                             args.inner,
                             args.channels,
                             args.components,
                             args.logits,
                             args.mean,
                             args.log_scale,
                             args.coefficients,
                             args.x,
                             args.upstream,
                             args.dlogits,
                             args.dlogits,
                             args.dmean,
                             args.dlog_scale,
                             args.dcoefficients,
                             static_cast<T*>(args.log_prob),
                             Bins<T>(args, std::log(2 * args.half_width), std::log(args.density_below))};
  const int64_t blocks = parts_of(pixels, kThreads);
  if (!args.gradients()) {
    launch(*args.device, "logistic_mixture", logistic_mixture_kernel<T, false>, p, blocks, 1, kThreads);
    return;
  }
  if (!p.terms.data && pixels > 0) {
    // Component by component, as neighbouring threads have neighbouring pixels.
    p.terms = {args.device->scratch(pixels * args.components * static_cast<int64_t>(sizeof(T))), args.inner, 1, 0,
               pixels};
  }
  launch(*args.device, "logistic_mixture_gradients", logistic_mixture_kernel<T, true>, p, blocks, 1, kThreads);
}

}  // namespace

void logistic_mixture(const LogisticMixtureArgs& args) {
  args.compute == DType::kFloat64 ? run<double>(args) : run<float>(args);
}

}  // namespace cuda
}  // namespace vae_fast
