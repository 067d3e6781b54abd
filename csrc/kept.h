// Gradients that a forward pass made for an upstream gradient of 1, rounded to bfloat16 or float32, and kept: which of
// them are, times the upstream gradient that came, what a backward pass would make, to the bit.
//
// Of 1 all are; of ±2ⁿ those that it only gives another exponent: that are numbers of full precision before and
// after. Of any other factor none is, since they would be rounded twice.
#pragma once

#include "arithmetic.h"

namespace vae_fast {
namespace VF_ISA {

class KeptFactor {
 public:
  // `scale` and `divisor` are the reduction's: with them a backward pass multiplies the upstream gradient.
  VF_INLINE KeptFactor(float upstream, float scale, float divisor) : value_(upstream) {
    const uint32_t factor = static_cast<uint32_t>(bits(upstream));
    const int exponent = static_cast<int>(factor >> 23 & 0xFF) - 127;
    // And what both passes begin with is of full precision too.
    is_power_ = (factor & 0x007FFFFF) == 0 && exponent > -127 && exponent < 128 && ordinary(scale) &&
                ordinary(scale / divisor) && ordinary(upstream * scale) && ordinary(upstream * scale / divisor);
    sign_ = static_cast<uint16_t>(factor >> 31 << 15);
    shift_ = static_cast<uint16_t>(static_cast<uint32_t>(exponent) << 7);
    const int least = exponent < 0 ? kLeast - exponent : kLeast, most = exponent > 0 ? kMost - exponent : kMost;
    least_ = static_cast<uint16_t>(least << 7);
    end_ = static_cast<uint16_t>((most + 1) << 7);
    keeps_zero_ = exponent <= 0;
  }

  VF_INLINE float value() const { return value_; }
  VF_INLINE bool is_one() const { return value_ == 1.0f; }
  VF_INLINE bool is_power() const { return is_power_; }
  // Which magnitudes of a bfloat16, as integers, it only gives another exponent: [least, end).
  VF_INLINE uint16_t least() const { return least_; }
  VF_INLINE uint16_t end() const { return end_; }
  // What it adds to one as an integer, and the sign that it changes.
  VF_INLINE uint16_t shift() const { return shift_; }
  VF_INLINE uint16_t sign() const { return sign_; }
  // Whether 0 stays 0, of whichever sign. By a factor above 1 what was too small for its type may be so no more.
  VF_INLINE bool keeps_zero() const { return keeps_zero_; }

  // Multiplies a bfloat16, whether or not it may: whether it may.
  VF_INLINE bool multiply(uint16_t& number) const {
    const auto magnitude = static_cast<uint16_t>(number & 0x7FFFu);
    const bool zero = magnitude == 0, may = may_be(magnitude) || (zero && keeps_zero_);
    number = static_cast<uint16_t>((zero ? number : number + shift_) ^ sign_);
    return may;
  }
  // A float32, whose upper half is a bfloat16.
  VF_INLINE bool multiply(uint32_t& number) const {
    const uint32_t magnitude = number & 0x7FFFFFFFu;
    const bool zero = magnitude == 0, may = may_be(static_cast<uint16_t>(magnitude >> 16)) || (zero && keeps_zero_);
    number = (zero ? number : number + (uint32_t{shift_} << 16)) ^ uint32_t { sign_ } << 16;
    return may;
  }

 private:
  // Exponents, as bits have them: from the least but one, for what is rounded to the least may have been less.
  static constexpr int kLeast = 2, kMost = 254;

  static VF_INLINE bool ordinary(float number) {
    const int exponent = static_cast<int>(static_cast<uint32_t>(bits(number)) >> 23 & 0xFF);
    return exponent >= kLeast && exponent <= kMost;
  }
  VF_INLINE bool may_be(uint16_t magnitude) const {
    return static_cast<uint16_t>(magnitude - least_) < static_cast<uint16_t>(end_ - least_);
  }

  float value_;
  bool is_power_, keeps_zero_;
  uint16_t sign_, shift_, least_, end_;
};

}  // namespace VF_ISA
}  // namespace vae_fast
