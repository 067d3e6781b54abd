// The noise of csrc, word by word, for tests/test_noise_words.py, which compiles this file once for each instruction
// set and calls it by ctypes; and how far it is from what the C library says in double.
#include "../csrc/cpu/pack.h"

#include "../csrc/noise.h"

#include <cmath>

using namespace vae_fast::VF_ISA;

namespace {

constexpr double kPi = 3.14159265358979323846;

// Of one number, so far from the truth that its own error, 1e-16 of it, does not matter.
double exact_radius(int32_t x) {
  const double q = (x + 0.5) * 0x1p-32;
  return std::sqrt(-2 * (q < 0 ? std::log1p(q) : std::log(q)));
}

template <class F>
void each(int64_t n, F f) {
  for (int64_t i = 0; i < n; i += kWidth<float>) f(i);
}

}  // namespace

extern "C" {

// n is a multiple of what a pack holds.
void noise_radius(const int32_t* x, float* r, int64_t n) {
  each(n, [=](int64_t i) { store(r + i, radius<FloatPack>((Int32Pack)load(reinterpret_cast<const float*>(x) + i))); });
}

void noise_cos_sin(const int32_t* y, float* cos, float* sin, int64_t n) {
  each(n, [=](int64_t i) {
    FloatPack c, s;
    cos_sin((Int32Pack)load(reinterpret_cast<const float*>(y) + i), c, s);
    store(cos + i, c);
    store(sin + i, s);
  });
}

// Of one word at a time.
void noise_one_by_one(const int32_t* word, float* r, float* cos, float* sin, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    r[i] = radius<float>(word[i]);
    cos_sin(word[i], cos[i], sin[i]);
  }
}

// The largest |r − exact| / max(1, r), and the smallest and the largest r.
void noise_radius_error(const int32_t* x, const float* r, int64_t n, double* worst) {
  worst[0] = 0, worst[1] = HUGE_VAL, worst[2] = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double exact = exact_radius(x[i]), error = std::fabs(r[i] - exact) / std::fmax(1, exact);
    worst[0] = std::fmax(worst[0], error == error ? error : HUGE_VAL);
    worst[1] = std::fmin(worst[1], r[i]);
    worst[2] = std::fmax(worst[2], r[i]);
  }
}

// With r wrong by `radius` of max(1, r) at most and the product rounded, the largest error of r cos θ and of r sin θ
// over max(1, r), whatever r; and the smallest |cos θ| and |sin θ|.
void noise_angle_error(const int32_t* y, const float* cos, const float* sin, int64_t n, double radius, double* worst) {
  worst[0] = 0, worst[1] = worst[2] = HUGE_VAL;
  for (int64_t i = 0; i < n; ++i) {
    const double angle = kPi * ((y[i] + 0.5) * 0x1p-32);
    const double c = std::fabs(cos[i]), s = std::fabs(sin[i]);
    // Near a quarter of a turn from the other end, where the product with π is not exact enough.
    const double rest = kPi * ((0x1p31 - std::fabs(y[i] + 0.5)) * 0x1p-32);
    const double by_cos = std::fabs(cos[i] - (rest < 1 ? std::sin(rest) : std::cos(angle)));
    const double by_sin = std::fabs(sin[i] - std::sin(angle));
    const double error = std::fmax((radius + 0x1p-24) * c + by_cos, (radius + 0x1p-24) * s + by_sin);
    worst[0] = std::fmax(worst[0], error == error ? error : HUGE_VAL);
    worst[1] = std::fmin(worst[1], c);
    worst[2] = std::fmin(worst[2], s);
  }
}
}
