// Parity with diffusers' pipelines from their directories (shared/refs/pipe): what `brume sample DIRECTORY --precision fp32 --noise-order
// batch` computes, step by step, the network's first output and the image. `advice` in each file says how close: latents within 1e-4 of
// the largest, images in [0, 1] within 2e-4.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <fstream>

#include "brume/config/plugin_loader.h"
#include "brume/diffusion/checkpoint.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/train/options.h"
#include "brume/weights/weights_file.h"
#include "support/expect_close.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

namespace fs = std::filesystem;

/// A directory, opened and run as the program does it.
class Walk {
 public:
  Walk(const std::string& directory, int64_t steps, const std::string& cfg) {
    register_builtins(registry_);
    stored_ = open_stored(directory);
    Value root = Value::map();
    root.set("model", stored_.card.model);
    root.set("sample", stored_.card.sample);
    apply_override(root, "sample.steps", std::to_string(steps), "steps");
    apply_override(root, "sample.noise_order", "batch", "order");
    if (!cfg.empty()) apply_override(root, "sample.guidance.0.scale", cfg, "cfg");
    config_ = read_stored_configuration(registry_, root, directory, {});
    pipeline_ = std::make_unique<Pipeline>(config_.model, Compute{}, StoredWeights{directory, stored_.tensors, stored_.card.files});
  }

  void sample(uint64_t seed, const std::vector<Annotation>& images) {
    SampleRequest request;
    request.images = images;
    request.seed = seed;
    request.observer = [&](int64_t, const Step& step) {
      x.push_back(step.x), x0.push_back(step.x0), sigmas.push_back(step.sigma);
      return true;
    };
    request.ended = [&](const Tensor& latents) { end = latents; };
    image = sample_images(*pipeline_, request, config_.sample);
    sigmas.push_back(config_.sample.spacing->sigmas(*config_.model.noise, config_.sample.steps).back());
  }
  /// x after step k, in the network's frame or as x0 + sigma noise.
  Tensor after(size_t k, bool network_frame = true) const {
    if (k + 1 == x.size()) return network_frame ? end : end / signal(sigmas.back());
    return network_frame ? x[k + 1] * signal(sigmas[k + 1]) : x[k + 1];
  }
  double signal(double sigma) const { return config_.model.noise->signal(sigma); }
  /// The noise that the network sees in x at the first step, without the condition and with it.
  Tensor first_output(const std::vector<Annotation>& images) const {
    const at::NoGradGuard no_grad;
    const Condition condition = pipeline_->condition(images);
    const auto output = [&](const Condition& c) { return (x[0] - pipeline_->denoiser()->denoise(x[0], sigmas[0], c).x0) / sigmas[0]; };
    return condition.null ? at::cat({output(*condition.null), output(condition)}) : output(condition);
  }

  std::vector<Tensor> x, x0;
  std::vector<double> sigmas;
  Tensor end, image;

 private:
  Registry registry_;
  StoredModel stored_;
  Config config_;
  std::unique_ptr<Pipeline> pipeline_;
};

/// The image in [0, 1], as the pipeline hands it out.
Tensor in_unit(const Tensor& image) { return (image / 2 + 0.5).clamp(0, 1); }

class Pipe : public testing::Test {
 protected:
  void SetUp() override { BRUME_NEED_REF("pipe/tiny_sd/model_index.json"); }
  void open(const std::string& name) { wanted_ = load_tensors(ref_path("pipe/" + name + ".safetensors").string()); }
  Tensor wanted(const std::string& name) const { return *find(wanted_, name); }
  /// tiny_sd with the scheduler of a result.
  std::string with_scheduler(const std::string& result) {
    fs::copy(ref_path("pipe/tiny_sd"), folder_.path() / "model", fs::copy_options::recursive);
    const nlohmann::json& said = ref_json("pipe/" + result + ".json");
    nlohmann::json index = ref_json("pipe/tiny_sd/model_index.json");
    index["scheduler"] = {"diffusers", said.at("scheduler")};
    std::ofstream(folder_.path() / "model/model_index.json") << index.dump();
    std::ofstream(folder_.path() / "model/scheduler/scheduler_config.json") << said.at("scheduler_config").dump();
    return (folder_.path() / "model").string();
  }
  void expect_image(const Walk& run) const {
    expect_close(run.image, wanted("decoded_raw"), 1e-4, "decoded");
    expect_close(in_unit(run.image), wanted("image"), 2e-4, "image");
  }
  const std::vector<Annotation> astronaut_{{.caption = "a photograph of an astronaut riding a horse"}};
  NamedTensors wanted_;
  TempFolder folder_;
};

TEST_F(Pipe, Ddim) {
  open("tiny_sd_ddim5_cfg7.5_seed42");
  Walk run(ref_path("pipe/tiny_sd").string(), 5, "7.5");
  run.sample(42, astronaut_);
  ASSERT_EQ(run.x.size(), 5u);
  for (size_t k = 0; k < 5; ++k) expect_close(run.after(k), wanted("latents_steps")[int64_t(k)], 1e-4, fmt::format("latents {}", k));
  expect_close(run.first_output(astronaut_), wanted("unet_out_first"), 1e-4, "first output");
  expect_image(run);
}

// Its latents are x0 + sigma noise, and begin as noise of spread sigma.
TEST_F(Pipe, Euler) {
  open("tiny_sd_euler7_seed7");
  Walk run(with_scheduler("tiny_sd_euler7_seed7"), 7, "7.5");
  run.sample(7, astronaut_);
  for (size_t k = 0; k < 7; ++k) expect_close(run.after(k, false), wanted("latents_steps")[int64_t(k)], 1e-4, fmt::format("latents {}", k));
  expect_close(run.first_output(astronaut_), wanted("unet_out_first"), 1e-4, "first output");
  expect_image(run);
}

// The first step asks twice: what comes between is Euler's step, the end of the first of seven calls.
TEST_F(Pipe, Pndm) {
  open("tiny_sd_pndm6_seed7");
  Walk run(with_scheduler("tiny_sd_pndm6_seed7"), 6, "7.5");
  run.sample(7, astronaut_);
  const double ratio = run.sigmas[1] / run.sigmas[0];
  const Tensor between = (run.x0[0] + (run.x[0] - run.x0[0]) * ratio) * run.signal(run.sigmas[1]);
  expect_close(between, wanted("latents_steps")[0], 1e-4, "latents 0");
  for (size_t k = 0; k < 6; ++k)
    expect_close(run.after(k), wanted("latents_steps")[int64_t(k) + 1], 1e-4, fmt::format("latents {}", k + 1));
  expect_close(run.first_output(astronaut_), wanted("unet_out_first"), 1e-4, "first output");
  expect_image(run);
}

// diffusers' DiTPipeline guides all channels of the noise and drops the variance; its batch is [with the class; without].
TEST(DitPipe, Ddim) {
  const std::string dit = "../refs2/dit/dit_tiny_p2_sigma";
  BRUME_NEED_REF(dit + "_diffusers/model_index.json");
  const NamedTensors wanted = load_tensors(ref_path(dit + "_pipe_ddim6_cfg4_seed5.safetensors").string());
  Walk run(ref_path(dit + "_diffusers").string(), 6, "4");
  run.sample(5, {{.label = 207}, {.label = 7}});
  ASSERT_EQ(run.x.size(), 6u);
  for (size_t k = 0; k < 6; ++k)
    expect_close(run.after(k), (*find(wanted, "latents_steps"))[int64_t(k)].narrow(0, 0, 2), 1e-5, fmt::format("latents {}", k));
  expect_close(run.image, *find(wanted, "decoded_raw"), 2e-4, "decoded");
  expect_close(in_unit(run.image), *find(wanted, "image"), 2e-4, "image");
}

TEST_F(Pipe, Ddpm) {
  open("tiny_ddpm_ddpm8_seed0");
  Walk run(ref_path("pipe/tiny_ddpm").string(), 8, "");
  const std::vector<Annotation> two(2);
  run.sample(0, two);
  for (size_t k = 0; k < 8; ++k) expect_close(run.after(k), wanted("steps")[int64_t(k)], 1e-4, fmt::format("x {}", k));
  expect_close(run.first_output(two), wanted("unet_out_first"), 1e-4, "first output");
  expect_close(in_unit(run.image), wanted("image"), 2e-4, "image");
}

}  // namespace
}  // namespace brume::test
