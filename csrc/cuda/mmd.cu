// The squared maximum mean discrepancy of two sets of points, and its gradients: means of a kernel over pairs of points
// of the two and of each with itself, all in one launch, of which each block has some points and a part of the others.
#include "../table.h"
#include "pairs.h"

namespace vae_fast {
namespace cuda {
namespace {

// Constants of a launch; where there are more, the kernel is a sum of several.
constexpr int kConstants = 16;

// A mean over pairs: of its kernel's values times `each`, and of the slopes, by the owners, times `slope`.
template <class T>
struct Mean {
  const T *owners, *others;
  int64_t n_owners, n_others;
  bool itself;  // owners and others are one set, and pairs of a point and itself are left out
  double each, slope;
  PairUnits units;
  double* values;  // one a unit
  double* table;   // [part][owner][dim], null where no gradient is asked for
};

template <class T>
struct MmdParams {
  Mean<T> means[4];
  int64_t dims;
  bool exponential;
  int n_constants;
  T rates[kConstants];  // 1/c
};

// The kernel at d², and −2 times its derivative by d².
template <class T>
struct KernelAt {
  T value, slope;
};

#ifdef __CUDA_ARCH__
// Of numbers from 1 on; of one whose reciprocal is subnormal, 0.
__device__ __forceinline__ float reciprocal(float a) { return lean_reciprocal(a); }
#else
inline float reciprocal(float a) { return 1.0f / a; }
#endif
__device__ __forceinline__ double reciprocal(double a) { return 1.0 / a; }

template <class T>
__device__ __forceinline__ KernelAt<T> kernel_at(const MmdParams<T>& p, T square) {
  if (p.exponential) {
    const T value = exp_of_share(-square * p.rates[0]);
    return {value, value * (p.rates[0] + p.rates[0])};
  }
  KernelAt<T> at{T(0), T(0)};
  for (int s = 0; s < p.n_constants; ++s) {
    const T rate = p.rates[s], over = reciprocal(fma(square, rate, T(1)));
    at.value += over;
    at.slope = fma(over * (rate + rate), over, at.slope);
  }
  return at;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) mmd_kernel(const __grid_constant__ MmdParams<T> p) {
  constexpr int N = kEach<T>;
  __shared__ Points<T> owners, others;
  __shared__ PairTable<T> slopes;
  __shared__ double shared[kThreads / 32];
  const Mean<T>& mean = p.means[blockIdx.y];
  if (blockIdx.x >= mean.units.owners * mean.units.parts) return;
  const int fast = static_cast<int>(threadIdx.x) % kSide, slow = static_cast<int>(threadIdx.x) / kSide;
  const int64_t part = blockIdx.x / mean.units.owners, owner = blockIdx.x % mean.units.owners * kTile<T>;
  const int64_t first = part * mean.units.each * kTile<T>, end = first + mean.units.each * kTile<T>, dims = p.dims;
  double total = 0;
  for (int64_t other = first; other < end && other < mean.n_others; other += kTile<T>) {
    FewPairs<T> squares = {};
    for (int64_t first_dim = 0; first_dim < dims; first_dim += kDims) {
      read_tiles<T>(first_dim, dims, Source<T>{mean.owners, owner, mean.n_owners, owners},
                    Source<T>{mean.others, other, mean.n_others, others});
      FewPairs<T> some = {};
#pragma unroll 4
      for (int d = 0; d < kDims; ++d) {
        const Few<T>&a = owners.few(d, slow), &b = others.few(d, fast);
#pragma unroll
        for (int i = 0; i < N; ++i)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            const T difference = a.at[i] - b.at[j];
            some[i][j] = fma(difference, difference, some[i][j]);
          }
      }
#pragma unroll
      for (int i = 0; i < N; ++i)
#pragma unroll
        for (int j = 0; j < N; ++j) squares[i][j] += some[i][j];
    }
#pragma unroll
    for (int i = 0; i < N; ++i) {
      T sum = T(0);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const int64_t of = owner + slow * N + i, with = other + fast * N + j;
        const bool there = of < mean.n_owners && with < mean.n_others && !(mean.itself && of == with);
        const KernelAt<T> at = kernel_at(p, squares[i][j]);
        sum += there ? at.value : T(0);
        squares[i][j] = there ? at.slope : T(0);
      }
      total += static_cast<double>(sum);
    }
    if (!mean.table) continue;
#pragma unroll
    for (int j = 0; j < N; ++j)
#pragma unroll
      for (int i = 0; i < N; ++i) slopes.few(fast * N + j, slow).at[i] = squares[i][j];
    for (int64_t first_dim = 0; first_dim < dims; first_dim += kDims) {
      read_tiles<T>(first_dim, dims, Source<T>{mean.others, other, mean.n_others, others});
      const int64_t d = first_dim + fast;
      if (d >= dims) continue;
      T own[N];
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int64_t of = owner + slow * N + i < mean.n_owners ? owner + slow * N + i : mean.n_owners - 1;
        own[i] = mean.owners[of * dims + d];
      }
      TileSums<T, 1> sums;
      for (int k = 0; k < kTile<T>; k += N) {
        const Few<T>& points = others.few(fast, k / N);
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const Few<T>& slope = slopes.few(k + j, slow);
          // A slope of 0 is none of an infinite distance.
#pragma unroll
          for (int i = 0; i < N; ++i) {
            const T by = slope.at[i] * (own[i] - points.at[j]);
            sums.part[0][i] -= slope.at[i] == T(0) ? T(0) : by;
          }
        }
        if ((k + N) % kSide == 0) sums.flush();
      }
#pragma unroll
      for (int i = 0; i < N; ++i) {
        const int64_t of = owner + slow * N + i;
        if (of >= mean.n_owners) continue;
        double& to = mean.table[(part * mean.n_owners + of) * dims + d];
        const double sum = mean.slope * static_cast<double>(sums.all[0][i]);
        to = other == first ? sum : to + sum;
      }
    }
  }
  total = group_sum(total, kThreads, shared);
  if (threadIdx.x == 0) mean.values[blockIdx.x] = mean.each * total;
}

// The means of a call, one after the other, and where their sums go.
template <class T>
class Means {
 public:
  explicit Means(const MmdArgs& args) : args_(args) {
    add(0, 0, 1, true);
    add(1, 1, 1, true);
    add(0, 1, -2, true);
    if (args.gradients[1]) add(1, 0, -2, false);
    passes_ = parts_of(args.n_constants, kConstants);
    for (int k = 0; k < count_; ++k) {
      units_ += unit_count(k);
      if (means_[k].slope != 0) parts_[owner_[k]] += means_[k].units.parts;
    }
  }

  void run() {
    Device& device = *args_.device;
    double* values = doubles(units_ * passes_);
    double* tables[2] = {};
    for (int set = 0; set < 2; ++set)
      if (args_.gradients[set]) tables[set] = doubles(parts_[set] * passes_ * args_.points[set] * args_.dims);
    const double* const first_value = values;
    const double* const first_table[2] = {tables[0], tables[1]};
    for (int64_t pass = 0; pass < passes_; ++pass) {
      MmdParams<T> p{{}, args_.dims, args_.exponential, 0, {}};
      for (int64_t s = pass * kConstants; s < args_.n_constants && p.n_constants < kConstants; ++s)
        p.rates[p.n_constants++] = static_cast<T>(1 / args_.constants[s]);
      int64_t blocks = 0;
      for (int k = 0; k < count_; ++k) {
        p.means[k] = means_[k];
        p.means[k].values = values;
        values += unit_count(k);
        blocks = unit_count(k) > blocks ? unit_count(k) : blocks;
        double*& table = tables[owner_[k]];
        if (!table || means_[k].slope == 0) continue;
        p.means[k].table = table;
        table += means_[k].units.parts * args_.points[owner_[k]] * args_.dims;
      }
      launch(device, "mmd", mmd_kernel<T>, p, blocks, count_, kThreads);
    }
    join(device, {first_value, 1, units_ * passes_, 0, 1}, 1.0, args_.value, args_.compute);
    for (int set = 0; set < 2; ++set) {
      const int64_t n = args_.points[set] * args_.dims;
      if (args_.gradients[set])
        join(device, {first_table[set], n, parts_[set] * passes_, 1, n}, 1.0, args_.gradients[set], args_.compute);
    }
  }

 private:
  void add(int of, int with, double factor, bool of_value) {
    const double n = static_cast<double>(args_.points[of]), m = static_cast<double>(args_.points[with]);
    const bool itself = of == with, without = itself && args_.unbiased;
    const double each = factor / (without ? n * (n - 1) : n * m);
    owner_[count_] = of;
    // Of a set with itself each point is in two places.
    means_[count_++] = {static_cast<const T*>(args_.of[of]),
                        static_cast<const T*>(args_.of[with]),
                        args_.points[of],
                        args_.points[with],
                        without,
                        of_value ? each : 0.0,
                        args_.gradients[of] ? (itself ? 2 : 1) * each : 0.0,
                        PairUnits::of(args_.points[of], args_.points[with], kTile<T>),
                        nullptr,
                        nullptr};
  }
  int64_t unit_count(int k) const { return means_[k].units.owners * means_[k].units.parts; }
  double* doubles(int64_t n) {
    return static_cast<double*>(args_.device->scratch(n * static_cast<int64_t>(sizeof(double))));
  }

  const MmdArgs& args_;
  Mean<T> means_[4];
  int owner_[4], count_ = 0;
  int64_t passes_, units_ = 0, parts_[2] = {};
};

}  // namespace

void mmd(const MmdArgs& args) {
  args.compute == DType::kFloat64 ? Means<double>(args).run() : Means<float>(args).run();
}

}  // namespace cuda
}  // namespace vae_fast
