// softmax over rows, as its largest logit and the logarithm of its sum, and the gradient by the logits. A block takes a
// row at a time.
#include <cmath>

#include "../formulas.h"
#include "../table.h"
#include "density.h"

namespace vae_fast {
namespace cuda {
namespace {

template <class T>
struct SoftmaxParams {
  int64_t rows, columns;
  const T* logits;
  T *top, *log_sum;
  const T* total;
  T* gradient;
};

// The largest of all threads' values, for each of them. Before `shared` is written again all threads have to have met.
template <class T>
__device__ __forceinline__ T block_largest(T value, T* shared) {
  for (int step = 16; step > 0; step /= 2) {
    const T other = static_cast<T>(__shfl_xor_sync(0xFFFFFFFFu, value, step));
    value = other > value ? other : value;
  }
  if (blockDim.x == 32) return value;
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  value = shared[0];
  for (int w = 1; w < static_cast<int>(blockDim.x) / 32; ++w) value = shared[w] > value ? shared[w] : value;
  return value;
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) softmax_fwd_kernel(const __grid_constant__ SoftmaxParams<T> p) {
  __shared__ double sums[kThreads / 32];
  __shared__ T tops[kThreads / 32];
  const int threads = static_cast<int>(blockDim.x);
  const T least = -static_cast<T>(INFINITY);
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const T* logits = p.logits + row * p.columns;
    T top = least;
    for (int64_t c = threadIdx.x; c < p.columns; c += threads) top = logits[c] > top ? logits[c] : top;
    top = block_largest(top, tops);
    const T shift = top == least ? T(0) : top;
    double sum = 0;
    for (int64_t c = threadIdx.x; c < p.columns; c += threads) sum += static_cast<double>(exp(logits[c] - shift));
    sum = group_sum(sum, threads, sums);
    if (threadIdx.x == 0) {
      p.top[row] = top;
      p.log_sum[row] = static_cast<T>(log(sum));
    }
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads, 1) softmax_bwd_kernel(const __grid_constant__ SoftmaxParams<T> p) {
  for (int64_t row = blockIdx.x; row < p.rows; row += gridDim.x) {
    const int64_t first = row * p.columns;
    const T top = p.top[row], log_sum = p.log_sum[row], total = p.total[row];
    for (int64_t c = threadIdx.x; c < p.columns; c += blockDim.x)
      p.gradient[first + c] = p.gradient[first + c] - exp((p.logits[first + c] - top) - log_sum) * total;
  }
}

template <class T>
void run(const char* name, const SoftmaxArgs& args, void (*kernel)(SoftmaxParams<T>)) {
  if (args.rows.count * args.rows.size == 0) return;
  const SoftmaxParams<T> p{args.rows.count,
                           args.rows.size,
                           static_cast<const T*>(args.logits),
                           static_cast<T*>(args.top),
                           static_cast<T*>(args.log_sum),
                           static_cast<const T*>(args.total),
                           static_cast<T*>(args.gradient)};
  const int64_t most = 1 << 16;
  launch(*args.device, name, kernel, p, args.rows.count < most ? args.rows.count : most, 1,
         args.rows.size <= 256 ? 32 : kThreads);
}

}  // namespace

void softmax_fwd(const SoftmaxArgs& args) {
  args.compute == DType::kFloat64 ? run<double>("softmax_fwd", args, softmax_fwd_kernel<double>)
                                  : run<float>("softmax_fwd", args, softmax_fwd_kernel<float>);
}

void softmax_bwd(const SoftmaxArgs& args) {
  args.compute == DType::kFloat64 ? run<double>("softmax_bwd", args, softmax_bwd_kernel<double>)
                                  : run<float>("softmax_bwd", args, softmax_bwd_kernel<float>);
}

}  // namespace cuda
}  // namespace vae_fast
