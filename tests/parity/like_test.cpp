// Names of other programs: what they become, whether that gives their numbers, and the mistakes in them.
#include "brume/like.h"

#include <gtest/gtest.h>

#include <map>

#include "brume/config/errors.h"
#include "brume/config/yaml.h"
#include "brume/core/foreign_noise.h"
#include "brume/core/sampler.h"
#include "brume/core/spacing.h"
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
  EXPECT_EQ(of("a1111:Euler Align Your Steps").substr(0, 29), "sampler: euler, spacing: ays,") << "'Euler a' is no beginning of that";
  EXPECT_EQ(of("a1111:Euler a").substr(0, 24), "sampler: euler_ancestral");
  EXPECT_EQ(of("a1111:DPM2 Karras").substr(0, 64), "sampler: dpm_2, spacing: {type: karras, inclusive: false}, start");
  EXPECT_NE(of("a1111:DDIM").find("start: schedule"), std::string::npos);
  EXPECT_EQ(likeness("a1111", "--like", false).text(), "noise_order: per_seed, noise_generator: cuda");
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
    for (const LikeName& s : p.spacings) EXPECT_TRUE(make<Spacing>(s.ours)) << s.name;
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
