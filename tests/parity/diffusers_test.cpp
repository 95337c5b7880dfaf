// Parity with huggingface/diffusers 0.40: the trajectories of its DDPM, DDIM and DDIM inverse schedulers on networks given by a
// formula (shared/refs/sched_traj.json), read from the configuration a user would write.
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/cos.h>
#include <fmt/format.h>

#include <algorithm>

#include "support/parity_diffusers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "sched_traj.json";
const std::vector<int64_t> shape{2, 3, 4, 4};

bool of_this_issue(const std::string& scheduler) {
  return scheduler.starts_with("DDPM") || scheduler.starts_with("DDIM") || scheduler.starts_with("UnCLIP");
}

std::vector<RefCase> cases() {
  return ref_cases(file, "cases", [](const json& c) { return of_this_issue(c["scheduler"]); });
}

DiffusersRequest request_of(const json& c) {
  DiffusersRequest r{.scheduler = c["scheduler"], .config = c.value("config_full", c["config"])};
  r.steps = c["num_inference_steps"].is_null() ? 0 : c["num_inference_steps"].get<int64_t>();
  r.timesteps = c["set_timesteps_kwargs"].value("timesteps", std::vector<double>());
  r.eta = c["step_kwargs"].value("eta", 0.0);
  r.use_clipped_model_output = c["step_kwargs"].value("use_clipped_model_output", false);
  r.start = c["t_start"];
  if (r.scheduler.starts_with("UnCLIP")) {  // DDPM on the cosine schedule, at times from end to end
    r.scheduler = "DDPMScheduler";
    r.config["beta_schedule"] = "squaredcos_cap_v2";
    r.config["timestep_spacing"] = "linspace";
    r.beta_of_table = true;
  }
  return r;
}

Tensor input(const char* name, at::ScalarType dtype, const std::string& from = file) {
  return tensor_of(ref_json(from)["noise_check"][name], shape, dtype);
}

class DiffusersTrajectory : public testing::TestWithParam<RefCase> {
 protected:
  static void TearDownTestSuite() { closeness.print("diffusers trajectories"); }
  static Closeness closeness;
};
Closeness DiffusersTrajectory::closeness;

void compare_alphas(Closeness& closeness, const SchedulerInBrume& scheduler, const json& wanted) {
  const NoiseSchedule& noise = *scheduler.config().noise;
  std::vector<double> alpha_bars;
  for (int64_t t = 0; t < noise.timesteps(); ++t) alpha_bars.push_back(std::pow(noise.signal(noise.sigma(double(t))), 2));
  const size_t n = wanted["n"];
  ASSERT_EQ(alpha_bars.size(), n);
  double sum = 0;
  for (const double a : alpha_bars) sum += a;
  closeness.near(sum, wanted["sum"], 1e-5 * sum, "alphas_cumprod sum");
  for (size_t i = 0; i < 4; ++i) {
    // The reference multiplies float32 numbers: n roundings, and 1 - 0.999 of the cosine schedule is only good to 6e-5. In its
    // own arithmetic the test agrees to the last digit.
    closeness.near(alpha_bars[i], wanted["first4"][i], 1e-6, "alphas_cumprod first");
    closeness.near(alpha_bars[n - 4 + i], wanted["last4"][i], 2e-4 * alpha_bars[n - 4 + i] + 1e-11, "alphas_cumprod last");
    closeness.near(scheduler.alphas()[i], wanted["first4"][i], 1e-7, "alphas_cumprod first, in float32");
    closeness.near(scheduler.alphas()[n - 4 + i], wanted["last4"][i], 1e-6 * alpha_bars[n - 4 + i] + 1e-11,
                   "alphas_cumprod last, in float32");
  }
}

/// The recorded steps are some of the run's, distinguished by their t.
void compare_steps(Closeness& closeness, const SchedulerInBrume& scheduler, const Trajectory& got, const json& c) {
  const std::vector<double>& times = scheduler.timesteps();
  const size_t start = c["t_start"];
  for (const json& step : c["steps"]) {
    const auto at = std::find(times.begin(), times.end(), step["t"].get<double>());
    ASSERT_NE(at, times.end()) << "no step at t = " << step["t"];
    const size_t i = size_t(at - times.begin());
    const std::string what = fmt::format("t = {}", times[i]);
    const double tolerance = step["tol"];
    closeness.summary(got.x[i - start], {{"first8", step["first8"]}, {"sum", step["sum"]}, {"sum_abs", step["sum_abs"]}}, tolerance, what);
    if (!step.contains("pred_x0_sum_abs") || step["pred_x0_sum_abs"].is_null()) continue;
    const double signal = scheduler.config().signal(scheduler.legs()[i].from);  // an error of x is one of x / signal in x0
    closeness.summary(got.x0[i - start], {{"sum_abs", step["pred_x0_sum_abs"]}}, tolerance / signal, what + " x0");
  }
}

TEST_P(DiffusersTrajectory, IsReproduced) {
  const json& c = ref_case(GetParam(), "cases");
  const SchedulerInBrume scheduler(request_of(c));
  if (!scheduler.unsupported().empty()) GTEST_SKIP() << c["id"] << ": " << scheduler.unsupported();
  SCOPED_TRACE(c["id"].get<std::string>() + "\n" + scheduler.yaml());
  ASSERT_EQ(scheduler.timesteps(), c["timesteps"].get<std::vector<double>>());
  ASSERT_EQ(scheduler.spaced(), scheduler.timesteps());
  compare_alphas(closeness, scheduler, c["alphas_cumprod"]);

  const auto dtype = c["dtype"] == "float64" ? at::kDouble : at::kFloat;
  const Tensor x0 = input("x0", dtype, GetParam().file), eps0 = input("eps0", dtype, GetParam().file);
  const size_t start = c["t_start"];
  const Tensor x = start > 0 ? scheduler.noisy(x0, eps0, scheduler.timesteps()[start]) : x0 * c["init_noise_sigma"].get<double>();
  const auto noise = batch_noise(c["seed"]);
  const Trajectory got = scheduler.run(scripted_network(c["model"]), x, *noise);
  compare_steps(closeness, scheduler, got, c);
  closeness.near(got.x.back(), c["final"], c["tol_abs"], "final");
}

INSTANTIATE_TEST_SUITE_P(Cases, DiffusersTrajectory, testing::ValuesIn(cases()),
                         [](const auto& info) { return ref_name(info.param, ref_case(info.param, "cases")["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DiffusersTrajectory);

TEST(DiffusersNoise, IsThatOfOneGeneratorForTheBatch) {
  BRUME_NEED_REF(file);
  const json& check = ref_json(file)["noise_check"];
  Closeness closeness;
  const auto noise = batch_noise(check["seed"]);
  const Tensor like = input("x0", at::kFloat);
  closeness.near(noise->draw(like, 1, 0), check["first_draw"], 1e-6, "first draw");
  closeness.near(noise->draw(like, 1, 0), check["second_draw_first8"], 1e-6, "second draw");
  closeness.near(mix(like, 500), check["mix_t500"], 1e-6, "mix");
  closeness.print("noise");
}

/// Whether a scheduler of diffusers keeps x as x0 + sigma noise, as brume does, rather than in the network's frame.
bool sigma_frame(const std::string& scheduler) {
  for (const char* family : {"Euler", "Heun", "LMS", "KDPM2", "DPMSolverSDE"})
    if (scheduler.starts_with(family)) return true;
  return false;
}

// add_noise is x0 + sigma noise; get_velocity is the target of a network with parameterization v. Both depend on the noise
// schedule alone, so all of the records count, whatever their scheduler.
TEST(DiffusersNoise, AddNoiseAndVelocity) {
  BRUME_NEED_REF(file);
  Closeness closeness;
  if (!ref_json(file).contains("add_noise")) GTEST_SKIP() << "no records of add_noise";
  for (const json& c : ref_json(file)["add_noise"]) {
    SCOPED_TRACE(c["scheduler"].get<std::string>() + c["config"].dump());
    const SchedulerInBrume scheduler({.scheduler = "DDPMScheduler", .config = c["config"], .steps = c["set_timesteps"].get<int64_t>()});
    if (!scheduler.unsupported().empty()) continue;
    const Tensor x0 = input("x0", at::kFloat), eps = input("eps0", at::kFloat);
    const auto v = make<Parameterization>("v");
    std::vector<Tensor> noisy, velocity;
    for (int64_t i = 0; i < 2; ++i) {
      const NoiseSchedule& schedule = *scheduler.config().noise;
      const double t = c["timesteps"][size_t(i)];
      noisy.push_back(sigma_frame(c["scheduler"]) ? x0[i] + eps[i] * schedule.sigma(t) : scheduler.noisy(x0[i], eps[i], t));
      // Euler's get_velocity takes the index of the step (2 and 7 of 10) for the timestep.
      const double s = schedule.sigma(c["scheduler"] == "EulerDiscreteScheduler" ? double(2 + 5 * i) : t);
      velocity.push_back((x0[i] * (1 - v->c_skip(s)) - eps[i] * (v->c_skip(s) * s)) / v->c_out(s));
    }
    closeness.near(at::cat(noisy), c["noisy"], 2e-5, "noisy");
    if (c.contains("velocity")) closeness.near(at::cat(velocity), c["velocity"], 2e-5, "velocity");
  }
  closeness.print("add_noise and get_velocity");
}

TEST(DiffusersReferences, AreThere) { BRUME_NEED_REF(file); }

}  // namespace
}  // namespace brume::test
