// What of the front depends on the device that it is for.
#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/DispatchKeySet.h>
#if defined(USE_CUDA)
#include <c10/cuda/CUDAGraphsC10Utils.h>
#endif

#include "../tensor.h"

namespace vae_fast {

#if defined(USE_CUDA)
constexpr at::DeviceType kDeviceType = at::kCUDA;
// What a dense tensor with nothing around it has.
constexpr c10::DispatchKeySet kPlain({c10::DispatchKey::CUDA, c10::DispatchKey::ADInplaceOrView,
                                      c10::DispatchKey::AutogradCUDA, c10::DispatchKey::AutocastCUDA});

// Whether a graph is captured, each of whose replays is to draw its own seed: by the device.
inline bool seeds_are_drawn_on_the_device() {
  return c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
}

// A seed from a generator's state on the host, as vae_fast/seeds.py draws it: no launch, no sync.
inline uint64_t draw(const std::optional<at::Generator>& given, c10::DeviceIndex index) {
  at::Generator generator = given ? *given : at::globalContext().defaultGenerator(c10::Device(at::kCUDA, index));
  const std::lock_guard<std::mutex> lock(generator.mutex());
  const uint64_t offset = generator.get_offset();
  generator.set_offset(offset + 4);
  uint64_t state = generator.current_seed() + 0x9E3779B97F4A7C15 * (offset / 4 + 1);
  state = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9;
  state = (state ^ (state >> 27)) * 0x94D049BB133111EB;
  return state ^ (state >> 31);
}
#else
constexpr at::DeviceType kDeviceType = at::kCPU;
constexpr c10::DispatchKeySet kPlain({c10::DispatchKey::CPU, c10::DispatchKey::ADInplaceOrView,
                                      c10::DispatchKey::AutogradCPU, c10::DispatchKey::AutocastCPU});

inline bool seeds_are_drawn_on_the_device() { return false; }

// As torch.randint(2^63 - 1) draws it (vae_fast/seeds.py).
inline uint64_t draw(const std::optional<at::Generator>& given, c10::DeviceIndex) {
  auto* generator = at::get_generator_or_default<at::CPUGeneratorImpl>(given, at::detail::getDefaultCPUGenerator());
  const std::lock_guard<std::mutex> lock(generator->mutex_);
  return generator->random64() % ((uint64_t{1} << 63) - 1);
}
#endif

}  // namespace vae_fast
