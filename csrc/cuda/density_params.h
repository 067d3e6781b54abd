// What the kernels of a density are told of a call, and what an operator says of its kernels.
#pragma once

#include "launch.h"
#include "plan.h"

namespace vae_fast {
namespace cuda {

// What the kernels of a density are, of as many operands and gradients as those of even chunks (even_density.h) have;
// 0: there are none. An operator's own hide what differs.
template <int even_inputs = 0, int even_gradients = 0>
struct DensityTraits {
  static constexpr int kEvenInputs = even_inputs, kEvenGradients = even_gradients;
  // Which of the density's operands those are; gradients are of the first.
  static constexpr __host__ __device__ __forceinline__ int operand(int k) { return k; }
  // Which of those operands are dense in every call with even chunks.
  static constexpr __host__ __device__ __forceinline__ bool dense(int) { return true; }
  // Whether there are some of bytes too, in the place of the last operand where that may be of them, and of float16. Of
  // counts neither is much used, and their kernels are long to compile.
  static constexpr bool kBytes = true, kFloat16 = true;
  // Registers that a kernel needs (kResident).
  static constexpr int kLoad = 0;
  // Whether there are kernels of their own for the value, for the gradients, and for both.
  static constexpr bool by_pass(bool /*even*/) { return false; }
  // Whether a density of these options has kernels of even chunks, and what they run.
  template <class Density>
  static bool serves(const Density&) {
    return true;
  }
  template <class Density>
  static Density even(const Density& density) {
    return density;
  }
};

// Op::kInputs operands, Op::kSlots results.
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
  bool kept = false;  // the gradients that are there may be scaled: kept.h
};

// The upstream gradient of every element, times what the reduction makes of it.
template <class T>
__device__ __forceinline__ T scaled(T upstream, T scale, T divisor) {
  const T g = upstream * scale;
  return divisor == T(1) ? g : g / divisor;
}

// Operands are inputs of the plan in their order, then the weight and the upstream gradient.
template <class Op>
DensityParams<Op> density_params(const DensityCall& args, const Plan& plan, const Op& op) {
  DensityParams<Op> p{plan.work(),  op,
                      {},           plan.input(Op::Density::kInputs + 1),
                      args.scale,   args.divisor,
                      {},           plan.ticket(),
                      plan.total(), args.kept && plan.in_place()};
  for (int k = 0; k < Op::kInputs; ++k) p.in[k] = plan.input(k);
  for (int k = 0; k < Op::kSlots; ++k) p.slots[k] = plan.slot(k);
  return p;
}

}  // namespace cuda
}  // namespace vae_fast
