// The pass that all densities (densities.h) make over their elements: terms and gradients in one, as they are or
// summed.
#pragma once

#include "../densities.h"
#include "columns.h"
#include "even_density.h"
#include "kept.h"
#include "reduce.h"
#include "storage.h"

namespace vae_fast {
namespace cuda {

// A density as kernels run it, with the weight as its last operand.
template <class T, class Density_, class Traits_, int parameters>
struct DensityOp {
  using Number = T;
  using Density = Density_;
  using Traits = Traits_;
  static constexpr int kInputs = Density::kInputs + 1, kSlots = 1 + Density::kInputs;
  Density density;
  bool weighted, dweight;

  static constexpr __device__ __forceinline__ bool always(int k) { return k < Density::kInputs && Density::always(k); }
  // Whether it has the storage type, and not any.
  static constexpr __device__ __forceinline__ bool exact(int k) { return k < parameters; }

  // out: the term, or the weight's gradient, and the other gradients. Where the weight is 0 they are, whatever the term
  // and the upstream gradient; but not its own.
  __device__ __forceinline__ void operator()(const T (&in)[kInputs], T g, T (&out)[kSlots]) const {
    T operands[Density::kInputs], d[Density::kInputs], term;
#pragma unroll
    for (int k = 0; k < Density::kInputs; ++k) operands[k] = in[k];
    const T w = weighted ? in[Density::kInputs] : T(1);
    const bool zero = weighted && w == T(0);
    density(operands, weighted ? g * w : g, term, d);
    out[0] = dweight ? term * g : zero ? T(0) : term * w;
#pragma unroll
    for (int k = 1; k < kSlots; ++k) out[k] = zero ? T(0) : d[k - 1];
  }
};

template <class Op, class S, bool kValue, bool kGrad>
__global__ void __launch_bounds__(kThreads, kResident<S, false, Op::Traits::kLoad>)
    density_kernel(const __grid_constant__ DensityParams<Op> p) {
  using T = typename Op::Number;
  constexpr int N = kChunk<S>, kSlots = Op::kSlots, kFirst = kValue ? 0 : 1, kLast = kGrad ? kSlots : 1;
  __shared__ double shared[kThreads / 32];
  if constexpr (kGrad && kKeeps<S>) {
    // There are no sums then, which a block's threads would make together.
    if (p.kept && scales_kept<S, N>(p)) return;
  }
  const bool total = p.total;
  const T scale = static_cast<T>(p.scale), divisor = static_cast<T>(p.divisor);
  const bool has_upstream = p.upstream.data != nullptr || p.upstream.number;
  const bool each_upstream = kGrad && p.upstream.dense;
  double sums[kSlots] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T constants[Op::kInputs], upstream = T(1);
    if (walk.some) {
#pragma unroll
      for (int k = 0; k < Op::kInputs; ++k) {
        const bool there = Op::always(k) || p.in[k].data || p.in[k].number;
        constants[k] = there ? constant_of<T>(p.in[k], walk.offset(p.in[k])) : T(0);
      }
      if (kGrad && has_upstream) upstream = constant_of<T>(p.upstream, walk.offset(p.upstream));
    }
    upstream = scaled(upstream, scale, divisor);
#pragma unroll 1
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N> chunk(column, p.work.columns);
      T in[Op::kInputs][N], g[N], out[kSlots][N];
#pragma unroll
      for (int k = 0; k < Op::kInputs; ++k)
        load<T, S>(p.in[k], !Op::exact(k), walk.offset(p.in[k]), constants[k], chunk, in[k]);
      if (each_upstream) {
        load_dense<T, std::conditional_t<kAny<S>, S, T>>(p.upstream, false, walk.offset(p.upstream), chunk, g);
#pragma unroll
        for (int j = 0; j < N; ++j) g[j] = scaled(g[j], scale, divisor);
      } else {
#pragma unroll
        for (int j = 0; j < N; ++j) g[j] = upstream;
      }
#pragma unroll
      for (int j = 0; j < N; ++j) {
        T own[Op::kInputs], terms[kSlots];
#pragma unroll
        for (int k = 0; k < Op::kInputs; ++k) own[k] = in[k][j];
        p.op(own, g[j], terms);
#pragma unroll
        for (int k = kFirst; k < kLast; ++k) out[k][j] = terms[k];
      }
#pragma unroll
      for (int k = kFirst; k < kLast; ++k) {
        const Slot& slot = p.slots[k];
        if (slot.kind == Slot::kNone) continue;
        if (slot.kind != Slot::kEach) {
          sums[k] += chunk_sum(out[k], chunk);
          continue;
        }
        if (k == 0 && slot.factor != 1.0) {
#pragma unroll
          for (int j = 0; j < N; ++j) out[0][j] = static_cast<T>(static_cast<double>(out[0][j]) * slot.factor);
        }
        store<T, S>(out[k], slot.out, walk.offset(slot.out), chunk);
      }
    }
    if (total) continue;
    put_rows<kFirst, kLast>(p.slots, p.work, walk, sums, shared);
  }
  if (!total) return;
  put_totals(p.slots, p.ticket, sums, shared);
}

template <class Op>
struct ColumnDensityParams {
  DensityParams<Op> density;
  int slot;
  ColumnSums sums;
};

// terms[slot], without an array in memory.
template <int kFirst, class T, int kSlots>
__device__ __forceinline__ T picked(const T (&terms)[kSlots], int slot) {
  if constexpr (kFirst + 1 < kSlots) {
    return slot == kFirst ? terms[kFirst] : picked<kFirst + 1>(terms, slot);
  } else {
    return terms[kSlots - 1];
  }
}

// A gradient with one value a column: a block sums a slab of rows of 32 columns.
template <class Op>
__global__ void __launch_bounds__(kThreads, 1)
    column_density_kernel(const __grid_constant__ ColumnDensityParams<Op> c) {
  using T = typename Op::Number;
  const DensityParams<Op>& p = c.density;
  __shared__ double shared[kDown][kAcross];
  const T scale = static_cast<T>(p.scale), divisor = static_cast<T>(p.divisor);
  const auto at = [&](const Input& input, int64_t s, int64_t d, int64_t column) {
    return input.number ? static_cast<T>(input.value)
                        : load_one<T>(input.data, input.dtype, s * input.s + d * input.d + (input.dense ? column : 0));
  };
  sum_slabs(c.sums, shared, [&](int64_t row, int64_t column) {
    const int64_t s = p.work.inner == p.work.rows ? 0 : quotient(row, p.work.inner), d = row - s * p.work.inner;
    T in[Op::kInputs], terms[Op::kSlots];
#pragma unroll
    for (int k = 0; k < Op::kInputs; ++k)
      in[k] = Op::always(k) || p.in[k].data || p.in[k].number ? at(p.in[k], s, d, column) : T(0);
    const bool upstream = p.upstream.data || p.upstream.number;
    p.op(in, scaled(upstream ? at(p.upstream, s, d, column) : T(1), scale, divisor), terms);
    return static_cast<double>(picked<0>(terms, c.slot));
  });
}

template <class S, class Op>
void launch_density(const char* name, const DensityCall& args, const Plan& plan, const Op& op, bool value, bool grad) {
  if (!plan.main()) return;
  constexpr bool by_pass = Op::Traits::by_pass(false) && !kAny<S>;
  auto* kernel = density_kernel<Op, S, true, true>;
  if (by_pass && !grad) kernel = density_kernel<Op, S, true, !by_pass>;
  if (by_pass && !value) kernel = density_kernel<Op, S, !by_pass, true>;
  launch(*args.device, name, kernel, density_params(args, plan, op), plan.blocks(), 1, plan.threads());
}

// A density with its light one, which is for calls all of whose operands and gradients of full size are of half types;
// data and weights may be bytes.
template <class Args, class Exact, class Light>
LightOr<Exact, Light> with_light(const Args& args, const Exact& exact, const Light& light) {
  bool all = true;
  const auto half = [](DType dtype) { return dtype == DType::kBFloat16 || dtype == DType::kFloat16; };
  const auto look = [&](const View& view, bool data) {
    const bool full = view && !view.number && !view.constant();
    all = all && (!full || half(view.dtype) || (data && bytes(view.dtype)));
  };
  for (int k = 0; k < Args::kInputs; ++k) look(args.in[k], k >= Args::kParameters);
  look(args.weight, true);
  const auto write = [&](const Gradient& to) { all = all && (to.kind != Gradient::kEach || half(to.view.dtype)); };
  for (const Gradient& gradient : args.gradients) write(gradient);
  write(args.dweight);
  return {exact, light, all};
}

template <class Density>
const Density& exact_of(const Density& density) {
  return density;
}
template <class Exact, class Light>
const Exact& exact_of(const LightOr<Exact, Light>& density) {
  return density.exact;
}

// Runs a density that computes in the type of storage S.
template <class S, class Traits, class Density, class Args>
void run_density(const char* name, const Args& args, const Density& density) {
  using T = typename Compute<S>::Type;
  using Op = DensityOp<T, Density, Traits, Args::kParameters>;
  static_assert(Args::kInputs >= Density::kInputs, "an operand is missing");
  constexpr DType compute = kDType<T>;
  Plan plan(*args.device, args.rows, kChunk<S>, true);
  for (int k = 0; k < Density::kInputs; ++k) plan.read(args.in[k]);
  plan.read(args.weight);
  plan.read(args.upstream);
  const bool dweight = args.dweight.kind != Gradient::kNone, value = args.out || dweight;
  if (dweight) {
    plan.gradient(args.dweight, compute);
  } else {
    plan.value(args.out, compute, args.scale / args.divisor);
  }
  bool grad = dweight;
  for (int k = 0; k < Density::kInputs; ++k) {
    plan.gradient(args.gradients[k], compute);
    grad = grad || args.gradients[k].kind != Gradient::kNone;
  }
  if (!grad && !args.out) return;
  if (!plan.resolve()) return;
  const Op op{density, static_cast<bool>(args.weight), dweight};
  const auto exact = exact_of(density);
  using ExactOp = DensityOp<T, std::decay_t<decltype(exact)>, Traits, Args::kParameters>;
  const ExactOp exact_op{exact, op.weighted, dweight};
  bool even = false;
  if constexpr (Traits::kEvenInputs > 0 && std::is_same_v<T, float> && !kAny<S>) {
    const auto launched = [&](auto element) {
      if (!Traits::serves(density)) return false;
      using Even = decltype(Traits::even(density));
      const EvenOp<Even, Traits, Args::kParameters> op_even{Traits::even(density)};
      return launch_even<decltype(element)>(name, args, plan, op_even, value, grad);
    };
    if constexpr (std::is_same_v<S, float>) {
      even = launched(float{});
    } else {
      even = launched(BFloat16{});
      if constexpr (Traits::kFloat16) even = even || launched(Float16{});
    }
  }
  if (!even) launch_density<S>(name, args, plan, op, value, grad);
  for (int k = 0; k < Op::kSlots; ++k) {
    if (!plan.by_column(k)) continue;
    const Output& out = plan.columns_out(k);
    const ColumnSums sums(*args.device, plan.work().rows, plan.work().columns, out.data, out.dtype);
    const ColumnDensityParams<ExactOp> p{density_params(args, plan, exact_op), k, sums};
    launch(*args.device, name, column_density_kernel<ExactOp>, p, sums.blocks, sums.slabs, kThreads);
    sums.finish(*args.device);
  }
  plan.finish();
}

// Calls f with a value of a density's storage type (Storage::call).
template <class Args, class F>
void in_storage(const Args& args, bool of_any, const F& f) {
  Storage storage(args.compute);
  for (int k = 0; k < Args::kInputs; ++k)
    k < Args::kParameters ? storage.read(args.in[k]) : storage.read_any(args.in[k]);
  storage.read_any(args.weight);
  storage.read_wide(args.upstream);
  for (const Gradient& gradient : args.gradients) storage.write(gradient);
  storage.write(args.dweight);
  storage.call(of_any, f);
}

}  // namespace cuda
}  // namespace vae_fast
