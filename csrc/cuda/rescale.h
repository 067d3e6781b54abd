// Gradients of a forward pass, scaled on the GPU.
#pragma once

#include "../kernels.h"

namespace vae_fast {
namespace cuda {

// Gradients of one call, as many as a density's forward pass makes, each dense, of float32 or float64.
struct Rescaled {
  static constexpr int kMost = 4;
  void* data[kMost];
  DType dtype[kMost];
  int64_t numel[kMost];
  int count;
};
// Times the one factor.
void rescale(Device& device, const Rescaled& grads, const void* factor, DType factor_dtype);

}  // namespace cuda
}  // namespace vae_fast
