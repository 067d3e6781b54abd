// z = μ + σε, alone and with KL(N(μ, σ²) ‖ N(0, I)), and their gradients: rsample.cpp and rsample_kl.cpp are this with
// and without the KL.
#pragma once

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

// Calls visit(sample, ε) for the samples [from, to), ε of n positions from `first` on in T.
template <class T, class F>
VF_INLINE void for_samples(Normals& normals, int64_t first, int n, int64_t from, int64_t to, F&& visit) {
  const int most = Normals::samples_in_a_block(n);
  for (int64_t s = from; s < to; s += most) {
    const int block = to - s < most ? static_cast<int>(to - s) : most;
    normals.draw(first, n, s, block);
    for (int k = 0; k < block; ++k) {
      if constexpr (sizeof(T) == sizeof(float)) {
        visit(s + k, normals.row(k));
      } else {
        T eps[kTile<T>];
        read_run(eps, normals.row(k), 1, n);
        visit(s + k, static_cast<const T*>(eps));
      }
    }
  }
}

template <class T, bool kKL, class S>
void sample_fwd(const SampleArgs& args, const S& form) {
  using P = Pack<T>;
  const Pieces pieces(args.rows);
  const SampleGroups groups(pieces, args.n_samples);
  RowSums<T> sums(pieces, 1.0);
  sums.start(static_cast<T*>(args.kl));
  const Rows work{args.rows.count, args.rows.size * (args.n_samples > 0 ? args.n_samples : 1)};
  parallel(args.parallel_for, work, pieces.count() * groups.count(), 2.0, [&](int64_t begin, int64_t end) {
    Reader<T> mu(args.mu), logvar(args.logvar);
    Writer<T> z(args.z);
    Normals normals(args.noise);
    const P floor = splat<P>(static_cast<T>(args.free_bits));
    alignas(64) T sigma[kTile<T>], terms[kTile<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t piece = unit / groups.count(), group = unit % groups.count();
      double running = 0;
      pieces.for_tiles<T>(piece, [&](int64_t first, int n) {
        const T *m_ = mu.read(first, n), *r_ = logvar.read(first, n);
        const bool with_kl = kKL && group == 0;
        for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
          const P r = form.clamp(part.load(r_ + i));
          store(sigma + i, form.sigma(r));
          if (with_kl) {
            const P kl = gaussian_kl(part.load(m_ + i), r, form).kl;
            part.store(terms + i, args.has_free_bits ? select(kl <= floor, floor, kl) : kl);
          }
        });
        if (with_kl) sums.add(piece, first, n, terms, running);
        for_samples<T>(normals, first, n, groups.start(group), groups.start(group + 1), [&](int64_t s, const T* eps) {
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

template <class T, bool kKL, class S>
class SampleBackward {
  using P = Pack<T>;

 public:
  SampleBackward(const SampleArgs& args, const S& form)
      : args_(args),
        form_(form),
        pieces_(args.rows),
        groups_(pieces_, args.n_samples),
        units_(units_of(pieces_, args.dmu, args.dlogvar)),
        dmu_(args.dmu, pieces_, units_),
        dlogvar_(args.dlogvar, pieces_, units_) {}

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
    dmu_.finish();
    dlogvar_.finish();
  }

 private:
  double* group_sum(int64_t group, int what) const {
    return group_sums_.get() + (2 * group + what) * args_.rows.count * args_.rows.size;
  }

  // Adds up samples [from, to) of a tile.
  VF_INLINE void sum_samples(Reader<T>& dz, Normals& normals, int64_t first, int n, int64_t from, int64_t to,
                             SampleSums<T>& sums) const {
    for (int i = 0; i < n; ++i) sums.dz[i] = sums.dz_eps[i] = 0;
    const bool draw = args_.dlogvar.kind != Gradient::kNone;
    if (!draw) {
      for (int64_t s = from; s < to; ++s) {
        const T* dz_ = dz.read(first, n, s * args_.dz_sample_stride);
        for (int i = 0; i < n; ++i) sums.dz[i] += static_cast<double>(dz_[i]);
      }
      return;
    }
    for_samples<T>(normals, first, n, from, to, [&](int64_t s, const T* eps) {
      const T* dz_ = dz.read(first, n, s * args_.dz_sample_stride);
      for (int i = 0; i < n; ++i) {
        sums.dz[i] += static_cast<double>(dz_[i]);
        sums.dz_eps[i] += static_cast<double>(dz_[i] * eps[i]);
      }
    });
  }

  void sum_groups(int64_t begin, int64_t end) const {
    Reader<T> dz(args_.dz);
    Normals normals(args_.noise);
    SampleSums<T> sums;
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t group = unit % groups_.count();
      pieces_.for_tiles<T>(unit / groups_.count(), [&](int64_t first, int n) {
        sum_samples(dz, normals, first, n, groups_.start(group), groups_.start(group + 1), sums);
        std::memcpy(group_sum(group, 0) + first, sums.dz, n * sizeof(double));
        std::memcpy(group_sum(group, 1) + first, sums.dz_eps, n * sizeof(double));
      });
    }
  }

  void differentiate(int64_t begin, int64_t end) const {
    Reader<T> mu(args_.mu), logvar(args_.logvar), dz(args_.dz), dkl(args_.dkl);
    GradientTiles<T> dmu(dmu_), dlogvar(dlogvar_);
    Normals normals(args_.noise);
    const S form = form_;
    const P floor = splat<P>(static_cast<T>(args_.free_bits));
    SampleSums<T> sums;
    alignas(64) T dz_[kTile<T>], dz_eps_[kTile<T>];
    for (int64_t unit = begin; unit < end; ++unit) {
      const int64_t last = unit_start(pieces_, units_, unit + 1);
      for (int64_t piece = unit_start(pieces_, units_, unit); piece < last; ++piece) {
        pieces_.for_tiles<T>(piece, [&](int64_t first, int n) {
          const T *from_z = dz_, *from_eps = dz_eps_;
          if (dz && args_.n_samples == 1) {
            from_z = dz.read(first, n);
            if (dlogvar) {
              for_samples<T>(normals, first, n, 0, 1, [&](int64_t, const T* eps) {
                for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
                  store(dz_eps_ + i, part.load(from_z + i) * part.load(eps + i));
                });
              });
            }
          } else if (dz) {
            add_samples(dz, normals, first, n, sums);
            for (int i = 0; i < n; ++i) {
              dz_[i] = static_cast<T>(sums.dz[i]);
              dz_eps_[i] = static_cast<T>(sums.dz_eps[i]);
            }
          }
          const T* m_ = kKL && dkl ? mu.read(first, n) : nullptr;
          const T* g_ = kKL && dkl ? dkl.read(first, n) : nullptr;
          const T* r_ = logvar.read(first, n);
          T* dm_ = dmu ? dmu.place(first) : nullptr;
          T* dr_ = dlogvar ? dlogvar.place(first) : nullptr;
          for_packs<T>(n, [&](int i, auto part) __attribute__((always_inline)) {
            const P raw = part.load(r_ + i), r = form.clamp(raw);
            P dm{}, dr{};
            if (dz) {
              dm = part.load(from_z + i);
              if (dr_) dr = part.load(from_eps + i) * form.dsigma(r);
            }
            if (g_) {
              P g = part.load(g_ + i);
              const KLTerm<P> term = gaussian_kl(part.load(m_ + i), r, form);
              if (args_.has_free_bits) g = select(term.kl <= floor, splat<P>(0), g);
              dm = dz ? dm + g * term.dmu : g * term.dmu;
              dr = dz ? dr + g * term.draw : g * term.draw;
            }
            if (dm_) part.store(dm_ + i, dm);
            if (dr_) part.store(dr_ + i, form.inside(raw, dr));
          });
          dmu.commit(unit, piece, first, n);
          dlogvar.commit(unit, piece, first, n);
        });
      }
    }
  }

  VF_INLINE void add_samples(Reader<T>& dz, Normals& normals, int64_t first, int n, SampleSums<T>& sums) const {
    if (!group_sums_) {
      sum_samples(dz, normals, first, n, 0, args_.n_samples, sums);
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
  Pieces pieces_;
  SampleGroups groups_;
  int64_t units_;
  GradientSum<T> dmu_, dlogvar_;
  std::unique_ptr<double[]> group_sums_;
};

template <bool kKL>
void run_forward(const SampleArgs& args) {
  in_dtype_and_form(args.compute, args.form,
                    [&](auto number, auto form) { sample_fwd<decltype(number), kKL>(args, form); });
}

template <bool kKL>
void run_backward(const SampleArgs& args) {
  in_dtype_and_form(args.compute, args.form, [&](auto number, auto form) {
    SampleBackward<decltype(number), kKL, decltype(form)>(args, form).run();
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
