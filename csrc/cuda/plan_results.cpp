// Where a plan's sums and gradients go, and what is left to do with them when the kernel has run.
#include "launch.h"
#include "plan.h"
#include "sums.h"

namespace vae_fast {
namespace cuda {
namespace {

bool dense_vector(const View& view) { return view.ndim == 1 && (view.stride[0] == 1 || view.size[0] == 1); }

}  // namespace

// Where the sums of a gradient go: to itself where it is dense in order.
void Plan::gather_sums(Summing& s) {
  const bool direct = dense_vector(s.gradient->view);
  if (!direct) s.dense = device_.scratch(s.gradient->numel * size_of(s.slot.out.dtype));
  s.slot.out.data = direct ? s.gradient->view.data : s.dense;
}

void Plan::slots() {
  const Work& w = work_;
  bool by_rows = false, totals = false;
  for (const Summing& s : slots_) {
    by_rows = by_rows || s.slot.kind == Slot::kRow;
    totals = totals || s.slot.kind == Slot::kTotal;
  }
  total_ = totals && !by_rows;
  // As many as there can be partial sums of; grids have a limit of their own.
  const int64_t limit = total_ ? kMostBlocks : int64_t{1} << 30;
  blocks_ = static_cast<int>(w.units < limit ? w.units : limit);
  if (total_ && blocks_ > 1) ticket_ = device_.ticket();
  for (Summing& s : slots_) {
    Slot& slot = s.slot;
    switch (slot.kind) {
      case Slot::kNone:
        if (s.by_column) gather_sums(s);
        break;
      case Slot::kEach:
        if (s.each) {
          int64_t one = 0;
          slot.out = place(*s.each, 1, one);
          break;
        }
        if (s.features || s.rows_apart) {
          s.dense = device_.scratch(numel_ * size_of(s.compute));
          slot.out.data = s.dense;
          slot.out.dtype = s.compute;
        }
        slot.out.s = layout_.dense().s;
        slot.out.d = layout_.dense().d;
        slot.out.bytes = size_of(slot.out.dtype);
        break;
      case Slot::kRow:
      case Slot::kTotal:
        if (s.gradient) gather_sums(s);
        if (total_ ? blocks_ > 1 : slot.kind == Slot::kTotal || w.segments > 1)
          slot.partial = static_cast<double*>(device_.scratch(8 * (total_ ? blocks_ : w.rows * w.segments)));
        break;
    }
  }
}

// The sums of no elements.
void Plan::finish_empty() {
  for (const Summing& s : slots_) {
    if (s.slot.kind == Slot::kNone) continue;
    if (s.gradient) {
      // Gradients are dense, in whatever order.
      join(device_, {nullptr, s.gradient->numel}, 0.0, s.gradient->view.data, s.gradient->view.dtype);
    } else if (!s.each) {
      join(device_, {nullptr, rows_in_.count}, s.slot.factor, s.slot.out.data, s.slot.out.dtype);
    }
  }
}

void Plan::bring_summed(const Summing& s, const void* values) {
  const View* view = s.gradient ? &s.gradient->view : nullptr;
  const int64_t parts = numel_ / s.row_size;
  const int64_t count = s.features ? s.row_size : parts;
  const bool direct = !view || dense_vector(*view);
  const DType dtype = s.gradient ? view->dtype : s.compute;
  void* to = !view ? s.whole : direct ? view->data : device_.scratch(count * size_of(dtype));
  if (s.features) {
    sum_columns(device_, values, s.compute, parts, s.row_size, to, dtype);
  } else {
    sum_rows(device_, values, s.compute, parts, s.row_size, s.whole_factor, to, dtype);
  }
  if (!direct) scatter(device_, to, dtype, count, *view);
}

void Plan::finish() {
  for (const Summing& s : slots_) {
    const Slot& slot = s.slot;
    if (s.features || s.rows_apart) {
      bring_summed(s, s.dense);
      continue;
    }
    if (slot.partial && !total_) {
      const int64_t n = work_.rows * work_.segments;
      if (slot.kind == Slot::kRow) {
        join(device_, {slot.partial, work_.rows, work_.segments, work_.segments, 1}, slot.factor, slot.out.data,
             slot.out.dtype);
      } else {
        join(device_, {slot.partial, 1, n, 0, 1}, slot.factor, slot.out.data, slot.out.dtype);
      }
    }
    if (s.dense) scatter(device_, s.dense, slot.out.dtype, s.gradient->numel, s.gradient->view);
  }
  for (const Scatter& s : scatters_) scatter(device_, s.from, s.dtype, s.numel, s.to);
}

}  // namespace cuda
}  // namespace vae_fast
