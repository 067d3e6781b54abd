// log Σ_k w_k N(z; μ_k, σ_k²) of components that are for all data, and its gradients: of the data by blocks that own
// some of these, of the components by blocks that own some of those. Both make the shares anew.
#include "../table.h"
#include "mixture.h"

namespace vae_fast {
namespace cuda {
namespace {

template <class T>
struct SharedParams {
  MixtureParams<T> call;
  const T* log_rates;  // Σ_d −log σ of each component
  PairUnits units;
  // Sums of parts. Forward [part][top, sum][row], null where there is one; of data [part][row][dim]; of components
  // [part][sum][component][dim].
  double* table;
  double* shares;  // of components, [part][component], of all dims together
};

// ---- the terms of a tile's pairs -------------------------------------------------------------------------

// Tiles of both sides.
template <class T>
struct MixtureTiles {
  Points<T> z, mu, rate;
};

// The thread's pairs of data from `row` on and components from `component` on, group `b` of those and group `k` of
// these: log w + log N but for its constant. Squares are summed 16 at a time.
template <class T, bool kOwnsData>
__device__ __forceinline__ void joint_terms(const SharedParams<T>& p, MixtureTiles<T>& tiles, int64_t row,
                                            int64_t component, int b, int k, FewPairs<T>& terms) {
  constexpr int N = kEach<T>;
  const MixtureParams<T>& call = p.call;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) terms[i][j] = T(0);
  for (int64_t first = 0; first < call.dims; first += kDims) {
    read_tiles<T>(first, call.dims, Source<T>{call.z, row, call.rows, tiles.z},
                  Source<T>{call.mu, component, call.components, tiles.mu},
                  Source<T>{call.rate, component, call.components, tiles.rate});
    FewPairs<T> part = {};
#pragma unroll 4
    for (int d = 0; d < kDims; ++d) {
      const Few<T>&z = tiles.z.few(d, b), &mu = tiles.mu.few(d, k), &rate = tiles.rate.few(d, k);
#pragma unroll
      for (int i = 0; i < N; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const T u = ((kOwnsData ? z.at[i] : z.at[j]) - (kOwnsData ? mu.at[j] : mu.at[i])) *
                      (kOwnsData ? rate.at[j] : rate.at[i]);
          part[i][j] = fma(u, u, part[i][j]);
        }
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) terms[i][j] += part[i][j];
  }
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int64_t own_row = row + b * N + (kOwnsData ? i : j), own = component + k * N + (kOwnsData ? j : i);
      const bool there = own_row < call.rows && own < call.components;
      const T least = there ? p.log_rates[own] + call.log_weight[own_row * call.row_weights + own] : -infinity<T>();
      terms[i][j] = fma(T(-0.5), terms[i][j], least);
    }
}

// What of each of these is in the value, times its upstream gradient; 0 of a pair that is not there.
template <class T, bool kOwnsData>
__device__ __forceinline__ void joint_shares(const SharedParams<T>& p, int64_t row, int64_t component, int b, int k,
                                             FewPairs<T>& terms) {
  constexpr int N = kEach<T>;
#pragma unroll
  for (int i = 0; i < N; ++i)
#pragma unroll
    for (int j = 0; j < N; ++j) {
      const int64_t own_row = row + b * N + (kOwnsData ? i : j), own = component + k * N + (kOwnsData ? j : i);
      const bool there = own_row < p.call.rows && own < p.call.components;
      terms[i][j] =
          there ? share(terms[i][j], of_joint(p.call.log_prob[own_row], p.call.dims), p.call.dlog_prob[own_row]) : T(0);
    }
}

// ---- forward ---------------------------------------------------------------------------------------------

template <class T>
__global__ void __launch_bounds__(kThreads, 1) joint_kernel(const __grid_constant__ SharedParams<T> p) {
  constexpr int N = kEach<T>;
  __shared__ MixtureTiles<T> tiles;
  const int k = static_cast<int>(threadIdx.x) % kSide, b = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile<T>;
  const int64_t first = blockIdx.y * p.units.each * kTile<T>, end = first + p.units.each * kTile<T>;
  LogSum<T> sums[N];
  for (int64_t component = first; component < end && component < p.call.components; component += kTile<T>) {
    FewPairs<T> terms;
    joint_terms<T, true>(p, tiles, row, component, b, k, terms);
#pragma unroll
    for (int i = 0; i < N; ++i) sums[i].add(terms[i]);
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    // The sixteen threads of a row are neighbours.
    double top = static_cast<double>(sums[i].top), most = top;
#pragma unroll
    for (int step = kSide / 2; step > 0; step /= 2) {
      const double other = __shfl_xor_sync(0xFFFFFFFFu, most, step);
      most = other > most ? other : most;
    }
    const double shift = abs(most) < infinity<double>() ? most : 0.0;
    double sum = sums[i].sum * (top == most ? 1.0 : exp(top - shift));
#pragma unroll
    for (int step = kSide / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    const int64_t own = row + b * N + i;
    if (k != 0 || own >= p.call.rows) continue;
    if (p.table) {
      p.table[2 * blockIdx.y * p.call.rows + own] = most;
      p.table[(2 * blockIdx.y + 1) * p.call.rows + own] = sum;
    } else {
      const double log_sum = joined(1, [&](int64_t) { return most; }, [&](int64_t) { return sum; });
      p.call.log_prob[own] = static_cast<T>(log_sum - static_cast<double>(p.call.dims) * kHalfLog2Pi);
    }
  }
}

// ---- the gradient of the data ----------------------------------------------------------------------------

template <class T, bool kMarginals>
__global__ void __launch_bounds__(kThreads, 1) data_kernel(const __grid_constant__ SharedParams<T> p) {
  constexpr int N = kEach<T>;
  __shared__ MixtureTiles<T> tiles;
  __shared__ PairTable<T> shares;
  const MixtureParams<T>& call = p.call;
  Points<T>& log_rates = tiles.z;  // which the marginals ask for when z is not
  const int fast = static_cast<int>(threadIdx.x) % kSide, slow = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile<T>, dims = call.dims;
  const int64_t first = blockIdx.y * p.units.each * kTile<T>, end = first + p.units.each * kTile<T>;
  for (int64_t component = first; component < end && component < call.components; component += kTile<T>) {
    if (call.dlog_prob) {
      FewPairs<T> terms;
      joint_terms<T, true>(p, tiles, row, component, slow, fast, terms);
      joint_shares<T, true>(p, row, component, slow, fast, terms);
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < N; ++i) shares.few(fast * N + j, slow).at[i] = terms[i][j];
    }
    for (int64_t first_dim = 0; first_dim < dims; first_dim += kDims) {
      const Source<T> mu{call.mu, component, call.components, tiles.mu},
          rate{call.rate, component, call.components, tiles.rate};
      if constexpr (kMarginals) {
        read_tiles<T>(first_dim, dims, mu, rate, Source<T>{call.log_rate, component, call.components, log_rates});
      } else {
        read_tiles<T>(first_dim, dims, mu, rate);
      }
      const int64_t d = first_dim + fast;
      if (d >= dims) continue;
      T z[N], value[N], upstream[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int64_t own = row + slow * N + i < call.rows ? row + slow * N + i : call.rows - 1;
        z[i] = call.z[own * dims + d];
        value[i] = kMarginals ? of_marginal(call.marginals[own * dims + d]) : T(0);
        upstream[i] = kMarginals ? call.dmarginals[own * dims + d] : T(0);
      }
      TileSums<T, 1> sums;
      for (int k = 0; k < kTile<T>; k += N) {
        const Few<T>&mu_of = tiles.mu.few(fast, k / N), &rate_of = tiles.rate.few(fast, k / N);
        const Few<T>& log_rates_of = log_rates.few(fast, k / N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          Few<T> w = {};
          if (call.dlog_prob) w = shares.few(k + j, slow);
          T weight[N];
          if constexpr (kMarginals) {
            const int64_t own = component + k + j;
            const bool there = own < call.components;
            const T of_all = there ? call.log_weight[own] : -infinity<T>(), log_rate = log_rates_of.at[j];
#pragma unroll
            for (int i = 0; i < N; ++i) {
              const int64_t of = row + slow * N + i < call.rows ? row + slow * N + i : call.rows - 1;
              const bool each = there && call.row_weights > 0;
              weight[i] = log_rate + (each ? call.log_weight[of * call.row_weights + own] : of_all);
            }
          }
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const T u = (z[i] - mu_of.at[j]) * rate_of.at[j];
            T all = w.at[i];
            if constexpr (kMarginals) all += share(fma(u * T(-0.5), u, weight[i]), value[i], upstream[i]);
            sums.part[0][i] -= times(all, times(all, all, u), rate_of.at[j]);
          }
        }
        if ((k + N) % kSide == 0) sums.flush();
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int64_t own = row + slow * N + i;
        if (own >= call.rows) continue;
        double& to = p.table[(blockIdx.y * call.rows + own) * dims + d];
        const double sum = static_cast<double>(sums.all[0][i]);
        to = component == first ? sum : to + sum;
      }
    }
  }
}

// ---- the gradients of the components ---------------------------------------------------------------------

// Of each dim of a component: by μ, by 1/σ, and of marginals the shares themselves.
template <bool kMarginals>
constexpr int kSums = kMarginals ? 3 : 2;

template <class T, bool kMarginals>
__global__ void __launch_bounds__(kThreads, 1) components_kernel(const __grid_constant__ SharedParams<T> p) {
  constexpr int N = kEach<T>, kTables = kSums<kMarginals>;
  __shared__ MixtureTiles<T> tiles;
  __shared__ PairTable<T> shares;
  const MixtureParams<T>& call = p.call;
  Points<T>&values = tiles.mu, &upstreams = tiles.rate;  // of marginals, when no more is asked of those
  const int fast = static_cast<int>(threadIdx.x) % kSide, slow = static_cast<int>(threadIdx.x) / kSide;
  const int64_t component = static_cast<int64_t>(blockIdx.x) * kTile<T>, dims = call.dims;
  const int64_t first = blockIdx.y * p.units.each * kTile<T>, end = first + p.units.each * kTile<T>;
  double of_all[N] = {};
  for (int64_t row = first; row < end && row < call.rows; row += kTile<T>) {
    if (call.dlog_prob) {
      FewPairs<T> terms;
      joint_terms<T, false>(p, tiles, row, component, fast, slow, terms);
      joint_shares<T, false>(p, row, component, fast, slow, terms);
#pragma unroll
      for (int i = 0; i < N; ++i) {
        T sum = terms[i][0];
#pragma unroll
        for (int j = 1; j < N; ++j) sum += terms[i][j];
        of_all[i] += static_cast<double>(sum);
      }
#pragma unroll
      for (int j = 0; j < N; ++j)
#pragma unroll
        for (int i = 0; i < N; ++i) shares.few(fast * N + j, slow).at[i] = terms[i][j];
    }
    for (int64_t first_dim = 0; first_dim < dims; first_dim += kDims) {
      const Source<T> z{call.z, row, call.rows, tiles.z};
      if constexpr (kMarginals) {
        read_tiles<T>(first_dim, dims, z, Source<T>{call.marginals, row, call.rows, values},
                      Source<T>{call.dmarginals, row, call.rows, upstreams});
      } else {
        read_tiles<T>(first_dim, dims, z);
      }
      const int64_t d = first_dim + fast;
      if (d >= dims) continue;
      T mu[N], rate[N], log_rate[N], of_all_data[N];
      int64_t own[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        own[i] = component + slow * N + i < call.components ? component + slow * N + i : call.components - 1;
        mu[i] = call.mu[own[i] * dims + d];
        rate[i] = call.rate[own[i] * dims + d];
        log_rate[i] = kMarginals ? call.log_rate[own[i] * dims + d] : T(0);
        of_all_data[i] = kMarginals ? call.log_weight[own[i]] : T(0);
      }
      TileSums<T, kTables> sums;
      for (int b = 0; b < kTile<T>; b += N) {
        const Few<T>&z_of = tiles.z.few(fast, b / N), &value_of = values.few(fast, b / N);
        const Few<T>& upstream_of = upstreams.few(fast, b / N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          Few<T> w = {};
          if (call.dlog_prob) w = shares.few(b + j, slow);
          // Of a datum that is not there the upstream gradient is 0.
          const int64_t datum = row + b + j < call.rows ? row + b + j : call.rows - 1;
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const T difference = z_of.at[j] - mu[i], u = difference * rate[i];
            T all = w.at[i];
            if constexpr (kMarginals) {
              const T log_weight =
                  call.row_weights > 0 ? call.log_weight[datum * call.row_weights + own[i]] : of_all_data[i];
              const T term = fma(u * T(-0.5), u, log_rate[i] + log_weight);
              const T of_dim = share(term, of_marginal(value_of.at[j]), upstream_of.at[j]);
              sums.part[2][i] += of_dim;
              all += of_dim;
            }
            const T slope = times(all, all, u);
            sums.part[0][i] += times(all, slope, rate[i]);
            sums.part[1][i] -= times(all, slope, difference);
          }
        }
        if ((b + N) % kSide == 0) sums.flush();
      }
#pragma unroll
      for (int n = 0; n < kTables; ++n)
#pragma unroll
        for (int i = 0; i < N; ++i) {
          if (component + slow * N + i >= call.components) continue;
          double& to = p.table[((blockIdx.y * kTables + n) * call.components + own[i]) * dims + d];
          const double sum = static_cast<double>(sums.all[n][i]);
          to = row == first ? sum : to + sum;
        }
    }
  }
#pragma unroll
  for (int i = 0; i < N; ++i) {
    double sum = of_all[i];
#pragma unroll
    for (int step = kSide / 2; step > 0; step /= 2) sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    const int64_t own = component + slow * N + i;
    if (fast == 0 && own < call.components) p.shares[blockIdx.y * call.components + own] = sum;
  }
}

// Of log w that are each datum's own: a share of each pair, of all dims together and of each.
template <class T>
__global__ void __launch_bounds__(kThreads, 1) weights_kernel(const __grid_constant__ SharedParams<T> p) {
  constexpr int N = kEach<T>;
  __shared__ MixtureTiles<T> tiles;
  const MixtureParams<T>& call = p.call;
  const int k = static_cast<int>(threadIdx.x) % kSide, b = static_cast<int>(threadIdx.x) / kSide;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kTile<T>, dims = call.dims;
  const int64_t first = blockIdx.y * p.units.each * kTile<T>, end = first + p.units.each * kTile<T>;
  for (int64_t component = first; component < end && component < call.components; component += kTile<T>) {
    FewPairs<T> shares = {};
    if (call.dlog_prob) {
      joint_terms<T, true>(p, tiles, row, component, b, k, shares);
      joint_shares<T, true>(p, row, component, b, k, shares);
    }
#pragma unroll
    for (int i = 0; i < N; ++i)
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int64_t own_row = row + b * N + i, own = component + k * N + j;
        if (own_row >= call.rows || own >= call.components) continue;
        T sum = shares[i][j];
        const T weight = call.log_weight[own_row * call.row_weights + own];
        for (int64_t d = 0; call.dmarginals && d < dims; ++d) {
          const int64_t at = own * dims + d, of = own_row * dims + d;
          const T u = (call.z[of] - call.mu[at]) * call.rate[at];
          sum += share(fma(u * T(-0.5), u, call.log_rate[at] + weight), of_marginal(call.marginals[of]),
                       call.dmarginals[of]);
        }
        call.dlog_weight[own_row * call.components + own] = sum;
      }
  }
}

// ---- what is made before and after -----------------------------------------------------------------------

// Σ_d −log σ of each component, a warp for each.
template <class T>
struct LogRateParams {
  int64_t components, dims;
  const T* log_rate;
  T* sums;
};

constexpr int kWarps = kThreads / 32;

template <class T>
__global__ void __launch_bounds__(kThreads, 1) log_rates_kernel(const __grid_constant__ LogRateParams<T> p) {
  const int64_t k = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  double sum = 0;
  for (int64_t d = threadIdx.x % 32; k < p.components && d < p.dims; d += 32)
    sum += static_cast<double>(p.log_rate[k * p.dims + d]);
  sum = group_sum(sum, 32, nullptr);
  if (threadIdx.x % 32 == 0 && k < p.components) p.sums[k] = static_cast<T>(sum);
}

// The gradients of the components, of the sums of parts: those by −log σ and by log w are of the shares.
template <class T, bool kMarginals>
__global__ void __launch_bounds__(kThreads, 1) join_components_kernel(const __grid_constant__ SharedParams<T> p) {
  const MixtureParams<T>& call = p.call;
  const int64_t n = call.components * call.dims, parts = p.units.parts;
  const auto of_all = [&](int64_t k) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += p.shares[part * call.components + k];
    return sum;
  };
  const auto of_each = [&](int which, int64_t at) {
    double sum = 0;
    for (int64_t part = 0; part < parts; ++part) sum += p.table[(part * kSums<kMarginals> + which) * n + at];
    return sum;
  };
  if (blockIdx.y == 1) {
    // A warp for each component.
    for (int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps; first < call.components;
         first += gridDim.x * kWarps) {
      const int64_t k = first + threadIdx.x / 32;
      double sum = 0;
      for (int64_t d = threadIdx.x % 32; kMarginals && k < call.components && d < call.dims; d += 32)
        sum += of_each(2, k * call.dims + d);
      sum = group_sum(sum, 32, nullptr);
      if (threadIdx.x % 32 == 0 && k < call.components) call.dlog_weight[k] = static_cast<T>(sum + of_all(k));
    }
    return;
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t at = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; at < n; at += step) {
    if (call.dmu) call.dmu[at] = static_cast<T>(of_each(0, at));
    if (call.drate) call.drate[at] = static_cast<T>(of_each(1, at));
    if (call.dlog_rate)
      call.dlog_rate[at] = static_cast<T>(of_all(at / call.dims) + (kMarginals ? of_each(2, at) : 0.0));
  }
}

double* doubles(Device& device, int64_t n) {
  return static_cast<double*>(device.scratch(n * static_cast<int64_t>(sizeof(double))));
}

template <class T>
SharedParams<T> shared_params(const MixtureArgs& args) {
  T* const sums = static_cast<T*>(args.device->scratch(args.components * static_cast<int64_t>(sizeof(T))));
  const LogRateParams<T> p{args.components, args.dims, static_cast<const T*>(args.log_rate), sums};
  launch(*args.device, "mixture_log_rates", log_rates_kernel<T>, p, parts_of(args.components, kWarps), 1, kThreads);
  return {MixtureParams<T>(args), sums, {}, nullptr, nullptr};
}

template <class T>
void forward(const MixtureArgs& args) {
  SharedParams<T> p = shared_params<T>(args);
  p.units = PairUnits::of(args.rows, args.components, kTile<T>);
  const int64_t parts = p.units.parts > 0 ? p.units.parts : 1;
  if (parts > 1) p.table = doubles(*args.device, 2 * parts * args.rows);
  launch(*args.device, "mixture_joint", joint_kernel<T>, p, p.units.owners, parts, kThreads);
  if (!p.table) return;
  const double constant = static_cast<double>(args.dims) * kHalfLog2Pi;
  join_logs(*args.device, p.table, parts, args.rows, constant, args.log_prob, args.compute);
}

template <class T, bool kMarginals>
void backward(const MixtureArgs& args) {
  Device& device = *args.device;
  SharedParams<T> p = shared_params<T>(args);
  if (args.dz) {
    p.units = PairUnits::of(args.rows, args.components, kTile<T>);
    const int64_t n = args.rows * args.dims;
    p.table = doubles(device, p.units.parts * n);
    launch(device, "mixture_data", data_kernel<T, kMarginals>, p, p.units.owners, p.units.parts, kThreads);
    join(device, {p.table, n, p.units.parts, 1, n}, 1.0, args.dz, args.compute);
  }
  if (args.dlog_weight && args.own_weights) {
    p.units = PairUnits::of(args.rows, args.components, kTile<T>);
    launch(device, "mixture_weights", weights_kernel<T>, p, p.units.owners, p.units.parts, kThreads);
  }
  const bool of_weights = args.dlog_weight && !args.own_weights;
  if (!args.dmu && !args.drate && !args.dlog_rate && !of_weights) return;
  p.units = PairUnits::of(args.components, args.rows, kTile<T>);
  const int64_t n = args.components * args.dims;
  p.table = doubles(device, p.units.parts * kSums<kMarginals> * n);
  p.shares = doubles(device, p.units.parts * args.components);
  launch(device, "mixture_components", components_kernel<T, kMarginals>, p, p.units.owners, p.units.parts, kThreads);
  const int64_t blocks = parts_of(n > args.components ? n : args.components, kThreads), most = 1 << 16;
  launch(device, "mixture_join", join_components_kernel<T, kMarginals>, p, blocks < most ? blocks : most,
         of_weights ? 2 : 1, kThreads);
}

}  // namespace

void gaussian_mixture_fwd(const MixtureArgs& args) {
  const bool wide = args.compute == DType::kFloat64;
  if (args.own_components) {
    mixture_of_each_fwd(args);
  } else {
    wide ? forward<double>(args) : forward<float>(args);
  }
  if (args.per_dim) mixture_marginals(args);
}

void gaussian_mixture_bwd(const MixtureArgs& args) {
  if (args.own_components) return mixture_of_each_bwd(args);
  if (args.compute == DType::kFloat64)
    return args.dmarginals ? backward<double, true>(args) : backward<double, false>(args);
  args.dmarginals ? backward<float, true>(args) : backward<float, false>(args);
}

}  // namespace cuda
}  // namespace vae_fast
