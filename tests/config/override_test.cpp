// --set a.b.2.c=value goes the same way as the file.
#include "toys.h"

namespace brume::test {
namespace {

Value with(const std::string& yaml, const std::vector<std::string>& assignments) {
  Value root = parse_yaml(yaml, "x.yaml");
  for (const std::string& a : assignments) apply_override(root, a, "--set");
  return root;
}
Machine machine(const std::string& yaml, const std::vector<std::string>& assignments) { return read(with(yaml, assignments)).machine; }
std::string set_error(const std::string& yaml, const std::string& assignment) {
  return error_of([&] { read(with(yaml, {assignment})); });
}
const std::string plain = "motor: {gear: plain}\n";

TEST(Override, Values) {
  EXPECT_EQ(machine(plain, {"steps=20"}).steps, 20);
  EXPECT_EQ(machine(plain + "steps: 3", {"steps=20", "steps=30"}).steps, 30);
  EXPECT_EQ(machine(plain, {"motor.power=7"}).motor.power, 7);
  EXPECT_EQ(machine(plain, {"cooler.speed=2.5"}).cooler->speed, 2.5);
  EXPECT_EQ(machine(plain, {"label=a=b"}).label, "a=b");
  EXPECT_EQ(machine(plain, {"label='1'"}).label, "1");
  EXPECT_EQ(machine(plain + "label: x", {"label=''"}).label, "");
  EXPECT_EQ(cog(machine("motor: {gear: cog}", {"motor.gear.weights=[1, 2]"}).motor.gear).o.weights, (std::vector<double>{1, 2}));
  EXPECT_FALSE(cog(machine("motor: {gear: cog}", {"motor.gear.bias=null"}).motor.gear).o.bias);
}

TEST(Override, ThroughAPluginsShorthand) {
  EXPECT_EQ(cog(machine("motor: {gear: cog}", {"motor.gear.teeth=44"}).motor.gear).o.teeth, 44);
  EXPECT_EQ(cog(machine("motor: {gear: {type: cog, eta: 0}}", {"motor.gear.teeth=44"}).motor.gear).o.eta, 0);
}

TEST(Override, AnotherPluginReplaces) {
  EXPECT_EQ(machine("motor: {gear: {type: cog, eta: 0}}", {"motor.gear=plain"}).motor.gear->ratio(), 1);
  EXPECT_EQ(cog(machine("motor: {gear: {type: cog, eta: 0}}", {"motor.gear={type: cog, teeth: 9}"}).motor.gear).o.eta, 0.5);
}

TEST(Override, ListsByIndex) {
  const std::string three = plain + "gears: [plain, cog, {type: cog, teeth: 20}]\n";
  EXPECT_EQ(cog(machine(three, {"gears.1.teeth=31"}).gears[1]).o.teeth, 31);
  EXPECT_EQ(cog(machine(three, {"gears.2.teeth=31"}).gears[2]).o.teeth, 31);
  EXPECT_EQ(machine(three, {"gears.1=plain"}).gears[1]->ratio(), 1);
  EXPECT_EQ(cog(machine(plain + "gears: cog", {"gears.0.teeth=31"}).gears.at(0)).o.teeth, 31);
  EXPECT_EQ(set_error(three, "gears.3.teeth=31"), "--set gears.3.teeth=31: gears: no entry 3; the list has 3 (the first is 0)");
  EXPECT_EQ(set_error(three, "gears.last.teeth=31"), "--set gears.last.teeth=31: gears: 'last' is not an index; this is a list of 3");
  EXPECT_EQ(set_error(three, "gears.-1=plain"), "--set gears.-1=plain: gears: '-1' is not an index; this is a list of 3");
}

TEST(Override, MistakesNameTheOption) {
  EXPECT_EQ(set_error(plain, "steps=0"), "--set steps=0: steps = 0 is outside [1, 1000]");
  EXPECT_EQ(set_error(plain, "stpes=3"), "--set stpes=3: unknown key 'stpes'; did you mean 'steps'?");
  EXPECT_EQ(set_error(plain, "steps=\"3\""), "--set steps=\"3\": steps: expected an integer, got '3'");
  EXPECT_EQ(set_error(plain, "motor.gear=coog"), "--set motor.gear=coog: motor.gear: unknown gear 'coog'; did you mean 'cog'?");
  EXPECT_EQ(set_error(plain, "steps="), "--set steps=: steps: expected an integer, got nothing");
  EXPECT_EQ(set_error(plain, "motor.gear.eta=1"), "--set motor.gear.eta=1: motor.gear: unknown key 'eta'; known: type");
  EXPECT_EQ(set_error(plain, "motor=3"), "--set motor=3: motor: expected a map of settings, got '3'");
}

TEST(Override, BadForms) {
  EXPECT_EQ(set_error(plain, "steps"), "--set steps: expected KEY=VALUE, like sample.steps=20");
  EXPECT_EQ(set_error(plain, ""), "--set : expected KEY=VALUE, like sample.steps=20");
  EXPECT_EQ(set_error(plain, "=3"), "--set =3: expected KEY=VALUE, like sample.steps=20");
  EXPECT_EQ(set_error(plain, "motor..power=3"), "--set motor..power=3: 'motor..power' is not a path like sample.steps");
  EXPECT_EQ(set_error(plain, ".steps=3"), "--set .steps=3: '.steps' is not a path like sample.steps");
  EXPECT_EQ(set_error(plain, "steps.=3"), "--set steps.=3: 'steps.' is not a path like sample.steps");
  EXPECT_EQ(set_error(plain, "steps=[1, 2"),
            "--set steps=[1, 2: steps: the value is not YAML: the '[' here is not closed, or a comma is missing after it");
}

TEST(Override, AnOptionsOwnName) {
  Value root = parse_yaml(plain, "x.yaml");
  apply_override(root, "steps", "many", "--steps many");
  EXPECT_EQ(error_of([&] { read(root); }), "--steps many: steps: expected an integer, got 'many'");
}

TEST(Override, OnNothing) {
  for (const char* nothing : {"", "~"}) EXPECT_EQ(machine(nothing, {"motor.gear=plain", "steps=3"}).steps, 3);
}

}  // namespace
}  // namespace brume::test
