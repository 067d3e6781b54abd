// A call of an operator: its tensors, numbers and shapes, the forward pass, and the node that makes its gradients.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "operator.h"

namespace vae_fast {

// Operands; then, of what draws, the seed's tensor and ε.
using Tensors = std::array<Tensor, kMostOperands>;

// What a call says beside its tensors.
struct Options {
  const Operator* op = nullptr;
  std::array<Number, kMostNumbers> numbers;
  std::vector<int64_t> shapes[2];
};

struct Call : Options {
  Tensors tensors;
};

// What the front runs by: whether it takes calls at all, whether those that name no backend are the native one's,
// whether gradients may be made in forward passes (−1: not known yet), and the Python function for backward passes that
// are differentiated or transformed.
struct Settings {
  bool on = true, native = false;
  int early = -1;
  PyObject* second = nullptr;
};
extern Settings settings;

// Whether nothing in PyTorch wants to see the operations of this thread: no mode, transform, tracer, inference mode.
bool unobserved();
// Whether a tensor is a dense one on the CPU, without anything around it.
bool is_plain(const Tensor& tensor);

// The results, with a node where a gradient may be asked for.
Results forward(Call&& call);

}  // namespace vae_fast
