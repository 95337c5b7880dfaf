// Diffusion transformers of other programs: what names and shapes are read as, what has to be said with them, and what is refused. The
// weights are those of brume's own network, which has the same names.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <gtest/gtest.h>

#include <fstream>

#include "brume/core/network.h"
#include "brume/interop/import/import.h"
#include "brume/nn/blocks/patch_positions.h"
#include "brume/weights/safetensors.h"
#include "support/foreign_models.h"

namespace brume::test {
namespace {

using Settings = std::map<std::string, std::string>;

class DitImport : public testing::Test {
 protected:
  /// Writes a network's weights, with the table of positions that DiT stores.
  void write(const std::string& yaml, const Network::Context& context, int64_t side, int64_t width) {
    tensors.clear();
    for (const Weight& w : make<Network>(yaml, context)->weights()) tensors.push_back({w.name, w.tensor.contiguous()});
    const nn::PatchGrid grid{side, side};
    tensors.push_back({"pos_embed", nn::sine_positions(grid, grid, width).unsqueeze(0)});
  }
  void dit() { write("{type: dit, width: 32, depth: 2, heads: 4}", {.input = {4, 8, 8}, .out_channels = 8, .classes = 11}, 4, 32); }
  Imported import(const Settings& settings, const std::string& name = "net.safetensors") const {
    write_safetensors(folder.file(name), tensors);
    return import_model(folder.file(name), {settings, {}});
  }
  std::string refusal(const Settings& settings, const std::string& name = "net.safetensors") const {
    return without(error_of([&] { import(settings, name); }), folder);
  }
  static std::string yaml(const std::string& text) { return dump_yaml(parse_yaml(text, "wanted")); }

  TempFolder folder;
  NamedTensors tensors;
};

TEST_F(DitImport, DitByItsShapes) {
  dit();
  const Imported model = import({{"num_heads", "4"}, {"program", "dit"}});
  EXPECT_EQ(dump_yaml(model.options), yaml(R"(
image: {channels: 4, height: 8, width: 8}
network: {type: dit, patch: 2, width: 32, depth: 2, heads: 4, mlp_ratio: 4, positions: sine, rotary: false, qk_norm: false, norm: layer,
  activation: gelu}
conditioner: {type: class_label, classes: 10, dropout: 0.1}
noise: linear
parameterization: eps
variance: learned_range
)"));
  EXPECT_EQ(dump_yaml(model.sample), yaml("{sampler: {type: ddpm, variance: learned_range}, spacing: linspace, steps: 250, "
                                          "guidance: [{type: cfg, scale: 4, channels: 3}]}"));
  EXPECT_EQ(model.tensors.size(), tensors.size() - 1);
  EXPECT_EQ(model.losses.size(), 1u) << "without a first stage";
}

// The network gives 8 channels; SiT uses the first 4 of each pixel of a patch.
TEST_F(DitImport, SitWithoutItsSecondHalf) {
  dit();
  const Imported model = import({{"num_heads", "4"}}, "SiT-tiny.safetensors");
  EXPECT_EQ(dump_yaml(*model.options.find("noise")), yaml("{type: flow, timestep: image, timestep_scale: 1}"));
  EXPECT_EQ(dump_yaml(*model.options.find("parameterization")), yaml("{type: flow, direction: to_image}"));
  EXPECT_EQ(dump_yaml(*model.options.find("variance")), yaml("none"));
  EXPECT_EQ(find(model.tensors, "network.final_layer.linear.weight")->sizes(), at::IntArrayRef({16, 32}));
  EXPECT_EQ(find(model.tensors, "network.final_layer.linear.bias")->sizes(), at::IntArrayRef({16}));
}

TEST_F(DitImport, LightningDitByItsNames) {
  write("{type: dit, width: 32, depth: 2, heads: 2, patch: 1, rotary: true, norm: rms, activation: swiglu, qk_norm: true}",
        {.input = {4, 4, 4}, .out_channels = 4, .classes = 11}, 4, 32);
  for (const char* name : {"feat_rope.freqs_cos", "feat_rope.freqs_sin"}) tensors.push_back({name, at::full({16, 16}, 1.0)});
  const Imported model = import({});
  EXPECT_EQ(dump_yaml(*model.options.find("network")),
            yaml("{type: dit, patch: 1, width: 32, depth: 2, heads: 2, mlp_ratio: 4, positions: sine, rotary: true, qk_norm: true, "
                 "norm: rms, activation: swiglu}"));
  EXPECT_EQ(dump_yaml(*model.options.find("parameterization")), yaml("{type: flow, direction: to_image}"));
  EXPECT_EQ(model.tensors.size(), tensors.size() - 3);
}

TEST_F(DitImport, ATableThatIsNotOfSinesIsLearned) {
  dit();
  tensors.back().tensor = at::full({1, 16, 32}, 0.3);
  const Imported model = import({{"num_heads", "4"}, {"program", "dit"}});
  EXPECT_EQ(model.options.find("network")->find("positions")->scalar, "learned");
  EXPECT_TRUE(find(model.tensors, "network.pos_embed"));
}

TEST_F(DitImport, SaysWhatIsWrong) {
  dit();
  EXPECT_EQ(refusal({{"num_heads", "4"}}),
            "net.safetensors: weights of DiT and of SiT have the same names and shapes (program=dit or program=sit); set program in the "
            "options of the import, or in a JSON or YAML file with the name of the weights");
  EXPECT_EQ(refusal({}, "dit.safetensors"),
            "dit.safetensors: the heads of its attention are not to be read from the weights; set num_heads in the options of the import, "
            "or in a JSON or YAML file with the name of the weights");
  EXPECT_EQ(refusal({{"num_heads", "5"}}, "dit.safetensors"), "num_heads=5: expected a divisor of 32, the width");
  EXPECT_EQ(refusal({{"program", "uvit"}}), "program=uvit: expected dit or sit");
  EXPECT_EQ(refusal({{"depth", "3"}}), "depth=3 is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"num_classes", "12"}, {"num_heads", "4"}}, "dit.safetensors"),
            "num_classes=12 is not what the weights of dit.safetensors have");
}

// Whatever is wrong with a tensor, the error is a ConfigError, and nothing else goes wrong.
TEST_F(DitImport, DamagedTensors) {
  dit();
  const Settings settings{{"num_heads", "4"}, {"program", "dit"}};
  const auto import = [&] { return import_model({folder.path() / "net.safetensors", tensors, {}}, {settings, {}}); };
  fit(import());
  const NamedTensors whole = tensors;
  for (size_t i = 0; i < whole.size(); ++i) {
    tensors = whole;
    tensors[i].tensor = at::empty(damaged_shape(i));
    EXPECT_THROW(fit(import()), ConfigError) << whole[i].name;
    tensors = whole;
    tensors.erase(tensors.begin() + int64_t(i));
    if (whole[i].name == "y_embedder.embedding_table.weight") continue;  // a model without classes
    EXPECT_THROW(fit(import()), ConfigError) << whole[i].name;
  }
}

}  // namespace
}  // namespace brume::test
