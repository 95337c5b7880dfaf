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

std::vector<double> levels_of(const std::string& like, const char* noise, int64_t steps) {
  const bool flows = std::string_view(noise).find("flow") != std::string_view::npos;
  const Value spacing = *likeness(like, "--like", false, flows).sample.find("spacing");
  std::vector<double> levels = make<Spacing>(dump_yaml(spacing))->sigmas(*make<NoiseSchedule>(noise), steps);
  if (flows)
    for (double& s : levels) s /= 1 + s;
  return levels;
}

// get_sigmas() of stable-diffusion.cpp's denoiser.hpp (97d2990), which computes in single precision.
TEST(Like, LevelsOfStableDiffusionCpp) {
  const auto expect = [](const std::string& spacing, std::vector<double> wanted) {
    SCOPED_TRACE(spacing);
    const std::vector<double> got = levels_of("sdcpp:euler " + spacing, "{type: flow, shift: 3}", int64_t(wanted.size()) - 1);
    ASSERT_EQ(got.size(), wanted.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i], wanted[i], 2e-6) << i;
  };
  expect("bong_tangent", {1, 0.932238936, 0.804892182, 0.50149703, 0.134859458, 0});
  expect("lcm", {1, 0.948529363, 0.885245919, 0.805555642, 0.702127635, 0.5625, 0.363636374, 0});
  const std::vector<double> simple = levels_of("sdcpp:euler simple", "{type: flow, shift: 3}", 30);
  EXPECT_NEAR(simple[2], 0.976987481, 2e-6);
  EXPECT_NEAR(simple[3], 0.964285672, 2e-6) << "3 x 33.3 is 99.99 there and 100 in the other precision";
}

// timesteps of diffusers' schedulers (0.40) with timestep_spacing "trailing".
TEST(Like, TrailingTimesOfDiffusers) {
  const auto times = [](int64_t count, int64_t steps) {
    const auto noise = make<NoiseSchedule>("{type: linear, timesteps: " + std::to_string(count) + "}");
    std::vector<double> all;
    for (const double s : make<Spacing>("trailing")->sigmas(*noise, steps)) all.push_back(std::round(noise->timestep(s)));
    return all;
  };
  const std::vector<double> of_1000{999, 978, 957, 936, 916, 895}, of_100{99, 95, 91, 86, 82, 78, 74, 70};
  for (size_t i = 0; i < of_1000.size(); ++i) EXPECT_EQ(times(1000, 48)[i], of_1000[i]) << i;
  for (size_t i = 0; i < of_100.size(); ++i) EXPECT_EQ(times(100, 24)[i], of_100[i]) << i;
}

/// Returns what is lost by `like` in a run.
std::vector<std::string> losses(const std::string& like, const LikeRun& run) {
  return likeness(like, "--like", true, false, false, run).losses;
}
void expect_loss(const std::string& like, const LikeRun& run, const char* what) {
  const std::vector<std::string> all = losses(like, run);
  ASSERT_FALSE(all.empty()) << like;
  EXPECT_NE(all.back().find(what), std::string::npos) << like << ": " << all.back();
}

TEST(Like, LossesOnAnImage) {
  for (const char* name : {"DDIM", "PLMS", "UniPC"}) {
    const std::string like = std::string("a1111:") + name;
    expect_loss(like, {20, true}, "the noise of one level more");
    EXPECT_EQ(losses(like, {20, true}).size(), losses(like, {20, false}).size() + 1) << name;
  }
  EXPECT_TRUE(losses("a1111:Euler", {20, true}).empty());
  const LikeRun masked{.steps = 20, .masked = true};
  expect_loss("a1111", masked, "by bicubic interpolation, and rounded");
  expect_loss("comfyui", masked, "by bilinear interpolation there");
  expect_loss("sdcpp", masked, "if any of its pixels is white");
  EXPECT_TRUE(losses("diffusers", masked).empty()) << "the nearest pixel, too";
}

TEST(Like, LossesOfNoise) {
  const LikeRun noisy{.steps = 20, .adds_noise = true};
  expect_loss("comfyui:euler_ancestral", noisy, "by a second generator");
  EXPECT_EQ(losses("comfyui:dpmpp_sde", noisy), losses("comfyui:dpmpp_sde", {}));
  EXPECT_TRUE(losses("a1111:Euler a", noisy).empty());
}

TEST(Like, LossesOfSomeNumbersOfSteps) {
  const std::string ddim = "diffusers:DDIMScheduler timestep_spacing=", pndm = "diffusers:PNDMScheduler timestep_spacing=";
  const std::string euler = "diffusers:EulerDiscreteScheduler timestep_spacing=";
  const std::string plms = pndm + "trailing skip_prk_steps=true";
  expect_loss(plms, {30}, "the length of the steps");
  for (const int64_t steps : {0, 40}) EXPECT_TRUE(losses(plms, {steps}).empty()) << steps;
  for (const int64_t steps : {0, 30, 40}) EXPECT_TRUE(losses(ddim + "trailing", {steps}).empty()) << "ddim takes steps of that length";
  expect_loss(ddim + "linspace", {}, "the length of the steps");
  EXPECT_TRUE(losses(ddim + "linspace", {30}).empty());
  expect_loss(pndm + "leading", {30}, "the middle of the first three steps");
  EXPECT_TRUE(losses(pndm + "leading", {10}).empty()) << "100 times between two steps have a middle";
  EXPECT_TRUE(losses(pndm + "leading skip_prk_steps=true", {30}).empty());
  expect_loss(euler + "trailing", {61}, "one step more, of the training time -1");
  expect_loss(euler + "linspace", {1}, "the time of a run of one step");
  for (const int64_t steps : {0, 2, 30, 60}) {
    EXPECT_TRUE(losses(euler + "trailing", {steps}).empty()) << steps;
    EXPECT_TRUE(losses(euler + "linspace", {steps}).empty()) << steps;
  }
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

TEST(Like, MistakesInWhatItSetsNameIt) {
  const Value set = likeness("a1111:DPM++ 2M Karras", "--like", true).sample;
  ASSERT_TRUE(set.find("prompts") && set.find("prompts")->find("long"));
  for (const Value* v : {set.find("sampler"), set.find("noise_generator"), set.find("prompts")->find("long")})
    EXPECT_EQ(v->place.text(), "--like a1111:DPM++ 2M Karras");
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
