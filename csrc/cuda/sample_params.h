// What the kernels of rsample and rsample_kl are told of a call.
#pragma once

#include "normals.h"
#include "plan.h"

namespace vae_fast {
namespace cuda {

// Samples of an element are a loop of its thread; where there are few elements, in groups, of which blocks take one
// each.
struct SampleGroups {
  int64_t n_samples;
  int count;

  SampleGroups(int64_t numel, int64_t samples) : n_samples(samples) {
    const int64_t wanted = (int64_t{1} << 17) / (numel > 0 ? numel : 1);
    const int64_t groups = wanted < samples ? wanted : samples;
    count = static_cast<int>(groups < 1 ? 1 : groups > 64 ? 64 : groups);
  }
  __device__ __forceinline__ int64_t start(int group) const { return n_samples * group / count; }
};

// In the place of a KL.
struct NoKL {
  static constexpr int kInputs = 2;
};
template <class KL>
constexpr bool kHas = !std::is_same_v<KL, NoKL>;

template <class Form_, class KL_, class Keys_>
struct SampleParams {
  using Form = Form_;
  using KL = KL_;
  using Keys = Keys_;
  Work work;
  Form form;
  KL kl;
  Keys keys;
  NoiseOptions noise;
  SampleGroups groups;
  double temperature;
  Input in[KL::kInputs];
  // ε, of the caller.
  Input eps;
  int64_t eps_sample;
  // Forward.
  Output z;
  int64_t z_sample;
  // Backward.
  Input dz, dkl;
  int64_t dz_sample;
  bool draws;               // whether ε is needed
  double* parts;            // [group, Σ dz and Σ dz·ε, element], where samples are in groups
  int step;                 // 0: everything; 1: the groups' sums; 2: from them
  Slot slots[KL::kInputs];  // forward: kl; backward: of the operands
  int* ticket;
  bool total;
};

}  // namespace cuda
}  // namespace vae_fast
