#include "operands.h"

#include <algorithm>
#include <cstdlib>
#include <numeric>

namespace vae_fast {
namespace {

DType dtype_of(const char* name, int32_t scalar_type) {
  static const int32_t float32 = aoti_torch_dtype_float32(), float64 = aoti_torch_dtype_float64(),
                       bfloat16 = aoti_torch_dtype_bfloat16(), float16 = aoti_torch_dtype_float16(),
                       uint8 = aoti_torch_dtype_uint8(), boolean = aoti_torch_dtype_bool();
  if (scalar_type == float32) return DType::kFloat32;
  if (scalar_type == float64) return DType::kFloat64;
  if (scalar_type == bfloat16) return DType::kBFloat16;
  if (scalar_type == float16) return DType::kFloat16;
  if (scalar_type == boolean) return DType::kBool;
  STD_TORCH_CHECK(scalar_type == uint8, name, " has a dtype that vae_fast does not take");
  return DType::kByte;
}

}  // namespace

Operand::Operand(const char* name, const Tensor& t) : tensor(&t), ndim(static_cast<int>(t.dim())) {
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(t.get(), &scalar_type));
  int64_t *sizes, *strides;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_sizes(t.get(), &sizes));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_strides(t.get(), &strides));
  size = sizes;
  stride = strides;
  dtype = dtype_of(name, scalar_type);
  STD_TORCH_CHECK(ndim <= kMaxDims, name, " has more than ", kMaxDims, " dims");
  number = check_readable(name, t, ndim);
}

int64_t Operand::numel() const { return std::accumulate(size, size + ndim, int64_t{1}, std::multiplies<int64_t>()); }

Space::Space(std::initializer_list<const Operand*> operands) {
  for (const Operand* o : operands) ndim = std::max(ndim, o->ndim);
  event = ndim;
  std::fill(size, size + ndim, 1);
  std::iota(order, order + ndim, 0);
  for (const Operand* o : operands) {
    for (int d = 0; d < o->ndim; ++d) {
      int64_t& n = size[d + ndim - o->ndim];
      STD_TORCH_CHECK(o->size[d] == n || o->size[d] == 1 || n == 1, "the operands do not broadcast: ", n, " and ",
                      o->size[d], " at dim ", d - o->ndim);
      if (n == 1) n = o->size[d];
    }
  }
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

Tensor empty_like(const Operand& operand) {
  int64_t step = 1;
  for (int d = operand.ndim - 1; d >= 0; --d) {
    // PyTorch keeps dense strides as they are, whatever they say of a dim of size 1.
    if (operand.stride[d] != step) return torch::stable::empty_like(*operand.tensor);
    step *= std::max<int64_t>(operand.size[d], 1);
  }
  return empty(operand.size, operand.ndim, operand.scalar_type);
}

Tensor nothing(const Operand& anchor) {
  const int64_t zero = 0;
  return empty(&zero, 1, anchor.scalar_type);
}

int32_t compute_type(const Operand& operand) {
  return operand.dtype == DType::kFloat64 ? operand.scalar_type : aoti_torch_dtype_float32();
}

void* data_of(const Tensor& tensor) {
  // Not null for an empty tensor, since a view without data is an operand that is not there.
  static char some;
  void* data = tensor.data_ptr();
  return data ? data : &some;
}

PackedGradient::PackedGradient(const OptionalTensor& packed, int64_t dim) : dim_(dim) {
  if (packed) whole_ = empty_like(Operand("packed", *packed));
}

OptionalTensor PackedGradient::half(int which) const {
  if (!whole_) return std::nullopt;
  Tensor whole = *whole_;
  const int64_t n = whole.size(dim_) / 2;
  return torch::stable::narrow(whole, dim_, which * n, n);
}

GradientOut::GradientOut(bool needed, const Operand& operand, const Operand& anchor, const Space& space,
                         const OptionalTensor& place)
    : tensor_(!needed || !operand ? nothing(anchor)
              : place             ? *place
              : operand.number    ? empty(operand.size, operand.ndim, operand.scalar_type)
                                  : empty_like(operand)) {
  if (!needed || !operand) return;
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
    each_ = empty(space.size, space.ndim, compute_type(anchor));
    spec_.kind = Gradient::kEach;
    spec_.view = space.view(Operand("gradient", *each_));
  }
}

Tensor GradientOut::finish() {
  if (each_) {
    const Tensor sum = torch::stable::sum(*each_, summed_dims_, true);
    torch::stable::copy_(tensor_, torch::stable::reshape(sum, std::vector<int64_t>(tensor_.sizes().begin(), tensor_.sizes().end())));
  }
  if (!number_) return tensor_;
  Tensor own = torch::stable::empty_like(*number_);
  torch::stable::copy_(own, tensor_);
  return own;
}

}  // namespace vae_fast
