// Directories of diffusers as programs and people leave them: weights as .bin, in shards, in several variants; old names of attention; a
// tokenizer in one file; first stages that are no KL autoencoder. A small model of brume is exported, its own note is removed, and the
// directory is changed; what comes of its import are the tensors it was exported from.
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <nlohmann/json.hpp>

#include "core/autoencoder.h"
#include "io/export/export.h"
#include "io/inspect.h"
#include "io/model_file.h"
#include "io/safetensors.h"
#include "models.h"
#include "support.h"
#include "support/process.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;
namespace pickle = io::testing::pickle;
using nlohmann::json;

const std::string unet = "unet/diffusion_pytorch_model", vae = "vae/diffusion_pytorch_model", text = "text_encoder/model";

/// The bytes of torch.save of a state dict: one storage that all tensors are parts of. `legacy`: as before PyTorch 1.6.
std::string torch_file(const io::NamedTensors& tensors, bool legacy) {
  const at::ScalarType type = tensors.front().tensor.scalar_type();
  std::string data;
  std::vector<std::pair<std::string, std::string>> items;
  int32_t total = 0;
  for (const io::NamedTensor& t : tensors) total += int32_t(t.tensor.numel());
  const std::string storage = pickle::storage(type == at::kHalf ? "HalfStorage" : "FloatStorage", "0", total);
  for (const io::NamedTensor& t : tensors) {
    const Tensor whole = t.tensor.to(type).contiguous();
    const auto narrow = [](at::IntArrayRef values) { return std::vector<int32_t>(values.begin(), values.end()); };
    items.emplace_back(
        t.name, pickle::tensor(storage, int32_t(data.size() / whole.element_size()), narrow(whole.sizes()), narrow(whole.strides())));
    data.append(static_cast<const char*>(whole.data_ptr()), whole.nbytes());
  }
  const std::string all = pickle::whole(pickle::dict(items));
  return legacy ? io::testing::legacy_torch_bytes(all, {{"0", total, data}}) : io::testing::torch_bytes(all, {data});
}

class Directory : public testing::Test {
 protected:
  void make(const std::string& model) {
    const std::string file = model_file(folder, model);
    brume = io::open_model(file);
    io::export_diffusers(brume, file, folder.path() / "model");
    fs::remove(folder.path() / "model/brume.yaml");
  }
  /// Stable Diffusion, but small.
  void words() {
    for (const auto& [path, bytes] : small_tokenizers()) folder.file(path, bytes);
    make(
        "{image: {height: 32, width: 32}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [16], "
        "heads: 4, attention_order: new, zero_init: false, transformer: {depth: [1]}}, autoencoder: {type: kl, channels: 32, multipliers: "
        "[1, 2], blocks: 1, attention_resolutions: [16], latent_channels: 4, scale: 0.5}, noise: scaled_linear, conditioner: {type: "
        "clip_text, tokenizer: " +
        folder.file("clip") + ", width: 32, depth: 2, heads: 4, mlp: 64, trainable: true}}");
  }
  std::string path(const std::string& name) const { return folder.file("model/" + name); }
  void rename(const std::string& from, const std::string& to) const { fs::rename(path(from), path(to)); }
  io::NamedTensors tensors(const std::string& file) const {  // copies: the file may be written anew
    io::NamedTensors all = io::load_tensors(path(file));
    for (io::NamedTensor& t : all) t.tensor = t.tensor.clone();
    return all;
  }
  void write(const std::string& file, const io::NamedTensors& all) const {
    fs::remove(path(file));
    io::write_safetensors(path(file), all);
  }
  /// A component's weights as torch.save writes them.
  void as_bin(const std::string& from, const std::string& to, bool legacy = false) const {
    folder.file("model/" + to, torch_file(tensors(from), legacy));
    fs::remove(path(from));
  }
  /// In two shards, every other tensor in the second, and their index.
  io::NamedTensors as_shards(const std::string& stem, const std::string& ending, const std::string& index) const {
    const io::NamedTensors all = tensors(stem + ".safetensors");
    io::NamedTensors parts[2];
    json map;
    const std::string name = fs::path(stem).filename().string(), folder_of = fs::path(stem).parent_path().string() + "/";
    const auto shard = [&](size_t i) { return name + "-0000" + std::to_string(i + 1) + "-of-00002" + ending; };
    for (size_t i = 0; i < all.size(); ++i) parts[i % 2].push_back(all[i]), map[all[i].name] = shard(i % 2);
    for (size_t i = 0; i < 2; ++i) {
      if (ending.ends_with(".bin"))
        folder.file("model/" + folder_of + shard(i), torch_file(parts[i], false));
      else
        io::write_safetensors(path(folder_of + shard(i)), parts[i]);
    }
    folder.file("model/" + folder_of + index, json{{"metadata", {{"total_size", 1}}}, {"weight_map", map}}.dump());
    fs::remove(path(stem + ".safetensors"));
    return all;
  }
  void change(const std::string& file, const std::function<void(json&)>& edit) const {
    json values = json::parse(read_text(path(file)));
    edit(values);
    folder.file("model/" + file, values.dump());
  }
  io::Imported import(const std::map<std::string, std::string>& settings = {}) const {
    return io::import_model(folder.path() / "model", {settings, {}});
  }
  /// All of the model's tensors, and no others.
  void expect_all(const std::map<std::string, std::string>& settings = {}) const {
    io::Contents wanted = brume;
    const auto file = [](const io::NamedTensor& t) { return t.name.starts_with("files/"); };
    wanted.tensors.erase(std::remove_if(wanted.tensors.begin(), wanted.tensors.end(), file), wanted.tensors.end());
    expect_same({import(settings).tensors, {}}, wanted, false);
  }
  std::string refusal(const std::map<std::string, std::string>& settings = {}) const {
    return without(error_of([&] { import(settings); }), folder);
  }
  TempFolder folder;
  io::Contents brume;
};

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
  const io::NamedTensors all = as_shards(unet, ".safetensors", "diffusion_pytorch_model.safetensors.index.json");
  rename(text + ".safetensors", "text_encoder/pytorch_model.safetensors");
  as_shards("text_encoder/pytorch_model", ".bin", "pytorch_model.bin.index.json");
  expect_all();

  // A tensor that the index does not name is read all the same; one that no model has is told.
  const std::string index = "unet/diffusion_pytorch_model.safetensors.index.json", second = unet + "-00002-of-00002.safetensors";
  change(index, [&](json& values) { values["weight_map"].erase(all[1].name); });
  expect_all();
  io::NamedTensors more = tensors(second);
  more.push_back({"add_embedding.linear_1.weight", at::ones({2})});
  write(second, more);
  EXPECT_EQ(refusal(), "model/unet: no place is known for add_embedding.linear_1.weight");

  change(index, [](json& values) { values["weight_map"]["conv_in.scale"] = "diffusion_pytorch_model-00001-of-00002.safetensors"; });
  EXPECT_EQ(refusal(),
            "model/unet/diffusion_pytorch_model.safetensors.index.json: says that 'conv_in.scale' is in "
            "'diffusion_pytorch_model-00001-of-00002.safetensors', and it is not");
  fs::remove(path(second));
  EXPECT_TRUE(
      refusal().ends_with("model/unet/diffusion_pytorch_model.safetensors.index.json: names the file "
                          "'diffusion_pytorch_model-00002-of-00002.safetensors' with " +
                          std::to_string(all.size() / 2 - 1) + " tensors, which is not there"))
      << refusal();
  folder.file("model/" + index, R"({"weight_map": {"conv_in.bias": "../vae/diffusion_pytorch_model.safetensors"}})");
  EXPECT_EQ(refusal(),
            "model/unet/diffusion_pytorch_model.safetensors.index.json: names the file '../vae/diffusion_pytorch_model.safetensors' with 1 "
            "tensors, which is not there");
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
    io::NamedTensors all = tensors(stem + ".safetensors");
    for (io::NamedTensor& t : all) t.tensor = t.tensor.to(type);
    return all;
  };
  for (const std::string& stem : {unet, vae, text}) write(stem + ".fp16.safetensors", rounded(stem, at::kHalf));
  folder.file("model/" + vae + ".fp16.bin", torch_file(rounded(vae, at::kHalf), false));
  fs::remove(path(vae + ".fp16.safetensors"));
  expect_all();  // those without a variant
  const auto type_of = [](const io::Imported& model, const std::string& name) { return io::find(model.tensors, name)->scalar_type(); };
  const std::string of_unet = "network.out.2.weight", of_vae = "autoencoder.encoder.conv_in.weight",
                    of_text = "conditioner.text_model.final_layer_norm.bias";
  for (const bool alone : {false, true}) {
    if (alone)
      for (const std::string& stem : {unet, vae, text}) fs::remove(path(stem + ".safetensors"));
    const io::Imported half = alone ? import() : import({{"variant", "fp16"}});
    EXPECT_EQ(half.tensors.size(), import().tensors.size());
    for (const std::string& name : {of_unet, of_vae, of_text}) EXPECT_EQ(type_of(half, name), at::kHalf) << name;
    for (const io::NamedTensor& t : half.tensors) EXPECT_TRUE(t.tensor.equal(io::find(brume.tensors, t.name)->to(at::kHalf))) << t.name;
  }
  EXPECT_EQ(refusal({{"variant", "bf16"}}), "model/vae: has no weights of variant 'bf16'; variants that are there: fp16");
  write(unet + ".ema.safetensors", tensors(unet + ".fp16.safetensors"));
  EXPECT_EQ(refusal(),
            "model/unet: has several variants of its weights and none without one; variants that are there: ema, fp16; --set variant=ema "
            "takes that");
}

// As diffusers named attention before version 0.17.
TEST_F(Directory, OldNamesOfAttention) {
  words();
  io::NamedTensors all = tensors(vae + ".safetensors");
  size_t changed = 0;
  for (io::NamedTensor& t : all)
    for (const auto& [now, then] :
         {std::pair(".to_q.", ".query."), {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}})
      if (const size_t at = t.name.find(now); at != std::string::npos) t.name.replace(at, std::string(now).size(), then), ++changed;
  EXPECT_EQ(changed, 40u) << "five attentions of four projections with weight and bias";
  write(vae + ".safetensors", all);
  expect_all();
  // As 1x1 convolutions, which CompVis' first stage has.
  for (io::NamedTensor& t : all)
    if (t.name.find("attentions.") != std::string::npos && t.tensor.dim() == 2) t.tensor = t.tensor.unsqueeze(-1).unsqueeze(-1);
  write(vae + ".safetensors", all);
  expect_all();
}

TEST_F(Directory, OldNamesOfAttentionInAnUnet) {
  make(
      "{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, attention_resolutions: [8], "
      "head_channels: 8, attention_order: new, zero_init: false}}");
  expect_all();
  io::NamedTensors all = tensors(unet + ".safetensors");
  for (io::NamedTensor& t : all)
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
  io::NamedTensors all = tensors(text + ".safetensors");
  for (io::NamedTensor& t : all)
    if (t.name.ends_with("token_embedding.weight")) t.tensor = at::cat({t.tensor, at::ones({3, 32})});
  write(text + ".safetensors", all);
  expect_all();
  EXPECT_EQ(import().losses, std::vector<std::string>{"3 rows of the token embedding, beyond the 521 tokens of vocab.json"});
}

TEST_F(Directory, ATokenizerInOneFile) {
  words();
  const json vocabulary = json::parse(read_text(path("tokenizer/vocab.json")));
  const std::string lines = read_text(path("tokenizer/merges.txt"));
  json words = json::array(), pairs = json::array();
  for (size_t at = lines.find('\n') + 1; at < lines.size();) {
    const size_t end = lines.find('\n', at), space = lines.find(' ', at);
    words.push_back(lines.substr(at, end - at));
    pairs.push_back({lines.substr(at, space - at), lines.substr(space + 1, end - space - 1)});
    at = end + 1;
  }
  for (const char* name : {"vocab.json", "merges.txt", "special_tokens_map.json", "tokenizer_config.json"})
    fs::remove(path(std::string("tokenizer/") + name));
  for (const json& merges : {words, pairs}) {
    folder.file("model/tokenizer/tokenizer.json", json{{"model", {{"type", "BPE"}, {"vocab", vocabulary}, {"merges", merges}}}}.dump());
    const io::Imported model = import();
    EXPECT_EQ(json::parse(model.files.at("tokenizer/vocab.json")), vocabulary);
    EXPECT_EQ(model.files.at("tokenizer/merges.txt"), lines);
    expect_all();
  }
  folder.file("model/tokenizer/tokenizer.json", R"({"model": {"vocab": {}, "merges": [["a", "b", "c"]]}})");
  EXPECT_EQ(refusal(), "model/tokenizer/tokenizer.json: model.merges holds [\"a\",\"b\",\"c\"], which is no pair of tokens");
  folder.file("model/tokenizer/tokenizer.json", R"({"model": {"type": "WordPiece", "vocab": {}}})");
  EXPECT_EQ(refusal(), "model/tokenizer/tokenizer.json: has no byte-pair merges (model.vocab, model.merges)");
  fs::remove(path("tokenizer/tokenizer.json"));
  EXPECT_EQ(refusal(), "model/tokenizer: holds neither vocab.json and merges.txt nor tokenizer.json");
}

TEST_F(Directory, ACodebookForItsFirstStage) {
  make(
      "{image: {height: 32, width: 32}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, heads: 4, attention_order: "
      "new, "
      "zero_init: false}, autoencoder: {type: vq, channels: 32, multipliers: [1, 2], blocks: 1, latent_channels: 3, codes: 24, codebook: "
      "gradient, revive: 0, attention_resolutions: [16]}}");
  const std::string folder_of = fs::exists(path("vqvae")) ? "vqvae" : "vae";
  EXPECT_EQ(json::parse(read_text(path(folder_of + "/config.json")))["_class_name"], "VQModel");
  expect_all();
  const io::Imported stage = io::import_model(path(folder_of));
  EXPECT_EQ(stage.section, "autoencoder");
  EXPECT_EQ(stage.options.find("network")->find("type")->scalar, "vq");
  change(folder_of + "/config.json", [](json& c) { c["vq_embed_dim"] = 8; });
  EXPECT_EQ(refusal(), "model/" + folder_of + "/config.json: vq_embed_dim is 8; an autoencoder of brume can be had with 3 only");
}

TEST_F(Directory, ATinyAutoencoderForItsFirstStage) {
  words();
  fs::remove(path(vae + ".safetensors"));
  io::NamedTensors all;
  const auto convolution = [&](const std::string& name, int64_t out, int64_t in, bool bias) {
    all.push_back({name + ".weight", at::full({out, in, 3, 3}, double(all.size() + 1), at::kFloat)});
    if (bias) all.push_back({name + ".bias", at::full({out}, double(all.size() + 1), at::kFloat)});
  };
  const auto block = [&](const std::string& name) {
    for (const char* layer : {"0", "2", "4"}) convolution(name + ".conv." + layer, 8, 8, true);
  };
  const auto half = [&](const std::string& prefix, const std::string& plan, int64_t in, int64_t out) {
    for (size_t i = 0; i < plan.size(); ++i) {
      const std::string name = prefix + std::to_string(i);
      if (plan[i] == 'i') convolution(name, 8, in, true);
      if (plan[i] == 'b') block(name);
      if (plan[i] == 's') convolution(name, 8, 8, false);
      if (plan[i] == 'o') convolution(name, out, 8, true);
    }
  };
  half("encoder.layers.", "ibsbbbsbbbsbbbo", 3, 4);
  half("decoder.layers.", "i.bbb.sbbb.sbbb.sbo", 4, 3);
  write(vae + ".safetensors", all);
  folder.file("model/vae/config.json",
              R"({"_class_name": "AutoencoderTiny", "latent_channels": 4, "block_out_channels": [8, 8, 8, 8], "scaling_factor": 0.5,
                  "latent_magnitude": 3, "latent_shift": 0.5, "force_upcast": false, "num_decoder_blocks": [3, 3, 3, 1]})");
  const io::Imported model = import();
  EXPECT_EQ(dump_yaml(*model.options.find("autoencoder")),
            "type: tiny\nencoder: vae\ndecoder: vae\nlatent_channels: 4\nwidth: 8\nmiddle_norm: false\nscale: 0.5\nshift: 0\n");
  EXPECT_EQ(model.options.find("image")->find("height")->scalar, "128") << "latents of 16 are images of 128 there";
  for (const auto& [theirs, ours] : {std::pair("encoder.layers.0.weight", "encoder.0.weight"),
                                     {"encoder.layers.14.bias", "encoder.14.bias"},
                                     {"decoder.layers.0.weight", "decoder.1.weight"},
                                     {"decoder.layers.6.weight", "decoder.7.weight"},
                                     {"decoder.layers.17.conv.4.bias", "decoder.18.conv.4.bias"},
                                     {"decoder.layers.18.weight", "decoder.19.weight"}}) {
    ASSERT_NE(io::find(model.tensors, std::string("autoencoder.") + ours), nullptr) << ours;
    EXPECT_TRUE(io::find(model.tensors, std::string("autoencoder.") + ours)->equal(*io::find(all, theirs))) << ours;
  }
  all.pop_back();
  write(vae + ".safetensors", {all.begin(), all.begin() + 20});
  EXPECT_EQ(refusal(), "model/vae: its weights are not those of an AutoencoderTiny");
  change("vae/config.json", [](json& c) { c["num_encoder_blocks"] = {1, 1, 1, 1}; });
  EXPECT_EQ(refusal(), "model/vae/config.json: num_encoder_blocks is [1,1,1,1]; an autoencoder of brume can be had with [1,3,3,3] only");
}

TEST_F(Directory, WhatAnImportLosesIsToldByInspect) {
  words();
  change("model_index.json", [](json& index) {
    index["safety_checker"] = {"stable_diffusion", "StableDiffusionSafetyChecker"};
    index["feature_extractor"] = {"transformers", "CLIPImageProcessor"};
    index["image_encoder"] = {nullptr, nullptr};
    index["requires_safety_checker"] = true;
  });
  io::NamedTensors all = tensors(text + ".safetensors");
  all.push_back({"text_projection.weight", at::zeros({4, 32})});
  write(text + ".safetensors", all);
  const std::string told = io::inspect(path(""));
  EXPECT_EQ(told.substr(told.find("family: ")),
            "family: diffusers directory\n"
            "lost by an import: the feature extractor of the safety checker (CLIPImageProcessor)\n"
            "lost by an import: the safety checker (StableDiffusionSafetyChecker)\n"
            "lost by an import: the text encoder's projection of a whole prompt, which its network does not see\n");
  EXPECT_EQ(json::parse(io::inspect_json(path("")))["losses"].size(), 3u);
  change("model_index.json", [](json& index) { index["controlnet"] = {"diffusers", "ControlNetModel"}; });
  const std::string refused = without(io::inspect(path("")), folder);
  EXPECT_NE(refused.find("cannot be imported: model/model_index.json: has a component 'controlnet' of class ControlNetModel"),
            std::string::npos)
      << refused;
}

// Whatever stands in a configuration, the file and the key are told, and nothing else goes wrong.
TEST_F(Directory, ConfigurationsOfNoSense) {
  words();
  const std::vector<json> values{"x",
                                 "",
                                 -1,
                                 0,
                                 1e30,
                                 3.5,
                                 true,
                                 nullptr,
                                 json::array(),
                                 json::object(),
                                 json::array({-1, 0}),
                                 json::array({"x"}),
                                 json::array({1e30}),
                                 1ull << 62};
  size_t refused = 0, taken = 0;
  for (const char* file : {"model_index.json", "unet/config.json", "vae/config.json", "text_encoder/config.json",
                           "scheduler/scheduler_config.json", "tokenizer/special_tokens_map.json"}) {
    const std::string whole = read_text(path(file));
    const json parsed = json::parse(whole);
    for (const auto& [key, before] : parsed.items())
      for (const json& value : values) {
        change(file, [&](json& c) { c[key] = value; });
        try {
          fit(import());
          ++taken;
        } catch (const ConfigError&) {
          ++refused;
        } catch (const std::exception& e) {
          ADD_FAILURE() << file << ": " << key << " = " << value << ": " << e.what();
        }
        folder.file(std::string("model/") + file, whole);
      }
    for (const char* broken : {"", "{", "[]", "null", "{\"_class_name\": }"}) {
      folder.file(std::string("model/") + file, broken);
      EXPECT_THROW(import(), ConfigError) << file << ": " << broken;
    }
    folder.file(std::string("model/") + file, whole);
  }
  EXPECT_GT(refused, 200u);
  EXPECT_GT(taken, 100u) << "keys that nothing is read from, and values that are usual";
}

}  // namespace
}  // namespace brume::test
