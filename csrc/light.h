// The densities of half types once more, for GPUs: where every operand of full size is one, results keep 11 bits at
// most, or are terms within 1e-5 of a sum. An exponential is one estimate of the hardware's, and a quotient another.
//
// Terms, and gradients before they are rounded, are within 1e-5 of what they are made of: of themselves where that is
// one part, as a Bernoulli's are, tails included.
#pragma once

#include "densities.h"

// What a host's estimates are off by, in units: a GPU's are by no more than 2. Tests set it.
#ifndef VF_TILT
#define VF_TILT 0
#endif

namespace vae_fast {
namespace VF_ISA {

// 2^x and 1/x as the hardware estimates them, within 2 units; where a result or x is no normal number it is 0.
#ifdef __CUDA_ARCH__
VF_INLINE float estimated_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
VF_INLINE float estimated_inverse(float x) {
  float y;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
#else
VF_INLINE float estimate(double y) {
  const float near = static_cast<float>(y * (1 + VF_TILT * 0x1p-23));
  return near < 0x1p-126f ? 0.0f : near;
}
VF_INLINE float estimated_exp2(float x) { return x != x ? x : estimate(__builtin_exp2(static_cast<double>(x))); }
VF_INLINE float estimated_inverse(float x) { return estimate(1 / static_cast<double>(x)); }
#endif

constexpr float kLog2E = 1.44269504088896340736f;

// e^(x/kOver), and half of it, for every x: the square of an estimate that is a normal number wherever it is not 0.
template <int kOver>
VF_INLINE float light_exp(float x) {
  const float root = estimated_exp2(x * (kLog2E / (2 * kOver)));
  return root * root;
}
template <int kOver>
VF_INLINE float light_half_exp(float x) {
  const float root = estimated_exp2(fma(x, kLog2E / (2 * kOver), -0.5f));
  return root * root;
}

// log(1 + e)/e for e in [0, 1].
VF_INLINE float light_log1p_over(float e) {
  // To 1.3e-6.
  return polynomial(e, 0.9999987483024597f, -0.49987149238586426f, 0.3311171233654022f, -0.2351369559764862f,
                    0.1494150459766388f, -0.06657236814498901f, 0.014197985641658306f);
}

// ½(e^x − 1) and ½(e^x − 1 − x), of half = ½e^x. Near 0 the second is a polynomial, of which comes the first.
struct LightGrowth {
  float growth, spread;
};
VF_INLINE LightGrowth light_growth(float x, float half) {
  // ½(e^x − 1 − x)/x² on |x| ≤ 0.6875, to 1.1e-6.
  const float p = polynomial(x, 0.2500000298023224f, 0.08332633972167969f, 0.02083185873925686f, 0.004225695040076971f,
                             0.0007031276472844183f);
  const float near = x * x * p, far = half - 0.5f;
  const bool small = abs(x) < 0.6875f;
  return {select(small, fma(0.5f, x, near), far), select(small, near, fma(-0.5f, x, far))};
}

// A density that has a light one besides, and whether a call is for that.
template <class Exact_, class Light_>
struct LightOr {
  using Exact = Exact_;
  using Light = Light_;
  static constexpr int kInputs = Exact::kInputs;
  Exact exact;
  Light light;
  bool is_light;

  VF_INLINE static constexpr bool always(int k) { return Exact::always(k); }
  VF_INLINE void operator()(const float (&in)[kInputs], float g, float& term, float (&d)[kInputs]) const {
    is_light ? light(in, g, term, d) : exact(in, g, term, d);
  }
};
template <class Exact, class Light>
LightOr<Exact, Light> light_or(const Exact& exact, const Light& light, bool is_light) {
  return {exact, light, is_light};
}

// logits, x.
struct LightBernoulli {
  static constexpr int kInputs = 2;
  float x_scale;

  VF_INLINE void operator()(const float (&in)[kInputs], float g, float& term, float (&d)[kInputs]) const {
    const float y = in[0], t = in[1] * x_scale, size = minus_abs(y), e = light_exp<1>(size);
    const float s = e * estimated_inverse(1.0f + e);
    // As `bernoulli` has them.
    const bool positive = y > 0.0f;
    const float wrong = select(positive, 1.0f - t, t), cost = select(wrong == 0.0f, 0.0f, size * wrong);
    term = fma(-e, light_log1p_over(e), cost);
    d[0] = g * select(positive, s - wrong, wrong - s);
    d[1] = g * y * x_scale;
  }
};

// mean, log σ², x.
struct LightGaussian {
  static constexpr int kInputs = 3;
  float x_scale;
  GaussianDensity<float, SigmaForm<float, true>> exact;

  VF_INLINE void operator()(const float (&in)[kInputs], float g, float& term, float (&d)[kInputs]) const {
    is_quick(in) ? quick(in, g, term, d) : exact(in, g, term, d);
  }
  // Where 1/σ² is an ordinary number.
  VF_INLINE bool is_quick(const float (&in)[kInputs]) const { return is_ordinary(in[1] * 0.5f); }
  VF_INLINE void quick(const float (&in)[kInputs], float g, float& term, float (&d)[kInputs]) const {
    const float difference = in[2] * x_scale - in[0], slope = difference * estimated_exp2(in[1] * -kLog2E);
    const float half_square = difference * 0.5f * slope;
    term = -(half_square + fma(0.5f, in[1], 0.91893853320467274178f));
    d[0] = g * slope;
    d[1] = g * (half_square - 0.5f);
    d[2] = -d[0] * x_scale;
  }
};

// mu, log σ² and prior_mu, of a prior whose σ is 1. Without one it is a sample's, and e^x is made of what is at hand:
// of σ for the term, of dσ for the gradients.
template <class Prior>
struct LightKL {
  static constexpr bool kSample = std::is_same_v<Prior, NoPrior>;
  static constexpr int kInputs = kSample ? 2 : 4;
  float floor;
  bool has_floor;

  VF_INLINE void operator()(const float (&in)[kInputs], float g, float& term, float (&d)[kInputs]) const {
    const float x = in[1], dm = kSample ? in[0] : in[0] - in[kInputs - 2];
    const float half = estimated_exp2(fma(x, kLog2E, -1.0f)), sigma = light_exp<2>(x), dsigma = light_half_exp<2>(x);
    const float spread = light_growth(x, kSample ? 0.5f * sigma * sigma : half).spread;
    const float growth = light_growth(x, kSample ? (dsigma + dsigma) * dsigma : half).growth;
    term = fma(dm * 0.5f, dm, spread);
    if (has_floor) {
      const bool below = term <= floor;
      term = select(below, floor, term);
      g = select(below, 0.0f, g);
    }
    d[0] = g * dm;
    d[1] = g * growth;
    if constexpr (!kSample) {
      d[2] = -d[0];
      d[3] = 0.0f;
    }
  }
};

// log σ² of a sampler.
class LightForm : public SigmaForm<float, true> {
 public:
  using SigmaForm<float, true>::SigmaForm;

  VF_INLINE float sigma(float r) const { return light_exp<2>(r); }
  VF_INLINE float dsigma(float r) const { return light_half_exp<2>(r); }
};

}  // namespace VF_ISA
}  // namespace vae_fast
