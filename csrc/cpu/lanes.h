// Pairs of a datum and one of many others, which are taken 16 at a time, whatever the instruction set: sums then have
// one order on all of them.
#pragma once

#include <type_traits>

#include "pack.h"

#include "../kernels.h"

namespace vae_fast {
namespace VF_ISA {

constexpr int kLanes = 16;

template <class T>
constexpr int kPacks = kLanes / kWidth<T>;

// 16 numbers.
template <class T>
struct Lanes {
  Pack<T> pack[kPacks<T>];

  static VF_INLINE Lanes of(T value) {
    Lanes all;
    for (auto& p : all.pack) p = splat<Pack<T>>(value);
    return all;
  }
  static VF_INLINE Lanes at(const T* from) {
    Lanes all;
    for (int k = 0; k < kPacks<T>; ++k) all.pack[k] = load(from + k * kWidth<T>);
    return all;
  }
  VF_INLINE void to(T* memory) const {
    for (int k = 0; k < kPacks<T>; ++k) store(memory + k * kWidth<T>, pack[k]);
  }
  // The first n.
  VF_INLINE void to(T* memory, int64_t n) const {
    T all[kLanes];
    to(all);
    for (int64_t k = 0; k < n && k < kLanes; ++k) memory[k] = all[k];
  }
};

template <class T, class F>
VF_INLINE Lanes<T> each(F&& f) {
  Lanes<T> made;
  for (int k = 0; k < kPacks<T>; ++k) made.pack[k] = f(k);
  return made;
}

// Calls f(i) for all i below n, on threads where they are worth it: each of about `work` terms.
template <class F>
void for_all(ParallelFor parallel_for, int64_t n, int64_t work, F&& f) {
  constexpr int64_t kTerms = 1 << 15;
  const int64_t grain = work > 0 && work < kTerms ? kTerms / work : 1;
  const auto body = [](void* context, int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) (*static_cast<std::remove_reference_t<F>*>(context))(i);
  };
  parallel_for(n, grain, body, &f);
}

}  // namespace VF_ISA
}  // namespace vae_fast
