// LoKr (Edalati et al. 2022, "KronA: Parameter Efficient Tuning with Kronecker Adapter"; Yeh et al. 2023): a change that is a Kronecker
// product, whose larger side has a low rank.
//
//   W' = W + (alpha / r) kron(w1, w2_a w2_b),   w2_b begins as 0
//
// Each side of W is split into two factors, the smaller one at most `factor`: [a b, c d] = kron([a, c], [b, d]). If r is not less than half
// of b and d, w2 is one full matrix, without the factor alpha / r.
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "brume/config/registry.h"
#include "brume/core/adapter.h"
#include "brume/interop/low_rank.h"

namespace brume::plugins {
namespace {

class Lokr final : public Adapter {
 public:
  struct Options : LowRankOptions {
    int64_t factor = 8;
    void declare(Fields& f) {
      LowRankOptions::declare(f);
      f.field("factor", factor, "largest size of the smaller factor", within(1, 4096));
    }
  };
  explicit Lokr(const Options& o) : o_(o) {}
  std::vector<std::string> targets() const override { return o_.targets; }
  double alpha() const override { return o_.alpha; }
  std::vector<Weight> parameters(const Tensor& weight, at::Generator& random) const override {
    const int64_t out = small_factor(weight.size(0)), in = small_factor(weight.size(1));
    const int64_t rows = weight.size(0) / out, columns = weight.size(1) / in, kernel = weight.numel() / (weight.size(0) * weight.size(1));
    std::vector<Weight> all{{"lokr_w1", uniform_rows({out, in}, random)}};
    if (2 * o_.rank >= std::max(rows, columns)) {
      std::vector<int64_t> whole = weight.sizes().vec();
      whole[0] = rows, whole[1] = columns;
      all.push_back({"lokr_w2", at::zeros(whole, at::kFloat)});
    } else {
      all.push_back({"lokr_w2_a", uniform_rows({rows, o_.rank}, random)});
      all.push_back({"lokr_w2_b", at::zeros({o_.rank, columns * kernel}, at::kFloat)});
    }
    return all;
  }

 private:
  /// Returns the largest divisor of n that is at most `factor` and at most the root of n.
  int64_t small_factor(int64_t n) const {
    int64_t best = 1;
    for (int64_t m = 2; m <= o_.factor && m * m <= n; ++m)
      if (n % m == 0) best = m;
    return best;
  }
  Options o_;
};

}  // namespace

void register_adapter_lokr(Registry& r) {
  r.add<Adapter, Lokr>("lokr", "a Kronecker product of each weight's size, whose larger side has a low rank (LoKr)");
}

}  // namespace brume::plugins
