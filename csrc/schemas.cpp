// The operators' definitions, in a process that has the library but not the Python package, as one that runs an
// AOTInductor package may be: there, too, is what the package has in Python for operators without a tensor to dispatch
// on.
#include "boxing.h"

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <cstdlib>

namespace vae_fast {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Device;
using torch::stable::Tensor;
using torch::stable::detail::from;
using OptionalTensor = std::optional<Tensor>;

constexpr const char* kDefinitions[] = {
#include "signatures.inc"
};

// The package defines the operators itself before it loads the library, and says so.
bool defined() { return std::getenv("VAE_FAST_OPERATORS_DEFINED") != nullptr; }

// Reached without a seed in a tensor only: with one the dispatcher finds the device's own kernel.
Tensor standard_normal_fwd(Sizes sample_shape, Sizes shape, int64_t seed, OptionalTensor seed_tensor, int64_t offset,
                           int64_t first_sample, ScalarType dtype, Device device) {
  STD_TORCH_CHECK(!seed_tensor, "vae_fast has no kernel for this device in a process without its Python package");
  const int64_t one = 1;
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_create_tensor_from_blob(&seed, 1, &one, &one, 0, aoti_torch_dtype_int64(),
                                                                   aoti_torch_device_type_cpu(), 0, &handle));
  const Tensor borrowed(handle);
  const Tensor key = torch::stable::to(torch::stable::clone(borrowed), device);
  std::array<StableIValue, 8> stack{from(std::optional<Sizes>(sample_shape)),
                                    from(std::optional<Sizes>(shape)),
                                    from(int64_t{0}),
                                    from(OptionalTensor(key)),
                                    from(offset),
                                    from(first_sample),
                                    from(dtype),
                                    from(device)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("vae_fast::standard_normal_fwd", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

Tensor reference_normals(Sizes sample_shape, Sizes shape, int64_t seed, OptionalTensor seed_tensor, int64_t offset,
                         int64_t first_sample, Device device) {
  std::array<StableIValue, 8> stack{from(std::optional<Sizes>(sample_shape)),
                                    from(std::optional<Sizes>(shape)),
                                    from(seed),
                                    from(seed_tensor),
                                    from(offset),
                                    from(first_sample),
                                    from(ScalarType::Float),
                                    from(device)};
  STABLE_TORCH_ERROR_CODE_CHECK(
      torch_call_dispatcher("vae_fast::standard_normal_fwd", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(vae_fast, m) {
  if (vae_fast::defined()) return;
  for (const char* definition : vae_fast::kDefinitions) m.def(definition);
}

STABLE_TORCH_LIBRARY_IMPL(vae_fast, CompositeExplicitAutograd, m) {
  if (vae_fast::defined()) return;
  m.impl("standard_normal_fwd", VF_BOX(standard_normal_fwd));
  m.impl("reference_normals", VF_BOX(reference_normals));
}
