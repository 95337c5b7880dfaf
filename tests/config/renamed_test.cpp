// Former names of keys, plugins and kinds are read, with one warning per key that names the place, the former name and the name.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brume/train/options.h"
#include "json_schema.h"
#include "toys.h"

namespace brume::test {
namespace {

/// A gear whose keys have had other names.
class Wheel final : public Gear {
 public:
  struct Options {
    int64_t spokes = 8;
    std::shared_ptr<const Gear> hub;
    std::vector<std::shared_ptr<const Gear>> spare;
    void declare(Fields& f) {
      f.renamed("rods", "spokes");
      f.field("spokes", spokes, "how many", within(1, 100));
      f.renamed("middle", "hub");
      f.field("hub", hub, "at the centre", "plain");
      f.renamed("others", "spare");
      f.field("spare", spare, "to replace it");
      f.require(spokes != 13, "spokes", "must be a lucky number", fmt::format("{} is unlucky", spokes));
    }
  };
  explicit Wheel(const Options& o) : o(o) {}
  double ratio() const override { return double(o.spokes); }
  Options o;
};

class Renamed : public testing::Test {
 protected:
  Renamed() {
    registry_.add<Gear, Wheel>("wheel", "a gear with former names");
    registry_.renamed("gear", "disc", "wheel");
    registry_.renamed_kind("cogwheel", "gear");
    registry_.on_warning([this](const Problem& warning) { warnings_.push_back(warning.text()); });
  }
  const Wheel& wheel(const Value& value) {
    warnings_.clear();
    made_ = create<Gear>(registry_, value);
    return dynamic_cast<const Wheel&>(*made_);
  }
  const Wheel& wheel(const std::string& yaml) { return wheel(parse_yaml(yaml, "x.yaml")); }
  std::string said() const { return fmt::format("{}", fmt::join(warnings_, "\n")); }
  std::string mistakes(const std::string& yaml) {
    return error_of([&] { wheel(yaml); });
  }

  Registry registry_ = toys();
  std::vector<std::string> warnings_;
  std::shared_ptr<const Gear> made_;
};

TEST_F(Renamed, KeysOfEveryShape) {
  const Wheel& w = wheel("type: wheel\nrods: 5\nmiddle: {type: cog, teeth: 9}\nothers: [plain, plain]\n");
  EXPECT_EQ(w.o.spokes, 5);
  EXPECT_EQ(w.o.hub->ratio(), 9);
  EXPECT_EQ(w.o.spare.size(), 2);
  EXPECT_EQ(said(),
            "x.yaml:2:1: gear.rods is now spokes\n"
            "x.yaml:3:1: gear.middle is now hub\n"
            "x.yaml:4:1: gear.others is now spare");
}

TEST_F(Renamed, NewNamesAndAbsentKeysSayNothing) {
  EXPECT_EQ(wheel("{type: wheel, spokes: 5}").o.spokes, 5);
  EXPECT_EQ(said(), "");
  EXPECT_EQ(wheel("wheel").o.spokes, 8);
  EXPECT_EQ(said(), "");
}

TEST_F(Renamed, BothNamesInOneFileAreAMistake) {
  EXPECT_EQ(mistakes("{type: wheel, spokes: 5, rods: 6}"), "x.yaml:1:26: gear.rods is now spokes, which is given as well; leave one out");
  EXPECT_EQ(said(), "");
}

TEST_F(Renamed, MistakesInAFormerKeyNameItsPlace) {
  EXPECT_EQ(mistakes("{type: wheel, rods: 0}"), "x.yaml:1:21: gear: spokes = 0 is outside [1, 100]");
  EXPECT_EQ(mistakes("{type: wheel, rods: 13}"), "x.yaml:1:21: gear: spokes: 13 is unlucky");
  EXPECT_EQ(mistakes("{type: wheel, rod: 1}"), "x.yaml:1:15: gear: unknown key 'rod'; known: type, spokes, hub, spare");
}

TEST_F(Renamed, TheCommandLineIsLaidOverTheFile) {
  const auto with = [&](const std::string& yaml, const std::vector<std::string>& assignments) {
    Value root = parse_yaml(yaml, "x.yaml");
    for (const std::string& a : assignments) apply_override(root, a, "--set");
    return root;
  };
  EXPECT_EQ(wheel(with("{type: wheel, spokes: 5}", {"rods=6"})).o.spokes, 6);
  EXPECT_EQ(said(), "--set rods=6: gear.rods is now spokes");
  EXPECT_EQ(wheel(with("{type: wheel, rods: 5}", {"spokes=6"})).o.spokes, 6);
  EXPECT_EQ(said(), "x.yaml:1:15: gear.rods is now spokes");
  EXPECT_EQ(wheel(with("{type: wheel, middle: {type: cog, teeth: 9, eta: 0}}", {"hub.teeth=11"})).o.hub->ratio(), 11);
  EXPECT_EQ(cog(dynamic_cast<const Wheel&>(*made_).o.hub).o.eta, 0) << "the rest of the file's plugin stays";
  EXPECT_EQ(wheel(with("{type: wheel}", {"rods=6", "spokes=7"})).o.spokes, 7) << "the later one counts";
}

TEST_F(Renamed, Plugins) {
  EXPECT_EQ(wheel("{type: disc, spokes: 5}").o.spokes, 5);
  EXPECT_EQ(said(), "x.yaml:1:8: gear: gear 'disc' is now 'wheel'");
  EXPECT_EQ(wheel("disc").o.spokes, 8);
  EXPECT_EQ(said(), "x.yaml:1:1: gear: gear 'disc' is now 'wheel'");
  Value resolved;
  EXPECT_EQ(read_plugin(registry_, "gear", Value::text("disc"), "gear", &resolved).type, "wheel");
  EXPECT_EQ(resolved.find("type")->scalar, "wheel");
  EXPECT_EQ(describe(registry_, "gear", "disc"), describe(registry_, "gear", "wheel"));
}

TEST_F(Renamed, APluginMayTakeAFormerName) {
  registry_.add<Gear, Wheel>("disc", "another gear");
  EXPECT_EQ(registry_.current("gear", "disc"), "disc");
  EXPECT_TRUE(registry_.former_names("gear", "wheel").empty());
}

TEST_F(Renamed, Kinds) {
  EXPECT_EQ(registry_.names("cogwheel"), registry_.names("gear"));
  EXPECT_EQ(&registry_.entry("cogwheel", "disc"), &registry_.entry("gear", "wheel"));
  EXPECT_EQ(registry_.kinds(), std::vector<std::string>{"gear"});
}

TEST_F(Renamed, AModelsFileIsReadWithoutWarnings) {
  EXPECT_EQ(wheel(parse_stored_yaml("{type: disc, rods: 5}", "model.safetensors (model)")).o.spokes, 5);
  EXPECT_EQ(said(), "");
}

TEST_F(Renamed, DescribeShowsNamesAndRulesWithoutValues) {
  const std::string text = describe(registry_, "gear", "wheel");
  for (const char* former : {"rods", "middle", "others", "disc", "unlucky"}) EXPECT_EQ(text.find(former), std::string::npos) << former;
  EXPECT_NE(text.find("  rule: spokes: must be a lucky number\n"), std::string::npos) << text;
}

TEST_F(Renamed, TheSchemaAcceptsFormerNames) {
  const JsonSchema schema(Json::parse(json_schema(registry_, [](Fields& f) {
    Machine machine;
    machine.declare(f);
  })));
  const auto wrong = [&](const std::string& yaml) {
    return fmt::format("{}", fmt::join(schema.check(to_json(parse_yaml(yaml, "x"))), "\n"));
  };
  EXPECT_EQ(wrong("motor: {gear: {type: disc, rods: 5}}"), "");
  EXPECT_EQ(wrong("motor: {gear: {type: wheel, spokes: 5}}"), "");
  EXPECT_EQ(wrong("motor: {gear: disc}"), "");
  EXPECT_NE(wrong("motor: {gear: {type: disc, rods: 500}}"), "");
  EXPECT_NE(wrong("motor: {gear: {type: disk}}"), "");
}

/// What brume's own registry says of a configuration.
std::string said_of(const std::string& yaml, Value* resolved = nullptr) {
  Registry registry = builtins();
  std::vector<std::string> warnings;
  registry.on_warning([&](const Problem& warning) { warnings.push_back(warning.text()); });
  read_configuration(registry, parse_yaml(yaml, "my.yaml"), resolved);
  return fmt::format("{}", fmt::join(warnings, "\n"));
}

TEST(RenamedKeys, OfAModel) {
  Value resolved;
  EXPECT_EQ(said_of("model:\n  network: {type: unet, channels: 32}\n  conditioner: {type: several, of: [{type: class_label, classes: 3}]}\n"
                    "sample:\n  told_time: nearest\n",
                    &resolved),
            "my.yaml:3:23: model.conditioner: conditioner 'several' is now 'composite'\n"
            "my.yaml:5:3: sample.told_time is now timestep_rounding");
  EXPECT_EQ(nearest(resolved, "sample.timestep_rounding").scalar, "nearest");
  EXPECT_EQ(nearest(resolved, "model.conditioner.type").scalar, "composite");
  EXPECT_EQ(resolved.find("sample")->find("told_time"), nullptr);
}

TEST(RenamedKeys, OfAnAutoencoder) {
  Value resolved;
  EXPECT_EQ(said_of("autoencoder:\n  image: {channels: 1, height: 16, width: 16}\n  network: {type: kl, channels: 32}\n"
                    "train:\n  data: shapes\n  loss: {perceptual: none}\n",
                    &resolved),
            "my.yaml:6:10: train.loss.perceptual is now perceptual_loss");
  EXPECT_EQ(nearest(resolved, "train.loss.perceptual_loss.type").scalar, "none");
}

TEST(RenamedKeys, KindsAndRules) {
  EXPECT_EQ(builtins().names("perceptual"), builtins().names("perceptual_loss"));
  EXPECT_EQ(error_of([] { said_of("classifier: {network: unet_encoder, classes: 3, class_names: [a, b]}"); }),
            "my.yaml:1:62: classifier: class_names: 2 names for 3 classes");
}

}  // namespace
}  // namespace brume::test
