// Every mistake in a configuration is reported with its place, its path, what is allowed and the nearest right word.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "brume/config/plugin_loader.h"
#include "brume/train/options.h"
#include "toys.h"

namespace brume::test {
namespace {

TEST(Errors, UnknownPlugin) {
  EXPECT_EQ(mistakes("motor: {gear: coog}"), "x.yaml:1:15: motor.gear: unknown gear 'coog'; did you mean 'cog'?");
  EXPECT_EQ(mistakes("motor: {gear: {type: zebra}}"), "x.yaml:1:22: motor.gear: unknown gear 'zebra'; known: chain, cog, plain");
}

TEST(Errors, MisspeltKey) {
  EXPECT_EQ(mistakes("motor:\n  gear: {type: cog, rhoo: 3}"), "x.yaml:2:21: motor.gear: unknown key 'rhoo'; did you mean 'rho'?");
  EXPECT_EQ(mistakes("motor: {gear: plain}\nstps: 3"), "x.yaml:2:1: unknown key 'stps'; did you mean 'steps'?");
  EXPECT_EQ(mistakes("motor: {gear: plain}\nxylophone: 3"),
            "x.yaml:2:1: unknown key 'xylophone'; known: motor, cooler, steps, label, gears");
  EXPECT_EQ(mistakes("motor: {gear: {type: plain, zzz: 1}}"), "x.yaml:1:29: motor.gear: unknown key 'zzz'; known: type");
}

TEST(Errors, WrongType) {
  const auto cog = [](const std::string& field) { return mistakes("motor: {gear: {type: cog, " + field + "}}"); };
  EXPECT_EQ(cog("teeth: many"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got 'many'");
  EXPECT_EQ(cog("teeth: 3.5"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got '3.5'");
  EXPECT_EQ(cog("teeth: 1e3"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got '1e3'");
  EXPECT_EQ(cog("teeth: 99999999999999999999"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got '99999999999999999999'");
  EXPECT_EQ(cog("teeth: +-5"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got '+-5'");
  EXPECT_EQ(cog("teeth: [3]"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got a list");
  EXPECT_EQ(cog("teeth: {a: 3}"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got a map");
  EXPECT_EQ(cog("teeth: "), "x.yaml:1:34: motor.gear: teeth: expected an integer, got nothing");
  EXPECT_EQ(cog("eta: 0.5x"), "x.yaml:1:32: motor.gear: eta: expected a number, got '0.5x'");
  EXPECT_EQ(cog("eta: .nan"), "x.yaml:1:32: motor.gear: eta: expected a number, got '.nan'");
  EXPECT_EQ(cog("eta: nan"), "x.yaml:1:32: motor.gear: eta: expected a number, got 'nan'");
  EXPECT_EQ(cog("locked: yes"), "x.yaml:1:35: motor.gear: locked: expected true or false, got 'yes'");
  EXPECT_EQ(cog("locked: 1"), "x.yaml:1:35: motor.gear: locked: expected true or false, got '1'");
  EXPECT_EQ(cog("name: [a]"), "x.yaml:1:33: motor.gear: name: expected a string, got a list");
  EXPECT_EQ(cog("name: ~"), "x.yaml:1:33: motor.gear: name: expected a string, got nothing");
  EXPECT_EQ(cog("sizes: 3"), "x.yaml:1:34: motor.gear: sizes: expected a list of integers, got '3'");
  EXPECT_EQ(cog("sizes: [3, x]"), "x.yaml:1:38: motor.gear: sizes: expected an integer, got 'x'");
  EXPECT_EQ(cog("weights: {a: 1}"), "x.yaml:1:36: motor.gear: weights: expected a list of numbers, got a map");
  EXPECT_EQ(cog("words: w"), "x.yaml:1:34: motor.gear: words: expected a list of strings, got 'w'");
  EXPECT_EQ(cog("words: [[a]]"), "x.yaml:1:35: motor.gear: words: expected a string, got a list");
}

TEST(Errors, QuotedNumbersAreStrings) {
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, teeth: \"3\"}}"), "x.yaml:1:34: motor.gear: teeth: expected an integer, got '3'");
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, eta: '0.5'}}"), "x.yaml:1:32: motor.gear: eta: expected a number, got '0.5'");
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, locked: 'true'}}"), "x.yaml:1:35: motor.gear: locked: expected true or false, got 'true'");
  EXPECT_EQ(cog(read("motor: {gear: {type: cog, name: \"007\"}}").machine.motor.gear).o.name, "007");
  EXPECT_EQ(cog(read("motor: {gear: {type: cog, name: 007}}").machine.motor.gear).o.name, "007");
}

TEST(Errors, OutOfRange) {
  const auto cog = [](const std::string& field) { return mistakes("motor: {gear: {type: cog, " + field + "}}"); };
  EXPECT_EQ(cog("eta: 1.5"), "x.yaml:1:32: motor.gear: eta = 1.5 is outside [0, 1]");
  EXPECT_EQ(cog("teeth: 0"), "x.yaml:1:34: motor.gear: teeth = 0 is outside [1, 100]");
  EXPECT_EQ(cog("rho: 0"), "x.yaml:1:32: motor.gear: rho = 0 is outside (0, inf]");
  EXPECT_EQ(cog("sizes: [1, 0]"), "x.yaml:1:38: motor.gear: sizes = 0 is outside [1, inf]");
  EXPECT_EQ(cog("seed: -1"), "x.yaml:1:33: motor.gear: seed = -1 is outside [0, inf]");
  EXPECT_EQ(cog("bias: -.inf"), "x.yaml:1:33: motor.gear: bias = -.inf is outside [-1, 1]");
}

TEST(Errors, UnknownChoice) {
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, finish: polishd}}"),
            "x.yaml:1:35: motor.gear: finish: unknown value 'polishd'; did you mean 'polished'?");
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, finish: gold}}"),
            "x.yaml:1:35: motor.gear: finish: unknown value 'gold'; known: rough, polished");
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, finish: [rough]}}"), "x.yaml:1:35: motor.gear: finish: expected a string, got a list");
}

TEST(Errors, RuleBetweenFields) {
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, teeth: 4}}"), "x.yaml:1:34: motor.gear: teeth: must be more than ten times eta");
  EXPECT_EQ(mistakes("motor:\n  gear:\n    {type: cog, eta: 1, teeth: 10}"),
            "x.yaml:3:32: motor.gear: teeth: must be more than ten times eta");
  // Where the key of the rule is not written, it points at the plugin; a rule says nothing while its fields are wrong.
  EXPECT_EQ(mistakes("motor: {gear: {type: chain, first: {type: cog, teeth: 2, eta: 7}}}"),
            "x.yaml:1:63: motor.gear.first: eta = 7 is outside [0, 1]");
}

TEST(Errors, DuplicateKey) {
  EXPECT_EQ(mistakes("steps: 3\nmotor: {gear: plain}\nsteps: 4"), "x.yaml:3:1: key 'steps' is given twice; the first is at line 1");
  EXPECT_EQ(mistakes("motor:\n  gear: plain\n  gear: cog\nsteps: 1\nsteps: 2"),
            "x.yaml:3:3: key 'gear' is given twice; the first is at line 2\n"
            "x.yaml:5:1: key 'steps' is given twice; the first is at line 4");
}

TEST(Errors, MissingPlugin) {
  EXPECT_EQ(mistakes("motor: {power: 3}"), "x.yaml:1:8: motor: missing 'gear' (a gear: chain, cog, plain)");
  EXPECT_EQ(mistakes("steps: 3"), "x.yaml:1:1: motor: missing 'gear' (a gear: chain, cog, plain)");
  EXPECT_EQ(mistakes("motor: {gear: {teeth: 3}}"), "x.yaml:1:15: motor.gear: missing 'type' (one of: chain, cog, plain)");
  EXPECT_EQ(mistakes("motor: {gear: chain}"), "x.yaml:1:15: motor.gear: missing 'first' (a gear: chain, cog, plain)");
  EXPECT_EQ(mistakes("motor: {gear: [plain]}"), "x.yaml:1:15: motor.gear: expected the name of a gear, got a list");
  EXPECT_EQ(mistakes("motor: {gear: {type: [plain]}}"), "x.yaml:1:22: motor.gear: expected the name of a gear, got a list");
}

TEST(Errors, MapsAndLists) {
  EXPECT_EQ(mistakes("- motor"), "x.yaml:1:1: expected a map of settings, got a list");
  EXPECT_EQ(mistakes("motor"), "x.yaml:1:1: expected a map of settings, got 'motor'");
  EXPECT_EQ(mistakes("motor: [plain]"), "x.yaml:1:8: motor: expected a map of settings, got a list");
  EXPECT_EQ(mistakes("motor: {gear: plain}\ncooler: 5"), "x.yaml:2:9: cooler: expected a map of settings, got '5'");
  EXPECT_EQ(mistakes("motor: {gear: plain}\ngears: [plain, {type: cog, teth: 3}, nut]"),
            "x.yaml:2:28: gears.1: unknown key 'teth'; did you mean 'teeth'?\n"
            "x.yaml:2:38: gears.2: unknown gear 'nut'; known: chain, cog, plain");
}

TEST(Errors, AConstructorsMistakeIsPlaced) {
  EXPECT_EQ(mistakes("motor:\n  gear: {type: cog, name: broken}"), "x.yaml:2:9: motor.gear: a broken cog cannot be made");
}

TEST(Errors, AllOfAFileInTheOrderOfItsLines) {
  EXPECT_EQ(mistakes("steps: none\n"
                     "gears:\n"
                     "  - {type: cog, teeth: 1000}\n"
                     "  - coog\n"
                     "colour: red\n"
                     "motor:\n"
                     "  gear:\n"
                     "    type: cog\n"
                     "    rhoo: 4\n"
                     "    eta: 3\n"
                     "  powr: 4\n"),
            "x.yaml:1:8: steps: expected an integer, got 'none'\n"
            "x.yaml:3:24: gears.0: teeth = 1000 is outside [1, 100]\n"
            "x.yaml:4:5: gears.1: unknown gear 'coog'; did you mean 'cog'?\n"
            "x.yaml:5:1: unknown key 'colour'; did you mean 'cooler'?\n"
            "x.yaml:9:5: motor.gear: unknown key 'rhoo'; did you mean 'rho'?\n"
            "x.yaml:10:10: motor.gear: eta = 3 is outside [0, 1]\n"
            "x.yaml:11:3: motor: unknown key 'powr'; did you mean 'power'?");
}

TEST(Errors, EachIsAProblemOfItsOwn) {
  try {
    read("steps: 0\nzzz: 1\nmotor: {gear: plain}");
    FAIL();
  } catch (const ConfigError& e) {
    ASSERT_EQ(e.problems().size(), 2u);
    EXPECT_EQ(e.problems()[0].place.line, 1);
    EXPECT_EQ(e.problems()[0].place.column, 8);
    EXPECT_EQ(*e.problems()[1].place.file, "x.yaml");
    EXPECT_EQ(e.problems()[1].path, "");
  }
}

// The three lines of the design, on the real plugins.
TEST(Errors, OfTheRealConfiguration) {
  Registry registry;
  register_builtins(registry);
  const auto said = [&](const std::string& yaml) {
    return error_of([&] { read_configuration(registry, parse_yaml(yaml, "configs/x.yaml")); });
  };
  const auto known = [&](const char* kind) { return fmt::format("{}", fmt::join(registry.names(kind), ", ")); };
  EXPECT_EQ(said("model: {network: unet}\nsample: {sampler: ddmi}"),
            "configs/x.yaml:2:19: sample.sampler: unknown sampler 'ddmi'; did you mean 'ddim'?");
  EXPECT_EQ(said("model: {network: unet}\nsample:\n  spacing: {type: karras, rhoo: 3}\n  sampler: {type: ddim, eta: 1.5}"),
            "configs/x.yaml:3:27: sample.spacing: unknown key 'rhoo'; did you mean 'rho'?\n"
            "configs/x.yaml:4:30: sample.sampler: eta = 1.5 is outside [0, 1]");
  EXPECT_EQ(said(""),
            "configs/x.yaml:1:1: model: missing; a configuration has a 'model' (of diffusion), a 'classifier' or an 'autoencoder'");
  EXPECT_EQ(said("model: {}"), "configs/x.yaml:1:8: model: missing 'network' (a network: " + known("network") + ")");
  EXPECT_EQ(said("model: {network: unet}\ntrain: {steps: 3}"),
            "configs/x.yaml:2:8: train: missing 'data' (a dataset: " + known("dataset") + ")");
  EXPECT_EQ(said("model: {network: {type: unet, multipliers: [1, 2, 2, 2], attention_resolutions: [7]}}"),
            "configs/x.yaml:1:18: model.network: attention_resolutions: no level has height 7; the levels have 32, 16, 8, 4");
  EXPECT_EQ(said("model: {network: unet, conditioner: {type: class_label, classes: 3}, class_names: [a, b]}"),
            "model.class_names has 2 names and model.conditioner 3 classes");
  EXPECT_EQ(said("model: {network: unet}\nplugins: [nowhere.so]"), "configs/x.yaml:2:11: plugins: nowhere.so: no such plugin library");
}

}  // namespace
}  // namespace brume::test
