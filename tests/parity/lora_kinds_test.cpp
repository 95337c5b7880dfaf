// LoCon, LoHa, LoKr, DoRA and PEFT's files merged into shared/refs/pipe/tiny_sd, against shared/refs2/lora: merged weights within
// 1e-6 + 1e-5 |w|, and no other weight is changed.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <string_view>

#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora.h"
#include "brume/weights/safetensors.h"
#include "support/refs.h"
#include "support/tiny_sd.h"

#include <gtest/gtest.h>

namespace brume::test {
namespace {

struct Kind {
  const char* file;
  const char* expected;
  double multiplier;
  size_t unlisted = 0;  ///< weights that the LoRA changes and the reference does not list
};

class LoraKinds : public testing::TestWithParam<Kind> {};

TEST_P(LoraKinds, MergedWeights) {
  const Kind& k = GetParam();
  const std::string folder = "../refs2/lora/", file = folder + k.file + ".safetensors";
  BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
  BRUME_NEED_REF(file);
  const at::NoGradGuard no_grad;
  const auto pipeline = tiny_sd(tiny_sd_config());
  const std::vector<Weight> weights = pipeline->weights();
  const LoraNames names(weights);
  const SafetensorsFile expected(ref_path(folder + k.expected + "_expected.safetensors").string());
  auto merged = merged_loras({fmt::format("{}:{}", ref_path(file).string(), k.multiplier)}, weights, at::kFloat);
  constexpr std::string_view prefix = "merged.", ending = ".weight";
  for (const auto& [name, wanted] : expected.tensors()) {
    if (!name.starts_with(prefix)) continue;
    const std::string module = name.substr(prefix.size(), name.size() - prefix.size() - ending.size());
    const LoraTarget target = names.find(module);
    ASSERT_TRUE(target.weight) << module;
    const auto found = merged.find(target.weight->name);
    ASSERT_NE(found, merged.end()) << module;
    const Tensor off = (found->second - wanted).abs() - wanted.abs() * 1e-5;
    EXPECT_LE(off.max().item<double>(), 1e-6) << module;
    merged.erase(found);
  }
  EXPECT_EQ(merged.size(), k.unlisted);
}

INSTANTIATE_TEST_SUITE_P(Files, LoraKinds,
                         testing::Values(Kind{"kohya_locon", "kohya_locon_x1.0", 1}, Kind{"kohya_locon", "kohya_locon_x0.6", 0.6, 4},
                                         Kind{"loha", "loha_x0.8", 0.8}, Kind{"lokr", "lokr_x1.0", 1}, Kind{"dora_out", "dora_out_x1.0", 1},
                                         Kind{"dora_out", "dora_out_x0.5", 0.5}, Kind{"peft_diffusers", "peft_diffusers", 1}));

}  // namespace
}  // namespace brume::test
