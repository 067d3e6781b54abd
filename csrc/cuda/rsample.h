// z = μ + τσε, alone and with KL(N(μ, σ²) ‖ N(μp, σp²)), and their gradients: rsample.cu and rsample_kl.cu are this
// without and with the KL.
#pragma once

#include "../table.h"
#include "even_sample.h"
#include "launch.h"
#include "storage.h"

namespace vae_fast {
namespace cuda {

// What operands are along a thread's row, where they are not dense. Where one is not there it is 0.
template <class T, int K>
__device__ __forceinline__ void constants_of(const Input (&in)[K], const Walk& walk, T (&constants)[K]) {
#pragma unroll
  for (int k = 0; k < K; ++k) {
    const bool there = walk.some && (k < 2 || in[k].data || in[k].number);
    constants[k] = there ? constant_of<T>(in[k], walk.offset(in[k])) : T(0);
  }
}

// The KL's term of each element of a chunk, and g times its derivatives.
template <class T, class KL, int K, int N>
__device__ __forceinline__ void kl_of(const KL& kl, const T (&values)[K][N], int j, T g, T& term, T (&d)[K]) {
  T own[K];
#pragma unroll
  for (int k = 0; k < K; ++k) own[k] = values[k][j];
  kl(own, g, term, d);
}

// ε of a chunk of sample s, whose first normal has this index.
template <class T, class S, class Params, class Keys, int N, bool kEven>
__device__ __forceinline__ void eps_of(const Params& p, const Keys& keys, int64_t s, uint64_t index, const Walk& walk,
                                       const Chunk<N, kEven>& chunk, T (&eps)[N]) {
  if constexpr (std::is_same_v<Keys, GivenNoise>) {
    const int64_t at = walk.offset(p.eps) + s * p.eps_sample;
    load<T, S>(p.eps, true, at, constant_of<T>(p.eps, at), chunk, eps);
  } else {
    float drawn[N];
    normals(keys, static_cast<uint64_t>(s) + p.noise.first_sample, index, drawn);
#pragma unroll
    for (int j = 0; j < N; ++j) eps[j] = static_cast<T>(drawn[j]);
  }
}

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, kResident<S, false, kHas<typename Params::KL> && sizeof(S) == 2 ? 1 : 0>)
    sample_fwd_kernel(const __grid_constant__ Params p) {
  using T = typename Compute<S>::Type;
  using KL = typename Params::KL;
  constexpr int N = kSampleChunk<S>, K = KL::kInputs;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const int group = static_cast<int>(blockIdx.y);
  const int64_t from = p.groups.start(group), to = p.groups.start(group + 1);
  const bool with_kl = kHas<KL> && group == 0;
  const T temperature = static_cast<T>(p.temperature);
  double sums[1] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T constants[K];
    constants_of(p.in, walk, constants);
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N> chunk(column, p.work.columns);
      T values[K][N], sigma[N];
      load_all<T, S>(p.in, walk, constants, chunk, values);
#pragma unroll
      for (int j = 0; j < N; ++j) sigma[j] = p.form.sigma(p.form.clamp(values[1][j])) * temperature;
      if constexpr (kHas<KL>) {
        if (with_kl) {
          T terms[N];
#pragma unroll
          for (int j = 0; j < N; ++j) {
            T unused[K];
            kl_of(p.kl, values, j, T(1), terms[j], unused);
          }
          if (p.slots[0].kind == Slot::kEach) {
            store<T, T>(terms, p.slots[0].out, walk.offset(p.slots[0].out), chunk);
          } else {
            sums[0] += chunk_sum(terms, chunk);
          }
        }
      }
      const uint64_t index = index_of(p.noise, walk.row, chunk);
#pragma unroll 1
      for (int64_t s = from; s < to; ++s) {
        T z[N];
        eps_of<T, S>(p, keys, s, index, walk, chunk, z);
#pragma unroll
        for (int j = 0; j < N; ++j) z[j] = fma(sigma[j], z[j], values[0][j]);
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

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, kResident<S, false, 1>)
    sample_bwd_kernel(const __grid_constant__ Params p) {
  using T = typename Compute<S>::Type;
  using KL = typename Params::KL;
  constexpr int N = kSampleChunk<S>, K = KL::kInputs;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const int group = static_cast<int>(blockIdx.y);
  const int64_t from = p.step == 0 ? 0 : p.groups.start(group);
  const int64_t to = p.step == 0 ? p.groups.n_samples : p.groups.start(group + 1);
  const int64_t numel = p.work.rows * p.work.columns;
  const bool has_dz = p.dz.data != nullptr || p.dz.number;
  const bool has_dkl = kHas<KL> && (p.dkl.data != nullptr || p.dkl.number);
  const T temperature = static_cast<T>(p.temperature);
  double sums[K] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T constants[K], dkl = T(0);
    constants_of(p.in, walk, constants);
    if (walk.some && has_dkl) dkl = constant_of<T>(p.dkl, walk.offset(p.dkl));
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N> chunk(column, p.work.columns);
      T dm[N], dr[N];
#pragma unroll
      for (int j = 0; j < N; ++j) dm[j] = dr[j] = T(0);
      if (has_dz && p.step != 2) {
        Compensated<T> dz_sum[N], eps_sum[N];
        const uint64_t index = index_of(p.noise, walk.row, chunk);
#pragma unroll 1
        for (int64_t s = from; s < to; ++s) {
          T dz[N];
          const int64_t at = walk.offset(p.dz) + s * p.dz_sample;
          load<T, S>(p.dz, true, at, constant_of<T>(p.dz, at), chunk, dz);
          if (p.draws) {
            T eps[N];
            eps_of<T, S>(p, keys, s, index, walk, chunk, eps);
#pragma unroll
            for (int j = 0; j < N; ++j) eps_sum[j].add(dz[j] * eps[j]);
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
      T values[K][N], g[N], gradients[K][N];
#pragma unroll
      for (int k = 0; k < K; ++k)
        if (k == 1 || has_dkl) load<T, S>(p.in[k], false, walk.offset(p.in[k]), constants[k], chunk, values[k]);
      if (has_dkl) load<T, std::conditional_t<kAny<S>, S, T>>(p.dkl, false, walk.offset(p.dkl), dkl, chunk, g);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const T raw = values[1][j];
        if (has_dz && p.draws) dr[j] = dr[j] * (p.form.dsigma(p.form.clamp(raw)) * temperature);
        gradients[0][j] = dm[j];
        gradients[1][j] = dr[j];
#pragma unroll
        for (int k = 2; k < K; ++k) gradients[k][j] = T(0);
        if constexpr (kHas<KL>) {
          if (has_dkl) {
            T term, d[K];
            kl_of(p.kl, values, j, g[j], term, d);
#pragma unroll
            for (int k = 0; k < K; ++k) gradients[k][j] = has_dz && k < 2 ? gradients[k][j] + d[k] : d[k];
          }
        }
        gradients[1][j] = p.form.inside(raw, gradients[1][j]);
      }
#pragma unroll
      for (int k = 0; k < K; ++k) {
        const Slot& slot = p.slots[k];
        if (slot.kind == Slot::kNone) continue;
        if (slot.kind == Slot::kEach) {
          store<T, S>(gradients[k], slot.out, walk.offset(slot.out), chunk);
        } else {
          sums[k] += chunk_sum(gradients[k], chunk);
        }
      }
    }
    if (p.total || p.step == 1) continue;
    put_rows<0, K>(p.slots, p.work, walk, sums, shared);
  }
  if (p.total && p.step != 1) put_totals(p.slots, p.ticket, sums, shared);
}

// What both directions have.
template <class Form, class KL, class Keys>
SampleParams<Form, KL, Keys> sample_params(const SampleArgs& args, const Form& form, const KL& kl, const Keys& keys) {
  const SampleGroups groups(args.rows.count * args.rows.size, args.n_samples);
  SampleParams<Form, KL, Keys> p{{}, form, kl, keys, args.noise, groups, args.temperature};
  p.draws = args.gradients[1].kind != Gradient::kNone;
  return p;
}

// Of operands that the plan has in order, then, behind `others`, the caller's ε.
template <class Params>
void take(Params& p, const Plan& plan, int others, int slots) {
  constexpr int K = Params::KL::kInputs;
  p.work = plan.work();
  for (int k = 0; k < K; ++k) p.in[k] = plan.input(k);
  p.eps = plan.input(K + others);
  p.eps_sample = plan.input_sample_stride(K + others);
  for (int k = 0; k < slots; ++k) p.slots[k] = plan.slot(k);
  p.ticket = plan.ticket();
  p.total = plan.total();
}

// Calls body(S{}, form, kl, keys) for the kernels that a call takes. What is rare has kernels of any storage type only,
// and one with a prior takes its keys from the seed.
template <bool kKL, class Body>
void in_sampler(const SampleArgs& args, const Storage& storage, Body body) {
  const bool prior = kKL && (args.in[2] || args.in[3]);
  // A σp that is not there is e^0.
  const SigmaOptions standard{kLogvar, 0, -infinity<double>(), infinity<double>(), false};
  const SigmaOptions& prior_form = args.in[3] ? args.prior_form : standard;
  const bool own_form = prior && !(args.in[3] && args.form == prior_form);
  storage.call(own_form || args.eps || (prior && args.compute == DType::kFloat64), [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    // Of half types, without a prior.
    const auto light = [&](const auto& with) {
      if constexpr (kKL) {
        with(LightForm(args.form), LightKL<NoPrior>{static_cast<float>(args.free_bits), args.has_free_bits});
      } else {
        with(LightForm(args.form), NoKL{});
      }
    };
    if constexpr (std::is_same_v<S, Any<float>>) {
      // A sample is the same of an ε that was drawn before.
      if (args.eps && !prior && storage.of_halves() && SigmaForm<T>(args.form).plain())
        return light([&](const auto& form, const auto& kl) { body(element, form, kl, GivenNoise{}); });
    }
    in_form<S>(args.form, [&](auto form) {
      using Form = decltype(form);
      const auto with_keys = [&](const auto& own, const auto& kl) {
        if constexpr (kAny<S>) {
          if (args.eps) return body(element, own, kl, GivenNoise{});
        }
        if constexpr (std::decay_t<decltype(kl)>::kInputs > 2) {
          body(element, own, kl, DeviceKeys(args.noise));
        } else {
          in_keys<S>(args.noise, [&](auto keys) { body(element, own, kl, keys); });
        }
      };
      constexpr bool is_light = std::is_same_v<S, Half> && std::is_same_v<Form, SigmaForm<T, true>>;
      if constexpr (!kKL) {
        if constexpr (is_light) {
          light(with_keys);
        } else {
          with_keys(form, NoKL{});
        }
      } else {
        const auto to = [&](auto of_prior) {
          with_keys(form, KLDensity<T, Form, decltype(of_prior)>{form, of_prior, static_cast<T>(args.free_bits),
                                                                 args.has_free_bits});
        };
        if constexpr (kAny<S>) {
          if (own_form) return to(SigmaForm<T>(prior_form));
        }
        if constexpr (kAny<S> || std::is_same_v<T, float>) {
          if (prior) return to(AlikePrior{});
        }
        if constexpr (is_light) {
          light(with_keys);
        } else {
          to(NoPrior{});
        }
      }
    });
  });
}

template <bool kKL>
void run_forward(const char* name, const SampleArgs& args) {
  Storage storage(args.compute);
  for (const View& view : args.in) storage.read(view);
  storage.write(args.z.dtype);
  // One of float32 is none that kernels of half types make.
  storage.read(args.z);
  in_sampler<kKL>(args, storage, [&](auto element, auto form, auto kl, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    using KL = decltype(kl);
    auto p = sample_params(args, form, kl, keys);
    using Params = decltype(p);
    Plan plan(*args.device, args.rows, kSampleChunk<S>);
    for (int k = 0; k < KL::kInputs; ++k) plan.read(args.in[k]);
    plan.read(args.eps, args.n_samples, args.eps_sample_stride);
    plan.write(args.z, args.n_samples, args.z_sample_stride);
    plan.chunks_by_index(args.noise.offset);
    plan.value(args.kl, kDType<T>, 1.0);
    if (!plan.resolve()) return;
    take(p, plan, 0, 1);
    p.z = plan.output(0);
    p.z_sample = plan.output_sample_stride(0);
    if (!launch_even_forward<S>(name, args, plan, p))
      launch(*args.device, name, sample_fwd_kernel<S, Params>, p, plan.blocks(), p.groups.count, plan.threads());
    plan.finish();
  });
}

template <bool kKL>
void run_backward(const char* name, const SampleArgs& args) {
  Storage storage(args.compute);
  for (const View& view : args.in) storage.read(view);
  storage.read_any(args.dz);
  storage.read_wide(args.dkl);
  for (const Gradient& gradient : args.gradients) storage.write(gradient);
  in_sampler<kKL>(args, storage, [&](auto element, auto form, auto kl, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    using KL = decltype(kl);
    constexpr int K = KL::kInputs;
    auto p = sample_params(args, form, kl, keys);
    using Params = decltype(p);
    Plan plan(*args.device, args.rows, kSampleChunk<S>);
    for (int k = 0; k < K; ++k) plan.read(args.in[k]);
    plan.read(args.dz, args.n_samples, args.dz_sample_stride);
    plan.read(args.dkl);
    plan.read(args.eps, args.n_samples, args.eps_sample_stride);
    plan.chunks_by_index(args.noise.offset);
    for (int k = 0; k < K; ++k) plan.gradient(args.gradients[k], kDType<T>);
    if (!plan.resolve()) return;
    take(p, plan, 2, K);
    p.dz = plan.input(K);
    p.dz_sample = plan.input_sample_stride(K);
    p.dkl = plan.input(K + 1);
    if (launch_even_backward<S>(name, args, plan, p)) return plan.finish();
    auto* kernel = sample_bwd_kernel<S, Params>;
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
