// The gradients that came with a forward pass, times the upstream one that came later.
#include "../table.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {
namespace {

template <class T>
void multiply(const RescaleArgs& args, int k, T factor) {
  T* data = static_cast<T*>(args.data[k]);
  const Rows rows{1, args.numel[k]};
  const Pieces pieces(rows);
  parallel(args.parallel_for, rows, pieces.count(), 0.2, [&](int64_t begin, int64_t end) {
    for (int64_t piece = begin; piece < end; ++piece)
      pieces.for_tiles<T>(piece, [&](int64_t first, int n) {
        for (int i = 0; i < n; ++i) data[first + i] *= factor;
      });
  });
}

}  // namespace

void rescale(const RescaleArgs& args) {
  const double factor = args.factor_dtype == DType::kFloat64
                            ? *static_cast<const double*>(args.factor)
                            : static_cast<double>(*static_cast<const float*>(args.factor));
  if (factor == 1.0) return;
  for (int k = 0; k < args.count; ++k) {
    if (args.dtype[k] == DType::kFloat64)
      multiply(args, k, factor);
    else
      multiply(args, k, static_cast<float>(factor));
  }
}

}  // namespace VF_ISA
}  // namespace vae_fast
