// One table of the names of CompVis and diffusers, over many layouts of U-Nets: forward and backward is the identity, and a LoRA file
// finds every weight by diffusers' and kohya's names.
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/interop/layouts/lora_names.h"
#include "brume/interop/lora.h"
#include "brume/weights/safetensors.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

struct Layout {
  std::string yaml;
  int64_t classes = 0, context = 0;
};

/// Every way that blocks, attention, resampling and embeddings change a U-Net's names.
std::vector<Layout> layouts() {
  std::vector<Layout> all;
  for (const char* levels : {"[1]", "[1, 1]", "[1, 2, 2]"})
    for (const int blocks : {1, 2, 3})
      for (const char* resampling : {"conv", "pool", "residual"})
        for (const char* attention : {"[]", "[16]", "[8]", "[16, 8]"}) {
          if (levels == std::string("[1]") && std::string_view(attention).find('8') != std::string_view::npos) continue;
          const bool odd = blocks % 2 == 1;
          const std::string yaml = fmt::format(
              "{{type: unet, channels: 4, groups: 2, multipliers: {}, blocks: {}, resampling: {}, attention_resolutions: {}, "
              "middle_attention: {}, attention_order: {}, class_embedding: {}",
              levels, blocks, resampling, attention, odd, odd ? "legacy" : "new", odd ? "table" : "sinusoidal");
          all.push_back({yaml + "}", 3, 0});
          const std::string projection = odd ? "linear" : "conv";
          all.push_back({fmt::format("{}, transformer: {{depth: [{}], projection: {}}}}}", yaml, blocks, projection), 0, 0});
        }
  return all;
}

std::shared_ptr<Network> network_of(const Layout& l) {
  return make<Network>(l.yaml, {.input = {4, 16, 16}, .out_channels = 4, .classes = l.classes, .context_width = l.context});
}

NamedTensors tensors_of(const Network& network) {
  NamedTensors all;
  for (const Weight& w : network.weights()) all.push_back({w.name, w.tensor});
  return all;
}

UnetModules modules_of(const NamedTensors& tensors) {
  std::vector<std::string> names;
  for (const NamedTensor& t : tensors) names.push_back(t.name);
  return unet_modules(names);
}

TEST(UnetNames, ForwardAndBackwardIsTheIdentity) {
  for (const Layout& l : layouts()) {
    SCOPED_TRACE(l.yaml);
    const NamedTensors ours = tensors_of(*network_of(l));
    const NameTable table = unet_names(modules_of(ours));
    std::set<std::string> seen;
    for (const NamedTensor& t : ours) {
      const auto theirs = table.theirs(t.name);
      ASSERT_TRUE(theirs) << t.name;
      EXPECT_TRUE(seen.insert(*theirs).second) << *theirs;
      EXPECT_EQ(table.ours(*theirs), t.name);
      EXPECT_EQ(theirs->find("put_blocks"), std::string::npos) << *theirs;
    }
  }
}

TEST(UnetNames, TensorsThereAndBackAreTheSame) {
  for (const Layout& l : layouts()) {
    SCOPED_TRACE(l.yaml);
    const NamedTensors ours = tensors_of(*network_of(l));
    const UnetLayout layout = unet_layout(parse_yaml(l.yaml, "test.yaml"));
    const NamedTensors back = in_attention_order(from_diffusers_unet(to_diffusers_unet(ours, layout), modules_of(ours)), layout);
    ASSERT_EQ(back.size(), ours.size());
    for (const NamedTensor& t : ours) {
      const at::Tensor* other = find(back, t.name);
      ASSERT_TRUE(other) << t.name;
      EXPECT_TRUE(at::equal(*other, t.tensor)) << t.name;
    }
  }
}

/// What the names alone say of a network.
TEST(UnetNames, ModulesAreReadFromTheNames) {
  using Resampling = UnetModules::Resampling;
  const std::string unet =
      "{type: unet, channels: 4, groups: 2, multipliers: [1, 1, 1], blocks: 2, attention_resolutions: [8], resampling: ";
  for (const auto& [name, way] : {std::pair("conv", Resampling::conv), {"pool", Resampling::pool}, {"residual", Resampling::residual}}) {
    EXPECT_EQ(modules_of(tensors_of(*network_of({unet + name + "}"}))), (UnetModules{2, {false, true, false}, true, false, way})) << name;
  }
}

/// The names that diffusers has for modules of three kinds of networks.
TEST(UnetNames, AreDiffusersOwn) {
  const std::string unet =
      "{type: unet, channels: 4, groups: 2, multipliers: [1, 1, 1], blocks: 1, attention_resolutions: [8], resampling: ";
  const auto expect = [&](const char* resampling, const std::vector<std::pair<const char*, const char*>>& names) {
    SCOPED_TRACE(resampling);
    const NamedTensors tensors = tensors_of(*network_of({unet + resampling + "}"}));
    const NameTable table = unet_names(modules_of(tensors));
    for (const auto& [ours, theirs] : names) {
      EXPECT_TRUE(find(tensors, ours)) << ours;
      EXPECT_EQ(table.theirs(ours), theirs);
    }
  };
  expect("residual", {{"input_blocks.2.0.in_layers.2.weight", "down_blocks.0.downsamplers.0.conv1.weight"},
                      {"input_blocks.3.0.in_layers.2.weight", "down_blocks.1.resnets.0.conv1.weight"},
                      {"input_blocks.4.0.emb_layers.1.weight", "down_blocks.1.downsamplers.0.time_emb_proj.weight"},
                      {"output_blocks.1.1.out_layers.3.weight", "up_blocks.0.upsamplers.0.conv2.weight"},
                      {"output_blocks.3.1.proj_out.weight", "up_blocks.1.attentions.1.to_out.0.weight"},
                      {"output_blocks.3.2.in_layers.2.weight", "up_blocks.1.upsamplers.0.conv1.weight"},
                      {"output_blocks.4.0.in_layers.2.weight", "up_blocks.2.resnets.0.conv1.weight"}});
  expect("pool", {{"input_blocks.3.0.in_layers.2.weight", "down_blocks.1.resnets.0.conv1.weight"},
                  {"input_blocks.3.1.norm.weight", "down_blocks.1.attentions.0.group_norm.weight"},
                  {"input_blocks.5.0.in_layers.2.weight", "down_blocks.2.resnets.0.conv1.weight"},
                  {"output_blocks.2.0.skip_connection.weight", "up_blocks.1.resnets.0.conv_shortcut.weight"}});
  expect("conv", {{"input_blocks.2.0.op.weight", "down_blocks.0.downsamplers.0.conv.weight"},
                  {"output_blocks.1.1.conv.weight", "up_blocks.0.upsamplers.0.conv.weight"},
                  {"output_blocks.3.2.conv.weight", "up_blocks.1.upsamplers.0.conv.weight"},
                  {"middle_block.2.out_layers.3.weight", "mid_block.resnets.1.conv2.weight"}});
}

/// The module's name in kohya's files.
std::string flat(std::string module) {
  std::replace(module.begin(), module.end(), '.', '_');
  return "lora_unet_" + module;
}

TEST(LoraNames, FindEveryWeightByDiffusersAndKohyasNames) {
  for (const Layout& l : layouts()) {
    SCOPED_TRACE(l.yaml);
    const std::vector<Weight> weights = prefixed("network.", network_of(l)->weights());
    const LoraNames names(weights);
    NamedTensors ours;
    for (const Weight& w : weights) ours.push_back({w.name.substr(8), w.tensor});
    const NameTable table = unet_names(modules_of(ours));
    for (const NamedTensor& t : to_diffusers_unet(ours, unet_layout(parse_yaml(l.yaml, "test.yaml")))) {
      if (!t.name.ends_with(".weight") || t.tensor.dim() < 2) continue;
      const std::string module = t.name.substr(0, t.name.size() - 7);
      const std::string own = *table.ours(t.name);
      for (const std::string& name : {"unet." + module, module, flat(module)}) {
        const LoraTarget target = names.find(name);
        ASSERT_TRUE(target.weight) << name;
        EXPECT_EQ(target.part, qkv_part(own) >= 0) << name;
        if (!target.part) {
          EXPECT_EQ(target.weight->name, "network." + own);
        }
      }
    }
  }
}

/// A LoRA of rank 1 of ones changes the weight that diffusers means, and no other.
TEST(MergeLora, OfNetworksWithResidualAndPooledResampling) {
  const std::string unet =
      "{type: unet, channels: 4, groups: 2, multipliers: [1, 1, 1], blocks: 1, attention_resolutions: [8], resampling: ";
  for (const auto& [resampling, module, ours] :
       {std::tuple("residual", "up_blocks.1.upsamplers.0.conv1", "network.output_blocks.3.2.in_layers.2.weight"),
        {"residual", "down_blocks.1.resnets.0.conv1", "network.input_blocks.3.0.in_layers.2.weight"},
        {"pool", "down_blocks.1.resnets.0.conv1", "network.input_blocks.3.0.in_layers.2.weight"},
        {"pool", "down_blocks.2.resnets.0.conv2", "network.input_blocks.5.0.out_layers.3.weight"}})
    for (const std::string& name : {flat(module), std::string("unet.") + module}) {
      SCOPED_TRACE(std::string(resampling) + " " + name);
      const TempFolder folder;
      const auto network = network_of({unet + resampling + "}"});
      const std::vector<Weight> weights = prefixed("network.", network->weights());
      write_safetensors(folder.file("lora.safetensors"),
                        {{name + ".lora_down.weight", at::ones({1, 4, 3, 3})}, {name + ".lora_up.weight", at::ones({4, 1, 1, 1})}}, {});
      const auto merged = merged_loras({folder.file("lora.safetensors")}, weights, at::kFloat);
      ASSERT_EQ(merged.size(), 1u);
      EXPECT_EQ(merged.begin()->first, ours);
    }
}

TEST(MergeLora, RefusesAPartOfQkv) {
  const TempFolder folder;
  const auto network = network_of({"{type: unet, channels: 4, groups: 2, multipliers: [1], blocks: 1}"});
  write_safetensors(folder.file("lora.safetensors"),
                    {{"unet.mid_block.attentions.0.to_q.lora_A.weight", at::ones({1, 4})},
                     {"unet.mid_block.attentions.0.to_q.lora_B.weight", at::ones({4, 1})}},
                    {});
  const std::string text =
      error_of([&] { merged_loras({folder.file("lora.safetensors")}, prefixed("network.", network->weights()), at::kFloat); });
  EXPECT_NE(text.find("'unet.mid_block.attentions.0.to_q' is only a part of 'network.middle_block.1.qkv.weight', which holds q, k and v"),
            std::string::npos)
      << text;
}

}  // namespace
}  // namespace brume::test
