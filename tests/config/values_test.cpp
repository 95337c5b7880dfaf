// What is read: defaults, optional values, sections, shorthands and the resolved tree.
#include <cmath>

#include "toys.h"

namespace brume::test {
namespace {

TEST(Values, AbsentFieldsKeepTheirDefaults) {
  const Read r = read("motor: {gear: cog}");
  EXPECT_EQ(r.machine.steps, 50);
  EXPECT_EQ(r.machine.motor.power, 5);
  const Cog::Options& o = cog(r.machine.motor.gear).o;
  EXPECT_EQ(o.teeth, 12);
  EXPECT_EQ(o.bias, 0.25);
  EXPECT_FALSE(o.seed);
  EXPECT_EQ(o.sizes, (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(o.finish, Cog::Finish::rough);
}

TEST(Values, EveryTypeIsRead) {
  const Cog::Options o = cog(read("motor:\n"
                                  "  gear:\n"
                                  "    type: cog\n"
                                  "    teeth: +20\n"
                                  "    eta: 1e-3\n"
                                  "    rho: .inf\n"
                                  "    locked: true\n"
                                  "    name: two words\n"
                                  "    file: ../a b.png\n"
                                  "    seed: 0\n"
                                  "    bias: -1\n"
                                  "    sizes: [7]\n"
                                  "    weights: [1, 2.5, 1e3]\n"
                                  "    words: [a, 'b c', \"\"]\n"
                                  "    finish: polished\n")
                                 .machine.motor.gear)
                             .o;
  EXPECT_EQ(o.teeth, 20);
  EXPECT_EQ(o.eta, 1e-3);
  EXPECT_TRUE(std::isinf(o.rho));
  EXPECT_TRUE(o.locked);
  EXPECT_EQ(o.name, "two words");
  EXPECT_EQ(o.file, "../a b.png");
  EXPECT_EQ(o.seed, 0);
  EXPECT_EQ(o.bias, -1);
  EXPECT_EQ(o.sizes, std::vector<int64_t>{7});
  EXPECT_EQ(o.weights, (std::vector<double>{1, 2.5, 1000}));
  EXPECT_EQ(o.words, (std::vector<std::string>{"a", "b c", ""}));
  EXPECT_EQ(o.finish, Cog::Finish::polished);
}

TEST(Values, NullEmptiesAnOptional) {
  EXPECT_FALSE(cog(read("motor: {gear: {type: cog, bias: ~}}").machine.motor.gear).o.bias);
  EXPECT_FALSE(cog(read("motor: {gear: {type: cog, bias: null}}").machine.motor.gear).o.bias);
  EXPECT_EQ(mistakes("motor: {gear: {type: cog, bias: 'null'}}"), "x.yaml:1:33: motor.gear: bias: expected a number, got 'null'");
}

TEST(Values, SectionsAbsentAndPresent) {
  EXPECT_FALSE(read("motor: {gear: plain}").machine.cooler);
  EXPECT_FALSE(read("motor: {gear: plain}\ncooler: ~").machine.cooler);
  EXPECT_EQ(read("motor: {gear: plain}\ncooler: {}").machine.cooler->speed, 1);
  EXPECT_EQ(read("motor: {gear: plain}\ncooler: {speed: 2}").machine.cooler->speed, 2);
}

TEST(Values, AListOfPluginsMayBeOne) {
  EXPECT_EQ(read("motor: {gear: plain}\ngears: cog").machine.gears.size(), 1u);
  EXPECT_EQ(read("motor: {gear: plain}\ngears: {type: cog, teeth: 30}").machine.gears.size(), 1u);
  EXPECT_EQ(read("motor: {gear: plain}\ngears: []").machine.gears.size(), 0u);
  EXPECT_EQ(read("motor: {gear: plain}\ngears: ~").machine.gears.size(), 0u);
}

TEST(Values, FallbackPlugin) {
  const auto second = [](const std::string& more) {
    const Read r = read("motor: {gear: {type: chain, first: plain" + more + "}}");
    return dynamic_cast<const Chain&>(*r.machine.motor.gear).o.second->ratio();
  };
  EXPECT_EQ(second(""), 1);
  EXPECT_EQ(second(", second: ~"), 1);
  EXPECT_EQ(second(", second: {type: cog, teeth: 40}"), 40);
}

TEST(Values, TheResolvedTreeHasEveryKey) {
  EXPECT_EQ(dump_yaml(read("motor: {gear: {type: chain, first: {type: cog, eta: 0}}}\nsteps: 7").resolved),
            "motor:\n"
            "  power: 5\n"
            "  gear:\n"
            "    type: chain\n"
            "    first:\n"
            "      type: cog\n"
            "      teeth: 12\n"
            "      eta: 0\n"
            "      rho: 7\n"
            "      locked: false\n"
            "      name: cog\n"
            "      file: \"\"\n"
            "      seed: null\n"
            "      bias: 0.25\n"
            "      sizes: [1, 2]\n"
            "      weights: []\n"
            "      words: []\n"
            "      finish: rough\n"
            "    second:\n"
            "      type: plain\n"
            "    rest: []\n"
            "steps: 7\n"
            "label: \"\"\n"
            "gears: []\n");
}

}  // namespace
}  // namespace brume::test
