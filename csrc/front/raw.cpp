#include "raw.h"

#include <cstring>

namespace vae_fast {
namespace {

#define VF_RAW(op) {#op, RawOf<&op##_fwd>::call, RawOf<&op##_bwd>::call},
constexpr RawOperator kOperators[] = {{"standard_normal", RawOf<&standard_normal_fwd>::call, nullptr},
                                      VF_OPERATORS(VF_RAW)};

}  // namespace

const RawOperator* raw_operator(const char* name) {
  for (const RawOperator& op : kOperators)
    if (std::strcmp(op.name, name) == 0) return &op;
  return nullptr;
}

}  // namespace vae_fast
