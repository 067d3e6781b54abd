// Gradients that a forward pass kept, a tile at a time: as they are, or scaled, or to be made anew.
#pragma once

#include "../elements.h"
#include "../kept.h"
#include "views.h"

#include "../kernels.h"

namespace vae_fast {
namespace VF_ISA {

class KeptTiles {
 public:
  // `gradients` are all of a call's.
  template <size_t n>
  KeptTiles(const DensityCall& args, const Gradient (&gradients)[n])
      : factor_(args.kept ? upstream_of(args.upstream) : 0.0f, static_cast<float>(args.scale),
                static_cast<float>(args.divisor)),
        as_they_are_(args.kept && factor_.is_one()),
        scaled_(args.kept && factor_.is_power()) {
    static_assert(n <= kMost, "too many gradients");
    for (const Gradient& gradient : gradients) {
      if (gradient.kind == Gradient::kNone) continue;
      views_[count_++] = &gradient.view;
      scaled_ = scaled_ && gradient.kind == Gradient::kEach && gradient.view.ndim == 1 &&
                (gradient.view.stride[0] == 1 || gradient.view.size[0] == 1);
    }
  }

  // Whether all gradients are right already.
  bool as_they_are() const { return as_they_are_; }

  // Whether n gradients from `first` on are right now. If not, they are to be made anew.
  bool scale(int64_t first, int n) const {
    if (!scaled_) return false;
    bool all = true;
    for (int k = 0; k < count_; ++k) {
      void* data = views_[k]->data;
      all = all && (views_[k]->dtype == DType::kBFloat16 ? scale(static_cast<uint16_t*>(data) + first, n)
                                                         : scale(static_cast<uint32_t*>(data) + first, n));
    }
    return all;
  }

 private:
  static constexpr int kMost = 8;

  static float upstream_of(const View& view) {
    return view.dtype == DType::kFloat64 ? static_cast<float>(*static_cast<const double*>(view.data))
                                         : *static_cast<const float*>(view.data);
  }

  template <class Number>
  __attribute__((noinline)) bool scale(Number* numbers, int n) const {
    // A copy that no store can change.
    const KeptFactor factor = factor_;
    Number wrong = 0;
    for (int i = 0; i < n; ++i) {
      Number number = numbers[i];
      wrong = static_cast<Number>(wrong | (factor.multiply(number) ? 0 : 1));
      numbers[i] = number;
    }
    return wrong == 0;
  }

  KeptFactor factor_;
  bool as_they_are_, scaled_;
  const View* views_[kMost];
  int count_ = 0;
};

}  // namespace VF_ISA
}  // namespace vae_fast
