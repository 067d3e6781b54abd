// negative_binomial_log_prob whose mean is a softmax's share of a library.
#include "../table.h"
#include "density.h"
#include "softmax.h"

namespace vae_fast {
namespace VF_ISA {

void negative_binomial_of_shares(const NegativeBinomialSharesArgs& all) {
  in_dtype(all.compute, [&](auto number) {
    using T = decltype(number);
    ShareArgs args(all);
    const CountForm<T> form{true, all.log_theta, static_cast<T>(all.eps)};
    // For "sum" and "mean" those of the rows are added up.
    const bool joined = all.out && all.rows.count != args.rows.count;
    std::unique_ptr<T[]> sums(joined ? new T[args.rows.count] : nullptr);
    if (joined) args.out = sums.get();
    args.in[2] ? run_density<T, ShareBlocks<T>>(args, ShareDensity<T, true>{{form}}, 7.0)
               : run_density<T, ShareBlocks<T>>(args, ShareDensity<T, false>{{form}}, 5.0);
    if (!joined) return;
    double sum = 0;
    for (int64_t r = 0; r < args.rows.count; ++r) sum += static_cast<double>(sums[r]);
    *static_cast<T*>(all.out) = static_cast<T>(sum);
  });
}

// The density's kernel has them in it.
void softmax_fwd(const SoftmaxArgs&) {}
void softmax_bwd(const SoftmaxArgs&) {}

}  // namespace VF_ISA
}  // namespace vae_fast
