// z = μ + σε, log q(z) and log p(z) in one pass, and their gradients in one.
#include "rsample.h"

namespace vae_fast {
namespace cuda {
namespace {

template <class Form_, class Prior_, class Keys_>
struct LogProbParams {
  using Form = Form_;
  using Prior = Prior_;
  using Keys = Keys_;
  static constexpr int kInputs = Prior::kInputs;
  Work work;
  Form form;
  Prior prior;
  Keys keys;
  NoiseOptions noise;
  SampleGroups groups;
  Input in[kInputs];
  // ε, of the caller.
  Input eps;
  int64_t eps_sample;
  // Forward: rows are those of every sample.
  bool of_samples;
  Output z;
  // Backward.
  bool path;
  Input dz, dlog_q, dlog_p;
  int64_t dz_sample, dlog_q_sample, dlog_p_sample;
  bool draws;           // whether ε is needed
  double* parts;        // [group, what is summed, element], where samples are in groups
  int step;             // 0: everything; 1: the groups' sums; 2: from them
  Slot slots[kInputs];  // forward: log q and log p; backward: of the operands
  int* ticket;
  bool total;
};

// A sum over samples: of float what its additions round away is kept, as the sums of a CPU are double.
template <class T>
struct Kept : Compensated<T> {};
template <>
struct Kept<double> {
  double sum = 0;

  __device__ __forceinline__ void add(double x) { sum += x; }
  __device__ __forceinline__ double whole() const { return sum; }
};

// The operands of one element of a chunk.
template <class T, int K, int N>
__device__ __forceinline__ void pick(const T (&values)[K][N], int j, T (&own)[K]) {
#pragma unroll
  for (int k = 0; k < K; ++k) own[k] = values[k][j];
}

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, kResident<S, false, 1>)
    log_prob_fwd_kernel(const __grid_constant__ Params p) {
  using T = typename Compute<S>::Type;
  constexpr int N = kSampleChunk<S>, K = Params::kInputs;
  constexpr T half_log_2pi = static_cast<T>(0.91893853320467274178);
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const bool each = p.slots[0].kind == Slot::kEach;
  const Slot slots[2] = {p.slots[0], p.slots[1]};
  double sums[2] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const int64_t sample = p.of_samples ? walk.s : 0, row = p.of_samples ? walk.d : walk.row;
    T constants[K];
    constants_of(p.in, walk, constants);
#pragma unroll 1
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N> chunk(column, p.work.columns);
      T values[K][N], z[N], log_q[N], log_p[N];
      load_all<T, S>(p.in, walk, constants, chunk, values);
      eps_of<T, S>(p, keys, sample, index_of(p.noise, row, chunk), walk, chunk, z);
#pragma unroll
      for (int j = 0; j < N; ++j) {
        T own[K];
        pick(values, j, own);
        const T r = p.form.clamp(own[1]), e = z[j];
        log_q[j] = -fma(e * T(0.5), e, log_scale(r, p.form).log_sigma + half_log_2pi);
        z[j] = fma(p.form.sigma(r), e, own[0]);
        log_p[j] = p.prior(z[j], own).log_prob;
      }
      store<T, S>(z, p.z, walk.offset(p.z), chunk);
      if (each) {
        store<T, T>(log_q, slots[0].out, walk.offset(slots[0].out), chunk);
        store<T, T>(log_p, slots[1].out, walk.offset(slots[1].out), chunk);
      } else {
        sums[0] += chunk_sum(log_q, chunk);
        sums[1] += chunk_sum(log_p, chunk);
      }
    }
    if (!p.total) put_rows<0, 2>(slots, p.work, walk, sums, shared);
  }
  if (p.total) put_totals(slots, p.ticket, sums, shared);
}

// The same, of which the compiler does not know it: what is at its offsets is made where it is used, and not kept.
template <bool hidden>
__device__ __forceinline__ Walk again(Walk walk) {
  if constexpr (hidden) {
    hide(walk.s);
    hide(walk.d);
  }
  return walk;
}

// What is summed over samples, of each element: g, which reaches z; g·ε; log q's own gradient; the prior's two.
enum Sum { kG, kGEps, kQ, kPriorMean, kPriorRaw, kSums };

template <class S, class Params>
__global__ void __launch_bounds__(kThreads, 1) log_prob_bwd_kernel(const __grid_constant__ Params p) {
  using T = typename Compute<S>::Type;
  constexpr int N = kSampleChunk<S>, K = Params::kInputs, kOwnSums = K == 2 ? kPriorMean : kSums;
  // Of doubles to a prior there are not registers enough for what is the same for every sample: it is read anew.
  constexpr bool kAnew = sizeof(T) == 8 && K == 4;
  __shared__ double shared[kThreads / 32];
  const auto& keys = p.keys.get();
  const int group = static_cast<int>(blockIdx.y);
  const int64_t from = p.step == 0 ? 0 : p.groups.start(group);
  const int64_t to = p.step == 0 ? p.groups.n_samples : p.groups.start(group + 1);
  const int64_t numel = p.work.rows * p.work.columns;
  const auto there = [](const Input& input) { return input.data != nullptr || input.number; };
  const bool has_dz = there(p.dz), has_dq = there(p.dlog_q), has_dp = there(p.dlog_p);
  const bool with_g = has_dz || has_dp || (p.path && has_dq), with_q = has_dq && !p.path;
  double sums[K] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T constants[K];
    constants_of(p.in, walk, constants);
#pragma unroll 1
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N> chunk(column, p.work.columns);
      T values[K][N], sum[kOwnSums][N];
      load_all<T, S>(p.in, walk, constants, chunk, values);
      if (p.step != 2) {
        Kept<T> kept[kOwnSums][N];
        const uint64_t index = index_of(p.noise, walk.row, chunk);
#pragma unroll 1
        for (int64_t s = from; s < to; ++s) {
          const Walk here = again<kAnew>(walk);
          // A gradient of one sample, over the elements.
          const auto read = [&](const Input& input, int64_t step, T(&to)[N]) {
            const int64_t at = here.offset(input) + s * step;
            load<T, S>(input, true, at, constant_of<T>(input, at), chunk, to);
          };
          T eps[N], g[N], own[N];
#pragma unroll
          for (int j = 0; j < N; ++j) eps[j] = g[j] = T(0);
          if (p.draws) eps_of<T, S>(p, keys, s, index, walk, chunk, eps);
          if (has_dz) read(p.dz, p.dz_sample, g);
          if constexpr (kAnew) {
#pragma unroll
            for (int k = 0; k < K; ++k) {
              const int64_t at = here.offset(p.in[k]);
              const bool given = k < 2 || p.in[k].data || p.in[k].number;
              load<T, S>(p.in[k], false, at, given ? constant_of<T>(p.in[k], at) : T(0), chunk, values[k]);
            }
          }
          if (has_dp) {
            read(p.dlog_p, p.dlog_p_sample, own);
#pragma unroll
            for (int j = 0; j < N; ++j) {
              T operands[K];
              pick(values, j, operands);
              const T z = fma(p.form.sigma(p.form.clamp(operands[1])), eps[j], operands[0]);
              const GaussianTerm<T> term = p.prior(z, operands);
              const T slope = own[j] * term.dmean;
              g[j] = has_dz ? g[j] - slope : -slope;
              if constexpr (K == 4) {
                kept[kPriorMean][j].add(slope);
                kept[kPriorRaw][j].add(p.prior.inside(operands, own[j] * term.draw));
              }
            }
          }
          if (has_dq) {
            read(p.dlog_q, p.dlog_q_sample, own);
#pragma unroll
            for (int j = 0; j < N; ++j) {
              if (p.path) {
                g[j] -= own[j] * (eps[j] * (T(1) / p.form.sigma(p.form.clamp(values[1][j]))));
              } else {
                kept[kQ][j].add(own[j]);
              }
            }
          }
          if (with_g) {
#pragma unroll
            for (int j = 0; j < N; ++j) {
              kept[kG][j].add(g[j]);
              kept[kGEps][j].add(g[j] * eps[j]);
            }
          }
        }
        if (p.step == 1) {
          double* part = p.parts + kOwnSums * group * numel + walk.row * p.work.columns;
#pragma unroll
          for (int k = 0; k < kOwnSums; ++k)
#pragma unroll
            for (int j = 0; j < N; ++j)
              if (chunk.has(j)) part[k * numel + column + j] = static_cast<double>(kept[k][j].whole());
          continue;
        }
#pragma unroll
        for (int k = 0; k < kOwnSums; ++k)
#pragma unroll
          for (int j = 0; j < N; ++j) sum[k][j] = kept[k][j].whole();
      } else {
#pragma unroll
        for (int k = 0; k < kOwnSums; ++k)
#pragma unroll
          for (int j = 0; j < N; ++j) {
            double whole = 0;
            const double* part = p.parts + k * numel + walk.row * p.work.columns + column + j;
#pragma unroll 1
            for (int g = 0; chunk.has(j) && g < p.groups.count; ++g) whole += part[kOwnSums * g * numel];
            sum[k][j] = static_cast<T>(whole);
          }
      }
      if constexpr (kAnew) {
        const int64_t at = again<kAnew>(walk).offset(p.in[1]);
        load<T, S>(p.in[1], false, at, constant_of<T>(p.in[1], at), chunk, values[1]);
      }
      T gradients[K][N];
#pragma unroll
      for (int j = 0; j < N; ++j) {
        const T raw = values[1][j], r = p.form.clamp(raw);
        gradients[0][j] = with_g ? sum[kG][j] : T(0);
        T dr = T(0);
        if (p.slots[1].kind != Slot::kNone) {
          if (with_g) dr = sum[kGEps][j] * p.form.dsigma(r);
          if (with_q) dr -= sum[kQ][j] * log_scale(r, p.form).draw;
        }
        gradients[1][j] = p.form.inside(raw, dr);
        if constexpr (K == 4) {
          gradients[2][j] = has_dp ? sum[kPriorMean][j] : T(0);
          gradients[3][j] = has_dp ? sum[kPriorRaw][j] : T(0);
        }
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

// Calls body(S{}, form, prior, keys) for the kernels that a call takes. What is rare has kernels of any storage type
// only, and these take their keys from the seed.
template <class Body>
void in_kernel(const SampleLogProbArgs& args, const Storage& storage, Body body) {
  const bool to_prior = args.in[2] || args.in[3];
  // A σp that is not there is e^0.
  const SigmaOptions standard{kLogvar, 0, -infinity<double>(), infinity<double>(), false};
  storage.call(to_prior || args.eps, [&](auto element) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    in_form<S>(args.form, [&](auto form) {
      const auto with_keys = [&](auto prior) {
        if constexpr (kAny<S>) {
          if (args.eps) return body(element, form, prior, GivenNoise{});
        }
        in_keys<S>(args.noise, [&](auto keys) { body(element, form, prior, keys); });
      };
      if constexpr (kAny<S>) {
        if (to_prior)
          return with_keys(PriorDensity<SigmaForm<T>>{SigmaForm<T>(args.in[3] ? args.prior_form : standard)});
      }
      with_keys(PriorDensity<NoPrior>{});
    });
  });
}

// What both directions have.
template <class Form, class Prior, class Keys>
LogProbParams<Form, Prior, Keys> log_prob_params(const SampleLogProbArgs& args, const Form& form, const Prior& prior,
                                                 const Keys& keys) {
  const SampleGroups groups(args.rows.count * args.rows.size, args.n_samples);
  LogProbParams<Form, Prior, Keys> p{{}, form, prior, keys, args.noise, groups};
  p.path = args.path;
  return p;
}

}  // namespace

void rsample_log_prob_fwd(const SampleLogProbArgs& args) {
  Storage storage(args.compute);
  for (const View& view : args.in) storage.read(view);
  storage.write(args.z.dtype);
  const int64_t samples = args.n_samples, numel = args.rows.count * args.rows.size;
  // Every sample's elements, over which the operands are repeated.
  View in[4];
  for (int k = 0; k < 4; ++k)
    if (args.in[k]) in[k] = of_samples(args.in[k], samples, 0);
  for (int k = 0; k < 4; ++k) in[k].number = args.in[k].number;
  const View eps = args.eps ? of_samples(args.eps, samples, args.eps_sample_stride) : View();
  const View z = of_samples(args.z, samples, args.z_sample_stride);
  in_kernel(args, storage, [&](auto element, auto form, auto prior, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    auto p = log_prob_params(args, form, prior, keys);
    using Params = decltype(p);
    constexpr int K = Params::kInputs;
    Plan plan(*args.device, {samples * args.rows.count, args.rows.size}, kSampleChunk<S>);
    for (int k = 0; k < K; ++k) plan.read(in[k]);
    plan.read(eps);
    plan.write(z);
    p.of_samples = samples > 1;
    p.of_samples ? plan.chunks_by_sample(args.noise.offset, numel) : plan.chunks_by_index(args.noise.offset);
    plan.value(args.log_q, kDType<T>, 1.0);
    plan.value(args.log_p, kDType<T>, 1.0);
    if (!plan.resolve()) return;
    p.work = plan.work();
    for (int k = 0; k < K; ++k) p.in[k] = plan.input(k);
    p.eps = plan.input(K);
    p.eps_sample = 0;
    p.z = plan.output(0);
    for (int k = 0; k < 2; ++k) p.slots[k] = plan.slot(k);
    p.ticket = plan.ticket();
    p.total = plan.total();
    launch(*args.device, "rsample_log_prob_fwd", log_prob_fwd_kernel<S, Params>, p, plan.blocks(), 1, plan.threads());
    plan.finish();
  });
}

void rsample_log_prob_bwd(const SampleLogProbArgs& args) {
  Storage storage(args.compute);
  for (const View& view : args.in) storage.read(view);
  storage.read_any(args.dz);
  storage.read_any(args.dlog_q);
  storage.read_any(args.dlog_p);
  for (const Gradient& gradient : args.gradients) storage.write(gradient);
  in_kernel(args, storage, [&](auto element, auto form, auto prior, auto keys) {
    using S = decltype(element);
    using T = typename Compute<S>::Type;
    auto p = log_prob_params(args, form, prior, keys);
    using Params = decltype(p);
    constexpr int K = Params::kInputs;
    Plan plan(*args.device, args.rows, kSampleChunk<S>);
    for (int k = 0; k < K; ++k) plan.read(args.in[k]);
    plan.read(args.dz, args.n_samples, args.dz_sample_stride);
    plan.read(args.dlog_q, args.n_samples, args.dlog_q_sample_stride);
    plan.read(args.dlog_p, args.n_samples, args.dlog_p_sample_stride);
    plan.read(args.eps, args.n_samples, args.eps_sample_stride);
    plan.chunks_by_index(args.noise.offset);
    for (int k = 0; k < K; ++k) plan.gradient(args.gradients[k], kDType<T>);
    if (!plan.resolve()) return;
    p.work = plan.work();
    for (int k = 0; k < K; ++k) p.in[k] = plan.input(k);
    p.dz = plan.input(K);
    p.dz_sample = plan.input_sample_stride(K);
    p.dlog_q = plan.input(K + 1);
    p.dlog_q_sample = plan.input_sample_stride(K + 1);
    p.dlog_p = plan.input(K + 2);
    p.dlog_p_sample = plan.input_sample_stride(K + 2);
    p.eps = plan.input(K + 3);
    p.eps_sample = plan.input_sample_stride(K + 3);
    p.draws = args.dlog_p || (args.path && args.dlog_q) || (args.dz && args.gradients[1].kind != Gradient::kNone);
    for (int k = 0; k < K; ++k) p.slots[k] = plan.slot(k);
    p.ticket = plan.ticket();
    p.total = plan.total();
    auto* kernel = log_prob_bwd_kernel<S, Params>;
    if (p.groups.count > 1) {
      constexpr int64_t sums = K == 2 ? kPriorMean : kSums;
      const int64_t bytes = static_cast<int64_t>(sizeof(double)) * sums * p.groups.count * args.rows.count;
      p.parts = static_cast<double*>(args.device->scratch(bytes * args.rows.size));
      p.step = 1;
      launch(*args.device, "rsample_log_prob_bwd", kernel, p, plan.blocks(), p.groups.count, plan.threads());
      p.step = 2;
    }
    launch(*args.device, "rsample_log_prob_bwd", kernel, p, plan.blocks(), 1, plan.threads());
    plan.finish();
  });
}

}  // namespace cuda
}  // namespace vae_fast
