// What depends on the device that a library is for: device_cpu.cpp or device_cuda.cpp has it.
#pragma once

#include <optional>
#include <sstream>
#include <stdexcept>
#include <vector>

#include "kernels.h"
#include "tensor.h"

namespace vae_fast {

// Raises a ValueError in Python.
template <class... Parts>
[[noreturn]] void refuse(const Parts&... message) {
  std::ostringstream text;
  (text << ... << message);
  throw std::invalid_argument(text.str());
}

// As STD_TORCH_CHECK, whose message begins with a place in the source.
#define VF_CHECK(condition, ...)                       \
  do {                                                 \
    if (!(condition)) ::vae_fast::refuse(__VA_ARGS__); \
  } while (0)

// A call's device: made before anything is allocated, and there until the kernels are launched. It is the current one
// meanwhile.
class OnDevice final : public Device {
 public:
  explicit OnDevice(const Tensor& anchor);
  explicit OnDevice(int32_t index);
  OnDevice(const OnDevice&) = delete;
  ~OnDevice();

  // Gives a kernel's arguments what they need of the device.
  template <class Args>
  void equip(Args& args) {
    args.parallel_for = parallel_for();
    args.device = this;
  }

  void* scratch(int64_t bytes) override;
  int* ticket() override;

 private:
  static ParallelFor parallel_for();

  int32_t index_ = 0;
  std::vector<Tensor> scratch_;
  std::optional<DeviceGuard> guard_;
};

// Raises, and says what there is no memory for.
[[noreturn]] void cannot_allocate(const int64_t* size, int ndim, int32_t scalar_type);

// Uninitialised memory on the device of the call.
Tensor empty_strided(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type);

// Raises where a kernel cannot read a tensor. Returns whether it is a number in the host's memory.
bool check_readable(const char* name, const Tensor& tensor, int ndim);

// A seed that stands in a tensor.
void read_seed(const Tensor& seed, NoiseOptions& noise);

// Whether the kernels themselves sum a gradient of `numel` values, one a row or at these positions of the elements.
bool sums_in_kernel(const View& index, int64_t numel, bool each_row);

}  // namespace vae_fast
