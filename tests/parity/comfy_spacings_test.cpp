// Parity with the step lists of ComfyUI, RES4LYF and stable-diffusion.cpp (shared/refs3/spacings.json), which float32 rounded.
#include <fmt/format.h>

#include <map>

#include "brume/core/spacing.h"
#include "support/parity.h"
#include "support/refs.h"

namespace brume::test {
namespace {

using nlohmann::json;

const std::string file = "../refs3/spacings.json";

const std::map<std::string, std::string> names = {{"beta", "beta_time, merge: true"}, {"ddim_uniform", "ddim_uniform, fill: true"}};
const std::map<std::string, std::string> schedules = {
    {"sd", "{type: scaled_linear, beta_start: 0.00085, beta_end: 0.012}"},
    {"flow_shift1", "flow"},
    {"flow_shift3", "{type: flow, shift: 3}"},
};

/// What a case is in brume.
struct Plan {
  std::string spacing, schedule = "sd";
  int64_t steps = 0;
  bool flow = false;
};

Plan plan_of(const json& c) {
  std::string name = c["scheduler"];
  const json arguments = c.value("kwargs", json::object());
  Plan plan;
  plan.steps = arguments.contains("n") ? arguments["n"] : arguments.contains("steps") ? arguments["steps"] : c.value("steps", json(0));
  if (c.contains("model")) plan.schedule = c["model"];
  if (name.starts_with("smoothstep transform")) {
    plan.spacing = fmt::format("smoothstep, of: {{spacing: {}, edge_0: {}, edge_1: {}}}", c["of"][0].get<std::string>(),
                               c["edge0"].get<double>(), c["edge1"].get<double>());
    plan.schedule = c["of"][1], plan.steps = c["of"][2];
  } else if (name.starts_with("laplace")) {
    plan.spacing = "laplace, merge: true";
    for (const auto& [key, value] : arguments.items())
      if (key != "n") plan.spacing += fmt::format(", {}: {}", key, value.get<double>());
  } else if (name == "align_your_steps") {
    const std::string model = c["model"];
    plan.spacing = fmt::format("ays, digits: levels, model: {}", model == "SD1" ? "sd15" : model == "SDXL" ? "sdxl" : "svd");
    plan.schedule = "sd";
  } else if (name == "gits") {
    plan.spacing = fmt::format("gits, coefficient: {}", c["coeff"].get<double>());
  } else if (name == "optimal_steps") {
    std::string model = c["model"];
    model[0] = char(std::tolower(model[0]));
    plan.spacing = "optimal_steps, model: " + (model == "fLUX" ? std::string("flux") : model);
    plan.schedule = "flow_shift1";
  } else {
    const auto known = names.find(name);
    plan.spacing = known == names.end() ? name : known->second;
    if (name == "bong_tangent" && c.contains("kwargs")) plan.schedule = "flow_shift1";
  }
  plan.flow = plan.schedule.starts_with("flow");
  return plan;
}

class ComfySpacing : public testing::TestWithParam<size_t> {};

TEST_P(ComfySpacing, IsReproduced) {
  const json& c = ref_json(file)["cases"][GetParam()];
  const Plan plan = plan_of(c);
  SCOPED_TRACE(plan.spacing + " on " + plan.schedule);
  ASSERT_TRUE(schedules.contains(plan.schedule));
  const auto schedule = make<NoiseSchedule>(schedules.at(plan.schedule));
  std::vector<double> got = make<Spacing>("{type: " + plan.spacing + "}")->sigmas(*schedule, plan.steps);
  const std::vector<double> wanted = c["sigmas"];
  if (wanted.back() > 0) got.pop_back();  // lists without the end of the run
  ASSERT_EQ(got.size(), wanted.size());
  const double rtol = c.value("rtol", ref_json(file)["meta"]["rtol"].get<double>());
  for (size_t i = 0; i < got.size(); ++i) {
    const double value = plan.flow ? got[i] / (1 + got[i]) : got[i];
    EXPECT_NEAR(value, wanted[i], rtol * std::abs(wanted[i]) + 1e-9) << i;
  }
}

std::vector<size_t> all_cases() {
  std::vector<size_t> all;
  if (has_ref(file))
    for (size_t i = 0; i < ref_json(file)["cases"].size(); ++i) all.push_back(i);
  return all;
}

INSTANTIATE_TEST_SUITE_P(Cases, ComfySpacing, testing::ValuesIn(all_cases()), [](const auto& info) {
  const Plan plan = plan_of(ref_json(file)["cases"][info.param]);
  return test_name(fmt::format("{}_{}_{}_{}", plan.spacing, plan.schedule, plan.steps, info.param));
});
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ComfySpacing);

}  // namespace
}  // namespace brume::test
