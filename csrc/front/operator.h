// What the front knows of an operator: the table's facts (vae_fast/operators.py), and its public function's parameters.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "raw.h"

namespace vae_fast {

// What a public function's parameter says; the numbers are those of vae_fast/front.py.
enum class Kind : int {
  kOperand,       // tensor `index`
  kInteger,       // number `index`
  kReal,          // number `index`
  kOptionalReal,  // number `index`, or none
  kCode,          // number `index`, by `words`
  kBounds,        // numbers `index` and `index` + 1
  kShape,         // shape `index`
  kSeed,
  kGenerator,
  kOffset,
  kFirstSample,
  kStream,
  kNoise,
  kTemperature,
  kPriorForm,    // a code: number `index`, and what follows it is not the posterior's
  kPriorReal,    // number `index`
  kPriorBounds,  // numbers `index` and `index` + 1
  kFlag,         // False, or the call is not the front's
  kBackend,
  kDtype,  // number `index`
  kDevice,
};

struct Parameter {
  PyObject* name;  // interned
  Kind kind;
  int index = 0;
  PyObject* words = nullptr;  // word: number
};

struct OperandFacts {
  bool optional, differentiable, in_forward, numeric, data, parameter;
};

struct Operator {
  std::string forward_name, backward_name, node_name;
  const RawOperator* raw = nullptr;
  std::vector<OperandFacts> operands;
  std::vector<Number> defaults;
  int shapes = 0, results = 1, positional = 0;
  bool density = false;
  // Without a named backend, calls of fewer elements only; −1: all.
  int64_t below = -1;
  // Of a mean that may be a softmax's share, the code that says so; else −1.
  int softmax = -1;
  // Places among the numbers; −1 where there is none.
  int event_ndim = -1, reduction = -1, seed = -1, offset = -1, first_sample = -1, form = -1, prior_form = -1,
      dtype = -1;
  std::vector<Parameter> parameters;

  // Tensors of a forward call: operands, and of what draws a seed and ε.
  int tensors() const { return static_cast<int>(operands.size()) + (density ? 0 : 2); }
};

}  // namespace vae_fast
