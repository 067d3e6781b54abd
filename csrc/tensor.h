// What the operators ask of a tensor, on PyTorch's stable ABI; in the front, on its own headers (front/tensor.h).
#pragma once

#if defined(VF_FRONT)
#include "front/tensor.h"
#else

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <vector>

namespace vae_fast {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using torch::stable::accelerator::DeviceGuard;
using OptionalTensor = std::optional<Tensor>;
using TorchDevice = torch::stable::Device;

namespace tensors {

using torch::stable::contiguous;
using torch::stable::copy_;
using torch::stable::empty_like;
using torch::stable::narrow;
using torch::stable::parallel_for;
using torch::stable::reshape;
using torch::stable::sum;
using torch::stable::zero_;

inline const int64_t* sizes(const Tensor& t) {
  int64_t* sizes;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &sizes));
  return sizes;
}

inline const int64_t* strides(const Tensor& t) {
  int64_t* strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &strides));
  return strides;
}

// PyTorch's number of the dtype.
inline int32_t scalar_type(const Tensor& t) {
  int32_t type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &type));
  return type;
}

inline int32_t number_of(ScalarType type) {
  return torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
}

inline int64_t storage_bytes(const Tensor& t) {
  int64_t bytes;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(t.get(), &bytes));
  return bytes;
}

inline int64_t storage_offset(const Tensor& t) {
  int64_t offset;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_offset(t.get(), &offset));
  return offset;
}

inline int32_t device_index(const Tensor& t) { return t.get_device_index(); }

inline bool is_csr(const Tensor& t) {
  static const int32_t csr = aoti_torch_layout_sparse_csr();
  int32_t layout;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(t.get(), &layout));
  return layout == csr;
}

// A part of a CSR matrix, by the operator that gives it.
inline Tensor csr_part(const Tensor& t, const char* op) {
  StableIValue stack[] = {torch::stable::detail::from(t)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher(op, "", stack, TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}
inline Tensor crow_indices(const Tensor& t) { return csr_part(t, "aten::crow_indices"); }
inline Tensor col_indices(const Tensor& t) { return csr_part(t, "aten::col_indices"); }
inline Tensor values(const Tensor& t) { return csr_part(t, "aten::values"); }

// Uninitialised memory; none where there is not enough.
inline OptionalTensor empty_on(int32_t device_type, int32_t index, const int64_t* size, const int64_t* stride, int ndim,
                               int32_t scalar_type) {
  AtenTensorHandle handle;
  if (aoti_torch_empty_strided(ndim, size, stride, scalar_type, device_type, index, &handle) != TORCH_SUCCESS)
    return std::nullopt;
  return Tensor(handle);
}
inline OptionalTensor empty_on_cpu(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  static const int32_t cpu = aoti_torch_device_type_cpu();
  return empty_on(cpu, 0, size, stride, ndim, scalar_type);
}

#if defined(USE_CUDA)
inline int32_t current_device() { return torch::stable::accelerator::getCurrentDeviceIndex(); }
inline void* current_stream(int32_t device) {
  void* stream;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream));
  return stream;
}
// On the current device.
inline OptionalTensor empty_on_cuda(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  static const int32_t cuda = aoti_torch_device_type_cuda();
  return empty_on(cuda, current_device(), size, stride, ndim, scalar_type);
}
#endif

}  // namespace tensors
}  // namespace vae_fast

#endif
