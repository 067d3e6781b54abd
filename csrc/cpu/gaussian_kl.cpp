// KL(N(μ, σ²) ‖ N(μp, σp²)) and its gradients, in one pass.
#include "density.h"
#include "table.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

template <class T, class S>
struct Tile {
  using P = Pack<T>;

  Tile(const KLArgs& args, const GradientSum<T>& dmu_sum, const GradientSum<T>& dlogvar_sum,
       const GradientSum<T>& dprior_mu_sum, const GradientSum<T>& dprior_logvar_sum,
       const GradientSum<T>& dweight_sum)
      : mu(args.mu),
        logvar(args.logvar),
        prior_mu(args.prior_mu),
        prior_logvar(args.prior_logvar),
        weight(args.weight),
        upstream(args),
        dmu(dmu_sum),
        dlogvar(dlogvar_sum),
        dprior_mu(dprior_mu_sum),
        dprior_logvar(dprior_logvar_sum),
        dweight(dweight_sum),
        scale(args.form),
        floor(splat<P>(static_cast<T>(args.free_bits))),
        has_floor(args.has_free_bits),
        value(args.out != nullptr) {}

  template <bool kPrior, bool kGrad, bool kTerm = false>
  VF_INLINE void run(int64_t first, int n, T* terms) {
    const T *m_ = mu.read(first, n), *r_ = logvar.read(first, n), *u_ = upstream.read(first, n);
    const T* g_ = weight && kGrad ? weight.times(u_, first, n) : u_;
    const T* pm_ = prior_mu ? prior_mu.read(first, n) : nullptr;
    const T* pr_ = kPrior ? prior_logvar.read(first, n) : nullptr;
    T* dm_ = dmu ? dmu.place(first) : nullptr;
    T* dr_ = dlogvar ? dlogvar.place(first) : nullptr;
    T* dpm_ = dprior_mu ? dprior_mu.place(first) : nullptr;
    T* dpr_ = dprior_logvar ? dprior_logvar.place(first) : nullptr;
    T* dw_ = kTerm ? dweight.place(first) : nullptr;
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const P raw = part.load(r_ + i), r = scale.clamp(raw), prior_raw = kPrior ? part.load(pr_ + i) : P{};
      P dm = part.load(m_ + i), g = part.load(g_ + i);
      if (pm_) dm = dm - part.load(pm_ + i);
      const KLTerm<P> term = kPrior ? gaussian_kl(dm, r, scale.clamp(prior_raw), scale) : gaussian_kl(dm, r, scale);
      const auto below = term.kl <= floor;
      if (value) part.store(terms + i, has_floor ? select(below, floor, term.kl) : term.kl);
      if (kTerm) part.store(dw_ + i, part.load(u_ + i) * (has_floor ? select(below, floor, term.kl) : term.kl));
      if (kGrad) {
        if (has_floor) g = select(below, splat<P>(0), g);
        const P slope = g * term.dmu;
        if (dm_) part.store(dm_ + i, slope);
        if (dpm_) part.store(dpm_ + i, -slope);
        if (dr_) part.store(dr_ + i, scale.inside(raw, g * term.draw));
        if (dpr_) part.store(dpr_ + i, scale.inside(prior_raw, g * term.dprior_raw));
      }
    });
    if (weight && value) weight.weigh(terms, first, n);
    if (weight) weight.mask({dm_, dr_, dpm_, dpr_}, first, n);
  }

  void operator()(int64_t unit, int64_t piece, int64_t first, int n, T* terms) {
    const bool grad = dmu || dlogvar || dprior_mu || dprior_logvar;
    if (dweight) {
      prior_logvar ? run<true, true, true>(first, n, terms) : run<false, true, true>(first, n, terms);
    } else if (prior_logvar) {
      grad ? run<true, true>(first, n, terms) : run<true, false>(first, n, terms);
    } else {
      grad ? run<false, true>(first, n, terms) : run<false, false>(first, n, terms);
    }
    dmu.commit(unit, piece, first, n);
    dlogvar.commit(unit, piece, first, n);
    dprior_mu.commit(unit, piece, first, n);
    dprior_logvar.commit(unit, piece, first, n);
    dweight.commit(unit, piece, first, n);
  }

  Reader<T> mu, logvar, prior_mu, prior_logvar;
  Weights<T> weight;
  Upstream<T> upstream;
  GradientTiles<T> dmu, dlogvar, dprior_mu, dprior_logvar, dweight;
  S scale;
  P floor;
  bool has_floor, value;
};

template <class T, class S>
void run(const KLArgs& args) {
  const Pieces pieces(args.rows);
  const int64_t units = units_of(pieces, args.dmu, args.dlogvar, args.dprior_mu, args.dprior_logvar, args.dweight);
  GradientSum<T> dmu(args.dmu, pieces, units), dlogvar(args.dlogvar, pieces, units),
      dprior_mu(args.dprior_mu, pieces, units), dprior_logvar(args.dprior_logvar, pieces, units),
      dweight(args.dweight, pieces, units);
  sum_rows<T>(args, pieces, units, 1.5,
              [&] { return Tile<T, S>(args, dmu, dlogvar, dprior_mu, dprior_logvar, dweight); });
  dmu.finish();
  dlogvar.finish();
  dprior_mu.finish();
  dprior_logvar.finish();
  dweight.finish();
}

}  // namespace

void gaussian_kl(const KLArgs& args) {
  in_dtype_and_scale(args.is_double, args.form, [&](auto number, auto scale) {
    run<decltype(number), decltype(scale)>(args);
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
