// z = μ + σε, alone and with KL(N(μ, σ²) ‖ N(0, I)), and their gradients: rsample.cu and rsample_kl.cu are this without
// and with the KL.
#pragma once

#include "../table.h"
#include "density.h"
#include "normals.h"

namespace vae_fast {
namespace cuda {

// Samples of an element are a loop of its thread; where there are few elements, in groups, of which blocks take one
// each.
struct SampleGroups {
  int64_t n_samples;
  int count;

  SampleGroups(int64_t numel, int64_t samples) : n_samples(samples) {
    const int64_t wanted = (int64_t{1} << 17) / (numel > 0 ? numel : 1);
    const int64_t groups = wanted < samples ? wanted : samples;
    count = static_cast<int>(groups < 1 ? 1 : groups > 64 ? 64 : groups);
  }
  __device__ __forceinline__ int64_t start(int group) const { return n_samples * group / count; }
};

template <class Form, class Keys>
struct SampleParams {
  Work work;
  Form form;
  Keys keys;
  NoiseOptions noise;
  SampleGroups groups;
  Input mu, logvar;
  double floor;
  bool has_floor;
  // Forward.
  Output z;
  int64_t z_sample;
  // Backward.
  Input dz, dkl;
  int64_t dz_sample;
  bool draws;     // whether ε is needed
  double* parts;  // [group, Σ dz and Σ dz·ε, element], where samples are in groups
  int step;       // 0: everything; 1: the groups' sums; 2: from them
  Slot slots[2];  // forward: kl; backward: dmu, dlogvar
  int* ticket;
  bool total;
};

// kEven: one sample, and even chunks (Chunk).
template <class S, bool kKL, class Form, class Keys, bool kEven>
__global__ void __launch_bounds__(kThreads, kResident<S, kEven, kKL && sizeof(S) == 2 ? 1 : 0>)
    sample_fwd_kernel(const __grid_constant__ SampleParams<Form, Keys> p) {
  using T = typename Compute<S>::Type;
  constexpr int N = kSampleChunk<S>;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const int group = kEven ? 0 : static_cast<int>(blockIdx.y);
  const int64_t from = kEven ? 0 : p.groups.start(group), to = kEven ? 1 : p.groups.start(group + 1);
  const bool with_kl = kKL && group == 0;
  const T floor = static_cast<T>(p.floor);
  double sums[1] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const T mu = walk.some ? constant_of<T>(p.mu, walk.offset(p.mu)) : T(0);
    const T logvar = walk.some ? constant_of<T>(p.logvar, walk.offset(p.logvar)) : T(0);
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N, kEven> chunk(column, p.work.columns);
      T m[N], r[N], sigma[N];
      load<T, S>(p.mu, false, walk.offset(p.mu), mu, chunk, m);
      load<T, S>(p.logvar, false, walk.offset(p.logvar), logvar, chunk, r);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        r[j] = p.form.clamp(r[j]);
        sigma[j] = p.form.sigma(r[j]);
      }
      if (with_kl) {
        T terms[N];
#pragma unroll
        for (int j = 0; j < N; ++j) {
          const T kl = vae_fast::cuda::gaussian_kl(m[j], r[j], p.form).kl;
          terms[j] = p.has_floor && kl <= floor ? floor : kl;
        }
        if (p.slots[0].kind == Slot::kEach) {
          store<T, T>(terms, p.slots[0].out, walk.offset(p.slots[0].out), chunk);
        } else {
          sums[0] += chunk_sum(terms, chunk);
        }
      }
      const uint64_t index = index_of(p.noise, walk.row, chunk);
#pragma unroll 1
      for (int64_t s = from; s < to; ++s) {
        float eps[N];
        normals(keys, static_cast<uint64_t>(s) + p.noise.first_sample, index, eps);
        T z[N];
#pragma unroll
        for (int j = 0; j < N; ++j) z[j] = m[j] + sigma[j] * static_cast<T>(eps[j]);
        store<T, S>(z, p.z, walk.offset(p.z) + s * p.z_sample, chunk);
      }
    }
    if (!with_kl || p.total || p.slots[0].kind == Slot::kEach) continue;
    put_row(p.slots[0], p.work, walk, group_sum(sums[0], p.work.group, shared));
    sums[0] = 0;
  }
  if (with_kl && p.total) {
    const Slot slots[1] = {p.slots[0]};
    put_totals(slots, p.ticket, sums, shared);
  }
}

// A sum that keeps what its additions round away.
template <class T>
struct Compensated {
  T sum = T(-0.0), lost = T(0);  // −0 + x is x, for −0 too

  __device__ __forceinline__ void add(T x) {
    const T next = sum + x, part = next - sum;
    lost += (sum - (next - part)) + (x - part);
    sum = next;
  }
  // Where the sum is infinite or NaN, what is lost is NaN.
  __device__ __forceinline__ T whole() const { return lost == lost && lost != T(0) ? sum + lost : sum; }
};

// Registers that a backward pass needs (kResident): one that asks the most questions, some more.
template <class S, bool kKL, class Form, class Keys, bool kEven>
constexpr int kLoad =
    kKL && kEven && sizeof(S) == 4 && !std::is_same_v<Form, SigmaForm<float, true>> && !Keys::kOnHost ? 1 + kMiddling
                                                                                                      : 1;

template <class S, bool kKL, class Form, class Keys, bool kEven>
__global__ void __launch_bounds__(kThreads, kResident<S, kEven, kLoad<S, kKL, Form, Keys, kEven>>)
    sample_bwd_kernel(const __grid_constant__ SampleParams<Form, Keys> p) {
  using T = typename Compute<S>::Type;
  constexpr int N = kSampleChunk<S>;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const int group = static_cast<int>(blockIdx.y);
  const int64_t from = p.step == 0 ? 0 : p.groups.start(group);
  const int64_t to = p.step == 0 ? p.groups.n_samples : p.groups.start(group + 1);
  const int64_t numel = p.work.rows * p.work.columns;
  const bool has_dz = p.dz.data != nullptr || p.dz.number, has_dkl = kKL && (p.dkl.data != nullptr || p.dkl.number);
  const T floor = static_cast<T>(p.floor);
  double sums[2] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T mu = T(0), logvar = T(0), dkl = T(0);
    if (walk.some) {
      mu = constant_of<T>(p.mu, walk.offset(p.mu));
      logvar = constant_of<T>(p.logvar, walk.offset(p.logvar));
      if (has_dkl) dkl = constant_of<T>(p.dkl, walk.offset(p.dkl));
    }
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N, kEven> chunk(column, p.work.columns);
      T dm[N], dr[N];
#pragma unroll
      for (int j = 0; j < N; ++j) dm[j] = dr[j] = T(0);
      if (kEven && has_dz) {
        load<T, S>(p.dz, true, walk.offset(p.dz), constant_of<T>(p.dz, walk.offset(p.dz)), chunk, dm);
        if (p.draws) {
          float eps[N];
          normals(keys, p.noise.first_sample, index_of(p.noise, walk.row, chunk), eps);
#pragma unroll
          for (int j = 0; j < N; ++j) dr[j] = dm[j] * static_cast<T>(eps[j]);
        }
      } else if (has_dz && p.step != 2) {
        Compensated<T> dz_sum[N], eps_sum[N];
        const uint64_t index = index_of(p.noise, walk.row, chunk);
#pragma unroll 1
        for (int64_t s = from; s < to; ++s) {
          T dz[N];
          const int64_t at = walk.offset(p.dz) + s * p.dz_sample;
          load<T, S>(p.dz, true, at, constant_of<T>(p.dz, at), chunk, dz);
          if (p.draws) {
            float eps[N];
            normals(keys, static_cast<uint64_t>(s) + p.noise.first_sample, index, eps);
#pragma unroll
            for (int j = 0; j < N; ++j) eps_sum[j].add(dz[j] * static_cast<T>(eps[j]));
          }
#pragma unroll
          for (int j = 0; j < N; ++j) dz_sum[j].add(dz[j]);
        }
        if (p.step == 1) {
          double* part = p.parts + 2 * group * numel + walk.row * p.work.columns;
#pragma unroll
          for (int j = 0; j < N; ++j) {
            if (!chunk.has(j)) continue;
            part[column + j] = static_cast<double>(dz_sum[j].whole());
            part[numel + column + j] = static_cast<double>(eps_sum[j].whole());
          }
          continue;
        }
#pragma unroll
        for (int j = 0; j < N; ++j) {
          dm[j] = dz_sum[j].whole();
          dr[j] = eps_sum[j].whole();
        }
      } else if (has_dz) {
#pragma unroll
        for (int j = 0; j < N; ++j) {
          if (!chunk.has(j)) continue;
          const double* part = p.parts + walk.row * p.work.columns + column + j;
          double dz = 0, eps = 0;
#pragma unroll 1
          for (int g = 0; g < p.groups.count; ++g) {
            dz += part[2 * g * numel];
            eps += part[(2 * g + 1) * numel];
          }
          dm[j] = static_cast<T>(dz);
          dr[j] = static_cast<T>(eps);
        }
      }
      T m[N], raw[N], g[N];
      load<T, S>(p.logvar, false, walk.offset(p.logvar), logvar, chunk, raw);
      if (has_dkl) {
        load<T, S>(p.mu, false, walk.offset(p.mu), mu, chunk, m);
        load<T, std::conditional_t<kAny<S>, S, T>>(p.dkl, false, walk.offset(p.dkl), dkl, chunk, g);
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const T r = p.form.clamp(raw[j]);
        if (has_dz && p.draws) dr[j] = dr[j] * p.form.dsigma(r);
        if (has_dkl) {
          const KLTerm<T> term = vae_fast::cuda::gaussian_kl(m[j], r, p.form);
          const T upstream = p.has_floor && term.kl <= floor ? T(0) : g[j];
          dm[j] = has_dz ? dm[j] + upstream * term.dmu : upstream * term.dmu;
          dr[j] = has_dz ? dr[j] + upstream * term.draw : upstream * term.draw;
        }
        dr[j] = p.form.inside(raw[j], dr[j]);
      }
#pragma unroll
      for (int k = 0; k < 2; ++k) {
        const Slot& slot = p.slots[k];
        if (slot.kind == Slot::kNone) continue;
        if (slot.kind == Slot::kEach) {
          store<T, S>(k == 0 ? dm : dr, slot.out, walk.offset(slot.out), chunk);
        } else {
          sums[k] += chunk_sum(k == 0 ? dm : dr, chunk);
        }
      }
    }
    if (p.total || p.step == 1) continue;
#pragma unroll
    for (int k = 0; k < 2; ++k) {
      const Slot& slot = p.slots[k];
      if (slot.kind == Slot::kNone || slot.kind == Slot::kEach) continue;
      put_row(slot, p.work, walk, group_sum(sums[k], p.work.group, shared));
      sums[k] = 0;
    }
  }
  if (p.total && p.step != 1) put_totals(p.slots, p.ticket, sums, shared);
}

template <class S>
constexpr bool kMayBeEven = sizeof(S) < 8 && !kAny<S>;

// What both directions have.
template <class Form, class Keys>
SampleParams<Form, Keys> sample_params(const SampleArgs& args, const Form& form, const Keys& keys) {
  const SampleGroups groups(args.rows.count * args.rows.size, args.n_samples);
  return {{},
          form,
          keys,
          args.noise,
          groups,
          {},
          {},
          args.free_bits,
          args.has_free_bits,
          {},
          args.z_sample_stride,
          {},
          {},
          args.dz_sample_stride,
          args.dlogvar.kind != Gradient::kNone,
          nullptr,
          0,
          {},
          nullptr,
          false};
}

template <class Params>
void take(Params& p, const Plan& plan, int slots) {
  p.work = plan.work();
  p.mu = plan.input(0);
  p.logvar = plan.input(1);
  for (int k = 0; k < slots; ++k) p.slots[k] = plan.slot(k);
  p.ticket = plan.ticket();
  p.total = plan.total();
}

// Calls body(S{}, form, keys) for the kernels that a call takes.
template <class Body>
void in_sampler(const SampleArgs& args, const Storage& storage, Body body) {
  storage.call([&](auto element) {
    using S = decltype(element);
    in_form<S>(args.form, [&](auto form) { in_keys<S>(args.noise, [&](auto keys) { body(element, form, keys); }); });
  });
}

template <bool kKL>
void run_forward(const char* name, const SampleArgs& args) {
  Storage storage(args.compute);
  storage.read(args.mu);
  storage.read(args.logvar);
  storage.write(args.z.dtype);
  in_sampler(args, storage, [&](auto element, auto form, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    using Form = decltype(form);
    using Keys = decltype(keys);
    auto p = sample_params(args, form, keys);
    Plan plan(*args.device, args.rows, kSampleChunk<S>);
    plan.read(args.mu);
    plan.read(args.logvar);
    plan.write(args.z, args.n_samples, args.z_sample_stride);
    plan.chunks_by_index(args.noise.offset);
    plan.value(args.kl, kDType<T>, 1.0);
    if (!plan.resolve()) return;
    take(p, plan, 1);
    p.z = plan.output(0);
    p.z_sample = plan.output_sample_stride(0);
    auto* kernel = sample_fwd_kernel<S, kKL, Form, Keys, false>;
    if (args.n_samples == 1 && plan.even()) kernel = sample_fwd_kernel<S, kKL, Form, Keys, kMayBeEven<S>>;
    launch(*args.device, name, kernel, p, plan.blocks(), p.groups.count, plan.threads());
    plan.finish();
  });
}

template <bool kKL>
void run_backward(const char* name, const SampleArgs& args) {
  Storage storage(args.compute);
  storage.read(args.mu);
  storage.read(args.logvar);
  storage.read_any(args.dz);
  storage.read_wide(args.dkl);
  storage.write(args.dmu);
  storage.write(args.dlogvar);
  in_sampler(args, storage, [&](auto element, auto form, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    using Form = decltype(form);
    using Keys = decltype(keys);
    auto p = sample_params(args, form, keys);
    Plan plan(*args.device, args.rows, kSampleChunk<S>);
    plan.read(args.mu);
    plan.read(args.logvar);
    plan.read(args.dz, args.n_samples, args.dz_sample_stride);
    plan.read(args.dkl);
    plan.chunks_by_index(args.noise.offset);
    plan.gradient(args.dmu, kDType<T>);
    plan.gradient(args.dlogvar, kDType<T>);
    if (!plan.resolve()) return;
    take(p, plan, 2);
    p.dz = plan.input(2);
    p.dz_sample = plan.input_sample_stride(2);
    p.dkl = plan.input(3);
    auto* kernel = sample_bwd_kernel<S, kKL, Form, Keys, false>;
    if (args.n_samples == 1 && plan.even()) kernel = sample_bwd_kernel<S, kKL, Form, Keys, kMayBeEven<S>>;
    if (args.dz && p.groups.count > 1) {
      const int64_t numel = args.rows.count * args.rows.size;
      p.parts = static_cast<double*>(args.device->scratch(16 * p.groups.count * numel));
      p.step = 1;
      launch(*args.device, name, kernel, p, plan.blocks(), p.groups.count, plan.threads());
      p.step = 2;
    }
    launch(*args.device, name, kernel, p, plan.blocks(), 1, plan.threads());
    plan.finish();
  });
}

}  // namespace cuda
}  // namespace vae_fast
