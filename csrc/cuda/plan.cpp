#include "plan.h"

#include <numeric>
#include <utility>

#include "launch.h"
#include "sums.h"

namespace vae_fast {
namespace cuda {

View of_samples(const View& view, int64_t samples, int64_t stride) {
  View all;
  all.data = view.data;
  all.dtype = view.dtype;
  all.append(samples, stride);
  for (int d = 0; d < view.ndim; ++d) all.append(view.size[d], view.stride[d]);
  return all;
}

Plan::Plan(Device& device, const Rows& rows, int chunk, bool by_column)
    : device_(device), rows_in_(rows), chunk_(chunk), by_column_(by_column), numel_(rows.count * rows.size) {}

bool Plan::main() const {
  for (const Summing& s : slots_)
    if (s.slot.kind != Slot::kNone) return true;
  return false;
}

bool Plan::in_place() const {
  for (const Summing& s : slots_)
    if (s.slot.kind != Slot::kNone && !s.each) return false;
  return scatters_.empty();
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
    if (s.slot.kind == Slot::kEach && apart(s.slot.out.data, s.slot.out.dtype, s.slot.out.s, s.slot.out.d))
      return false;
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

void Plan::chunks_by_sample(uint64_t offset, int64_t each) {
  by_index_ = true;
  offset_ = offset;
  each_sample_ = each;
}

// The longest rows along which every operand is dense or constant, and what that makes of sums.
void Plan::find_rows() {
  int64_t n = numel_;
  for_views([&](const View& view) { n = columns_along(view, n); });
  for (const Summing& s : slots_)
    if (s.slot.kind == Slot::kRow || (s.features && by_column_)) n = std::gcd(n, s.row_size);
  if (each_row_) n = rows_in_.size;
  if (each_sample_ > 0) n = std::gcd(n, each_sample_);
  layout_ = Layout(numel_, n);
  if (each_sample_ > 0) layout_.inner = each_sample_ / n;
  for_views([&](const View& view) { layout_.take_rows(view); });
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

Output Plan::place(const View& view, int64_t samples, int64_t& sample_stride) {
  Output out;
  out.dtype = view.dtype;
  out.bytes = size_of(out.dtype);
  const Layout::Strides own = layout_.strides(view);
  // One column, whose stride says nothing, or dense ones.
  if (layout_.fits(view) && (own.dense || layout_.columns == 1)) {
    out.data = view.data;
    out.s = own.s;
    out.d = own.d;
    return out;
  }
  out.data = device_.scratch(samples * numel_ * size_of(out.dtype));
  out.s = layout_.dense().s;
  out.d = layout_.dense().d;
  scatters_.push_back({out.data, out.dtype, samples * numel_, of_samples(view, samples, sample_stride)});
  sample_stride = numel_;
  return out;
}

// Where chunks of columns begin: at multiples of the noise's counter, or as the first dense operand is aligned.
void Plan::set_phase() {
  Work& w = work_;
  if (by_index_) {
    w.phase = static_cast<int64_t>(offset_ % static_cast<uint64_t>(chunk_));
    w.phase_d = each_row_ ? 0 : w.columns % chunk_;
    w.phase_s = each_sample_ > 0 ? 0 : w.phase_d * (w.inner % chunk_) % chunk_;
    return;
  }
  const auto modulo = [&](int64_t n) { return (n % chunk_ + chunk_) % chunk_; };
  for (const Reading& r : inputs_) {
    const Input& lead = r.input;
    if (!lead.dense || lead.number) continue;
    w.phase = static_cast<int64_t>(reinterpret_cast<uintptr_t>(lead.data) /
                                   static_cast<uintptr_t>(size_of(lead.dtype)) % static_cast<uintptr_t>(chunk_));
    w.phase_s = modulo(lead.s);
    w.phase_d = modulo(lead.d);
    return;
  }
}

void Plan::place(Reading& reading) {
  Input& input = reading.input;
  const View& view = *reading.view;
  input.dtype = view.dtype;
  input.bytes = size_of(input.dtype);
  if (view.number) {
    input.number = true;
    input.value = number_of(view);
    return;
  }
  Layout::Strides strides = layout_.dense();
  if (layout_.fits(view)) {
    input.data = view.data;
    strides = layout_.strides(view);
  } else {
    void* dense = device_.scratch(reading.samples * numel_ * size_of(input.dtype));
    gather(device_, of_samples(view, reading.samples, reading.sample_stride), reading.samples * numel_, dense,
           input.dtype);
    reading.sample_stride = numel_;
    input.data = dense;
  }
  input.s = strides.s;
  input.d = strides.d;
  input.dense = strides.dense;
}

bool Plan::resolve() {
  if (numel_ == 0) {
    finish_empty();
    return false;
  }
  find_rows();
  work_.rows = layout_.rows;
  work_.inner = layout_.inner;
  work_.columns = layout_.columns;
  for (Reading& r : inputs_)
    if (*r.view) place(r);
  for (Writing& w : outputs_) w.out = place(*w.view, w.samples, w.sample_stride);
  set_phase();
  bool by_rows = false;
  for (const Summing& s : slots_) by_rows = by_rows || s.slot.kind == Slot::kRow;
  cut_up(work_, chunk_, by_rows);
  slots();
  return true;
}

}  // namespace cuda
}  // namespace vae_fast
