#include "arguments.h"

#include <c10/core/DefaultDtype.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Generator.h>

#include "values.h"

namespace vae_fast {
namespace {

// What a parser finds beside a call's record.
struct Found {
  std::optional<at::Generator> generator;
  bool seeded = false, noise = false, placed = false, prior_param = false;
  Chosen backend = settings.backend;
  uint64_t seed = 0, offset = 0, first_sample = 0, stream = 0;
  PyObject *prior_eps = nullptr, *prior_bounds = nullptr;
};

bool read(const Parameter& p, PyObject* o, Call& call, Found& found) {
  Number* number = call.numbers.data() + p.index;
  double value;
  switch (p.kind) {
    case Kind::kOperand: {
      const OperandFacts& facts = call.op->operands[p.index];
      if (o == Py_None) return facts.optional;
      if (THPVariable_CheckExact(o)) {
        Tensor& tensor = call.tensors[p.index];
        return plain_tensor(o, tensor) && (facts.differentiable || !tensor.requires_grad());
      }
      if (!facts.numeric || !real(o, value)) return false;
      call.tensors[p.index] = of_number(value);
      return true;
    }
    case Kind::kInteger: {
      int64_t given;
      if (!integer(o, given)) return false;
      *number = Number(given);
      return true;
    }
    case Kind::kOptionalReal:
      if (o == Py_None) {
        *number = Number();
        return true;
      }
      [[fallthrough]];
    case Kind::kReal:
      if (!real(o, value)) return false;
      *number = Number(value);
      return true;
    case Kind::kTemperature:
      if (!real(o, value) || !(value >= 0.0)) return false;
      *number = Number(value);
      return true;
    case Kind::kCode: return code(o, p.words, *number);
    case Kind::kBounds: return bounds(o, number);
    case Kind::kShape: return shape(o, call.shapes[p.index]);
    case Kind::kSeed:
      if (o == Py_None) return true;
      found.seeded = true;
      if (!THPVariable_CheckExact(o)) return wrapped(o, found.seed);
      return plain_tensor(o, call.tensors[call.op->operands.size()]);
    case Kind::kGenerator:
      if (o == Py_None) return true;
      if (!THPGenerator_Check(o)) return false;
      found.generator = THPGenerator_Unwrap(o);
      return found.generator->device().type() == kDeviceType;
    case Kind::kOffset: found.placed = true; return wrapped(o, found.offset);
    case Kind::kFirstSample: found.placed = true; return word(o, found.first_sample);
    case Kind::kStream: found.placed = true; return word(o, found.stream);
    case Kind::kNoise: {
      if (o == Py_None) return true;
      found.noise = true;
      Tensor& tensor = call.tensors[call.op->operands.size() + 1];
      return plain_tensor(o, tensor) && !tensor.requires_grad();
    }
    case Kind::kPriorForm:
      if (o == Py_None) return true;
      found.prior_param = true;
      return code(o, p.words, *number);
    case Kind::kPriorReal: found.prior_eps = o; return true;
    case Kind::kPriorBounds: found.prior_bounds = o; return true;
    case Kind::kFlag: return o == Py_False;
    case Kind::kBackend:
      if (o == Py_None) return true;
      if (!PyUnicode_CheckExact(o)) return false;
      found.backend = PyUnicode_CompareWithASCIIString(o, "native") == 0 ? Chosen::kNative
                      : PyUnicode_CompareWithASCIIString(o, "auto") == 0 ? Chosen::kAutomatic
                                                                         : Chosen::kOther;
      return found.backend != Chosen::kOther;
    case Kind::kDtype: {
      if (o == Py_None) return true;
      if (!THPDtype_Check(o)) return false;
      *number = Number(static_cast<int64_t>(reinterpret_cast<THPDtype*>(o)->scalar_type));
      return true;
    }
    case Kind::kDevice: return device(o, call.device);
  }
  return false;
}

// The prior's form: the posterior's, but for what is said of it; with a param of its own nothing else is the
// posterior's.
bool settle_prior(Call& call, const Found& found) {
  const Operator& op = *call.op;
  if (op.prior_form < 0) return true;
  Number *own = call.numbers.data() + op.form, *prior = call.numbers.data() + op.prior_form;
  if (!found.prior_param) prior[0] = own[0];
  for (int k = 1; k < 4; ++k) prior[k] = found.prior_param ? op.defaults[op.prior_form + k] : own[k];
  double eps;
  if (found.prior_eps && found.prior_eps != Py_None) {
    if (!real(found.prior_eps, eps)) return false;
    prior[1] = Number(eps);
  }
  return !found.prior_bounds || found.prior_bounds == Py_None || bounds(found.prior_bounds, prior + 2);
}

// Where operands do not broadcast, or data would make a table of both, the Python function says so.
bool shapes_fit(const Call& call) {
  const Operator& op = *call.op;
  int64_t most_of_parameters = 0, most = 0;
  for (size_t k = 0; k < op.operands.size(); ++k) {
    const Tensor& t = call.tensors[k];
    if (!t.defined()) continue;
    most = std::max(most, t.dim());
    if (op.operands[k].parameter) most_of_parameters = std::max(most_of_parameters, t.dim());
    if (op.operands[k].data && t.dim() != most_of_parameters && t.dim() != 0 && most_of_parameters != 0) return false;
  }
  for (int64_t d = 1; d <= most; ++d) {
    int64_t size = 1;
    for (size_t k = 0; k < op.operands.size(); ++k) {
      const Tensor& t = call.tensors[k];
      if (!t.defined() || t.dim() < d) continue;
      const int64_t own = t.size(t.dim() - d);
      if (own == 1 || own == size) continue;
      if (size != 1) return false;
      size = own;
    }
  }
  if (op.event_ndim < 0) return true;
  const int64_t event_ndim = call.numbers[op.event_ndim].integer;
  return event_ndim >= 0 && event_ndim <= most;
}

// Where the noise comes from (vae_fast/ops/noise_source.py).
bool settle_noise(Call& call, Found& found) {
  const Operator& op = *call.op;
  if (op.seed < 0) return true;
  if (found.noise && (found.seeded || found.generator || found.placed)) return false;
  if (found.seeded && found.generator) return false;
  const bool drawn = !found.noise && !found.seeded;
  if (drawn && (op.operands.empty() || seeds_are_drawn_on_the_device())) return false;
  uint64_t samples = 1;
  for (const int64_t size : call.shapes[0]) samples *= static_cast<uint64_t>(size);
  if (samples > kWords || found.first_sample + samples > kWords) return false;
  if (drawn) found.seed = draw(found.generator, call.device);
  call.numbers[op.seed] = Number(static_cast<int64_t>(found.seed));
  call.numbers[op.offset] = Number(static_cast<int64_t>(found.offset));
  call.numbers[op.first_sample] = Number(static_cast<int64_t>(found.stream * kWords + found.first_sample));
  return true;
}

// Whether all tensors but numbers are on one device, which is the call's from here on.
bool on_one_device(Call& call) {
  if (kDeviceType == at::kCPU) return true;
  for (const Tensor& t : call.tensors) {
    if (!t.defined() || t.device().type() != kDeviceType) continue;
    if (call.device >= 0 && call.device != t.get_device()) return false;
    call.device = static_cast<c10::DeviceIndex>(t.get_device());
  }
  return true;
}

// Whether the call's backend is the native one: where none is named, below the size that another one is better at.
bool serves(const Call& call, Chosen backend) {
  if (backend != Chosen::kAutomatic || call.op->below < 0) return backend != Chosen::kOther;
  const auto elements = call.op->operands.empty() ? c10::multiply_integers(call.shapes[1]) : call.tensors[0].numel();
  return elements < call.op->below;
}

// The place of a name among the parameters from `first` on; their number where it is none of them.
size_t place_of(const Operator& op, PyObject* name, size_t first) {
  const size_t count = op.parameters.size();
  // Names that stand in a call are interned; those that were put together need not be.
  for (size_t i = first; i < count; ++i)
    if (op.parameters[i].name == name) return i;
  for (size_t i = first; i < count; ++i)
    if (PyUnicode_Compare(op.parameters[i].name, name) == 0) return i;
  return count;
}

}  // namespace

bool parse(const Operator& op, Py_ssize_t first, PyObject* const* args, Py_ssize_t n, PyObject* names, Call& call) {
  Found found;
  call.op = &op;
  std::copy(op.defaults.begin(), op.defaults.end(), call.numbers.begin());
  if (op.dtype >= 0) call.numbers[op.dtype] = Number(static_cast<int64_t>(c10::get_default_dtype_as_scalartype()));
  if (first + n > op.positional) return false;
  for (Py_ssize_t k = 0; k < n; ++k)
    if (!read(op.parameters[first + k], args[k], call, found)) return false;
  const Py_ssize_t named = names ? PyTuple_GET_SIZE(names) : 0;
  for (Py_ssize_t k = 0; k < named; ++k) {
    PyObject* name = PyTuple_GET_ITEM(names, k);
    const size_t i = place_of(op, name, static_cast<size_t>(first + n));
    if (i == op.parameters.size() || !read(op.parameters[i], args[n + k], call, found)) return false;
  }
  for (size_t k = 0; k < op.operands.size(); ++k)
    if (!op.operands[k].optional && !call.tensors[k].defined()) return false;
  // Whether gradients may be made early is not asked of the environment before it is needed.
  if (op.reduction >= 0 && call.numbers[op.reduction].integer != 0 && settings.early < 0) return false;
  return serves(call, found.backend) && on_one_device(call) && settle_prior(call, found) && shapes_fit(call) &&
         settle_noise(call, found);
}

bool read_halves(PyObject* const* args, Py_ssize_t n, Call& call) {
  int64_t dim;
  if (n < 2 || !plain_tensor(args[0], call.moments) || !integer(args[1], dim)) return false;
  const int64_t ndim = call.moments.dim();
  if (dim < 0) dim += ndim;
  if (dim < 0 || dim >= ndim || call.moments.size(dim) % 2 != 0 || call.moments.size(dim) == 0) return false;
  const at::AutoDispatchBelowADInplaceOrView guard;
  split(call.moments, dim, call.tensors);
  call.packed = true;
  call.packed_dim = dim;
  return true;
}

}  // namespace vae_fast
