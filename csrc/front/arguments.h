// From the arguments of a public function to a call, or the answer that it is not the front's.
#pragma once

#include "call.h"

namespace vae_fast {

// Reads arguments from parameter `first` on: what comes before it is in the call.
bool parse(const Operator& op, Py_ssize_t first, PyObject* const* args, Py_ssize_t n, PyObject* names, Call& call);

// The halves along args[1] of args[0], of which no graph is made, as the first two operands.
bool read_halves(PyObject* const* args, Py_ssize_t n, Call& call);

}  // namespace vae_fast
