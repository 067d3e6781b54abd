#include "sums.h"

#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

struct JoinParams {
  Parts parts;
  double factor;
  void* out;
  DType dtype;
  int group;
};

__global__ void __launch_bounds__(kThreads, 1) join_kernel(const __grid_constant__ JoinParams p) {
  __shared__ double shared[kThreads / 32];
  const int lane = static_cast<int>(threadIdx.x) & (p.group - 1);
  const int64_t at_once = kThreads / p.group;
  const Parts& parts = p.parts;
  for (int64_t first = blockIdx.x * at_once; first < parts.count; first += gridDim.x * at_once) {
    const int64_t i = first + static_cast<int>(threadIdx.x) / p.group;
    double sum = 0;
    if (i < parts.count)
      for (int64_t j = lane; j < parts.n; j += p.group) sum += parts.data[i * parts.row + j * parts.step];
    sum = group_sum(sum, p.group, shared);
    if (lane == 0 && i < parts.count) store_one(sum * p.factor, p.out, p.dtype, i);
  }
}

struct ColumnParams {
  const void* values;
  ColumnSums sums;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) columns_kernel(const __grid_constant__ ColumnParams p) {
  __shared__ double shared[kDown][kAcross];
  sum_slabs(p.sums, shared, [&](int64_t row, int64_t column) {
    return static_cast<double>(static_cast<const T*>(p.values)[row * p.sums.columns + column]);
  });
}

// The terms as they are.
template <class T>
struct Sum {
  using Number = T;
  static constexpr int kInputs = 1, kSlots = 1;
  static constexpr bool kEven = false;
  using Traits = DensityTraits<>;
  static constexpr __device__ __forceinline__ bool always(int) { return true; }
  static constexpr __device__ __forceinline__ bool exact(int) { return true; }
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T, T (&out)[kSlots]) const { out[0] = in[0]; }
};

template <class T>
void sum_rows(Device& device, const View& values, const Rows& rows, double factor, void* out, DType dtype) {
  Plan plan(device, rows, kChunk<T>);
  plan.read(values);
  plan.value(out, dtype, factor);
  if (!plan.resolve()) return;
  const DensityParams<Sum<T>> p{plan.work(),   {},          {plan.input(0)}, {}, 1.0, 1.0, {plan.slot(0)},
                                plan.ticket(), plan.total()};
  launch(device, "sum_rows", density_kernel<Sum<T>, T, true, false>, p, plan.blocks(), 1, plan.threads());
  plan.finish();
}

struct CopyParams {
  View view;
  int64_t numel;
  void* dense;
  DType dtype;
  bool gather;
};

template <class Bits>
__device__ __forceinline__ void copy_bits(const void* from, int64_t at, void* to, int64_t place) {
  static_cast<Bits*>(to)[place] = static_cast<const Bits*>(from)[at];
}

__global__ void __launch_bounds__(kThreads, 1) copy_kernel(const __grid_constant__ CopyParams p) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < p.numel; i += step) {
    int64_t rest = i, at = 0;
    for (int d = p.view.ndim - 1; d > 0; --d) {
      const int64_t next = rest / p.view.size[d];
      at += (rest - next * p.view.size[d]) * p.view.stride[d];
      rest = next;
    }
    at += rest * p.view.stride[0];
    const void* from = p.gather ? p.view.data : p.dense;
    void* to = p.gather ? p.dense : p.view.data;
    const int64_t read = p.gather ? at : i, write = p.gather ? i : at;
    const DType from_dtype = p.gather ? p.view.dtype : p.dtype, to_dtype = p.gather ? p.dtype : p.view.dtype;
    if (from_dtype != to_dtype) {
      store_one(load_one<double>(from, from_dtype, read), to, to_dtype, write);
    } else if (to_dtype == DType::kFloat64 || to_dtype == DType::kInt64) {
      copy_bits<uint64_t>(from, read, to, write);
    } else if (to_dtype == DType::kFloat32 || to_dtype == DType::kInt32) {
      copy_bits<uint32_t>(from, read, to, write);
    } else if (bytes(to_dtype)) {
      copy_bits<uint8_t>(from, read, to, write);
    } else {
      copy_bits<uint16_t>(from, read, to, write);
    }
  }
}

void copy(Device& device, const View& view, int64_t numel, void* dense, DType dtype, bool gather) {
  const CopyParams p{view, numel, dense, dtype, gather};
  const int64_t blocks = parts_of(numel, kThreads);
  launch(device, gather ? "gather" : "scatter", copy_kernel, p, blocks < 1 << 20 ? blocks : 1 << 20, 1, kThreads);
}

}  // namespace

void join(Device& device, const Parts& parts, double factor, void* out, DType dtype) {
  int group = 1;
  while (group < kThreads && static_cast<int64_t>(group) * 8 < parts.n) group *= 2;
  const JoinParams p{parts, factor, out, dtype, group};
  const int64_t blocks = parts_of(parts.count, kThreads / group);
  launch(device, "join", join_kernel, p, blocks < 1 << 20 ? blocks : 1 << 20, 1, kThreads);
}

void sum_columns(Device& device, const void* values, DType compute, int64_t rows, int64_t columns, void* out,
                 DType dtype) {
  const ColumnParams p{values, ColumnSums(device, rows, columns, out, dtype)};
  launch(device, "sum_columns", compute == DType::kFloat64 ? columns_kernel<double> : columns_kernel<float>, p,
         p.sums.blocks, p.sums.slabs, kThreads);
  p.sums.finish(device);
}

void sum_rows(Device& device, const void* values, DType compute, int64_t rows, int64_t columns, double factor,
              void* out, DType dtype) {
  View view;
  view.data = const_cast<void*>(values);
  view.dtype = compute;
  view.append(rows * columns, 1);
  if (compute == DType::kFloat64) {
    sum_rows<double>(device, view, {rows, columns}, factor, out, dtype);
  } else {
    sum_rows<float>(device, view, {rows, columns}, factor, out, dtype);
  }
}

void gather(Device& device, const View& from, int64_t numel, void* to, DType dtype) {
  copy(device, from, numel, to, dtype, true);
}

void scatter(Device& device, const void* from, DType dtype, int64_t numel, const View& to) {
  copy(device, to, numel, const_cast<void*>(from), dtype, false);
}

double number_of(const View& view) {
  switch (view.dtype) {
    case DType::kFloat64: return *static_cast<const double*>(view.data);
    case DType::kFloat32: return static_cast<double>(*static_cast<const float*>(view.data));
    case DType::kBFloat16: return static_cast<double>(widen(*static_cast<const BFloat16*>(view.data)));
    case DType::kFloat16: return static_cast<double>(widen(*static_cast<const Float16*>(view.data)));
    case DType::kBool: return static_cast<double>(widen(*static_cast<const Bool*>(view.data)));
    case DType::kInt16: return static_cast<double>(*static_cast<const int16_t*>(view.data));
    case DType::kInt32: return static_cast<double>(*static_cast<const int32_t*>(view.data));
    case DType::kInt64: return static_cast<double>(*static_cast<const int64_t*>(view.data));
    default: return static_cast<double>(*static_cast<const uint8_t*>(view.data));
  }
}

}  // namespace cuda
}  // namespace vae_fast
