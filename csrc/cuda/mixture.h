// What the kernels of a mixture's log-density share: a call's arrays, shares, and logarithms of sums of exponentials.
#pragma once

#include "pairs.h"

namespace vae_fast {
namespace cuda {

constexpr double kHalfLog2Pi = 0.91893853320467274178;

// The arrays of kernels.h's MixtureArgs, and how far those of one datum are from those of the next: 0 where they are
// for all data.
template <class T>
struct MixtureParams {
  int64_t rows, components, dims;
  int64_t row_components, row_weights;
  const T *z, *mu, *rate, *log_rate, *log_weight;
  T *log_prob, *marginals;
  const T *dlog_prob, *dmarginals;
  T *dz, *dmu, *drate, *dlog_rate, *dlog_weight;

  explicit MixtureParams(const MixtureArgs& args)
      : rows(args.rows),
        components(args.components),
        dims(args.dims),
        row_components(args.own_components ? args.components * args.dims : 0),
        row_weights(args.own_weights ? args.components : 0),
        z(static_cast<const T*>(args.z)),
        mu(static_cast<const T*>(args.mu)),
        rate(static_cast<const T*>(args.rate)),
        log_rate(static_cast<const T*>(args.log_rate)),
        log_weight(static_cast<const T*>(args.log_weight)),
        log_prob(static_cast<T*>(args.log_prob)),
        marginals(static_cast<T*>(args.marginals)),
        dlog_prob(static_cast<const T*>(args.dlog_prob)),
        dmarginals(static_cast<const T*>(args.dmarginals)),
        dz(static_cast<T*>(args.dz)),
        dmu(static_cast<T*>(args.dmu)),
        drate(static_cast<T*>(args.drate)),
        dlog_rate(static_cast<T*>(args.dlog_rate)),
        dlog_weight(static_cast<T*>(args.dlog_weight)) {}
};

// log Σ exp of terms that come a few at a time: the largest, and in double the sum of the exponentials less it.
template <class T>
struct LogSum {
  T top = -infinity<T>();
  double sum = 0;

  template <int N>
  __device__ __forceinline__ void add(const T (&terms)[N]) {
    T most = terms[0];
#pragma unroll
    for (int j = 1; j < N; ++j) most = terms[j] > most ? terms[j] : most;
    if (most > top) {
      sum *= static_cast<double>(exp_of_share(top - most));
      top = most;
    }
    const T shift = abs(top) < infinity<T>() ? top : T(0);
    T part = exp_of_share(terms[0] - shift);
#pragma unroll
    for (int j = 1; j < N; ++j) part += exp_of_share(terms[j] - shift);
    sum += static_cast<double>(part);
  }
};

// Of several such sums the joint one, of what tops(i) and sums(i) give.
template <class Top, class Sum>
__device__ __forceinline__ double joined(int64_t n, Top&& tops, Sum&& sums) {
  double top = -infinity<double>(), sum = 0;
  for (int64_t i = 0; i < n; ++i) top = tops(i) > top ? tops(i) : top;
  if (top == infinity<double>()) return top;
  const double shift = top == -infinity<double>() ? 0.0 : top;
  for (int64_t i = 0; i < n; ++i) sum += sums(i) * exp(tops(i) - shift);
  return shift + log(sum);
}

// A component's share in a value, times the upstream gradient: of no gradient there is none, whatever the datum is.
template <class T>
__device__ __forceinline__ T share(T term, T value, T upstream) {
  const T shift = value == -infinity<T>() ? T(0) : value;
  return upstream == T(0) ? T(0) : upstream * exp_of_share(term - shift);
}

// The value whose shares these are, less what all terms have been left.
template <class T>
__device__ __forceinline__ T of_joint(T log_prob, int64_t dims) {
  return log_prob + static_cast<T>(static_cast<double>(dims) * kHalfLog2Pi);
}
template <class T>
__device__ __forceinline__ T of_marginal(T value) {
  return value + static_cast<T>(kHalfLog2Pi);
}

// a·b, of which a share of 0 is none of an infinite slope.
template <class T>
__device__ __forceinline__ T times(T share, T a, T b) {
  return share == T(0) ? T(0) : a * b;
}

// log p of the dims alone, of either kind of components; and, of sums that were made in parts, [part][top, sum][count],
// the joint ones, less a number (mixture_marginals.cu).
void mixture_marginals(const MixtureArgs& args);
void join_logs(Device& device, const double* parts, int64_t n_parts, int64_t count, double less, void* out,
               DType dtype);
// Of components that are each datum's own, log p of all dims together, and the gradients (mixture_of_each.cu).
void mixture_of_each_fwd(const MixtureArgs& args);
void mixture_of_each_bwd(const MixtureArgs& args);

}  // namespace cuda
}  // namespace vae_fast
