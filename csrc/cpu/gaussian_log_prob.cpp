// log p(x|z) of a Gaussian with diagonal covariance, and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

template <class T, class S>
struct Tile {
  using P = Pack<T>;

  Tile(const GaussianArgs& args, const GradientSum<T>& dmean_sum, const GradientSum<T>& dlogvar_sum,
       const GradientSum<T>& dx_sum, const GradientSum<T>& dweight_sum)
      : mean(args.mean),
        logvar(args.logvar),
        x(args.x),
        weight(args.weight),
        upstream(args),
        dmean(dmean_sum),
        dlogvar(dlogvar_sum),
        dx(dx_sum),
        dweight(dweight_sum),
        scale(args.form),
        x_scale(splat<P>(static_cast<T>(args.x_scale))),
        value(args.out != nullptr) {}

  template <bool kValue, bool kGrad, bool kTerm = false>
  VF_INLINE void run(int64_t first, int n, T* terms) {
    const T *m_ = mean.read(first, n), *r_ = logvar.read(first, n), *x_ = x.read(first, n);
    const T* u_ = upstream.read(first, n);
    const T* g_ = weight && kGrad ? weight.times(u_, first, n) : u_;
    T* dm_ = dmean ? dmean.place(first) : nullptr;
    T* dr_ = dlogvar ? dlogvar.place(first) : nullptr;
    T* dx_ = dx ? dx.place(first) : nullptr;
    T* dw_ = kTerm ? dweight.place(first) : nullptr;
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const P difference = part.load(x_ + i) * x_scale - part.load(m_ + i), raw = part.load(r_ + i);
      const GaussianTerm<P> term = gaussian(difference, scale.clamp(raw), scale);
      const P g = part.load(g_ + i);
      if (kValue) part.store(terms + i, term.log_prob);
      if (kGrad) {
        const P slope = g * term.dmean;
        if (dm_) part.store(dm_ + i, slope);
        if (dx_) part.store(dx_ + i, -slope * x_scale);
        if (dr_) part.store(dr_ + i, scale.inside(raw, g * term.draw));
      }
      if (kTerm) part.store(dw_ + i, part.load(u_ + i) * term.log_prob);
    });
    if (weight && kValue) weight.weigh(terms, first, n);
    if (weight) weight.mask({dm_, dr_, dx_}, first, n);
  }

  void operator()(int64_t unit, int64_t piece, int64_t first, int n, T* terms) {
    const bool grad = dmean || dlogvar || dx;
    if (dweight) {
      grad ? run<false, true, true>(first, n, terms) : run<false, false, true>(first, n, terms);
    } else if (value && grad) {
      run<true, true>(first, n, terms);
    } else if (value) {
      run<true, false>(first, n, terms);
    } else {
      run<false, true>(first, n, terms);
    }
    dmean.commit(unit, piece, first, n);
    dlogvar.commit(unit, piece, first, n);
    dx.commit(unit, piece, first, n);
    dweight.commit(unit, piece, first, n);
  }

  Reader<T> mean, logvar, x;
  Weights<T> weight;
  Upstream<T> upstream;
  GradientTiles<T> dmean, dlogvar, dx, dweight;
  S scale;
  P x_scale;
  bool value;
};

template <class T, class S>
void run(const GaussianArgs& args) {
  const Pieces pieces(args.rows);
  const int64_t units = units_of(pieces, args.dmean, args.dlogvar, args.dx, args.dweight);
  GradientSum<T> dmean(args.dmean, pieces, units), dlogvar(args.dlogvar, pieces, units), dx(args.dx, pieces, units),
      dweight(args.dweight, pieces, units);
  sum_rows<T>(args, pieces, units, 1.0, [&] { return Tile<T, S>(args, dmean, dlogvar, dx, dweight); });
  dmean.finish();
  dlogvar.finish();
  dx.finish();
  dweight.finish();
}

}  // namespace

void gaussian_log_prob(const GaussianArgs& args) {
  in_dtype_and_scale(args.is_double, args.form, [&](auto number, auto scale) {
    run<decltype(number), decltype(scale)>(args);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
