// What plugins of libraries do wrong is reported in their name: never as a bug of brume.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "support/process.h"
#include "support/tempdir.h"

namespace brume::test {
namespace {

constexpr const char* library = BRUME_BINARY_DIR "/tests/libfaulty_plugins.so";

constexpr const char* tiny = R"(
model:
  image: {channels: 3, height: 8, width: 8}
  network: {type: unet, channels: 8, multipliers: [1, 2], blocks: 1, groups: 4}
  conditioner: {type: class_label, classes: 5, dropout: 0.2}
train:
  data: {type: shapes}
  batch: 4
  steps: 2
  preview: {count: 0}
sample:
  steps: 2
)";

/// What `brume train` says of the tiny configuration with these settings, and the library as LIB. It fails with exit code 2.
std::string said(const std::vector<std::string>& settings, std::vector<std::string> words = {"train", "tiny.yaml", "--out", "run"}) {
  const TempFolder folder;
  folder.file("tiny.yaml", tiny);
  for (const std::string& s : settings) words.insert(words.end(), {"--set", s});
  words.insert(words.end(), {"--plugin", library});
  const Finished done = run_brume(words, {folder.path()});
  EXPECT_EQ(done.code, 2) << done.err;
  std::string text = done.err.substr(std::min(done.err.size(), done.err.find("error: ")));
  for (size_t at; (at = text.find(library)) != std::string::npos;) text.replace(at, std::string(library).size(), "LIB");
  return text;
}
std::string sampled(const std::vector<std::string>& settings) { return said(settings, {"sample", "tiny.yaml"}); }

TEST(FaultyPlugins, Samplers) {
  const auto of = [](const std::string& name) {
    return sampled({"model.network={type: gaussian}", "model.conditioner=none", "sample.sampler=" + name});
  };
  EXPECT_EQ(of("throws"), "error: sampler 'throws' (plugin library LIB): sample() threw: on purpose\n");
  EXPECT_EQ(of("throws_42"), "error: sampler 'throws_42' (plugin library LIB): sample() threw something that is not a std::exception\n");
  EXPECT_EQ(of("throws_torch"),
            "error: sampler 'throws_torch' (plugin library LIB): sample() threw: The size of tensor a (8) must match the size of tensor b "
            "(7) at non-singleton dimension 3\n");
  EXPECT_EQ(of("undefined"),
            "error: sampler 'undefined' (plugin library LIB): sample() returned an undefined tensor, expected [16, 3, 8, 8]\n");
  EXPECT_EQ(of("misshapen"), "error: sampler 'misshapen' (plugin library LIB): sample() returned [2, 1], expected [16, 3, 8, 8]\n");
}

TEST(FaultyPlugins, Networks) {
  const auto of = [](const std::string& name) { return sampled({"model.network={type: " + name + "}", "model.conditioner=none"}); };
  EXPECT_EQ(of("throws"), "error: network 'throws' (plugin library LIB): forward() threw: on purpose\n");
  EXPECT_EQ(of("undefined"),
            "error: network 'undefined' (plugin library LIB): forward() returned an undefined tensor, expected [16, 3, 8, 8]\n");
  EXPECT_EQ(of("misshapen"), "error: network 'misshapen' (plugin library LIB): forward() returned [2, 1], expected [16, 3, 8, 8]\n");
  EXPECT_NE(of("unmade").find("network 'unmade' (plugin library LIB): its constructor threw: no such row\n"), std::string::npos);
}

TEST(FaultyPlugins, Objectives) {
  const auto of = [](const std::string& name) { return said({"train.objective={type: " + name + "}"}); };
  EXPECT_EQ(of("throws"), "error: objective 'throws' (plugin library LIB): loss() threw: on purpose\n");
  EXPECT_EQ(of("detached"),
            "error: objective 'detached' (plugin library LIB): loss() returned a loss that depends on no trainable weight (a detached "
            "tensor?)\n");
  EXPECT_EQ(of("undefined"), "error: objective 'undefined' (plugin library LIB): loss() returned an undefined tensor, expected a scalar\n");
  EXPECT_EQ(of("misshapen"), "error: objective 'misshapen' (plugin library LIB): loss() returned [2, 1], expected a scalar\n");
}

TEST(FaultyPlugins, SchedulesAndSpacings) {
  const std::string falling = said({"model.noise=falling"}, {"check", "tiny.yaml"});
  EXPECT_NE(
      falling.find("noise_schedule 'falling' (plugin library LIB): sigma falls from 54.5982 at time 0 to 52.9183 at time 0.00390625; it "
                   "must rise\n"),
      std::string::npos)
      << falling;
  EXPECT_EQ(sampled({"model.network={type: gaussian}", "model.conditioner=none", "sample.spacing=rising"}),
            "error: spacing 'rising' (plugin library LIB): sigmas() returned numbers that rise: 1, then 2; they must fall\n");
}

TEST(FaultyPlugins, Guidances) {
  const auto of = [](const std::string& name) {
    return sampled({"model.network={type: gaussian}", "model.conditioner=none", "sample.guidance=[" + name + "]"});
  };
  EXPECT_EQ(of("no_denoiser"), "error: guidance 'no_denoiser' (plugin library LIB): wrap() returned no denoiser\n");
  EXPECT_EQ(of("misshapen"),
            "error: guidance 'misshapen' (plugin library LIB): denoise() of its denoiser returned [2, 1], expected [16, 3, 8, 8]\n");
}

TEST(FaultyPlugins, DataSetsAndOptimizers) {
  EXPECT_EQ(said({"train.data={type: throws}"}), "error: dataset 'throws' (plugin library LIB): read() threw: on purpose\n");
  EXPECT_EQ(said({"train.data={type: no_such_class}"}),
            "error: dataset 'no_such_class' (plugin library LIB): read() returned class 9, and classes() has 5\n");
  EXPECT_EQ(said({"train.optimizer={type: throws}"}), "error: optimizer 'throws' (plugin library LIB): update() threw: on purpose\n");
}

TEST(FaultyPlugins, OptionsThatCannotBeRead) {
  const std::string file = BRUME_BINARY_DIR "/tests/libfaulty_options.so",
                    name = "error: parameterization 'odd' (plugin library " + file + "): ";
  const Finished done = run_brume({"list", "--plugin", file});
  EXPECT_EQ(done.code, 2);
  EXPECT_EQ(done.err, name + "two of its options are called 'scale'\n" + name +
                          "one of its options is called 'type', which names the plugin\n" + name +
                          "the default 'c' of its option 'word' is not one of its words\n");
}

}  // namespace
}  // namespace brume::test
