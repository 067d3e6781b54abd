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
// data, dense, times the one factor.
void rescale(Device& device, void* data, int64_t numel, const void* factor, bool is_double);

}  // namespace cuda
}  // namespace vae_fast
