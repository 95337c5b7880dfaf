// OFT and BOFT of PEFT against PEFT (references/peft_rotations.py), and the settings next to their files.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "brume/interop/input_rotation.h"
#include "support/peft_adapter.h"
#include "support/process.h"
#include "support/waves.h"

namespace brume::test {
namespace {

Tensor part_of(const std::string& role, const std::vector<int64_t>& shape) {
  return role == "boft_s" ? waves(shape, 0.9) * 0.1 + 1 : waves(shape, 0.7) * 0.2;
}

class PeftRotations : public PeftAdapter {
 protected:
  PeftRotations() : PeftAdapter(8) { own(weight_).copy_(waves({8, 8, 3, 3}, 0.37)); }
  const nlohmann::json cases_ =
      nlohmann::json::parse(read_text(std::string(BRUME_SOURCE_DIR) + "/tests/parity/references/peft_rotations.json"));

  static void expect_same(const Tensor& got, const nlohmann::json& wanted) {
    const Tensor values = got.contiguous().to(at::kDouble).flatten();
    ASSERT_EQ(got.sizes().vec(), wanted["shape"].get<std::vector<int64_t>>());
    EXPECT_NEAR(values.sum().item<double>(), wanted["sum"].get<double>(), 1e-4);
    const double weighted = (values * at::arange(1, values.numel() + 1, at::kDouble)).sum().item<double>();
    EXPECT_NEAR(weighted, wanted["weighted"].get<double>(), 1e-4 * double(values.numel()));
    for (int64_t j = 0; j < 4; ++j) EXPECT_NEAR(values[j].item<double>(), wanted["first"][size_t(j)].get<double>(), 2e-6);
  }
};

TEST_F(PeftRotations, WeightsAreThoseOfPeft) {
  for (const nlohmann::json& c : cases_) {
    SCOPED_TRACE(c["settings"].dump() + c["shape"].dump());
    WeightChange change;
    for (const auto& [role, shape] : c["parts"].items()) change.parts[role] = part_of(role, shape.get<std::vector<int64_t>>());
    const nlohmann::json& s = c["settings"];
    if (change.part("oft_R").defined())
      change.neumann_terms = s.value("use_cayley_neumann", true) ? s.value("num_cayley_neumann_terms", 5) : 0;
    if (s.value("coft", false)) change.rotation_bound = s["eps"];
    const Tensor weight = waves(c["shape"].get<std::vector<int64_t>>(), 0.37);
    EXPECT_EQ(problem_of("m", change, "w", weight.sizes()), "");
    expect_same(weight + added_by(change, weight, 1), c);
  }
}

TEST_F(PeftRotations, TheSettingsNextToAFileCount) {
  int64_t read = 0;
  for (const nlohmann::json& c : cases_) {
    if (c["shape"].size() != 4) continue;
    SCOPED_TRACE(c["settings"].dump());
    NamedTensors tensors;
    for (const auto& [role, shape] : c["parts"].items())
      tensors.push_back({convolution_ + "." + role + (role == "oft_R" ? ".weight" : ""), part_of(role, shape.get<std::vector<int64_t>>())});
    const auto got = merged(tensors, c["settings"].dump());
    ASSERT_EQ(got.size(), 1u);
    expect_same(got.at(weight_), c);
    ++read;
  }
  EXPECT_EQ(read, 9);
}

TEST(InputRotation, SaysWhichPartsDoNotFit) {
  const auto problem = [](const std::string& role, const std::vector<int64_t>& shape, const std::vector<int64_t>& weight) {
    WeightChange change;
    change.parts[role] = part_of(role, shape);
    return problem_of("m", change, "w", weight);
  };
  EXPECT_EQ(problem("oft_R", {4, 6}, {8, 16}), "");
  EXPECT_EQ(problem("oft_R", {1, 6}, {8, 16}), "") << "one for all blocks";
  EXPECT_EQ(problem("oft_R", {4, 6}, {8, 20}), "'m': oft_R [4, 6] does not turn 20 inputs of 'w'");
  EXPECT_EQ(problem("oft_R", {4, 5}, {8, 16}), "'m': oft_R [4, 5] does not turn 16 inputs of 'w'");
  EXPECT_EQ(problem("boft_R", {2, 4, 4, 4}, {8, 16}), "");
  EXPECT_EQ(problem("boft_R", {4, 4, 4, 4}, {8, 16}), "'m': boft_R [4, 4, 4, 4] does not turn 16 inputs of 'w'");
  EXPECT_EQ(problem("boft_s", {8, 1}, {8, 16}), "'m' is incomplete: boft_s without the rest of its parts");
}

}  // namespace
}  // namespace brume::test
