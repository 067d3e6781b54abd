// log Σ_k w_k N(z_d; μ_kd, σ_kd²) of every datum and dim: a thread has a dim of a few data.
#include "../table.h"
#include "mixture.h"

namespace vae_fast {
namespace cuda {
namespace {

// Components at a time.
constexpr int kFew = 4;

template <class T>
struct MarginalParams {
  MixtureParams<T> call;
  int64_t groups;  // of data
  int64_t each;    // components of a part
  double* parts;   // [part][top, sum][row][dim], where there are several
};

template <class T, int kRows>
__global__ void __launch_bounds__(kThreads, 1) marginals_kernel(const __grid_constant__ MarginalParams<T> p) {
  const MixtureParams<T>& call = p.call;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, dims = call.dims;
  if (at >= p.groups * dims) return;
  const int64_t d = at % dims, row = at / dims * kRows, first = blockIdx.y * p.each;
  const int64_t last = first + p.each < call.components ? first + p.each : call.components;
  const int64_t from = row * call.row_components + d;
  T z[kRows];
  const T* weights[kRows];
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    // Those that are not there are the last one again.
    const int64_t own = row + i < call.rows ? row + i : call.rows - 1;
    z[i] = call.z[own * dims + d];
    weights[i] = call.log_weight + own * call.row_weights;
  }
  LogSum<T> sums[kRows];
  for (int64_t k = first; k < last; k += kFew) {
    T terms[kRows][kFew];
#pragma unroll
    for (int j = 0; j < kFew; ++j) {
      const bool there = k + j < last;
      const int64_t component = there ? k + j : k, own = from + component * dims;
      const T mu = call.mu[own], rate = call.rate[own], log_rate = call.log_rate[own];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        const T u = (z[i] - mu) * rate;
        const T term = fma(u * T(-0.5), u, log_rate + weights[i][component]);
        terms[i][j] = there ? term : -infinity<T>();
      }
    }
#pragma unroll
    for (int i = 0; i < kRows; ++i) sums[i].add(terms[i]);
  }
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    if (row + i >= call.rows) continue;
    const int64_t to = (row + i) * dims + d, n = call.rows * dims;
    const double top = static_cast<double>(sums[i].top), sum = sums[i].sum;
    if (p.parts) {
      p.parts[(2 * blockIdx.y) * n + to] = top;
      p.parts[(2 * blockIdx.y + 1) * n + to] = sum;
    } else {
      const double log_sum = joined(1, [&](int64_t) { return top; }, [&](int64_t) { return sum; });
      call.marginals[to] = static_cast<T>(log_sum - kHalfLog2Pi);
    }
  }
}

struct LogParams {
  const double* parts;
  int64_t n_parts, count;
  double less;
  void* out;
  DType dtype;
};

__global__ void __launch_bounds__(kThreads, 1) join_logs_kernel(const __grid_constant__ LogParams p) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= p.count) return;
  const double log_sum = joined(
      p.n_parts, [&](int64_t part) { return p.parts[2 * part * p.count + at]; },
      [&](int64_t part) { return p.parts[(2 * part + 1) * p.count + at]; });
  store_one(log_sum - p.less, p.out, p.dtype, at);
}

template <class T, int kRows>
void run(const MixtureArgs& args) {
  const MixtureParams<T> call(args);
  const int64_t groups = parts_of(args.rows, kRows), blocks = parts_of(groups * args.dims, kThreads);
  const int64_t n = args.rows * args.dims;
  // Few data have their components in parts.
  constexpr int64_t kBusy = 256, kLeast = 64;
  const int64_t wanted = blocks > 0 && blocks < kBusy ? kBusy / blocks : 1, most = parts_of(args.components, kLeast);
  const int64_t each = parts_of(args.components, wanted < most ? wanted : most + !most);
  const int64_t parts = each > 0 ? parts_of(args.components, each) : 1;
  double* const table =
      parts > 1 ? static_cast<double*>(args.device->scratch(parts * 2 * n * static_cast<int64_t>(sizeof(double))))
                : nullptr;
  const MarginalParams<T> p{call, groups, each, table};
  launch(*args.device, "mixture_marginals", marginals_kernel<T, kRows>, p, blocks, parts, kThreads);
  if (table) join_logs(*args.device, table, parts, n, kHalfLog2Pi, args.marginals, args.compute);
}

}  // namespace

void join_logs(Device& device, const double* parts, int64_t n_parts, int64_t count, double less, void* out,
               DType dtype) {
  const LogParams p{parts, n_parts, count, less, out, dtype};
  launch(device, "join_logs", join_logs_kernel, p, parts_of(count, kThreads), 1, kThreads);
}

void mixture_marginals(const MixtureArgs& args) {
  const bool wide = args.compute == DType::kFloat64;
  if (args.own_components) return wide ? run<double, 1>(args) : run<float, 1>(args);
  wide ? run<double, kEach<double>>(args) : run<float, kEach<float>>(args);
}

}  // namespace cuda
}  // namespace vae_fast
