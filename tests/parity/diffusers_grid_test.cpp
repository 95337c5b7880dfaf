// The steps of diffusers' DDPM, DDIM and DDIM inverse schedulers written down a second time, in alphas_cumprod and float64, as in
// its sources (0.40). First they are held against the recorded trajectories, then brume against them, over configurations that
// nobody recorded.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/cos.h>
#include <ATen/ops/log.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/quantile.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "support/parity_diffusers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

class Peer {
 public:
  explicit Peer(const DiffusersRequest& r) : r_(r) {
    const std::string schedule = r.config["beta_schedule"];
    const double first = r.config["beta_start"], last = r.config["beta_end"];
    const auto bar = [&](double i) { return std::pow(std::cos((i / double(count_) + 0.008) / 1.008 * M_PI / 2), 2); };
    double product = 1;
    for (int64_t i = 0; i < count_; ++i) {
      const double u = double(i) / double(count_ - 1);
      double beta = first + u * (last - first);
      if (schedule == "scaled_linear") beta = std::pow(std::sqrt(first) + u * (std::sqrt(last) - std::sqrt(first)), 2);
      if (schedule == "sigmoid") beta = first + (last - first) / (1 + std::exp(6 - 12 * u));
      if (schedule == "squaredcos_cap_v2") beta = std::min(1 - bar(double(i) + 1) / bar(double(i)), 0.999);
      alphas_.push_back(product *= 1 - beta);
    }
  }

  Tensor run(const ScriptedNetwork& network, Tensor x, const std::vector<double>& times, Noise& noise) const {
    const bool inverse = r_.scheduler == "DDIMInverseScheduler", ddpm = r_.scheduler.starts_with("DDPM");
    const int64_t stride = count_ / int64_t(times.size());
    for (size_t i = size_t(r_.start); i < times.size(); ++i) {
      const int64_t t = int64_t(times[i]);
      const Tensor output = network(x, double(t));
      if (ddpm)
        x = ddpm_step(output, x, t, i + 1 < times.size() ? int64_t(times[i + 1]) : -1, noise);
      else if (inverse)
        x = ddim_step(output, x, final_alpha(std::min(t - stride, count_ - 1)), alphas_[size_t(t)], noise);
      else
        x = ddim_step(output, x, alphas_[size_t(t)], final_alpha(t - stride), noise);
    }
    return x;
  }

 private:
  double final_alpha(int64_t t) const { return t >= 0 ? alphas_[size_t(t)] : r_.config["set_alpha_to_one"].get<bool>() ? 1 : alphas_[0]; }

  /// pred_original_sample and pred_epsilon.
  std::pair<Tensor, Tensor> predict(const Tensor& m, const Tensor& x, double a) const {
    const std::string type = r_.config["prediction_type"];
    if (type == "epsilon") return {(x - m * std::sqrt(1 - a)) / std::sqrt(a), m};
    if (type == "sample") return {m, (x - m * std::sqrt(a)) / std::sqrt(1 - a)};
    return {x * std::sqrt(a) - m * std::sqrt(1 - a), m * std::sqrt(a) + x * std::sqrt(1 - a)};
  }
  Tensor clip(const Tensor& x0) const {
    if (r_.config["thresholding"].get<bool>() && r_.scheduler != "DDIMInverseScheduler") {
      const Tensor flat = x0.reshape({x0.size(0), -1});
      const Tensor s = at::quantile(flat.abs(), r_.config["dynamic_thresholding_ratio"].get<double>(), 1, true)
                           .clamp(1, r_.config["sample_max_value"].get<double>());
      return (at::maximum(at::minimum(flat, s), -s) / s).view_as(x0);
    }
    const double range = r_.config["clip_sample_range"];
    return r_.config["clip_sample"].get<bool>() ? x0.clamp(-range, range) : x0;
  }

  Tensor ddim_step(const Tensor& m, const Tensor& x, double a, double a_to, Noise& noise) const {
    auto [x0, eps] = predict(m, x, a);
    x0 = clip(x0);
    const bool inverse = r_.scheduler == "DDIMInverseScheduler";
    const double deviation = inverse ? 0 : r_.eta * std::sqrt((1 - a_to) / (1 - a) * (1 - a / a_to));
    if (r_.use_clipped_model_output) eps = (x - x0 * std::sqrt(a)) / std::sqrt(1 - a);
    x0 = x0 * std::sqrt(a_to) + eps * std::sqrt(1 - a_to - deviation * deviation);
    return deviation > 0 ? x0 + noise.draw(x0, 0, 0) * deviation : x0;
  }

  Tensor ddpm_step(const Tensor& output, const Tensor& x, int64_t t, int64_t to, Noise& noise) const {
    const Tensor m = output.narrow(1, 0, x.size(1));
    const double a = alphas_[size_t(t)], a_to = to >= 0 ? alphas_[size_t(to)] : 1, keep = a / a_to, beta = 1 - keep;
    const Tensor x0 = clip(predict(m, x, a).first);
    const Tensor mean = x0 * (std::sqrt(a_to) * beta / (1 - a)) + x * (std::sqrt(keep) * (1 - a_to) / (1 - a));
    if (t == 0) return mean;
    const double small = std::max((1 - a_to) / (1 - a) * beta, 1e-20);
    const std::string type = r_.config["variance_type"];
    Tensor variance = x.new_full({}, type == "fixed_large" ? beta : small);
    if (type == "learned") variance = output.narrow(1, x.size(1), x.size(1));
    if (type == "learned_range") {
      const Tensor share = (output.narrow(1, x.size(1), x.size(1)) + 1) / 2;
      variance = (share * std::log(beta) + (1 - share) * std::log(small)).exp();
    }
    return mean + noise.draw(x, 0, 0) * variance.sqrt();
  }

  const DiffusersRequest& r_;
  int64_t count_ = r_.config["num_train_timesteps"];
  std::vector<double> alphas_;
};

ScriptedNetwork network(const std::string& variance) {
  if (variance == "learned") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.005 + 0.01}, 1); };
  if (variance == "learned_range") return [](const Tensor& x, double t) { return at::cat({mix(x, t), x.cos() * 0.5}, 1); };
  return mix;
}

Tensor waves(double rate, double phase, at::ScalarType dtype) {
  std::vector<double> values;
  for (int i = 0; i < 96; ++i) values.push_back(std::sin(rate * i + phase));
  return tensor_of(values, {2, 3, 4, 4}, dtype);
}

/// Configurations drawn at random, with everything a scheduler's file may say.
class Draw {
 public:
  explicit Draw(uint32_t seed) : random_(seed) {}
  DiffusersRequest operator()() {
    DiffusersRequest r{.scheduler = one({"DDPMScheduler", "DDIMScheduler", "DDIMParallelScheduler", "DDIMInverseScheduler"}), .config = {}};
    const bool inverse = r.scheduler == "DDIMInverseScheduler", ddpm = r.scheduler == "DDPMScheduler";
    const bool wide = coin();
    r.config = {{"num_train_timesteps", coin() ? 1000 : 100},
                {"beta_start", wide ? 1e-4 : 0.00085},
                {"beta_end", wide ? 0.02 : 0.012},
                {"beta_schedule", ddpm ? one({"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"})
                                       : one({"linear", "scaled_linear", "squaredcos_cap_v2"})},
                {"prediction_type", one({"epsilon", "sample", "v_prediction"})},
                {"clip_sample", coin()},
                {"clip_sample_range", coin() ? 1.0 : 0.7},
                {"thresholding", coin() && coin()},
                {"dynamic_thresholding_ratio", coin() ? 0.995 : 0.8},
                {"sample_max_value", coin() ? 1.0 : 1.5},
                {"timestep_spacing", inverse ? one({"leading", "trailing"}) : one({"linspace", "leading", "trailing"})},
                {"steps_offset", coin() ? 1 : 0},
                {"set_alpha_to_one", coin()},
                {"variance_type", one({"fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"})}};
    if (!ddpm) r.config["variance_type"] = nullptr;
    // From the clean image the reference divides by zero for the noise.
    if (inverse && r.config["prediction_type"] == "sample") r.config["set_alpha_to_one"] = false;
    r.steps = std::vector<int64_t>{1, 2, 4, 7, 10, 15, 24, 48, 50}[random_() % 9];
    r.eta = !ddpm && !inverse && coin() ? (coin() ? 1 : 0.4) : 0;
    r.use_clipped_model_output = !ddpm && !inverse && coin();
    r.start = !inverse && r.steps > 4 && coin() ? 2 : 0;
    return r;
  }

 private:
  bool coin() { return random_() % 2 == 0; }
  std::string one(const std::vector<std::string>& words) { return words[random_() % words.size()]; }
  std::mt19937 random_;
};

TEST(DiffusersGrid, BrumeTakesTheSameStepsWhateverTheConfiguration) {
  Draw draw(2);
  Closeness closeness;
  int64_t chained = 0, separate = 0, listed = 0;
  for (int i = 0; i < 600; ++i) {
    const DiffusersRequest r = draw();
    SCOPED_TRACE(fmt::format("draw {}: {} {} eta {} steps {}", i, r.scheduler, r.config.dump(), r.eta, r.steps));
    const SchedulerInBrume scheduler(r);
    ASSERT_EQ(scheduler.unsupported(), "");
    ASSERT_EQ(scheduler.spaced(), scheduler.timesteps());
    ++(scheduler.chains() ? chained : separate);
    listed += !scheduler.named();
    const ScriptedNetwork f = network(r.config["variance_type"].is_null() ? "" : r.config["variance_type"].get<std::string>());
    const Tensor x = waves(0.37, 0.5, at::kDouble);
    const auto ours = batch_noise(7), theirs = batch_noise(7);
    const Tensor got = scheduler.run(f, x, *ours, Rounding::exact).x.back(), wanted = Peer(r).run(f, x, scheduler.timesteps(), *theirs);
    // A start at the clean image is sigma = 1e-7 to brume.
    const double scale = std::max(1.0, wanted.abs().max().item<double>()), allowed = scheduler.legs().front().from == 0 ? 1e-6 : 1e-9;
    closeness.near((got - wanted).abs().max().item<double>(), 0, allowed * scale, "x");
    if (testing::Test::HasFailure()) FAIL() << scheduler.yaml();
  }
  fmt::print("{} configurations in one run, {} step by step; {} with a list of times\n", chained, separate, listed);
  closeness.print("diffusers' steps, float64");
}

// What makes the test above worth something: this second writing of diffusers' steps gives what diffusers recorded.
TEST(DiffusersGrid, TheStepsAreThoseOfTheRecords) {
  BRUME_NEED_REF("sched_traj.json");
  Closeness closeness;
  for (const json& c : ref_json("sched_traj.json")["cases"]) {
    const std::string name = c["scheduler"];
    if ((!name.starts_with("DDPM") && !name.starts_with("DDIM")) || c["t_start"] != 0 || c["num_inference_steps"] == 1000 ||
        c["num_inference_steps"].is_null())
      continue;
    DiffusersRequest r{.scheduler = name, .config = c["config_full"]};
    r.config.update(
        {{"thresholding", r.config.value("thresholding", false)}, {"set_alpha_to_one", r.config.value("set_alpha_to_one", true)}});
    r.steps = c["num_inference_steps"];
    r.eta = c["step_kwargs"].value("eta", 0.0);
    const auto noise = batch_noise(0);
    const Tensor x = Peer(r).run(network(r.config.value("variance_type", "")), waves(0.37, 0.5, at::kFloat), c["timesteps"], *noise);
    closeness.near(x, c["final"], c["tol_abs"], c["id"]);
  }
  closeness.print("the second writing of diffusers' steps");
}

TEST(DiffusersConfig, IsSaidInBrumesWords) {
  const auto scheduler = [](const json& config) { return SchedulerInBrume({.scheduler = "DDIMScheduler", .config = config, .steps = 2}); };
  const std::string betas = scheduler({{"trained_betas", {0.1, 0.11, 0.3, 0.4}}}).yaml();
  EXPECT_TRUE(betas.starts_with("noise: {type: betas, betas: [0.1, 0.11, 0.3, 0.4]}\n")) << betas;
  const std::string zero = scheduler({{"rescale_betas_zero_snr", true}}).yaml();
  EXPECT_TRUE(zero.starts_with("noise: {type: zero_terminal_snr, max_sigma: 1000000, schedule: {type: linear")) << zero;
  EXPECT_EQ(scheduler({{"beta_schedule", "laplace"}}).unsupported(), "no noise schedule laplace");
  EXPECT_EQ(scheduler({{"prediction_type", "flow"}}).unsupported(), "no parameterization flow");
}

}  // namespace
}  // namespace brume::test
