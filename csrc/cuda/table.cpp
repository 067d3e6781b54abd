// The table of a GPU's kernels.
#include "../table.h"

#if !defined(VF_LAYOUT)
#define VF_LAYOUT ""
#endif

namespace vae_fast {

const Kernels& kernels() { return cuda::table_of("cuda"); }

}  // namespace vae_fast

// For the front: the table, and what its layout was made of.
extern "C" __attribute__((visibility("default"))) const void* vae_fast_kernels() { return &vae_fast::kernels(); }
extern "C" __attribute__((visibility("default"))) const char* vae_fast_layout() { return VF_LAYOUT; }
