// As much of the CUDA runtime as csrc/cuda uses, on the CPU: found before the toolkit's header where a host compiler
// compiles the kernels. Blocks run one after the other, the threads of a block as fibers (fibers.cpp).
#pragma once

#include <cstddef>
#include <functional>

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline
#define __grid_constant__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Of the fiber that runs.
extern dim3 threadIdx, blockIdx, blockDim, gridDim;

void barrier(const char* file, int line);
#define __syncthreads() barrier(__FILE__, __LINE__)
double __shfl_xor_sync(unsigned mask, double value, int lanes);
inline void __threadfence() {}
inline int atomicAdd(int* at, int value) {
  const int before = *at;
  *at += value;
  return before;
}
inline double __ldcg(const double* at) { return *at; }

using cudaStream_t = void*;
enum cudaError_t { cudaSuccess, cudaErrorInvalidConfiguration };
inline const char* cudaGetErrorString(cudaError_t) { return "a launch that no GPU takes"; }

struct cudaLaunchConfig_t {
  dim3 gridDim, blockDim;
  size_t dynamicSmemBytes = 0;
  cudaStream_t stream = nullptr;
};

cudaError_t run_on_fibers(const cudaLaunchConfig_t& config, const std::function<void()>& thread);

template <class Params>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Params), const Params& params) {
  // The most that a kernel of compute capability 7 or later may have.
  static_assert(sizeof(Params) <= 4096, "too many bytes of arguments");
  return run_on_fibers(*config, [&] { kernel(params); });
}
