// Which instruction set's kernels this process runs.
#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace vae_fast {

namespace baseline {
const Kernels& table();
}
#if defined(__x86_64__)
namespace v3 {
const Kernels& table();
}
namespace v4 {
const Kernels& table();
}
#endif

static const Kernels& choose() {
#if defined(__x86_64__)
  const char* limit = std::getenv("VAE_FAST_CPU_ISA");
  const bool any = limit == nullptr || *limit == '\0';
  const bool v3_allowed = any || std::strcmp(limit, "v3") == 0 || std::strcmp(limit, "v4") == 0;
  const bool v4_allowed = any || std::strcmp(limit, "v4") == 0;
  __builtin_cpu_init();
  // The parts of x86-64-v3 and -v4 that the kernels are compiled for, and the compiler may use.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512cd");
  if (v4 && v4_allowed) return v4::table();
  if (v3 && v3_allowed) return v3::table();
#endif
  return baseline::table();
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace vae_fast

extern "C" __attribute__((visibility("default"))) const char* vae_fast_cpu_isa() { return vae_fast::kernels().isa; }
