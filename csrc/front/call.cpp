#include "call.h"

#include <ATen/SavedTensorHooks.h>
#include <ATen/record_function.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/dynamo/compiled_autograd.h>
#include <torch/csrc/utils/pybind.h>

#include <algorithm>
#include <cmath>
#include <mutex>

namespace vae_fast {

using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

Settings settings;

// Names of dims, which the engine of torch up to 2.12 leaves out in backward passes; newer ones have none.
template <class Key>
constexpr auto of_names(int) -> decltype(Key::Named, c10::DispatchKeySet()) {
  return c10::DispatchKeySet(Key::Named);
}
template <class Key>
constexpr c10::DispatchKeySet of_names(long) {
  return {};
}

bool unobserved() {
  constexpr c10::DispatchKeySet either =
      c10::DispatchKeySet({c10::DispatchKey::AutocastCPU, c10::DispatchKey::AutocastCUDA}) |
      of_names<c10::DispatchKey>(0);
  const auto local = c10::impl::tls_local_dispatch_key_set();
  return local.included_ == c10::default_included_set &&
         (local.excluded_ | either) == (c10::default_excluded_set | either);
}

bool is_plain(const Tensor& tensor) {
  return tensor.key_set() == kPlain && !tensor.unsafeGetTensorImpl()->has_symbolic_sizes_strides();
}

namespace {

// A Node is counted by std::shared_ptr in torch up to 2.12, by c10::intrusive_ptr from 2.13 on.
using NodePointer = std::decay_t<decltype(std::declval<const Tensor&>().grad_fn())>;

template <class T>
auto make_node() {
  if constexpr (std::is_same_v<NodePointer, std::shared_ptr<Node>>)
    return std::shared_ptr<T>(new T, [](auto* node) { deleteNode(node); });
  else
    return c10::make_intrusive<T>();
}

// Calls of more elements run without Python's lock.
constexpr int64_t kMuch = int64_t{1} << 16;

int64_t most_elements(const Call& call) {
  int64_t most = 0;
  for (const Tensor& t : call.tensors)
    if (t.defined()) most = std::max(most, t.numel());
  return most;
}

void run_raw(const Options& options, const Tensors& tensors, const Tensor& packed, Raw raw,
             const variable_list& upstream, const bool* needs, Results& results) {
  const Tensor* all[kMostOperands + kMostResults];
  int n = 0;
  for (const Tensor& t : upstream) all[n++] = &t;
  for (int k = 0; k < options.op->tensors(); ++k) all[n++] = &tensors[k];
  all[n] = &packed;
  Arguments arguments{all, options.numbers.data(), options.shapes, needs, TorchDevice(kDeviceType, options.device)};
  // Copies that are made on the way are in no graph.
  const at::AutoDispatchBelowADInplaceOrView below;
  raw(arguments, results);
}

bool differentiable(const Call& call) {
  if (!at::GradMode::is_enabled()) return false;
  if (call.packed && call.moments.requires_grad()) return true;
  for (size_t k = 0; k < call.op->operands.size(); ++k)
    if (call.tensors[k].defined() && call.tensors[k].requires_grad()) return true;
  return false;
}

// Whether every gradient that a call may be asked for is of bfloat16 or float32, of all of the call's elements, and its
// kernel's own.
bool of_all_elements(const Call& call, const Operand (&operands)[kMostOperands]) {
  const Operator& op = *call.op;
  if (op.softmax >= 0 && call.numbers[op.form].integer == op.softmax) return false;
  const Space space(Operands(operands, op.operands.size()));
  for (size_t k = 0; k < op.operands.size(); ++k) {
    const Tensor& t = call.tensors[k];
    if (!t.defined() || !t.requires_grad()) continue;
    const Operand& own = operands[k];
    const bool all = own.ndim == space.ndim && std::equal(own.size, own.size + own.ndim, space.size);
    if (!all || t.scalar_type() == at::kDouble || t.device().type() != kDeviceType) return false;
  }
  return true;
}

// Whether the forward pass makes the gradients too, as vae_fast/ops/early.py says; in bfloat16 where they are of all
// elements, so that a kernel may scale them or make them anew, element by element.
bool early_wanted(const Call& call) {
  const Operator& op = *call.op;
  if (!settings.early || call.packed || op.reduction < 0 || call.numbers[op.reduction].integer == 0) return false;
  if (at::SavedTensorDefaultHooks::get_hooks(true).has_value()) return false;
  Operand operands[kMostOperands];
  size_t parameters = 0;
  for (size_t k = 0; k < op.operands.size(); ++k) {
    if (call.tensors[k].defined()) operands[k] = Operand("operand", call.tensors[k]);
    if (op.operands[k].parameter) parameters = k + 1;
  }
  const Arithmetic arithmetic =
      arithmetic_of(Operands(operands, parameters), Operands(operands + parameters, operands + op.operands.size()));
  const bool in_double = arithmetic.compute == DType::kFloat64;
  bool rounded = false;
  for (size_t k = 0; k < op.operands.size(); ++k) {
    const Tensor& t = call.tensors[k];
    if (!t.defined() || !t.requires_grad()) continue;
    if (op.operands[k].differentiable && !op.operands[k].in_forward) return false;
    if (!in_double && t.scalar_type() == at::kBFloat16)
      rounded = true;
    else if (t.scalar_type() != at::kDouble && (in_double || t.scalar_type() != at::kFloat))
      return false;
  }
  return !rounded || of_all_elements(call, operands);
}

// Whether gradients of a forward pass times this factor are those of the backward pass. On a CPU not where it is not
// finite: the zeros of masked or clamped elements would be NaN. On a GPU, where to look at it would be to wait for it,
// the kernel keeps them.
bool scales(const Tensor& factor) {
  if (kDeviceType != at::kCPU) return true;
  return std::isfinite(factor.scalar_type() == at::kDouble ? *factor.const_data_ptr<double>()
                                                           : static_cast<double>(*factor.const_data_ptr<float>()));
}

// Dense gradients in place times a factor.
void rescale(const variable_list& grads, const Tensor& factor) {
  OnDevice device(factor);
  RescaleArgs args;
  device.equip(args);
  args.factor = data_of(factor);
  args.factor_dtype = dtype_of("factor", tensors::scalar_type(factor));
  for (const Tensor& grad : grads)
    if (grad.defined()) args.add(data_of(grad), dtype_of("gradient", tensors::scalar_type(grad)), grad.numel());
  run(kernels().rescale, args);
}

PyObject* to_python(const Number& n) {
  if (!n.given) Py_RETURN_NONE;
  return n.is_real ? PyFloat_FromDouble(n.real) : PyLong_FromLongLong(n.integer);
}

// A backward pass that PyTorch must see the operations of, in Python. In a graph the seed is one of its inputs.
variable_list in_python(const Options& call, const Tensors& operands, const variable_list& upstream, const bool* needs,
                        const c10::SymInt* seed) {
  pybind11::gil_scoped_acquire lock;
  const Operator& op = *call.op;
  const auto steal = [](PyObject* o) {
    if (!o) throw python_error();
    return pybind11::reinterpret_steal<pybind11::object>(o);
  };
  pybind11::list gradients, tensors, numbers, shapes, wanted;
  for (const Tensor& t : upstream) gradients.append(steal(THPVariable_Wrap(t)));
  for (int k = 0; k < op.tensors(); ++k) tensors.append(steal(THPVariable_Wrap(operands[k])));
  for (int k = 0; k < static_cast<int>(op.defaults.size()); ++k)
    numbers.append(seed && k == op.seed ? pybind11::cast(*seed) : steal(to_python(call.numbers[k])));
  for (int k = 0; k < op.shapes; ++k) shapes.append(pybind11::tuple(pybind11::cast(call.shapes[k])));
  int wanted_of = 0;
  for (const OperandFacts& operand : op.operands)
    if (operand.differentiable) wanted.append(needs[wanted_of++]);
  const auto made =
      steal(PyObject_CallFunctionObjArgs(settings.second, pybind11::str(op.raw->name).ptr(), gradients.ptr(),
                                         tensors.ptr(), numbers.ptr(), shapes.ptr(), wanted.ptr(), nullptr));
  variable_list grads;
  for (const auto& each : made) grads.push_back(each.is_none() ? Tensor() : THPVariable_Unpack(each.ptr()));
  return grads;
}

struct Backward final : Node {
  Options call;
  std::vector<SavedVariable> saved;
  variable_list early;  // the gradients for an upstream gradient of 1, for the first backward pass

  std::string name() const override { return call.op->node_name; }

  void release_variables() override {
    const std::lock_guard<std::mutex> lock(mutex_);
    for (SavedVariable& each : saved) each.reset_data();
    early.clear();
  }

  // The kept gradients times the upstream one; false where there are none. Rounded ones, which the backward pass itself
  // scales, go to `rounded`.
  bool take_early(const Tensor& upstream, variable_list& grads, std::array<OptionalTensor, kMostOperands>& rounded) {
    if (early.empty()) return false;
    variable_list kept = std::move(early);
    early.clear();
    const auto is_rounded = [](const Tensor& t) { return t.defined() && t.scalar_type() == at::kBFloat16; };
    if (std::any_of(kept.begin(), kept.end(), is_rounded)) {
      for (size_t k = 0; k < kept.size(); ++k)
        if (kept[k].defined()) rounded[k] = std::move(kept[k]);
      return false;
    }
    if (!scales(upstream)) return false;
    rescale(kept, upstream);
    grads = std::move(kept);
    return true;
  }

  variable_list apply(variable_list&& upstream) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    return gradients(upstream, nullptr);
  }

  // Compiled autograd: what a graph of this node depends on, and the node's operations, in a graph.
  void compiled_args(torch::dynamo::autograd::CompiledNodeArgs& args) const override {
    args.collect(call.op->node_name);
    args.collect(saved, false);
    for (int k = 0; k < static_cast<int>(call.op->defaults.size()); ++k) {
      const Number& n = call.numbers[k];
      if (k == call.op->seed)
        args.collect(c10::SymInt(n.integer));
      else if (n.given && n.is_real)
        args.collect(n.real);
      else
        args.collect(n.given ? n.integer : int64_t{0});
      args.collect(n.given);
    }
    for (const std::vector<int64_t>& shape : call.shapes) args.collect(shape);
    args.collect(call.packed);
    args.collect(call.packed_dim);
  }
  variable_list apply_with_saved(const variable_list& upstream,
                                 torch::dynamo::autograd::SwapSavedVariables& swap) override {
    const int place = call.op->seed;
    c10::SymInt seed(place < 0 ? 0 : call.numbers[place].integer);
    swap.before(saved);
    if (place >= 0) swap.before(seed);
    variable_list grads = gradients(upstream, place < 0 ? nullptr : &seed);
    if (place >= 0) swap.after(seed);
    swap.after(saved);
    return grads;
  }

 private:
  variable_list gradients(const variable_list& upstream, const c10::SymInt* seed) {
    const Operator& op = *call.op;
    const size_t n = op.operands.size();
    variable_list grads(n);
    bool needs[kMostOperands];
    for (size_t k = 0, i = 0; k < n; ++k)
      if (op.operands[k].differentiable) needs[i++] = task_should_compute_output(call.packed && k == 1 ? 0 : k);
    bool any = false, plain = !at::GradMode::is_enabled() && unobserved();
    for (const Tensor& t : upstream) {
      any = any || t.defined();
      plain = plain && (!t.defined() || is_plain(t));
    }
    if (!any) return grads;
    std::array<OptionalTensor, kMostOperands> rounded;
    if (plain && op.density && upstream[0].numel() == 1 && take_early(upstream[0], grads, rounded)) return grads;

    Tensors tensors;
    for (int k = 0; k < op.tensors(); ++k) tensors[k] = saved[k].unpack();
    Tensor moments;
    if (call.packed) {
      moments = tensors[0];
      split(moments, call.packed_dim, tensors);
      if (!needs[0]) moments.reset();
    }
    Results made;
    if (plain) {
      RECORD_FUNCTION(op.backward_name.c_str(), std::vector<c10::IValue>());
      const KeptGradients kept(rounded.data());
      run_raw(call, tensors, moments, op.raw->backward, upstream, needs, made);
    } else {
      const variable_list seen = in_python(call, tensors, upstream, needs, seed);
      std::copy(seen.begin(), seen.end(), made.begin());
      if (moments.defined()) made[0] = at::cat({seen[0], seen[1]}, call.packed_dim);
    }
    if (call.packed) needs[1] = false;
    for (size_t k = 0, i = 0; k < n; ++k)
      if (op.operands[k].differentiable && needs[i++]) grads[k] = std::move(made[i - 1]);
    return grads;
  }
};

}  // namespace

Results forward(Call&& call) {
  const Operator& op = *call.op;
  const bool with_node = differentiable(call), in_forward = with_node && early_wanted(call);
  bool needs[kMostOperands] = {};
  for (size_t k = 0, i = 0; k < op.operands.size(); ++k)
    if (op.operands[k].in_forward)
      needs[i++] = in_forward && call.tensors[k].defined() && call.tensors[k].requires_grad();
  Results results;
  {
    RECORD_FUNCTION(op.forward_name.c_str(), std::vector<c10::IValue>());
    std::optional<pybind11::gil_scoped_release> unlocked;
    if (most_elements(call) > kMuch) unlocked.emplace();
    run_raw(call, call.tensors, Tensor(), op.raw->forward, {}, needs, results);
  }
  if (!with_node) return results;
  if (call.packed) {
    call.tensors[0] = std::move(call.moments);
    call.tensors[1].reset();
  }
  auto node = make_node<Backward>();
  torch::autograd::edge_list edges;
  edges.reserve(op.operands.size());
  for (size_t k = 0; k < op.operands.size(); ++k) {
    const Tensor& t = call.tensors[k];
    edges.push_back(op.operands[k].differentiable && t.defined() ? torch::autograd::impl::gradient_edge(t)
                                                                 : torch::autograd::Edge());
  }
  node->set_next_edges(std::move(edges));
  node->saved.reserve(static_cast<size_t>(op.tensors()));
  for (int k = 0; k < op.tensors(); ++k) node->saved.emplace_back(call.tensors[k], false);
  if (in_forward) {
    node->early.resize(op.operands.size());
    for (size_t k = 0, i = 0; k < op.operands.size(); ++k)
      if (op.operands[k].in_forward && needs[i++]) node->early[k] = std::move(results[op.results + i - 1]);
  }
  node->call = std::move(static_cast<Options&>(call));
  const NodePointer history = std::move(node);
  for (int k = 0; k < op.results; ++k) torch::autograd::set_history(results[k], history);
  return results;
}

}  // namespace vae_fast
