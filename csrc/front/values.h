// What Python's objects say, by their very types; false where they are not what a common call has.
#pragma once

#include <Python.h>

#include <ATen/EmptyTensor.h>
#include <torch/csrc/Device.h>
#include <torch/csrc/autograd/python_variable.h>

#include <limits>

#include "call.h"

namespace vae_fast {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Streams of a seed, and samples of a stream.
constexpr uint64_t kWords = uint64_t{1} << 32;

inline bool real(PyObject* o, double& value) {
  if (PyFloat_Check(o)) {  // numpy's float64 is one
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

inline bool integer(PyObject* o, int64_t& value) {
  if (!PyLong_CheckExact(o)) return false;
  int overflow = 0;
  value = PyLong_AsLongLongAndOverflow(o, &overflow);
  return overflow == 0;
}

// An int modulo 2^64.
inline bool wrapped(PyObject* o, uint64_t& value) {
  if (!PyLong_CheckExact(o)) return false;
  value = PyLong_AsUnsignedLongLongMask(o);
  return true;
}

inline bool word(PyObject* o, uint64_t& value) {
  int64_t given;
  if (!integer(o, given) || given < 0 || static_cast<uint64_t>(given) >= kWords) return false;
  value = static_cast<uint64_t>(given);
  return true;
}

inline bool code(PyObject* o, PyObject* words, Number& number) {
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
inline bool bounds(PyObject* o, Number* low_and_high) {
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
inline bool shape(PyObject* o, std::vector<int64_t>& sizes) {
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

inline bool plain_tensor(PyObject* o, Tensor& tensor) {
  if (!THPVariable_CheckExact(o)) return false;
  const Tensor& given = THPVariable_Unpack(o);
  if (!given.defined() || !is_plain(given) || given._fw_grad(/*level=*/0).defined()) return false;
  tensor = given;
  return true;
}

// A device of the front's kind, or none: the default one.
inline bool device(PyObject* o, c10::DeviceIndex& index) {
  if (o == Py_None) return kDeviceType == at::kCPU;
  if (!THPDevice_Check(o)) return false;
  const c10::Device given = reinterpret_cast<THPDevice*>(o)->device;
  index = given.index();
  return given.type() == kDeviceType;
}

// A number as the raw operators take one.
inline Tensor of_number(double value) {
  Tensor tensor(at::detail::empty_strided_cpu({}, {}, at::kDouble));
  *tensor.mutable_data_ptr<double>() = value;
  return tensor;
}

}  // namespace vae_fast
