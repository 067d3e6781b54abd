// A call of an operator: its tensors, numbers and shapes, the forward pass, and the node that makes its gradients.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "device.h"
#include "operator.h"

namespace vae_fast {

// Operands; then, of what draws, the seed's tensor and ε.
using Tensors = std::array<Tensor, kMostOperands>;

// What a call says beside its tensors.
struct Options {
  const Operator* op = nullptr;
  std::array<Number, kMostNumbers> numbers;
  std::vector<int64_t> shapes[2];
  // The first two operands are the halves along `packed_dim` of one tensor, whose gradient is made in one piece.
  bool packed = false;
  int64_t packed_dim = 0;
  c10::DeviceIndex device = -1;  // −1: the current one, or the CPU
};

struct Call : Options {
  Tensors tensors;
  Tensor moments;  // of packed operands
};

// A tensor's halves along a dim.
inline void split(const Tensor& moments, int64_t dim, Tensors& halves) {
  const int64_t n = moments.size(dim) / 2;
  for (int k = 0; k < 2; ++k) halves[k] = moments.narrow(dim, k * n, n);
}

// Which backend serves where none is named; the numbers are those of vae_fast/front.py.
enum class Chosen : int { kOther, kNative, kAutomatic };

// What the front runs by: whether it takes calls at all, the backend of those that name none, whether gradients may be
// made in forward passes (−1: not known yet), and the Python function for backward passes that are differentiated or
// transformed.
struct Settings {
  bool on = true;
  Chosen backend = Chosen::kOther;
  int early = -1;
  PyObject* second = nullptr;
};
extern Settings settings;

// Whether nothing in PyTorch wants to see the operations of this thread: no mode, transform, tracer, inference mode.
bool unobserved();
// Whether a tensor is a dense one on the front's device, without anything around it.
bool is_plain(const Tensor& tensor);

// The results, with a node where a gradient may be asked for.
Results forward(Call&& call);

}  // namespace vae_fast
