// brume import, and brume sample of what is not brume's: a diffusers directory and a tiny autoencoder.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <gtest/gtest.h>

#include <fstream>

#include "brume/image/image.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/process.h"
#include "support/refs.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {
namespace fs = std::filesystem;

class Import : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/model_index.json");
    fs::copy(ref_path("pipe/tiny_sd"), path("sd"), fs::copy_options::recursive);
    fs::copy(ref_path("pipe/tiny_ddpm"), path("ddpm"), fs::copy_options::recursive);
  }
  Finished at(std::vector<std::string> words) const { return run_brume(std::move(words), {folder_.path()}); }
  fs::path path(const std::string& name) const { return folder_.path() / name; }
  std::string refusal(std::vector<std::string> words) const {
    words.insert(words.begin(), "import");
    words.insert(words.end(), {"-o", "refused.safetensors"});
    const Finished done = at(words);
    EXPECT_EQ(done.code, 2);
    EXPECT_FALSE(fs::exists(path("refused.safetensors")));
    return done.err;
  }
  /// A JSON file with `from` replaced by `to`.
  void change(const std::string& file, const std::string& from, const std::string& to) const {
    std::string text = read_text(path(file));
    const size_t place = text.find(from);
    ASSERT_NE(place, std::string::npos) << file << " holds no " << from;
    folder_.file(file, text.replace(place, from.size(), to));
  }
  Image sampled(const std::string& source) const {
    const Finished done = at({"sample", source, "--prompt", "a horse", "--steps", "3", "--precision", "fp32", "-o", "out.png"});
    EXPECT_EQ(done.code, 0) << done.err;
    return read_image(path("out.png").string());
  }
  TempFolder folder_;
};

TEST_F(Import, ADirectoryBecomesOneFileThatSamplesTheSame) {
  const Finished done = at({"import", "sd", "-o", "model.safetensors"});
  ASSERT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(done.out.starts_with("sd: diffusers directory, ")) << done.out;
  EXPECT_TRUE(done.out.ends_with("\nmodel.safetensors\n")) << done.out;
  const Image there = sampled("sd"), here = sampled("model.safetensors");
  EXPECT_EQ(there.pixels, here.pixels);
  EXPECT_EQ(there.height, 32);
  fs::remove_all(path("sd"));
  EXPECT_EQ(sampled("model.safetensors").pixels, here.pixels) << "it needs nothing but itself";
  EXPECT_EQ(at({"import", "ddpm", "-o", "model.safetensors"}).err,
            "error: -o model.safetensors: exists already; --overwrite replaces it\n");
  EXPECT_EQ(at({"import", "ddpm", "-o", "model.safetensors", "--overwrite"}).code, 0);
  EXPECT_EQ(at({"sample", "model.safetensors", "-n", "1", "--steps", "2", "-o", "pixels.png"}).code, 0);
  EXPECT_EQ(refusal({"model.safetensors"}), "error: model.safetensors: is a brume model already\n");
}

// Sixteen bits, in two files with an index, under another name: the same image.
TEST_F(Import, ShardsOfAVariant) {
  NamedTensors all = load_tensors(path("sd/unet/diffusion_pytorch_model.safetensors").string());
  for (NamedTensor& t : all) t.tensor = t.tensor.to(at::kHalf).to(at::kFloat);
  fs::remove(path("sd/unet/diffusion_pytorch_model.safetensors"));
  write_safetensors(path("sd/unet/diffusion_pytorch_model.safetensors").string(), all);
  const Image whole = sampled("sd");
  fs::remove(path("sd/unet/diffusion_pytorch_model.safetensors"));
  std::string map;
  NamedTensors shards[2];
  for (size_t i = 0; i < all.size(); ++i) {
    shards[i % 2].push_back({all[i].name, all[i].tensor.to(at::kHalf)});
    map += (map.empty() ? "\"" : ", \"") + all[i].name + "\": \"part." + std::to_string(i % 2) + ".safetensors\"";
  }
  for (size_t i = 0; i < 2; ++i) write_safetensors(path("sd/unet/part." + std::to_string(i) + ".safetensors").string(), shards[i]);
  folder_.file("sd/unet/diffusion_pytorch_model.safetensors.index.fp16.json", "{\"weight_map\": {" + map + "}}");
  EXPECT_EQ(sampled("sd").pixels, whole.pixels);
  fs::remove(path("sd/unet/part.1.safetensors"));
  EXPECT_EQ(refusal({"sd"}),
            "error: sd/unet/diffusion_pytorch_model.safetensors.index.fp16.json: names the file 'part.1.safetensors' with " +
                std::to_string(all.size() / 2) + " tensors, which does not exist\n");
  EXPECT_EQ(refusal({"sd", "--set", "variant=bf16"}), "error: sd/vae: has no weights of variant 'bf16'\n");
}

TEST_F(Import, WhatItCannotBeIsSaidByFileAndKey) {
  EXPECT_EQ(refusal({"sd", "--set", "varant=fp16"}),
            "error: varant=fp16: a diffusers directory has nothing of that name to be said; did you mean 'variant'?\n");
  change("sd/scheduler/scheduler_config.json", "\"scaled_linear\"", "\"laplace\"");
  EXPECT_EQ(refusal({"sd"}),
            "error: sd/scheduler/scheduler_config.json: beta_schedule is \"laplace\"; a scheduler of brume supports linear, "
            "scaled_linear, squaredcos_cap_v2, sigmoid and exp only\n");
  change("sd/model_index.json", "DDIMScheduler", "KarrasVeScheduler");
  EXPECT_NE(refusal({"sd"}).find("sd/scheduler/scheduler_config.json: no scheduler of brume stands for _class_name 'KarrasVeScheduler'; "
                                 "those that are imported: DDPMScheduler, "),
            std::string::npos);
  change("sd/model_index.json", "UNet2DConditionModel", "UNet3DConditionModel");
  EXPECT_EQ(refusal({"sd"}),
            "error: sd/model_index.json: unet is of class UNet3DConditionModel; what brume imports there: UNet2DModel, "
            "UNet2DConditionModel\n");
  change("sd/model_index.json", "\"unet\"", "\"movq\"");
  change("sd/model_index.json", "StableDiffusionPipeline", "KandinskyPipeline");
  EXPECT_EQ(refusal({"sd"}),
            "error: sd/model_index.json: unet of this KandinskyPipeline is missing; what brume imports there: UNet2DModel, "
            "UNet2DConditionModel\n");
  change("ddpm/unet/config.json", "\"sample_size\": 16", "\"sample_size\": [16, 16], \"an_old_key\": -Infinity");
  EXPECT_EQ(at({"import", "ddpm", "-o", "infinite.safetensors"}).code, 0);
}

// All of them: what is expected, what is found, what is near.
TEST_F(Import, TensorsThatDoNotFit) {
  change("ddpm/unet/config.json", "\"layers_per_block\": 1", "\"layers_per_block\": 2");
  const std::string missing = refusal({"ddpm"});
  EXPECT_NE(missing.find("error: ddpm: lacks the tensor 'network.input_blocks.2.0.in_layers.0.weight' [32]"), std::string::npos) << missing;
  fs::remove_all(path("ddpm"));
  fs::copy(ref_path("pipe/tiny_ddpm"), path("ddpm"), fs::copy_options::recursive);
  NamedTensors all = load_tensors(path("ddpm/unet/diffusion_pytorch_model.safetensors").string());
  for (NamedTensor& t : all)
    if (t.name == "conv_in.bias") t.tensor = t.tensor.narrow(0, 0, 16);
  fs::remove(path("ddpm/unet/diffusion_pytorch_model.safetensors"));
  write_safetensors(path("ddpm/unet/diffusion_pytorch_model.safetensors").string(), all);
  EXPECT_EQ(refusal({"ddpm"}), "error: ddpm: tensor 'network.input_blocks.0.0.bias' has shape [16], the model's has [32]\n");
  EXPECT_EQ(at({"sample", "ddpm", "-n", "1", "--steps", "2", "-o", "o.png"}).err,
            "error: ddpm: tensor 'network.input_blocks.0.0.bias' has shape [16], the model's has [32]\n");
}

TEST_F(Import, PartsOfADirectory) {
  EXPECT_EQ(at({"import", "ddpm/unet", "-o", "unet.safetensors"}).code, 0);
  EXPECT_EQ(at({"sample", "unet.safetensors", "-n", "1", "--steps", "2", "-o", "o.png"}).code, 0);
  EXPECT_EQ(at({"import", "sd/vae", "-o", "vae.safetensors"}).code, 0);
  EXPECT_EQ(at({"sample", "sd/vae", "-o", "o.png"}).err,
            "error: sd/vae: is an autoencoder, not a diffusion model; a model is trained on top of it with model.autoencoder: {type: "
            "checkpoint, path: sd/vae}\n");
  EXPECT_EQ(refusal({"sd/unet"}),
            "error: sd/unet: is a UNet2DConditionModel alone; its text_encoder, tokenizer and scheduler are needed as well: import the "
            "directory with model_index.json\n");
  EXPECT_NE(refusal({"sd/tokenizer"}).find("it holds no model_index.json and no config.json of a component"), std::string::npos);
}

// Nine channels: a mask and a masked image with the latent. If their weights are zero it makes what the four channels make of the
// same noise; so it takes the mask itself, and nothing is blended. PNDM, as the published ones have it.
TEST_F(Import, AnInpaintingModel) {
  change("sd/model_index.json", "DDIMScheduler", "PNDMScheduler");
  change("sd/scheduler/scheduler_config.json", "\"DDIMScheduler\"", "\"PNDMScheduler\", \"skip_prk_steps\": true");
  fs::copy(path("sd"), path("inpaint"), fs::copy_options::recursive);
  change("inpaint/unet/config.json", "\"in_channels\": 4", "\"in_channels\": 9");
  const std::string weights = path("inpaint/unet/diffusion_pytorch_model.safetensors").string();
  const auto write = [&](double extra) {
    NamedTensors all = load_tensors(path("sd/unet/diffusion_pytorch_model.safetensors").string());
    for (NamedTensor& t : all)
      if (t.name == "conv_in.weight") t.tensor = at::cat({t.tensor, at::ones({t.tensor.size(0), 5, 3, 3}) * extra}, 1);
    fs::remove(weights);
    write_safetensors(weights, all);
  };
  write_png(path("image.png").string(), Image(32, 32, 3, 200));
  write_png(path("mask.png").string(), Image(32, 32, 1, 255));
  const auto made = [&](const std::string& source, std::vector<std::string> more) {
    std::vector<std::string> words{"sample", source, "--prompt", "a horse", "--steps", "4", "--precision", "fp32", "-o", "out.png"};
    words.insert(words.end(), more.begin(), more.end());
    const Finished done = at(words);
    EXPECT_EQ(done.code, 0) << done.err;
    return read_image(path("out.png").string());
  };
  write(0);
  const Image plain = made("sd", {});
  EXPECT_EQ(made("inpaint", {"--image", "image.png", "--mask", "mask.png"}), plain);
  write(0.3);
  const Image filled = made("inpaint", {"--image", "image.png", "--mask", "mask.png"});
  EXPECT_NE(filled, plain);
  EXPECT_EQ(at({"import", "inpaint", "-o", "model.safetensors"}).code, 0);
  EXPECT_EQ(made("model.safetensors", {"--image", "image.png", "--mask", "mask.png"}), filled);
  EXPECT_EQ(at({"export", "model.safetensors", "--to", "diffusers", "back"}).code, 0);
  EXPECT_EQ(made("back", {"--image", "image.png", "--mask", "mask.png"}), filled);
  EXPECT_EQ(at({"sample", "inpaint", "--prompt", "a horse", "--image", "image.png", "-o", "out.png"}).err,
            "error: this model fills in what a mask leaves open (conditioner: concat_image), and none is given\n");
}

TEST_F(Import, ATinyAutoencoder) {
  BRUME_NEED_REF("../weights/taef2/taef2_encoder.pth");
  for (const char* half : {"encoder.pth", "decoder.pth"}) {
    const Finished done =
        at({"import", ref_path("../weights/taef2/taef2_" + std::string(half)).string(), "-o", "tiny.safetensors", "--overwrite"});
    ASSERT_EQ(done.code, 0) << done.err;
    EXPECT_NE(done.out.find("tiny autoencoder (TAESD)"), std::string::npos);
  }
  fs::copy(ref_path("../weights/taef2/taef2_encoder.pth"), path("alone_encoder.pth"));
  EXPECT_EQ(
      refusal({"alone_encoder.pth"}),
      "error: alone_encoder.pth: is the encoder of a tiny autoencoder; its decoder is looked for in alone_decoder.pth, which does not "
      "exist\n");
}

// What a disk or the memory cannot do is no bug of the program.
TEST(ImportLimits, DisksAndMemoryHaveTheirs) {
  const TempFolder folder;
  fs::create_directory(folder.path() / "loop");
  fs::create_symlink("config.json", folder.path() / "loop/config.json");
  Finished done = run_brume({"import", "loop", "-o", "a.safetensors"}, {folder.path()});
  EXPECT_EQ(done.code, 2);
  EXPECT_EQ(done.err, "error: loop/config.json: Too many levels of symbolic links\n");
  folder.file("m.yaml",
              "model: {image: {height: 16, width: 16}, network: {type: unet, channels: 40000000}}\n"
              "train: {data: {type: shapes}, batch: 2, steps: 1}\n");
  done = run_brume({"train", "m.yaml", "--out", "run"}, {folder.path()});
  EXPECT_EQ(done.code, 2);
  EXPECT_NE(done.err.find("error: there is not enough memory for "), std::string::npos) << done.err;
  EXPECT_NE(done.err.find(" bytes: a smaller model, image or batch needs less\n"), std::string::npos) << done.err;
}

}  // namespace
}  // namespace brume::test
