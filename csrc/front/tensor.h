// What the operators ask of a tensor, on PyTorch's own headers: without the stable ABI's handles a call takes a
// fraction of the time, and the library is for one version of PyTorch.
#pragma once

#include <ATen/ATen.h>
#include <ATen/EmptyTensor.h>
#include <ATen/Parallel.h>

#include <optional>
#include <vector>

namespace vae_fast {

using at::ScalarType;
using at::Tensor;
using OptionalTensor = std::optional<Tensor>;
using TorchDevice = c10::Device;
// The CPU alone: there is no other device to be on.
struct DeviceGuard {};

namespace tensors {

inline const int64_t* sizes(const Tensor& t) { return t.sizes().data(); }
inline const int64_t* strides(const Tensor& t) { return t.strides().data(); }
inline int32_t number_of(ScalarType type) { return static_cast<int32_t>(type); }
inline int32_t scalar_type(const Tensor& t) { return number_of(t.scalar_type()); }
inline int64_t storage_bytes(const Tensor& t) { return static_cast<int64_t>(t.storage().nbytes()); }
inline int64_t storage_offset(const Tensor& t) { return t.storage_offset(); }

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

template <class F>
void parallel_for(int64_t first, int64_t last, int64_t grain, const F& body) {
  at::parallel_for(first, last, grain, body);
}

inline OptionalTensor empty_on_cpu(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  const at::IntArrayRef sizes(size, static_cast<size_t>(ndim)), strides(stride, static_cast<size_t>(ndim));
  const auto dtype = static_cast<ScalarType>(scalar_type);
  try {
    // Past the dispatcher, unless fresh memory is to be filled.
    const auto& context = at::globalContext();
    if (context.deterministicAlgorithms() && context.deterministicFillUninitializedMemory())
      return at::empty_strided(sizes, strides, dtype);
    return Tensor(at::detail::empty_strided_cpu(sizes, strides, dtype));
  } catch (const c10::Error&) {
    return std::nullopt;
  }
}

}  // namespace tensors
}  // namespace vae_fast
