// The kernels of the GPU.
#pragma once

#include "../kernels.h"

namespace vae_fast {
namespace cuda {

void bernoulli_log_prob(const BernoulliArgs&);
void gaussian_log_prob(const GaussianArgs&);
void gaussian_kl(const KLArgs&);
void rsample_fwd(const SampleArgs&);
void rsample_bwd(const SampleArgs&);
void rsample_kl_fwd(const SampleArgs&);
void rsample_kl_bwd(const SampleArgs&);
void standard_normal(const NormalArgs&);
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
