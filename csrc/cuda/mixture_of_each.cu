// The mixture's log-density of components that are each datum's own, and its gradients: a block has a datum at a time,
// and a group of neighbouring threads one of its components. What is of pairs and dims, has the components' own size.
#include "../table.h"
#include "mixture.h"

namespace vae_fast {
namespace cuda {
namespace {

template <class T>
struct EachParams {
  MixtureParams<T> call;
  int group;  // threads of a component, a power of two
  T* by_mu;   // [row][component][dim]
};

// Where a thread is among the components of a datum.
struct Place {
  int lane, first, step;

  __device__ __forceinline__ explicit Place(int group)
      : lane(static_cast<int>(threadIdx.x) % group),
        first(static_cast<int>(threadIdx.x) / group),
        step(kThreads / group) {}
};

// log w + log N but for its constant, for every thread of a component's group.
template <class T>
__device__ __forceinline__ T joint_term(const EachParams<T>& p, const Place& place, int64_t row, int64_t component) {
  const MixtureParams<T>& call = p.call;
  const int64_t at = (row * call.components + component) * call.dims;
  double sum = 0;
  T squares = T(0);
  for (int64_t d = place.lane; component < call.components && d < call.dims; d += p.group) {
    const T u = (call.z[row * call.dims + d] - call.mu[at + d]) * call.rate[at + d];
    squares = fma(u, u, squares);
    sum += static_cast<double>(call.log_rate[at + d]);
  }
  sum = fma(-0.5, static_cast<double>(squares), sum);
  for (int step = p.group / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
  if (component >= call.components) return -infinity<T>();
  return static_cast<T>(sum + static_cast<double>(call.log_weight[row * call.row_weights + component]));
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) each_fwd_kernel(const __grid_constant__ EachParams<T> p) {
  __shared__ double shared[kThreads / 32], tops[kThreads];
  const MixtureParams<T>& call = p.call;
  const Place place(p.group);
  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x) {
    LogSum<T> own;
    for (int64_t first = 0; first < call.components; first += place.step) {
      const T terms[1] = {joint_term(p, place, row, first + place.first)};
      own.add(terms);
    }
    tops[threadIdx.x] = static_cast<double>(own.top);
    __syncthreads();
    double top = tops[0];
    for (int t = p.group; t < kThreads; t += p.group) top = tops[t] > top ? tops[t] : top;
    const double shift = abs(top) < infinity<double>() ? top : 0.0, mine = static_cast<double>(own.top);
    const double part = place.lane > 0 ? 0.0 : own.sum * (mine == top ? 1.0 : exp(mine - shift));
    const double sum = group_sum(part, kThreads, shared);
    if (threadIdx.x > 0) continue;
    const double log_sum = joined(1, [&](int64_t) { return top; }, [&](int64_t) { return sum; });
    call.log_prob[row] = static_cast<T>(log_sum - static_cast<double>(call.dims) * kHalfLog2Pi);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) each_bwd_kernel(const __grid_constant__ EachParams<T> p) {
  const MixtureParams<T>& call = p.call;
  const Place place(p.group);
  const int64_t dims = call.dims;
  for (int64_t row = blockIdx.x; row < call.rows; row += gridDim.x)
    for (int64_t first = 0; first < call.components; first += place.step) {
      const int64_t component = first + place.first, pair = row * call.components + component;
      T of_all = T(0);
      if (call.dlog_prob) {
        const T term = joint_term(p, place, row, component);
        of_all = share(term, of_joint(call.log_prob[row], dims), call.dlog_prob[row]);
      }
      double of_dims = 0;
      for (int64_t d = place.lane; component < call.components && d < dims; d += p.group) {
        const int64_t at = pair * dims + d, of = row * dims + d;
        const T difference = call.z[of] - call.mu[at], rate = call.rate[at], u = difference * rate;
        T all = of_all;
        if (call.dmarginals) {
          const T weight = call.log_rate[at] + call.log_weight[row * call.row_weights + component];
          const T own = share(fma(u * T(-0.5), u, weight), of_marginal(call.marginals[of]), call.dmarginals[of]);
          of_dims += static_cast<double>(own);
          all += own;
        }
        const T slope = times(all, all, u);
        if (p.by_mu) p.by_mu[at] = times(all, slope, rate);
        if (call.drate) call.drate[at] = -times(all, slope, difference);
        if (call.dlog_rate) call.dlog_rate[at] = all;
      }
      for (int step = p.group / 2; step > 0; step /= 2) of_dims += __shfl_xor_sync(0xFFFFFFFFu, of_dims, step);
      if (call.dlog_weight && component < call.components && place.lane == 0)
        call.dlog_weight[pair] = static_cast<T>(static_cast<double>(of_all) + of_dims);
    }
}

// The gradient of the data, of that by μ.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) each_data_kernel(const __grid_constant__ EachParams<T> p) {
  const MixtureParams<T>& call = p.call;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (at >= call.rows * call.dims) return;
  const T* from = p.by_mu + at / call.dims * call.components * call.dims + at % call.dims;
  double sum = 0;
#pragma unroll 8
  for (int64_t k = 0; k < call.components; ++k) sum -= static_cast<double>(from[k * call.dims]);
  call.dz[at] = static_cast<T>(sum);
}

template <class T>
EachParams<T> each_params(const MixtureArgs& args) {
  int group = 1;
  while (group < 32 && group < args.dims) group *= 2;
  return {MixtureParams<T>(args), group, static_cast<T*>(args.dmu)};
}

constexpr int64_t kMostRows = 1 << 16;

template <class T>
void forward(const MixtureArgs& args) {
  const int64_t blocks = args.rows < kMostRows ? args.rows : kMostRows;
  launch(*args.device, "mixture_of_each", each_fwd_kernel<T>, each_params<T>(args), blocks, 1, kThreads);
}

template <class T>
void backward(const MixtureArgs& args) {
  EachParams<T> p = each_params<T>(args);
  const int64_t n = args.rows * args.components * args.dims;
  if (args.dz && !p.by_mu) p.by_mu = static_cast<T*>(args.device->scratch(n * static_cast<int64_t>(sizeof(T))));
  const int64_t blocks = args.rows < kMostRows ? args.rows : kMostRows;
  launch(*args.device, "mixture_of_each_gradients", each_bwd_kernel<T>, p, blocks, 1, kThreads);
  if (args.dz)
    launch(*args.device, "mixture_of_each_data", each_data_kernel<T>, p, parts_of(args.rows * args.dims, kThreads), 1,
           kThreads);
}

}  // namespace

void mixture_of_each_fwd(const MixtureArgs& args) {
  args.compute == DType::kFloat64 ? forward<double>(args) : forward<float>(args);
}

void mixture_of_each_bwd(const MixtureArgs& args) {
  args.compute == DType::kFloat64 ? backward<double>(args) : backward<float>(args);
}

}  // namespace cuda
}  // namespace vae_fast
