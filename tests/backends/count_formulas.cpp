// The formulas of csrc/counts.h, applied to arrays for test_count_formulas.py, which compiles this file once for each
// instruction set and calls it by ctypes; and a sweep over float32 of those of one argument.
#include "../../csrc/cpu/pack.h"

#include "../../csrc/counts.h"

#include <cmath>

namespace vae_fast {
namespace VF_ISA {
namespace {

constexpr int kMost = 4;  // arguments, and results

// A formula by the order of FORMULAS in test_count_formulas.py; what it does not take or give is left as it is.
template <class T>
VF_INLINE void formula(int which, const T (&x)[kMost], T (&out)[kMost]) {
  const auto give = [&out](auto... results) {
    int k = 0;
    ((out[k++] = results), ...);
  };
  if (which == 0) {
    const Growth<T> g = growth(x[0]);
    give(g.log, g.excess, g.share, g.rest);
  } else if (which == 1) {
    give(artanh_cubic(x[0]));
  } else if (which == 2) {
    const Stirling<T> s = stirling(x[0]);
    give(s.rest, s.slope);
  } else if (which == 3) {
    give(log_factorial(x[0]));
  } else if (which == 4) {
    const Rising<T> r = rising(x[0], x[1], Element<T>(1) / x[1]);
    give(r.value, r.slope);
  } else if (which == 5) {
    const Gate<T> gate = gate_of(x[0]);
    give(gate.dead, gate.alive, gate.loss);
  } else {
    const InflatedTerm<T> term = zero_inflated(x[0], x[1], x[2], x[3]);
    give(term.log_prob, term.share, term.dlogits);
  }
}

template <class T>
void apply(int which, int inputs, int outputs, const Element<T>* const* in, Element<T>* const* out, int64_t n) {
  for (int64_t i = 0; i < n; i += sizeof(T) / sizeof(Element<T>)) {
    T x[kMost] = {}, results[kMost] = {};
    for (int k = 0; k < kMost; ++k) {
      if (k < inputs) std::memcpy(&x[k], in[k] + i, sizeof(T));
    }
    formula(which, x, results);
    for (int k = 0; k < kMost; ++k) {
      if (k < outputs) std::memcpy(out[k] + i, &results[k], sizeof(T));
    }
  }
}

// |result − truth| over the spacing of float32 at the truth; of infinities 0 where both are one.
double ulp(float result, double truth) {
  if (result == truth) return 0;
  const int exponent = std::fabs(truth) < 0x1p-126 ? -126 : std::ilogb(truth);
  const double error = std::ldexp(std::fabs(result - truth), 23 - exponent);
  return std::isnan(error) ? INFINITY : error;
}

}  // namespace

extern "C" {

void counts_apply(int which, int is_double, int is_pack, int inputs, int outputs, const void* const* in,
                  void* const* out, int64_t n) {
  const auto run = [&](auto number) {
    using T = decltype(number);
    apply<T>(which, inputs, outputs, reinterpret_cast<const Element<T>* const*>(in),
             reinterpret_cast<Element<T>* const*>(out), n);
  };
  is_double ? (is_pack ? run(DoublePack{}) : run(0.0)) : (is_pack ? run(FloatPack{}) : run(0.0f));
}

// The worst errors of a formula of one number over every step-th float32 from low to high, the numbers that `whole`
// wants (counts, fractions, or all), beside the same formula of doubles, whose errors are nothing beside a float32's.
void counts_sweep(int which, int outputs, float low, float high, uint64_t step, int whole, double* worst,
                  float* where) {
  constexpr int kBlock = 1024;
  alignas(64) float x[kBlock], results[kMost][kBlock];
  alignas(64) double wide[kBlock], truths[kMost][kBlock];
  const float* in[] = {x};
  const double* wide_in[] = {wide};
  float* out[kMost];
  double* wide_out[kMost];
  for (int k = 0; k < kMost; ++k) out[k] = results[k], wide_out[k] = truths[k], worst[k] = 0;
  uint64_t first = static_cast<uint32_t>(bits(low));
  const uint64_t last = static_cast<uint32_t>(bits(high));
  while (first <= last) {
    int n = 0;
    for (; first <= last && n < kBlock; first += step) {
      const float a = from_bits<float>(static_cast<int32_t>(first));
      if (whole < 0 || (a == std::floor(a)) == whole) x[n++] = a;
    }
    for (int i = n; i < kBlock; ++i) x[i] = low;
    for (int i = 0; i < kBlock; ++i) wide[i] = x[i];
    apply<FloatPack>(which, 1, outputs, in, out, kBlock);
    apply<DoublePack>(which, 1, outputs, wide_in, wide_out, kBlock);
    for (int k = 0; k < outputs; ++k) {
      for (int i = 0; i < n; ++i) {
        const double error = ulp(results[k][i], truths[k][i]);
        if (error > worst[k]) worst[k] = error, where[k] = x[i];
      }
    }
  }
}

}  // extern "C"

}  // namespace VF_ISA
}  // namespace vae_fast
