// Launches, each checked; and what the host reads of an operand that is a number.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

#include "../kernels.h"

namespace vae_fast {
namespace cuda {

inline void check(cudaError_t error, const char* what) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("vae_fast: ") + what + ": " + cudaGetErrorString(error));
}

// Runs a kernel on a call's stream. Its arguments are one struct.
template <class Params>
void launch(Device& device, const char* name, void (*kernel)(Params), const Params& params, int64_t blocks,
            int64_t blocks_y, int threads) {
  if (blocks == 0 || blocks_y == 0) return;
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(blocks), static_cast<unsigned>(blocks_y));
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.stream = static_cast<cudaStream_t>(device.stream);
  check(cudaLaunchKernelEx(&config, kernel, params), name);
}

double number_of(const View& view);

}  // namespace cuda
}  // namespace vae_fast
