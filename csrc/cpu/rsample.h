// z = μ + τσε, alone and with KL(N(μ, σ²) ‖ N(μp, σp²)), and their gradients: rsample.cpp and rsample_kl.cpp are this
// without and with the KL.
#pragma once

#include <array>
#include <utility>

#include "../table.h"
#include "dispatch.h"
#include "normals.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {

// Samples in groups that threads can work on beside each other where μ alone has too few pieces. By shapes only.
class SampleGroups {
 public:
  SampleGroups(const Pieces& pieces, int64_t n_samples) : n_samples_(n_samples) {
    const int64_t worth = pieces.rows().count * pieces.rows().size * n_samples / kPiece;
    const int64_t wanted = pieces.count() >= 16 ? 1 : 16 / (pieces.count() > 0 ? pieces.count() : 1);
    count_ = wanted < worth ? wanted : worth;
    count_ = count_ < n_samples ? count_ : n_samples;
    count_ = count_ > 1 ? count_ : 1;
  }
  int64_t count() const { return count_; }
  int64_t start(int64_t group) const { return n_samples_ * group / count_; }

 private:
  int64_t n_samples_, count_;
};

// In the place of a KL.
struct NoKL {
  static constexpr int kInputs = 2;
};
template <class KL>
constexpr bool kHas = !std::is_same_v<KL, NoKL>;

// A tile of a call's operands.
template <class T, class KL>
class Moments {
  static constexpr int N = KL::kInputs;

 public:
  explicit Moments(const SamplerArgs& args) : Moments(args, std::make_index_sequence<N>()) {}

  void read(int64_t first, int n) {
    for (int k = 0; k < N; ++k) at_[k] = k < 2 || in_[k] ? in_[k].read(first, n) : nullptr;
  }
  const T* operator[](int k) const { return at_[k]; }

  // Of a pack of elements, for the KL.
  template <class Part>
  VF_INLINE void load(int i, Part part, Pack<T> (&values)[N]) const {
#pragma GCC unroll 4
    for (int k = 0; k < N; ++k) values[k] = k < 2 || at_[k] ? part.load(at_[k] + i) : Pack<T>{};
  }

 private:
  template <size_t... I>
  Moments(const SamplerArgs& args, std::index_sequence<I...>) : in_{Reader<T>(args.in[I])...} {}

  std::array<Reader<T>, N> in_;
  const T* at_[N];
};

// ε of a call: drawn, or the caller's own.
template <class T>
class Noise {
 public:
  explicit Noise(const SamplerArgs& args)
      : normals_(args.noise), given_(args.eps), given_stride_(args.eps_sample_stride) {}

  // Calls visit(sample, ε) for the samples [from, to), ε of n positions from `first` on.
  template <class F>
  VF_INLINE void for_samples(int64_t first, int n, int64_t from, int64_t to, F&& visit) {
    const int most = given_ ? 1 : Normals::samples_in_a_block(n);
    for (int64_t s = from; s < to; s += most) {
      const int block = to - s < most ? static_cast<int>(to - s) : most;
      if (!given_) normals_.draw(first, n, s, block);
      for (int k = 0; k < block; ++k) {
        if (given_) {
          visit(s, given_.read(first, n, s * given_stride_));
        } else if constexpr (sizeof(T) == sizeof(float)) {
          visit(s + k, normals_.row(k));
        } else {
          T eps[kTile<T>];
          read_run(eps, normals_.row(k), 1, n);
          visit(s + k, static_cast<const T*>(eps));
        }
      }
    }
  }

 private:
  Normals normals_;
  Reader<T> given_;
  int64_t given_stride_;
};

template <class T, class S, class KL>
void sample_fwd(const SampleArgs& args, const S& form, const KL& kl) {
  using P = Pack<T>;
  const Pieces pieces(args.rows);
  const SampleGroups groups(pieces, args.n_samples);
  RowSums<T> sums(pieces, 1.0);
  sums.start(static_cast<T*>(args.kl));
  const Rows work{args.rows.count, args.rows.size * (args.n_samples > 0 ? args.n_samples : 1)};
  parallel(args.parallel_for, work, pieces.count() * groups.count(), 2.0, [&](int64_t begin, int64_t end) {
    Moments<T, KL> in(args);
    Writer<T> z(args.z);
    Noise<T> noise(args);
    const P temperature = splat<P>(static_cast<T>(args.temperature));
    alignas(64) T sigma[kTile<T>], terms[kTile<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t piece = unit / groups.count(), group = unit % groups.count();
      double running = 0;
      pieces.for_tiles<T>(piece, [&](int64_t first, int n) {
        in.read(first, n);
        const T *m_ = in[0], *r_ = in[1];
        const bool with_kl = kHas<KL> && group == 0;
        for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
          store(sigma + i, form.sigma(form.clamp(part.load(r_ + i))) * temperature);
          if constexpr (kHas<KL>) {
            if (!with_kl) return;
            P values[KL::kInputs], term, d[KL::kInputs];
            in.load(i, part, values);
            kl(values, splat<P>(1), term, d);
            part.store(terms + i, term);
          }
        });
        if (with_kl) sums.add(piece, first, n, terms, running);
        noise.for_samples(first, n, groups.start(group), groups.start(group + 1), [&](int64_t s, const T* eps) {
          T* z_ = z.place(first, s * args.z_sample_stride);
          for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
            part.store(z_ + i, part.load(m_ + i) + part.load(sigma + i) * part.load(eps + i));
          });
          z.commit(first, n, s * args.z_sample_stride);
        });
      });
    }
  });
  sums.finish();
}

// Σ dz and Σ dz·ε over samples, of one group, for a tile.
template <class T>
struct SampleSums {
  alignas(64) double dz[kTile<T>], dz_eps[kTile<T>];
};

template <class T, class KL, class S>
class SampleBackward {
  using P = Pack<T>;
  static constexpr int N = KL::kInputs;

 public:
  SampleBackward(const SampleArgs& args, const S& form, const KL& kl)
      : SampleBackward(args, form, kl, std::make_index_sequence<N>()) {}

  void run() {
    const int64_t n = args_.rows.count * args_.rows.size;
    const Rows work{args_.rows.count, args_.rows.size * (args_.n_samples > 0 ? args_.n_samples : 1)};
    if (args_.dz && groups_.count() > 1) {
      group_sums_.reset(new double[2 * groups_.count() * n]);
      parallel(args_.parallel_for, work, pieces_.count() * groups_.count(), 2.0,
               [&](int64_t begin, int64_t end) { sum_groups(begin, end); });
    }
    parallel(args_.parallel_for, group_sums_ ? args_.rows : work, units_, 2.0,
             [&](int64_t begin, int64_t end) { differentiate(begin, end); });
    for (const auto& sum : sums_) sum.finish();
  }

 private:
  template <size_t... I>
  SampleBackward(const SampleArgs& args, const S& form, const KL& kl, std::index_sequence<I...>)
      : args_(args),
        form_(form),
        kl_(kl),
        pieces_(args.rows),
        groups_(pieces_, args.n_samples),
        units_(units_of(pieces_, args.gradients[I]...)),
        sums_{GradientSum<T>(args.gradients[I], pieces_, units_)...} {}

  double* group_sum(int64_t group, int what) const {
    return group_sums_.get() + (2 * group + what) * args_.rows.count * args_.rows.size;
  }

  // Adds up samples [from, to) of a tile.
  VF_INLINE void sum_samples(Reader<T>& dz, Noise<T>& noise, int64_t first, int n, int64_t from, int64_t to,
                             SampleSums<T>& sums) const {
    for (int i = 0; i < n; ++i) sums.dz[i] = sums.dz_eps[i] = 0;
    const bool draw = args_.gradients[1].kind != Gradient::kNone;
    if (!draw) {
      for (int64_t s = from; s < to; ++s) {
        const T* dz_ = dz.read(first, n, s * args_.dz_sample_stride);
        for (int i = 0; i < n; ++i) sums.dz[i] += static_cast<double>(dz_[i]);
      }
      return;
    }
    noise.for_samples(first, n, from, to, [&](int64_t s, const T* eps) {
      const T* dz_ = dz.read(first, n, s * args_.dz_sample_stride);
      for (int i = 0; i < n; ++i) {
        sums.dz[i] += static_cast<double>(dz_[i]);
        sums.dz_eps[i] += static_cast<double>(dz_[i] * eps[i]);
      }
    });
  }

  void sum_groups(int64_t begin, int64_t end) const {
    Reader<T> dz(args_.dz);
    Noise<T> noise(args_);
    SampleSums<T> sums;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit % groups_.count();
      pieces_.for_tiles<T>(unit / groups_.count(), [&](int64_t first, int n) {
        sum_samples(dz, noise, first, n, groups_.start(group), groups_.start(group + 1), sums);
        std::memcpy(group_sum(group, 0) + first, sums.dz, n * sizeof(double));
        std::memcpy(group_sum(group, 1) + first, sums.dz_eps, n * sizeof(double));
      });
    }
  }

  void differentiate(int64_t begin, int64_t end) const {
    Moments<T, KL> in(args_);
    Reader<T> dz(args_.dz), dkl(args_.dkl);
    std::array<GradientTiles<T>, N> out = tiles(std::make_index_sequence<N>());
    Noise<T> noise(args_);
    const S form = form_;
    const KL kl = kl_;
    const P temperature = splat<P>(static_cast<T>(args_.temperature));
    SampleSums<T> sums;
    alignas(64) T dz_[kTile<T>], dz_eps_[kTile<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t last = unit_start(pieces_, units_, unit + 1);
      for (int64_t piece = unit_start(pieces_, units_, unit); piece < last; ++piece) {
        pieces_.for_tiles<T>(piece, [&](int64_t first, int n) {
          const T *from_z = dz_, *from_eps = dz_eps_;
          if (dz && args_.n_samples == 1) {
            from_z = dz.read(first, n);
            if (out[1]) {
              noise.for_samples(first, n, 0, 1, [&](int64_t, const T* eps) {
                for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
                  store(dz_eps_ + i, part.load(from_z + i) * part.load(eps + i));
                });
              });
            }
          } else if (dz) {
            add_samples(dz, noise, first, n, sums);
            for (int i = 0; i < n; ++i) {
              dz_[i] = static_cast<T>(sums.dz[i]);
              dz_eps_[i] = static_cast<T>(sums.dz_eps[i]);
            }
          }
          in.read(first, n);
          const T* r_ = in[1];
          const T* g_ = kHas<KL> && dkl ? dkl.read(first, n) : nullptr;
          T* to[N];
          for (int k = 0; k < N; ++k) to[k] = out[k] ? out[k].place(first) : nullptr;
          for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
            P d[N]{};
            const P raw = part.load(r_ + i);
            if (dz) {
              d[0] = part.load(from_z + i);
              if (to[1]) d[1] = part.load(from_eps + i) * (form.dsigma(form.clamp(raw)) * temperature);
            }
            if constexpr (kHas<KL>) {
              if (g_) {
                P values[N], term, of_kl[N];
                in.load(i, part, values);
                kl(values, part.load(g_ + i), term, of_kl);
#pragma GCC unroll 4
                for (int k = 0; k < N; ++k) d[k] = dz && k < 2 ? d[k] + of_kl[k] : of_kl[k];
              }
            }
            d[1] = form.inside(raw, d[1]);
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

  VF_INLINE void add_samples(Reader<T>& dz, Noise<T>& noise, int64_t first, int n, SampleSums<T>& sums) const {
    if (!group_sums_) {
      sum_samples(dz, noise, first, n, 0, args_.n_samples, sums);
      return;
    }
    for (int i = 0; i < n; ++i) sums.dz[i] = sums.dz_eps[i] = 0;
    for (int64_t group = 0; group < groups_.count(); ++group) {
      const double *part = group_sum(group, 0) + first, *part_eps = group_sum(group, 1) + first;
      for (int i = 0; i < n; ++i) {
        sums.dz[i] += part[i];
        sums.dz_eps[i] += part_eps[i];
      }
    }
  }

  const SampleArgs& args_;
  S form_;
  KL kl_;
  Pieces pieces_;
  SampleGroups groups_;
  int64_t units_;
  std::array<GradientSum<T>, N> sums_;
  std::unique_ptr<double[]> group_sums_;
};

// Calls f with a number of the call's dtype, its form of σ, and its KL.
template <bool kKL, class F>
void in_sampler(const SampleArgs& args, F&& f) {
  if constexpr (!kKL) {
    in_dtype_and_form(args.compute, args.form, [&](auto number, const auto& form) { f(number, form, NoKL{}); });
  } else if (args.in[2] || args.in[3]) {
    in_kl<StandardPrior>(args, f);
  } else {
    in_kl<NoPrior>(args, f);
  }
}

template <bool kKL>
void run_forward(const SampleArgs& args) {
  in_sampler<kKL>(args,
                  [&](auto number, const auto& form, const auto& kl) { sample_fwd<decltype(number)>(args, form, kl); });
}

template <bool kKL>
void run_backward(const SampleArgs& args) {
  in_sampler<kKL>(args, [&](auto number, const auto& form, const auto& kl) {
    using T = decltype(number);
    SampleBackward<T, std::decay_t<decltype(kl)>, std::decay_t<decltype(form)>>(args, form, kl).run();
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
