// include: a part laid under the keys of the same map.
#include "support/tempdir.h"
#include "toys.h"

namespace brume::test {
namespace {

class Include : public testing::Test {
 protected:
  std::string part(const std::string& name, const std::string& text) { return folder_.file(name, text); }
  Machine machine(const std::string& text) { return read(load_yaml(part("main.yaml", text))).machine; }
  std::string error(const std::string& text) {
    return without(error_of([&] { machine(text); }), folder_);
  }
  std::string dump(const std::string& text) { return dump_yaml(load_yaml(part("main.yaml", text))); }
  TempFolder folder_;
};

TEST_F(Include, KeysBesideItWin) {
  part("base.yaml", "steps: 10\nlabel: base\nmotor: {power: 3, gear: {type: cog, teeth: 20, eta: 0}}\n");
  const Machine m = machine("include: base.yaml\nlabel: mine\nmotor: {gear: {teeth: 30}}\n");
  EXPECT_EQ(m.steps, 10);
  EXPECT_EQ(m.label, "mine");
  EXPECT_EQ(m.motor.power, 3);
  EXPECT_EQ(cog(m.motor.gear).o.teeth, 30);
  EXPECT_EQ(cog(m.motor.gear).o.eta, 0);
}

TEST_F(Include, AChangeOfTypeReplaces) {
  part("base.yaml", "motor: {gear: {type: cog, teeth: 20}}\ngears: [cog, cog]\n");
  EXPECT_EQ(dump("include: base.yaml\nmotor: {gear: {type: chain, first: cog}}\n"),
            "motor:\n  gear:\n    type: chain\n    first: cog\ngears: [cog, cog]\n");
  EXPECT_EQ(dump("include: base.yaml\nmotor: {gear: plain}\n"), "motor:\n  gear: plain\ngears: [cog, cog]\n");
  EXPECT_EQ(dump("include: base.yaml\nmotor: {gear: {type: cog, eta: 0}}\n"),
            "motor:\n  gear:\n    type: cog\n    teeth: 20\n    eta: 0\ngears: [cog, cog]\n");
  EXPECT_EQ(dump("include: base.yaml\ngears: [plain]\n"), "motor:\n  gear:\n    type: cog\n    teeth: 20\ngears: [plain]\n");
}

TEST_F(Include, KeysOfAPluginGivenByItsName) {
  part("base.yaml", "motor: {gear: cog}\n");
  EXPECT_EQ(cog(machine("include: base.yaml\nmotor: {gear: {teeth: 30}}\n").motor.gear).o.teeth, 30);
}

TEST_F(Include, InAnyMap) {
  part("parts/gear.yaml", "type: cog\nteeth: 77\n");
  EXPECT_EQ(cog(machine("motor:\n  gear: {include: gear.yaml, eta: 1}\n").motor.gear).o.teeth, 77);
  EXPECT_EQ(cog(machine("motor: {gear: plain}\ngears: [{include: gear.yaml}]\n").gears.at(0)).o.teeth, 77);
}

TEST_F(Include, PartsAreLookedForUpwards) {
  part("parts/gear.yaml", "type: cog\nteeth: 77\n");
  const std::string deep = part("experiments/a/main.yaml", "motor: {gear: {include: gear.yaml}}");
  EXPECT_EQ(cog(read(load_yaml(deep)).machine.motor.gear).o.teeth, 77);
}

TEST_F(Include, AListIsLaidInItsOrder) {
  part("one.yaml", "steps: 1\nlabel: one\n");
  part("two.yaml", "steps: 2\nmotor: {gear: plain}\n");
  const Machine m = machine("include: [one.yaml, two.yaml]\n");
  EXPECT_EQ(m.steps, 2);
  EXPECT_EQ(m.label, "one");
}

TEST_F(Include, APartMayIncludeAnother) {
  part("one.yaml", "include: two.yaml\nsteps: 1\n");
  part("two.yaml", "steps: 2\nmotor: {gear: plain}\n");
  EXPECT_EQ(machine("include: one.yaml").steps, 1);
  EXPECT_EQ(machine("include: [one.yaml, two.yaml]").steps, 2);  // twice is no cycle
}

TEST_F(Include, Mistakes) {
  part("list.yaml", "[1, 2]\n");
  part("me.yaml", "steps: 1\ninclude: you.yaml\n");
  part("you.yaml", "include: me.yaml\n");
  EXPECT_EQ(error("steps: 3\ninclude: list.yaml\n"), "main.yaml:2:10: include: 'list.yaml' is not a map");
  EXPECT_EQ(error("include: {a: 1}\n"), "main.yaml:1:10: include: expected the name of a file, got a map");
  EXPECT_EQ(error("include: ~\n"), "main.yaml:1:10: include: expected the name of a file, got nothing");
  EXPECT_EQ(error("include: [me.yaml]\n"), "you.yaml:1:10: include: 'me.yaml' includes itself");
  EXPECT_EQ(error("include: main.yaml\n"), "main.yaml:1:10: include: 'main.yaml' includes itself");
  const std::string missing = error("include: nowhere.yaml\n");
  EXPECT_EQ(missing.substr(0, missing.find(',')), "main.yaml:1:10: include: no file 'nowhere.yaml' (looked for nowhere.yaml");
  EXPECT_NE(missing.find(", parts/nowhere.yaml, "), std::string::npos) << missing;
}

TEST_F(Include, MistakesOfAPartNameThePart) {
  part("base.yaml", "motor:\n  gear: {type: cog, teeht: 3}\nsteps: 0\n");
  EXPECT_EQ(error("label: [1]\ninclude: base.yaml\n\nzzz: 3\n"),
            "base.yaml:2:21: motor.gear: unknown key 'teeht'; did you mean 'teeth'?\n"
            "base.yaml:3:8: steps = 0 is outside [1, 1000]\n"
            "main.yaml:1:8: label: expected a string, got a list\n"
            "main.yaml:4:1: unknown key 'zzz'; known: motor, cooler, steps, label, gears");
}

}  // namespace
}  // namespace brume::test
