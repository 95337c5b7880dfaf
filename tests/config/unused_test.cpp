// A value that the user gives and that has no effect is warned of; a default never is.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "toys.h"

namespace brume::test {
namespace {

/// A gear some of whose options matter only with others.
class Clutch final : public Gear {
 public:
  struct Options {
    double slip = 0, wear = 1;
    std::optional<int64_t> seed;
    std::vector<double> weights{1};
    std::string finish = "rough";
    void declare(Fields& f) {
      f.field("slip", slip, "0 = none", within(0, 1));
      f.field("wear", wear, "of the slip", at_least(0));
      f.field("seed", seed, "of the wear");
      f.field("weights", weights, "of the parts");
      f.choice("finish", finish, "of the surface", {"rough", "polished"});
      f.unused(slip == 0, {"wear", "seed", "weights", "finish"}, "slip is 0");
    }
  };
  explicit Clutch(const Options&) {}
  double ratio() const override { return 1; }
};

class Unused : public testing::Test {
 protected:
  Unused() {
    registry_.add<Gear, Clutch>("clutch", "a gear that may slip");
    registry_.on_warning([this](const Problem& warning) { warnings_.push_back(warning.text()); });
  }
  std::string said(const Value& value) {
    warnings_.clear();
    create<Gear>(registry_, value);
    return fmt::format("{}", fmt::join(warnings_, "\n"));
  }
  std::string said(const std::string& yaml) { return said(parse_yaml(yaml, "x.yaml")); }

  Registry registry_ = toys();
  std::vector<std::string> warnings_;
};

TEST_F(Unused, ValuesAreWarnedOf) {
  EXPECT_EQ(said("type: clutch\nwear: 2\n"), "x.yaml:2:7: gear: wear has no effect, as slip is 0");
  EXPECT_EQ(said("{type: clutch, seed: 3, weights: [2], finish: polished}"),
            "x.yaml:1:22: gear: seed has no effect, as slip is 0\n"
            "x.yaml:1:34: gear: weights has no effect, as slip is 0\n"
            "x.yaml:1:47: gear: finish has no effect, as slip is 0");
}

TEST_F(Unused, ValuesThatCountOrAreTheDefaultAreNot) {
  EXPECT_EQ(said("{type: clutch, slip: 0.5, wear: 2, seed: 3, weights: [2], finish: polished}"), "");
  EXPECT_EQ(said("clutch"), "");
  EXPECT_EQ(said("{type: clutch, wear: 1, seed: null, weights: [1], finish: rough}"), "");
}

TEST_F(Unused, ValuesOfAModelsFileAreNot) { EXPECT_EQ(said(parse_stored_yaml("{type: clutch, wear: 2}", "model.safetensors")), ""); }

TEST_F(Unused, RulesStandInTheDescription) {
  EXPECT_NE(describe(registry_, "gear", "clutch").find("rule: wear: has no effect if slip is 0"), std::string::npos);
}

}  // namespace
}  // namespace brume::test
