// Parity with diffusers' own scheduler tests (shared/refs/peer_tests.json), those of DDPM and DDIM.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <algorithm>

#include "support/parity_diffusers.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "peer_tests.json";

std::vector<RefCase> tests() {
  return ref_cases(file, "tests", [](const json& c) {
    const std::string s = c["scheduler"];
    return s.starts_with("DDPM") || s.starts_with("DDIM");
  });
}

/// dummy_sample_deter and, reversed, dummy_noise_deter of diffusers' tests.
Tensor ramp(bool reversed) {
  const Tensor k = reversed ? 767 - at::arange(768, at::kFloat) : at::arange(768, at::kFloat);
  return (k.view({3, 8, 8, 4}) / 768).permute({3, 0, 1, 2}).contiguous();
}

DiffusersRequest request_of(const json& c) {
  DiffusersRequest r{.scheduler = c["scheduler"], .config = c["config_full"]};
  if (!c["set_timesteps"].empty()) {
    const json& args = c["set_timesteps"].back()["args"];
    r.steps = args.value("num_inference_steps", int64_t(0));
    r.timesteps = args.value("timesteps", std::vector<double>());
  }
  r.eta = c["steps"][0].value("eta", 0.0);
  return r;
}

class DiffusersPeer : public testing::TestWithParam<RefCase> {
 protected:
  static void TearDownTestSuite() { closeness.print("diffusers' own tests"); }
  static Closeness closeness;
};
Closeness DiffusersPeer::closeness;

TEST_P(DiffusersPeer, Passes) {
  const json& c = ref_case(GetParam(), "tests");
  DiffusersRequest request = request_of(c);
  const std::vector<double> times = SchedulerInBrume(request).timesteps();
  if (!c["add_noise"].empty())
    request.start = std::find(times.begin(), times.end(), c["add_noise"][0]["timesteps"].get<double>()) - times.begin();
  const SchedulerInBrume scheduler(request);
  if (!scheduler.unsupported().empty()) GTEST_SKIP() << scheduler.unsupported();
  SCOPED_TRACE(c["id"].get<std::string>() + "\n" + scheduler.yaml());
  ASSERT_EQ(scheduler.spaced(), times);
  if (!c["set_timesteps"].empty()) {
    ASSERT_EQ(times, c["set_timesteps"].back()["timesteps"].get<std::vector<double>>());
  }

  Tensor x = ramp(false);
  if (request.start > 0) {
    x = scheduler.noisy(x, ramp(true), times[size_t(request.start)]);
    closeness.summary(x, c["add_noise"][0]["out"], 2e-6, "add_noise");
  }
  const auto noise = batch_noise(c["step_generator_seed"].is_null() ? 0 : c["step_generator_seed"].get<uint64_t>());
  const Trajectory got = scheduler.run(dummy, x, *noise);
  ASSERT_EQ(got.x.size(), c["num_step_calls"].get<size_t>());
  for (const json& step : c["steps"]) {
    const size_t i = step["i"];
    EXPECT_EQ(times[i + size_t(request.start)], step["timestep"].get<double>());
    closeness.summary(got.x[i], step["out"], 5e-5, fmt::format("step {}", i));
  }
  const Tensor last = got.x.back();
  closeness.summary(last, c["final"], 5e-5, "final");
  const json& expected = c["expected"];
  closeness.near(last.abs().sum().item<double>(), expected["result_sum"]["value"], expected["result_sum"]["tol"],
                 "sum expected by the test");
  closeness.near(last.abs().mean().item<double>(), expected["result_mean"]["value"], expected["result_mean"]["tol"],
                 "mean expected by the test");
}

INSTANTIATE_TEST_SUITE_P(Tests, DiffusersPeer, testing::ValuesIn(tests()), [](const auto& info) {
  const std::string id = ref_case(info.param, "tests")["id"];
  return ref_name(info.param, id.substr(id.find("::") + 2));
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(DiffusersPeer);

TEST(DiffusersPeerReferences, AreThere) { BRUME_NEED_REF(file); }

}  // namespace
}  // namespace brume::test
