// The gradients that came with a forward pass, times the upstream one that came later. The factor is read on the device,
// and where it is 1 nothing else is.
#include "access.h"
#include "launch.h"
#include "table.h"

namespace vae_fast {
namespace cuda {
namespace {

struct RescaleParams {
  Rescaled grads;
  const void* factor;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1) rescale_kernel(const __grid_constant__ RescaleParams p) {
  constexpr int N = kChunk<T>;
  const T factor = *static_cast<const T*>(p.factor);
  if (factor == T(1)) return;
  void* data = p.grads.data[blockIdx.y];
  const int64_t numel = p.grads.numel[blockIdx.y];
  Output out;
  out.data = data;
  out.dtype = kDType<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * N;
  for (int64_t i = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * N; i < numel; i += step) {
    const Chunk<N> chunk(i, numel);
    T grad[N];
    load_run<T, T>(data, kDType<T>, 0, chunk, grad);
#pragma unroll
    for (int j = 0; j < N; ++j) grad[j] = grad[j] * factor;
    store_run<T, T>(grad, out, 0, chunk);
  }
}

template <class T>
void run(Device& device, const RescaleParams& p) {
  int64_t most = 0;
  for (int k = 0; k < p.grads.count; ++k) most = p.grads.numel[k] > most ? p.grads.numel[k] : most;
  // Few, for most do nothing but read the factor.
  const int64_t blocks = (most + kThreads * kChunk<T> - 1) / (kThreads * kChunk<T>);
  launch(device, "rescale", rescale_kernel<T>, p, blocks < 1024 ? blocks : 1024, p.grads.count, kThreads);
}

}  // namespace

void rescale(Device& device, const Rescaled& grads, const void* factor, bool is_double) {
  const RescaleParams p{grads, factor};
  is_double ? run<double>(device, p) : run<float>(device, p);
}

}  // namespace cuda
}  // namespace vae_fast
