// The formulas of csrc, applied to arrays for test_formulas.py, which compiles this file once for each
// instruction set and calls it by ctypes; and a sweep over float32 that compares them with the C library's in double.
#include "../../csrc/cpu/pack.h"

#include "../../csrc/lean.h"
#include "../../csrc/terms.h"

#include <cmath>
#include <utility>

namespace vae_fast {
namespace VF_ISA {
namespace {

// ---- functions of one number, by the order of CORES in test_formulas.py

constexpr int kCores = 24;

template <int kCore, class T>
VF_INLINE T core(T x) {
  if constexpr (kCore == 0) return exp(x);
  if constexpr (kCore == 1) return log(x);
  if constexpr (kCore == 2) return log1p_unit(x, T{});
  if constexpr (kCore == 3) return half_expm1_minus(x);
  if constexpr (kCore == 4) return half_expm1(x);
  if constexpr (kCore == 5) return softplus(x);
  if constexpr (kCore == 6) return logistic(x);
  if constexpr (kCore == 7) return clamped_log(x);
  if constexpr (kCore == 8) return clamped_log1m(x);
  if constexpr (kCore == 9) return half_exp(x);
  if constexpr (kCore == 10) return exp_to_a_unit(x);
  if constexpr (kCore == 11) return exp_of_negative(x).value;
  // Of several arguments, of which x is one: the others are the formulas' own of x.
  if constexpr (kCore == 12) return half_expm1_minus(x, x * Element<T>(0.5), half_exp(x));
  if constexpr (kCore == 13) return half_expm1_minus(x, exp(x * Element<T>(0.5)));
  if constexpr (kCore == 14) return half_expm1(x, exp(x * Element<T>(0.5)));
  // The lean ones, which are of float32.
  if constexpr (kCore >= 15 && sizeof(Element<T>) == 8) return x;
  if constexpr (sizeof(Element<T>) == 4) {
    if constexpr (kCore == 15) return lean_exp<1>(x);
    if constexpr (kCore == 16) return lean_exp<2>(x);
    if constexpr (kCore == 17) return lean_exp<2, -1>(x);
    if constexpr (kCore == 18) return lean_exp_ordinary(x);
    if constexpr (kCore == 19) return lean_exp_of_negative(x);
    if constexpr (kCore == 20) return lean_log1p_unit(x);
    if constexpr (kCore == 21) return lean_share(x);
    if constexpr (kCore == 22) return lean_growth(x).growth;
    if constexpr (kCore == 23) return lean_growth(x).spread;
  }
}

// 2⁻⁵³ of the value or less away, by the C library: exact beside a float32.
double truth(int core, double x) {
  switch (core) {
    case 0: return std::exp(x);
    case 1: return std::log(x);
    case 2: return std::log1p(x);
    case 3: {
      if (!(std::fabs(x) <= 1)) return (std::expm1(x) - x) / 2;
      double sum = 0;
      for (int k = 20; k >= 2; --k) sum = (sum * x + 1) / k;  // Σ xᵏ⁻²/k!, twice
      return sum * x * x / 2;
    }
    case 4: return std::expm1(x) / 2;
    case 5: return x > 0 ? x + std::log1p(std::exp(-x)) : std::log1p(std::exp(x));
    case 6: return x > 0 ? 1 / (1 + std::exp(-x)) : std::exp(x) / (1 + std::exp(x));
    case 7: return std::isnan(x) ? x : std::fmax(std::log(x), -100);
    case 8: return std::isnan(x) ? x : std::fmax(std::log1p(-x), -100);
    case 9: return std::exp(x) / 2;
    case 10:
    case 11:
    case 15:
    case 18:
    case 19: return std::exp(x);
    case 16: return std::exp(x / 2);
    case 17: return std::exp(x / 2) / 2;
    case 20: return std::log1p(x);
    case 21: return x / (1 + x);
    case 22: return std::expm1(x) / 2;
    case 23: return truth(3, x);
    // Of the other arguments as they are.
    case 12:
      if (std::fabs(x) <= 1) return truth(3, x);
      return double{half_exp(static_cast<float>(x))} - (x / 2 + 0.5);
    default: {
      if (std::fabs(x) <= 1) return truth(core == 13 ? 3 : 4, x);
      const double root = exp(static_cast<float>(x) * 0.5f);
      return core == 13 ? root * root / 2 - (x / 2 + 0.5) : root * root / 2 - 0.5;
    }
  }
}

template <class T, class E>
VF_INLINE T read(const E* from) {
  T a;
  std::memcpy(&a, from, sizeof a);
  return a;
}

// Calls f(i) for every T of an array of n numbers, a multiple of what a T holds.
template <class T, class F>
VF_INLINE void each(int64_t n, F f) {
  for (int64_t i = 0; i < n; i += sizeof(T) / sizeof(Element<T>)) f(i);
}

template <int kCore, class T>
void apply(const Element<T>* x, Element<T>* out, int64_t n) {
  each<T>(n, [&](int64_t i) __attribute__((always_inline)) {
    const T result = core<kCore>(read<T>(x + i));
    std::memcpy(out + i, &result, sizeof result);
  });
}

template <class T>
using Apply = void (*)(const Element<T>*, Element<T>*, int64_t);
template <class T, int... kCore>
Apply<T> apply_of(int core, std::integer_sequence<int, kCore...>) {
  static constexpr Apply<T> table[] = {apply<kCore, T>...};
  return table[core];
}
template <class T>
Apply<T> apply_of(int core) {
  return apply_of<T>(core, std::make_integer_sequence<int, kCores>());
}

// ---- functions of several numbers: `in` and `out` are arrays of arrays

struct Options {
  int param;
  double eps, low, high;
  bool pass_gradient = false;
};

template <class T, int n>
VF_INLINE void write(Element<T>* const* out, int64_t i, const T (&results)[n]) {
  for (int k = 0; k < n; ++k) std::memcpy(out[k] + i, &results[k], sizeof(T));
}

template <class T>
void apply_terms(int which, const Options& options, const Element<T>* const* in, Element<T>* const* out, int64_t n) {
  using E = Element<T>;
  const SigmaForm<E> form(options);
  each<T>(n, [&](int64_t i) {
    const auto x = [&](int k) { return read<T>(in[k] + i); };
    if (which == 0) {
      const BernoulliTerm<T> term = bernoulli(x(0), x(1));
      write(out, i, {term.log_prob, term.slope});
    } else if (which == 1) {
      const GaussianTerm<T> term = gaussian(x(0), form.clamp(x(1)), form);
      write(out, i, {term.log_prob, term.dmean, form.inside(x(1), term.draw)});
    } else if (which == 2) {
      const KLTerm<T> term = gaussian_kl(x(0), form.clamp(x(1)), form);
      write(out, i, {term.kl, term.dmu, form.inside(x(1), term.draw)});
    } else if (which == 3) {
      const KLTerm<T> term = gaussian_kl(x(0), form.clamp(x(1)), form.clamp(x(2)), form);
      write(out, i, {term.kl, term.dmu, form.inside(x(1), term.draw), form.inside(x(2), term.dprior_raw)});
    } else {
      const T r = form.clamp(x(0));
      write(out, i, {r, form.inside(x(0), splat<T>(1)), form.sigma(r), form.dsigma(r)});
    }
  });
}

// ---- every float32

// |result − truth| over the spacing of float32 at the truth. Infinity counts as 2¹²⁸ on both sides, so that rounding up
// to it is no error; NaN where the truth is none is infinitely wrong.
double ulp(float result, double truth) {
  if (std::isnan(truth) || std::isnan(result)) return std::isnan(truth) && std::isnan(result) ? 0 : INFINITY;
  const double top = std::ldexp(1.0, 128);
  const double r = std::fmin(std::fmax(result, -top), top), t = std::fmin(std::fmax(truth, -top), top);
  const int exponent = t == 0 || std::fabs(t) < 0x1p-126 ? -126 : std::ilogb(t) > 127 ? 127 : std::ilogb(t);
  return std::ldexp(std::fabs(r - t), 23 - exponent);
}

}  // namespace

extern "C" {

void formulas_apply(int core, int is_double, int is_pack, const void* x, void* out, int64_t n) {
  const auto run = [&](auto number) {
    using T = decltype(number);
    apply_of<T>(core)(static_cast<const Element<T>*>(x), static_cast<Element<T>*>(out), n);
  };
  is_double ? (is_pack ? run(DoublePack{}) : run(0.0)) : (is_pack ? run(FloatPack{}) : run(0.0f));
}

void formulas_terms(int which, int is_double, int is_pack, int kind, double eps, double low, double high,
                    const void* const* in, void* const* out, int64_t n) {
  const auto run = [&](auto number) {
    using T = decltype(number);
    apply_terms<T>(which, Options{kind, eps, low, high}, reinterpret_cast<const Element<T>* const*>(in),
                   reinterpret_cast<Element<T>* const*>(out), n);
  };
  is_double ? (is_pack ? run(DoublePack{}) : run(0.0)) : (is_pack ? run(FloatPack{}) : run(0.0f));
}

// The worst error of a core over the float32 patterns first, first + step, … below last that lie in [low, high] or are
// NaN, and the argument that makes it. For half_expm1_minus, a negative result is infinitely wrong.
double formulas_sweep(int core, uint64_t first, uint64_t last, uint64_t step, float low, float high, float* where) {
  constexpr int kBlock = 1024;
  alignas(64) float x[kBlock], results[kBlock];
  double worst = 0;
  while (first < last) {
    int n = 0;
    for (; first < last && n < kBlock; first += step) {
      const float a = from_bits<float>(static_cast<int32_t>(static_cast<uint32_t>(first)));
      if (!(a < low || a > high)) x[n++] = a;
    }
    for (int i = n; i < kBlock; ++i) x[i] = 0.5f;
    apply_of<FloatPack>(core)(x, results, kBlock);
    for (int i = 0; i < n; ++i) {
      const bool never_negative = core == 3 || core == 12 || core == 13 || core == 23;
      const double error = never_negative && results[i] < 0 ? INFINITY : ulp(results[i], truth(core, x[i]));
      if (error > worst) {
        worst = error;
        *where = x[i];
      }
    }
  }
  return worst;
}

// The worst error of exp_of_negative's two parts together, in units of e^a, over every step-th float32 from −69 to 0:
// both are normal.
double formulas_exp_and_error(uint64_t step) {
  double worst = 0;
  for (uint64_t b = 0x80000000; b <= 0xC28A0000; b += step) {
    const float a = from_bits<float>(static_cast<int32_t>(static_cast<uint32_t>(b)));
    const Corrected<float> e = exp_of_negative(a);
    const double exact = std::exp(double{a}), error = std::fabs((double{e.value} + e.error) - exact);
    worst = std::fmax(worst, std::ldexp(error, 23 - std::ilogb(exact)));
  }
  return worst;
}

}  // extern "C"

}  // namespace VF_ISA
}  // namespace vae_fast
