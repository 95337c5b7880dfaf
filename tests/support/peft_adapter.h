#pragma once
// A U-Net, and adapters of PEFT for its first convolution, read from files.
#include <ATen/core/grad_mode.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "brume/core/network.h"
#include "brume/interop/lora.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {

class PeftAdapter : public testing::Test {
 protected:
  explicit PeftAdapter(int64_t channels) {
    network_ = make<Network>(fmt::format("{{type: unet, channels: {}, groups: 2, multipliers: [1], blocks: 1}}", channels),
                             {.input = {3, 8, 8}, .out_channels = 3});
    weights_ = prefixed("network.", network_->weights());
  }
  Tensor own(const std::string& name) const {
    return std::find_if(weights_.begin(), weights_.end(), [&](const Weight& w) { return w.name == name; })->tensor;
  }
  /// Returns the changed weights. config: the text of adapter_config.json.
  std::map<std::string, Tensor> merged(const NamedTensors& tensors, const std::string& config) {
    write_safetensors(folder_.file("adapter_model.safetensors"), tensors, {});
    std::ofstream(folder_.file("adapter_config.json")) << config;
    return merged_loras({folder_.file("adapter_model.safetensors")}, weights_, at::kFloat);
  }

  const at::NoGradGuard no_grad_;
  TempFolder folder_;
  std::shared_ptr<Network> network_;
  std::vector<Weight> weights_;
  const std::string convolution_ = "base_model.model.down_blocks.0.resnets.0.conv1",
                    weight_ = "network.input_blocks.1.0.in_layers.2.weight";
};

}  // namespace brume::test
