// The pass that all densities make: terms and gradients of every element, as they are or summed. An operator brings its
// operands and its term.
#pragma once

#include <initializer_list>

#include "../terms.h"
#include "columns.h"
#include "launch.h"
#include "plan.h"
#include "reduce.h"
#include "storage.h"

namespace vae_fast {
namespace cuda {

template <class Op>
struct DensityParams {
  Work work;
  Op op;
  Input in[Op::kInputs];
  Input upstream;
  double scale, divisor;
  Slot slots[Op::kSlots];  // the value, or in its place the weight's gradient, then the other gradients
  int* ticket;
  bool total;
};

// The upstream gradient of every element, times what the reduction makes of it.
template <class T>
__device__ __forceinline__ T scaled(T upstream, T scale, T divisor) {
  const T g = upstream * scale;
  return divisor == T(1) ? g : g / divisor;
}

// An operator's form for even chunks (Chunk) has fewer operands, which is a question less for every element.
template <class Op, class S, bool kValue, bool kGrad>
__global__ void __launch_bounds__(kThreads, kResident<S, Op::kEven, Op::kLoad>)
    density_kernel(const __grid_constant__ DensityParams<Op> p) {
  using T = typename Op::Number;
  constexpr int N = kChunk<S>, kSlots = Op::kSlots, kFirst = kValue ? 0 : 1, kLast = kGrad ? kSlots : 1;
  __shared__ double shared[kThreads / 32];
  const bool total = p.total;
  const T scale = static_cast<T>(p.scale), divisor = static_cast<T>(p.divisor);
  const bool has_upstream = p.upstream.data != nullptr || p.upstream.number;
  const bool each_upstream = kGrad && !Op::kEven && p.upstream.dense;
  double sums[kSlots] = {};
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    T constants[Op::kInputs], upstream = T(1);
    if (walk.some) {
#pragma unroll
      for (int k = 0; k < Op::kInputs; ++k) {
        if (Op::kEven && Op::dense(k)) continue;
        const bool there = Op::always(k) || p.in[k].data || p.in[k].number;
        constants[k] = there ? constant_of<T>(p.in[k], walk.offset(p.in[k])) : T(0);
      }
      if (kGrad && has_upstream) upstream = constant_of<T>(p.upstream, walk.offset(p.upstream));
    }
    upstream = scaled(upstream, scale, divisor);
#pragma unroll 1
    for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
      const Chunk<N, Op::kEven> chunk(column, p.work.columns);
      T in[Op::kInputs][N], g[N], out[kSlots][N];
#pragma unroll
      for (int k = 0; k < Op::kInputs; ++k) {
        if (Op::kEven && Op::dense(k)) {
          load_dense<T, S>(p.in[k], !Op::exact(k), walk.offset(p.in[k]), chunk, in[k]);
        } else if (Op::always(k) || p.in[k].data || p.in[k].number) {
          load<T, S>(p.in[k], !Op::exact(k), walk.offset(p.in[k]), constants[k], chunk, in[k]);
        }
      }
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
#pragma unroll
    for (int k = kFirst; k < kLast; ++k) {
      const Slot& slot = p.slots[k];
      if (slot.kind == Slot::kNone || slot.kind == Slot::kEach) continue;
      put_row(slot, p.work, walk, group_sum(sums[k], p.work.group, shared));
      sums[k] = 0;
    }
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

// `upstream` is the number of that input.
template <class Op>
DensityParams<Op> density_params(const DensityArgs& args, const Plan& plan, const Op& op, int upstream) {
  DensityParams<Op> p{plan.work(), op, {}, plan.input(upstream), args.scale, args.divisor, {}, plan.ticket(),
                      plan.total()};
  for (int k = 0; k < Op::kInputs; ++k) p.in[k] = plan.input(k);
  for (int k = 0; k < Op::kSlots; ++k) p.slots[k] = plan.slot(k);
  return p;
}

template <class S, class Op>
void launch_density(const char* name, const DensityArgs& args, const Plan& plan, const Op& op, int upstream, bool value,
                    bool grad) {
  if (!plan.main()) return;
  constexpr bool by_pass = Op::kByPass && !kAny<S>;
  auto* kernel = density_kernel<Op, S, true, true>;
  if (by_pass && !grad) kernel = density_kernel<Op, S, true, !by_pass>;
  if (by_pass && !value) kernel = density_kernel<Op, S, !by_pass, true>;
  launch(*args.device, name, kernel, density_params(args, plan, op, upstream), plan.blocks(), 1, plan.threads());
}

// Runs an operator of compute type Op::Number on operands of storage dtype S.
template <class S, class Op, size_t kViews, size_t kGradients>
void run_density(const char* name, const DensityArgs& args, const Op& op, const View* const (&views)[kViews],
                 const Gradient* const (&gradients)[kGradients]) {
  static_assert(kViews == Op::kInputs && kGradients + 1 == Op::kSlots, "an operand or a gradient is missing");
  using T = typename Op::Number;
  constexpr DType compute = kDType<T>;
  Plan plan(*args.device, args.rows, kChunk<S>, true);
  for (const View* view : views) plan.read(*view);
  plan.read(args.upstream);
  const bool dweight = args.dweight.kind != Gradient::kNone, value = args.out || dweight;
  if (dweight) {
    plan.gradient(args.dweight, compute);
  } else {
    plan.value(args.out, compute, args.scale / args.divisor);
  }
  bool grad = dweight;
  for (const Gradient* gradient : gradients) {
    plan.gradient(*gradient, compute);
    grad = grad || gradient->kind != Gradient::kNone;
  }
  if (!grad && !args.out) return;
  if (!plan.resolve()) return;
  bool even = Op::Even::kEven && !kAny<S> && op.plain() && plan.even() && !plan.input(Op::kInputs).dense;
  for (int k = 0; k < Op::Even::kInputs; ++k) even = even && (plan.input(k).dense || !Op::Even::dense(k));
  for (int k = Op::Even::kSlots; k < Op::kSlots; ++k) even = even && plan.slot(k).kind == Slot::kNone;
  if constexpr (Op::Even::kEven && !kAny<S>) {
    if (even) launch_density<S>(name, args, plan, op.even(), Op::kInputs, value, grad);
  }
  if (!even) launch_density<S>(name, args, plan, op, Op::kInputs, value, grad);
  for (int k = 0; k < Op::kSlots; ++k) {
    if (!plan.by_column(k)) continue;
    const Output& out = plan.columns_out(k);
    const ColumnSums sums(*args.device, plan.work().rows, plan.work().columns, out.data, out.dtype);
    const ColumnDensityParams<Op> p{density_params(args, plan, op, Op::kInputs), k, sums};
    launch(*args.device, name, column_density_kernel<Op>, p, sums.blocks, sums.slabs, kThreads);
    sums.finish(*args.device);
  }
  plan.finish();
}

// Calls f with the scale of a call: log σ² without anything to branch on, or any other.
template <class S, class F>
void in_scale(const ScaleOptions& form, const F& f) {
  using T = typename Compute<S>::Type;
  const Scale<T> scale(form);
  if constexpr (!kAny<S>) {
    if (scale.plain()) return f(Scale<T, true>(form));
  }
  f(scale);
}

// An operator's weight at an element: the upstream gradients with it and without, and whether it is 0, where everything
// is but its own gradient, whatever the term and the upstream gradient are.
template <class T>
struct Weighted {
  T with, without, weight;
  bool zero, itself;

  // `itself`: the value is the weight's gradient.
  __device__ __forceinline__ Weighted(T upstream, T weight_, bool there, bool itself_)
      : with(there ? upstream * weight_ : upstream),
        without(upstream),
        weight(there ? weight_ : T(1)),
        zero(there && weight_ == T(0)),
        itself(itself_) {}
  __device__ __forceinline__ T value(T term) const {
    return itself ? term * without : zero ? T(0) : term * weight;
  }
  __device__ __forceinline__ T gradient(T value) const { return zero ? T(0) : value; }
};

// The storage type of a density's call: its exact operands, those that may be bytes, and its gradients.
inline Storage storage_of(const DensityArgs& args, std::initializer_list<const View*> exact,
                          std::initializer_list<const View*> any, std::initializer_list<const Gradient*> gradients) {
  Storage storage(args.is_double);
  for (const View* view : exact) storage.read(*view);
  for (const View* view : any) storage.read_any(*view);
  storage.read_any(args.weight);
  storage.read_wide(args.upstream);
  for (const Gradient* gradient : gradients) storage.write(*gradient);
  storage.write(args.dweight);
  return storage;
}

}  // namespace cuda
}  // namespace vae_fast
