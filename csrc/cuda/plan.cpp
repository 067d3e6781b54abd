#include "plan.h"

#include <numeric>
#include <utility>

#include "launch.h"
#include "sums.h"

namespace vae_fast {
namespace cuda {

int64_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat64: return 8;
    case DType::kFloat32: return 4;
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

int64_t parts_of(int64_t n, int64_t part) { return (n + part - 1) / part; }

// One value a row, rows of equal size.
bool by_row(const View& index) { return index.ndim == 2 && index.stride[0] == 1 && index.stride[1] == 0; }
// One value a column.
bool by_feature(const View& index) { return index.ndim == 2 && index.stride[0] == 0 && index.stride[1] == 1; }

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

// A view with the samples as its first dim.
View of_samples(const View& view, int64_t samples, int64_t stride) {
  View all;
  all.data = view.data;
  all.dtype = view.dtype;
  all.append(samples, stride);
  for (int d = 0; d < view.ndim; ++d) all.append(view.size[d], view.stride[d]);
  return all;
}

}  // namespace

bool sums_in_kernel(const View& index) { return index.constant() || by_row(index) || by_feature(index); }

Plan::Plan(Device& device, const Rows& rows, int chunk, bool by_column)
    : device_(device), rows_in_(rows), chunk_(chunk), by_column_(by_column), numel_(rows.count * rows.size) {}

bool Plan::main() const {
  for (const Summing& s : slots_)
    if (s.slot.kind != Slot::kNone) return true;
  return false;
}

bool Plan::even() const {
  const Work& w = work_;
  const auto apart = [&](const void* data, DType dtype, int64_t s, int64_t d) {
    const int64_t bytes = size_of(dtype), chunk = chunk_ * bytes, at_once = chunk < 16 ? chunk : 16;
    const bool aligned = reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(at_once) == 0;
    return !aligned || (w.rows > 1 && (s * bytes % at_once != 0 || d * bytes % at_once != 0));
  };
  if (w.columns % chunk_ != 0 || w.phase != 0 || (w.rows > 1 && (w.phase_s != 0 || w.phase_d != 0))) return false;
  for (const Reading& r : inputs_)
    if (r.input.dense && !r.input.number && apart(r.input.data, r.input.dtype, r.input.s, r.input.d)) return false;
  for (const Writing& o : outputs_)
    if (apart(o.out.data, o.out.dtype, o.out.s, o.out.d)) return false;
  for (const Summing& s : slots_)
    if (s.slot.kind == Slot::kEach && apart(s.slot.out.data, s.slot.out.dtype, s.slot.out.s, s.slot.out.d)) return false;
  return true;
}

void Plan::read(const View& view, int64_t samples, int64_t sample_stride) {
  inputs_.push_back({&view, samples, sample_stride, {}});
}

void Plan::write(const View& view, int64_t samples, int64_t sample_stride) {
  outputs_.push_back({&view, samples, sample_stride, {}});
}

void Plan::value(void* out, DType dtype, double factor) {
  Summing summing;
  if (out) {
    summing.slot.kind = rows_in_.count == 1 ? Slot::kTotal : rows_in_.size == 1 ? Slot::kEach : Slot::kRow;
    summing.slot.out.data = out;
    summing.slot.out.dtype = summing.compute = dtype;
    summing.slot.factor = factor;
    summing.row_size = rows_in_.size;
  }
  slots_.push_back(summing);
}

void Plan::gradient(const Gradient& gradient, DType compute) {
  Summing summing;
  summing.compute = compute;
  if (gradient.kind == Gradient::kEach) {
    summing.slot.kind = Slot::kEach;
    summing.each = &gradient.view;
  } else if (gradient.kind != Gradient::kNone) {
    summing.gradient = &gradient;
    summing.slot.out.dtype = gradient.view.dtype;
    if (gradient.index.constant()) {
      summing.slot.kind = Slot::kTotal;
    } else if (by_row(gradient.index)) {
      summing.slot.kind = Slot::kRow;
      summing.row_size = gradient.index.size[1];
    } else {
      summing.slot.kind = Slot::kEach;
      summing.features = true;
      summing.row_size = gradient.index.size[1];
    }
  }
  slots_.push_back(summing);
}

void Plan::chunks_by_index(uint64_t offset, bool each_row) {
  by_index_ = true;
  each_row_ = each_row;
  offset_ = offset;
}

// The longest rows along which every operand is dense or constant.
void Plan::columns() {
  int64_t n = numel_;
  const auto take = [&](const View& view) {
    if (view && !view.number && flat(view) && !view.constant()) n = std::gcd(n, view.size[view.ndim - 1]);
  };
  for (const Reading& r : inputs_) take(*r.view);
  for (const Writing& w : outputs_) take(*w.view);
  for (const Summing& s : slots_) {
    if (s.each) take(*s.each);
    if (s.slot.kind == Slot::kRow || (s.features && by_column_)) n = std::gcd(n, s.row_size);
  }
  if (each_row_) n = rows_in_.size;
  work_.columns = n;
  work_.rows = numel_ / n;
  for (Summing& s : slots_) {
    if (s.features && by_column_ && s.row_size == n) {
      s.slot.kind = Slot::kNone;
      s.features = false;
      s.by_column = true;
    }
    if (s.slot.kind != Slot::kRow || s.row_size == n) continue;
    s.slot.kind = Slot::kEach;
    s.rows_apart = true;
    s.whole = s.slot.out.data;
    s.whole_factor = std::exchange(s.slot.factor, 1.0);
  }
}

bool Plan::fits(const View& view) const {
  if (!flat(view)) return false;
  const Outer outer(view, view.constant() ? 1 : work_.columns);
  return view.constant() || outer.ndim < 2 || (outer.ndim == 2 && outer.size[1] == work_.inner);
}

void Plan::strides(const View& view, int64_t& s, int64_t& d, bool& dense) const {
  dense = view.stride[view.ndim - 1] == 1 && view.size[view.ndim - 1] > 1;
  s = d = 0;
  if (view.constant()) return;
  const Outer outer(view, work_.columns);
  if (outer.ndim == 2) {
    s = outer.stride[0];
    d = outer.stride[1];
  } else if (outer.ndim == 1) {
    d = outer.stride[0];
    s = d * work_.inner;
  }
}

// The two dims of rows: those of the first operand that has two.
void Plan::rows() {
  work_.inner = work_.rows;
  const auto take = [&](const View& view) {
    if (work_.inner != work_.rows || !view || view.number || !flat(view) || view.constant()) return;
    const Outer outer(view, work_.columns);
    if (outer.ndim == 2) work_.inner = outer.size[1];
  };
  for (const Reading& r : inputs_) take(*r.view);
  for (const Writing& w : outputs_) take(*w.view);
  for (const Summing& s : slots_)
    if (s.each) take(*s.each);
}

Output Plan::place(const View& view, int64_t samples, int64_t& sample_stride) {
  Output out;
  out.dtype = view.dtype;
  bool dense = true;
  if (fits(view)) {
    strides(view, out.s, out.d, dense);
    // One column, whose stride says nothing, or dense ones.
    if (dense || work_.columns == 1) {
      out.data = view.data;
      return out;
    }
  }
  out.data = device_.scratch(samples * numel_ * size_of(out.dtype));
  out.d = work_.columns;
  out.s = work_.columns * work_.inner;
  scatters_.push_back({out.data, out.dtype, samples * numel_, of_samples(view, samples, sample_stride)});
  sample_stride = numel_;
  return out;
}

void Plan::layout() {
  Work& w = work_;
  if (by_index_) {
    w.phase = static_cast<int64_t>(offset_ % static_cast<uint64_t>(chunk_));
    w.phase_d = each_row_ ? 0 : w.columns % chunk_;
    w.phase_s = w.phase_d * (w.inner % chunk_) % chunk_;
  } else {
    const auto lead = [&](const void* data, DType dtype, int64_t s, int64_t d) {
      const auto modulo = [&](int64_t n) { return (n % chunk_ + chunk_) % chunk_; };
      w.phase = static_cast<int64_t>(reinterpret_cast<uintptr_t>(data) / static_cast<uintptr_t>(size_of(dtype)) %
                                     static_cast<uintptr_t>(chunk_));
      w.phase_s = modulo(s);
      w.phase_d = modulo(d);
    };
    bool led = false;
    for (const Reading& r : inputs_) {
      if (led || !r.input.dense || r.input.number) continue;
      lead(r.input.data, r.input.dtype, r.input.s, r.input.d);
      led = true;
    }
  }
  const int64_t chunks = parts_of(w.columns, chunk_);
  const int64_t wanted = power_of_two_from(parts_of(chunks, 2));
  w.group = static_cast<int>(wanted < kThreads ? wanted : kThreads);
  bool by_rows = false;
  for (const Summing& s : slots_) by_rows = by_rows || s.slot.kind == Slot::kRow;
  // More for a block to do where there is more to do than blocks at a time; long rows are cut where rows are few.
  const int64_t least = chunk_ * kThreads, few = numel_ <= (int64_t{1} << 18) ? 1 : numel_ <= (int64_t{1} << 21) ? 2 : 4;
  const int64_t most = (by_rows ? few : parts_of(numel_, kMostBlocks * least)) * least;
  const bool cut = w.columns > (by_rows ? 4 * most : most) && !(by_rows && w.rows >= 1024);
  if (cut) w.group = kThreads;
  w.segment = cut ? most : parts_of(w.columns + chunk_, chunk_) * chunk_;
  w.segments = cut ? parts_of(w.columns + chunk_ - 1, most) : 1;
  int64_t threads = power_of_two_from(w.rows < kThreads ? w.rows * w.group : kThreads);
  threads = threads < 32 ? 32 : threads > kThreads ? kThreads : threads;
  w.rows_per_block = static_cast<int>(threads / w.group);
  w.units = parts_of(w.rows, w.rows_per_block) * w.segments;
}

bool Plan::resolve() {
  if (numel_ == 0) {
    finish_empty();
    return false;
  }
  columns();
  rows();
  for (Reading& r : inputs_) {
    if (!*r.view) continue;
    Input& input = r.input;
    input.dtype = r.view->dtype;
    if (r.view->number) {
      input.number = true;
      input.value = number_of(*r.view);
    } else if (fits(*r.view)) {
      input.data = r.view->data;
      strides(*r.view, input.s, input.d, input.dense);
    } else {
      void* dense = device_.scratch(r.samples * numel_ * size_of(input.dtype));
      gather(device_, of_samples(*r.view, r.samples, r.sample_stride), r.samples * numel_, dense, input.dtype);
      r.sample_stride = numel_;
      input.data = dense;
      input.d = work_.columns;
      input.s = work_.columns * work_.inner;
      input.dense = true;
    }
  }
  for (Writing& w : outputs_) w.out = place(*w.view, w.samples, w.sample_stride);
  layout();
  slots();
  return true;
}

}  // namespace cuda
}  // namespace vae_fast
