// What a kernel sees of a tensor: a pointer, a dtype, and strides over the elements that an operator works on.
#pragma once

#include <cstdint>

namespace vae_fast {

// A bool is a byte of which all but 0 is 1.
enum class DType : uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16, kByte, kBool, kInt16, kInt32, kInt64 };

// As many as a PyTorch tensor has at most.
constexpr int kMaxDims = 64;

// A tensor over the elements of an operator's broadcast shape, in C order: an element is at data + Σ coordinate·stride,
// in elements. Dims that follow each other in memory are one. A stride of 0 repeats.
struct View {
  void* data = nullptr;
  DType dtype = DType::kFloat32;
  bool number = false;  // the data is one element in the host's memory, whatever the device
  int ndim = 1;
  int64_t size[kMaxDims];
  int64_t stride[kMaxDims];

  View() { size[0] = 1, stride[0] = 0; }

  explicit operator bool() const { return data != nullptr; }

  // Adds an inner dim.
  void append(int64_t n, int64_t step) {
    if (n == 1) return;
    const int last = ndim - 1;
    if (size[last] == 1) {
      size[last] = n;
      stride[last] = step;
    } else if (stride[last] == step * n) {
      size[last] *= n;
      stride[last] = step;
    } else {
      size[ndim] = n;
      stride[ndim++] = step;
    }
  }

  // Whether every element is the same one.
  bool constant() const {
    for (int d = 0; d < ndim; ++d)
      if (stride[d] != 0) return false;
    return true;
  }
};

}  // namespace vae_fast
