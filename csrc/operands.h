// From tensors to what kernels take: the broadcast shape, views of operands, results and gradients.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "dtypes.h"

namespace vae_fast {

// What messages call it.
std::string shape_name(const int64_t* size, int ndim);

// Raises where a shape has a negative size, or more elements than can be counted.
void check_elements(const char* what, const int64_t* size, int ndim);
// Raises where elements of a tensor lie outside its memory, as when that was freed under it.
void check_memory(const char* name, const Tensor& tensor, int64_t element_size);

// What is asked of a tensor more than once.
struct Operand {
  const Tensor* tensor = nullptr;
  const char* name = "";
  int ndim = 0;
  const int64_t* size = nullptr;
  const int64_t* stride = nullptr;
  int32_t scalar_type = 0;
  bool number = false;  // a 0-d tensor in the host's memory, whatever the device
  DType dtype = DType::kFloat32;

  Operand() = default;
  Operand(const char* name, const Tensor& t);
  Operand(const char* name, const OptionalTensor& t) : Operand() {
    if (t) *this = Operand(name, *t);
  }

  explicit operator bool() const { return tensor != nullptr; }
  int64_t numel() const;
};

// Operands that stand one after the other.
class Operands {
 public:
  Operands(const Operand* first, const Operand* last) : first_(first), last_(last) {}
  Operands(const Operand* first, size_t count) : Operands(first, first + count) {}
  template <size_t count>
  Operands(const Operand (&all)[count]) : Operands(all, count) {}
  Operands(const Operand& one) : Operands(&one, 1) {}

  const Operand* begin() const { return first_; }
  const Operand* end() const { return last_; }

 private:
  const Operand *first_, *last_;
};

// The dtypes of a call: each operand keeps its own, and is widened, never rounded, but for a number.
struct Arithmetic {
  DType result;   // what the parameters promote to by PyTorch's rule; numbers take no part unless the first is one
  DType compute;  // float64 where the result is, or an operand with dims; else float32
};
Arithmetic arithmetic_of(const Operands& parameters, const Operands& others = {nullptr, nullptr});
// PyTorch's number of a dtype computed in.
int32_t compute_type(DType compute);

// The shape operands broadcast to, and the order in which its dims are walked.
struct Space {
  int ndim = 0;
  int event = 0;  // the first event dim; all dims are event dims for a reduction to one number
  int64_t size[kMaxDims];
  int order[kMaxDims];

  // Operands without a tensor take no part.
  explicit Space(const Operands& operands);

  // Makes the dims from `first` on the event, and walks them as the operand holds them in memory.
  void set_event(int first, const Operand& like);

  int64_t numel(int first, int last) const;
  int64_t numel() const { return numel(0, ndim); }
  Rows rows() const { return {numel(0, event), numel(event, ndim)}; }

  // An operand's elements; its dims are the last ones of the space, or, for an upstream gradient, the first ones.
  View view(const Operand& operand) const;
  View leading_view(const Operand& operand) const;
  // Where each element of the space is in the operand's own C order.
  View index(const Operand& operand) const;
};

// Whether strides are those of C order.
bool in_order(const Operand& operand);
Tensor empty(const int64_t* size, int ndim, int32_t scalar_type);
Tensor empty_like(const Operand& operand, int32_t scalar_type);
inline Tensor empty_like(const Operand& operand) { return empty_like(operand, operand.scalar_type); }
// The same values in C order.
Tensor contiguous(const Operand& operand);
// What stands for a gradient that nobody asked for.
Tensor nothing(const Operand& anchor);

void* data_of(const Tensor& tensor);

// One buffer for the gradients of two operands that are the halves of a tensor along a dim; without that tensor,
// nothing.
class PackedGradient {
 public:
  PackedGradient(const Operand& packed, int64_t dim);

  explicit operator bool() const { return whole_.has_value(); }
  const Tensor& whole() const { return *whole_; }
  // The gradient's place of the first operand or the second; nothing of another, or where there is no buffer.
  OptionalTensor half(int which) const;

 private:
  OptionalTensor whole_;
  int64_t dim_;
};

// A gradient's tensor, how a kernel fills it, and what is left to do afterwards.
class GradientOut {
 public:
  // `place` is where it goes, if that is not for this to choose.
  GradientOut(bool needed, const Operand& operand, const Operand& anchor, const Space& space, DType compute,
              const OptionalTensor& place = std::nullopt);

  const Gradient& spec() const { return spec_; }
  // After the kernel has run.
  Tensor finish();

 private:
  Gradient spec_;
  Tensor tensor_;
  // The operand, where it is a number: its gradient goes where it is.
  const Tensor* number_ = nullptr;
  // Where each element of the space has a value of its own before they are summed.
  std::optional<Tensor> each_;
  std::vector<int64_t> summed_dims_;
};

}  // namespace vae_fast
