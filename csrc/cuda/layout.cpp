#include "layout.h"

#include <numeric>

namespace vae_fast {
namespace cuda {

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64:
    case DType::kInt64: return 8;
    case DType::kFloat32:
    case DType::kInt32: return 4;
    case DType::kByte:
    case DType::kBool: return 1;
    default: return 2;
  }
}

namespace {

int64_t power_of_two_from(int64_t n) {
  int64_t p = 1;
  while (p < n) p *= 2;
  return p;
}

bool flat(const View& view) {
  const int64_t step = view.stride[view.ndim - 1];
  return step == 1 || step == 0;
}

// The dims of a view's rows, columns taken away.
struct Outer {
  int ndim = 0;
  int64_t size[kMaxDims], stride[kMaxDims];

  Outer(const View& view, int64_t columns) {
    for (int k = 0; k < view.ndim; ++k) {
      const bool last = k == view.ndim - 1;
      const int64_t n = last ? view.size[k] / columns : view.size[k];
      if (n == 1) continue;
      size[ndim] = n;
      stride[ndim++] = last ? view.stride[k] * columns : view.stride[k];
    }
  }
};

}  // namespace

int64_t columns_along(const View& view, int64_t columns) {
  if (!view || view.number || !flat(view) || view.constant()) return columns;
  return std::gcd(columns, view.size[view.ndim - 1]);
}

void Layout::take_rows(const View& view) {
  if (inner != rows || !view || view.number || !flat(view) || view.constant()) return;
  const Outer outer(view, columns);
  if (outer.ndim == 2) inner = outer.size[1];
}

bool Layout::fits(const View& view) const {
  if (!flat(view)) return false;
  const Outer outer(view, view.constant() ? 1 : columns);
  return view.constant() || outer.ndim < 2 || (outer.ndim == 2 && outer.size[1] == inner);
}

Layout::Strides Layout::strides(const View& view) const {
  Strides found;
  found.dense = view.stride[view.ndim - 1] == 1 && view.size[view.ndim - 1] > 1;
  if (view.constant()) return found;
  const Outer outer(view, columns);
  if (outer.ndim == 2) {
    found.s = outer.stride[0];
    found.d = outer.stride[1];
  } else if (outer.ndim == 1) {
    found.d = outer.stride[0];
    found.s = found.d * inner;
  }
  return found;
}

void cut_up(Work& w, int chunk, bool by_rows) {
  const int64_t numel = w.rows * w.columns;
  const int64_t chunks = parts_of(w.columns, chunk);
  const int64_t wanted = power_of_two_from(parts_of(chunks, 2));
  w.group = static_cast<int>(wanted < kThreads ? wanted : kThreads);
  // More for a block to do where there is more to do than blocks at a time, the same for each to a warp's chunks; long
  // rows are cut where rows are few.
  const int64_t least = chunk * kThreads, few = numel <= (int64_t{1} << 18) ? 1 : numel <= (int64_t{1} << 21) ? 2 : 4;
  const int64_t warp = chunk * 32, share = parts_of(numel, kMostBlocks * warp) * warp;
  const int64_t most = by_rows ? few * least : share < least ? least : share;
  const bool cut = w.columns > (by_rows ? 4 * most : most) && !(by_rows && w.rows >= 1024);
  if (cut) w.group = kThreads;
  if (w.rows == 1 && w.group < 32) w.group = 32;
  for (w.group_bits = 0; w.group >> w.group_bits > 1;) ++w.group_bits;
  w.segment = cut ? most : parts_of(w.columns + chunk, chunk) * chunk;
  w.segments = cut ? parts_of(w.columns + chunk - 1, most) : 1;
  int64_t threads = power_of_two_from(w.rows < kThreads ? w.rows * w.group : kThreads);
  threads = threads < 32 ? 32 : threads > kThreads ? kThreads : threads;
  w.rows_per_block = static_cast<int>(threads / w.group);
  w.units = parts_of(w.rows, w.rows_per_block) * w.segments;
}

}  // namespace cuda
}  // namespace vae_fast
