// ControlNet against CompVis' and diffusers' (shared/refs2/controlnet, whose README gives the tolerances), and its laws: nothing added at
// strength 0, outside its steps and by zero weights; an image does not depend on its batch.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/allclose.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <thread>

#include "brume/core/control.h"
#include "brume/model.h"
#include "brume/weights/model_weights.h"
#include "brume/weights/safetensors.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string folder = "../refs2/controlnet/", one_file = folder + "cldm_tiny.safetensors";
const std::string prompt = "a photograph of an astronaut riding a horse";

NamedTensors below(const NamedTensors& all, const std::string& prefix) {
  NamedTensors some;
  for (const NamedTensor& t : all)
    if (t.name.starts_with(prefix)) some.push_back({t.name.substr(prefix.size()), t.tensor});
  return some;
}

/// The U-Net and the ControlNet of one file.
TEST(ControlNetFile, ResidualsAreThoseOfCompVis) {
  BRUME_NEED_REF(one_file);
  const at::NoGradGuard no_grad;
  const std::string path = ref_path(one_file).string();
  const NamedTensors io = load_tensors(ref_path(folder + "cldm_tiny_io.safetensors").string());
  const auto wanted = [&](const std::string& name) { return find(io, name)->to(at::kFloat); };
  const auto network = create_deferred<Network>(builtins(), parse_yaml("{type: unet, channels: 32, multipliers: [1, 2], blocks: 1, "
                                                                       "attention_resolutions: [16], heads: 4, scale_shift: false, "
                                                                       "transformer: {depth: [1]}}",
                                                                       "test"))
                           .make({.input = {4, 16, 16}, .out_channels = 4, .context_width = 24});
  load_weights(path, below(load_tensors(path), "model.diffusion_model."), network->weights());
  const auto control = make<Control>(fmt::format("{{type: controlnet, file: '{}'}}", path));
  const auto open = control->open({.network = *network, .latent = {4, 16, 16}, .context_width = 24, .ratio = 8});
  Condition condition;
  condition.context = wanted("context");
  const Tensor x = wanted("x"), t = wanted("t");
  const std::vector<Tensor> hint = open->encode(wanted("hint"));
  Taps taps;
  open->add_to(taps, {.input = x, .c_noise = t, .condition = condition, .control = hint, .mask = {}, .scale = 1});
  for (int64_t i = 0; i < 4; ++i)
    expect_close(taps.skip_residuals.at(fmt::format("input_blocks.{}", i)), wanted(fmt::format("control.{}", i)), 1e-4, "residual");
  expect_close(taps.residuals.at("middle_block"), wanted("control.4"), 1e-4, "residual of the middle");
  expect_close(network->forward(x, t, condition, nullptr, {}), wanted("out_no_control"), 1e-4, "without");
  expect_close(network->forward(x, t, condition, nullptr, taps), wanted("out"), 1e-4, "with");
}

class ControlNetRun : public testing::Test {
 protected:
  void SetUp() override {
    BRUME_NEED_REF("pipe/tiny_sd/unet/config.json");
    BRUME_NEED_REF(folder + "tiny_controlnet/config.json");
    wanted_ = load_tensors(ref_path(folder + "tiny_sd_controlnet_ddim5_s1.0_seed42.safetensors").string());
    hint_ = (folder_.path() / "hint.safetensors").string();
    write_safetensors(hint_, {{"hint", find(wanted_, "control_image.0")->to(at::kFloat).contiguous()}});
    OpenOptions o;
    o.precision = "fp32";
    model_ = std::make_unique<Model>(Model::open(ref_path("pipe/tiny_sd").string(), o));
  }
  /// The reference's run.
  ImageRequest run() const { return {.prompts = {prompt}, .seed = 42, .steps = 5, .cfg = 7.5, .noise_order = "batch"}; }
  ImageRequest controlled(const std::string& numbers = "", const std::string& file = "") const {
    ImageRequest r = run();
    r.controls = {(file.empty() ? ref_path(folder + "tiny_controlnet").string() : file) + numbers};
    r.control_images = {hint_};
    return r;
  }
  NamedTensors wanted_;
  TempFolder folder_;
  std::string hint_;
  std::unique_ptr<Model> model_;
};

TEST_F(ControlNetRun, ThePipelineIsThatOfDiffusers) {
  std::vector<Tensor> after;
  ImageRequest r = controlled();
  r.progress = [&](const SampleProgress& p) {
    if (p.step.index > 0) after.push_back(p.step.x / std::hypot(1, p.step.sigma));
    return true;
  };
  const Tensor image = model_->sample(r), steps = *find(wanted_, "latents_steps");
  ASSERT_EQ(after.size(), 4u);
  for (size_t k = 0; k < after.size(); ++k) expect_close(after[k], steps[int64_t(k)], 1e-4, fmt::format("latents {}", k));
  expect_close((image / 2 + 0.5).clamp(0, 1), *find(wanted_, "image"), 2e-4, "image");
}

TEST_F(ControlNetRun, NothingIsAddedAtStrengthZeroAndOutsideItsSteps) {
  const Tensor plain = model_->sample(run());
  EXPECT_TRUE(at::equal(model_->sample(controlled(":0")), plain));
  EXPECT_TRUE(at::equal(model_->sample(controlled(":1@0.1-0.15")), plain)) << "no step lies within";
  EXPECT_FALSE(at::equal(model_->sample(controlled(":1@0-0.4")), plain));
  EXPECT_FALSE(at::equal(model_->sample(controlled(":1@0-0.4")), model_->sample(controlled())));
}

// Where residuals are averaged over the image, diffusers adds zeros to the unconditional half of its batch.
TEST_F(ControlNetRun, AveragedResidualsAreOfTheConditionalEstimateAlone) {
  const auto copy = [&](const std::string& name) {
    const std::string file = (folder_.path() / (name + ".safetensors")).string();
    std::filesystem::copy_file(ref_path(folder + "tiny_controlnet/diffusion_pytorch_model.safetensors"), file);
    return file;
  };
  const std::string shuffle = copy("control_v11e_shuffle"), plain = copy("control"), named = copy("averaged");
  std::ofstream((folder_.path() / "averaged.yaml").string()) << "model: {params: {global_average_pooling: True}}";
  const auto sample = [&](const std::string& file, double scale) {
    ImageRequest r = file.empty() ? run() : controlled("", file);
    r.cfg = scale;
    return model_->sample(r);
  };
  const Tensor unconditional = sample("", 0);
  EXPECT_TRUE(at::equal(sample(shuffle, 0), unconditional));
  EXPECT_FALSE(at::equal(sample(plain, 0), unconditional));
  const Tensor guided = sample(shuffle, 3);
  EXPECT_FALSE(at::equal(guided, sample("", 3)));
  EXPECT_FALSE(at::equal(guided, sample(plain, 3)));
  EXPECT_TRUE(at::equal(guided, sample(named, 3)));
}

TEST_F(ControlNetRun, PromptsThatChangeAreControlledToo) {
  const std::string averaged = (folder_.path() / "averaged_shuffle.safetensors").string();
  std::filesystem::copy_file(ref_path(folder + "tiny_controlnet/diffusion_pytorch_model.safetensors"), averaged);
  for (const std::string& file : {std::string(), averaged}) {
    ImageRequest r = file.empty() ? controlled() : controlled("", file);
    r.cfg = 3, r.noise_order = "per_image", r.count = 3, r.batch = 2;
    const Tensor plain = model_->sample(r);
    r.prompt_changes = true, r.prompts = {fmt::format("[{0}|{0}]", prompt)};
    expect_close(model_->sample(r), plain, 1e-4, "a prompt that changes into itself");
    r.prompts = {fmt::format("{0} :0.5 AND {0} :0.5", prompt)};
    expect_close(model_->sample(r), plain, 1e-3, "two halves of a prompt");
    r.prompts = {fmt::format("[{}|a red house]", prompt)};
    EXPECT_FALSE(at::allclose(model_->sample(r), plain, 0, 1e-3));
  }
}

TEST_F(ControlNetRun, ZeroWeightsAddNothing) {
  NamedTensors zeros = load_tensors(ref_path(folder + "tiny_controlnet/diffusion_pytorch_model.safetensors").string());
  for (NamedTensor& t : zeros)
    if (t.name.starts_with("controlnet_down_blocks.") || t.name.starts_with("controlnet_mid_block.")) t.tensor = at::zeros_like(t.tensor);
  const std::string file = (folder_.path() / "zeros.safetensors").string();
  write_safetensors(file, zeros);
  EXPECT_TRUE(at::equal(model_->sample(controlled("", file)), model_->sample(run())));
}

TEST_F(ControlNetRun, SeveralAddUp) {
  ImageRequest halves = controlled(":0.5");
  halves.controls.push_back(halves.controls.front());
  expect_close(model_->sample(halves), model_->sample(controlled()), 1e-3, "two halves");
}

TEST_F(ControlNetRun, AnImageDependsOnItselfAlone) {
  ImageRequest r = controlled();
  r.noise_order = "per_image";
  r.count = 3;
  const Tensor all = model_->sample(r);
  r.batch = 2;
  EXPECT_TRUE(at::equal(model_->sample(r), all));
  std::vector<Tensor> made(3);
  std::vector<std::thread> threads;
  for (Tensor& t : made) threads.emplace_back([&] { t = model_->sample(r); });
  for (std::thread& t : threads) t.join();
  for (const Tensor& t : made) EXPECT_TRUE(at::equal(t, all));
}

TEST_F(ControlNetRun, MistakesAreNamed) {
  const auto message = [&](const ImageRequest& r) -> std::string {
    try {
      model_->sample(r);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  BRUME_NEED_REF(one_file);
  const std::string other = message(controlled("", ref_path(one_file).string()));
  EXPECT_NE(other.find("tokens of width 24"), other.npos) << other;
  EXPECT_NE(other.find("tokens of width 32"), other.npos) << other;
  const std::string unet = message(controlled("", ref_path("pipe/tiny_sd/unet").string()));
  EXPECT_NE(unet.find("is no ControlNet"), unet.npos) << unet;
  EXPECT_NE(unet.find("down_blocks.*"), unet.npos) << unet;
  ImageRequest none = controlled();
  none.control_images.clear();
  EXPECT_NE(message(none).find("control_images"), std::string::npos);
  EXPECT_NE(message(controlled(":much")).find("is not like"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
