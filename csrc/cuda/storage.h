// Which storage type a call's kernel is of: one that all operands of full size share, so that chunks of 16 bytes are of
// as many elements in each, or any.
#pragma once

#include <optional>

#include "../sigma.h"
#include "access.h"

namespace vae_fast {
namespace cuda {

class Storage {
 public:
  explicit Storage(DType compute) : compute_(compute), half_(compute == DType::kFloat32) {}

  // An operand, or a sample, of the storage type. Constants and numbers are read in any dtype.
  void read(const View& view) {
    if (free(view)) return;
    // Where two half types meet, results are of neither.
    half_ = half_ && half(view.dtype) && (!main_ || *main_ == view.dtype);
    main_ = view.dtype;
    full_ = full_ && view.dtype == compute_;
  }
  // One that may be bytes, or, beside halves, float32.
  void read_any(const View& view) {
    if (free(view) || bytes(view.dtype)) return;
    half_ = half_ && (half(view.dtype) || view.dtype == compute_);
    full_ = full_ && view.dtype == compute_;
  }
  // One of compute type.
  void read_wide(const View& view) {
    if (!free(view) && view.dtype != compute_) half_ = full_ = false;
  }
  // A result of full size: of the storage type, or, of halves, float32.
  void write(DType dtype) {
    half_ = half_ && (half(dtype) || dtype == compute_);
    full_ = full_ && dtype == compute_;
  }
  void write(const Gradient& gradient) {
    if (gradient.kind == Gradient::kEach) write(gradient.view.dtype);
  }

  // Whether it is that of half types.
  bool of_halves() const { return compute_ == DType::kFloat32 && half_ && !full_; }

  // Calls f with a value of the type; or of any, for what has kernels of no other.
  template <class F>
  void call(bool of_any, const F& f) const {
    if (of_any) return compute_ == DType::kFloat64 ? f(Any<double>{}) : f(Any<float>{});
    if (compute_ == DType::kFloat64) return full_ ? f(double{}) : f(Any<double>{});
    if (full_) return f(float{});
    half_ ? f(Half{}) : f(Any<float>{});
  }

 private:
  static bool free(const View& view) { return !view || view.number || view.constant(); }
  static bool half(DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kFloat16; }

  DType compute_;
  std::optional<DType> main_;
  bool half_, full_ = true;
};

// Calls f with the call's form of σ: log σ² without anything to branch on, or any other.
template <class S, class F>
void in_form(const SigmaOptions& options, const F& f) {
  using T = typename Compute<S>::Type;
  const SigmaForm<T> form(options);
  if constexpr (!kAny<S>) {
    if (form.plain()) return f(SigmaForm<T, true>(options));
  }
  f(form);
}

}  // namespace cuda
}  // namespace vae_fast
