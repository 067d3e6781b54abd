// The CPU: results in large pages, PyTorch's threads.
#include "device.h"

#include <pthread.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vae_fast {
namespace {

// Asks for huge pages for a large result. Its memory is fresh from the system, and the kernel would take a fault for
// every 4 KiB of it: of a pass over 48 MiB those were most of the time.
void advise_huge_pages(const Tensor& tensor) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t{1} << 21;
  const uintptr_t bytes = static_cast<uintptr_t>(tensor.numel()) * tensor.element_size();
  if (bytes < 2 * kHuge) return;
  const uintptr_t start = reinterpret_cast<uintptr_t>(tensor.data_ptr());
  const uintptr_t first = (start + kHuge - 1) & ~(kHuge - 1), last = (start + bytes) & ~(kHuge - 1);
  // A hint: where the system does not take it, nothing is lost.
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

bool forked = false;

// PyTorch's threads, or, in a forked child, which does not inherit them, the calling one.
void on_threads(int64_t n, int64_t grain, Body body, void* context) {
  static const int registered = pthread_atfork(nullptr, nullptr, [] { forked = true; });
  (void)registered;
  if (forked) {
    body(context, 0, n);
    return;
  }
  tensors::parallel_for(0, n, grain, [&](int64_t first, int64_t last) { body(context, first, last); });
}

}  // namespace

OnDevice::OnDevice(const Tensor&) {}
OnDevice::OnDevice(int32_t) {}
OnDevice::~OnDevice() = default;

ParallelFor OnDevice::parallel_for() { return on_threads; }

// Of a GPU's kernels only.
void* OnDevice::scratch(int64_t) { return nullptr; }
int* OnDevice::ticket() { return nullptr; }

Tensor empty_strided(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  const OptionalTensor tensor = tensors::empty_on_cpu(size, stride, ndim, scalar_type);
  if (!tensor) cannot_allocate(size, ndim, scalar_type);
  advise_huge_pages(*tensor);
  return *tensor;
}

bool check_readable(const char* name, const Tensor& tensor, int) {
  VF_CHECK(tensor.is_cpu(), name, " is not on the CPU");
  return false;
}

void read_seed(const Tensor& seed, NoiseOptions& noise) {
  VF_CHECK(seed.is_cpu(), "seed_tensor must be on the CPU");
  noise.seed = static_cast<uint64_t>(*static_cast<const int64_t*>(seed.data_ptr()));
}

bool sums_in_kernel(const View&, int64_t numel, bool each_row) {
  // So many that the partial sums of 8 units take a few MiB: a value a gene, too.
  constexpr int64_t kFew = 1 << 16;
  return each_row || numel <= kFew;
}

}  // namespace vae_fast
