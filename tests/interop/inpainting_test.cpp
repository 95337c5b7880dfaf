// Inpainting models of other programs: 2 C + 1 channels and words, from diffusers' directories and in one file, and back.
#include "brume/config/tree.h"
#include "brume/interop/layouts/conditioning.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/config/yaml.h"
#include "brume/interop/export/export.h"
#include "brume/interop/layouts/sections.h"
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/text_encoder.h"
#include "brume/weights/safetensors.h"
#include "support/model_file.h"
#include "support/process.h"
#include "support/registry.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

std::string of(const std::string& conditions) {
  return "{image: {height: 32, width: 32}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
         "heads: 4, zero_init: false, transformer: {depth: [1]}}, autoencoder: {type: kl, channels: 32, multipliers: [1, 2], blocks: 1, "
         "latent_channels: 4, scale: 0.5}, noise: scaled_linear, conditioner: {type: composite, of: [" +
         conditions + "]}}";
}

class Inpainting : public testing::Test {
 protected:
  Inpainting() {
    for (const auto& [path, bytes] : small_tokenizers()) folder_.file(path, bytes);
  }
  std::string words() const {
    return "{type: clip_text, width: 16, depth: 1, heads: 4, mlp: 32, trainable: true, tokenizer: " + folder_.file("clip") + "}";
  }
  std::string model() const { return model_file(folder_, of(words() + ", " + masked)); }
  Contents opened(const std::string& path, const std::string& key = "", const std::string& value = "") const {
    ImportOptions options;
    if (!key.empty()) options.settings[key] = value;
    return open_model(folder_.file(path), options);
  }
  std::string refusal(const std::string& path) const {
    return without(error_of([&] { opened(path); }), folder_);
  }
  nlohmann::json json(const std::string& file) const {
    std::ifstream stream(folder_.path() / file);
    return nlohmann::json::parse(stream);
  }
  /// A file with `from` replaced by `to`.
  void change(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read_text(folder_.path() / file);
    const size_t place = text.find(from);
    ASSERT_NE(place, std::string::npos) << file << " holds no " << from;
    folder_.file(file, text.replace(place, from.size(), to));
  }
  inline static const std::string masked = "{type: concat_image, image: masked, keep: true}";
  TempFolder folder_;
};

TEST_F(Inpainting, DiffusersAndBack) {
  const std::string source = model();
  const Contents wanted = open_model(source);
  EXPECT_EQ(export_diffusers(wanted, source, folder_.path() / "out"), std::vector<std::string>());
  EXPECT_EQ(json("out/model_index.json")["_class_name"], "StableDiffusionInpaintPipeline");
  EXPECT_EQ(json("out/unet/config.json")["in_channels"], 9);
  EXPECT_EQ(json("out/unet/config.json")["out_channels"], 4);
  EXPECT_NE(
      find(SafetensorsFile(folder_.file("out/text_encoder/model.safetensors")).tensors(), "text_model.embeddings.token_embedding.weight"),
      nullptr);
  expect_same(opened("out"), wanted, true);
  fs::remove(folder_.path() / "out/brume.yaml");
  // As another program's: the tokenizer stands under the folder's own name.
  const Contents imported = opened("out");
  expect_same({below(imported.tensors, "network."), {}}, {below(wanted.tensors, "network."), {}}, false);
  expect_same({below(imported.tensors, "conditioner.0."), {}}, {below(wanted.tensors, "conditioner.0."), {}}, false);
  const Value options = imported.metadata.required("model", "imported");
  const Words told = words_of(*options.find("conditioner"));
  EXPECT_TRUE(told.inpainting);
  EXPECT_EQ(told.prefix, "conditioner.0.");
  change("out/unet/config.json", "\"in_channels\": 9", "\"in_channels\": 8");
  EXPECT_EQ(refusal("out"),
            "out/unet/config.json: in_channels is 8; the unet of brume supports 4, the channels of what it makes, and 9, with a "
            "mask and a masked image, only");
}

TEST_F(Inpainting, OneFileAndBack) {
  const std::string source = model();
  const Contents wanted = open_model(source);
  EXPECT_EQ(export_ldm(wanted, source, folder_.path() / "out.safetensors"), std::vector<std::string>());
  const std::string yaml = read_text(folder_.path() / "out.yaml");
  for (const char* line : {"LatentInpaintDiffusion", "conditioning_key: hybrid", "in_channels: 9", "finetune_keys: null"})
    EXPECT_NE(yaml.find(line), std::string::npos) << line;
  const Contents imported = opened("out.safetensors");
  for (const char* part : {"network.", "conditioner.0.", "autoencoder."})
    expect_same({below(imported.tensors, part), {}}, {below(wanted.tensors, part), {}}, false);
  change("out.yaml", "finetune_keys: null", "concat_keys: [masked_image, mask]");
  EXPECT_NE(refusal("out.safetensors").find("model.params.concat_keys: is [masked_image, mask]; brume's order is [mask, masked_image]"),
            std::string::npos);
  change("out.yaml", "conditioning_key: hybrid", "conditioning_key: concat");
  EXPECT_EQ(refusal("out.safetensors"),
            "out.safetensors: the U-Net takes 9 channels and latents have 4: of models that receive an image with their input, those are "
            "imported that inpaint by words (9 channels, conditioning_key hybrid); depth, upscaling and inpainting without "
            "words are not");
}

// The words may stand second; an image that the null condition leaves out is something else.
TEST_F(Inpainting, TheWordsInItsConditioner) {
  const auto told = [&](const std::string& conditions) {
    return words_of(parse_yaml("{type: composite, of: [" + conditions + "]}", "test.yaml"));
  };
  EXPECT_EQ(told(masked + ", {type: clip_text}").prefix, "conditioner.1.");
  for (const char* other : {"{type: clip_text}, {type: concat_image, image: masked}", "{type: clip_text}, {type: concat_image, keep: true}",
                            "{type: class_label}, {type: concat_image, image: masked, keep: true}", "{type: clip_text}"}) {
    EXPECT_FALSE(told(other).inpainting) << other;
    EXPECT_EQ(told(other).prefix, "conditioner.") << other;
  }
  EXPECT_TRUE(words_of(composite_of(plugin_of("clip_text", {}), {masked_image()})).inpainting);
}

/// Tensors of these shapes and one number each: what a file of Stable Diffusion is known by.
void add_shapes(NamedTensors& all, const std::string& prefix, const std::vector<Weight>& weights) {
  const Tensor nothing = at::zeros({1});
  for (const Weight& w : weights) all.push_back({prefix + w.name, nothing.expand(w.tensor.sizes())});
}

// SD 1 and SD 2 of nine channels without a YAML: 512 pixels, and noise that is predicted.
TEST_F(Inpainting, KnownByItsShapes) {
  const nn::SkipInit no_values;
  for (const int64_t width : {768, 1024}) {
    Source source{folder_.path() / "sd.safetensors", {}, {}};
    const Network::Context context{.input = {4, 64, 64}, .out_channels = 4, .context_width = width, .image_channels = 5};
    add_shapes(source.tensors, "model.diffusion_model.",
               make<Network>("{type: unet, channels: 320, multipliers: [1, 2, 4, 4], attention_resolutions: [64, 32, 16], heads: 8, "
                             "scale_shift: false, transformer: {depth: [1]}}",
                             context)
                   ->weights());
    const nn::Builder text(0), stage(0);
    const nn::TextEncoder encoder(text["text_model"], {600, 77, width, 2, 16, 64, true});
    add_shapes(source.tensors, "cond_stage_model.transformer.", text.weights());
    nn::FirstStageOptions options;
    options.channels = 128;
    options.multipliers = {1, 2, 4, 4};
    const nn::FirstStageNetwork network(stage, options, {3, 512, 512}, 8);
    add_shapes(source.tensors, "first_stage_model.", stage.weights());
    const Imported model = import_model(source, {{{"tokenizer", folder_.file("clip")}}, {}});
    EXPECT_EQ(text_of(model.options, "parameterization"), "eps") << width;
    EXPECT_EQ(text_of(*model.options.find("image"), "height"), "512") << width;
    const Words told = words_of(*model.options.find("conditioner"));
    EXPECT_TRUE(told.inpainting) << width;
    EXPECT_EQ(text_of(told.conditioner, "width"), std::to_string(width));
    EXPECT_NE(find(model.tensors, "conditioner.0.text_model.final_layer_norm.weight"), nullptr);
  }
}

}  // namespace
}  // namespace brume::test
