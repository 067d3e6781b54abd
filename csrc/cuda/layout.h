// The elements as rows of columns, and how a row's columns are cut up for threads and blocks. By shapes and strides
// only.
#pragma once

#include "work.h"

namespace vae_fast {
namespace cuda {

// Bytes of an element.
int64_t size_of(DType dtype);

// Rows of columns: row r is (s, d), r = s·inner + d.
struct Layout {
  int64_t rows = 1, inner = 1, columns = 1;

  // A view's strides of s and d; along the columns it is dense or constant.
  struct Strides {
    int64_t s = 0, d = 0;
    bool dense = false;
  };

  // Of `numel` elements in rows of `columns`, whose two dims are yet to be found.
  Layout(int64_t numel, int64_t columns) : rows(numel / columns), inner(rows), columns(columns) {}
  Layout() = default;

  // Makes the two dims of rows those of a view, where no other view's are and it has two.
  void take_rows(const View& view);
  // Whether a view is rows of columns of these dims.
  bool fits(const View& view) const;
  // Of one that fits.
  Strides strides(const View& view) const;
  // Of memory in C order.
  Strides dense() const { return {columns * inner, columns, true}; }
};

// Of where a gradient's values are: one a row, rows of equal size.
inline bool by_row(const View& index) { return index.ndim == 2 && index.stride[0] == 1 && index.stride[1] == 0; }
// One a column.
inline bool by_feature(const View& index) { return index.ndim == 2 && index.stride[0] == 0 && index.stride[1] == 1; }
// Whether the kernels sum it: one value altogether, one a row, or one a column.
inline bool sums_in_kernel(const View& index) { return index.constant() || by_row(index) || by_feature(index); }

// The longest rows of at most `columns` along which a view is dense or constant, as a divisor of `columns`.
int64_t columns_along(const View& view, int64_t columns);

// Cuts rows into chunks of `chunk` columns, segments and units; `by_rows`: there are sums over each row. The phases say
// already where chunks begin.
void cut_up(Work& work, int chunk, bool by_rows);

}  // namespace cuda
}  // namespace vae_fast
