// The noise ε by itself.
#include "../table.h"
#include "density.h"
#include "even.h"
#include "normals.h"

namespace vae_fast {
namespace cuda {
namespace {

template <class Keys>
struct NormalParams {
  Work work;
  Keys keys;
  NoiseOptions noise;
  Output out;
};

// Rows are samples.
template <class S, class Keys, bool kEven>
__global__ void __launch_bounds__(kThreads, kResident<S, kEven>)
    normal_kernel(const __grid_constant__ NormalParams<Keys> p) {
  using T = typename Compute<S>::Type;
  constexpr int N = kSampleChunk<S>;
  const auto keys = p.keys.get();
  for (int64_t unit = blockIdx.x; unit < p.work.units; unit += gridDim.x) {
    const Walk walk(p.work, unit, N);
    const uint64_t sample = static_cast<uint64_t>(walk.row) + p.noise.first_sample;
    const auto draw = [&](const Output& out, int64_t offset, uint64_t index, const Chunk<N, kEven>& chunk) {
      float eps[N];
      normals(keys, sample, index, eps);
      T z[N];
#pragma unroll
      for (int j = 0; j < N; ++j) z[j] = static_cast<T>(eps[j]);
      store<T, S>(z, out, offset, chunk);
    };
    if constexpr (kEven) {
      Output from = p.out;
      from.data = start_of(p.out, walk);
      const uint64_t index = index_of(p.noise, 0, Chunk<N, true>(walk.first, p.work.columns));
      const uint32_t columns = columns_of(walk);
#pragma unroll 1
      for (uint32_t place = 0; place < columns; place += static_cast<uint32_t>(p.work.group) * N)
        draw(from, 0, index + place, {place, columns});
    } else {
      for (int64_t column = walk.first; column < walk.last; column += static_cast<int64_t>(p.work.group) * N) {
        const Chunk<N> chunk(column, p.work.columns);
        draw(p.out, walk.offset(p.out), index_of(p.noise, 0, chunk), chunk);
      }
    }
  }
}

}  // namespace

void standard_normal(const NormalArgs& args) {
  const auto run = [&](auto element) {
    using S = decltype(element);
    Plan plan(*args.device, {args.n_samples, args.n}, kSampleChunk<S>);
    plan.write(args.out);
    plan.chunks_by_index(args.noise.offset, true);
    if (!plan.resolve()) return;
    in_keys<S>(args.noise, [&](auto keys) {
      using Keys = decltype(keys);
      const NormalParams<Keys> p{plan.work(), keys, args.noise, plan.output(0)};
      const bool even = plan.even() && !(plan.work().segment >> 31);
      auto* kernel = even ? normal_kernel<S, Keys, true> : normal_kernel<S, Keys, false>;
      launch(*args.device, "standard_normal", kernel, p, plan.blocks(), 1, plan.threads());
    });
    plan.finish();
  };
  switch (args.out.dtype) {
    case DType::kFloat64: return run(double{});
    case DType::kFloat32: return run(float{});
    default: return run(Half{});
  }
}

}  // namespace cuda
}  // namespace vae_fast
