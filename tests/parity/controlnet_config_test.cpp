// What the config.json of a ControlNet says and its shapes do not, against diffusers (references/controlnet_config.py).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "brume/core/control.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/import/diffusers_weights.h"
#include "brume/weights/model_weights.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"
#include "support/waves.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

const std::string directory = "../refs2/controlnet/tiny_controlnet";

class ControlNetConfig : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF(directory + "/config.json");
    const std::string unet = ref_path("pipe/tiny_sd/unet").string();
    const DiffusersUnet options = read_diffusers_unet(unet + "/config.json");
    network_ = make<Network>(dump_yaml(options.options()), {.input = {4, 16, 16}, .out_channels = 4, .context_width = 32});
    load_weights(unet, options.tensors(component_tensors(unet)), network_->weights());
  }
  /// The residuals under other settings, the middle block's last.
  std::vector<Tensor> residuals(const nlohmann::json& settings) {
    const at::NoGradGuard no_grad;
    const fs::path folder = fs::path(folder_.file("control"));
    fs::create_directories(folder);
    nlohmann::json config = ref_json(directory + "/config.json");
    config.update(settings);
    std::ofstream(folder / "config.json") << config.dump();
    const std::string weights = "diffusion_pytorch_model.safetensors";
    fs::copy_file(ref_path(directory) / weights, folder / weights, fs::copy_options::skip_existing);
    const auto open = make<Control>(fmt::format("{{type: controlnet, file: '{}'}}", folder.string()))
                          ->open({.network = *network_, .latent = {4, 16, 16}, .context_width = 32, .ratio = 2});
    Condition condition;
    condition.context = waves({1, 7, 32}, 0.11);
    const Tensor x = waves({1, 4, 16, 16}, 0.37), t = at::full({1}, 500, at::kFloat);
    Taps taps;
    const std::vector<Tensor> hint = open->encode(waves({1, 3, 32, 32}, 0.013) * 0.5 + 0.5);
    open->add_to(taps, {.input = x, .c_noise = t, .condition = condition, .control = hint, .mask = {}, .scale = 1});
    std::vector<Tensor> all;
    for (size_t i = 0; i < taps.skip_residuals.size(); ++i) all.push_back(taps.skip_residuals.at(fmt::format("input_blocks.{}", i)));
    all.push_back(taps.residuals.at("middle_block"));
    return all;
  }
  TempFolder folder_;
  std::shared_ptr<Network> network_;
};

TEST_F(ControlNetConfig, ItsOwnNumbersCount) {
  const auto cases = nlohmann::json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/controlnet_config.json"));
  for (const nlohmann::json& c : cases) {
    SCOPED_TRACE(c["settings"].dump());
    const std::vector<Tensor> got = residuals(c["settings"]);
    ASSERT_EQ(got.size(), c["residuals"].size());
    for (size_t i = 0; i < got.size(); ++i) {
      const nlohmann::json& wanted = c["residuals"][i];
      const Tensor values = got[i].contiguous().to(at::kDouble).flatten();
      const double size = wanted["size"];
      EXPECT_NEAR(values.sum().item<double>(), wanted["sum"].get<double>(), 1e-5 * size) << i;
      EXPECT_NEAR(values.abs().sum().item<double>(), size, 1e-5 * size) << i;
      for (int64_t j = 0; j < 4; ++j) EXPECT_NEAR(values[j].item<double>(), wanted["first"][size_t(j)].get<double>(), 2e-5) << i;
    }
  }
}

TEST_F(ControlNetConfig, WhatAnEncoderCannotBeIsRefusedByItsKey) {
  const auto refusal = [&](const nlohmann::json& settings) { return error_of([&] { residuals(settings); }); };
  const nlohmann::json settings = {{"act_fn", "relu"},
                                   {"mid_block_scale_factor", 2},
                                   {"flip_sin_to_cos", false},
                                   {"freq_shift", 1},
                                   {"controlnet_conditioning_channel_order", "grb"}};
  for (const auto& [key, value] : settings.items()) {
    const std::string text = refusal({{key, value}});
    EXPECT_NE(text.find(key), text.npos) << key << ": " << text;
  }
}

}  // namespace
}  // namespace brume::test
