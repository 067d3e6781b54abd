// A first operand that is the logits of a softmax over event dims: what a density's kernel takes of it, and its
// gradient from the one by the logarithms of the shares.
#pragma once

#include "calls.h"

namespace vae_fast {

class Softmax {
 public:
  // Over the last dims of the space, whose shape the logits have.
  Softmax(const Operand& logits, const Space& space, int64_t event_ndim, DType compute) : device_(*logits.tensor) {
    check_floating(logits);
    VF_CHECK(logits.ndim == space.ndim && std::equal(space.size, space.size + space.ndim, logits.size), logits.name,
             " of shape ", shape_name(logits.size, logits.ndim), " must have the shape of all operands together, ",
             shape_name(space.size, space.ndim), ", for a softmax");
    check_event_ndim(event_ndim, space);
    VF_CHECK(event_ndim > 0, "a softmax needs an event: event_ndim is 0");
    const int event = space.ndim - static_cast<int>(event_ndim), type = compute_type(compute);
    own_ = logits.scalar_type != type || !in_order(logits);
    logits_ = own_ ? empty(logits.size, logits.ndim, type) : *logits.tensor;
    if (own_) tensors::copy_(logits_, *logits.tensor);
    int64_t size[kMaxDims];
    for (int d = 0; d < space.ndim; ++d) size[d] = d < event ? space.size[d] : 1;
    top_ = empty(size, space.ndim, type);
    log_sum_ = empty(size, space.ndim, type);
    device_.equip(args_);
    args_.compute = compute;
    args_.rows = {space.numel(0, event), space.numel(event, space.ndim)};
    args_.logits = data_of(logits_);
    args_.top = data_of(top_);
    args_.log_sum = data_of(log_sum_);
    run(kernels().softmax_fwd, args_);
  }

  const Rows& rows() const { return args_.rows; }
  // In C order, in the dtype computed in.
  const Tensor& logits() const { return logits_; }
  // One value a row, with the event's dims of size 1.
  const Tensor& top() const { return top_; }
  const Tensor& log_sum() const { return log_sum_; }

  // Makes `each`, the gradient by the logarithms of the shares, whose sum over a row is `total`, that by the logits.
  Tensor gradient(Tensor each, const Tensor& total, const Operand& logits) const {
    SoftmaxArgs args = args_;
    args.total = data_of(total);
    args.gradient = data_of(each);
    run(kernels().softmax_bwd, args);
    if (!own_) return each;
    Tensor own = empty_like(logits);
    tensors::copy_(own, each);
    return own;
  }

 private:
  OnDevice device_;
  bool own_;  // the logits are a copy
  Tensor logits_, top_, log_sum_;
  SoftmaxArgs args_;
};

}  // namespace vae_fast
