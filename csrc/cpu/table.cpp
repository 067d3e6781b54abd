// The table of this instruction set's kernels.
#include "../table.h"

#include "pack.h"

namespace vae_fast {
namespace VF_ISA {

#define VF_NAME_OF(isa) #isa
#define VF_NAME(isa) VF_NAME_OF(isa)

const Kernels& table() {
  static const Kernels all = [] {
    Kernels kernels = table_of(VF_NAME(VF_ISA));
#define VF_KERNEL(name, Args) kernels.name = name;
    VF_CPU_KERNELS(VF_KERNEL)
#undef VF_KERNEL
    return kernels;
  }();
  return all;
}

}  // namespace VF_ISA
}  // namespace vae_fast
