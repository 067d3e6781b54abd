// The table of this instruction set's kernels.
#include "../table.h"

#include "pack.h"

namespace vae_fast {
namespace VF_ISA {

#define VF_NAME_OF(isa) #isa
#define VF_NAME(isa) VF_NAME_OF(isa)

const Kernels& table() { return table_of(VF_NAME(VF_ISA)); }

}  // namespace VF_ISA
}  // namespace vae_fast
