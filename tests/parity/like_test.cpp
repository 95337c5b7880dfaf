// Names of other programs: what they become, whether that gives their numbers, and the mistakes in them.
#include "brume/like.h"

#include <gtest/gtest.h>

#include <map>

#include "brume/config/errors.h"
#include "brume/config/yaml.h"
#include "brume/core/foreign_noise.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
#include "brume/diffusion/run_noise.h"
#include "support/exact_waves.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

std::string of(const std::string& like) { return likeness(like, "--like", true).text(); }

TEST(Like, NamesOfA1111) {
  const std::string rules =
      "noise_order: per_seed, noise_generator: cuda, prompts: {weights: true, long: chunks, emphasis: chunk_mean, comma_tokens: 20, "
      "changes: true}";
  EXPECT_EQ(of("a1111"), rules);
  EXPECT_EQ(of("a1111:DPM++ 2M Karras"), "sampler: dpmpp_2m, spacing: karras, start: sigma, timestep_rounding: exact, " + rules);
  EXPECT_EQ(of("a1111:dpm++ 2m"), of("a1111:DPM++ 2M Karras")) << "its automatic schedule";
  EXPECT_EQ(of("a1111:Euler Align Your Steps").substr(0, 40), "sampler: euler, spacing: {type: ays, inc")
      << "'Euler a' is no beginning of that";
  EXPECT_EQ(of("a1111:Euler a").substr(0, 24), "sampler: euler_ancestral");
  EXPECT_EQ(of("a1111:DPM2 Karras").substr(0, 64), "sampler: dpm_2, spacing: {type: karras, inclusive: false}, start");
  EXPECT_NE(of("a1111:DDIM").find("start: schedule"), std::string::npos);
  EXPECT_EQ(likeness("a1111", "--like", false).text(), "noise_order: per_seed, noise_generator: cuda");
  EXPECT_EQ(of("a1111:DPM++ 2M Automatic"), of("a1111:DPM++ 2M Karras"));
  EXPECT_EQ(of("a1111:Euler Automatic"), of("a1111:Euler Uniform"));
}

TEST(Like, SamplersWithASpacingOfTheirOwn) {
  EXPECT_EQ(of("a1111:DDIM Karras"), of("a1111:DDIM"));
  const Likeness fast = likeness("a1111:DPM fast Karras", "--like", true);
  EXPECT_EQ(fast.losses, std::vector<std::string>{"DPM fast has a spacing of its own there, and Karras has no effect"});
  EXPECT_TRUE(likeness("a1111:DPM fast", "--like", true).losses.empty());
}

TEST(Like, ListsOfStableDiffusionXl) {
  const std::string named = "a1111:Euler Align Your Steps";
  EXPECT_NE(likeness(named, "--like", true, false, true).text().find("model: sdxl"), std::string::npos);
  EXPECT_EQ(of(named).find("model: sdxl"), std::string::npos);
}

/// Steps that run on an image, of how many.
using OfSteps = std::pair<int64_t, int64_t>;
OfSteps run(const ImageSteps& s) { return {int64_t(double(s.steps) * s.strength), s.steps}; }

// setup_img2img_steps() of A1111's sd_samplers_common.py, of which the last t_enc + 1 sigmas are run; KSampler.set_steps() of ComfyUI's
// samplers.py; prepare_image_generation_latents() of stable-diffusion.cpp; get_timesteps() of diffusers' img2img pipelines.
TEST(Like, StepsOnAnImage) {
  EXPECT_EQ(run(steps_on_image("a1111:Euler a", 20, 0.75)), OfSteps(16, 20));
  EXPECT_EQ(run(steps_on_image("a1111", 20, 0.3)), OfSteps(7, 20));
  EXPECT_EQ(run(steps_on_image("a1111", 20, 0.96)), OfSteps(20, 20));
  EXPECT_EQ(run(steps_on_image("sdcpp:lcm", 4, 0.1)), OfSteps(1, 4));
  EXPECT_EQ(run(steps_on_image("comfyui:euler", 20, 0.75)), OfSteps(20, 26));
  EXPECT_EQ(run(steps_on_image("comfyui", 10, 0.33)), OfSteps(10, 30));
  for (const char* like : {"diffusers", ""}) EXPECT_EQ(run(steps_on_image(like, 20, 0.33)), OfSteps(6, 20));
  for (const char* like : {"a1111", "comfyui", ""}) EXPECT_EQ(run(steps_on_image(like, 20, 1)), OfSteps(20, 20));
}

TEST(Like, ASecondPassRunsAllSteps) {
  for (const char* like : {"a1111", "comfyui"}) {
    const ImageSteps s = steps_of_second_pass(like, 20, 0.3);
    EXPECT_EQ(run(steps_on_image(like, s.steps, s.strength)), OfSteps(20, 66)) << like;
  }
  EXPECT_EQ(run(steps_of_second_pass("", 20, 0.3)), OfSteps(6, 20));
}

TEST(Like, ClassesOfDiffusers) {
  EXPECT_EQ(of("diffusers:EulerDiscreteScheduler").substr(0, 15), "sampler: euler,");
  const std::string karras = of("diffusers:DPMSolverMultistepScheduler use_karras_sigmas=true");
  EXPECT_NE(karras.find("type: karras"), std::string::npos) << karras;
  EXPECT_NE(karras.find("noise_order: batch"), std::string::npos) << karras;
}

TEST(Like, UnknownNamesGetTheNearest) {
  const auto said = [](const char* like) -> std::string {
    try {
      likeness(like, "--like", true);
    } catch (const ConfigError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_NE(said("a111").find("there is no program 'a111'; did you mean 'a1111'?"), std::string::npos) << said("a111");
  EXPECT_NE(said("comfyui:dpmp_2m").find("comfyui has no sampler 'dpmp_2m'; did you mean 'dpmpp_2m'?"), std::string::npos);
  EXPECT_NE(said("a1111:DPM++ 2N Karras").find("did you mean 'DPM++ 2M Karras'?"), std::string::npos) << said("a1111:DPM++ 2N Karras");
  EXPECT_NE(said("diffusers:EulerDiscretScheduler").find("did you mean 'EulerDiscreteScheduler'?"), std::string::npos);
}

TEST(Like, EveryRowOfTheTableIsMade) {
  const auto levels = make<NoiseSchedule>("{type: scaled_linear, beta_start: 0.00085, beta_end: 0.012}");
  for (const LikeProgram& p : like_programs()) {
    for (const LikeName& s : p.samplers) {
      SCOPED_TRACE(std::string(p.name) + ": " + s.name);
      EXPECT_TRUE(make<Sampler>(s.ours));
      const Likeness like = likeness(std::string(p.name) + ":" + s.name, "--like", true);
      EXPECT_EQ(make<Spacing>(dump_yaml(*like.sample.find("spacing")))->sigmas(*levels, 10).back() < 0.05, true);
    }
    for (const LikeName& s : p.spacings)
      for (const char* ours : {s.ours, s.flow, s.sdxl})
        if (*ours != '\0') {
          EXPECT_TRUE(make<Spacing>(ours)) << s.name;
        }
  }
}

class ExactMixture final : public Denoiser {
 public:
  explicit ExactMixture(bool gauss) : gauss_(gauss) {}
  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    return {.x0 = gauss_ ? exact_gauss(x, sigma) : exact_mixture(x, sigma), .x0_uncond = {}, .variance = {}};
  }

 private:
  bool gauss_;
};

// The ends of ComfyUI's own runs at its defaults, by its names.
TEST(Like, SamplersOfComfyUiGiveItsNumbers) {
  const std::string file = "../refs3/comfy_samplers.json";
  BRUME_NEED_REF(file);
  const json& all = ref_json(file);
  int64_t compared = 0;
  for (const json& c : all["cases"]) {
    const std::string fn = c["fn"], sampler = fn.substr(fn.find('_') + 1);
    if (c["frame"] != "edm" || !c["kwargs"].empty() || c["cfg_scale"].is_number() || c.contains("start")) continue;
    if (sampler.starts_with("sa_solver")) continue;  // its interval of noise is that of a model's levels
    SCOPED_TRACE(c["id"].get<std::string>());
    const Likeness like = likeness("comfyui:" + sampler, "--like", true);
    const std::vector<double> sigmas = all["sigmas"][c["sigmas"].get<std::string>()];
    const auto schedule = make<NoiseSchedule>("edm");
    const Condition none;
    int64_t draws = 0;
    CountedWaves noise([&] { return draws++; });
    brume::Run run{none, noise, {}, schedule.get()};
    const Tensor end = make<Sampler>(dump_yaml(*like.sample.find("sampler")))
                           ->sample(ExactMixture(c["denoiser"] == "gauss"), wave(0) * sigmas.front(), sigmas, run);
    Closeness closeness;
    closeness.near(end, c["final"], 1e-7 * std::max(1.0, end.abs().max().item<double>()), "final");
    ++compared;
  }
  EXPECT_GE(compared, 9);
}

// The first numbers of torch.manual_seed(0); torch.randn(12, device="cuda"), as A1111's web UI documents its generator.
TEST(ForeignNoise, IsCudas) {
  const std::vector<double> wanted{-0.92466259, -0.42534415, -2.6438457,  0.14518388,  -0.12086647, -0.57972564,
                                   -0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497};
  const Tensor got = cuda_normal(0, 0, {12});
  for (size_t i = 0; i < wanted.size(); ++i) EXPECT_NEAR(got[int64_t(i)].item<double>(), wanted[i], 1e-6);
}

// all_seeds and all_subseeds of A1111's processing.py.
TEST(ForeignNoise, VariationsAreOfOneSeed) {
  const Tensor like = wave(0).to(at::kFloat);
  SampleOptions options;
  options.noise_order = NoiseOrder::per_seed;
  SampleRequest request;
  request.seed = 7;
  request.variation_seed = 11;
  request.variation = 0.2;
  const Tensor noise = noise_of(options, request, 0, 2)->draw(like, 1, 1), seventh = seed_noise(7, 0, false)->draw(like, 1, 1);
  EXPECT_TRUE(noise[0].equal(seventh[0]));
  EXPECT_TRUE(noise[1].equal(seventh[0]));
  const Tensor both = varied(noise, options, request, 0), last = noise_of(options, request, 1, 1)->draw(like.narrow(0, 0, 1), 1, 1);
  EXPECT_TRUE(both[1].equal(slerp(noise, seed_noise(12, 0, false)->draw(like, 1, 1), 0.2, {2})[0]));
  EXPECT_TRUE(last[0].equal(noise[1])) << "however they are batched";
  request.variation = 0;
  EXPECT_TRUE(noise_of(options, request, 0, 2)->draw(like, 1, 1)[1].equal(seed_noise(8, 0, false)->draw(like, 1, 1)[0]));
}

TEST(ForeignNoise, AnImageHasTheSeedAfterTheOneBefore) {
  const Tensor like = wave(0).to(at::kFloat);
  for (const bool cuda : {false, true}) {
    const auto pair = seed_noise(7, 0, cuda), second = seed_noise(8, 0, cuda), later = seed_noise(7, 1, cuda);
    for (int draw = 0; draw < 2; ++draw) {
      const Tensor a = pair->draw(like, 1, 1);
      EXPECT_TRUE(a[1].equal(second->draw(like.narrow(0, 0, 1), 1, 1)[0])) << draw;
      EXPECT_TRUE(a[1].equal(later->draw(like.narrow(0, 0, 1), 1, 1)[0])) << draw;
      EXPECT_FALSE(a[0].equal(a[1]));
    }
  }
}

}  // namespace
}  // namespace brume::test
