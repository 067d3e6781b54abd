// Counts as a CSR matrix: what kernels take of it. It is data, of a table of two dims.
#pragma once

#include "calls.h"

namespace vae_fast {

class Counts {
 public:
  explicit Counts(const Tensor& x) : tensor_(x) {
    if (tensors::is_csr(x)) read();
  }

  // The dense table; of a CSR matrix one 0.
  Operand operand() const { return Operand("x", sparse_.starts ? *zero_ : tensor_); }
  const SparseRows& sparse() const { return sparse_; }

  // Raises unless the first operand has the matrix's shape.
  void check(const Operand& first) const {
    if (!sparse_.starts) return;
    VF_CHECK(first.ndim == 2 && first.size[0] == tensor_.size(0) && first.size[1] == tensor_.size(1), first.name,
             " of shape ", shape_name(first.size, first.ndim), " must have that of x, a CSR matrix: (", tensor_.size(0),
             ", ", tensor_.size(1), ")");
  }

 private:
  static Tensor in_one_piece(const Tensor& part) { return part.is_contiguous() ? part : tensors::contiguous(part); }

  void read() {
    VF_CHECK(tensor_.dim() == 2, "x, a CSR matrix, must have 2 dims, got ", tensor_.dim());
    starts_ = in_one_piece(tensors::crow_indices(tensor_));
    columns_ = in_one_piece(tensors::col_indices(tensor_));
    values_ = in_one_piece(tensors::values(tensor_));
    const int64_t rows = tensor_.size(0), zero = 0;
    const Operand starts("x", *starts_), columns("x", *columns_), values("x", *values_);
    const bool wide = starts.dtype == DType::kInt64;
    VF_CHECK((wide || starts.dtype == DType::kInt32) && columns.dtype == starts.dtype, "x has indices of ",
             dtype_name(starts.scalar_type), " and ", dtype_name(columns.scalar_type));
    VF_CHECK(starts.numel() == rows + 1 && values.ndim == 1 && columns.numel() == values.numel(),
             "x is no CSR matrix: it has ", starts.numel(), " starts of ", rows, " rows, ", columns.numel(),
             " columns and ", values.numel(), " values");
    sparse_.starts = data_of(*starts_);
    sparse_.columns = data_of(*columns_);
    sparse_.wide = wide;
    sparse_.width = tensor_.size(1);
    sparse_.values.data = data_of(*values_);
    sparse_.values.dtype = values.dtype;
    sparse_.values.append(values.numel(), 1);
    check_starts(rows, values.numel());
    zero_ = empty(&zero, 0, scalar_type_of(is_floating(values.dtype) ? values.dtype : DType::kFloat32));
    tensors::zero_(*zero_);
  }

  // What a kernel reads lies between them.
  void check_starts(int64_t rows, int64_t count) const {
    const auto start = [&](int64_t r) {
      return sparse_.wide ? static_cast<const int64_t*>(sparse_.starts)[r]
                          : int64_t{static_cast<const int32_t*>(sparse_.starts)[r]};
    };
    bool ordered = start(0) == 0 && start(rows) == count;
    for (int64_t r = 0; r < rows; ++r) ordered = ordered && start(r) <= start(r + 1);
    VF_CHECK(ordered, "x is no CSR matrix: its rows do not follow each other");
  }

  const Tensor& tensor_;
  OptionalTensor starts_, columns_, values_, zero_;
  SparseRows sparse_;
};

}  // namespace vae_fast
