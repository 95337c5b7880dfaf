// Stable Diffusion 1 and 2 in one file, known by their shapes alone. Only shapes are given, so that no memory is taken.
#include "brume/nn/blocks/first_stage.h"
#include "brume/nn/blocks/text_encoder.h"
#include "support/ldm_files.h"

namespace brume::test {
namespace {

class StableDiffusion : public LdmImport {
 protected:
  /// The U-Net and the first stage.
  void modules(int64_t width, const std::string& attention) {
    const nn::SkipInit follow;
    add("model.diffusion_model.",
        make<Network>("{type: unet, channels: 320, multipliers: [1, 2, 4, 4], attention_resolutions: [64, 32, 16], scale_shift: false, " +
                          attention + "}",
                      {.input = {4, 64, 64}, .out_channels = 4, .context_width = width})
            ->weights(),
        true);
    nn::FirstStageOptions options;
    options.channels = 128;
    options.multipliers = {1, 2, 4, 4};
    const nn::Builder build(0);
    const nn::FirstStageNetwork network(build, options, {3, 512, 512}, 8);
    add("first_stage_model.", build.weights(), true);
    tokenizer();
  }
  void one() {
    modules(768, "heads: 8, transformer: {depth: [1]}");
    const nn::SkipInit follow;
    const nn::Builder build(0);
    const nn::TextEncoder encoder(build["text_model"], {rows, 77, 768, 12, 12, 3072, true});
    add("cond_stage_model.transformer.", build.weights(), true);
    add("cond_stage_model.transformer.text_model.embeddings.position_ids", at::arange(77).view({1, 77}));
  }
  void two() {
    modules(1024, "head_channels: 64, transformer: {depth: [1], projection: linear}");
    const std::string model = "cond_stage_model.model.";
    add(model + "token_embedding.weight", flat({rows, 1024}));
    add(model + "positional_embedding", flat({77, 1024}));
    add(model + "text_projection", flat({1024, 1024}));
    add(model + "logit_scale", flat({}));
    add(model + "attn_mask", flat({77, 77}));
    for (const char* part : {"ln_final.weight", "ln_final.bias"}) add(model + part, flat({1024}));
    const std::pair<const char*, std::vector<int64_t>> parts[] = {{"attn.in_proj_weight", {3072, 1024}},
                                                                  {"attn.in_proj_bias", {3072}},
                                                                  {"attn.out_proj.weight", {1024, 1024}},
                                                                  {"attn.out_proj.bias", {1024}},
                                                                  {"ln_1.weight", {1024}},
                                                                  {"ln_1.bias", {1024}},
                                                                  {"ln_2.weight", {1024}},
                                                                  {"ln_2.bias", {1024}},
                                                                  {"mlp.c_fc.weight", {4096, 1024}},
                                                                  {"mlp.c_fc.bias", {4096}},
                                                                  {"mlp.c_proj.weight", {1024, 4096}},
                                                                  {"mlp.c_proj.bias", {1024}}};
    for (int64_t i = 0; i < 24; ++i)
      for (const auto& [name, shape] : parts) add(model + "transformer.resblocks." + std::to_string(i) + "." + name, flat(shape));
  }
  std::string parameterization(const Imported& model) const { return model.options.find("parameterization")->scalar; }
  std::string height(const Imported& model) const { return model.options.find("image")->find("height")->scalar; }
};

TEST_F(StableDiffusion, OneByItsShapes) {
  one();
  const Imported model = import();
  EXPECT_EQ(dump_yaml(model.options), dump_yaml(yaml(R"(
image: {channels: 3, height: 512, width: 512}
autoencoder: {type: kl, channels: 128, multipliers: [1, 2, 4, 4], blocks: 2, attention_resolutions: [], middle_attention: true,
  latent_channels: 4, quant_conv: true, scale: 0.18215}
network: {type: unet, channels: 320, multipliers: [1, 2, 4, 4], blocks: 2, attention_resolutions: [64, 32, 16], middle_attention: true,
  scale_shift: false, resampling: conv, dropout: 0, heads: 8, transformer: {depth: [1], projection: conv}}
conditioner: {type: clip_text, tokenizer: tokenizer, length: 77, width: 768, depth: 12, heads: 12, mlp: 3072, activation: quick_gelu}
noise: scaled_linear
parameterization: eps
)")));
  EXPECT_TRUE(model.losses.empty()) << model.losses.front();
  fit(model);
}

TEST_F(StableDiffusion, TwoByItsShapes) {
  two();
  at("cond_stage_model.model.transformer.resblocks.3.attn.in_proj_bias") = at::arange(3072, at::kFloat);
  const Imported model = import();
  EXPECT_EQ(dump_yaml(*model.options.find("network")), dump_yaml(yaml(R"({type: unet, channels: 320, multipliers: [1, 2, 4, 4], blocks: 2,
  attention_resolutions: [96, 48, 24], middle_attention: true, scale_shift: false, resampling: conv, dropout: 0, head_channels: 64,
  transformer: {depth: [1], projection: linear}})")));
  EXPECT_EQ(dump_yaml(*model.options.find("conditioner")),
            dump_yaml(yaml("{type: clip_text, tokenizer: tokenizer, length: 77, width: 1024, depth: 23, heads: 16, mlp: 4096, activation: "
                           "gelu, pad: 0}")));
  fit(model);
  for (int64_t i = 0; i < 3; ++i) {
    const std::string name = std::string("conditioner.text_model.encoder.layers.3.self_attn.") + "qkv"[i] + "_proj.bias";
    ASSERT_NE(find(model.tensors, name), nullptr) << name;
    EXPECT_TRUE(find(model.tensors, name)->equal(at::arange(1024 * i, 1024 * (i + 1), at::kFloat))) << name;
  }
  EXPECT_EQ(model.losses, (std::vector<std::string>{"not in the file: whether it predicts noise or v; v is taken (SD 2 for 768 pixels); "
                                                    "parameterization=… says otherwise",
                                                    "the last layer of the text encoder, which the model does not use",
                                                    "the text encoder's projection into the space shared with images"}));
}

TEST_F(StableDiffusion, WhetherTwoPredictsNoiseOrV) {
  two();
  const auto expect = [&](const std::string& wanted, const Settings& settings = {}) {
    const Imported model = import(settings);
    EXPECT_EQ(parameterization(model), wanted);
    EXPECT_EQ(height(model), wanted == "v" ? "768" : "512");
  };
  expect("v");
  expect("eps", {{"parameterization", "eps"}});
  Tensor& norm = at("model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias");
  norm = at::linspace(-1, 1, 320) * 0.1;  // spread 0.058
  expect("eps");
  norm = norm * 2;
  expect("v");
  metadata["global_step"] = "875000";
  expect("eps");
  metadata["modelspec.prediction_type"] = "v";
  expect("v");
  metadata["modelspec.prediction_type"] = "epsilon";
  expect("eps");
  folder.file("model.yaml", "model: {target: ldm.models.diffusion.ddpm.LatentDiffusion, params: {parameterization: v, image_size: 64}}");
  expect("v");  // image_size is 64 in both of the published files
  folder.file("model.yaml", "model: {target: ldm.models.diffusion.ddpm.LatentDiffusion, params: {parameterization: v, image_size: 128}}");
  EXPECT_EQ(height(import()), "1024") << "another size is meant";
}

// Programs halve the precision of all there is, the schedule's tables too.
TEST_F(StableDiffusion, TheScheduleOfAHalvedFile) {
  one();
  const Tensor betas = at::linspace(std::sqrt(0.00085), std::sqrt(0.012), 1000, at::kDouble).pow(2);
  add("betas", betas);
  const std::string wanted = dump_yaml(yaml("{type: scaled_linear, timesteps: 1000, beta_start: 0.00085, beta_end: 0.012}"));
  for (const at::ScalarType type : {at::kFloat, at::kHalf, at::kBFloat16}) {
    at("betas") = betas.to(type);
    EXPECT_EQ(dump_yaml(*import().options.find("noise")), wanted) << c10::toString(type);
  }
  at("betas") = at::linspace(0.0015, 0.0195, 1000, at::kHalf);
  EXPECT_EQ(dump_yaml(*import().options.find("noise")),
            dump_yaml(yaml("{type: linear, timesteps: 1000, beta_start: 0.0015, beta_end: 0.0195}")));
  at("betas") = betas.pow(3);
  EXPECT_EQ(import().options.find("noise")->find("type")->scalar, "betas") << "no schedule that has a name";
}

TEST_F(StableDiffusion, SaysWhatIsMissing) {
  one();
  std::filesystem::remove_all(folder.path() / "tokenizer");
  EXPECT_EQ(refusal(),
            "model.safetensors: CLIP's tokenizer is not in such files: tokenizer=DIR names the folder with vocab.json and merges.txt, or a "
            "folder 'tokenizer' next to the file, or the variable BRUME_CLIP_TOKENIZER");
  EXPECT_EQ(refusal({{"tokenizer", folder.file("nowhere")}}),
            "tokenizer=nowhere: holds neither vocab.json and merges.txt nor tokenizer.json");
  tokenizer();
  for (NamedTensor& t : tensors)
    if (t.name.starts_with("cond_stage_model.")) t.name = "text_encoder." + t.name;
  EXPECT_EQ(
      refusal(),
      "model.safetensors: lacks the encoder of its condition: its U-Net attends to tokens, and there is no tensor 'cond_stage_model.'; "
      "text_encoder=FILE completes it with CLIP's of another file");
  at("model.diffusion_model.input_blocks.0.0.weight") = flat({320, 5, 3, 3});
  EXPECT_EQ(refusal(),
            "model.safetensors: the U-Net takes 5 channels and latents have 4: of models that receive an image with their input, those are "
            "imported that inpaint by words (9 channels, conditioning_key hybrid); depth, upscaling and inpainting without "
            "words are not");
}

}  // namespace
}  // namespace brume::test
