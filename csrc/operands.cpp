#include "operands.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace vae_fast {

std::string shape_name(const int64_t* size, int ndim) {
  std::string text = "(";
  for (int d = 0; d < ndim; ++d) text += std::to_string(size[d]) + (d + 1 < ndim ? ", " : ndim == 1 ? "," : "");
  return text + ")";
}

void check_elements(const char* what, const int64_t* size, int ndim) {
  // As many as bytes, of which there are eight an element at most, fit 63 bits. A dim without elements hides the others
  // from the product, but not from strides.
  constexpr int64_t kMost = int64_t{1} << 60;
  int64_t count = 1;
  bool counted = true;
  for (int d = 0; d < ndim && counted; ++d) {
    const int64_t n = std::max<int64_t>(size[d], 1);
    counted = size[d] >= 0 && n <= kMost / count;
    if (counted) count *= n;
  }
  VF_CHECK(counted, what, " of shape ", shape_name(size, ndim),
           " has a negative size, or more elements than 64 bits can count");
}

void check_memory(const char* name, const Tensor& tensor, int64_t element_size) {
  const int64_t *size = tensors::sizes(tensor), *stride = tensors::strides(tensor);
  int64_t last = 0;
  const int ndim = static_cast<int>(tensor.dim());
  for (int d = 0; d < ndim; ++d) {
    if (size[d] == 0) return;
    last += (size[d] - 1) * stride[d];
  }
  const int64_t bytes = tensors::storage_bytes(tensor);
  VF_CHECK((tensors::storage_offset(tensor) + last + 1) * element_size <= bytes, name, " of shape ",
           shape_name(size, ndim), " has elements outside its memory of ", bytes, " bytes: was that freed?");
}

Operand::Operand(const char* name, const Tensor& t)
    : tensor(&t),
      name(name),
      ndim(static_cast<int>(t.dim())),
      size(tensors::sizes(t)),
      stride(tensors::strides(t)),
      scalar_type(tensors::scalar_type(t)) {
  dtype = dtype_of(name, scalar_type);
  VF_CHECK(ndim <= kMaxDims, name, " has more than ", kMaxDims, " dims");
  number = check_readable(name, t, ndim);
  check_memory(name, t, static_cast<int64_t>(t.element_size()));
}

int64_t Operand::numel() const { return std::accumulate(size, size + ndim, int64_t{1}, std::multiplies<int64_t>()); }

namespace {

// A Python number: it takes no part in dtypes.
bool is_number(const Operand& o) { return o.ndim == 0 && o.dtype == DType::kFloat64 && o.tensor->is_cpu(); }

}  // namespace

Arithmetic arithmetic_of(const Operands& parameters, const Operands& others) {
  bool with_dims = false;
  for (const Operand& o : parameters) with_dims = with_dims || (o && o.ndim > 0);
  const Operand* first = nullptr;
  Arithmetic result{DType::kFloat32, DType::kFloat32};
  for (const Operand& o : parameters) {
    // 0-d tensors do not promote ones with dims.
    if (!o || (with_dims && o.ndim == 0) || (&o != parameters.begin() && is_number(o))) continue;
    result.result = first ? promoted(result.result, o.dtype) : o.dtype;
    first = &o;
  }
  bool is_double = result.result == DType::kFloat64;
  for (const Operand& o : others) is_double = is_double || (o && o.ndim > 0 && o.dtype == DType::kFloat64);
  result.compute = is_double ? DType::kFloat64 : DType::kFloat32;
  return result;
}

int32_t compute_type(DType compute) {
  return compute == DType::kFloat64 ? aoti_torch_dtype_float64() : aoti_torch_dtype_float32();
}

Space::Space(const Operands& operands) {
  for (const Operand& o : operands) ndim = std::max(ndim, o.ndim);
  event = ndim;
  std::fill(size, size + ndim, 1);
  std::iota(order, order + ndim, 0);
  bool fit = true;
  for (const Operand& o : operands) {
    for (int d = 0; d < o.ndim; ++d) {
      int64_t& n = size[d + ndim - o.ndim];
      fit = fit && (o.size[d] == n || o.size[d] == 1 || n == 1);
      if (n == 1) n = o.size[d];
    }
  }
  if (!fit) {
    std::string shapes;
    for (const Operand& o : operands)
      if (o) shapes += (shapes.empty() ? "" : ", ") + shape_name(o.size, o.ndim);
    refuse("the operands do not broadcast: ", shapes);
  }
  check_elements("the operands together", size, ndim);
}

void Space::set_event(int first, const Operand& like) {
  event = first;
  const auto step = [&](int d) { return d < ndim - like.ndim ? 0 : std::abs(like.stride[d - (ndim - like.ndim)]); };
  // Dims of size 1 keep their place: their strides mean nothing.
  int moving[kMaxDims], places[kMaxDims], n = 0;
  for (int d = first; d < ndim; ++d) {
    if (size[d] == 1) continue;
    places[n] = d;
    moving[n++] = d;
  }
  std::stable_sort(moving, moving + n, [&](int a, int b) { return step(a) > step(b); });
  for (int i = 0; i < n; ++i) order[places[i]] = moving[i];
}

int64_t Space::numel(int first, int last) const {
  return std::accumulate(size + first, size + last, int64_t{1}, std::multiplies<int64_t>());
}

namespace {

// A view over a space of a tensor whose dim k is dim k + shift of the space.
View view_over(const Space& space, const Operand& operand, int shift, const int64_t* stride) {
  View view;
  view.dtype = operand.dtype;
  view.number = operand.number;
  for (int i = 0; i < space.ndim; ++i) {
    const int d = space.order[i], own = d - shift;
    const bool broadcast = own < 0 || own >= operand.ndim || operand.size[own] == 1;
    view.append(space.size[d], broadcast ? 0 : stride[own]);
  }
  return view;
}

}  // namespace

View Space::view(const Operand& operand) const {
  if (!operand) return View();
  View view = view_over(*this, operand, ndim - operand.ndim, operand.stride);
  view.data = data_of(*operand.tensor);
  return view;
}

View Space::leading_view(const Operand& operand) const {
  if (!operand) return View();
  View view = view_over(*this, operand, 0, operand.stride);
  view.data = data_of(*operand.tensor);
  return view;
}

View Space::index(const Operand& operand) const {
  int64_t stride[kMaxDims], step = 1;
  for (int d = operand.ndim - 1; d >= 0; --d) {
    stride[d] = step;
    step *= operand.size[d];
  }
  return view_over(*this, operand, ndim - operand.ndim, stride);
}

Tensor empty(const int64_t* size, int ndim, int32_t scalar_type) {
  int64_t stride[kMaxDims], step = 1;
  for (int d = ndim - 1; d >= 0; --d) {
    stride[d] = step;
    step *= std::max<int64_t>(size[d], 1);
  }
  return empty_strided(size, stride, ndim, scalar_type);
}

bool in_order(const Operand& operand) {
  int64_t step = 1;
  for (int d = operand.ndim - 1; d >= 0; --d) {
    // PyTorch keeps dense strides as they are, whatever they say of a dim of size 1.
    if (operand.stride[d] != step) return false;
    step *= std::max<int64_t>(operand.size[d], 1);
  }
  return true;
}

Tensor empty_like(const Operand& operand, int32_t scalar_type) {
  if (in_order(operand)) return empty(operand.size, operand.ndim, scalar_type);
  try {
    const Tensor like = tensors::empty_like(*operand.tensor);
    if (scalar_type == operand.scalar_type) return like;
    return empty_strided(operand.size, tensors::strides(like), operand.ndim, scalar_type);
  } catch (const std::exception&) {
    cannot_allocate(operand.size, operand.ndim, scalar_type);
  }
}

Tensor contiguous(const Operand& operand) {
  Tensor copy = empty(operand.size, operand.ndim, operand.scalar_type);
  tensors::copy_(copy, *operand.tensor);
  return copy;
}

void cannot_allocate(const int64_t* size, int ndim, int32_t scalar_type) {
  const DType dtype = dtype_of("a result", scalar_type);
  uint64_t bytes = dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : is_floating(dtype) ? 2 : 1;
  for (int d = 0; d < ndim; ++d) bytes *= static_cast<uint64_t>(size[d]);
  throw std::runtime_error("can't allocate memory: you tried to allocate " + std::to_string(bytes) +
                           " bytes, for a tensor of shape " + shape_name(size, ndim) + " and dtype " +
                           dtype_name(scalar_type));
}

Tensor nothing(const Operand& anchor) {
  const int64_t zero = 0;
  return empty(&zero, 1, anchor.scalar_type);
}

void* data_of(const Tensor& tensor) {
  // Not null for an empty tensor, since a view without data is an operand that is not there.
  static char some;
  void* data = tensor.data_ptr();
  return data ? data : &some;
}

PackedGradient::PackedGradient(const Operand& packed, int64_t dim) : dim_(dim < 0 ? dim + packed.ndim : dim) {
  if (packed) whole_ = empty_like(packed);
}

OptionalTensor PackedGradient::half(int which) const {
  if (!whole_ || which > 1) return std::nullopt;
  Tensor whole = *whole_;
  const int64_t n = whole.size(dim_) / 2;
  return tensors::narrow(whole, dim_, which * n, n);
}

GradientOut::GradientOut(bool needed, const Operand& operand, const Operand& anchor, const Space& space, DType compute,
                         const OptionalTensor& place)
    : tensor_(!needed || !operand ? nothing(anchor)
              : place             ? *place
              : operand.number    ? empty(operand.size, operand.ndim, operand.scalar_type)
                                  : empty_like(operand)) {
  if (!needed || !operand) return;
  VF_CHECK(is_floating(operand.dtype), operand.name, " of ", dtype_name(operand.scalar_type), " has no gradient");
  if (operand.number) number_ = operand.tensor;
  const Operand grad("gradient", tensor_);
  const int shift = space.ndim - operand.ndim;
  bool everywhere = true, each_row = true;
  for (int d = 0; d < space.ndim; ++d) {
    const bool broadcast = space.size[d] != 1 && (d < shift || operand.size[d - shift] == 1);
    if (broadcast) summed_dims_.push_back(d);
    everywhere = everywhere && !broadcast;
    each_row = each_row && (space.size[d] == 1 || broadcast == (d >= space.event));
  }
  spec_.numel = operand.numel();
  if (everywhere) {
    spec_.kind = Gradient::kEach;
    spec_.view = space.view(grad);
  } else if (sums_in_kernel(space.index(operand), spec_.numel, each_row)) {
    spec_.kind = each_row ? Gradient::kRow : Gradient::kPartial;
    spec_.view.data = data_of(tensor_);
    spec_.view.dtype = grad.dtype;
    for (int d = 0; d < grad.ndim; ++d) spec_.view.append(grad.size[d], grad.stride[d]);
    spec_.index = space.index(operand);
  } else {
    each_ = empty(space.size, space.ndim, compute_type(compute));
    spec_.kind = Gradient::kEach;
    spec_.view = space.view(Operand("gradient", *each_));
  }
}

Tensor GradientOut::finish() {
  if (each_) {
    // Summed in the dtype computed in, and rounded once, by the copy.
    const Tensor sum = tensors::sum(*each_, summed_dims_, true);
    tensors::copy_(tensor_,
                   tensors::reshape(sum, std::vector<int64_t>(tensor_.sizes().begin(), tensor_.sizes().end())));
  }
  if (!number_) return tensor_;
  Tensor own = tensors::empty_like(*number_);
  tensors::copy_(own, tensor_);
  return own;
}

}  // namespace vae_fast
