// Sweeps: what they expand to, and every mistake at once.
#include <gtest/gtest.h>

#include <algorithm>

#include "brume/config/inline_yaml.h"
#include "brume/config/plugin_loader.h"
#include "brume/config/yaml.h"
#include "brume/experiments/sweep.h"
#include "brume/experiments/sweep_section.h"
#include "support/registry.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

const std::string tiny = R"(
model:
  image: {channels: 1, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1], blocks: 1, groups: 4}
train:
  data: shapes
  steps: 4
  optimizer: adamw
)";

Sweep expanded(const std::string& sweep) { return expand_sweep(parse_yaml(tiny + "sweep:\n" + sweep, "s.yaml")); }

std::vector<std::string> names(const Sweep& sweep) {
  std::vector<std::string> all;
  for (const SweepRun& run : sweep.runs) all.push_back(run.name);
  return all;
}

std::string error_of_sweep(const std::string& sweep) {
  return error_of([&] {
    Registry registry;
    register_builtins(registry);
    check_runs(registry, expanded(sweep), ".");
  });
}

using Names = std::vector<std::string>;

TEST(Sweep, TakesEveryCombination) {
  const Sweep sweep = expanded("  grid: {train.optimizer.lr: [1.0e-3, 0.1], model.parameterization: [v, eps]}\n  repeat: 2\n");
  EXPECT_EQ(names(sweep),
            (Names{"lr=1.0e-3,parameterization=v,seed=0", "lr=1.0e-3,parameterization=v,seed=1", "lr=1.0e-3,parameterization=eps,seed=0",
                   "lr=1.0e-3,parameterization=eps,seed=1", "lr=0.1,parameterization=v,seed=0", "lr=0.1,parameterization=v,seed=1",
                   "lr=0.1,parameterization=eps,seed=0", "lr=0.1,parameterization=eps,seed=1"}));
  EXPECT_EQ(nearest(sweep.runs.back().root, "train.optimizer.lr").scalar, "0.1");
  EXPECT_EQ(nearest(sweep.runs.back().root, "train.seed").scalar, "1");
  EXPECT_EQ(sweep.runs.back().root.find("sweep"), nullptr);
  EXPECT_EQ(sweep.runs.front().settings, (Names{"train.optimizer.lr=1.0e-3", "model.parameterization=v", "train.seed=0"}));
}

TEST(Sweep, ZipsListsAndDrawsFromRanges) {
  const Sweep zip = expanded("  zip: {model.network.channels: [8, 16], train.batch: [4, 2]}\n");
  EXPECT_EQ(names(zip), (Names{"channels=8,batch=4", "channels=16,batch=2"}));
  const std::string random =
      "  random: {count: 20, seed: 3, ranges: {train.optimizer.lr: {from: 1.0e-5, to: 0.1, scale: log}, train.batch: {from: 2, to: 4}}}\n";
  const Sweep a = expanded(random), b = expanded(random);
  ASSERT_EQ(a.runs.size(), 20u);
  EXPECT_EQ(names(a), names(b));
  EXPECT_NE(names(a), names(expanded(std::string(random).replace(random.find("seed: 3"), 7, "seed: 4"))));
  int64_t small = 0;
  for (const SweepRun& run : a.runs) {
    const double lr = std::stod(nearest(run.root, "train.optimizer.lr").scalar);
    const std::string batch = nearest(run.root, "train.batch").scalar;
    EXPECT_GE(lr, 1e-5);
    EXPECT_LE(lr, 0.1);
    EXPECT_TRUE(batch == "2" || batch == "3" || batch == "4") << batch;
    small += lr < 1e-3;
  }
  EXPECT_GE(small, 5);  // half of them on a logarithmic scale, one in a hundred on a linear one
  EXPECT_LE(small, 15);
}

TEST(Sweep, NamesKeysByTheirShortestEnd) {
  const Sweep sweep = expanded("  grid: {train.optimizer.lr: [1], train.other.lr: [2]}\n");
  EXPECT_EQ(names(sweep), (Names{"optimizer.lr=1,other.lr=2"}));
}

TEST(Sweep, NamesEveryMistakeOnce) {
  const std::string error = error_of_sweep("  grid: {train.optimizer.lrr: [1, 2, 3], model.paramterization: [v, eps]}\n");
  EXPECT_NE(error.find("unknown key 'lrr'; did you mean 'lr'?"), error.npos) << error;
  EXPECT_NE(error.find("unknown key 'paramterization'; did you mean 'parameterization'?"), error.npos) << error;
  EXPECT_EQ(std::count(error.begin(), error.end(), '\n'), 1) << error;
}

TEST(Sweep, RefusesRunsOfOneName) {
  EXPECT_EQ(error_of_sweep("  grid: {train.batch: [4, 4]}\n"), "sweep: two runs have the name 'batch=4': train.batch=4 and train.batch=4");
  EXPECT_EQ(error_of_sweep("  grid: {train.ema.decay: [0.5, 0.50]}\n"),
            "sweep: the runs 'decay=0.5' and 'decay=0.50' have the same configuration");
}

TEST(Sweep, RefusesWhatIsNoSweep) {
  EXPECT_EQ(error_of_sweep("  gird: {train.batch: [4]}\n"),
            "s.yaml:10:3: sweep: unknown key 'gird'; did you mean 'grid'?\n"
            "s.yaml:10:3: sweep: varies nothing; it takes grid, zip, random or repeat");
  for (const auto& [sweep, text] : std::vector<std::pair<std::string, std::string>>{
           {"  grid: {include: [a.yaml]}\n", "include is read before the sweep; vary the keys that it includes"},
           {"  grid: {train.batch: 4}\n", "train.batch: '4' is no list of values"},
           {"  zip: {train.batch: [1, 2], train.seed: [1]}\n", "train.seed has 1 value and train.batch has 2"},
           {"  grid: {train.seed: [1]}\n  repeat: 2\n", "train.seed is varied twice"},
           {"  repeat: 0\n", "'0' is no whole number from 1 to 100000"},
           {"  random: {count: 2, ranges: {train.batch: {from: 9, to: 2}}}\n", "from = 9 is above to = 2"},
           {"  random: {count: 2, ranges: {train.optimizer.lr: {from: 0, to: 2, scale: log}}}\n",
            "from = 0 must be above 0 on a log scale"},
           {"  repeat: 2\n  commands: [evalute x]\n", "'evalute' is no command for runs; did you mean 'evaluate'?"},
           {"  repeat: 2\n  commands: [\"sample 'x\"]\n", "a quote ' is not closed: sample 'x"}})
    EXPECT_NE(error_of_sweep(sweep).find(text), std::string::npos) << error_of_sweep(sweep);
}

TEST(Sweep, OverridesKeysThatAreIncluded) {
  const TempFolder folder;
  folder.file("part.yaml", "batch: 4\nsteps: 9\n");
  folder.file("s.yaml", "train: {include: part.yaml, data: shapes}\nsweep: {grid: {train.batch: [2, 8]}}\n");
  const Sweep sweep = expand_sweep(load_yaml(folder.file("s.yaml")));
  ASSERT_EQ(sweep.runs.size(), 2u);
  EXPECT_EQ(nearest(sweep.runs[1].root, "train.batch").scalar, "8");
  EXPECT_EQ(nearest(sweep.runs[1].root, "train.steps").scalar, "9");
}

TEST(Sweep, SplitsCommandsIntoWords) {
  EXPECT_EQ(words_of("evaluate  {run}/m --real '{type: idx}' \"a b\"c ''"),
            (Names{"evaluate", "{run}/m", "--real", "{type: idx}", "a bc", ""}));
}

TEST(InlineYaml, ParsesBackToTheSameValue) {
  for (const char* text :
       {"0.001", "'001'", "[1, 'a, b', {x: null}]", "{type: ddim, eta: 1, 'k: 1': \"a\\\"b\"}", "''", "-3", "[]", "{}"}) {
    const Value value = parse_yaml(text, "v"), back = parse_yaml(inline_yaml(value), "v");
    EXPECT_EQ(dump_yaml(back), dump_yaml(value)) << inline_yaml(value);
  }
}

}  // namespace
}  // namespace brume::test
