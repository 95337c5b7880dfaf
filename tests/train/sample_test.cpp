// The start of a run: from noise, from an image, and under a mask; and the models it finds in addition to its own.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <cmath>

#include "brume/core/noise.h"
#include "brume/diffusion/model_files.h"
#include "brume/diffusion/sampling_run.h"
#include "brume/diffusion/stability.h"
#include "classifier_support.h"

namespace brume::test {
namespace {

/// A model without weights, whose samples are images of 4 x 6 grey pixels.
class Start : public testing::Test {
 protected:
  Start()
      : read_(
            "model: {image: {channels: 1, height: 4, width: 6}, network: gaussian, parameterization: x0, noise: cosine}\n"
            "sample: {steps: 10}\n"),
        pipeline_(read_.config.model, Compute{}) {
    request_.images.resize(3);
    request_.seed = 5;
    request_.batch = 2;
    image_ = at::linspace(-1, 1, 24).view({1, 1, 4, 6});
  }
  /// x at the first step, every batch's.
  Tensor started(SampleOptions options) {
    std::vector<Tensor> first;
    request_.observer = [&](int64_t, const Step& step) {
      if (step.index == 0) first.push_back(step.x), sigma_ = step.sigma, steps_ = step.count;
      return true;
    };
    made_ = sample_images(pipeline_, request_, options);
    return at::cat(first);
  }
  Tensor started() { return started(read_.config.sample); }
  Tensor noise() const { return per_image_noise(5, 0)->draw(at::zeros({3, 1, 4, 6}), 1, 1); }
  std::string refused() {
    return error_of([&] { started(); });
  }

  ReadConfig read_;
  Pipeline pipeline_;
  SampleRequest request_;
  Tensor image_, made_;
  double sigma_ = 0;
  int64_t steps_ = 0;
};

TEST_F(Start, FromNoise) {
  EXPECT_TRUE(started().allclose(noise() * std::hypot(1, sigma_)));
  EXPECT_EQ(steps_, 10);
}

TEST_F(Start, ImagesAreToldAsTheyCome) {
  std::vector<Tensor> made;
  std::vector<int64_t> firsts;
  request_.made = [&](int64_t first, const Tensor& images) { firsts.push_back(first), made.push_back(images); };
  started();
  EXPECT_EQ(firsts, (std::vector<int64_t>{0, 2}));
  EXPECT_TRUE(at::cat(made).equal(made_));
}

TEST_F(Start, FromAnImageAtItsStrength) {
  const std::vector<double> sigmas = read_.config.sample.spacing->sigmas(*read_.config.model.noise, 10);
  request_.image = image_;
  for (const auto& [strength, steps] : {std::pair{1.0, 10}, {0.6, 6}, {0.65, 6}, {0.1, 1}}) {
    request_.strength = strength;
    const Tensor x = started();
    EXPECT_EQ(steps_, steps) << strength;
    EXPECT_EQ(sigma_, sigmas[size_t(10 - steps)]) << strength;
    EXPECT_TRUE(x.allclose(image_ + noise() * sigma_)) << strength;
  }
  request_.image = at::cat({image_, image_ * 0, -image_});
  EXPECT_TRUE(started().allclose(request_.image + noise() * sigma_)) << "an image each";
}

TEST_F(Start, UnderAMask) {
  SampleOptions options = read_.config.sample;
  options.guidance = {make<Guidance>("inpaint")};
  request_.image = image_;
  request_.mask = at::zeros({1, 1, 4, 6});
  request_.mask.narrow(3, 2, 3).fill_(1);
  request_.mask.narrow(3, 5, 1).fill_(0.25);
  const Tensor& m = request_.mask;
  const Tensor x = started(options);
  EXPECT_TRUE(x.allclose(m * noise() * std::hypot(1, sigma_) + (1 - m) * (image_ + noise() * sigma_)));
  EXPECT_TRUE(made_.narrow(3, 0, 2).equal(image_.narrow(3, 0, 2).expand({3, -1, -1, -1})));
  request_.strength = 0.5;
  EXPECT_TRUE(started(options).allclose(image_ + noise() * sigma_));
}

// A run that ends at the schedule's smallest sigma leaves noise in what was generated alone.
TEST_F(Start, WhatIsKnownEndsClean) {
  SampleOptions options = read_.config.sample;
  options.guidance = {make<Guidance>("inpaint")};
  options.spacing = make<Spacing>("{type: trailing, final: minimum}");
  request_.image = image_;
  request_.mask = at::zeros({1, 1, 4, 6});
  request_.mask.narrow(3, 3, 3).fill_(1);
  started(options);
  EXPECT_TRUE(made_.narrow(3, 0, 3).equal(image_.narrow(3, 0, 3).expand({3, -1, -1, -1})));
}

// Levels that coincide are one step, whatever the sampler divides by.
TEST_F(Start, EqualLevelsAreOneStep) {
  class Twice final : public Spacing {
   public:
    std::vector<double> sigmas(const NoiseSchedule&, int64_t) const override { return {9, 9, 9, 2, 2, 0.5, 0}; }
  };
  SampleOptions options = read_.config.sample;
  options.spacing = std::make_shared<Twice>();
  for (const char* sampler : {"lms", "dpmpp_multistep", "unipc", "deis", "sa_solver", "ipndm"}) {
    options.sampler = make<Sampler>(sampler);
    started(options);
    EXPECT_EQ(steps_, 3) << sampler;
    EXPECT_TRUE(made_.isfinite().all().item<bool>()) << sampler;
  }
}

TEST_F(Start, WhoMadeTheNaN) {
  class Broken final : public Sampler {
   public:
    explicit Broken(bool solver) : solver_(solver) {}
    Tensor sample(const Denoiser& d, Tensor x, const std::vector<double>& sigmas, brume::Run& run) const override {
      const Tensor wrong = solver_ ? x * NAN : x;
      const Tensor x0 = d.denoise(wrong, sigmas[0], run.condition).x0;
      run.report({0, 1, sigmas[0], wrong, solver_ ? x0 : x0 * NAN});
      return x;
    }
    SamplerTraits traits() const override { return {}; }

   private:
    bool solver_;
  };
  SampleOptions options = read_.config.sample;
  const auto said = [&](bool solver) {
    options.sampler = std::make_shared<Broken>(solver);
    return error_of([&] { started(options); });
  };
  EXPECT_NE(said(true).find("the sampler came here with NaN or Inf; the network did not make it"), std::string::npos) << said(true);
  EXPECT_NE(said(false).find("the estimate of the image, from the network or a guidance, is NaN or Inf"), std::string::npos);
}

// What `brume check` says of errors that a run multiplies.
TEST(Stability, WarnsOfWhatDiverges) {
  const auto said = [](const std::string& model, const std::string& sample) {
    const ReadConfig read(
        fmt::format("model: {{image: {{channels: 1, height: 4, width: 4}}, network: gaussian, {}}}\nsample: {{{}}}\n", model, sample));
    return divergence_warning(read.config.model, read.config.sample).value_or("");
  };
  const std::string zero = "noise: {type: zero_terminal_snr, schedule: scaled_linear}, parameterization: ";
  EXPECT_TRUE(said(zero + "eps", "sampler: ddim, steps: 20").starts_with("model.parameterization: at the first level, sigma = 1e+06"));
  EXPECT_EQ(said(zero + "v", "sampler: ddim, steps: 20"), "");
  EXPECT_EQ(said(zero + "eps", "sampler: ddim, steps: 20, guidance: [clip]"), "");
  EXPECT_TRUE(said(zero + "v", "sampler: heun, steps: 10").starts_with("sample.sampler: errors of 0.1 %"));
  EXPECT_EQ(said(zero + "v", "sampler: dpmpp_multistep, steps: 20"), "");
  for (const char* sampler : {"ddim", "heun", "dpmpp_multistep", "unipc", "lms", "plms", "ddpm", "sa_solver", "dpm_2"})
    EXPECT_EQ(said("noise: scaled_linear, parameterization: eps", fmt::format("sampler: {}, steps: 30", sampler)), "") << sampler;
}

TEST_F(Start, WhatDoesNotFit) {
  request_.mask = at::zeros({1, 1, 4, 6});
  EXPECT_EQ(refused(), "a mask needs an image it is laid over");
  request_.image = at::zeros({2, 1, 4, 6});
  EXPECT_EQ(refused(), "the image has shape [2, 1, 4, 6], expected [3, 1, 4, 6]");
  request_.image = image_.narrow(3, 0, 5);
  EXPECT_EQ(refused(), "the image has shape [1, 1, 4, 5], expected [1, 1, 4, 6]");
  request_.image = image_;
  request_.mask = at::zeros({1, 1, 6, 4});
  EXPECT_EQ(refused(), "the mask has shape [1, 1, 6, 4], expected [1, 1, 4, 6]");
  request_.mask = Tensor();
  request_.strength = 1.5;
  EXPECT_EQ(refused(), "strength = 1.5 is outside (0, 1]");
  request_.strength = 0.05;
  EXPECT_EQ(refused(), "strength 0.05 of 10 steps leaves no step to run; at least 0.1");
  request_.image = Tensor();
  request_.strength = 0.5;
  EXPECT_EQ(refused(), "a strength needs an image to start from");
}

TEST_F(Start, OtherModelsAreOpenedOnce) {
  const TempFolder folder;
  train_into(tiny_classifier(1, "  noise: {schedule: cosine}\n"), folder.path() / "run");
  const ModelFiles models(builtins(), Compute{}, folder.path());
  const auto classifier = models.classifier("run/model.safetensors");
  EXPECT_EQ(classifier, models.classifier("run/../run/model.safetensors"));
  EXPECT_EQ(classifier->classes().size(), 5u);
  EXPECT_EQ(classifier->shape().text(), "1x16x16");
  const Tensor x = at::full({2, 1, 16, 16}, 0.5);
  Tensor sum = at::zeros({2});
  for (int64_t c = 0; c < 5; ++c) sum = sum + classifier->log_probability(x, 0.7, at::full({2}, c, at::kLong)).exp();
  EXPECT_TRUE(sum.allclose(at::full({2}, 1.0f)));
  EXPECT_EQ(without(error_of([&] { models.model("run/model.safetensors"); }), folder),
            "run/model.safetensors: is a classifier, not a diffusion model; `brume evaluate` is for it");
  EXPECT_EQ(error_of([&] { no_models().classifier("c"); }), "no other model can be opened here, and 'c' is asked for");
}

TEST(Sides, OneMessageNamesASizeThatWorks) {
  const auto said = [](const std::string& resampling, int64_t height, int64_t width) {
    const ReadConfig read(
        "model: {image: {channels: 1, height: 8, width: 8}, "
        "network: {type: unet, channels: 8, multipliers: [1, 1, 1], blocks: 1, groups: 4, resampling: " +
        resampling + "}}\nsample: {steps: 1}\n");
    const Pipeline pipeline(read.config.model, Compute{});
    SampleRequest request;
    request.images.resize(1);
    request.height = height, request.width = width;
    return error_of([&] {
      EXPECT_EQ(sample_images(pipeline, request, read.config.sample).sizes(), at::IntArrayRef({1, 1, height, width}));
    });
  };
  EXPECT_EQ(said("residual", 9, 8), "the network takes images whose sides are multiples of 4, and 9 by 8 are not; the nearest is 8 by 8");
  EXPECT_EQ(said("residual", 12, 8), "no error");
  EXPECT_EQ(said("conv", 9, 7), "no error");
}

}  // namespace
}  // namespace brume::test
