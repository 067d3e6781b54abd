// A CUDA device: its current stream, memory of PyTorch's allocator.
#include "device.h"

#include <cuda_runtime_api.h>

#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "cuda/layout.h"
#include "dtypes.h"

namespace vae_fast {
namespace {

void check(const char* what, cudaError_t error) {
  if (error != cudaSuccess)
    throw std::runtime_error(std::string("vae_fast: ") + what + ": " + cudaGetErrorString(error));
}

// While it is there this thread may do what would break another one's capture, or its own, if it were part of it.
class Uncaptured {
 public:
  Uncaptured() { check("cudaThreadExchangeStreamCaptureMode", cudaThreadExchangeStreamCaptureMode(&mode_)); }
  Uncaptured(const Uncaptured&) = delete;
  ~Uncaptured() { (void)cudaThreadExchangeStreamCaptureMode(&mode_); }

 private:
  cudaStreamCaptureMode mode_ = cudaStreamCaptureModeRelaxed;
};

// Ints that are 0 for what a stream does next, and never freed: at exit the device may be gone before them. Not from
// PyTorch's allocator, whose memory may be a graph's to reuse.
int* lasting_zeros(int64_t count, cudaStream_t stream) {
  void* memory = nullptr;
  const auto bytes = static_cast<size_t>(count) * sizeof(int);
  check("cudaMalloc", cudaMalloc(&memory, bytes));
  check("cudaMemsetAsync", cudaMemsetAsync(memory, 0, bytes, stream));
  return static_cast<int*>(memory);
}

int* lasting_zero(void* stream) {
  const Uncaptured uncaptured;
  return lasting_zeros(1, static_cast<cudaStream_t>(stream));
}

// Zeros of a device for calls that are captured, one each: a graph may be replayed beside another, on any stream. They
// are made on a stream of their own and there before a graph is, so that none has to set its own.
class CapturedTickets {
 public:
  // The next one; null where all are taken.
  int* next() {
    if (taken_ == kMost) return nullptr;
    if (!all_) make();
    return all_ + taken_++;
  }

 private:
  // 256 KiB: graphs of so many calls that are alive, or were.
  static constexpr int64_t kMost = int64_t{1} << 16;

  void make() {
    const Uncaptured uncaptured;
    cudaStream_t stream = nullptr;
    check("cudaStreamCreateWithFlags", cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    int* made = lasting_zeros(kMost, stream);
    check("cudaStreamSynchronize", cudaStreamSynchronize(stream));
    check("cudaStreamDestroy", cudaStreamDestroy(stream));
    all_ = made;
  }

  int* all_ = nullptr;
  int64_t taken_ = 0;
};

Tensor zeroed_int() {
  const int64_t one = 1;
  Tensor tensor = empty_strided(&one, &one, 1, scalar_type_of(DType::kInt32));
  tensors::zero_(tensor);
  return tensor;
}

}  // namespace

OnDevice::OnDevice(const Tensor& anchor) : OnDevice(tensors::device_index(anchor)) {}

OnDevice::OnDevice(int32_t index) {
  // A device without an index is the current one.
  index_ = index >= 0 ? index : tensors::current_device();
  guard_.emplace(index_);
  stream = tensors::current_stream(index_);
}

OnDevice::~OnDevice() = default;

ParallelFor OnDevice::parallel_for() { return nullptr; }

// Freed to PyTorch's allocator with this object, in the order of the stream.
void* OnDevice::scratch(int64_t bytes) {
  const int64_t step = 1;
  scratch_.push_back(empty_strided(&bytes, &step, 1, scalar_type_of(DType::kByte)));
  return scratch_.back().data_ptr();
}

int* OnDevice::ticket() {
  // Every kernel leaves it at 0, and the kernels of a stream run one after the other: one is enough for each. A call of
  // a graph has its own, since that may be replayed on any stream.
  static std::mutex mutex;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check("cudaStreamIsCapturing", cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status));
  if (status != cudaStreamCaptureStatusNone) {
    static auto& captured = *new std::map<int32_t, CapturedTickets>();
    {
      const std::lock_guard<std::mutex> lock(mutex);
      if (int* own = captured[index_].next()) return own;
    }
    // One of the graph's memory, which every replay sets to 0.
    scratch_.push_back(zeroed_int());
    return static_cast<int*>(scratch_.back().data_ptr());
  }
  static auto& tickets = *new std::map<std::pair<int32_t, void*>, int*>();
  const std::lock_guard<std::mutex> lock(mutex);
  int*& found = tickets[std::make_pair(index_, stream)];
  if (!found) found = lasting_zero(stream);
  return found;
}

Tensor empty_strided(const int64_t* size, const int64_t* stride, int ndim, int32_t scalar_type) {
  const OptionalTensor tensor = tensors::empty_on_cuda(size, stride, ndim, scalar_type);
  if (!tensor) cannot_allocate(size, ndim, scalar_type);
  return *tensor;
}

bool check_readable(const char* name, const Tensor& tensor, int ndim) {
  if (tensor.is_cpu() && ndim == 0) return true;
  VF_CHECK(tensor.is_cuda(), name, " is not on the GPU");
  VF_CHECK(tensors::device_index(tensor) == tensors::current_device(), name, " is on another GPU");
  return false;
}

// Read by the kernels: no copy to the host, and a graph reads it anew in each replay.
void read_seed(const Tensor& seed, NoiseOptions& noise) {
  VF_CHECK(seed.is_cuda(), "seed_tensor must be on the GPU");
  noise.seed_on_device = static_cast<const int64_t*>(seed.data_ptr());
}

bool sums_in_kernel(const View& index, int64_t, bool) { return cuda::sums_in_kernel(index); }

}  // namespace vae_fast
