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
    // As KeptFactor::multiply, without its branches: in the upper bits of a Number, which are a bfloat16.
    constexpr int kLower = 8 * sizeof(Number) - 16;
    constexpr auto kAll = static_cast<Number>(~Number{0}), kMagnitude = static_cast<Number>(kAll >> 1);
    const auto up = [](uint16_t part) { return static_cast<Number>(Number{part} << kLower); };
    const Number least = up(factor_.least()), span = static_cast<Number>(up(factor_.end()) - least);
    const Number shift = up(factor_.shift()), sign = up(factor_.sign()), zeros = factor_.keeps_zero() ? 0 : kAll;
    Number wrong = 0;
    for (int i = 0; i < n; ++i) {
      const Number number = numbers[i], magnitude = number & kMagnitude;
      const Number there = magnitude == 0 ? 0 : kAll;
      const Number outside = static_cast<Number>(magnitude - least) < span ? 0 : kAll;
      wrong = static_cast<Number>(wrong | (outside & (there | zeros)));
      numbers[i] = static_cast<Number>((number + (shift & there)) ^ sign);
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
