// log p(x|z) of a Bernoulli given by its logits or probabilities, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

template <class T, bool kProbs>
struct Tile {
  using P = Pack<T>;

  Tile(const BernoulliArgs& args, const GradientSum<T>& dlogits_sum, const GradientSum<T>& dx_sum,
       const GradientSum<T>& dweight_sum)
      : logits(args.logits),
        x(args.x),
        weight(args.weight),
        upstream(args),
        dlogits(dlogits_sum),
        dx(dx_sum),
        dweight(dweight_sum),
        x_scale(splat<P>(static_cast<T>(args.x_scale))),
        value(args.out != nullptr) {}

  template <bool kValue, bool kSlope, bool kTerm = false>
  VF_INLINE void run(int64_t first, int n, T* terms) {
    const T *y_ = logits.read(first, n), *x_ = x.read(first, n), *u_ = upstream.read(first, n);
    const T* g_ = weight && (kSlope || dx) ? weight.times(u_, first, n) : u_;
    T *dy_ = dlogits.place(first), *dx_ = dx ? dx.place(first) : nullptr;
    T* dw_ = kTerm ? dweight.place(first) : nullptr;
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const P y = part.load(y_ + i), t = part.load(x_ + i) * x_scale;
      const BernoulliTerm<P> term = kProbs ? bernoulli_of_probs(y, t) : bernoulli(y, t);
      const P g = part.load(g_ + i);
      if (kValue) part.store(terms + i, term.log_prob);
      if (kSlope) part.store(dy_ + i, g * term.slope);
      if (dx_) part.store(dx_ + i, g * term.dt * x_scale);
      if (kTerm) part.store(dw_ + i, part.load(u_ + i) * term.log_prob);
    });
    if (weight && kValue) weight.weigh(terms, first, n);
    if (weight) weight.mask({kSlope ? dy_ : nullptr, dx_}, first, n);
  }

  void operator()(int64_t unit, int64_t piece, int64_t first, int n, T* terms) {
    if (dweight) {
      dlogits ? run<false, true, true>(first, n, terms) : run<false, false, true>(first, n, terms);
    } else if (value && dlogits) {
      run<true, true>(first, n, terms);
    } else if (value) {
      run<true, false>(first, n, terms);
    } else if (dlogits) {
      run<false, true>(first, n, terms);
    } else {
      run<false, false>(first, n, terms);
    }
    dlogits.commit(unit, piece, first, n);
    dx.commit(unit, piece, first, n);
    dweight.commit(unit, piece, first, n);
  }

  Reader<T> logits, x;
  Weights<T> weight;
  Upstream<T> upstream;
  GradientTiles<T> dlogits, dx, dweight;
  P x_scale;
  bool value;
};

template <class T, bool kProbs>
void run(const BernoulliArgs& args) {
  const Pieces pieces(args.rows);
  const int64_t units = units_of(pieces, args.dlogits, args.dx, args.dweight);
  GradientSum<T> dlogits(args.dlogits, pieces, units), dx(args.dx, pieces, units),
      dweight(args.dweight, pieces, units);
  sum_rows<T>(args, pieces, units, 1.0, [&] { return Tile<T, kProbs>(args, dlogits, dx, dweight); });
  dlogits.finish();
  dx.finish();
  dweight.finish();
}

}  // namespace

void bernoulli_log_prob(const BernoulliArgs& args) {
  in_dtype(args.is_double, [&](auto number) {
    using T = decltype(number);
    args.probs ? run<T, true>(args) : run<T, false>(args);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
