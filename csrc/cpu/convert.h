// Elements of one dtype to those of another, in runs.
#pragma once

#include "../elements.h"
#include "pack.h"

namespace vae_fast {
namespace VF_ISA {

template <class T, class S>
VF_INLINE void read_run(T* to, const S* from, int64_t stride, int n) {
  if (stride == 1) {
    int i = 0;
#if defined(__F16C__)
    if constexpr (sizeof(T) == 4 && std::is_same_v<S, Float16>) {
      for (; i + 8 <= n; i += 8)
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
#endif
    for (; i < n; ++i) to[i] = number_of<T>(from[i]);
  } else if (stride == 0) {
    const T value = number_of<T>(*from);
    for (int i = 0; i < n; ++i) to[i] = value;
  } else {
    for (int i = 0; i < n; ++i) to[i] = number_of<T>(from[i * stride]);
  }
}

template <class T, class D>
VF_INLINE void write_run(const T* from, D* to, int64_t stride, int n) {
  if (stride == 1) {
    int i = 0;
#if defined(__F16C__)
    if constexpr (sizeof(T) == 4 && std::is_same_v<D, Float16>) {
      for (; i + 8 <= n; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i), _mm256_cvtps_ph(_mm256_loadu_ps(from + i), 0));
    }
#endif
    for (; i < n; ++i) narrow(from[i], to[i]);
  } else {
    for (int i = 0; i < n; ++i) narrow(from[i], to[i * stride]);
  }
}

}  // namespace VF_ISA
}  // namespace vae_fast
