// A call of an operator: its tensors, numbers and shapes, the forward pass, and the node that makes its gradients.
#pragma once

#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/saved_variable.h>

#include "operator.h"

namespace vae_fast {

struct Call {
  const Operator* op = nullptr;
  std::array<Tensor, kMostOperands> tensors;  // operands; then, of what draws, the seed's tensor and ε
  std::array<Number, kMostNumbers> numbers;
  std::vector<int64_t> shapes[2];
};

// What the front runs by: the backend that calls without one of their own take, whether gradients may be made in forward
// passes (−1: not known yet), and the Python function for backward passes that are differentiated or transformed.
struct Settings {
  bool native = false;
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
