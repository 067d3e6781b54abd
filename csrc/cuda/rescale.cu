// A gradient that came with the forward pass, times the upstream one that came later. The factor is read on the device,
// and where it is 1 nothing else is.
#include "access.h"
#include "launch.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

struct RescaleParams {
  void* data;
  int64_t numel;
  const void* factor;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) rescale_kernel(const __grid_constant__ RescaleParams p) {
  constexpr int N = kChunk<T>;
  const T factor = *static_cast<const T*>(p.factor);
  if (factor == T(1)) return;
  Output out;
  out.data = p.data;
  out.dtype = kDType<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < p.numel; i += step) {
    const Chunk<N> chunk(i, p.numel);
    T grad[N];
    load_run<T, T>(p.data, kDType<T>, 0, chunk, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) grad[j] = grad[j] * factor;
    store_run<T, T>(grad, out, 0, chunk);
  }
}

template <class T>
void run(Device& device, const RescaleParams& p) {
  const int64_t blocks = (p.numel + kThreads * kChunk<T> - 1) / (kThreads * kChunk<T>);
  launch(device, "rescale", rescale_kernel<T>, p, blocks < 4096 ? blocks : 4096, 1, kThreads);
}

}  // namespace

void rescale(Device& device, void* data, int64_t numel, const void* factor, bool is_double) {
  const RescaleParams p{data, numel, factor};
  is_double ? run<double>(device, p) : run<float>(device, p);
}

}  // namespace cuda
}  // namespace vae_fast
