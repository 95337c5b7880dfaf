// LoRA (Hu et al. 2021, "LoRA: Low-Rank Adaptation of Large Language Models"), of convolutions as LoCon (Yeh et al. 2023), and DoRA (Liu et
// al. 2024, "DoRA: Weight-Decomposed Low-Rank Adaptation").
//
//   LoRA   W' = W + (alpha / r) up down,   up begins as 0
//   DoRA   W' = m (W + dW) / ||W + dW||,   the norm per row, m begins as that of W
#include <ATen/ops/zeros.h>

#include "brume/config/registry.h"
#include "brume/core/adapter.h"
#include "brume/interop/low_rank.h"
#include "brume/interop/weight_change.h"

namespace brume::plugins {
namespace {

template <bool magnitudes>
class Lora final : public Adapter {
 public:
  using Options = LowRankOptions;
  explicit Lora(const Options& o) : o_(o) {}
  std::vector<std::string> targets() const override { return o_.targets; }
  double alpha() const override { return o_.alpha; }
  std::vector<Weight> parameters(const Tensor& weight, at::Generator& random) const override {
    std::vector<int64_t> down = weight.sizes().vec(), up(size_t(weight.dim()), 1);
    down[0] = up[1] = o_.rank;
    up[0] = weight.size(0);
    std::vector<Weight> all{{"lora_down", uniform_rows(down, random)}, {"lora_up", at::zeros(up, at::kFloat)}};
    if (magnitudes) all.push_back({"dora_scale", row_norms(weight)});
    return all;
  }

 private:
  Options o_;
};

}  // namespace

void register_adapter_lora(Registry& r) {
  r.add<Adapter, Lora<false>>("lora", "a change of low rank of each weight (LoRA, LoCon)");
  r.add<Adapter, Lora<true>>("dora", "a change of low rank of each weight's direction, and its magnitude per row (DoRA)");
}

}  // namespace brume::plugins
