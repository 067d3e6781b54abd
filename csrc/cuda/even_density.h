// The pass of density.h where all chunks are even: no weight, one upstream gradient, the first operands of a density
// and their gradients alone. So an element asks no question that its call does not.
#pragma once

#include "density_params.h"
#include "even.h"
#include "kept.h"

namespace vae_fast {
namespace cuda {

// Whether a density has a quick way for most chunks: `quick`, where `is_quick` of all of a chunk's elements.
template <class Density, class = void>
constexpr bool kHasQuick = false;
template <class Density>
constexpr bool kHasQuick<Density, std::void_t<decltype(&Density::quick)>> = true;

template <class Density>
constexpr bool kHasLight = false;
template <class Exact, class Light>
constexpr bool kHasLight<LightOr<Exact, Light>> = true;

template <class Density_, class Traits_, int parameters>
struct EvenOp {
  using Number = float;
  using Density = Density_;
  using Traits = Traits_;
  static constexpr int kInputs = Traits::kEvenInputs, kSlots = 1 + Traits::kEvenGradients;
  Density density;

  // Whether it has the storage type, and not another that may be (Kind).
  static constexpr __host__ __device__ __forceinline__ bool exact(int k) { return Traits::operand(k) < parameters; }

  // A chunk's terms and gradients, out[first] to out[last].
  template <int first, int last, int N>
  __device__ __forceinline__ void chunk(const float (&in)[kInputs][N], float g, float (&out)[kSlots][N]) const {
    if constexpr (kHasLight<Density>) {
      density.is_light ? of<first, last>(density.light, in, g, out) : of<first, last>(density.exact, in, g, out);
    } else {
      of<first, last>(density, in, g, out);
    }
  }

 private:
  template <int first, int last, class One, int N>
  static __device__ __forceinline__ void of(const One& one, const float (&in)[kInputs][N], float g,
                                            float (&out)[kSlots][N]) {
    if constexpr (kHasQuick<One>) {
      bool quick = true;
#pragma unroll
      for (int j = 0; j < N; ++j) {
        float operands[Density::kInputs];
        of_element(in, j, operands);
        quick = quick && one.is_quick(operands);
      }
      if (quick) return each<true, first, last>(one, in, g, out);
    }
    each<false, first, last>(one, in, g, out);
  }
  template <int N>
  static __device__ __forceinline__ void of_element(const float (&in)[kInputs][N], int j,
                                                    float (&operands)[Density::kInputs]) {
#pragma unroll
    for (int k = 0; k < Density::kInputs; ++k) operands[k] = 0.0f;
#pragma unroll
    for (int k = 0; k < kInputs; ++k) operands[Traits::operand(k)] = in[k][j];
  }
  template <bool kQuick, int first, int last, class One, int N>
  static __device__ __forceinline__ void each(const One& one, const float (&in)[kInputs][N], float g,
                                              float (&out)[kSlots][N]) {
#pragma unroll
    for (int j = 0; j < N; ++j) {
      float operands[Density::kInputs], term, d[Density::kInputs];
      of_element(in, j, operands);
      if constexpr (kQuick) {
        one.quick(operands, g, term, d);
      } else {
        one(operands, g, term, d);
      }
#pragma unroll
      for (int k = first; k < last; ++k) out[k][j] = k == 0 ? term : d[k - 1];
    }
  }
};

// kSums: there is a value, and it is summed.
template <class Op, class S, bool kValue, bool kGrad, bool kSums>
__global__ void __launch_bounds__(kThreads, kResident<S, true, Op::Traits::kLoad>)
    even_density_kernel(const __grid_constant__ DensityParams<Op> p) {
  using Traits = typename Op::Traits;
  constexpr int N = kChunk<S>, kSlots = Op::kSlots, kInputs = Op::kInputs;
  constexpr int kFirst = kValue ? 0 : 1, kLast = kGrad ? kSlots : 1;
  __shared__ double shared[kThreads / 32];
  if constexpr (kGrad && kKeeps<S>) {
    // There are no sums then, which a block's threads would make together.
    if (p.kept && scales_kept<S, N>(p)) return;
  }
  const bool total = p.total;
  const float scale = static_cast<float>(p.scale), divisor = static_cast<float>(p.divisor);
  const bool has_upstream = p.upstream.data != nullptr || p.upstream.number;
  double sums[kSlots] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const char* starts[kInputs];
    float constants[kInputs], upstream = 1.0f;
    char* ends[kSlots];
#pragma unroll
    for (int k = 0; k < kInputs; ++k) {
      starts[k] = start_of(p.in[k], walk);
      if (!Traits::dense(k)) constants[k] = walk.some ? constant_of<float>(p.in[k], walk.offset(p.in[k])) : 0.0f;
    }
#pragma unroll
    for (int k = kFirst; k < kLast; ++k)
      if (k > 0 || !kSums) ends[k] = start_of(p.slots[k].out, walk);
    if (kGrad && has_upstream && walk.some) upstream = constant_of<float>(p.upstream, walk.offset(p.upstream));
    upstream = scaled(upstream, scale, divisor);
    const uint32_t columns = columns_of(walk);
    const auto walked = [&](auto other) {
      constexpr Kind kOther = decltype(other)::value;
#pragma unroll 1
      for (uint32_t place = 0; place < columns; place += static_cast<uint32_t>(p.work.group) * N) {
        Raw<N> raw[kInputs];
#pragma unroll
        for (int k = 0; k < kInputs; ++k) {
          if (!Traits::dense(k) && !p.in[k].dense) continue;
          Op::exact(k) ? fetch<S, Kind::kOwn>(raw[k], starts[k], place) : fetch<S, kOther>(raw[k], starts[k], place);
        }
        float in[kInputs][N], out[kSlots][N];
#pragma unroll
        for (int k = 0; k < kInputs; ++k) {
          if (!Traits::dense(k) && !p.in[k].dense) {
            fill(constants[k], in[k]);
          } else {
            Op::exact(k) ? numbers<S, Kind::kOwn>(raw[k], p.in[k].dtype, in[k])
                         : numbers<S, kOther>(raw[k], p.in[k].dtype, in[k]);
          }
        }
        p.op.template chunk<kFirst, kLast>(in, upstream, out);
#pragma unroll
        for (int k = kFirst; k < kLast; ++k) {
          const Slot& slot = p.slots[k];
          // What a gradient is of an operand that is dense is known.
          const bool each = k == 0 ? !kSums && slot.kind == Slot::kEach
                                   : slot.kind == Slot::kEach || (Traits::dense(k - 1) && slot.kind != Slot::kNone);
          if (k == 0 ? kSums || slot.kind == Slot::kRow || slot.kind == Slot::kTotal
                     : !Traits::dense(k - 1) && (slot.kind == Slot::kRow || slot.kind == Slot::kTotal)) {
            sums[k] += even_sum(out[k]);
          } else if (each) {
            if (k > 0) {
              put<S>(out[k], ends[k], place);
            } else {
              if (slot.factor != 1.0) {
#pragma unroll
                for (int j = 0; j < N; ++j)
                  out[0][j] = static_cast<float>(static_cast<double>(out[0][j]) * slot.factor);
              }
              put<float>(out[0], ends[0], place);
            }
          }
        }
      }
    };
    if constexpr (Op::exact(kInputs - 1)) {
      walked(std::integral_constant<Kind, Kind::kOwn>());
    } else {
      in_kind<S, Traits::kBytes>(p.in[kInputs - 1].dtype, walked);
    }
    if (total) continue;
    put_rows<kFirst, kLast>(p.slots, p.work, walk, sums, shared);
  }
  if (!total) return;
  put_totals(p.slots, p.ticket, sums, shared);
}

// Whether a call has all operands that the kernels of even chunks have, dense where they want them so, in dtypes that
// they read and write, and no other operand or gradient.
template <class Op, class S>
bool has_even_operands(const Plan& plan, bool sums) {
  constexpr int kInputs = Op::Density::kInputs;
  constexpr DType own = kStorage<S>;
  if (!plan.even() || plan.input(kInputs + 1).dense || plan.work().segment >> 31) return false;
  int there = 0;
  for (int k = 0; k <= kInputs; ++k) there += plan.input(k).data || plan.input(k).number ? 1 : 0;
  if (there != Op::kInputs) return false;
  for (int k = 0; k < Op::kInputs; ++k) {
    const Input& input = plan.input(Op::Traits::operand(k));
    if (!(input.data || input.number) || (!input.dense && Op::Traits::dense(k))) return false;
    const bool other = !Op::exact(k) && (bytes(input.dtype) ? Op::Traits::kBytes : input.dtype == DType::kFloat32);
    if (input.dense && input.dtype != own && !other) return false;
  }
  for (int k = 0; k <= kInputs; ++k) {
    const Slot& slot = plan.slot(k);
    if (slot.kind == Slot::kNone) continue;
    if (k >= Op::kSlots || (k == 0 && sums && slot.kind == Slot::kEach)) return false;
    if (k > 0 && (slot.kind == Slot::kEach ? slot.out.dtype != own : Op::Traits::dense(k - 1))) return false;
  }
  return true;
}

// Runs it, where a call's chunks are even; whether they are.
template <class S, class Op>
bool launch_even(const char* name, const DensityCall& args, const Plan& plan, const Op& op, bool value, bool grad) {
  constexpr bool by_pass = Op::Traits::by_pass(true);
  if (!has_even_operands<Op, S>(plan, by_pass && value && grad)) return false;
  if (!plan.main()) return true;
  auto* kernel = even_density_kernel<Op, S, true, true, by_pass>;
  if (by_pass && !grad) kernel = even_density_kernel<Op, S, true, !by_pass, false>;
  if (by_pass && !value) kernel = even_density_kernel<Op, S, !by_pass, true, false>;
  auto params = density_params(args, plan, op);
  for (int k = 0; k < Op::kInputs; ++k) params.in[k] = plan.input(Op::Traits::operand(k));
  launch(*args.device, name, kernel, params, plan.blocks(), 1, plan.threads());
  return true;
}

}  // namespace cuda
}  // namespace vae_fast
