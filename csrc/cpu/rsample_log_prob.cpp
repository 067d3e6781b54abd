// z = μ + σε, log q(z) and log p(z) in one pass, and their gradients in one.
#include "rsample.h"

#include <vector>

namespace vae_fast {
namespace VF_ISA {
namespace {

template <class T, class S, class Prior>
void log_prob_fwd(const SampleLogProbArgs& args, const S& form, const Prior& prior) {
  using P = Pack<T>;
  constexpr T half_log_2pi = static_cast<T>(0.91893853320467274178);
  const Pieces pieces(args.rows);
  const SampleGroups groups(pieces, args.n_samples);
  // log q and log p of each sample.
  std::vector<RowSums<T>> sums;
  sums.reserve(static_cast<size_t>(2 * args.n_samples));
  for (int64_t s = 0; s < args.n_samples; ++s)
    for (void* out : {args.log_q, args.log_p})
      sums.emplace_back(pieces, 1.0).start(static_cast<T*>(out) + s * args.rows.count);
  const Rows work{args.rows.count, args.rows.size * (args.n_samples > 0 ? args.n_samples : 1)};
  parallel(args.parallel_for, work, pieces.count() * groups.count(), 3.0, [&](int64_t begin, int64_t end) {
    Moments<T, Prior> in(args);
    Writer<T> z(args.z);
    Noise<T> noise(args);
    alignas(64) T sigma[kTile<T>], constant[kTile<T>], log_q[kTile<T>], log_p[kTile<T>];
    std::vector<double> running;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t piece = unit / groups.count(), group = unit % groups.count();
      const int64_t from = groups.start(group), to = groups.start(group + 1);
      running.assign(static_cast<size_t>(2 * (to - from)), 0.0);
      pieces.for_tiles<T>(piece, [&](int64_t first, int n) {
        in.read(first, n);
        const T *m_ = in[0], *r_ = in[1];
        for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
          const P r = form.clamp(part.load(r_ + i));
          store(sigma + i, form.sigma(r));
          store(constant + i, log_scale(r, form).log_sigma + half_log_2pi);
        });
        noise.for_samples(first, n, from, to, [&](int64_t s, const T* eps) {
          T* z_ = z.place(first, s * args.z_sample_stride);
          for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
            const P e = part.load(eps + i), value = part.load(m_ + i) + part.load(sigma + i) * e;
            part.store(z_ + i, value);
            store(log_q + i, -fma(e * T(0.5), e, load(constant + i)));
            P values[Prior::kInputs];
            in.load(i, part, values);
            store(log_p + i, prior(value, values).log_prob);
          });
          z.commit(first, n, s * args.z_sample_stride);
          const size_t place = static_cast<size_t>(2 * s), own = static_cast<size_t>(2 * (s - from));
          sums[place].add(piece, first, n, log_q, running[own]);
          sums[place + 1].add(piece, first, n, log_p, running[own + 1]);
        });
      });
    }
  });
  for (const RowSums<T>& sum : sums) sum.finish();
}

// What is summed over samples, of each element: g, which reaches z; g·ε; log q's own gradient; the prior's two.
enum Sum { kG, kGEps, kQ, kPriorMean, kPriorRaw, kSums };

template <class T, class Prior, class S>
class LogProbBackward {
  using P = Pack<T>;
  static constexpr int N = Prior::kInputs, kOwnSums = N == 2 ? kPriorMean : kSums;

 public:
  LogProbBackward(const SampleLogProbArgs& args, const S& form, const Prior& prior)
      : LogProbBackward(args, form, prior, std::make_index_sequence<N>()) {}

  void run() {
    const Rows work{args_.rows.count, args_.rows.size * (args_.n_samples > 0 ? args_.n_samples : 1)};
    if (groups_.count() > 1) {
      group_sums_.reset(new double[kOwnSums * groups_.count() * args_.rows.count * args_.rows.size]);
      parallel(args_.parallel_for, work, pieces_.count() * groups_.count(), 3.0,
               [&](int64_t begin, int64_t end) { sum_groups(begin, end); });
    }
    parallel(args_.parallel_for, group_sums_ ? args_.rows : work, units_, 3.0,
             [&](int64_t begin, int64_t end) { differentiate(begin, end); });
    for (const auto& sum : sums_) sum.finish();
  }

 private:
  template <size_t... I>
  LogProbBackward(const SampleLogProbArgs& args, const S& form, const Prior& prior, std::index_sequence<I...>)
      : args_(args),
        form_(form),
        prior_(prior),
        pieces_(args.rows),
        groups_(pieces_, args.n_samples),
        units_(units_of(pieces_, args.gradients[I]...)),
        sums_{GradientSum<T>(args.gradients[I], pieces_, units_)...} {}

  double* group_sum(int64_t group, int what) const {
    return group_sums_.get() + (kOwnSums * group + what) * args_.rows.count * args_.rows.size;
  }

  // What a thread reads, and a tile's sums.
  struct Thread {
    Moments<T, Prior> in;
    Reader<T> dz, dlog_q, dlog_p;
    Noise<T> noise;
    alignas(64) T sigma[kTile<T>], inverse[kTile<T>], part[kOwnSums][kTile<T>];
    alignas(64) double sum[kOwnSums][kTile<T>];

    explicit Thread(const SampleLogProbArgs& args)
        : in(args), dz(args.dz), dlog_q(args.dlog_q), dlog_p(args.dlog_p), noise(args) {}
  };

  // One sample's part of the sums.
  VF_INLINE void add_sample(Thread& t, int64_t first, int n, int64_t s, const T* eps) const {
    const Prior prior = prior_;
    const T* dz_ = t.dz ? t.dz.read(first, n, s * args_.dz_sample_stride) : nullptr;
    const T* dq_ = t.dlog_q ? t.dlog_q.read(first, n, s * args_.dlog_q_sample_stride) : nullptr;
    const T* dp_ = t.dlog_p ? t.dlog_p.read(first, n, s * args_.dlog_p_sample_stride) : nullptr;
    const bool path = args_.path;
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const P e = eps ? part.load(eps + i) : P{};
      P g = dz_ ? part.load(dz_ + i) : P{};
      if (dp_) {
        P values[N];
        t.in.load(i, part, values);
        const GaussianTerm<P> term = prior(values[0] + load(t.sigma + i) * e, values);
        const P dp = part.load(dp_ + i), slope = dp * term.dmean;
        g = dz_ ? g - slope : -slope;
        if constexpr (N == 4) {
          store(t.part[kPriorMean] + i, slope);
          store(t.part[kPriorRaw] + i, prior.inside(values, dp * term.draw));
        }
      }
      if (dq_) {
        const P dq = part.load(dq_ + i);
        if (path)
          g = g - dq * (e * load(t.inverse + i));
        else
          store(t.part[kQ] + i, dq);
      }
      store(t.part[kG] + i, g);
      store(t.part[kGEps] + i, g * e);
    });
  }

  bool has(int what) const {
    if (what == kG || what == kGEps) return args_.dz || args_.dlog_p || (args_.path && args_.dlog_q);
    return what == kQ ? args_.dlog_q && !args_.path : static_cast<bool>(args_.dlog_p);
  }

  // The sums over samples [from, to) of a tile; those of one sample stay in `part`.
  VF_INLINE void add_samples(Thread& t, int64_t first, int n, int64_t from, int64_t to) const {
    const S form = form_;
    t.in.read(first, n);
    const T* r_ = t.in[1];
    for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
      const P sigma = form.sigma(form.clamp(part.load(r_ + i)));
      store(t.sigma + i, sigma);
      store(t.inverse + i, T(1) / sigma);
    });
    if (args_.n_samples != 1)
      for (auto& sum : t.sum)
        for (int i = 0; i < n; ++i) sum[i] = 0;
    const auto add = [&](int64_t s, const T* eps) {
      add_sample(t, first, n, s, eps);
      if (args_.n_samples == 1) return;
      for (int k = 0; k < kOwnSums; ++k) {
        if (!has(k)) continue;
        for (int i = 0; i < n; ++i) t.sum[k][i] += static_cast<double>(t.part[k][i]);
      }
    };
    if (args_.dlog_p || (has(kG) && args_.gradients[1].kind != Gradient::kNone) || (args_.path && args_.dlog_q)) {
      t.noise.for_samples(first, n, from, to, add);
    } else {
      for (int64_t s = from; s < to; ++s) add(s, nullptr);
    }
  }

  void sum_groups(int64_t begin, int64_t end) const {
    Thread t(args_);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit % groups_.count();
      pieces_.for_tiles<T>(unit / groups_.count(), [&](int64_t first, int n) {
        add_samples(t, first, n, groups_.start(group), groups_.start(group + 1));
        for (int k = 0; k < kOwnSums; ++k) std::memcpy(group_sum(group, k) + first, t.sum[k], n * sizeof(double));
      });
    }
  }

  VF_INLINE void join(Thread& t, int64_t first, int n) const {
    if (group_sums_) {
      for (int k = 0; k < kOwnSums; ++k)
        for (int i = 0; i < n; ++i) {
          t.sum[k][i] = 0;
          for (int64_t group = 0; group < groups_.count(); ++group) t.sum[k][i] += group_sum(group, k)[first + i];
        }
    } else {
      add_samples(t, first, n, 0, args_.n_samples);
      if (args_.n_samples == 1) return;
    }
    for (int k = 0; k < kOwnSums; ++k)
      for (int i = 0; i < n; ++i) t.part[k][i] = static_cast<T>(t.sum[k][i]);
  }

  void differentiate(int64_t begin, int64_t end) const {
    Thread t(args_);
    std::array<GradientTiles<T>, N> out = tiles(std::make_index_sequence<N>());
    const S form = form_;
    const bool with_g = has(kG), with_q = has(kQ), with_prior = has(kPriorMean);
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t last = unit_start(pieces_, units_, unit + 1);
      for (int64_t piece = unit_start(pieces_, units_, unit); piece < last; ++piece) {
        pieces_.for_tiles<T>(piece, [&](int64_t first, int n) {
          join(t, first, n);
          t.in.read(first, n);
          const T* r_ = t.in[1];
          T* to[N];
          for (int k = 0; k < N; ++k) to[k] = out[k] ? out[k].place(first) : nullptr;
          for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
            P d[N]{};
            const P raw = part.load(r_ + i);
            if (with_g) d[0] = load(t.part[kG] + i);
            if (to[1]) {
              const P r = form.clamp(raw);
              if (with_g) d[1] = load(t.part[kGEps] + i) * form.dsigma(r);
              if (with_q) d[1] = d[1] - load(t.part[kQ] + i) * log_scale(r, form).draw;
              d[1] = form.inside(raw, d[1]);
            }
            if constexpr (N == 4) {
              if (with_prior) {
                d[2] = load(t.part[kPriorMean] + i);
                d[3] = load(t.part[kPriorRaw] + i);
              }
            }
#pragma GCC unroll 4
            for (int k = 0; k < N; ++k)
              if (to[k]) part.store(to[k] + i, d[k]);
          });
          for (auto& gradient : out) gradient.commit(unit, piece, first, n);
        });
      }
    }
  }

  template <size_t... I>
  std::array<GradientTiles<T>, N> tiles(std::index_sequence<I...>) const {
    return {GradientTiles<T>(sums_[I])...};
  }

  const SampleLogProbArgs& args_;
  S form_;
  Prior prior_;
  Pieces pieces_;
  SampleGroups groups_;
  int64_t units_;
  std::array<GradientSum<T>, N> sums_;
  std::unique_ptr<double[]> group_sums_;
};

// Calls f with a number of the call's dtype, its form of σ, and its prior.
template <class F>
void in_sampler(const SampleLogProbArgs& args, F&& f) {
  // A σp that is not there is e^0.
  const SigmaOptions standard{kLogvar, 0, -infinity<double>(), infinity<double>(), false};
  const SigmaOptions& of_prior = args.in[3] ? args.prior_form : standard;
  in_dtype_and_form(args.compute, args.form, [&](auto number, const auto& form) {
    using Form = SigmaForm<decltype(number)>;
    args.in[2] || args.in[3] ? f(number, form, PriorDensity<Form>{Form(of_prior)})
                             : f(number, form, PriorDensity<NoPrior>{});
  });
}

}  // namespace

void rsample_log_prob_fwd(const SampleLogProbArgs& args) {
  in_sampler(args, [&](auto number, const auto& form, const auto& prior) {
    log_prob_fwd<decltype(number)>(args, form, prior);
  });
}

void rsample_log_prob_bwd(const SampleLogProbArgs& args) {
  in_sampler(args, [&](auto number, const auto& form, const auto& prior) {
    LogProbBackward<decltype(number), std::decay_t<decltype(prior)>, std::decay_t<decltype(form)>>(args, form, prior)
        .run();
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
