// The gradients that came with a forward pass, times the upstream one that came later. The factor is read on the
// device, and where it is 1 nothing else is.
#include "../table.h"
#include "access.h"
#include "launch.h"

namespace vae_fast {
namespace cuda {
namespace {

// Products in T, rounded to S. A gradient of 0 stays 0: it may be that of a weight of 0, or of a clamped scale, which
// no upstream gradient makes NaN.
template <class S, class T>
__device__ __forceinline__ void multiply(void* data, int64_t numel, T factor) {
  constexpr int N = kChunk<S>;
  Output out;
  out.data = data;
  out.dtype = kDType<S>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += step) {
    const Chunk<N> chunk(i, numel);
    T grad[N];
    load_run<T, S>(data, kDType<S>, 0, chunk, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) grad[j] = grad[j] == T(0) ? grad[j] : grad[j] * factor;
    store_run<T, S>(grad, out, 0, chunk);
  }
}

__global__ void __launch_bounds__(kThreads, 1) rescale_kernel(const __grid_constant__ RescaleArgs p) {
  const double factor = load_one<double>(p.factor, p.factor_dtype, 0);
  if (factor == 1.0) return;
  void* data = p.data[blockIdx.y];
  const int64_t numel = p.numel[blockIdx.y];
  if (p.dtype[blockIdx.y] == DType::kFloat64) {
    multiply<double>(data, numel, factor);
  } else if (p.factor_dtype == DType::kFloat64) {
    multiply<float>(data, numel, factor);
  } else {
    multiply<float>(data, numel, static_cast<float>(factor));
  }
}

}  // namespace

void rescale(const RescaleArgs& args) {
  int64_t most = 0;
  for (int k = 0; k < args.count; ++k) {
    const int64_t chunk = kThreads * (args.dtype[k] == DType::kFloat64 ? kChunk<double> : kChunk<float>);
    const int64_t blocks = parts_of(args.numel[k], chunk);
    most = blocks > most ? blocks : most;
  }
  // Few, for most do nothing but read the factor.
  launch(*args.device, "rescale", rescale_kernel, args, most < 1024 ? most : 1024, args.count, kThreads);
}

}  // namespace cuda
}  // namespace vae_fast
