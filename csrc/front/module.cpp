// The Python module: calls of public functions that are common ones are run here; for any other it returns None, and
// the Python function, which is the definition, takes it.
#include <Python.h>

#include <ATen/PythonTorchFunctionTLS.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/utils/pybind.h>

#include <cstring>

#include "arguments.h"

namespace vae_fast {

static const Kernels* chosen = nullptr;
const Kernels& kernels() { return *chosen; }

namespace {

constexpr const char* kCapsule = "vae_fast.operator";

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
  op->below = given["below"].cast<int64_t>();
  op->softmax = given["softmax"].cast<int>();
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

// load(address of the table of kernels of the device's library, its layout, the Python function for other backward
// passes)
PyObject* load(PyObject*, PyObject* args) {
  unsigned long long address;
  const char* layout;
  PyObject* second;
  if (!PyArg_ParseTuple(args, "KsO", &address, &layout, &second)) return nullptr;
  if (std::strcmp(layout, VF_LAYOUT) != 0)
    return PyErr_Format(PyExc_ImportError, "it was built from other sources than the library of its kernels");
  chosen = reinterpret_cast<const Kernels*>(address);
  Py_INCREF(second);
  settings.second = second;
  Py_RETURN_NONE;
}

// set(on, the backend where none is named, early)
PyObject* set(PyObject*, PyObject* args) {
  int on, backend, early;
  if (!PyArg_ParseTuple(args, "iii", &on, &backend, &early)) return nullptr;
  settings.on = on != 0;
  settings.backend = static_cast<Chosen>(backend);
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
