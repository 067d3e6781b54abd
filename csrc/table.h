// The kernels of one device or instruction set, and the table of them.
#pragma once

#include "kernels.h"

namespace vae_fast {
namespace VF_ISA {

#define VF_KERNEL(name, Args) void name(const Args&);
VF_KERNELS(VF_KERNEL)
#undef VF_KERNEL

inline const Kernels& table_of(const char* isa) {
#define VF_KERNEL(name, Args) name,
  static const Kernels kernels = {isa, VF_KERNELS(VF_KERNEL)};
#undef VF_KERNEL
  return kernels;
}

}  // namespace VF_ISA
}  // namespace vae_fast
