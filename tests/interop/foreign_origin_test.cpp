// What A1111's web UI and ComfyUI write into pictures.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "brume/interop/comfy_graph.h"
#include "brume/interop/infotext.h"

namespace brume::test {
namespace {

TEST(Infotext, FieldsByTheirNames) {
  const auto f = infotext_fields(
      "a cat, (sitting:1.2)\non a mat\nNegative prompt: dog,\nugly\n"
      "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.5, Seed: 18446744073709551615, Size: 512x768, Model: \"a, b: c\", "
      "Lora hashes: \"x: 1f, y: \\\"2\\\"\", Hashes: {\"model\": \"ab\"}, stray, Version: v1.9.4");
  EXPECT_EQ(f["Prompt"], "a cat, (sitting:1.2)\non a mat");
  EXPECT_EQ(f["Negative prompt"], "dog,\nugly");
  EXPECT_EQ(f["Steps"], "20");
  EXPECT_EQ(f["Sampler"], "DPM++ 2M");
  EXPECT_EQ(f["Seed"], "18446744073709551615");
  EXPECT_EQ(f["Model"], "a, b: c");
  EXPECT_EQ(f["Lora hashes"], "x: 1f, y: \"2\"");
  EXPECT_EQ(f["Version"], "v1.9.4");
  EXPECT_EQ(infotext_fields("Negative prompt: b\nSteps: 1, Sampler: Euler")["Prompt"], "");
  EXPECT_EQ(infotext_fields("Negative prompt: b\nSteps: 1, Sampler: Euler")["Negative prompt"], "b");
  EXPECT_TRUE(infotext_fields("a cat").empty());
  EXPECT_TRUE(infotext_fields("").empty());
  EXPECT_EQ(infotext_fields("a\nSteps: 2, Model: \"open")["Model"], "\"open");
}

/// A graph whose sampler is node 3; `more` are further nodes, `latent` where its latents come from.
std::string graph(const std::string& more = "", const std::string& latent = "5", const std::string& denoise = "1.0") {
  return R"({"3": {"class_type": "KSampler", "inputs": {"seed": 18446744073709551615, "steps": 20, "cfg": 7.5, "sampler_name": "dpmpp_2m",
      "scheduler": "karras", "denoise": )" +
         denoise + R"(, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": [")" + latent +
         R"(", 0]}},
      "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "sd15.safetensors"}},
      "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 512, "height": 768, "batch_size": 2}},
      "6": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0], "clip": ["11", 0]}},
      "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "ugly", "clip": ["11", 0]}},
      "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
      "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0], "filename_prefix": "x"}},
      "10": {"class_type": "LoraLoader", "inputs": {"lora_name": "a.safetensors", "strength_model": 0.8,
      "model": ["4", 0], "clip": ["4", 1]}},
      "11": {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["10", 1]}},
      "12": {"class_type": "PrimitiveString", "inputs": {"value": "a cat"}})" +
         more + "}";
}

TEST(ComfyGraph, IsReadBackwardsFromThePicture) {
  const auto run = comfy_run(graph());
  ASSERT_TRUE(run);
  EXPECT_EQ(run->model, "sd15.safetensors");
  EXPECT_EQ(run->prompt, "a cat");
  EXPECT_EQ(run->negative, "ugly");
  EXPECT_EQ(run->sampler, "dpmpp_2m");
  EXPECT_EQ(run->scheduler, "karras");
  EXPECT_EQ(run->seed, 18446744073709551615u);
  EXPECT_EQ(run->steps, 20);
  EXPECT_EQ(run->cfg, 7.5);
  EXPECT_EQ(run->width, 512);
  EXPECT_EQ(run->height, 768);
  EXPECT_EQ(run->batch, 2);
  EXPECT_EQ(run->clip_skip, 1);
  EXPECT_EQ(run->loras, std::vector<std::string>{"a.safetensors:0.8"});
  EXPECT_EQ(run->left_out, std::vector<std::string>{});
  EXPECT_FALSE(run->from_image || run->again);
}

TEST(ComfyGraph, ASecondRunOnEnlargedLatents) {
  const std::string more = R"(, "20": {"class_type": "LatentUpscaleBy", "inputs": {"samples": ["21", 0], "scale_by": 1.5}},
      "21": {"class_type": "KSampler", "inputs": {"seed": 5, "steps": 30, "cfg": 6, "sampler_name": "dpmpp_2m", "scheduler": "karras",
      "denoise": 1, "model": ["10", 0], "positive": ["6", 0], "negative": ["7", 0], "latent_image": ["5", 0]}})";
  const auto run = comfy_run(graph(more, "20", "0.4"));
  ASSERT_TRUE(run && run->again);
  EXPECT_EQ(run->steps, 30) << "the first run is the picture's, the second is laid over it";
  EXPECT_EQ(run->seed, 5u);
  EXPECT_EQ(run->again->factor, 1.5);
  EXPECT_EQ(run->again->denoise, 0.4);
  EXPECT_EQ(run->width, 512);
  EXPECT_EQ(run->loras.size(), 1u);
}

TEST(ComfyGraph, WhatHasNoPlaceIsNamed) {
  const auto image = comfy_run(graph(R"(, "20": {"class_type": "VAEEncode", "inputs": {"pixels": ["22", 0]}})", "20", "0.6"));
  ASSERT_TRUE(image);
  EXPECT_TRUE(image->from_image);
  EXPECT_EQ(image->denoise, 0.6);
  std::string controlled =
      graph(R"(, "30": {"class_type": "ControlNetApplyAdvanced", "inputs": {"positive": ["6", 0], "negative": ["7", 0], "strength": 1}})");
  const std::string before = R"("positive": ["6", 0])";
  controlled.replace(controlled.find(before), before.size(), R"("positive": ["30", 0])");
  const auto with = comfy_run(controlled);
  ASSERT_TRUE(with);
  EXPECT_EQ(with->prompt, "a cat");
  EXPECT_EQ(with->left_out, std::vector<std::string>{"the node ControlNetApplyAdvanced (30)"});
}

TEST(ComfyGraph, APartOfTheStepsIsNamed) {
  const auto advanced = [](const char* words) {
    return comfy_run(std::string(R"({"3": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 9, "steps": 25, "cfg": 7, )") +
                     words + R"("sampler_name": "euler", "scheduler": "normal"}}})");
  };
  const auto whole =
      advanced(R"("add_noise": "enable", "start_at_step": 0, "end_at_step": 10000, "return_with_leftover_noise": "enable", )");
  ASSERT_TRUE(whole);
  EXPECT_EQ(whole->seed, 9u);
  EXPECT_TRUE(whole->left_out.empty());
  const auto second = advanced(R"("add_noise": "disable", "start_at_step": 20, "end_at_step": 25, )");
  ASSERT_TRUE(second);
  EXPECT_EQ(second->left_out, (std::vector<std::string>{"that the node 3 runs the steps from 20 to 25 alone",
                                                        "that the node 3 adds no noise to its latents"}));
}

/// SDXL's base and refiner: two nodes that share the steps. `base`, `refiner`: their steps and noise.
std::string shared_steps(const std::string& base, const std::string& refiner, const std::string& model = "refiner.safetensors") {
  const std::string both = R"("cfg": 8, "sampler_name": "euler", "scheduler": "normal", "positive": ["6", 0], )";
  return R"({"10": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 9, "latent_image": ["5", 0], "model": ["4", 0], )" + both +
         base +
         R"(}}, "11": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 0, "latent_image": ["10", 0], "model": ["12", 0], )" +
         both + refiner + R"(}}, "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "base.safetensors"}},
      "12": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": ")" +
         model + R"("}},
      "5": {"class_type": "EmptyLatentImage", "inputs": {"width": 1024, "height": 768}},
      "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat"}}})";
}

TEST(ComfyGraph, ARefinerTakesTheLastSteps) {
  const char* base = R"("add_noise": "enable", "steps": 25, "start_at_step": 0, "end_at_step": 20, "return_with_leftover_noise": "enable")";
  const char* rest = R"("add_noise": "disable", "steps": 25, "start_at_step": 20, "end_at_step": 10000)";
  const auto run = comfy_run(shared_steps(base, rest));
  ASSERT_TRUE(run && run->refined);
  EXPECT_EQ(run->model, "base.safetensors");
  EXPECT_EQ(run->refined->model, "refiner.safetensors");
  EXPECT_EQ(run->refined->from, 0.8);
  EXPECT_EQ(run->seed, 9u);
  EXPECT_EQ(run->width, 1024);
  EXPECT_EQ(run->left_out, std::vector<std::string>{});
  const auto one = comfy_run(shared_steps(base, rest, "base.safetensors"));
  ASSERT_TRUE(one);
  EXPECT_FALSE(one->refined) << "the same model runs all of the steps";
  EXPECT_EQ(one->left_out, std::vector<std::string>{});
  const auto apart = comfy_run(shared_steps(base, R"("add_noise": "enable", "steps": 25, "start_at_step": 20, "end_at_step": 25)"));
  ASSERT_TRUE(apart);
  EXPECT_FALSE(apart->refined);
  EXPECT_EQ(apart->left_out,
            (std::vector<std::string>{"that the node 10 runs the steps from 0 to 20 alone", "a second run of 25 steps at denoise 1"}));
}

TEST(ComfyGraph, StepsOnAnImage) {
  const auto run = comfy_run(R"({"3": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 9, "steps": 20, "add_noise": "enable",
      "start_at_step": 7, "end_at_step": 10000, "latent_image": ["5", 0]}}, "5": {"class_type": "VAEEncode", "inputs": {}}})");
  ASSERT_TRUE(run);
  EXPECT_EQ(run->first_step, 7);
  EXPECT_TRUE(run->left_out.empty());
}

TEST(ComfyGraph, OthersAreNone) {
  for (const char* text : {"", "[]", "{}", "{\"3\": 5}", R"({"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}})"})
    EXPECT_FALSE(comfy_run(text)) << text;
  const std::string circle =
      R"({"3": {"class_type": "KSampler", "inputs": {"latent_image": ["4", 0], "positive": ["4", 0], "model": ["4", 0],
      "seed": ["4", 0]}}, "4": {"class_type": "X", "inputs": {"samples": ["4", 0], "conditioning": ["4", 0], "model": ["4", 0], "value":
      ["4", 0]}}, "5": {"class_type": "SaveImage", "inputs": {"images": ["3", 0]}}})";
  const auto run = comfy_run(circle);
  ASSERT_TRUE(run);
  EXPECT_FALSE(run->seed);
  EXPECT_EQ(run->left_out, std::vector<std::string>{"the node X (4)"});
}

}  // namespace
}  // namespace brume::test
