// The kernels of one instruction set.
#pragma once

#include "../kernels.h"

namespace vae_fast {
namespace VF_ISA {

void bernoulli_log_prob(const BernoulliArgs&);
void gaussian_log_prob(const GaussianArgs&);
void gaussian_kl(const KLArgs&);
void rsample_fwd(const SampleArgs&);
void rsample_bwd(const SampleArgs&);
void rsample_kl_fwd(const SampleArgs&);
void rsample_kl_bwd(const SampleArgs&);
void standard_normal(const NormalArgs&);

}  // namespace VF_ISA
}  // namespace vae_fast
