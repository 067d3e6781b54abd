// The noise ε by itself.
#include "../table.h"
#include "normals.h"
#include "rows.h"

namespace vae_fast {
namespace VF_ISA {

void standard_normal(const NormalArgs& args) {
  const Rows rows{args.n_samples, args.n};
  const Pieces pieces(rows);
  parallel(args.parallel_for, rows, pieces.count(), 2.0, [&](int64_t begin, int64_t end) {
    Normals normals(args.noise);
    Writer<float> out(args.out);
    for (int64_t piece = begin; piece < end; ++piece) {
      pieces.for_tiles<float>(piece, [&](int64_t first, int n) {
        // A tile is part of one sample, or several whole ones.
        int64_t sample = first / args.n;
        const int each = n < args.n ? n : static_cast<int>(args.n), most = Normals::samples_in_a_block(each);
        for (int64_t left = n / each; left > 0;) {
          const int block = left < most ? static_cast<int>(left) : most;
          normals.draw(first % args.n, each, sample, block);
          for (int k = 0; k < block; ++k, first += each) {
            std::memcpy(out.place(first), normals.row(k), each * sizeof(float));
            out.commit(first, each);
          }
          sample += block;
          left -= block;
        }
      });
    }
  });
}

}  // namespace VF_ISA
}  // namespace vae_fast
