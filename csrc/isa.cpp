// Which instruction set's kernels this process runs.
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

#include "kernels.h"

#if !defined(VF_LAYOUT)
#define VF_LAYOUT ""
#endif

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

// The most that VAE_FAST_CPU_ISA allows, as the place of its name here; the last one where it is unset or empty. A name
// that is known and not this processor's is a limit like any other.
static int limit() {
  static const char* const names[] = {"baseline", "v3", "v4"};
  const char* given = std::getenv("VAE_FAST_CPU_ISA");
  if (given == nullptr || *given == '\0') return 2;
  for (int k = 0; k < 3; ++k)
    if (std::strcmp(given, names[k]) == 0) return k;
  throw std::invalid_argument("VAE_FAST_CPU_ISA: unknown instruction set '" + std::string(given) +
                              "'; there are baseline, v3 and v4");
}

static const Kernels& choose() {
  const int most = limit();
  (void)most;
#if defined(__x86_64__)
  __builtin_cpu_init();
  // The parts of x86-64-v3 and -v4 that the kernels are compiled for, and the compiler may use.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                  __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("f16c");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                  __builtin_cpu_supports("avx512cd");
  if (v4 && most >= 2) return v4::table();
  if (v3 && most >= 1) return v3::table();
#endif
  return baseline::table();
}

const Kernels& kernels() {
  static const Kernels& chosen = choose();
  return chosen;
}

}  // namespace vae_fast

// For the front: the table, or null where VAE_FAST_CPU_ISA is wrong, and what its layout was made of.
extern "C" __attribute__((visibility("default"))) const void* vae_fast_kernels() {
  try {
    return &vae_fast::kernels();
  } catch (const std::exception&) {
    return nullptr;
  }
}
extern "C" __attribute__((visibility("default"))) const char* vae_fast_layout() { return VF_LAYOUT; }

// The chosen set's name, or what is wrong with the choice, behind a '!'.
extern "C" __attribute__((visibility("default"))) const char* vae_fast_cpu_isa() {
  try {
    return vae_fast::kernels().isa;
  } catch (const std::exception& error) {
    static const std::string wrong = std::string("!") + error.what();
    return wrong.c_str();
  }
}
