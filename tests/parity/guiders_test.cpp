// Parity with the guiders of diffusers and ComfyUI (shared/refs3/guidance.json): what they make of given estimates, step by step, in
// float64. The formulas are linear or act on a quantity q; a guidance of brume receives q as x0, noise or velocity.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <map>

#include "brume/core/guidance.h"
#include "brume/core/run_memory.h"
#include "support/exact_waves.h"
#include "support/models.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "../refs3/guidance.json";
constexpr double sigma = 1;  // s = 1/2: velocity = (x / 2 - D) / (1/2)

enum class Quantity { x0, noise, velocity };

/// What a case is in brume; empty: it has another test, or none.
struct Plan {
  std::string guidance{};
  Quantity quantity = Quantity::x0;
  bool one_image = false;  ///< numbers over the whole batch there
};

std::string number(const json& o, const char* key) { return o[key].dump(); }

/// ", KEY: {shape: half_cosine, ...}" of "Half Cosine Down"; "" of "Constant".
std::string curve(const std::string& key, const std::string& mode, const std::string& minimum, const std::string& power) {
  if (mode == "Constant") return "";
  const std::string shape = mode.substr(0, mode.rfind(' ')), way = mode.substr(mode.rfind(' ') + 1);
  return fmt::format(", {}: {{shape: {}, direction: {}, minimum: {}, power: {}}}", key,
                     shape == "Half Cosine" ? "half_cosine"
                     : shape == "Cosine"    ? "cosine"
                     : shape == "Linear"    ? "linear"
                                            : "power",
                     way == "Up" ? "up" : "down", minimum, power);
}

Plan plan_of(const json& c) {
  const std::string id = c["id"], name = id.substr(0, id.find('/'));
  const json& o = c["options"];
  const auto get = [&](const char* key, const char* otherwise) { return o.contains(key) ? o[key].dump() : std::string(otherwise); };
  const std::string scale = get("guidance_scale", "7.5");
  if (name == "apg")
    return {fmt::format("{{type: apg, scale: {}, eta: {}, norm: {}, momentum: {}}}", scale, get("eta", "1"),
                        get("adaptive_projected_guidance_rescale", "null"), get("adaptive_projected_guidance_momentum", "0"))};
  if (name == "apg_mix")
    return {fmt::format("{{type: apg, cfg_scale: {}, scale: {}, eta: {}, norm: {}, momentum: {}, start_step: {}}}", scale,
                        number(o, "adaptive_projected_guidance_scale"), number(o, "eta"), number(o, "adaptive_projected_guidance_rescale"),
                        number(o, "adaptive_projected_guidance_momentum"),
                        o["adaptive_projected_guidance_start_step"].get<int64_t>() + 1)};  // the last step of cfg
  if (name == "apg_comfy")
    return {fmt::format("{{type: apg, from: condition, scale: {}, eta: {}, norm: {}, momentum: {}}}", o["cond_scale"].get<double>() + 1,
                        number(o, "eta"), number(o, "norm_threshold"), number(o, "momentum"))};
  if (name == "cfg_zero_star")
    return {fmt::format("{{type: cfg_zero_star, scale: {}, zero_init_steps: {}}}", scale, get("zero_init_steps", "1")), Quantity::velocity};
  if (name == "tcfg") return {fmt::format("{{type: tcfg, scale: {}}}", scale), Quantity::noise};
  if (name == "tcfg_comfy") return {"{type: tcfg, scale: 0}"};
  if (name == "mambo")
    return {fmt::format("{{type: magnitude_aware, scale: {}, alpha: {}}}", scale, get("alpha", "8")), Quantity::velocity};
  if (name == "fdg")
    return {fmt::format("{{type: fdg, scales: {}, parallel_weights: {}, rescale: {}}}", o["guidance_scales"].dump(),
                        get("parallel_weights", "[]"), get("guidance_rescale", "0"))};
  if (name == "perp_neg")
    return {fmt::format("{{type: perp_neg, scale: {}, negative_scale: {}}}", number(o, "cond_scale"), number(o, "neg_scale")), Quantity::x0,
            true};
  if (name == "mimic")
    return {fmt::format("{{type: mimic, scale: {}, mimic_scale: {}, percentile: {}, spread: {}, center: {}, over: {}, phi: {}{}{}}}",
                        number(o, "cfg_scale"), number(o, "mimic_scale"), number(o, "threshold_percentile"),
                        o["variability_measure"] == "AD" ? "largest" : "std", o["scaling_startpoint"] == "ZERO" ? "zero" : "mean",
                        o["separate_feature_channels"].get<bool>() ? "channel" : "image", number(o, "interpolate_phi"),
                        curve("curve", o["cfg_mode"], number(o, "cfg_scale_min"), number(o, "sched_val")),
                        curve("mimic_curve", o["mimic_mode"], number(o, "mimic_scale_min"), number(o, "sched_val")))};
  if (name == "cfg_norm") return {fmt::format("{{type: cfg_norm, scale: {}, strength: {}}}", number(o, "scale"), number(o, "strength"))};
  if (name == "fresca")
    return {fmt::format("{{type: fresca, scale: 1, low: {}, high: {}, cutoff: {}}}", number(o, "scale_low"), number(o, "scale_high"),
                        number(o, "freq_cutoff"))};
  return {};
}

/// One of the inputs of the file at step k.
Tensor input(const std::string& name, int64_t k, at::IntArrayRef shape) {
  int64_t count = 1;
  for (const int64_t n : shape) count *= n;
  const Tensor j = at::arange(count, at::kDouble);
  const double t = double(k);
  Tensor v;
  if (name == "cond") v = (j * 0.37 + (0.5 + 0.2 * t)).sin();
  if (name == "uncond") v = (j * 0.37 + (0.3 + 0.15 * t)).sin() * 0.8 + (j * 0.61 + 0.1 * t).cos() * 0.2;
  if (name == "skip") v = (j * 0.53 + (0.2 + 0.1 * t)).cos() * 0.7 + (j * 0.37).sin() * 0.1;
  if (name == "x") v = (j * 0.29 + (0.4 + 0.1 * t)).cos() * 1.5;
  return v.view(shape);
}

/// x0 from q, and back.
Tensor converted(const Tensor& q, const Tensor& x, Quantity quantity) {
  switch (quantity) {
    case Quantity::noise: return x - q;
    case Quantity::velocity: return (x - q) * 0.5;  // s = 1/2
    case Quantity::x0: break;
  }
  return q;
}
Tensor back(const Tensor& x0, const Tensor& x, Quantity quantity) {
  return quantity == Quantity::velocity ? x - x0 * 2 : converted(x0, x, quantity);
}

/// Gives the inputs of a step, by the class of the condition: 0 with, 1 without, 2 without a negative prompt.
class GivenEstimates final : public Denoiser {
 public:
  mutable Tensor inputs[3];
  mutable Tensor context;
  Estimate denoise(const Tensor& x, double, const Condition& condition) const override {
    context = condition.context;
    if (!condition.classes.defined()) return {x, {}, {}};
    std::vector<Tensor> all;
    for (int64_t i = 0; i < x.size(0); i += inputs[0].size(0)) all.push_back(inputs[condition.classes[i].item<int64_t>()]);
    return {at::cat(all), {}, {}};
  }
};

std::shared_ptr<const Denoiser> wrapped(const std::string& yaml, std::shared_ptr<const Denoiser> inner) {
  const GuidedModel model{make<NoiseSchedule>("{type: flow, t_min: 1.0e-6}"), no_models(), make<Parameterization>("v"), {2, true}};
  return make<Guidance>(yaml)->wrap(std::move(inner), model);
}

class Guider : public testing::TestWithParam<size_t> {};

TEST_P(Guider, IsReproduced) {
  const json& c = ref_json(file)["cases"][GetParam()];
  const Plan plan = plan_of(c);
  SCOPED_TRACE(plan.guidance);
  std::vector<int64_t> shape = c["shape"];
  if (plan.one_image) shape = {1, shape[0] * shape[1], shape[2], shape[3]};
  const auto given = std::make_shared<GivenEstimates>();
  const auto denoiser = wrapped(plan.guidance, given);
  const bool three = plan.guidance.find("perp_neg") != std::string::npos;
  Condition condition, null, empty;
  condition.classes = at::arange(1, at::kLong).expand({shape[0]}) * 0;
  null.classes = condition.classes + 1;
  empty.classes = condition.classes + 2;
  if (three) null.null = std::make_shared<Condition>(empty);
  condition.null = std::make_shared<Condition>(null);
  std::vector<double> levels{sigma};  // steps at the same noise
  const auto& o = c["options"];
  for (int64_t i = 0; i < (o.contains("max_steps") ? o["max_steps"].get<int64_t>() : 20); ++i)
    levels.push_back(std::nextafter(levels.back(), 0.0));
  const RunMemory memory(per_image_noise(0, 0), levels);
  for (const json& step : c["steps"]) {
    const int64_t k = step["step"];
    const Tensor x = input("x", k, shape);
    const char* names[] = {"cond", three ? "skip" : "uncond", "uncond"};
    for (size_t i = 0; i < 3; ++i) given->inputs[i] = converted(input(names[i], k, shape), x, plan.quantity);
    const Tensor got = back(denoiser->denoise(x, levels[size_t(k)], condition).x0, x, plan.quantity);
    Closeness closeness;
    closeness.near(got, step.contains("pred") ? step["pred"] : step["out"], c["atol"], fmt::format("step {}", k));
  }
}

std::vector<size_t> cases() {
  std::vector<size_t> all;
  if (has_ref(file))
    for (size_t i = 0; i < ref_json(file)["cases"].size(); ++i)
      if (!plan_of(ref_json(file)["cases"][i]).guidance.empty()) all.push_back(i);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cases, Guider, testing::ValuesIn(cases()),
                         [](const auto& info) { return test_name(ref_json(file)["cases"][info.param]["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(Guider);

// DynThresh of sd-dynamic-thresholding scales the spread by that of the mimic scale at every step, also where the curve passes 1.
TEST(Mimic, IsContinuousWhereItsCurveIsOne) {
  const auto given = std::make_shared<GivenEstimates>();
  Condition condition, null;
  condition.classes = at::arange(1, at::kLong);
  null.classes = condition.classes + 1;
  condition.null = std::make_shared<Condition>(null);
  const std::vector<int64_t> shape{1, 3, 4, 4};
  for (size_t i = 0; i < 2; ++i) given->inputs[i] = input(i == 0 ? "cond" : "uncond", 0, shape);
  const RunMemory memory(per_image_noise(0, 0), {1, 0.5, 0});
  const auto at_minimum = [&](const char* minimum) {
    const std::string curve = fmt::format("curve: {{direction: up, minimum: {}}}", minimum);
    return wrapped(fmt::format("{{type: mimic, scale: 8, mimic_scale: 3, spread: std, {}}}", curve), given)
        ->denoise(input("x", 0, shape), 1, condition)
        .x0;
  };
  EXPECT_TRUE(at_minimum("1").allclose(at_minimum("1.000001"), 1e-4, 1e-5));
  EXPECT_FALSE(at_minimum("1").allclose(given->inputs[0], 1e-2, 1e-2)) << "not the conditional estimate";
}

/// The same tensor at every draw.
class GivenNoise final : public Noise {
 public:
  explicit GivenNoise(Tensor noise) : noise_(std::move(noise)) {}
  Tensor draw(const Tensor&, double, double) override { return noise_; }

 private:
  Tensor noise_;
};

TEST(Cads, IsReproduced) {
  BRUME_NEED_REF(file);
  for (const json& c : ref_json(file)["cases"]) {
    if (!c["id"].get<std::string>().starts_with("cads")) continue;
    const json& o = c["options"];
    const std::vector<int64_t> shape = c["shape"];
    const auto given = std::make_shared<GivenEstimates>();
    const auto schedule = make<NoiseSchedule>("{type: flow, t_min: 1.0e-6}");
    const GuidedModel model{schedule, no_models(), make<Parameterization>("v"), {0, true, true}};
    const auto denoiser =
        make<Guidance>(fmt::format("{{type: cads, tau1: {}, tau2: {}, noise_scale: {}, psi: {}, rescale: {}}}", number(o, "tau1"),
                                   number(o, "tau2"), number(o, "noise_scale"), number(o, "psi"), number(o, "rescale")))
            ->wrap(given, model);
    Condition condition;
    condition.context = input("cond", 0, shape);
    const Tensor noise = (at::arange(condition.context.numel(), at::kDouble) * 0.61 + 0.1).cos() * std::sqrt(2.0);
    const RunMemory memory(std::make_unique<GivenNoise>(noise.view(shape)));
    for (const json& step : c["steps"]) {
      const double u = step["t"], t = 1e-6 + u * (1 - 1e-6);
      denoiser->denoise(at::arange(shape[0], at::kDouble), schedule->sigma(t), condition);
      Closeness closeness;
      closeness.near(given->context, step["y"], 1e-8, fmt::format("t = {}", u));
    }
  }
}

}  // namespace
}  // namespace brume::test
