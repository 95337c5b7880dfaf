// Bare networks of other programs (guided-diffusion, improved-diffusion, EDM): what their names and shapes are read as, what has to be
// said with them, and what is refused. The weights are those of brume's own networks, which have the same names.
#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "brume/core/classifier.h"
#include "brume/core/network.h"
#include "brume/interop/import/import.h"
#include "brume/weights/safetensors.h"
#include "support/foreign_models.h"

namespace brume::test {
namespace {

using Settings = std::map<std::string, std::string>;

class NetworkImport : public testing::Test {
 protected:
  /// Writes a network's weights under `prefix`.
  void write(const std::vector<Weight>& weights, const std::string& prefix = "") {
    tensors.clear();
    for (const Weight& w : weights) tensors.push_back({prefix + w.name, w.tensor.contiguous()});
    save();
  }
  void save() const { write_safetensors(folder.file("net.safetensors"), tensors); }
  void network(const std::string& yaml, const Network::Context& context, const std::string& prefix = "") {
    write(make<Network>(yaml, context)->weights(), prefix);
  }
  void classifier(const std::string& yaml, const Classifier::Context& context) { write(make<Classifier>(yaml, context)->weights()); }

  Imported import(const Settings& settings) const { return import_model(folder.file("net.safetensors"), {settings, {}}); }
  std::string model(const Settings& settings) const { return dump_yaml(import(settings).options); }
  std::string sample(const Settings& settings) const { return dump_yaml(import(settings).sample); }
  std::string refusal(const Settings& settings) const {
    return without(error_of([&] { import(settings); }), folder);
  }
  static std::string yaml(const std::string& text) { return dump_yaml(parse_yaml(text, "wanted")); }

  TempFolder folder;
  NamedTensors tensors;
};

const std::string adm =
    "{type: unet, channels: 32, multipliers: [1, 1, 2], blocks: 2, attention_resolutions: [8, 4], resampling: residual, "
    "head_channels: 16}";

TEST_F(NetworkImport, AdmWithItsFlags) {
  network(adm, {.input = {3, 16, 16}, .out_channels = 6, .classes = 7});
  const Settings flags{
      {"image_size", "16"},        {"num_head_channels", "16"},      {"noise_schedule", "cosine"}, {"use_new_attention_order", "True"},
      {"num_channels", "32"},      {"channel_mult", "1,1,2"},        {"class_cond", "True"},       {"learn_sigma", "True"},
      {"resblock_updown", "True"}, {"use_scale_shift_norm", "True"}, {"use_fp16", "True"},         {"dropout", "0.1"}};
  EXPECT_EQ(model(flags), yaml(R"(
image: {channels: 3, height: 16, width: 16}
network: {type: unet, channels: 32, multipliers: [1, 1, 2], blocks: 2, attention_resolutions: [8, 4], head_channels: 16,
  attention_order: new, scale_shift: true, resampling: residual, dropout: 0.1, noise_embedding: sinusoidal}
conditioner: {type: class_label, classes: 7, dropout: 0}
noise: {type: cosine, timesteps: 1000}
parameterization: eps
variance: learned_range
)"));
  EXPECT_EQ(sample(flags), yaml("{sampler: {type: ddpm, variance: learned_range}, spacing: linspace, steps: 250, guidance: [clip]}"));
  const Imported imported = import(flags);
  EXPECT_EQ(imported.section, "model");
  ASSERT_EQ(imported.tensors.size(), tensors.size());
  EXPECT_EQ(imported.tensors[0].name, "network." + tensors[0].name);
}

TEST_F(NetworkImport, ImprovedDiffusionWithoutLearnedVariance) {
  network("{type: unet, channels: 32, multipliers: [1, 2, 2, 2], blocks: 3, attention_resolutions: [16, 8], scale_shift: false}",
          {.input = {3, 32, 32}, .out_channels = 3});
  const Settings flags{{"num_heads", "4"},
                       {"num_heads_upsample", "2"},
                       {"diffusion_steps", "4000"},
                       {"rescale_timesteps", "True"},
                       {"timestep_respacing", "ddim50"},
                       {"predict_xstart", "True"}};
  EXPECT_EQ(model(flags), yaml(R"(
image: {channels: 3, height: 32, width: 32}
network: {type: unet, channels: 32, multipliers: [1, 2, 2, 2], blocks: 3, attention_resolutions: [16, 8], heads: 4, decoder_heads: 2,
  attention_order: legacy, scale_shift: false, resampling: conv, dropout: 0, noise_embedding: {type: sinusoidal, scale: 0.25}}
conditioner: none
noise: {type: linear, timesteps: 4000, rescale: true}
parameterization: x0
variance: none
)"));
  EXPECT_EQ(sample(flags), yaml("{sampler: ddim, spacing: leading, steps: 50, guidance: [clip]}"));
}

TEST_F(NetworkImport, PoolingHasNoWeightsAndIsSeenByItsGap) {
  network("{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, resampling: pool}", {.input = {1, 8, 8}, .out_channels = 2});
  const std::string said = model({{"num_heads", "1"}, {"image_size", "8"}});
  EXPECT_NE(said.find("multipliers: [1, 2]"), std::string::npos) << said;
  EXPECT_NE(said.find("resampling: pool"), std::string::npos) << said;
  EXPECT_NE(said.find("blocks: 1\n"), std::string::npos) << said;
}

TEST_F(NetworkImport, SuperResolutionTakesASmallImage) {
  network("{type: unet, channels: 32, multipliers: [1, 1], blocks: 1, resampling: residual}",
          {.input = {3, 16, 16}, .out_channels = 6, .classes = 5, .image_channels = 3});
  const Settings flags{{"large_size", "16"}, {"small_size", "4"}, {"num_heads", "4"}};
  const std::string said = model(flags);
  EXPECT_NE(said.find(yaml("conditioner: {type: composite, of: [{type: class_label, classes: 5, dropout: 0}, {type: concat_image, image: "
                           "low_resolution, factor: 4}]}")),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("variance: learned_range"), std::string::npos) << said;
  EXPECT_EQ(model({{"large_size", "16"}, {"num_heads", "4"}}), said) << "both that were published enlarge four times";
  EXPECT_EQ(model({{"large_size", "16"}, {"num_heads", "4"}, {"in_channels", "3"}}), said) << "the options of SuperResModel";
  EXPECT_EQ(refusal({{"large_size", "16"}, {"num_heads", "4"}, {"in_channels", "4"}}),
            "in_channels=4 is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"large_size", "16"}, {"small_size", "5"}, {"num_heads", "4"}}),
            "small_size=5: expected a part of 16, the size of the images that it makes");
}

TEST_F(NetworkImport, AClassifierTellsItsSizeByItsPooling) {
  classifier(
      "{type: unet_encoder, channels: 64, multipliers: [1, 1, 2], blocks: 2, attention_resolutions: [8, 4], resampling: residual, "
      "head_channels: 64}",
      {.input = {3, 16, 16}, .classes = 9});
  EXPECT_EQ(import({}).section, "classifier");
  EXPECT_EQ(model({}), yaml(R"(
image: {channels: 3, height: 16, width: 16}
network: {type: unet_encoder, channels: 64, multipliers: [1, 1, 2], blocks: 2, attention_resolutions: [8, 4], head_channels: 64,
  attention_order: legacy, scale_shift: true, resampling: residual, dropout: 0, pooling: attention, noise_embedding: sinusoidal}
classes: 9
noise: {schedule: {type: linear, timesteps: 1000, rescale: true}}
)"));
  EXPECT_EQ(refusal({{"classifier_pool", "adaptive"}}), "classifier_pool=adaptive is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"classifier_depth", "4"}}), "classifier_depth=4 is not what the weights of net.safetensors have");
}

TEST_F(NetworkImport, AClassifierWithSpatialPooling) {
  for (const std::string pooling : {"spatial", "spatial_v2"}) {
    classifier("{type: unet_encoder, channels: 64, multipliers: [1, 2], blocks: 1, heads: 4, pooling: " + pooling + "}",
               {.input = {3, 16, 16}, .classes = 9});
    const Settings flags{{"image_size", "16"}, {"num_heads", "4"}};
    const std::string said = model(flags);
    EXPECT_NE(said.find("pooling: " + pooling + "\n"), std::string::npos) << said;
    EXPECT_NE(said.find("classes: 9"), std::string::npos) << said;
    EXPECT_EQ(refusal({{"image_size", "16"}, {"num_heads", "4"}, {"classifier_pool", "attention"}}),
              "classifier_pool=attention is not what the weights of net.safetensors have");
  }
}

TEST_F(NetworkImport, AsksForWhatTheWeightsDoNotTell) {
  network(adm, {.input = {3, 16, 16}, .out_channels = 6});
  const std::string say = "; set ", places = " in the options of the import, or in a JSON or YAML file with the name of the weights";
  EXPECT_EQ(refusal({{"num_heads", "4"}}),
            "net.safetensors: the size of its images is not to be read from the weights" + say + "image_size" + places);
  EXPECT_EQ(refusal({{"image_size", "16"}}),
            "net.safetensors: the heads of its attention are not to be read from the weights (num_heads or num_head_channels)" + say +
                "num_heads" + places);
  EXPECT_EQ(refusal({{"image_size", "16"}, {"num_heads", "4"}, {"diffusion_steps", "100"}}),
            "net.safetensors: with 100 diffusion_steps the network receives the timestep or that rescaled to 1000 of them (the defaults of "
            "guided-diffusion and improved-diffusion differ)" +
                say + "rescale_timesteps" + places);
  EXPECT_EQ(refusal({{"image_sise", "16"}}), "net.safetensors: unknown setting 'image_sise'; did you mean 'image_size'?");
  EXPECT_EQ(refusal({{"image_size", "18"}, {"num_heads", "4"}}),
            "image_size=18: 3 levels halve the images 2 times, so it must be a multiple of 4");
  EXPECT_EQ(refusal({{"num_channels", "64"}}), "num_channels=64 is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"noise_schedule", "sine"}, {"image_size", "16"}, {"num_heads", "4"}}),
            "noise_schedule=sine: expected linear or cosine");
  EXPECT_EQ(refusal({{"num_heads", "many"}, {"image_size", "16"}}), "num_heads=many: expected a whole number");
  EXPECT_EQ(refusal({{"learn_sigma", "maybe"}}), "learn_sigma=maybe: expected true or false");
}

TEST_F(NetworkImport, AFileBesideSaysIt) {
  network(adm, {.input = {3, 16, 16}, .out_channels = 6});
  folder.file("net.json", R"({"arch": {"image_size": 16, "num_heads": 2, "model_channels": 32, "channel_mult": [1, 1, 2]}, "other": 1})");
  EXPECT_NE(model({}).find("heads: 2\n"), std::string::npos);
  EXPECT_NE(model({{"num_heads", "1"}}).find("heads: 1\n"), std::string::npos) << "what is set comes first";
  folder.file("net.json", R"({"image_size": 16, "num_heads": 2, "channel_mult": [1, 2]})");
  EXPECT_EQ(refusal({}), "net.json: channel_mult = [1, 2] is not what the weights of net.safetensors have");
  folder.file("net.json", "[1, 2]");
  EXPECT_EQ(refusal({}), "net.json: is no map of names and values");
}

TEST_F(NetworkImport, AUnetThatAttendsToTokensIsNotWhole) {
  network("{type: unet, channels: 32, multipliers: [1], blocks: 1, attention_resolutions: [8], transformer: {depth: [1]}}",
          {.input = {4, 8, 8}, .out_channels = 4, .context_width = 8});
  EXPECT_EQ(refusal({}),
            "net.safetensors: lacks its first stage: its U-Net makes 4 channels, which are no image's, and there is no tensor "
            "'first_stage_model.'; vae=FILE completes it with the one of another file");
}

class EdmImport : public NetworkImport {
 protected:
  /// NCSN++ with labels, as its preconditioning has it.
  void ncsnpp(bool filters = true) {
    network(
        "{type: song_unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], encoder: residual, "
        "embedding_type: fourier, noise_multiplier: 2, resample_filter: [1, 3, 3, 1]}",
        {.input = {3, 16, 16}, .out_channels = 3, .classes = 4}, "model.");
    const at::Tensor taps = at::full({4, 4}, 1.0 / 64);
    taps.narrow(0, 1, 2).mul_(3);
    taps.narrow(1, 1, 2).mul_(3);
    if (filters) tensors.push_back({"model.enc.8x8_down.conv0.resample_filter", taps.view({1, 1, 4, 4})});
    tensors.push_back({"model.map_augment.weight", at::full({32, 9}, 1.0)});
    save();
  }
};

TEST_F(EdmImport, NcsnppByItsNames) {
  ncsnpp();
  EXPECT_EQ(model({{"dropout", "0.13"}}), yaml(R"(
image: {channels: 3, height: 16, width: 16}
network: {type: song_unet, channels: 16, multipliers: [1, 2], embedding_multiplier: 4, blocks: 1, attention_resolutions: [8],
  dropout: 0.13, noise_label: edm, null_is_zero: false, encoder: residual, decoder: standard, embedding_type: fourier,
  noise_multiplier: 2, resample_filter: [1, 3, 3, 1]}
conditioner: {type: class_label, classes: 4, dropout: 0}
noise: edm
parameterization: {type: edm, sigma_data: 0.5}
variance: none
)"));
  EXPECT_EQ(sample({}), yaml("{sampler: heun, spacing: karras, steps: 18}"));
  const Imported imported = import({});
  EXPECT_EQ(imported.losses, std::vector<std::string>{"map_augment.weight: only training with EDM's augmentation uses it"});
  EXPECT_EQ(imported.tensors.size(), tensors.size() - 2);
}

TEST_F(EdmImport, LabelDropoutIsANullClassOfZeros) {
  ncsnpp();
  const std::string said = model({{"label_dropout", "0.1"}});
  EXPECT_NE(said.find("null_is_zero: true"), std::string::npos) << said;
  EXPECT_NE(said.find("dropout: 0.1\nnoise: edm"), std::string::npos) << said;
}

TEST_F(EdmImport, OtherPreconditionings) {
  ncsnpp();
  const std::string ve = model({{"precond", "ve"}}), vp = model({{"class_name", "training.networks.VPPrecond"}});
  EXPECT_NE(ve.find(yaml("{noise: {type: ve, sigma_min: 0.02, sigma_max: 100}, parameterization: {type: eps, sign: score}}")),
            std::string::npos)
      << ve;
  EXPECT_EQ(sample({{"precond", "ve"}}), yaml("{sampler: heun, spacing: {type: karras, sigma_min: 0.02, sigma_max: 80}, steps: 18}"));
  EXPECT_NE(vp.find(yaml("{noise: {type: vp, beta_min: 0.1, beta_max: 20, epsilon: 1e-05, timestep_scale: 999}, parameterization: eps}")),
            std::string::npos)
      << vp;
}

TEST_F(EdmImport, SaysWhatIsWrong) {
  ncsnpp();
  EXPECT_EQ(refusal({{"precond", "vpp"}}), "precond=vpp: expected edm, vp, ve or iddpm");
  EXPECT_EQ(refusal({{"model", "DDPMpp"}}), "model=DDPMpp is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"model", "UNet"}}), "model=UNet: expected DDPMpp, NCSNpp or ADM");
  EXPECT_EQ(refusal({{"resample_filter", "1,1"}}), "resample_filter=1,1 is not what the weights of net.safetensors have");
  EXPECT_EQ(refusal({{"precond", "iddpm"}}), "net.safetensors: takes 3 channels and gives 3, which precond=iddpm does not");
  ncsnpp(false);
  EXPECT_EQ(refusal({}),
            "net.safetensors: its buffers are missing, so the filter between resolutions ([1,1] or [1,3,3,1]) is not known; set "
            "resample_filter in the options of the import, or in a JSON or YAML file with the name of the weights");
  EXPECT_NE(model({{"model", "NCSNpp"}}).find("resample_filter: [1, 3, 3, 1]"), std::string::npos);
  tensors = {{"map_layer0.weight", at::full({64, 16}, 1.0)},
             {"map_layer1.weight", at::full({64, 64}, 1.0)},
             {"enc.8x8_conv.bias", at::full({16}, 1.0)}};
  save();
  EXPECT_EQ(refusal({}), "net.safetensors: looks like a network of EDM, but has no tensor 'enc.8x8_conv.weight'");
}

// Of a .pkl, whose numbers and class are its metadata.
TEST_F(EdmImport, WhatAPickleKeepsCountsUnlessItIsSet) {
  ncsnpp();
  const std::map<std::string, std::string> kept{
      {"class_name", "VEPrecond"}, {"sigma_max", "50"}, {"dropout", "0.2"}, {"img_resolution", "16"}};
  const auto model = [&](const Settings& settings, const std::map<std::string, std::string>& metadata) {
    return dump_yaml(import_model({folder.path() / "net.pkl", tensors, metadata}, {settings, {}}).options);
  };
  EXPECT_NE(model({}, kept).find(yaml("{noise: {type: ve, sigma_min: 0.02, sigma_max: 50}, parameterization: {type: eps, sign: score}}")),
            std::string::npos);
  const std::string edm = yaml("{noise: edm, parameterization: {type: edm, sigma_data: 0.5}}");
  EXPECT_NE(model({}, kept).find("dropout: 0.2"), std::string::npos);
  EXPECT_NE(model({{"precond", "edm"}, {"dropout", "0.3"}}, kept).find("dropout: 0.3"), std::string::npos);
  EXPECT_NE(model({{"precond", "edm"}}, kept).find(edm), std::string::npos);
  EXPECT_NE(model({}, {{"precond", "ve"}}).find(edm), std::string::npos) << "another file's metadata";
  auto other = kept;
  other["img_resolution"] = "32";
  EXPECT_EQ(without(error_of([&] { model({}, other); }), folder), "net.pkl: img_resolution = 32 is not what the weights of net.pkl have");
}

TEST_F(NetworkImport, Edm2OfAPickle) {
  network("{type: edm2_unet, channels: 8, multipliers: [1, 2], blocks: 1, attention_resolutions: [4], head_channels: 4}",
          {.input = {3, 8, 8}, .out_channels = 3, .classes = 4});
  const auto model = [&](const std::map<std::string, std::string>& metadata) {
    return dump_yaml(*import_model({folder.path() / "net.pkl", tensors, metadata}, {}).options.find("network"));
  };
  const std::string plain = model({});
  EXPECT_EQ(plain.find("clip"), std::string::npos);
  const std::string kept = model({{"class_name", "Precond"},
                                  {"channels_per_head", "4"},
                                  {"res_balance", "0.5"},
                                  {"clip_act", "none"},
                                  {"resample_filter", "1, 3, 3, 1"}});
  for (const char* part : {"head_channels: 4", "residual_balance: 0.5", "clip: 0", "resample_filter: [1, 3, 3, 1]"})
    EXPECT_NE(kept.find(part), std::string::npos) << part << "\n" << kept;
}

TEST_F(NetworkImport, FiltersOfDhariwalUnet) {
  network("{type: dhariwal_unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: []}",
          {.input = {3, 16, 16}, .out_channels = 3}, "model.");
  const at::Tensor taps = at::tensor({1.f, 3.f, 3.f, 1.f}) / 8;
  tensors.push_back({"model.enc.8x8_down.conv0.resample_filter", taps.outer(taps).view({1, 1, 4, 4})});
  save();
  EXPECT_EQ(refusal({}), "net.safetensors: its resample_filter is [1, 3, 3, 1]; dhariwal_unet supports [1, 1] only");
}

// Whatever is wrong with a tensor, the error names the file, and nothing else goes wrong.
TEST_F(NetworkImport, DamagedTensors) {
  const auto damage = [&](const Settings& settings) {
    const auto import = [&](const Settings& said) { return import_model({folder.path() / "net.safetensors", tensors, {}}, {said, {}}); };
    fit(import(settings));
    const NamedTensors whole = tensors;
    size_t taken = 0;  // without it: a network that has labels is one without them if their tensor is gone
    for (size_t i = 0; i < whole.size(); ++i) {
      tensors = whole;
      tensors[i].tensor = at::empty(damaged_shape(i));
      EXPECT_THROW(fit(import(settings)), ConfigError) << whole[i].name;
      tensors = whole;
      tensors.erase(tensors.begin() + int64_t(i));
      try {
        fit(import(settings));
        ++taken;
      } catch (const ConfigError&) {
      }
    }
    EXPECT_LE(taken, 1u);
  };
  network("{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], resampling: residual, head_channels: 16}",
          {.input = {3, 16, 16}, .out_channels = 6, .classes = 7});
  damage({{"image_size", "16"}, {"num_head_channels", "16"}});
  classifier(
      "{type: unet_encoder, channels: 64, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], resampling: residual, "
      "head_channels: 64}",
      {.input = {3, 16, 16}, .classes = 9});
  damage({});
  network("{type: song_unet, channels: 16, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], encoder: residual, decoder: skip}",
          {.input = {3, 16, 16}, .out_channels = 3, .classes = 4}, "model.");
  damage({{"precond", "edm"}, {"resample_filter", "1,1"}});
  network("{type: dhariwal_unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8]}",
          {.input = {3, 16, 16}, .out_channels = 3}, "model.");
  damage({{"precond", "edm"}});
}

}  // namespace
}  // namespace brume::test
