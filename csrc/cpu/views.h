// Views read and written a tile at a time, as packs in compute dtype want them: contiguous, or copied into a buffer.
#pragma once

#include "convert.h"

namespace vae_fast {
namespace VF_ISA {

// How many elements a kernel works on at a time: 2 KiB, so that a tile of every operand stays in a core's first cache.
template <class T>
constexpr int kTile = 2048 / static_cast<int>(sizeof(T));

// Calls visit(position, stride, n) for the runs, at most one inner dim long, that make up n elements from `first` on.
// `position` is an offset from the view's data, in elements.
template <class F>
VF_INLINE void for_runs(const View& view, int64_t first, int n, F&& visit) {
  const int inner = view.ndim - 1;
  int64_t at[kMaxDims], position = 0;
  for (int d = inner; d > 0; --d) {
    at[d] = first % view.size[d];
    first /= view.size[d];
    position += at[d] * view.stride[d];
  }
  at[0] = first;
  position += at[0] * view.stride[0];
  for (;;) {
    const int64_t left = view.size[inner] - at[inner];
    const int run = left < n ? static_cast<int>(left) : n;
    visit(position, view.stride[inner], run);
    n -= run;
    if (n == 0) return;
    position -= at[inner] * view.stride[inner];
    at[inner] = 0;
    for (int d = inner - 1;; --d) {
      position += view.stride[d];
      if (++at[d] < view.size[d] || d == 0) break;
      position -= at[d] * view.stride[d];
      at[d] = 0;
    }
  }
}

template <class T>
constexpr DType kDType = sizeof(T) == 8 ? DType::kFloat64 : DType::kFloat32;

// Reads tiles of an operand in T.
template <class T>
class Reader {
 public:
  explicit Reader(const View& view)
      : view_(view), constant_(view.constant()), plain_(view.dtype == kDType<T> && view.stride[view.ndim - 1] == 1) {}

  explicit operator bool() const { return view_.data != nullptr; }

  // n elements from `first` on, at an offset of the data: the operand's own memory where it is laid out so, else a
  // buffer that the next call overwrites.
  const T* read(int64_t first, int n, int64_t offset = 0) {
    if (plain_) {
      const T* data = static_cast<const T*>(view_.data) + offset;
      if (view_.ndim == 1) return data + first;
      const int64_t inner = view_.size[view_.ndim - 1], column = first % inner;
      if (column + n <= inner) {
        const T* run = nullptr;
        for_runs(view_, first, 1, [&](int64_t position, int64_t, int) { run = data + position; });
        return run;
      }
    }
    if (constant_ && filled_ && offset == filled_offset_) return buffer_;
    switch (view_.dtype) {
      case DType::kFloat32: copy<float>(first, n, offset); break;
      case DType::kFloat64: copy<double>(first, n, offset); break;
      case DType::kBFloat16: copy<BFloat16>(first, n, offset); break;
      case DType::kFloat16: copy<Float16>(first, n, offset); break;
      case DType::kByte: copy<uint8_t>(first, n, offset); break;
      case DType::kBool: copy<Bool>(first, n, offset); break;
      case DType::kInt16: copy<int16_t>(first, n, offset); break;
      case DType::kInt32: copy<int32_t>(first, n, offset); break;
      case DType::kInt64: copy<int64_t>(first, n, offset); break;
    }
    return buffer_;
  }

 private:
  template <class S>
  __attribute__((noinline)) void copy(int64_t first, int n, int64_t offset) {
    const S* data = static_cast<const S*>(view_.data) + offset;
    if (constant_) {
      read_run(buffer_, data, 0, kTile<T>);
      filled_ = true;
      filled_offset_ = offset;
      return;
    }
    T* to = buffer_;
    for_runs(view_, first, n, [&](int64_t position, int64_t stride, int run) {
      read_run(to, data + position, stride, run);
      to += run;
    });
  }

  const View& view_;
  bool constant_, plain_, filled_ = false;
  int64_t filled_offset_ = 0;
  alignas(64) T buffer_[kTile<T>];
};

// Writes tiles of a result: place() gives the memory to write a tile to, commit() brings it where it belongs.
template <class T>
class Writer {
 public:
  explicit Writer(const View& view)
      : view_(view), direct_(view.dtype == kDType<T> && view.ndim == 1 && view.stride[0] == 1) {}

  T* place(int64_t first, int64_t offset = 0) {
    return direct_ ? static_cast<T*>(view_.data) + offset + first : buffer_;
  }
  void commit(int64_t first, int n, int64_t offset = 0) {
    if (direct_) return;
    switch (view_.dtype) {
      case DType::kFloat32: copy<float>(first, n, offset); break;
      case DType::kFloat64: copy<double>(first, n, offset); break;
      case DType::kBFloat16: copy<BFloat16>(first, n, offset); break;
      case DType::kFloat16: copy<Float16>(first, n, offset); break;
      default: break;  // no result is of integers
    }
  }

 private:
  template <class D>
  __attribute__((noinline)) void copy(int64_t first, int n, int64_t offset) {
    D* data = static_cast<D*>(view_.data) + offset;
    const T* from = buffer_;
    for_runs(view_, first, n, [&](int64_t position, int64_t stride, int run) {
      write_run(from, data + position, stride, run);
      from += run;
    });
  }

  const View& view_;
  bool direct_;
  alignas(64) T buffer_[kTile<T>];
};

}  // namespace VF_ISA
}  // namespace vae_fast
