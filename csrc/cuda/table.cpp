// The table of a GPU's kernels.
#include "../table.h"

namespace vae_fast {

const Kernels& kernels() { return cuda::table_of("cuda"); }

}  // namespace vae_fast
