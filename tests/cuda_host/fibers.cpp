// A block's threads as fibers, each of which runs until it waits for others: at __syncthreads for all threads of the
// block, at a shuffle for those of its warp. In which order blocks run and fibers go on is the schedule, from the
// environment variable VF_HOST_SCHEDULE: "forward", "reverse", or a number, the seed of a random one. The barrier that
// VF_HOST_WITHOUT names, by file and line ("reduce.h:45"), is none: what a kernel without it would do.
#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "cuda_runtime.h"

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#define VF_SWITCHING(save, stack, size) __sanitizer_start_switch_fiber(save, stack, size)
#define VF_SWITCHED(save, stack, size) __sanitizer_finish_switch_fiber(save, stack, size)
#else
#define VF_SWITCHING(save, stack, size)
#define VF_SWITCHED(save, stack, size)
#endif

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

constexpr size_t kStack = size_t{256} << 10;
constexpr int kWarp = 32;

enum class State { kReady, kAtBarrier, kAtShuffle, kDone };

// A context is how a fiber's stack comes to be; from then on it lives, a thread of one block after another, and is
// left and entered by jumps, which unlike swapcontext make no system call.
struct Fiber {
  ucontext_t context;
  jmp_buf there;
  bool begun = false;
  std::unique_ptr<char[]> stack{new char[kStack]};
  void* fake_stack = nullptr;
  State state = State::kReady;
  int shuffles = 0;
  // Values of two shuffles in turn: a lane may be at the next one while others have yet to read.
  double shown[2];
};

std::mutex launching;
std::vector<std::unique_ptr<Fiber>> fibers;
int n_threads = 0, current = 0;
jmp_buf scheduler;
void* scheduler_fake_stack = nullptr;
const void* scheduler_stack = nullptr;
size_t scheduler_size = 0;
const std::function<void()>* body = nullptr;

enum class Order { kForward, kReverse, kRandom } order = Order::kForward;
std::mt19937_64 draw;

void read_schedule() {
  const char* name = std::getenv("VF_HOST_SCHEDULE");
  const std::string schedule = name ? name : "forward";
  order = schedule == "forward" ? Order::kForward : schedule == "reverse" ? Order::kReverse : Order::kRandom;
  static bool seeded = false;
  if (order == Order::kRandom && !seeded) draw.seed(std::stoull(schedule));
  seeded = true;
}

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "csrc/cuda on the host: %s\n", what);
  std::abort();
}

void leave(State state) {
  Fiber& fiber = *fibers[current];
  fiber.state = state;
  VF_SWITCHING(&fiber.fake_stack, scheduler_stack, scheduler_size);
  if (_setjmp(fiber.there) == 0) _longjmp(scheduler, 1);
  VF_SWITCHED(fiber.fake_stack, nullptr, nullptr);
}

void enter() {
  VF_SWITCHED(nullptr, &scheduler_stack, &scheduler_size);
  for (;;) {
    (*body)();
    leave(State::kDone);
  }
}

void resume(int thread) {
  current = thread;
  threadIdx = dim3(static_cast<unsigned>(thread));
  Fiber& fiber = *fibers[thread];
  VF_SWITCHING(&scheduler_fake_stack, fiber.stack.get(), kStack);
  if (_setjmp(scheduler) == 0) {
    if (fiber.begun) _longjmp(fiber.there, 1);
    fiber.begun = true;
    setcontext(&fiber.context);
  }
  VF_SWITCHED(scheduler_fake_stack, nullptr, nullptr);
}

std::unique_ptr<Fiber> new_fiber() {
  auto fiber = std::make_unique<Fiber>();
  getcontext(&fiber->context);
  fiber->context.uc_stack.ss_sp = fiber->stack.get();
  fiber->context.uc_stack.ss_size = kStack;
  fiber->context.uc_link = nullptr;
  makecontext(&fiber->context, enter, 0);
  return fiber;
}

// Lets go on who need not wait any more. Returns how many are done.
int release() {
  int done = 0, at_barrier = 0;
  for (int t = 0; t < n_threads; ++t) {
    done += fibers[t]->state == State::kDone;
    at_barrier += fibers[t]->state == State::kAtBarrier;
  }
  if (at_barrier == n_threads)
    for (int t = 0; t < n_threads; ++t) fibers[t]->state = State::kReady;
  for (int warp = 0; warp < n_threads; warp += kWarp) {
    const auto at_shuffle = [&](int t) { return fibers[warp + t]->state == State::kAtShuffle; };
    int n = 0;
    for (int t = 0; t < kWarp; ++t) n += at_shuffle(t);
    if (n == kWarp)
      for (int t = 0; t < kWarp; ++t) fibers[warp + t]->state = State::kReady;
  }
  return done;
}

void run_block() {
  for (int t = 0; t < n_threads; ++t) {
    if (static_cast<int>(fibers.size()) <= t) fibers.push_back(new_fiber());
    fibers[t]->state = State::kReady;
    fibers[t]->shuffles = 0;
  }
  std::vector<int> turn(static_cast<size_t>(n_threads));
  std::iota(turn.begin(), turn.end(), 0);
  if (order == Order::kReverse) std::reverse(turn.begin(), turn.end());
  // In a random schedule the first thread of some warp goes on only when no other can: all get as far ahead of it as
  // they may, by several shuffles.
  const int slow = order == Order::kRandom ? static_cast<int>(draw() % (n_threads / kWarp)) * kWarp : -1;
  for (;;) {
    if (order == Order::kRandom) std::shuffle(turn.begin(), turn.end(), draw);
    bool some = false;
    for (int t : turn) {
      if (fibers[t]->state != State::kReady || t == slow) continue;
      // A random schedule leaves some for later, so that others get ahead.
      if (order == Order::kRandom && some && draw() % 3 == 0) continue;
      some = true;
      resume(t);
    }
    if (!some && slow >= 0 && fibers[slow]->state == State::kReady) {
      some = true;
      resume(slow);
    }
    if (release() == n_threads) return;
    if (!some) fail("threads wait for others that do not come");
  }
}

}  // namespace

void barrier(const char* file, int line) {
  static const char* const left_out = std::getenv("VF_HOST_WITHOUT");
  if (left_out != nullptr) {
    const std::string path = file, name = path.substr(path.rfind('/') + 1) + ":" + std::to_string(line);
    if (name == left_out) return;
  }
  leave(State::kAtBarrier);
}

double __shfl_xor_sync(unsigned mask, double value, int lanes) {
  if (mask != 0xFFFFFFFFu || lanes < 1 || lanes >= kWarp) fail("a shuffle of part of a warp");
  Fiber& own = *fibers[current];
  const int buffer = own.shuffles++ % 2, other = current ^ lanes;
  own.shown[buffer] = value;
  leave(State::kAtShuffle);
  return fibers[other]->shown[buffer];
}

cudaError_t run_on_fibers(const cudaLaunchConfig_t& config, const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(launching);
  const dim3 &grid = config.gridDim, &block = config.blockDim;
  const bool valid = grid.x > 0 && grid.x < 1u << 31 && grid.y > 0 && grid.y < 1u << 16 && grid.z == 1 && block.x > 0 &&
                     block.x <= 1024 && block.x % kWarp == 0 && block.y == 1 && block.z == 1;
  if (!valid) return cudaErrorInvalidConfiguration;
  read_schedule();
  gridDim = grid;
  blockDim = block;
  n_threads = static_cast<int>(block.x);
  body = &thread;
  const size_t blocks = static_cast<size_t>(grid.x) * grid.y;
  std::vector<size_t> turn(blocks);
  std::iota(turn.begin(), turn.end(), size_t{0});
  if (order == Order::kReverse) std::reverse(turn.begin(), turn.end());
  if (order == Order::kRandom) std::shuffle(turn.begin(), turn.end(), draw);
  for (const size_t b : turn) {
    blockIdx = dim3(static_cast<unsigned>(b % grid.x), static_cast<unsigned>(b / grid.x));
    run_block();
  }
  return cudaSuccess;
}
