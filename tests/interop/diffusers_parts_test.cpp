// The parts of diffusers' directories without their weights: a tokenizer in one file, first stages that are no KL autoencoder, what is
// lost, and configurations of no sense.
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>

#include "brume/interop/inspect.h"
#include "brume/interop/layouts/sections.h"
#include "support/directory.h"

namespace brume::test {
namespace {

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
    const Imported model = import();
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
      "gradient, restart_after: 0, attention_resolutions: [16]}}");
  const std::string folder_of = fs::exists(path("vqvae")) ? "vqvae" : "vae";
  EXPECT_EQ(json::parse(read_text(path(folder_of + "/config.json")))["_class_name"], "VQModel");
  expect_all();
  const Imported stage = import_model(path(folder_of));
  EXPECT_EQ(stage.section, "autoencoder");
  EXPECT_EQ(stage.options.find("network")->find("type")->scalar, "vq");
  change(folder_of + "/config.json", [](json& c) { c["vq_embed_dim"] = 8; });
  EXPECT_EQ(refusal(), "model/" + folder_of + "/config.json: vq_embed_dim is 8; an autoencoder of brume supports 3 only");
}

TEST_F(Directory, ATinyAutoencoderForItsFirstStage) {
  words();
  fs::remove(path(vae + ".safetensors"));
  NamedTensors all;
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
  change("model_index.json", [](json& index) { index["vae"] = {"diffusers", "AutoencoderTiny"}; });
  const Imported model = import();
  EXPECT_EQ(dump_yaml(*model.options.find("autoencoder")),
            "type: tiny\nencoder: vae\ndecoder: vae\nlatent_channels: 4\nwidth: 8\nmiddle_norm: false\nscale: 0.5\nshift: 0\n");
  EXPECT_EQ(model.options.find("image")->find("height")->scalar, "128") << "latents of 16 are images of 128 there";
  for (const auto& [theirs, ours] : {std::pair("encoder.layers.0.weight", "encoder.0.weight"),
                                     {"encoder.layers.14.bias", "encoder.14.bias"},
                                     {"decoder.layers.0.weight", "decoder.1.weight"},
                                     {"decoder.layers.6.weight", "decoder.7.weight"},
                                     {"decoder.layers.17.conv.4.bias", "decoder.18.conv.4.bias"},
                                     {"decoder.layers.18.weight", "decoder.19.weight"}}) {
    ASSERT_NE(find(model.tensors, std::string("autoencoder.") + ours), nullptr) << ours;
    EXPECT_TRUE(find(model.tensors, std::string("autoencoder.") + ours)->equal(*find(all, theirs))) << ours;
  }
  all.pop_back();
  write(vae + ".safetensors", {all.begin(), all.begin() + 20});
  EXPECT_EQ(refusal(), "model/vae: its weights are not those of an AutoencoderTiny");
  change("vae/config.json", [](json& c) { c["num_encoder_blocks"] = {1, 1, 1, 1}; });
  EXPECT_EQ(refusal(), "model/vae/config.json: num_encoder_blocks is [1,1,1,1]; an autoencoder of brume supports [1,3,3,3] only");
}

TEST_F(Directory, WhatAnImportLosesIsToldByInspect) {
  words();
  change("model_index.json", [](json& index) {
    index["safety_checker"] = {"stable_diffusion", "StableDiffusionSafetyChecker"};
    index["feature_extractor"] = {"transformers", "CLIPImageProcessor"};
    index["image_encoder"] = {nullptr, nullptr};
    index["requires_safety_checker"] = true;
  });
  NamedTensors all = tensors(text + ".safetensors");
  all.push_back({"text_projection.weight", at::zeros({4, 32})});
  write(text + ".safetensors", all);
  const std::string told = inspect(path(""));
  EXPECT_EQ(told.substr(told.find("family: "), told.find("parts:\n") - told.find("family: ")),
            "family: diffusers directory\n"
            "lost by an import: the feature extractor of the safety checker (CLIPImageProcessor)\n"
            "lost by an import: the safety checker (StableDiffusionSafetyChecker)\n"
            "lost by an import: the text encoder's projection of a whole prompt, which its network does not see\n");
  EXPECT_EQ(json::parse(inspect_json(path("")))["losses"].size(), 3u);
  change("model_index.json", [](json& index) { index["controlnet"] = {"diffusers", "ControlNetModel"}; });
  const std::string refused = without(inspect(path("")), folder);
  EXPECT_NE(refused.find("cannot be imported: model/model_index.json: has a component 'controlnet' of class ControlNetModel"),
            std::string::npos)
      << refused;
}

// Its files say which scheduler a model was trained with, and these pipelines sample otherwise.
TEST_F(Directory, PipelinesWithASchedulerOfTheirOwn) {
  make("{image: {height: 16, width: 16}, network: {type: unet, channels: 32, multipliers: [1, 2], blocks: 1, zero_init: false}}");
  change("scheduler/scheduler_config.json", [](json& c) { c["_class_name"] = "DDPMScheduler"; });
  change("model_index.json", [](json& index) { index["scheduler"] = {"diffusers", "EulerDiscreteScheduler"}; });
  for (const char* pipeline : {"DDIMPipeline", "PNDMPipeline"}) {
    change("model_index.json", [&](json& index) { index["_class_name"] = pipeline; });
    EXPECT_EQ(import().losses, std::vector<std::string>()) << "neither class is taken";
  }
  change("model_index.json", [](json& index) { index["scheduler"] = {"diffusers", "DDPMScheduler"}; });
  for (const auto& [pipeline, sampler, steps] :
       {std::tuple("DDPMPipeline", "ddpm", "1000"), {"DDIMPipeline", "ddim", "50"}, {"PNDMPipeline", "pndm", "50"}}) {
    change("model_index.json", [&](json& index) { index["_class_name"] = pipeline; });
    const Imported model = import();
    EXPECT_EQ(model.sample.find("sampler")->find("type")->scalar, sampler);
    EXPECT_EQ(model.sample.find("steps")->scalar, steps);
  }
  change("scheduler/scheduler_config.json", [](json& c) { c.erase("_class_name"); });
  change("model_index.json", [](json& index) { index["_class_name"] = "DDPMPipeline"; });
  EXPECT_EQ(import().sample.find("sampler")->find("type")->scalar, "ddpm") << "model_index.json says the class, too";
}

// As its pipelines have it: the class of model_index.json, with the keys of the component's file.
TEST_F(Directory, TheClassIsThatOfTheIndex) {
  words();
  change("scheduler/scheduler_config.json", [](json& c) { c["_class_name"] = "PNDMScheduler"; });
  change("model_index.json", [](json& index) { index["scheduler"] = {"diffusers", "DPMSolverMultistepScheduler"}; });
  const Imported model = import();
  EXPECT_EQ(model.sample.find("sampler")->find("type")->scalar, "dpmpp_multistep");
  EXPECT_EQ(model.losses.size(), 1u);
  EXPECT_EQ(without(model.losses[0], folder),
            "the class PNDMScheduler of model/scheduler/scheduler_config.json: DPMSolverMultistepScheduler is taken, as model_index.json "
            "says");
  for (const char* component : {"unet", "vae"}) {
    const std::string file = std::string(component) + "/config.json";
    const json whole = json::parse(read_text(path(file)));
    for (const json& other : {json("UNet2DModel"), json("VQModel"), json()}) {
      change(file, [&](json& c) { c["_class_name"] = other; });
      expect_all();
    }
    folder.file("model/" + file, whole.dump());
  }
}

// The scheduler decides the noise level that the network receives: EDM's log(sigma) / 4, that of consistency models a thousand times as
// much.
TEST_F(Directory, WhatTheSchedulerTellsTheNetwork) {
  words();
  for (const auto& [scheduler, input, scale] : {std::tuple("EDMEulerScheduler", "quarter_log", ""),
                                                {"CMStochasticIterativeScheduler", "quarter_log", "1000"},
                                                {"FlowMatchEulerDiscreteScheduler", "", ""}}) {
    folder.file("model/scheduler/scheduler_config.json", json{{"_class_name", scheduler}}.dump());
    change("model_index.json", [&](json& index) { index["scheduler"] = {"diffusers", scheduler}; });
    const Imported model = import();
    const Value told = part_of(*model.options.find("network"), "noise_embedding");
    EXPECT_EQ(text_of(told, "input"), input) << scheduler;
    EXPECT_EQ(text_of(told, "scale"), scale) << scheduler;
    fit(model);
  }
}

TEST_F(Directory, AFileOfAPartIsNoModel) {
  words();
  for (const std::string& stem : {unet, vae, text}) {
    const std::string refused = error_of([&] { import_model(path(stem + ".safetensors")); });
    EXPECT_TRUE(refused.ends_with("…; it is a part of a diffusers directory: the folder with its configuration is the model")) << refused;
  }
}

TEST_F(Directory, WhatIsAddedToModelsIsNoModel) {
  const auto refused = [&](const std::string& name) {
    write_safetensors(folder.file("part.safetensors"), {{name, at::zeros({4, 32})}});
    const std::string said = error_of([&] { import_model(folder.path() / "part.safetensors"); });
    fs::remove(folder.path() / "part.safetensors");
    return said;
  };
  for (const char* lora :
       {"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight", "unet.mid_block.attentions.0.proj_in.lora_A.weight"})
    EXPECT_TRUE(refused(lora).ends_with("; it is a LoRA, which sample.lora adds")) << lora;
  EXPECT_TRUE(refused("lora_unet_a.hada_w1_a").ends_with("; it is a LoHa, which sample.lora adds"));
  EXPECT_TRUE(refused("lora_unet_a.lokr_w1").ends_with("; it is a LoKr, which sample.lora adds"));
  EXPECT_TRUE(refused("controlnet_cond_embedding.conv_in.weight").ends_with("; it is a ControlNet, which sample.control steers by"));
  EXPECT_TRUE(refused("emb_params").ends_with("; it is a textual inversion, which sample.prompts.embeddings adds"));
}

// An importer's own sections have no lines that could be looked up.
TEST_F(Directory, ErrorsOfOptionsNameTheFileAlone) {
  words();
  change("unet/config.json", [](json& c) { c["dropout"] = 2; });
  EXPECT_EQ(without(error_of([&] { fit(import()); }), folder), "model/model_index.json: model.network: dropout = 2 is outside [0, 0.999]");
}

TEST_F(Directory, GroupsThatDivideNoWidth) {
  words();
  change("unet/config.json", [](json& c) { c["norm_num_groups"] = 5; });
  EXPECT_EQ(
      refusal(),
      "model/unet/config.json: norm_num_groups is 5; the unet of brume supports numbers that divide each of block_out_channels, 32, 64, "
      "only");
  change("unet/config.json", [](json& c) { c["norm_num_groups"] = 8; });
  change("vae/config.json", [](json& c) { c["norm_num_groups"] = 0; });
  EXPECT_TRUE(refusal().starts_with("model/vae/config.json: norm_num_groups is 0; an autoencoder of brume supports numbers that divide"))
      << refusal();
}

TEST_F(Directory, WidthsOfWords) {
  words();
  change("unet/config.json", [](json& c) { c.erase("cross_attention_dim"); });
  EXPECT_EQ(refusal(),
            "model/unet/config.json: cross_attention_dim is missing, which means 1280, and the hidden_size of the text encoders 32");
  change("unet/config.json", [](json& c) { c["cross_attention_dim"] = 32; });
  change("text_encoder/config.json", [](json& c) { c["num_attention_heads"] = 5; });
  EXPECT_EQ(refusal(),
            "model/text_encoder/config.json: num_attention_heads is 5; the text encoder of brume supports divisors of the hidden_size, 32, "
            "only");
}

TEST_F(Directory, LatentsWithoutAFirstStage) {
  words();
  change("model_index.json", [](json& index) { index["vae"] = nullptr; });
  EXPECT_EQ(refusal(),
            "model/model_index.json: vae is missing, and model/unet/config.json says in_channels 4: images have 1 or 3 channels, and what "
            "has others needs one");
}

// A quantised file without what its numbers are multiplied by.
TEST_F(Directory, WholeNumbersAreNoWeights) {
  words();
  NamedTensors all = tensors(unet + ".safetensors");
  for (NamedTensor& t : all)
    if (t.name == "conv_in.weight") t.tensor = t.tensor.to(at::kChar);
  write(unet + ".safetensors", all);
  EXPECT_EQ(error_of([&] { fit(import()); }),
            "model.safetensors: tensor 'network.input_blocks.0.0.weight' is of type Char; weights are of floating type, and quantised ones "
            "are not read");
}

// Sizes that no network has are refused before memory is asked for.
TEST_F(Directory, SizesThatNoNetworkHas) {
  words();
  const auto refused = [&](const std::string& file, const char* key, const json& value) {
    const std::string whole = read_text(path(file));
    change(file, [&](json& c) { c[key] = value; });
    const std::string said = refusal();
    folder.file("model/" + file, whole);
    return said;
  };
  const std::string unet_only = "; the unet of brume supports ";
  json nested = 1;
  for (int i = 0; i < 200; ++i) nested = json::array({nested});
  EXPECT_EQ(refused("unet/config.json", "act_fn", nested),
            "model/unet/config.json: is no JSON that is read: its lists and objects nest too deep");
  EXPECT_EQ(
      refused("unet/config.json", "block_out_channels", {32, 100000}),
      "model/unet/config.json: block_out_channels is [32,100000]" + unet_only + "a list of 1 to 16 numbers, each from 1 to 65536, only");
  EXPECT_EQ(refused("vae/config.json", "block_out_channels", {1 << 30, 1 << 30}),
            "model/vae/config.json: block_out_channels is [1073741824,1073741824]; an autoencoder of brume supports a list of 1 to 16 "
            "numbers, each from 1 to 65536, only");
  EXPECT_EQ(refused("unet/config.json", "num_class_embeds", 2000000000),
            "model/unet/config.json: num_class_embeds is 2000000000" + unet_only + "null and up to 10000000 classes only");
  EXPECT_EQ(refused("unet/config.json", "transformer_layers_per_block", 100000),
            "model/unet/config.json: transformer_layers_per_block is 100000" + unet_only + "1 to 100 a level only");
  EXPECT_EQ(refused("tokenizer/special_tokens_map.json", "pad_token", {{"content", 7}}),
            "model/tokenizer/special_tokens_map.json: content is 7, which is not what diffusers writes there");
}

TEST_F(Directory, ANoteReadsNothingElsewhere) {
  words();
  for (const std::string other : {"/etc/passwd", "tokenizer/../../model.safetensors", ""}) {
    folder.file("model/brume.yaml", "model: {network: unet}\nfiles: {vocabulary: '" + other + "'}\n");
    EXPECT_EQ(refusal(), "model/brume.yaml: files: '" + other + "' is not within the directory");
  }
}

// Whatever stands in a configuration, the error names the file and the key, and nothing else goes wrong.
TEST_F(Directory, ConfigurationsOfNoSense) {
  words();
  const std::vector<json> values{"x", -1, 0, 1e30, true, nullptr, json::array(), json::object(), json::array({-1, 0}), 1ull << 62};
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
