// The round trip brume -> another program's layout -> brume gives the same bits, for each kind of model; names are those of published
// models; what cannot be exported is said.
#include "brume/interop/export/export.h"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "brume/config/yaml.h"
#include "brume/interop/import/diffusers_unet.h"
#include "brume/interop/layouts/diffusers_unet.h"
#include "brume/interop/layouts/diffusers_vae.h"
#include "brume/interop/layouts/sections.h"
#include "brume/text/sentencepiece.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/weights_file.h"
#include "support/foreign_models.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

nlohmann::json json_of(const fs::path& file) {
  std::ifstream stream(file);
  return nlohmann::json::parse(stream);
}

const std::string unet =
    "network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], heads: 4, zero_init: false";
const std::string image = "image: {height: 16, width: 16}, ";
const std::string stage = "channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 4, scale: 0.5";

class DiffusersRoundTrip : public testing::TestWithParam<std::string> {};

TEST_P(DiffusersRoundTrip, GivesTheSameBits) {
  const TempFolder folder;
  const std::string source = model_file(folder, GetParam());
  const Contents model = open_model(source);
  export_diffusers(model, source, folder.path() / "out");
  expect_same(open_model((folder.path() / "out").string()), model, true);
  for (const char* file :
       {"model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"})
    EXPECT_TRUE(fs::exists(folder.path() / "out" / file)) << file;
}

INSTANTIATE_TEST_SUITE_P(
    Export, DiffusersRoundTrip,
    testing::Values("{" + image + unet + "}, conditioner: {type: class_label, classes: 10}, noise: cosine, parameterization: v}",
                    "{" + image + unet +
                        ", attention_order: new, head_channels: 16}, conditioner: {type: class_label, classes: 3, dropout: 0}}",
                    "{image: {height: 32, width: 32}, " + unet + "}, autoencoder: {type: kl, " + stage + "}, noise: scaled_linear}",
                    "{image: {height: 32, width: 32}, " + unet + "}, autoencoder: {type: vq, attention_resolutions: [16], codes: 16, " +
                        stage + "}, noise: angle}"));

// The encoder trained with the network has no class in diffusers: text_encoder/ holds it, and the tokenizer, as brume has them.
TEST(DiffusersExport, WordsInALatentSpace) {
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  const TempFolder folder;
  for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
  const std::string words = "transformer: {depth: [1]}}, conditioner: {type: text, width: 16, depth: 1, heads: 4, length: 8, tokenizer: ";
  const std::string source = model_file(folder, "{image: {height: 32, width: 32}, " + unet + ", " + words + folder.file("tokenizer.model") +
                                                    "}, autoencoder: {type: kl, " + stage + "}}");
  const Contents model = open_model(source);
  const std::vector<std::string> notes = export_diffusers(model, source, folder.path() / "out");
  expect_same(open_model((folder.path() / "out").string()), model, true);
  EXPECT_EQ(read_text(folder.path() / "out/text_encoder/tokenizer.model"), small_tokenizers().at("tokenizer.model"));
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_EQ(notes[0], "the conditioner 'text', which diffusers has no class for: text_encoder/ holds it and its files as brume has them");
}

TEST(DiffusersExport, HasTheKeysOfPublishedModels) {
  const TempFolder folder;
  const std::string source = model_file(folder, "{" + image + unet + "}, conditioner: {type: class_label, classes: 10}}");
  export_diffusers(open_model(source), source, folder.path() / "out");
  const nlohmann::json config = json_of(folder.path() / "out/unet/config.json"), index = json_of(folder.path() / "out/model_index.json");
  EXPECT_EQ(index["_class_name"], "DDPMPipeline");
  EXPECT_EQ(index["unet"], nlohmann::json({"diffusers", "UNet2DModel"}));
  EXPECT_EQ(config["block_out_channels"], nlohmann::json({32, 64}));
  EXPECT_EQ(config["down_block_types"], nlohmann::json({"DownBlock2D", "AttnDownBlock2D"}));
  EXPECT_EQ(config["up_block_types"], nlohmann::json({"AttnUpBlock2D", "UpBlock2D"}));
  EXPECT_EQ(config["num_class_embeds"], 11);
  EXPECT_EQ(json_of(folder.path() / "out/scheduler/scheduler_config.json")["beta_schedule"], "linear");
}

/// The published layout alone: what an importer reads of it is what the model had.
void expect_scheduler(const std::string& network, const std::string& more, const std::string& scheduler) {
  SCOPED_TRACE(more);
  const TempFolder folder;
  const std::string source = model_file(folder, "{" + image + unet + network + "}, " + more + "}");
  const Contents model = open_model(source);
  EXPECT_EQ(export_diffusers(model, source, folder.path() / "out"), std::vector<std::string>());
  EXPECT_EQ(json_of(folder.path() / "out/scheduler/scheduler_config.json")["_class_name"], scheduler);
  EXPECT_EQ(json_of(folder.path() / "out/model_index.json")["scheduler"], nlohmann::json({"diffusers", scheduler}));
  fs::remove(folder.path() / "out/brume.yaml");
  const Imported imported = import_model(folder.path() / "out");
  const Value had = model.metadata.required("model", "model");
  for (const char* part : {"noise", "parameterization"}) {
    const Value got = part_of(imported.options, part), wanted = part_of(had, part);
    for (const Value::Entry& e : got.entries)
      if (e.value.is_scalar() && e.key != "max_sigma") {
        EXPECT_EQ(e.value.scalar, text_of(wanted, e.key)) << part << "." << e.key;
      }
  }
  const Value told = part_of(*imported.options.find("network"), "noise_embedding");
  const std::string input = text_of(told, "input");
  EXPECT_EQ(input.empty() ? "timestep" : input, text_of(part_of(*had.find("network"), "noise_embedding"), "input"));
}

TEST(DiffusersExport, SchedulersOfTheirOwn) {
  const std::string quarter = ", noise_embedding: {type: sinusoidal, input: quarter_log";
  expect_scheduler("", "noise: {type: flow, shift: 3}, parameterization: flow", "FlowMatchEulerDiscreteScheduler");
  expect_scheduler(quarter + "}", "noise: {type: edm, rho: 5, start_image_std: 1}, parameterization: {type: edm, prediction: v}",
                   "EDMEulerScheduler");
  expect_scheduler(quarter + ", scale: 1000}", "noise: {type: edm, sigma_max: 40}, parameterization: {type: consistency, sigma_data: 0.6}",
                   "CMStochasticIterativeScheduler");
  expect_scheduler("", "noise: {type: exponential, timesteps: 500}, parameterization: x0", "DDIMScheduler");
  expect_scheduler("", "noise: {type: zero_terminal_snr, schedule: scaled_linear}, parameterization: v", "DDIMScheduler");
}

TEST(DiffusersExport, WhatSchedulersDoNotSay) {
  const TempFolder folder;
  const auto notes = [&](const std::string& more) {
    fs::remove_all(folder.path() / "out");
    const std::string source = model_file(folder, "{" + image + unet + "}, " + more + "}");
    return export_diffusers(open_model(source), source, folder.path() / "out");
  };
  EXPECT_EQ(notes("noise: edm, parameterization: edm"),
            (std::vector<std::string>{"how the network receives the noise level (network.noise_embedding): diffusers has another form",
                                      "the spread of the noise that a run starts from: diffusers has sqrt(1 + sigma^2)"}));
  EXPECT_EQ(notes("noise: angle, parameterization: {type: eps, sign: score}"),
            (std::vector<std::string>{"the noise schedule 'angle', which diffusers has not: scheduler_config.json does not say it",
                                      "what the network predicts ('minus eps'): scheduler_config.json does not say it"}));
}

TEST(DiffusersExport, OverwritesNothing) {
  const TempFolder folder;
  const std::string source = model_file(folder, "{" + image + unet + "}}");
  fs::create_directory(folder.path() / "out");
  EXPECT_EQ(without(error_of([&] { export_diffusers(open_model(source), source, folder.path() / "out"); }), folder),
            "out: exists already; an export overwrites nothing");
}

TEST(DiffusersExport, LeavesNothingHalfWritten) {
  const TempFolder folder;
  const std::string source = model_file(folder, "{" + image + unet + ", resampling: pool}}");
  EXPECT_EQ(without(error_of([&] { export_diffusers(open_model(source), source, folder.path() / "out"); }), folder),
            "model.safetensors: network.resampling is pool; the U-Nets of diffusers are given conv and residual");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()), 1) << "the model alone";
}

// The names against a published layout: what the import makes of tiny_sd goes back to tiny_sd's own names.
TEST(DiffusersExport, InvertsTheImportOfAPublishedLayout) {
  BRUME_NEED_REF("pipe/tiny_sd");
  const NamedTensors theirs = load_tensors(ref_path("pipe/tiny_sd/unet/diffusion_pytorch_model.safetensors").string());
  const NamedTensors ours = read_diffusers_unet(ref_path("pipe/tiny_sd/unet/config.json")).tensors(theirs);
  expect_same({to_diffusers_unet(ours, {.blocks = 1, .heads = 8}), {}}, {theirs, {}}, false);
  const NamedTensors vae = load_tensors(ref_path("pipe/tiny_sd/vae/diffusion_pytorch_model.safetensors").string());
  expect_same({to_diffusers_vae(from_diffusers_vae(vae)), {}}, {vae, {}}, false);
}

}  // namespace
}  // namespace brume::test
