// LoHa (Hyeon-Woo et al. 2021, "FedPara: Low-Rank Hadamard Product for Communication-Efficient Federated Learning"): a change of a rank up
// to r^2 by an elementwise product. First values as LyCORIS draws them (Yeh et al. 2023).
//
//   W' = W + (alpha / r) (w1_a w1_b) * (w2_a w2_b),   w1_a begins as 0
#include <ATen/ops/zeros.h>

#include "brume/config/registry.h"
#include "brume/core/adapter.h"
#include "brume/interop/low_rank.h"

namespace brume::plugins {
namespace {

class Loha final : public Adapter {
 public:
  using Options = LowRankOptions;
  explicit Loha(const Options& o) : o_(o) {}
  std::vector<std::string> targets() const override { return o_.targets; }
  double alpha() const override { return o_.alpha; }
  std::vector<Weight> parameters(const Tensor& weight, at::Generator& random) const override {
    constexpr double std_b = 1, std_a = 0.1;
    const int64_t rows = weight.size(0), columns = weight.numel() / rows;
    return {{"hada_w1_a", at::zeros({rows, o_.rank}, at::kFloat)},
            {"hada_w1_b", normal_rows({o_.rank, columns}, std_b, random)},
            {"hada_w2_a", normal_rows({rows, o_.rank}, std_a, random)},
            {"hada_w2_b", normal_rows({o_.rank, columns}, std_b, random)}};
  }

 private:
  Options o_;
};

}  // namespace

void register_adapter_loha(Registry& r) {
  r.add<Adapter, Loha>("loha", "an elementwise product of two changes of low rank of each weight (LoHa)");
}

}  // namespace brume::plugins
