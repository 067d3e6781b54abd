// The passes of rsample.h where all chunks are even (even.h): one sample, dense operands of one dtype, no prior, no
// floor, and at τ = 1.
#pragma once

#include "density_params.h"
#include "even.h"
#include "sample_params.h"

namespace vae_fast {
namespace cuda {

// The KL's term of an element, and g times its derivatives.
template <class KL>
__device__ __forceinline__ void even_kl(const KL& kl, float mu, float raw, float g, float& term, float (&d)[2]) {
  const float in[2] = {mu, raw};
  Unfloored<KL>{kl}(in, g, term, d);
}

// Registers that a pass needs (kResident): what a KL is made of besides, some more.
template <class S, class Params>
constexpr int kEvenLoad = kHas<typename Params::KL> ? 1 : 0;

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, kResident<S, true, kEvenLoad<S, Params>>)
    even_sample_fwd_kernel(const __grid_constant__ Params p) {
  constexpr bool kKL = kHas<typename Params::KL>;
  constexpr int N = kSampleChunk<S>;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const bool each = p.slots[0].kind == Slot::kEach;
  double sums[1] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const char *mus = start_of(p.in[0], walk), *raws = start_of(p.in[1], walk);
    char *zs = start_of(p.z, walk), *kls = kKL ? start_of(p.slots[0].out, walk) : nullptr;
    const uint64_t index = index_of(p.noise, walk.row, Chunk<N, true>(walk.first, p.work.columns));
    const uint32_t columns = columns_of(walk);
    // With the KL's terms as they are or summed: a loop each.
    const auto chunks = [&](auto as_they_are) {
#pragma unroll 1
      for (uint32_t place = 0; place < columns; place += static_cast<uint32_t>(p.work.group) * N) {
        Raw<N> of_mu, of_raw;
        fetch<S, Kind::kOwn>(of_mu, mus, place);
        fetch<S, Kind::kOwn>(of_raw, raws, place);
        float mu[N], raw[N], z[N];
        numbers<S, Kind::kOwn>(of_mu, kStorage<S>, mu);
        numbers<S, Kind::kOwn>(of_raw, kStorage<S>, raw);
        if constexpr (kKL) {
          float terms[N];
#pragma unroll
          for (int j = 0; j < N; ++j) {
            float unused[2];
            even_kl(p.kl, mu[j], raw[j], 1.0f, terms[j], unused);
          }
          if constexpr (decltype(as_they_are)::value) {
            put<float>(terms, kls, place);
          } else {
            sums[0] += even_sum(terms);
          }
        }
        normals(keys, p.noise.first_sample, index + place, z);
#pragma unroll
        for (int j = 0; j < N; ++j) z[j] = fma(p.form.sigma(p.form.clamp(raw[j])), z[j], mu[j]);
        put<S>(z, zs, place);
      }
    };
    if (kKL && each) {
      chunks(std::bool_constant<kKL>());
    } else {
      chunks(std::false_type());
    }
    if (!kKL || p.total || each) continue;
    put_row(p.slots[0], p.work, walk, group_sum(sums[0], p.work.group, shared));
    sums[0] = 0;
  }
  if (kKL && p.total) {
    const Slot slots[1] = {p.slots[0]};
    put_totals(slots, p.ticket, sums, shared);
  }
}

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, kResident<S, true, kEvenLoad<S, Params>>)
    even_sample_bwd_kernel(const __grid_constant__ Params p) {
  constexpr bool kKL = kHas<typename Params::KL>;
  constexpr int N = kSampleChunk<S>;
  const auto& keys = p.keys.get();
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const char *mus = kKL ? start_of(p.in[0], walk) : nullptr, *raws = start_of(p.in[1], walk);
    const char* dzs = start_of(p.dz, walk);
    char *dmus = start_of(p.slots[0].out, walk), *draws = start_of(p.slots[1].out, walk);
    const float dkl = kKL && walk.some ? constant_of<float>(p.dkl, walk.offset(p.dkl)) : 0.0f;
    const uint64_t index = index_of(p.noise, walk.row, Chunk<N, true>(walk.first, p.work.columns));
    const uint32_t columns = columns_of(walk), step = static_cast<uint32_t>(p.work.group) * N;
    // Each is stepped by itself: made of `place` they took more instructions.
    uint64_t counter = index / kPerCounter, at = 0;
#pragma unroll 1
    for (uint32_t place = 0; place < columns; place += step, counter += step / kPerCounter, at += step * sizeof(S)) {
      Raw<N> of_mu, of_raw, of_dz;
      fetch<S, Kind::kOwn>(of_raw, raws + at, 0);
      fetch<S, Kind::kOwn>(of_dz, dzs + at, 0);
      if (kKL) fetch<S, Kind::kOwn>(of_mu, mus + at, 0);
      float mu[N], raw[N], dm[N], dr[N];
      numbers<S, Kind::kOwn>(of_raw, kStorage<S>, raw);
      numbers<S, Kind::kOwn>(of_dz, kStorage<S>, dm);
      if (kKL) numbers<S, Kind::kOwn>(of_mu, kStorage<S>, mu);
      normals_from(keys, p.noise.first_sample, counter, dr);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        dr[j] = dm[j] * dr[j] * p.form.dsigma(p.form.clamp(raw[j]));
        if constexpr (kKL) {
          float term, d[2];
          even_kl(p.kl, mu[j], raw[j], dkl, term, d);
          dm[j] += d[0];
          dr[j] += d[1];
        }
        dr[j] = p.form.inside(raw[j], dr[j]);
      }
      put<S>(dm, dmus + at, 0);
      put<S>(dr, draws + at, 0);
    }
  }
}

// Runs body with p's kernels for S, or, of half types, for that of the operands.
template <class S, class Body>
bool in_half(DType dtype, const Body& body) {
  if constexpr (!std::is_same_v<S, Half>) {
    return body(S{});
  } else {
    return dtype == DType::kBFloat16 ? body(BFloat16{}) : body(Float16{});
  }
}

template <class S, class KL>
constexpr bool kMayBeEven = sizeof(S) < 8 && !kAny<S> && KL::kInputs == 2;

template <class Params>
bool is_even(const SampleArgs& args, const Plan& plan, const Params& p, DType dtype) {
  const auto dense = [&](const Input& input) { return input.dense && input.dtype == dtype; };
  return args.n_samples == 1 && args.temperature == 1 && !args.has_free_bits && plan.even() && dense(p.in[0]) &&
         dense(p.in[1]) && !(plan.work().segment >> 31);
}

template <class S, class Params>
bool launch_even_forward(const char* name, const SampleArgs& args, const Plan& plan, const Params& p) {
  if constexpr (kMayBeEven<S, typename Params::KL>) {
    return in_half<S>(p.in[0].dtype, [&](auto element) {
      using Own = decltype(element);
      if (!is_even(args, plan, p, kStorage<Own>) || p.z.dtype != kStorage<Own>) return false;
      launch(*args.device, name, even_sample_fwd_kernel<Own, Params>, p, plan.blocks(), 1, plan.threads());
      return true;
    });
  }
  return false;
}

// Where both gradients are asked for, of z and, with a KL, of one value a row of it or altogether.
template <class S, class Params>
bool launch_even_backward(const char* name, const SampleArgs& args, const Plan& plan, const Params& p) {
  if constexpr (kMayBeEven<S, typename Params::KL>) {
    return in_half<S>(p.in[1].dtype, [&](auto element) {
      using Own = decltype(element);
      const auto each = [&](const Slot& slot) { return slot.kind == Slot::kEach && slot.out.dtype == kStorage<Own>; };
      if (!is_even(args, plan, p, kStorage<Own>) || !each(p.slots[0]) || !each(p.slots[1])) return false;
      if (!p.dz.dense || p.dz.dtype != kStorage<Own>) return false;
      if (kHas<typename Params::KL> && (p.dkl.dense || !(p.dkl.data || p.dkl.number))) return false;
      launch(*args.device, name, even_sample_bwd_kernel<Own, Params>, p, plan.blocks(), 1, plan.threads());
      return true;
    });
  }
  return false;
}

}  // namespace cuda
}  // namespace vae_fast
