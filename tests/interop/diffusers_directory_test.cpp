// The weights of diffusers' directories as programs and people leave them: as .bin, in shards, in several variants, under old names; what
// comes of an import are the tensors that the directory was exported from.
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "brume/core/warnings.h"
#include "brume/interop/layouts/sections.h"
#include "support/directory.h"

namespace brume::test {
namespace {

TEST_F(Directory, AsItIsExported) {
  words();
  expect_all();
  EXPECT_EQ(import().files.at("tokenizer/merges.txt"), small_tokenizers().at("clip/merges.txt"));
}

TEST_F(Directory, PickledWeights) {
  words();
  as_bin(unet + ".safetensors", unet + ".bin");
  as_bin(vae + ".safetensors", vae + ".bin", true);
  as_bin(text + ".safetensors", "text_encoder/pytorch_model.bin");
  expect_all();
  const std::string whole = read_text(path(unet + ".bin"));
  folder.file("model/" + unet + ".bin", whole.substr(0, whole.size() / 2));
  EXPECT_TRUE(refusal().starts_with("model/unet/diffusion_pytorch_model.bin: ")) << refusal();
  folder.file("model/" + unet + ".bin", "");
  EXPECT_EQ(refusal(), "model/unet/diffusion_pytorch_model.bin: is empty");
  fs::remove(path(unet + ".bin"));
  EXPECT_EQ(refusal(),
            "model/unet: holds no weights: neither diffusion_pytorch_model, model nor pytorch_model, as .safetensors, .bin or an index of "
            "either");
}

TEST_F(Directory, Shards) {
  words();
  const NamedTensors all = as_shards(unet, ".safetensors", "diffusion_pytorch_model.safetensors.index.json");
  rename(text + ".safetensors", "text_encoder/pytorch_model.safetensors");
  as_shards("text_encoder/pytorch_model", ".bin", "pytorch_model.bin.index.json");
  expect_all();

  // A tensor that the index does not name is read all the same; one that no model has is reported.
  const std::string index = "unet/diffusion_pytorch_model.safetensors.index.json", second = unet + "-00002-of-00002.safetensors";
  change(index, [&](json& values) { values["weight_map"].erase(all[1].name); });
  expect_all();
  NamedTensors more = tensors(second);
  more.push_back({"extra_embedding.linear_1.weight", at::ones({2})});
  write(second, more);
  EXPECT_EQ(refusal(), "model/unet: no place is known for extra_embedding.linear_1.weight");

  change(index, [](json& values) { values["weight_map"]["conv_in.scale"] = "diffusion_pytorch_model-00001-of-00002.safetensors"; });
  EXPECT_EQ(refusal(),
            "model/unet/diffusion_pytorch_model.safetensors.index.json: says that 'conv_in.scale' is in "
            "'diffusion_pytorch_model-00001-of-00002.safetensors', and it is not");
  fs::remove(path(second));
  EXPECT_TRUE(
      refusal().ends_with("model/unet/diffusion_pytorch_model.safetensors.index.json: names the file "
                          "'diffusion_pytorch_model-00002-of-00002.safetensors' with " +
                          std::to_string(all.size() / 2 - 1) + " tensors, which does not exist"))
      << refusal();
  folder.file("model/" + index, R"({"weight_map": {"conv_in.bias": "../vae/diffusion_pytorch_model.safetensors"}})");
  EXPECT_EQ(refusal(),
            "model/unet/diffusion_pytorch_model.safetensors.index.json: names the file '../vae/diffusion_pytorch_model.safetensors' with 1 "
            "tensor, which does not exist");
  folder.file("model/" + index, R"({"weight_map": {}})");
  EXPECT_EQ(refusal(), "model/unet/diffusion_pytorch_model.safetensors.index.json: lists no tensors (weight_map)");
  folder.file("model/" + index, R"({"weight_map": ["conv_in.bias"]})");
  EXPECT_EQ(
      refusal(),
      "model/unet/diffusion_pytorch_model.safetensors.index.json: weight_map is [\"conv_in.bias\"], which is not what diffusers writes "
      "there");
}

TEST_F(Directory, Variants) {
  words();
  const auto rounded = [&](const std::string& stem, at::ScalarType type) {
    NamedTensors all = tensors(stem + ".safetensors");
    for (NamedTensor& t : all) t.tensor = t.tensor.to(type);
    return all;
  };
  for (const std::string& stem : {unet, vae, text}) write(stem + ".fp16.safetensors", rounded(stem, at::kHalf));
  folder.file("model/" + vae + ".fp16.bin", torch_file(rounded(vae, at::kHalf), false));
  fs::remove(path(vae + ".fp16.safetensors"));
  expect_all();  // those without a variant
  const auto type_of = [](const Imported& model, const std::string& name) { return find(model.tensors, name)->scalar_type(); };
  const std::string of_unet = "network.out.2.weight", of_vae = "autoencoder.encoder.conv_in.weight",
                    of_text = "conditioner.text_model.final_layer_norm.bias";
  for (const bool alone : {false, true}) {
    if (alone)
      for (const std::string& stem : {unet, vae, text}) fs::remove(path(stem + ".safetensors"));
    const Imported half = alone ? import() : import({{"variant", "fp16"}});
    EXPECT_EQ(half.tensors.size(), import().tensors.size());
    for (const std::string& name : {of_unet, of_vae, of_text}) EXPECT_EQ(type_of(half, name), at::kHalf) << name;
    for (const NamedTensor& t : half.tensors) EXPECT_TRUE(t.tensor.equal(find(brume.tensors, t.name)->to(at::kHalf))) << t.name;
  }
  rename(vae + ".fp16.bin", vae + ".bin");
  const Imported mixed = import({{"variant", "fp16"}});
  EXPECT_EQ(mixed.losses, std::vector<std::string>{"vae in the variant fp16, which does not exist: its weights without one are taken"});
  EXPECT_EQ(type_of(mixed, of_unet), at::kHalf);
  rename(vae + ".bin", vae + ".fp16.bin");
  EXPECT_EQ(refusal({{"variant", "bf16"}}), "model/vae: has no weights of variant 'bf16'; variants that are there: fp16");
  write(unet + ".ema.safetensors", tensors(unet + ".fp16.safetensors"));
  EXPECT_EQ(refusal(),
            "model/unet: has several variants of its weights and none without one; variants that are there: ema, fp16; variant=ema "
            "takes that");
}

// As diffusers named attention before version 0.17.
TEST_F(Directory, OldNamesOfAttention) {
  words();
  NamedTensors all = tensors(vae + ".safetensors");
  size_t changed = 0;
  for (NamedTensor& t : all)
    for (const auto& [now, then] :
         {std::pair(".to_q.", ".query."), {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}})
      if (const size_t at = t.name.find(now); at != std::string::npos) t.name.replace(at, std::string(now).size(), then), ++changed;
  EXPECT_EQ(changed, 40u) << "five attentions of four projections with weight and bias";
  write(vae + ".safetensors", all);
  expect_all();
  // As 1x1 convolutions, which CompVis' first stage has.
  for (NamedTensor& t : all)
    if (t.name.find("attentions.") != std::string::npos && t.tensor.dim() == 2) t.tensor = t.tensor.unsqueeze(-1).unsqueeze(-1);
  write(vae + ".safetensors", all);
  expect_all();
}

TEST_F(Directory, OldNamesOfAttentionInAnUnet) {
  make(
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
      "head_channels: 8, attention_order: new, zero_init: false}}");
  expect_all();
  NamedTensors all = tensors(unet + ".safetensors");
  for (NamedTensor& t : all)
    for (const auto& [now, then] :
         {std::pair(".to_q.", ".query."), {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}})
      if (const size_t at = t.name.find(now); at != std::string::npos) t.name.replace(at, std::string(now).size(), then);
  write(unet + ".safetensors", all);
  expect_all();
}

// As those of DDPM were published.
TEST_F(Directory, WithoutFolders) {
  make("{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, zero_init: false}}");
  for (const auto& [component, file] :
       {std::pair("unet", "config.json"), {"unet", "diffusion_pytorch_model.safetensors"}, {"scheduler", "scheduler_config.json"}})
    rename(std::string(component) + "/" + file, file);
  for (const char* component : {"unet", "scheduler"}) fs::remove(path(component));
  expect_all();
  fs::remove(path("scheduler_config.json"));
  EXPECT_EQ(refusal(), "model/scheduler/scheduler_config.json: there is no such file");
}

// Words that were taught to the model stand in files of their own, and have rows behind those of the vocabulary.
TEST_F(Directory, MoreRowsThanTokens) {
  words();
  NamedTensors all = tensors(text + ".safetensors");
  for (NamedTensor& t : all)
    if (t.name.ends_with("token_embedding.weight")) t.tensor = at::cat({t.tensor, at::ones({3, 32})});
  write(text + ".safetensors", all);
  expect_all();
  EXPECT_EQ(import().losses, std::vector<std::string>{"3 rows of the token embedding, beyond the 521 tokens of the tokenizer"});
}

TEST_F(Directory, AddedWordsKeepTheirRows) {
  words();
  NamedTensors all = tensors(text + ".safetensors");
  for (NamedTensor& t : all)
    if (t.name.ends_with("token_embedding.weight")) t.tensor = at::cat({t.tensor, at::ones({3, 32})});
  write(text + ".safetensors", all);
  const std::string config = read_text(path("tokenizer/tokenizer_config.json"));
  const auto with = [&](const std::string& key, const json& value) {
    json changed = json::parse(config);
    changed[key] = value;
    return changed.dump();
  };
  const json token = {{"content", "<x>"}, {"special", false}}, end = {{"content", "<|endoftext|>"}, {"special", true}};
  const std::pair<std::string, std::string> places[] = {
      {"added_tokens.json", R"({"<x>": 521})"},
      {"tokenizer_config.json", with("added_tokens_decoder", {{"521", token}, {"520", end}})},
      {"tokenizer.json", json{{"added_tokens", {{{"id", 521}, {"content", "<x>"}}, {{"id", 520}, {"content", "<|endoftext|>"}}}}}.dump()}};
  for (const auto& [name, content] : places) {
    folder.file("model/tokenizer/" + name, content);
    const Imported model = import();
    EXPECT_EQ(json::parse(model.files.at("tokenizer/added_tokens.json")), json({{"<x>", 521}})) << name;
    EXPECT_EQ(model.losses, std::vector<std::string>{"2 rows of the token embedding, beyond the 522 tokens of the tokenizer"});
    fit(model);
    fs::remove(path("tokenizer/" + name));
    folder.file("model/tokenizer/tokenizer_config.json", config);
  }
  folder.file("model/tokenizer/added_tokens.json", R"({"<x>": 521, "<far>": 700})");
  std::vector<std::string> warnings;
  const WarningScope scope([&](const std::string& text) { warnings.push_back(text); });
  EXPECT_EQ(json::parse(import().files.at("tokenizer/added_tokens.json")), json({{"<x>", 521}}));
  EXPECT_EQ(warnings, std::vector<std::string>{"the text encoder has no row for the word <far> added to the tokenizer: prompts read it as "
                                               "pieces of the vocabulary"});
  folder.file("model/tokenizer/added_tokens.json", R"({"<x>": 3})");
  EXPECT_EQ(refusal(), "model/tokenizer/added_tokens.json: adds the token \"<x>\" as number 3, which a token of the vocabulary has");
}

// Diffusers before 0.9 left the size of Stable Diffusion's U-Nets at 32.
TEST_F(Directory, TheSizeOfOldWriters) {
  words();
  json config = json::parse(read_text(path("unet/config.json")));
  const auto height = [&](const std::string& version) {
    config["_diffusers_version"] = version;
    folder.file("model/unet/config.json", config.dump());
    return import().options.find("image")->find("height")->scalar;
  };
  config["sample_size"] = 32;
  EXPECT_EQ(height("0.8.1"), "128");
  EXPECT_EQ(import().losses.size(), 1u);
  EXPECT_EQ(height("0.6.0"), "128");
  EXPECT_EQ(height("0.9.0"), "64");
  EXPECT_EQ(height("0.10.2"), "64");
  EXPECT_EQ(height("1.0"), "64");
  config["sample_size"] = 96;
  EXPECT_EQ(height("0.6.0"), "192") << "larger sizes are meant";
}

// Whatever is wrong with a tensor, the error names the file, and nothing else goes wrong.
TEST_F(Directory, DamagedTensors) {
  words();
  for (const std::string& stem : {unet, vae, text}) {
    const NamedTensors whole = tensors(stem + ".safetensors");
    for (size_t i = 0; i < whole.size(); i += 5) {
      NamedTensors all = whole;
      all[i].tensor = at::zeros(damaged_shape(i));
      write(stem + ".safetensors", all);
      EXPECT_THROW(fit(import()), ConfigError) << whole[i].name;
      all.erase(all.begin() + int64_t(i));
      write(stem + ".safetensors", all);
      EXPECT_THROW(fit(import()), ConfigError) << whole[i].name;
    }
    write(stem + ".safetensors", whole);
  }
  fit(import());
}

// Prompts may be filled up with any token: both files of the directory say which, and so does what is imported.
TEST_F(Directory, ThePaddingIsAWord) {
  words("", ", pad: 5");
  const json vocabulary = json::parse(read_text(path("tokenizer/vocab.json"))),
             tokens = json::parse(read_text(path("tokenizer/special_tokens_map.json")));
  EXPECT_EQ(vocabulary[tokens["pad_token"].get<std::string>()], 5);
  EXPECT_EQ(json::parse(read_text(path("text_encoder/config.json")))["pad_token_id"], 5);
  EXPECT_EQ(text_of(*import().options.find("conditioner"), "pad"), "5");
}

// The layout of published consistency models.
TEST_F(Directory, ResidualResampling) {
  make(
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2, 2], blocks: 1, attention_resolutions: [8], "
      "head_channels: 16, attention_order: new, scale_shift: true, resampling: residual, zero_init: false}}");
  const json config = json::parse(read_text(path("unet/config.json")));
  EXPECT_EQ(config["down_block_types"], json({"ResnetDownsampleBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D"}));
  EXPECT_EQ(config["up_block_types"], json({"ResnetUpsampleBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"}));
  EXPECT_EQ(config["downsample_type"], "resnet");
  expect_all();
  fit(import());
}

// Score SDE: the network receives sigma, and images of [0, 1].
TEST_F(Directory, ScoreSde) {
  make(
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
      "attention_order: new, zero_init: false}}");
  folder.file("model/scheduler/scheduler_config.json", R"({"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50})");
  change("model_index.json", [](json& index) {
    index["_class_name"] = "ScoreSdeVePipeline";
    index["scheduler"] = {"diffusers", "ScoreSdeVeScheduler"};
  });
  const Imported model = import();
  fit(model);
  EXPECT_EQ(dump_yaml(*model.options.find("autoencoder")), dump_yaml(parse_yaml("{type: rescaled, scale: 0.5, shift: -1}", "wanted")));
  EXPECT_EQ(text_of(part_of(*model.options.find("network"), "noise_embedding"), "input"), "sigma");
  EXPECT_EQ(text_of(model.sample, "steps"), "2000");
}

}  // namespace
}  // namespace brume::test
