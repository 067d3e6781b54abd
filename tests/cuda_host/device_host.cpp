// Tensors on the CPU, seen as a GPU's: what csrc/device_cuda.cpp is for those of a GPU. A Python number is a number;
// every other tensor is read by the kernels. Fresh memory comes with its bytes set, so that what is read unwritten
// shows.
#include "../../csrc/calls.h"

#include <torch/csrc/stable/ops.h>

#include <cstring>

#include "../../csrc/cuda/layout.h"

namespace vae_fast {

OnDevice::OnDevice(const Tensor&) {}
OnDevice::OnDevice(int32_t) {}

OnDevice::~OnDevice() = default;

ParallelFor OnDevice::parallel_for() { return nullptr; }

void* OnDevice::scratch(int64_t bytes) {
  const int64_t step = 1;
  scratch_.push_back(empty_strided(&bytes, &step, 1, aoti_torch_dtype_uint8()));
  void* data = scratch_.back().data_ptr();
  if (bytes > 0) std::memset(data, 0xFF, static_cast<size_t>(bytes));
  return data;
}

int* OnDevice::ticket() {
  static int ticket = 0;
  STD_TORCH_CHECK(ticket == 0, "the ticket was not given back");
  return &ticket;
}

Tensor empty_strided(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  AtenTensorHandle handle;
  if (aoti_torch_empty_strided(ndim, size, stride, scalar_type, aoti_torch_device_type_cpu(), 0, &handle) !=
      TORCH_SUCCESS)
    cannot_allocate(size, ndim, scalar_type);
  Tensor tensor(handle);
  const size_t bytes = static_cast<size_t>(tensor.numel()) * tensor.element_size();
  if (bytes > 0) std::memset(tensor.data_ptr(), 0xFF, bytes);
  return tensor;
}

bool check_readable(const char* name, const Tensor& tensor, int ndim) {
  VF_CHECK(tensor.is_cpu(), name, " is not on the CPU");
  int32_t type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &type));
  return ndim == 0 && type == aoti_torch_dtype_float64();
}

void read_seed(const Tensor& seed, NoiseOptions& noise) {
  VF_CHECK(seed.is_cpu(), "seed_tensor must be on the CPU");
  noise.seed_on_device = static_cast<const int64_t*>(seed.data_ptr());
}

bool sums_in_kernel(const View& index, int64_t, bool) { return cuda::sums_in_kernel(index); }

namespace {

// Gradients for the next backward pass of a density, one an operand: a front's part, which these kernels have none of.
void keep(OptionalTensor grad0, OptionalTensor grad1, OptionalTensor grad2, OptionalTensor grad3) {
  static OptionalTensor all[8];
  static std::optional<KeptGradients> kept;
  all[0] = grad0;
  all[1] = grad1;
  all[2] = grad2;
  all[3] = grad3;
  kept.emplace(all);
}

}  // namespace
}  // namespace vae_fast

STABLE_TORCH_LIBRARY(vae_fast_host, m) {
  m.def("keep(Tensor? grad0, Tensor? grad1, Tensor? grad2, Tensor? grad3) -> ()");
}
STABLE_TORCH_LIBRARY_IMPL(vae_fast_host, CompositeExplicitAutograd, m) { m.impl("keep", TORCH_BOX(&vae_fast::keep)); }

extern "C" __attribute__((visibility("default"))) const char* vae_fast_cpu_isa() { return "cuda on the host"; }
