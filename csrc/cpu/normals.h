// Standard normals by the pack: four for every Philox counter, in the order of their indices.
#pragma once

#include "pack.h"
#include "views.h"

#include "../kernels.h"
#include "../noise.h"

namespace vae_fast {
namespace VF_ISA {

// Words of 32 bits in lanes of 64, the even ones of a pack and the odd ones apart: a lane's product is one instruction
// away, and what stands in its upper half does not matter until words() joins them.
typedef uint64_t Lanes __attribute__((vector_size(kPackBytes)));
struct Words {
  Lanes even, odd;
};

VF_INLINE Lanes product_of(Lanes a, uint32_t b) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return (Lanes)_mm512_maskz_mul_epu32(0xFF, (__m512i)a, _mm512_set1_epi64(b));
#elif defined(__AVX2__)
  return (Lanes)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(b));
#elif defined(__x86_64__)
  return (Lanes)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(b));
#elif defined(__aarch64__)
  return (Lanes)vmull_u32(vmovn_u64((uint64x2_t)a), vdup_n_u32(b));
#else
  return (a & 0xFFFFFFFF) * b;
#endif
}
VF_INLINE Lanes xor_of(Lanes a, Lanes b, Lanes c) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return (Lanes)_mm512_ternarylogic_epi64((__m512i)a, (__m512i)b, (__m512i)c, 0x96);
#else
  return a ^ b ^ c;
#endif
}

VF_INLINE Words product(Words a, uint32_t b) { return {product_of(a.even, b), product_of(a.odd, b)}; }
// A shuffle, where a shift would wait for the multiplier's port.
VF_INLINE Lanes high_of(Lanes p) {
#if defined(__AVX512F__) && defined(__AVX512DQ__)
  return (Lanes)_mm512_maskz_shuffle_epi32(0xFFFF, (__m512i)p, _MM_PERM_DDBB);
#elif defined(__AVX2__)
  return (Lanes)_mm256_shuffle_epi32((__m256i)p, 0xF5);
#elif defined(__x86_64__)
  return (Lanes)_mm_shuffle_epi32((__m128i)p, 0xF5);
#else
  return p >> 32;
#endif
}
VF_INLINE Words high(Words p) { return {high_of(p.even), high_of(p.odd)}; }
VF_INLINE Words low(Words p) { return p; }
VF_INLINE Words xor3(Words a, Words b, uint32_t key) {
  const Lanes k = Lanes{} + key;
  return {xor_of(a.even, b.even, k), xor_of(a.odd, b.odd, k)};
}

VF_INLINE Words words(const uint32_t* from) {
  Lanes both;
  std::memcpy(&both, from, sizeof both);
  return {both, both >> 32};
}
VF_INLINE Int32Pack joined(Words a) { return (Int32Pack)((a.even & 0xFFFFFFFF) | a.odd << 32); }

// A counter of 62 bits (what is left of a 64-bit index without its lane) and the kWidth<float> − 1 after it: the lower
// words, and the upper ones.
template <size_t... I>
VF_INLINE void counters(uint64_t first, Words& lower, Words& upper, std::index_sequence<I...>) {
  lower.even = Lanes{2 * I...} + first;
  lower.odd = Lanes{2 * I + 1 ...} + first;
  upper = {lower.even << 2 >> 34, lower.odd << 2 >> 34};
}

// a0 b0 a1 b1 …: the lower half of it, and the upper.
template <size_t... I>
VF_INLINE void zip(FloatPack a, FloatPack b, FloatPack& lower, FloatPack& upper, std::index_sequence<I...>) {
  constexpr int n = sizeof...(I);
  lower = __builtin_shufflevector(a, b, (I % 2 * n + I / 2)...);
  upper = __builtin_shufflevector(a, b, (I % 2 * n + I / 2 + n / 2)...);
}

// Normals of kWidth<float> counters, each given by four words.
VF_INLINE void normals(Words x0, Words x1, Words x2, Words x3, uint64_t seed, float* out) {
  constexpr int n = kWidth<float>;
  constexpr auto lanes = std::make_index_sequence<n>();
  philox4x32(x0, x1, x2, x3, SeedKeys{seed});
  FloatPack z0, z1, z2, z3, a, b, c, d;
  box_muller(joined(x0), joined(x1), z0, z1);
  box_muller(joined(x2), joined(x3), z2, z3);
  zip(z0, z2, a, b, lanes);
  zip(z1, z3, c, d, lanes);
  zip(a, c, z0, z1, lanes);
  zip(b, d, z2, z3, lanes);
  store(out, z0);
  store(out + n, z1);
  store(out + 2 * n, z2);
  store(out + 3 * n, z3);
}

// Draws blocks of ε: of some samples, the same indices of each.
class Normals {
 public:
  // Counters in a block at most: a tile of one sample whose first index is not a multiple of kPerCounter.
  static constexpr int kCounters = kTile<float> / kPerCounter + 1;

  explicit Normals(const NoiseOptions& noise) : noise_(noise) {}

  // How many samples of n indices each fit in one block.
  static int samples_in_a_block(int n) {
    const int each = n / kPerCounter + 2;
    return each >= kCounters ? 1 : kCounters / each;
  }

  // ε of positions [first, first + n) of samples [sample, sample + n_samples). Sample k starts at row(k).
  void draw(int64_t first, int n, int64_t sample, int n_samples) {
    const uint64_t index = static_cast<uint64_t>(first) + noise_.offset;
    lane_ = static_cast<int>(index % kPerCounter);
    each_ = (lane_ + n + kPerCounter - 1) / kPerCounter;
    const uint64_t counter = index / kPerCounter, first_sample = static_cast<uint64_t>(sample) + noise_.first_sample;
    if (n_samples == 1) {
      const uint32_t s0 = static_cast<uint32_t>(first_sample), s1 = static_cast<uint32_t>(first_sample >> 32);
      const Words low{Lanes{} + s0, Lanes{} + s0}, high{Lanes{} + s1, Lanes{} + s1};
      for (int i = 0; i < each_; i += kWidth<float>) {
        Words lower, upper;
        counters(counter + static_cast<uint64_t>(i), lower, upper, std::make_index_sequence<kWidth<float> / 2>());
        normals(lower, upper, low, high, noise_.seed, out_ + kPerCounter * i);
      }
      return;
    }
    for (int k = 0; k < n_samples; ++k) {
      const uint64_t s = first_sample + static_cast<uint64_t>(k);
      uint32_t* word[kPerCounter];
      for (int w = 0; w < kPerCounter; ++w) word[w] = word_[w] + k * each_;
      for (int i = 0; i < each_; ++i) {
        word[0][i] = static_cast<uint32_t>(counter + static_cast<uint64_t>(i));
        word[1][i] = static_cast<uint32_t>((counter + static_cast<uint64_t>(i)) >> 32) & 0x3FFFFFFFu;
        word[2][i] = static_cast<uint32_t>(s);
        word[3][i] = static_cast<uint32_t>(s >> 32);
      }
    }
    for (int i = 0; i < each_ * n_samples; i += kWidth<float>)
      normals(words(word_[0] + i), words(word_[1] + i), words(word_[2] + i), words(word_[3] + i), noise_.seed,
              out_ + kPerCounter * i);
  }

  const float* row(int k) const { return out_ + kPerCounter * each_ * k + lane_; }

 private:
  static constexpr int kRoom = kCounters + kWidth<float>;

  NoiseOptions noise_;
  int lane_ = 0, each_ = 0;
  alignas(64) uint32_t word_[kPerCounter][kRoom] = {};
  alignas(64) float out_[kPerCounter * kRoom];
};

}  // namespace VF_ISA
}  // namespace vae_fast
