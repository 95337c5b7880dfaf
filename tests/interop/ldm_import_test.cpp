// Files of CompVis' programs: moving averages and buffers with the weights, single first stages, and what is said of files that
// cannot be imported.
#include <filesystem>

#include "brume/weights/safetensors.h"
#include "support/ldm_files.h"

namespace brume::test {
namespace {

// A small model without words, with everything that such files hold with the weights.

class SmallLdm : public LdmImport {
 protected:
  SmallLdm() {
    unet = make<Network>(
               "{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], heads: 4, scale_shift: false, "
               "zero_init: false}",
               {.input = {4, 16, 16}, .out_channels = 4})
               ->weights();
    add("model.diffusion_model.", unet);
    add("first_stage_model.",
        make<Autoencoder>("{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 4}", {.image = {3, 32, 32}})
            ->weights());
    const Tensor betas = at::linspace(std::sqrt(0.0015), std::sqrt(0.0195), 100, at::kDouble).pow(2).to(at::kFloat);
    add("betas", betas);
    for (const char* table : {"alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod",
                              "log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "posterior_variance", "lvlb_weights", "logvar"})
      add(table, betas);
    add("scale_factor", at::zeros({}) + 0.25);
  }
  /// Moving averages of the U-Net, every number one more than the weights'.
  void averages() {
    for (const Weight& w : unet) {
      std::string name = "diffusion_model" + w.name;
      name.erase(std::remove(name.begin(), name.end(), '.'), name.end());
      add("model_ema." + name, w.tensor.detach() + 1);
    }
    add("model_ema.decay", at::zeros({}));
    add("model_ema.num_updates", at::zeros({}, at::kInt));
  }
  std::string write_yaml(const std::string& more) {
    return folder.file("model.yaml",
                       "model:\n  target: ldm.models.diffusion.ddpm.LatentDiffusion\n  params:\n    linear_start: 0.0015\n"
                       "    linear_end: 0.0195\n    timesteps: 100\n    image_size: 16\n" +
                           more + "    unet_config:\n      params: {model_channels: 32, channel_mult: [1, 2], num_heads: 4}\n");
  }
  std::vector<Weight> unet;
  const Settings said{{"num_heads", "4"}, {"size", "32"}};
};

TEST_F(SmallLdm, BuffersAreNoLoss) {
  const Imported model = import(said);
  EXPECT_TRUE(model.losses.empty()) << model.losses.front();
  EXPECT_EQ(dump_yaml(*model.options.find("noise")),
            dump_yaml(yaml("{type: scaled_linear, timesteps: 100, beta_start: 0.0015, beta_end: 0.0195}")));
  EXPECT_EQ(model.options.find("autoencoder")->find("scale")->scalar, "0.25") << "the buffer's";
  fit(model);
  add("first_stage_model.loss.logvar", at::zeros({}));
  add("callbacks.counter", at::zeros({}));
  add("callbacks.other", at::zeros({}));
  EXPECT_EQ(import(said).losses, (std::vector<std::string>{"the losses the first stage was trained with (its discriminator, LPIPS)",
                                                           "2 tensors that are no part of the model: 'callbacks.counter', …"}));
}

TEST_F(SmallLdm, MovingAverages) {
  averages();
  const auto expect = [&](const Imported& model, double more, const std::string& loss) {
    EXPECT_EQ(model.losses, std::vector<std::string>{loss});
    for (const Weight& w : unet) {
      ASSERT_NE(find(model.tensors, "network." + w.name), nullptr) << w.name;
      EXPECT_TRUE(find(model.tensors, "network." + w.name)->equal(w.tensor.detach() + more)) << w.name;
    }
    fit(model);
  };
  const std::string taken = "the weights as trained: their moving averages were taken (ema=false takes the weights)";
  const std::string left = "the moving averages of the weights (model_ema)";
  Settings weights = said, ema = said;
  weights["ema"] = "false";
  ema["ema"] = "true";
  expect(import(said), 1, taken);
  expect(import(weights), 0, left);
  write_yaml("    use_ema: False\n");
  expect(import({}), 0, left + ", as use_ema of its YAML says (ema=true takes them)");
  expect(import(ema), 1, taken);
  write_yaml("");
  expect(import({}), 1, taken);  // that of CompVis' classes if nothing is said
  for (NamedTensor& t : tensors)
    if (t.name == "model_ema.diffusion_modelout2bias") t.name = "model_ema.gone";
  EXPECT_EQ(refusal(),
            "model.safetensors: its moving averages lack 1 of the U-Net's tensors, 'model_ema.diffusion_modelout2bias' first; ema=false "
            "takes the weights themselves");
  tensors.resize(tensors.size() - unet.size() - 2);
  EXPECT_EQ(refusal(ema), "model.safetensors: ema=true: holds no moving averages ('model_ema.diffusion_model…')");
}

TEST_F(SmallLdm, SaysWhatItHasToBeTold) {
  const Settings heads{{"num_heads", "4"}};
  EXPECT_EQ(
      refusal(),
      "model.safetensors: how many heads its attention has cannot be read from tensors: num_heads=N or num_head_channels=N says it, or "
      "its YAML");
  EXPECT_EQ(refusal(heads), "model.safetensors: the size of its images is not in it: size=PIXELS says it, or its YAML");
  EXPECT_EQ(refusal({{"num_heads", "4"}, {"size", "33"}}), "size=33: expected a multiple of 2");
  EXPECT_EQ(refusal({{"num_heads", "two"}}), "num_heads=two: expected a number above 0");
  EXPECT_EQ(refusal({{"num_heads", "2.5"}}), "num_heads=2.5: expected a whole number");
  EXPECT_EQ(refusal({{"num_head", "4"}}), "model.safetensors: unknown setting 'num_head'; did you mean 'num_heads'?");
  EXPECT_EQ(refusal({{"num_heads", "4"}, {"parameterization", "vv"}}),
            "model.safetensors: parameterization 'vv' is unknown; known: eps, x0, v");
  EXPECT_EQ(refusal({{"num_heads", "4"}, {"ema", "yes"}}), "ema=yes: expected true or false");
  at("scale_factor") = at::zeros({2});
  EXPECT_EQ(refusal(said), "model.safetensors: tensor 'scale_factor' has 2 numbers, expected 1");
  tensors.pop_back();
  EXPECT_EQ(refusal(said), "model.safetensors: what the latents are scaled by is not in it: scale_factor=X says it, or its YAML");
  for (NamedTensor& t : tensors)
    if (t.name == "betas") t.name = "sqrt_betas";
  EXPECT_EQ(refusal(said), "model.safetensors: its noise schedule is not in it: a YAML file with the same name says it");
}

TEST_F(SmallLdm, AYamlThatIsNotOfThisFile) {
  folder.file("model.yaml",
              "model:\n  target: ldm.LatentDiffusion\n  params:\n    image_size: 16\n    unet_config:\n      params:\n"
              "        model_channels: 64\n        channel_mult: [1, 2, 4]\n        num_heads: 4\n");
  EXPECT_EQ(refusal(),
            "model.yaml:7:25: model.params.unet_config.params.model_channels: is 64, and the tensors have 32\n"
            "model.yaml:8:23: model.params.unet_config.params.channel_mult: is [1, 2, 4], and the tensors have [1, 2]");
  write_yaml("    beta_schedule: quadratic\n");
  EXPECT_EQ(refusal(), "model.yaml:8:20: model.params.beta_schedule: is 'quadratic'; known are linear, sqrt_linear and cosine");
  write_yaml("    scale_factor: wide\n");
  tensors.pop_back();  // the buffer
  EXPECT_EQ(refusal(), "model.yaml:8:19: model.params.scale_factor: is 'wide', expected a number");
  folder.file("model.yaml", "images: 3\n");
  EXPECT_EQ(without(error_of([&] {
                      import_model(source(), {{}, folder.file("model.yaml")});
                    }),
                    folder),
            "model.yaml: is no configuration of latent diffusion: it has no model.target and model.params");
  Settings scaled = said;
  scaled["scale_factor"] = "2";
  EXPECT_EQ(import(scaled).losses,
            std::vector<std::string>{"model.yaml next to it is no configuration of latent diffusion and was not read"});
}

TEST_F(SmallLdm, AFirstStageThatIsMissing) {
  const Imported whole = import(said);
  const std::string vae = folder.file("vae.safetensors"), bare = folder.file("bare.safetensors");
  NamedTensors stage, inner, rest;
  for (const NamedTensor& t : tensors) {
    (t.name.starts_with("first_stage_model.") ? stage : rest).push_back(t);
    if (t.name.starts_with("first_stage_model.")) inner.push_back({t.name.substr(18), t.tensor});
  }
  write_safetensors(vae, stage);
  write_safetensors(bare, inner);
  tensors = rest;
  EXPECT_EQ(refusal(said),
            "model.safetensors: lacks its first stage: its U-Net makes 4 channels, which are no image's, and there is no tensor "
            "'first_stage_model.'; vae=FILE completes it with the one of another file");
  write_yaml("    first_stage_config: {target: ldm.models.autoencoder.AutoencoderKL}\n");
  EXPECT_EQ(refusal(said),
            "model.safetensors: lacks its first stage: model.yaml names AutoencoderKL, and there is no tensor 'first_stage_model.'; "
            "vae=FILE completes it with the one of another file");
  std::filesystem::remove(folder.path() / "model.yaml");
  for (const std::string& file : {vae, bare}) {
    Settings completed = said;
    completed["vae"] = file;
    const Imported model = import(completed);
    fit(model);
    EXPECT_EQ(dump_yaml(model.options), dump_yaml(whole.options));
    EXPECT_EQ(model.tensors.size(), whole.tensors.size());
  }
  Settings wrong = said;
  wrong["vae"] = folder.file("none");
  EXPECT_EQ(refusal(wrong), "vae=none: there is no such file or directory");
}

// Whatever is wrong with a tensor, the error names the file, and nothing else goes wrong.
TEST_F(SmallLdm, DamagedTensors) {
  const NamedTensors whole = tensors;
  fit(import(said));
  size_t damaged = 0;
  for (size_t i = 0; i < whole.size(); ++i) {
    if (!whole[i].name.starts_with("model.") && !whole[i].name.starts_with("first_stage_model.")) continue;
    tensors = whole;
    tensors[i].tensor = at::zeros(damaged_shape(i));
    EXPECT_THROW(fit(import(said)), ConfigError) << whole[i].name;
    tensors = whole;
    tensors.erase(tensors.begin() + int64_t(i));
    EXPECT_THROW(fit(import(said)), ConfigError) << whole[i].name;
    ++damaged;
  }
  EXPECT_GT(damaged, 100u);
  tensors = whole;
  at("model.diffusion_model.time_embed.0.weight") = at::zeros({4});
  EXPECT_EQ(refusal(said), "model.safetensors: tensor 'time_embed.0.weight' has shape [4], expected 2 dimensions at least");
}

// Single first stages.

class LdmFirstStage : public LdmImport {
 protected:
  void stage(const std::string& options, const std::string& prefix = "") {
    weights = make<Autoencoder>(options, {.image = {3, 16, 16}})->weights();
    add(prefix, weights);
  }
  void expect(const Imported& model, const std::string& network) {
    EXPECT_EQ(model.section, "autoencoder");
    EXPECT_EQ(dump_yaml(model.options), dump_yaml(yaml("{image: {channels: 3, height: 16, width: 16}, network: " + network + "}")));
    for (const Weight& w : weights) {
      const Tensor* got = find(model.tensors, "autoencoder." + w.name);
      ASSERT_NE(got, nullptr) << w.name;
      EXPECT_TRUE(got->equal(w.tensor)) << w.name;
    }
    fit(model);
  }
  std::vector<Weight> weights;
};

TEST_F(LdmFirstStage, Kl) {
  stage("{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 4, attention_resolutions: [8]}");
  const std::string same =
      "{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], middle_attention: true, latent_channels: 4, "
      "quant_conv: true, scale: ";
  EXPECT_EQ(refusal(),
            "model.safetensors: the size of its images, which decides which levels attend, is not in it: size=PIXELS says it, or its YAML");
  add("loss.logvar", at::zeros({}));
  add("loss.discriminator.main.0.weight", at::zeros({1}));
  add("model_ema.encoderconv_inweight", at::zeros({1}));
  expect(import({{"size", "16"}}), same + "1}");
  expect(import({{"size", "16"}, {"scale_factor", "0.18215"}}), same + "0.18215}");
  EXPECT_EQ(import({{"size", "16"}}).losses,
            (std::vector<std::string>{"the losses the first stage was trained with (its discriminator, LPIPS)",
                                      "the moving averages of the weights (model_ema)"}));
  folder.file("model.yaml", "model: {target: ldm.models.autoencoder.AutoencoderKL, params: {embed_dim: 4, ddconfig: {resolution: 16}}}\n");
  expect(import(), same + "1}");
  // Attention as linear layers, which newer programs write.
  for (NamedTensor& t : tensors)
    if (t.name.find(".attn") != std::string::npos && t.tensor.dim() == 4) t.tensor = t.tensor.squeeze(-1).squeeze(-1);
  expect(import(), same + "1}");
}

// CompVis' embed_dim is the number of channels of a latent, and z_channels that of what the decoder begins with.
TEST_F(LdmFirstStage, EmbedDimOtherThanZChannels) {
  const std::string kl =
      "{type: kl, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [], middle_attention: true, latent_channels: 3, "
      "quant_conv: true, scale: 1, inner_channels: 6}";
  stage(kl);
  const auto expect_shape = [&](const char* name, at::IntArrayRef shape) { EXPECT_EQ(at(name).sizes(), shape) << name; };
  expect_shape("encoder.conv_out.weight", {12, 64, 3, 3});
  expect_shape("quant_conv.weight", {6, 12, 1, 1});
  expect_shape("post_quant_conv.weight", {6, 3, 1, 1});
  expect_shape("decoder.conv_in.weight", {64, 6, 3, 3});
  expect(import({{"size", "16"}}), kl);
}

TEST_F(LdmFirstStage, VqWithinAFileOfItsModel) {
  stage("{type: vq, channels: 32, multipliers: [1, 2, 2], blocks: 2, latent_channels: 3, codes: 24, codebook: gradient, restart_after: 0}",
        "first_stage_model.");
  expect(
      import({{"size", "16"}}),
      "{type: vq, channels: 32, multipliers: [1, 2, 2], blocks: 2, attention_resolutions: [], middle_attention: true, latent_channels: 3, "
      "quant_conv: true, scale: 1, codes: 24, codebook: gradient, restart_after: 0}");
  const Imported unsaid = import();
  EXPECT_EQ(unsaid.options.find("image")->find("height")->scalar, "256");
  EXPECT_EQ(unsaid.losses,
            std::vector<std::string>{"not in the file: the size of its images; 256 is taken, and any other will do (size=PIXELS)"});
  tensors.erase(std::remove_if(tensors.begin(), tensors.end(), [](const auto& t) { return t.name.find("decoder.conv_in.weight") == 18; }),
                tensors.end());
  EXPECT_EQ(refusal({{"size", "16"}}), "model.safetensors: lacks the tensor 'first_stage_model.decoder.conv_in.weight'");
}

}  // namespace
}  // namespace brume::test
