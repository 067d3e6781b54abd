#include "raw.h"

#include <cstring>

namespace vae_fast {
namespace {

#define VF_RAW(op) {#op, RawOf<&op##_fwd>::call, RawOf<&op##_bwd>::call}
constexpr RawOperator kOperators[] = {
    {"standard_normal", RawOf<&standard_normal_fwd>::call, nullptr},
    VF_RAW(rsample),
    VF_RAW(rsample_kl),
    VF_RAW(gaussian_kl),
    VF_RAW(bernoulli_log_prob),
    VF_RAW(gaussian_log_prob),
    VF_RAW(negative_binomial_log_prob),
    VF_RAW(poisson_log_prob),
};

}  // namespace

const RawOperator* raw_operator(const char* name) {
  for (const RawOperator& op : kOperators)
    if (std::strcmp(op.name, name) == 0) return &op;
  return nullptr;
}

}  // namespace vae_fast
