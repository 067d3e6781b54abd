// PyTorch's dtypes, those of kernels, and what two of these promote to.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/core/ScalarType.h>

#include <string>

#include "device.h"

namespace vae_fast {

inline std::string dtype_name(int32_t scalar_type) {
  return torch::headeronly::toString(static_cast<torch::headeronly::ScalarType>(scalar_type));
}

// Raises where it is none that kernels read.
inline DType dtype_of(const char* name, int32_t scalar_type) {
  static const int32_t float32 = aoti_torch_dtype_float32(), float64 = aoti_torch_dtype_float64(),
                       bfloat16 = aoti_torch_dtype_bfloat16(), float16 = aoti_torch_dtype_float16(),
                       uint8 = aoti_torch_dtype_uint8(), boolean = aoti_torch_dtype_bool(),
                       int16 = aoti_torch_dtype_int16(), int32 = aoti_torch_dtype_int32(),
                       int64 = aoti_torch_dtype_int64();
  if (scalar_type == float32) return DType::kFloat32;
  if (scalar_type == float64) return DType::kFloat64;
  if (scalar_type == bfloat16) return DType::kBFloat16;
  if (scalar_type == float16) return DType::kFloat16;
  if (scalar_type == boolean) return DType::kBool;
  if (scalar_type == int16) return DType::kInt16;
  if (scalar_type == int32) return DType::kInt32;
  if (scalar_type == int64) return DType::kInt64;
  VF_CHECK(scalar_type == uint8, name, " must be of a floating dtype, or, of targets and weights, uint8 or bool, got ",
           dtype_name(scalar_type));
  return DType::kByte;
}

inline int32_t scalar_type_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat32: return aoti_torch_dtype_float32();
    case DType::kFloat64: return aoti_torch_dtype_float64();
    case DType::kBFloat16: return aoti_torch_dtype_bfloat16();
    case DType::kFloat16: return aoti_torch_dtype_float16();
    case DType::kByte: return aoti_torch_dtype_uint8();
    case DType::kInt16: return aoti_torch_dtype_int16();
    case DType::kInt32: return aoti_torch_dtype_int32();
    case DType::kInt64: return aoti_torch_dtype_int64();
    default: return aoti_torch_dtype_bool();
  }
}

inline bool is_floating(DType dtype) { return dtype < DType::kByte; }
// What counts alone may be of: any integers but bytes.
inline bool is_wide_integer(DType dtype) { return dtype >= DType::kInt16; }

// Two floating dtypes by PyTorch's rule.
inline DType promoted(DType a, DType b) {
  if (a == b) return a;
  return a == DType::kFloat64 || b == DType::kFloat64 ? DType::kFloat64 : DType::kFloat32;
}

}  // namespace vae_fast
