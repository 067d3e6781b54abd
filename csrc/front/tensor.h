// What the operators ask of a tensor, on PyTorch's own headers: without the stable ABI's handles a call takes a
// fraction of the time, and the library is for one version of PyTorch.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <torch/csrc/stable/c/shim.h>
#if defined(USE_CUDA)
#include <ATen/cuda/EmptyTensor.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <optional>
#include <stdexcept>
#include <vector>

namespace vae_fast {

using at::ScalarType;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using TorchDevice = c10::Device;
#if defined(USE_CUDA)
struct DeviceGuard : c10::cuda::CUDAGuard {
  explicit DeviceGuard(int32_t index) : CUDAGuard(static_cast<c10::DeviceIndex>(index)) {}
};
#else
// The CPU alone: there is no other device to be on.
struct DeviceGuard {};
#endif

namespace tensors {

inline const int64_t* sizes(const Tensor& t) { return t.sizes().data(); }
inline const int64_t* strides(const Tensor& t) { return t.strides().data(); }
inline int32_t number_of(ScalarType type) { return static_cast<int32_t>(type); }
inline int32_t scalar_type(const Tensor& t) { return number_of(t.scalar_type()); }
inline int64_t storage_bytes(const Tensor& t) { return static_cast<int64_t>(t.storage().nbytes()); }
inline int64_t storage_offset(const Tensor& t) { return t.storage_offset(); }

inline int32_t device_index(const Tensor& t) { return t.get_device(); }

inline bool is_csr(const Tensor& t) { return t.layout() == at::kSparseCsr; }
inline Tensor crow_indices(const Tensor& t) { return t.crow_indices(); }
inline Tensor col_indices(const Tensor& t) { return t.col_indices(); }
inline Tensor values(const Tensor& t) { return t.values(); }

inline Tensor contiguous(const Tensor& t) { return t.contiguous(); }
inline void copy_(Tensor& to, const Tensor& from) { to.copy_(from); }
inline Tensor empty_like(const Tensor& t) { return at::empty_like(t); }
inline Tensor narrow(Tensor& t, int64_t dim, int64_t start, int64_t length) { return t.narrow(dim, start, length); }
inline Tensor sum(const Tensor& t, const std::vector<int64_t>& dims, bool keep) { return t.sum(dims, keep); }
inline Tensor reshape(const Tensor& t, const std::vector<int64_t>& shape) { return t.reshape(shape); }
inline void zero_(Tensor& t) { t.zero_(); }

// By PyTorch's own threads. at::parallel_for, a template, would run one thread here: its loop is OpenMP's only where
// that is compiled for, and a second OpenMP beside PyTorch's would have threads of its own.
template <class F>
void parallel_for(int64_t first, int64_t last, int64_t grain, const F& body) {
  if (last - first <= grain) {
    if (first < last) body(first, last);
    return;
  }
  const auto part = [](int64_t from, int64_t to, void* context) { (*static_cast<const F*>(context))(from, to); };
  if (torch_parallel_for(first, last, grain, part, const_cast<void*>(static_cast<const void*>(&body))) != 0)
    throw std::runtime_error("a thread of a kernel failed");
}

// By `make`, past the dispatcher, unless fresh memory is to be filled.
template <class Make>
OptionalTensor empty_on(c10::Device device, const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type,
                        const Make& make) {
  const at::IntArrayRef sizes(size, static_cast<size_t>(ndim)), strides(stride, static_cast<size_t>(ndim));
  const auto dtype = static_cast<ScalarType>(scalar_type);
  try {
    const auto& context = at::globalContext();
    if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())
      return at::empty_strided(sizes, strides, at::device(device).dtype(dtype));
    return Tensor(make(sizes, strides, dtype));
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

inline OptionalTensor empty_on_cpu(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  return empty_on(at::kCPU, size, stride, ndim, scalar_type, [](auto sizes, auto strides, ScalarType dtype) {
    return at::detail::empty_strided_cpu(sizes, strides, dtype);
  });
}

#if defined(USE_CUDA)
inline int32_t current_device() { return c10::cuda::current_device(); }
inline void* current_stream(int32_t device) {
  return c10::cuda::getCurrentCUDAStream(static_cast<c10::DeviceIndex>(device)).stream();
}
// On the current device.
inline OptionalTensor empty_on_cuda(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  const c10::Device device(at::kCUDA, static_cast<c10::DeviceIndex>(current_device()));
  return empty_on(device, size, stride, ndim, scalar_type, [&](auto sizes, auto strides, ScalarType dtype) {
    return at::detail::empty_strided_cuda(sizes, strides, dtype, device);
  });
}
#endif

}  // namespace tensors
}  // namespace vae_fast
