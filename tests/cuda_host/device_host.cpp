// Tensors on the CPU, seen as a GPU's: what csrc/device_cuda.cpp is for those of a GPU. A Python number is a number;
// every other tensor is read by the kernels. Fresh memory comes with its bytes set, so that what is read unwritten
// shows.
#include "../../csrc/device.h"

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

}  // namespace vae_fast

extern "C" __attribute__((visibility("default"))) const char* vae_fast_cpu_isa() { return "cuda on the host"; }
