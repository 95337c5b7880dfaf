// LoRAs of transformers under the names of every program, merged: the same as the merged layers of shared/refs2/flux and sd3, imported.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mm.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <functional>

#include "brume/interop/lora.h"
#include "brume/interop/lora_writing.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/imported_network.h"
#include "support/refs.h"
#include "support/tempdir.h"
#include "support/waves.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

/// A way to name the layers of a file.
struct Writer {
  const char* what;
  std::string prefix, down, up;
  bool flat = false;
};
const Writer diffusers{"diffusers", "transformer.", ".lora_A.weight", ".lora_B.weight"},
    bare{"DiffSynth", "", ".lora_A.weight", ".lora_B.weight"}, peft{"PEFT", "base_model.model.", ".lora_A.weight", ".lora_B.weight"},
    one_trainer{"OneTrainer", "lora_transformer_", ".lora_down.weight", ".lora_up.weight", true},
    simple_tuner{"SimpleTuner", "lycoris_", ".lora_down.weight", ".lora_up.weight", true},
    kohya{"kohya", "lora_unet_", ".lora_down.weight", ".lora_up.weight", true},
    comfy{"ComfyUI", "diffusion_model.", ".lora_down.weight", ".lora_up.weight"};

const Network::Context of_flux{.input = {16, 16, 16}, .out_channels = 16, .context_width = 64, .vector_width = 40, .guidance = true};

class LoraOfATransformer : public testing::Test {
 protected:
  /// Changes every layer of `tensors` (names begin with `part`) by a LoRA of rank 2, and merges it into `network`. Expects that to be what
  /// `imported` makes of the changed tensors.
  void expect_merged(const Writer& writer, const NamedTensors& tensors, const std::string& part, const std::vector<Weight>& network,
                     const std::function<Imported(const NamedTensors&)>& imported) {
    SCOPED_TRACE(writer.what);
    NamedTensors lora, changed;
    size_t layers = 0;
    for (const NamedTensor& t : tensors) {
      constexpr std::string_view ending = ".weight";
      changed.push_back({t.name, t.tensor.to(at::kFloat)});
      if (!t.name.starts_with(part) || !t.name.ends_with(ending) || t.tensor.dim() < 2) continue;
      std::string layer = t.name.substr(part.size(), t.name.size() - part.size() - ending.size());
      if (writer.flat) std::replace(layer.begin(), layer.end(), '.', '_');
      const int64_t out = t.tensor.size(0);
      const Tensor down = 0.3 * waves({2, t.tensor.numel() / out}, 0.7 + double(layers)), up = 0.3 * waves({out, 2}, 0.3 + double(layers));
      std::vector<int64_t> shape = t.tensor.sizes().vec();
      shape[0] = 2;
      lora.push_back({writer.prefix + layer + writer.down, down.reshape(shape)});
      std::vector<int64_t> outer(shape.size(), 1);
      outer[0] = out, outer[1] = 2;
      lora.push_back({writer.prefix + layer + writer.up, up.reshape(outer)});
      lora.push_back({writer.prefix + layer + ".alpha", at::full({}, 3, at::kFloat)});
      changed.back().tensor = changed.back().tensor + at::mm(up, down).reshape(t.tensor.sizes()) * 1.5;
      ++layers;
    }
    ASSERT_GT(layers, 10u);
    const std::string file = folder_.file(fmt::format("{}.safetensors", count_++));
    write_safetensors(file, lora, {});
    const auto merged = merged_loras({file}, network, at::kFloat);
    const Imported wanted = imported(changed);
    for (const auto& [name, weight] : merged) {
      const Tensor* same = find(wanted.tensors, name);
      ASSERT_TRUE(same) << name;
      EXPECT_LE((weight - *same).abs().max().item<double>(), 1e-5) << name;
    }
    size_t differing = 0;
    for (const Weight& w : network)
      if (const Tensor* now = find(wanted.tensors, w.name)) differing += !at::allclose(w.tensor, *now);
    EXPECT_EQ(differing, merged.size()) << "each changed layer, and no other";
  }
  /// Writes a LoRA of rank 2 of every layer of `network`, and adds it by its names to the layers of `tensors` (names begin with `part`) as
  /// the program does that has them. Expects what `imported` makes of these to be the network with the LoRA.
  void expect_written(LoraLayout layout, const NamedTensors& tensors, const std::string& part, const std::vector<Weight>& network,
                      const std::function<Imported(const NamedTensors&)>& imported) {
    const bool flat = layout == LoraLayout::kohya;
    SCOPED_TRACE(flat ? "kohya" : "diffusers");
    std::map<std::string, WeightChange> changes;
    for (const Weight& w : network) {
      if (w.tensor.dim() < 2 || !w.name.ends_with(".weight")) continue;
      std::vector<int64_t> inner = w.tensor.sizes().vec(), outer(inner.size(), 1);
      outer[0] = inner[0], outer[1] = inner[0] = 2;
      const double phase = double(changes.size());
      changes[w.name] = {.parts = {{"lora_down", 0.3 * waves(inner, 0.7 + phase)}, {"lora_up", 0.3 * waves(outer, 0.3 + phase)}},
                         .alpha = 3,
                         .has_alpha = true};
    }
    const std::string file = folder_.file(fmt::format("{}.safetensors", count_++));
    write_lora(file, layout, changes, LoraNames(network), {});
    const NamedTensors lora = load_tensors(file);
    NamedTensors changed;
    size_t read = 0;
    for (const NamedTensor& t : tensors) {
      std::string layer = t.name.substr(t.name.starts_with(part) ? part.size() : 0);
      layer.resize(layer.size() - (layer.ends_with(".weight") ? 7 : 0));
      if (flat) std::replace(layer.begin(), layer.end(), '.', '_');
      layer.insert(0, flat ? "lora_unet_" : "transformer.");
      const Tensor *down = find(lora, layer + (flat ? ".lora_down.weight" : ".lora_A.weight")),
                   *up = find(lora, layer + (flat ? ".lora_up.weight" : ".lora_B.weight"));
      changed.push_back({t.name, t.tensor.to(at::kFloat)});
      if (!t.name.ends_with(".weight") || !down || !up) continue;
      EXPECT_EQ(down->dim(), t.tensor.dim()) << layer;
      changed.back().tensor = changed.back().tensor + at::mm(up->flatten(1), down->flatten(1)).view_as(t.tensor) * 1.5;
      read += flat ? 3 : 2;
    }
    EXPECT_EQ(read, lora.size()) << "each layer of the file has its place";
    const Imported wanted = imported(changed);
    const auto merged = merged_loras({file}, network, at::kFloat);
    EXPECT_EQ(merged.size(), changes.size());
    for (const Weight& w : network) {
      const auto change = changes.find(w.name);
      if (change == changes.end()) continue;
      const Tensor sum = w.tensor + added_by(change->second, w.tensor, 1);
      EXPECT_LE((*find(wanted.tensors, w.name) - sum).abs().max().item<double>(), 1e-5) << w.name;
      EXPECT_LE((merged.at(w.name) - sum).abs().max().item<double>(), 1e-5) << w.name;
    }
  }
  /// Imports a copy of a directory with other weights.
  Imported copy_of(const fs::path& source, const NamedTensors& tensors) {
    const fs::path copy = folder_.file(fmt::format("copy{}", count_++));
    fs::create_directories(copy);
    fs::copy_file(source / "config.json", copy / "config.json");
    write_safetensors((copy / "diffusion_pytorch_model.safetensors").string(), tensors, {});
    return import_model(copy);
  }
  TempFolder folder_;
  /// Reads and writes LoRAs of a directory of diffusers by its names.
  void expect_diffusers(const std::string& source, const Network::Context& context, const std::vector<Writer>& writers) {
    BRUME_NEED_REF(source + "/config.json");
    const at::NoGradGuard no_grad;
    const auto network = network_of(import_model(ref_path(source)), context);
    const NamedTensors tensors = load_tensors(ref_path(source + "/diffusion_pytorch_model.safetensors").string());
    const std::vector<Weight> weights = prefixed("network.", network->weights());
    const auto imported = [&](const NamedTensors& changed) { return copy_of(ref_path(source), changed); };
    for (const Writer& writer : writers) expect_merged(writer, tensors, "", weights, imported);
    expect_written(LoraLayout::diffusers, tensors, "", weights, imported);
  }
  int count_ = 0;
};

TEST_F(LoraOfATransformer, OfFluxByTheNamesOfDiffusers) {
  expect_diffusers("../refs2/flux/tiny_flux/transformer", of_flux, {diffusers, bare, peft, one_trainer, simple_tuner});
}

TEST_F(LoraOfATransformer, OfFluxByItsOwnNames) {
  const std::string source = "../refs2/flux/flux_dev_like.safetensors";
  BRUME_NEED_REF(source);
  fs::copy_file(ref_path("../refs2/flux/flux_dev_like.json"), folder_.file("changed.json"));  // has axes_dim
  const at::NoGradGuard no_grad;
  const auto network = network_of(import_model(ref_path(source)), of_flux);
  const NamedTensors tensors = load_tensors(ref_path(source).string());
  const std::vector<Weight> weights = prefixed("network.", network->weights());
  const auto imported = [&](const NamedTensors& changed) {
    const std::string file = folder_.file("changed.safetensors");
    write_safetensors(file, changed, {});
    return import_model(file);
  };
  for (const Writer& writer : {kohya, comfy}) expect_merged(writer, tensors, "", weights, imported);
  expect_written(LoraLayout::kohya, tensors, "", weights, imported);
}

TEST_F(LoraOfATransformer, OfStableDiffusion3) {
  const std::string folder = "../refs2/sd3/", file = folder + "sd3_medium_like.safetensors", directory = folder + "tiny_sd3/transformer";
  const Network::Context context{.input = {16, 24, 24}, .out_channels = 16, .context_width = 96, .vector_width = 72};
  expect_diffusers(directory, context, {diffusers, one_trainer});
  BRUME_NEED_REF(file);
  const at::NoGradGuard no_grad;
  const auto network = network_of(import_model(ref_path(directory)), context);
  const std::vector<Weight> weights = prefixed("network.", network->weights());
  const NamedTensors own = load_tensors(ref_path(file).string());
  const auto imported_file = [&](const NamedTensors& changed) {
    write_safetensors(folder_.file("changed.safetensors"), changed, {});
    return import_model(folder_.file("changed.safetensors"));
  };
  expect_merged(kohya, own, "model.diffusion_model.", weights, imported_file);
  expect_written(LoraLayout::kohya, own, "model.diffusion_model.", weights, imported_file);
}

TEST_F(LoraOfATransformer, OfPixart) {
  expect_diffusers("../refs2/pixart/pixart_tiny_diffusers", {.input = {4, 8, 8}, .out_channels = 8, .context_width = 40}, {diffusers});
}

/// XLabs' names change the layers that FLUX's own names say.
TEST_F(LoraOfATransformer, OfFluxByTheNamesOfXLabs) {
  const std::string source = "../refs2/flux/tiny_flux/transformer";
  BRUME_NEED_REF(source + "/config.json");
  const at::NoGradGuard no_grad;
  const auto network = network_of(import_model(ref_path(source)), of_flux);
  const std::vector<Weight> weights = prefixed("network.", network->weights());
  const int64_t width =
      find(load_tensors(ref_path(source + "/diffusion_pytorch_model.safetensors").string()), "x_embedder.weight")->size(0);
  for (const auto& [theirs, own] : {std::pair("double_blocks.0.processor.qkv_lora1", "joint_blocks.0.x_block.attn.qkv"),
                                    {"double_blocks.0.processor.qkv_lora2", "joint_blocks.0.context_block.attn.qkv"},
                                    {"single_blocks.0.processor.qkv_lora", "single_blocks.0.linear1"}}) {
    const std::string file = folder_.file(fmt::format("{}.safetensors", count_++)), name = fmt::format("network.{}.weight", own);
    const Tensor down = 0.3 * waves({2, width}, 0.7), up = 0.3 * waves({3 * width, 2}, 0.3);
    write_safetensors(file, {{fmt::format("{}.down.weight", theirs), down}, {fmt::format("{}.up.weight", theirs), up}}, {});
    const auto merged = merged_loras({file}, weights, at::kFloat);
    ASSERT_EQ(merged.size(), 1u);
    ASSERT_EQ(merged.begin()->first, name);
    const auto before = std::find_if(weights.begin(), weights.end(), [&](const Weight& w) { return w.name == name; });
    const Tensor change = merged.begin()->second - before->tensor;
    EXPECT_LE((change.narrow(0, 0, 3 * width) - at::mm(up, down)).abs().max().item<double>(), 1e-6) << theirs;
    const int64_t rest = change.size(0) - 3 * width;  // the perceptron's rows of a single block
    EXPECT_EQ(change.narrow(0, 3 * width, rest).abs().sum().item<double>(), 0) << theirs;
  }
}

}  // namespace
}  // namespace brume::test
