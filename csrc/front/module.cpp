// The Python module: calls of public functions that are common ones are run here; for any other it returns None, and
// the Python function, which is the definition, takes it.
#include <Python.h>

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/PythonTorchFunctionTLS.h>
#include <c10/core/DefaultDtype.h>
#include <torch/csrc/Dtype.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>

#include <cstring>

#include "call.h"

namespace vae_fast {

static const Kernels* chosen = nullptr;
const Kernels& kernels() { return *chosen; }

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Streams of a seed, and samples of a stream.
constexpr uint64_t kWords = uint64_t{1} << 32;

// ---- what Python's objects say; false where they are not what a common call has -------------------------------

bool real(PyObject* o, double& value) {
  if (PyFloat_CheckExact(o)) {
    value = PyFloat_AS_DOUBLE(o);
    return true;
  }
  if (!PyLong_CheckExact(o)) return false;
  value = PyLong_AsDouble(o);
  if (value == -1.0 && PyErr_Occurred()) {
    PyErr_Clear();
    return false;
  }
  return true;
}

bool integer(PyObject* o, int64_t& value) {
  if (!PyLong_CheckExact(o)) return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(o, &overflow);
  return overflow == 0;
}

// An int modulo 2^64.
bool wrapped(PyObject* o, uint64_t& value) {
  if (!PyLong_CheckExact(o)) return false;
  value = PyLong_AsUnsignedLongLongMask(o);
  return true;
}

bool word(PyObject* o, uint64_t& value) {
  int64_t given;
  if (!integer(o, given) || given < 0 || static_cast<uint64_t>(given) >= kWords) return false;
  value = static_cast<uint64_t>(given);
  return true;
}

bool code(PyObject* o, PyObject* words, Number& number) {
  if (!PyUnicode_CheckExact(o)) return false;
  PyObject* found = PyDict_GetItemWithError(words, o);
  if (!found) {
    PyErr_Clear();
    return false;
  }
  number = Number(static_cast<int64_t>(PyLong_AsLongLong(found)));
  return true;
}

// (low, high), of which either may be None.
bool bounds(PyObject* o, Number* low_and_high) {
  double limits[2] = {-kInfinity, kInfinity};
  if (o != Py_None) {
    if (!PyTuple_CheckExact(o) || PyTuple_GET_SIZE(o) != 2) return false;
    for (int k = 0; k < 2; ++k)
      if (PyTuple_GET_ITEM(o, k) != Py_None && !real(PyTuple_GET_ITEM(o, k), limits[k])) return false;
  }
  for (int k = 0; k < 2; ++k) low_and_high[k] = Number(limits[k]);
  return limits[0] <= limits[1];
}

// An int or a tuple of them (torch.Size is one).
bool shape(PyObject* o, std::vector<int64_t>& sizes) {
  sizes.clear();
  int64_t size;
  if (integer(o, size)) {
    sizes.push_back(size);
    return size >= 0;
  }
  if (!PyTuple_Check(o)) return false;
  for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(o); ++k) {
    if (!integer(PyTuple_GET_ITEM(o, k), size) || size < 0) return false;
    sizes.push_back(size);
  }
  return true;
}

bool plain_tensor(PyObject* o, Tensor& tensor) {
  if (!THPVariable_CheckExact(o)) return false;
  const Tensor& given = THPVariable_Unpack(o);
  if (!given.defined() || !is_plain(given) || given._fw_grad(/*level=*/0).defined()) return false;
  tensor = given;
  return true;
}

// A number as the raw operators take one.
Tensor of_number(double value) {
  Tensor tensor(at::detail::empty_strided_cpu({}, {}, at::kDouble));
  *tensor.mutable_data_ptr<double>() = value;
  return tensor;
}

// As torch.randint(2^63 - 1) draws it (vae_fast/seeds.py).
uint64_t draw(const std::optional<at::Generator>& given) {
  auto* generator = at::get_generator_or_default<at::CPUGeneratorImpl>(given, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(generator->mutex_);
  return generator->random64() % ((uint64_t{1} << 63) - 1);
}

// ---- a call -------------------------------------------------------------------------------------------------

// What a parser finds beside a call's record.
struct Found {
  std::optional<at::Generator> generator;
  bool seeded = false, noise = false, placed = false, native = settings.native, prior_param = false;
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
      return found.generator->device().is_cpu();
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
      found.native =
          PyUnicode_CompareWithASCIIString(o, "native") == 0 || PyUnicode_CompareWithASCIIString(o, "auto") == 0;
      return true;
    case Kind::kDtype: {
      if (o == Py_None) return true;
      if (!THPDtype_Check(o)) return false;
      *number = Number(static_cast<int64_t>(reinterpret_cast<THPDtype*>(o)->scalar_type));
      return true;
    }
    case Kind::kDevice: return o == Py_None;
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
  if (!found.noise && !found.seeded && op.operands.empty()) return false;
  uint64_t samples = 1;
  for (const int64_t size : call.shapes[0]) samples *= static_cast<uint64_t>(size);
  if (samples > kWords || found.first_sample + samples > kWords) return false;
  if (!found.noise && !found.seeded) found.seed = draw(found.generator);
  call.numbers[op.seed] = Number(static_cast<int64_t>(found.seed));
  call.numbers[op.offset] = Number(static_cast<int64_t>(found.offset));
  call.numbers[op.first_sample] = Number(static_cast<int64_t>(found.stream * kWords + found.first_sample));
  return true;
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

// Arguments from parameter `first` on: those before it are there.
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
  return found.native && settle_prior(call, found) && shapes_fit(call) && settle_noise(call, found);
}

constexpr const char* kCapsule = "vae_fast.operator";

// The halves along args[1] of args[0], of which no graph is made.
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

template <bool packed>
PyObject* run_call(PyObject* self, PyObject* const* args, Py_ssize_t n, PyObject* names) {
  const auto* op = static_cast<const Operator*>(PyCapsule_GetPointer(self, kCapsule));
  constexpr Py_ssize_t first = packed ? 2 : 0;
  HANDLE_TH_ERRORS
  try {
    Call call;
    if (!settings.on || !unobserved() || at::impl::torch_function_mode_enabled()) Py_RETURN_NONE;
    if ((packed && !read_halves(args, n, call)) || !parse(*op, first, args + first, n - first, names, call))
      Py_RETURN_NONE;
    if (packed) call.numbers[op->defaults.size()] = Number(call.packed_dim);
    Results results = forward(std::move(call));
    if (op->results == 1) return THPVariable_Wrap(std::move(results[0]));
    PyObject* out = PyTuple_New(op->results);
    for (int k = 0; out && k < op->results; ++k) PyTuple_SET_ITEM(out, k, THPVariable_Wrap(std::move(results[k])));
    return out;
  } catch (const std::invalid_argument&) {
    // What is wrong with it the Python function says better.
    Py_RETURN_NONE;
  }
  END_HANDLE_TH_ERRORS
}

template <bool packed>
PyMethodDef call_method = {"call", reinterpret_cast<PyCFunction>(reinterpret_cast<void (*)()>(run_call<packed>)),
                           METH_FASTCALL | METH_KEYWORDS, nullptr};

// ---- the module ---------------------------------------------------------------------------------------------

// define(facts) -> (the function that runs a call of an operator, or returns None; the same of (moments, dim) in the
// place of the first two operands); None where the library has not the operator. `facts` are what vae_fast/front.py
// makes.
PyObject* define(PyObject*, PyObject* facts) {
  HANDLE_TH_ERRORS
  using namespace pybind11;
  const auto given = reinterpret_borrow<dict>(facts);
  const auto name = given["name"].cast<std::string>();
  const RawOperator* raw = raw_operator(name.c_str());
  if (!raw) Py_RETURN_NONE;
  auto* op = new Operator;  // as long as the process
  op->raw = raw;
  op->forward_name = "vae_fast::" + name + "_fwd";
  op->backward_name = "vae_fast::" + name + "_bwd";
  op->node_name = given["node"].cast<std::string>();
  op->density = given["density"].cast<bool>();
  op->results = given["results"].cast<int>();
  op->shapes = given["shapes"].cast<int>();
  op->positional = given["positional"].cast<int>();
  for (const auto& each : given["operands"].cast<list>()) {
    const auto f = each.cast<tuple>();
    op->operands.push_back({f[0].cast<bool>(), f[1].cast<bool>(), f[2].cast<bool>(), f[3].cast<bool>(),
                            f[4].cast<bool>(), f[5].cast<bool>()});
  }
  for (const auto& each : given["defaults"].cast<list>()) {
    if (each.is_none())
      op->defaults.emplace_back();
    else if (PyFloat_Check(each.ptr()))
      op->defaults.emplace_back(each.cast<double>());
    else
      op->defaults.emplace_back(each.cast<int64_t>());
  }
  const auto places = given["places"].cast<dict>();
  const auto place = [&](const char* key) { return places.contains(key) ? places[key].cast<int>() : -1; };
  op->event_ndim = place("event_ndim");
  op->reduction = place("reduction");
  op->seed = place("seed");
  op->offset = place("offset");
  op->first_sample = place("first_sample");
  op->form = place("param");
  op->prior_form = place("prior_param");
  op->dtype = place("dtype");
  for (const auto& each : given["parameters"].cast<list>()) {
    const auto f = each.cast<tuple>();
    PyObject *words = object(f[3]).release().ptr(), *key = object(f[0]).release().ptr();
    PyUnicode_InternInPlace(&key);
    op->parameters.push_back({key, static_cast<Kind>(f[1].cast<int>()), f[2].cast<int>(), words});
  }
  TORCH_CHECK(op->tensors() <= kMostOperands && op->defaults.size() <= kMostNumbers && op->shapes <= 2);
  const auto capsule = reinterpret_steal<object>(PyCapsule_New(op, kCapsule, nullptr));
  if (!capsule) throw error_already_set();
  const auto call = reinterpret_steal<object>(PyCFunction_New(&call_method<false>, capsule.ptr()));
  const auto of_halves = reinterpret_steal<object>(PyCFunction_New(&call_method<true>, capsule.ptr()));
  return make_tuple(call, of_halves).release().ptr();
  END_HANDLE_TH_ERRORS
}

// load(address of the CPU library's table of kernels, its layout, the Python function for other backward passes)
PyObject* load(PyObject*, PyObject* args) {
  unsigned long long address;
  const char* layout;
  PyObject* second;
  if (!PyArg_ParseTuple(args, "KsO", &address, &layout, &second)) return nullptr;
  if (std::strcmp(layout, VF_LAYOUT) != 0)
    return PyErr_Format(PyExc_ImportError, "it was built from other sources than the CPU's library");
  chosen = reinterpret_cast<const Kernels*>(address);
  Py_INCREF(second);
  settings.second = second;
  Py_RETURN_NONE;
}

// set(on, native, early)
PyObject* set(PyObject*, PyObject* args) {
  int on, native, early;
  if (!PyArg_ParseTuple(args, "iii", &on, &native, &early)) return nullptr;
  settings.on = on != 0;
  settings.native = native != 0;
  settings.early = early;
  Py_RETURN_NONE;
}

PyMethodDef methods[] = {{"define", define, METH_O, nullptr},
                         {"load", load, METH_VARARGS, nullptr},
                         {"set", set, METH_VARARGS, nullptr},
                         {nullptr, nullptr, 0, nullptr}};
PyModuleDef module = {PyModuleDef_HEAD_INIT, "_front", nullptr, -1, methods, nullptr, nullptr, nullptr, nullptr};

}  // namespace
}  // namespace vae_fast

#define VF_INIT_OF(name) PyInit_##name
#define VF_INIT(name) VF_INIT_OF(name)
extern "C" __attribute__((visibility("default"))) PyObject* VF_INIT(VF_MODULE)() {
  return PyModule_Create(&vae_fast::module);
}
