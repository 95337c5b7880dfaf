// Parity with the samplers of NVlabs/edm (shared/refs/edm_samplers.json) and of k-diffusion (kdiffusion.json), in float64, on the exact
// denoisers of a Gaussian and of a mixture of two: every network call and the result.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>

#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::vector<int64_t> shape{2, 3, 4, 4};

/// sqrt(2) cos(0.61 j + 0.1 + 1.3 k), j the flat index.
Tensor wave(int64_t k) { return ((at::arange(96, at::kDouble) * 0.61 + (0.1 + 1.3 * double(k))).cos() * std::sqrt(2.0)).view(shape); }

/// The k-th draw is the k-th wave. k counts draws, or the steps if the reference draws whether it needs to or not.
class WaveNoise final : public Noise {
 public:
  explicit WaveNoise(std::vector<double> steps) : steps_(std::move(steps)) {}
  Tensor draw(const Tensor&, double from, double) override {
    if (steps_.empty()) return wave(count_++);
    return wave(std::find(steps_.begin(), steps_.end(), from) - steps_.begin());
  }

 private:
  std::vector<double> steps_;
  int64_t count_ = 0;
};

class ExactDenoiser final : public Denoiser {
 public:
  explicit ExactDenoiser(bool mixture) : mixture_(mixture) {}
  struct Call {
    double sigma, x_sum, d_sum;
  };
  mutable std::vector<Call> calls;

  Estimate denoise(const Tensor& x, double sigma, const Condition&) const override {
    Estimate d;
    d.x0 = mixture_ ? mixture(x, sigma * sigma) : (x * 0.25 + 0.25 * sigma * sigma) / (0.25 + sigma * sigma);
    calls.push_back({sigma, x.sum().item<double>(), d.x0.sum().item<double>()});
    return d;
  }

 private:
  static Tensor mixture(const Tensor& x, double variance) {
    const Tensor i = at::arange(48, at::kDouble), flat = x.reshape({2, 48});
    const Tensor means[] = {(i * 0.9 + 0.3).sin() * 0.6, (i * 0.7).cos() * -0.5};
    const double s2 = 0.09, total = s2 + variance, weights[] = {0.4, 0.6};
    std::vector<Tensor> logits, estimates;
    for (int k = 0; k < 2; ++k) {
      logits.push_back((flat - means[k]).pow(2).sum(1) * (-0.5 / total) + std::log(weights[k]));
      estimates.push_back((flat * s2 + means[k] * variance) / total);
    }
    const Tensor w = at::stack(logits, 1).softmax(1);
    return (w.narrow(1, 0, 1) * estimates[0] + w.narrow(1, 1, 1) * estimates[1]).view(shape);
  }
  bool mixture_;
};

/// What a case comes to in brume: a sampler, the sigmas, the schedule of its frame, and how noise is counted.
struct Plan {
  std::string sampler, noise = "edm";
  std::vector<double> sigmas;
  bool noise_by_step = false;
  std::string unsupported;
  double tolerance = 1e-9;
};

double number(const json& kwargs, const char* key, double otherwise) {
  return kwargs.contains(key) && !kwargs[key].is_null() ? kwargs[key].get<double>() : otherwise;
}

std::string churn(const json& k, const char* prefix) {
  const std::string p = prefix;
  return fmt::format("s_churn: {}, s_tmin: {}, s_tmax: {}, s_noise: {}", number(k, (p + "churn").c_str(), 0),
                     number(k, (p == "S_" ? "S_min" : "s_tmin"), 0), std::min(number(k, (p == "S_" ? "S_max" : "s_tmax"), 1e9), 1e9),
                     number(k, (p + "noise").c_str(), 1));
}

Plan k_diffusion(const json& c, const json& arrays) {
  const std::string fn = c["fn"].get<std::string>().substr(7);
  const json& k = c["kwargs"];
  Plan plan;
  if (!c["sigmas"].is_null()) plan.sigmas = arrays[c["sigmas"].get<std::string>()].get<std::vector<double>>();
  const std::string eta = fmt::format("eta: {}, s_noise: {}", number(k, "eta", 1), number(k, "s_noise", 1));
  if (fn == "euler" || fn == "heun" || fn == "dpm_2") {
    plan.sampler = fmt::format("{{type: {}, {}}}", fn, churn(k, "s_"));
    plan.noise_by_step = true;
  } else if (fn == "lms") {
    plan.sampler = fmt::format("{{type: lms, order: {}}}", number(k, "order", 4));
  } else if (fn == "dpmpp_2m") {
    plan.sampler = "dpmpp_2m";
  } else if (fn == "dpmpp_2m_sde") {
    plan.sampler = fmt::format("{{type: dpmpp_2m_sde, {}, solver: {}}}", eta, k.value("solver_type", "midpoint"));
  } else if (fn == "dpm_fast" || fn == "dpm_adaptive") {
    const double hi = k["sigma_max"], lo = k["sigma_min"];
    plan.tolerance = 2e-6;  // k-diffusion keeps the grid of these two in float32
    const std::string some = fmt::format("eta: {}, s_noise: {}", number(k, "eta", 0), number(k, "s_noise", 1));
    if (fn == "dpm_fast") {
      plan.sampler = fmt::format("{{type: dpm_fast, {}}}", some);
      for (int64_t i = 0; i <= k["n"].get<int64_t>(); ++i) plan.sigmas.push_back(hi * std::pow(lo / hi, double(i) / k["n"].get<double>()));
    } else {
      plan.sampler = fmt::format(
          "{{type: dpm_adaptive, shared_steps: true, {}, order: {}, rtol: {}, atol: {}, h_init: {}, pcoeff: {}, "
          "icoeff: {}, dcoeff: {}, accept_safety: {}}}",
          some, number(k, "order", 3), number(k, "rtol", 0.05), number(k, "atol", 0.0078), number(k, "h_init", 0.05),
          number(k, "pcoeff", 0), number(k, "icoeff", 1), number(k, "dcoeff", 0), number(k, "accept_safety", 0.81));
      plan.sigmas = {hi, lo};
    }
  } else {
    plan.sampler = fmt::format("{{type: {}, {}{}}}", fn, eta, fn == "dpmpp_sde" ? fmt::format(", r: {}", number(k, "r", 0.5)) : "");
  }
  return plan;
}

/// The noise levels of EDM's ablation sampler, and the frame its solver steps in (Karras et al. 2022, table 1).
Plan ablation(const json& k) {
  const auto word = [&](const char* key, const char* otherwise) { return k.value(key, std::string(otherwise)); };
  const std::string discretization = word("discretization", "edm"), schedule = word("schedule", "linear"),
                    scaling = word("scaling", "none");
  const int64_t n = k.value("num_steps", int64_t(18));
  const double vp_beta_d = 19.9, vp_beta_min = 0.1, epsilon_s = number(k, "epsilon_s", 1e-3);
  const auto vp = [&](double t) { return std::sqrt(std::expm1(0.5 * vp_beta_d * t * t + vp_beta_min * t)); };
  const bool is_vp = discretization == "vp", is_ve = discretization == "ve";
  const double lo = number(k, "sigma_min", is_vp ? vp(epsilon_s) : is_ve ? 0.02 : 0.002);
  const double hi = number(k, "sigma_max", is_vp ? vp(1) : is_ve ? 100 : 80), rho = number(k, "rho", 7);
  Plan plan;
  std::vector<double> levels;
  if (discretization == "iddpm") {
    const int64_t m = 1000;
    std::vector<double> u(size_t(m) + 1, 0);
    // In float32, which is what an integer tensor times a number is there.
    const auto alpha_bar = [&](int64_t i) {
      return (at::scalar_tensor(i, at::kLong) * (0.5 * M_PI) / double(m) / 1.008).sin().pow(2).item<float>();
    };
    for (int64_t j = m; j > 0; --j)
      u[size_t(j) - 1] = std::sqrt((u[size_t(j)] * u[size_t(j)] + 1) / double(std::max(alpha_bar(j - 1) / alpha_bar(j), 0.001f)) - 1);
    std::copy_if(u.begin(), u.end(), std::back_inserter(levels), [&](double s) { return s >= lo && s <= hi * 1.01; });
    std::erase_if(levels, [&](double s) { return s > number(k, "sigma_max", 81); });
  }
  const double vp_d = 2 * (std::log(lo * lo + 1) / epsilon_s - std::log(hi * hi + 1)) / (epsilon_s - 1);
  const double vp_min = std::log(hi * hi + 1) - 0.5 * vp_d;
  for (int64_t i = 0; i < n; ++i) {
    const double r = double(i) / double(n - 1);
    if (is_vp) {
      const double t = 1 + r * (epsilon_s - 1);
      plan.sigmas.push_back(std::sqrt(std::expm1(0.5 * vp_d * t * t + vp_min * t)));
    } else if (is_ve) {
      plan.sigmas.push_back(hi * std::pow(lo / hi, r));
    } else if (discretization == "iddpm") {
      plan.sigmas.push_back(levels[size_t(std::nearbyint(double(levels.size() - 1) / double(n - 1) * double(i)))]);
    } else {
      plan.sigmas.push_back(std::pow(std::pow(hi, 1 / rho) + r * (std::pow(lo, 1 / rho) - std::pow(hi, 1 / rho)), rho));
    }
  }
  plan.sigmas.push_back(0);
  const std::string time = schedule == "vp" ? "schedule" : schedule == "ve" ? "variance" : "sigma";
  if (scaling == "vp" && schedule != "vp") plan.unsupported = "VP scaling over another schedule's time";
  if (number(k, "alpha", 1) != 1) plan.unsupported = "alpha other than 1 (Heun's method)";
  if (schedule == "vp") plan.noise = fmt::format("{{type: vp, beta_min: {}, beta_max: {}}}", vp_min, vp_min + vp_d);
  plan.sampler = fmt::format("{{type: {}, time: {}, scale: {}, {}}}", word("solver", "heun"), time, scaling == "vp" ? "schedule" : "none",
                             churn(k, "S_"));
  plan.noise_by_step = true;
  return plan;
}

Plan edm(const json& c) {
  if (c["fn"] == "ablation_sampler") {
    Plan plan = ablation(c["kwargs"]);
    if (c["kwargs"].value("discretization", "edm") != "iddpm") return plan;
    // Its grid went through float32 sines, whose last digit is the math library's: the reference's own levels are taken.
    const size_t calls = c["kwargs"].value("solver", "heun") == "heun" ? 2 : 1;
    for (size_t i = 0; i + 1 < plan.sigmas.size(); ++i) {
      const double theirs = c["calls"][calls * i]["sigma"];
      EXPECT_NEAR(plan.sigmas[i], theirs, 1e-6 * theirs) << "level " << i;
      plan.sigmas[i] = theirs;
    }
    return plan;
  }
  const json& k = c["kwargs"];
  const double lo = std::pow(number(k, "sigma_min", 0.002), 1 / number(k, "rho", 7)),
               hi = std::pow(number(k, "sigma_max", 80), 1 / number(k, "rho", 7));
  const int64_t n = k.value("num_steps", int64_t(18));
  Plan plan;
  for (int64_t i = 0; i < n; ++i) plan.sigmas.push_back(std::pow(hi + double(i) / double(n - 1) * (lo - hi), number(k, "rho", 7)));
  plan.sigmas.push_back(0);
  plan.sampler = fmt::format("{{type: heun, {}}}", churn(k, "S_"));
  plan.noise_by_step = true;
  return plan;
}

void compare(const json& c, const Plan& plan, Closeness& closeness) {
  if (!plan.unsupported.empty()) GTEST_SKIP() << c["id"] << ": " << plan.unsupported;
  SCOPED_TRACE(c["id"].get<std::string>() + " " + plan.sampler + " " + plan.noise);
  const ExactDenoiser denoiser(c["denoiser"] == "mix");
  const auto schedule = make<NoiseSchedule>(plan.noise);
  const bool seeded = c.value("noise", "det") == "seed0";
  WaveNoise waves(plan.noise_by_step ? plan.sigmas : std::vector<double>{});
  const auto random = batch_noise(0);
  const Condition none;
  int64_t accepted = 0;
  Run run{none, seeded ? *random : static_cast<Noise&>(waves), [&](const Step&) { return ++accepted > 0; }, schedule.get()};
  const Tensor last = make<Sampler>(plan.sampler)->sample(denoiser, wave(0) * plan.sigmas.front(), plan.sigmas, run);
  const bool adaptive = c["fn"] == "sample_dpm_adaptive";
  if (adaptive && c["info"].is_object()) {
    EXPECT_EQ(accepted, c["info"]["n_accept"].get<int64_t>());
  }
  if (!adaptive) {
    ASSERT_EQ(denoiser.calls.size(), c["nfe"].get<size_t>());
    for (size_t i = 0; i < denoiser.calls.size(); ++i) {
      const json& wanted = c["calls"][i];
      const auto& call = denoiser.calls[i];
      const auto near = [&](double got, double expected, const char* what) {
        // Sums over 96 numbers of the size of sigma lose digits if they cancel.
        closeness.near(got, expected, plan.tolerance * std::max({1.0, std::abs(expected), call.sigma}), fmt::format("call {} {}", i, what));
      };
      near(call.sigma, wanted["sigma"], "sigma");
      near(call.x_sum, wanted["x_sum"], "sum of x");
      near(call.d_sum, wanted["D_sum"], "sum of D");
    }
  }
  closeness.near(last, c["final"], plan.tolerance, "final");
}

std::vector<size_t> count(const char* file) {
  std::vector<size_t> all;
  if (has_ref(file)) all.resize(ref_json(file)["cases"].size());
  for (size_t i = 0; i < all.size(); ++i) all[i] = i;
  return all;
}

class EdmSampler : public testing::TestWithParam<RefCase> {
 protected:
  static void TearDownTestSuite() { closeness.print("EDM's samplers"); }
  static Closeness closeness;
};
Closeness EdmSampler::closeness;
TEST_P(EdmSampler, IsReproduced) {
  const json& c = ref_case(GetParam(), "cases");
  compare(c, edm(c), closeness);
}
INSTANTIATE_TEST_SUITE_P(Cases, EdmSampler, testing::ValuesIn(ref_cases("edm_samplers.json", "cases", [](const json&) { return true; })),
                         [](const auto& info) { return ref_name(info.param, ref_case(info.param, "cases")["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(EdmSampler);

class KDiffusionSampler : public testing::TestWithParam<size_t> {
 protected:
  static void TearDownTestSuite() { closeness.print("k-diffusion's samplers"); }
  static Closeness closeness;
};
Closeness KDiffusionSampler::closeness;
TEST_P(KDiffusionSampler, IsReproduced) {
  const json& c = ref_json("kdiffusion.json")["cases"][GetParam()];
  compare(c, k_diffusion(c, ref_json("kdiffusion.json")["sigmas"]), closeness);
}
INSTANTIATE_TEST_SUITE_P(Cases, KDiffusionSampler, testing::ValuesIn(count("kdiffusion.json")),
                         [](const auto& info) { return test_name(ref_json("kdiffusion.json")["cases"][info.param]["id"]); });
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(KDiffusionSampler);

TEST(KarrasReferences, AreThere) {
  BRUME_NEED_REF("edm_samplers.json");
  Closeness closeness;
  const std::vector<double> got = make<Spacing>("{type: karras, rho: 7}")->sigmas(*make<NoiseSchedule>("edm"), 18);
  for (size_t i = 0; i < 18; ++i) closeness.near(got[i], ref_json("edm_samplers.json")["sigma_steps_18"][i], 1e-9 * got[i], "sigma");
  closeness.print("EDM's sigmas");
}

}  // namespace
}  // namespace brume::test
