// From views of any strides to what kernels take: how the elements are cut up, which operands are made dense first, and
// what is left to do when the kernel has run. All by shapes and strides, none of it by the GPU.
#pragma once

#include <vector>

#include "layout.h"

namespace vae_fast {
namespace cuda {

// A view with samples, so far apart, as its first dim.
View of_samples(const View& view, int64_t samples, int64_t stride);

class Plan {
 public:
  // `chunk` is how many elements a thread takes at a time.
  // `by_column`: whether there is a kernel for gradients with one value a column.
  Plan(Device& device, const Rows& rows, int chunk, bool by_column = false);

  // In the order of the kernel's operands. Views must outlive the plan. The kernel reads each in its own dtype, and
  // writes results in theirs (Storage). A view may stand for several samples, `sample_stride` apart.
  void read(const View& view, int64_t samples = 1, int64_t sample_stride = 0);
  void value(void* out, DType dtype, double factor);
  // Of one that is summed by way of all elements, these are in `compute` dtype.
  void gradient(const Gradient& gradient, DType compute);
  void write(const View& view, int64_t samples = 1, int64_t sample_stride = 0);
  // Chunks begin where the element's index plus `offset` is a multiple of `chunk`, not by an operand's memory. With
  // `each_row` a row's index begins at 0, and rows are those of the call.
  void chunks_by_index(uint64_t offset, bool each_row = false);
  // The same where the call's elements are those of several samples, of `each` elements: rows are (sample, row of it),
  // and a sample's index begins at 0.
  void chunks_by_sample(uint64_t offset, int64_t each);

  // Whether there is anything for the kernel to do.
  bool resolve();

  const Work& work() const { return work_; }
  int blocks() const { return blocks_; }
  int threads() const { return work_.group * work_.rows_per_block; }
  // Sums are over everything and joined by the last block, which this counter finds; null for one block.
  bool total() const { return total_; }
  int* ticket() const { return ticket_; }
  const Input& input(int k) const { return inputs_[k].input; }
  int64_t input_sample_stride(int k) const { return inputs_[k].sample_stride; }
  const Output& output(int k) const { return outputs_[k].out; }
  int64_t output_sample_stride(int k) const { return outputs_[k].sample_stride; }
  const Slot& slot(int k) const { return slots_[k].slot; }

  // Whether slot k has one value a column, for a kernel of its own: slot(k) then is none of the main kernel's.
  bool by_column(int k) const { return slots_[k].by_column; }
  // Where its values go: dense, in the gradient's dtype.
  const Output& columns_out(int k) const { return slots_[k].slot.out; }
  // Whether the main kernel has something to do.
  bool main() const;
  // Whether it has nothing but gradients of an element each, and writes them where they belong.
  bool in_place() const;
  // Whether all chunks are even: all of their columns are there, and they are aligned in every operand and result.
  bool even() const;

  // After the kernels: joins partial sums, and brings results to where they belong.
  void finish();

 private:
  struct Reading {
    const View* view;
    int64_t samples, sample_stride;
    Input input;
  };
  struct Writing {
    const View* view;
    int64_t samples, sample_stride;
    Output out;
  };
  struct Summing {
    Slot slot;
    const View* each = nullptr;          // kEach: the elements
    const Gradient* gradient = nullptr;  // else where its values belong
    DType compute = DType::kFloat32;
    int64_t row_size = 0;     // kRow: elements that each sum is over
    bool features = false;    // one value a column of rows of row_size, by way of all elements
    bool by_column = false;   // or by a kernel of its own
    bool rows_apart = false;  // one value a row, by way of all elements: into `whole`, or the gradient
    void* whole = nullptr;
    double whole_factor = 1;
    void* dense = nullptr;  // scratch that a result is brought from
  };

  // Every view that the kernel walks, operands first.
  template <class F>
  void for_views(const F& visit) const {
    for (const Reading& r : inputs_) visit(*r.view);
    for (const Writing& w : outputs_) visit(*w.view);
    for (const Summing& s : slots_)
      if (s.each) visit(*s.each);
  }
  void find_rows();
  void set_phase();
  void place(Reading& reading);
  void slots();
  void gather_sums(Summing& summing);
  Output place(const View& view, int64_t samples, int64_t& sample_stride);
  void finish_empty();
  void bring_summed(const Summing& summing, const void* values);

  Device& device_;
  Rows rows_in_;
  int chunk_;
  bool by_column_;
  int64_t numel_;
  Layout layout_;
  Work work_{};
  int blocks_ = 0;
  bool total_ = false, by_index_ = false, each_row_ = false;
  uint64_t offset_ = 0;
  int64_t each_sample_ = 0;
  int* ticket_ = nullptr;
  std::vector<Reading> inputs_;
  std::vector<Writing> outputs_;
  std::vector<Summing> slots_;
  struct Scatter {
    void* from;
    DType dtype;
    int64_t numel;
    View to;
  };
  std::vector<Scatter> scatters_;
};

}  // namespace cuda
}  // namespace vae_fast
