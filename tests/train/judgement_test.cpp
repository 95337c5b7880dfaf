// brume evaluate --metric: samples judged one by one against what was asked for.
#include "brume/train/judgement.h"

#include <ATen/ops/full.h>

#include <fstream>
#include <nlohmann/json.hpp>

#include "classifier_support.h"
#include "support/process.h"

namespace brume::test {
namespace {

constexpr const char* gaussian =
    "model: {image: {channels: 3, height: 16, width: 16}, network: gaussian, parameterization: x0, noise: cosine}\n"
    "sample: {steps: 2}\n";

/// Right if the first pixel is what the label says.
class FirstPixel final : public Metric {
 public:
  Verdict judge(std::span<const float> pixels, const ImageShape& shape, const Annotation& asked) const override {
    EXPECT_EQ(int64_t(pixels.size()), shape.numel());
    const bool right = (pixels[0] > 0) == (asked.label > 0);
    return {.right = right, .group = asked.caption, .parts = {{"pixel", right}, {"caption", !asked.caption.empty()}}, .seen = ""};
  }
};

TEST(Judgement, CountsByGroup) {
  Tally tally;
  const Tensor images = at::full({4, 3, 2, 2}, 0.5);
  tally.judge(FirstPixel(), images, {{1, "a"}, {1, "b"}, {0, "b"}, {0, "b"}});
  const std::vector<Tally::Group> groups = tally.groups();
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[0].name, "all");
  EXPECT_EQ(groups[0].whole.share(), 0.5);
  EXPECT_EQ(groups[1].name, "a");
  EXPECT_EQ(groups[1].whole.share(), 1);
  EXPECT_EQ(groups[2].whole.asked, 3);
  EXPECT_EQ(groups[2].whole.right, 1);
  ASSERT_EQ(groups[2].parts.size(), 2u);
  EXPECT_EQ(groups[2].parts[0].name, "pixel");
  EXPECT_EQ(groups[2].parts[0].right, 1);
  EXPECT_EQ(groups[2].parts[1].right, 3);
}

TEST(Judgement, PiecesDoNotChangeTheSamples) {
  const ReadConfig read(gaussian);
  const Pipeline model(read.config.model, Compute{});
  const std::vector<Annotation> asked(7, Annotation{.label = 1, .caption = "x"});
  std::vector<std::string> by_batch;
  for (const int64_t batch : {2, 7, 64}) {
    SampleRequest request;
    request.batch = batch;
    request.seed = 4;
    std::vector<int64_t> firsts;
    request.observer = [&](int64_t first, const Step& step) {
      if (step.index == 0) firsts.push_back(first);
      return true;
    };
    const Tally tally = judge_samples(FirstPixel(), model, read.config.sample, asked, request);
    EXPECT_EQ(tally.images(), 7);
    std::string verdicts;
    for (const Tally::Judged& j : tally.judged()) verdicts += j.verdict.right ? '1' : '0';
    by_batch.push_back(verdicts);
    EXPECT_EQ(firsts, batch == 2 ? (std::vector<int64_t>{0, 2, 4, 6}) : std::vector<int64_t>{0});
  }
  EXPECT_EQ(by_batch[0], by_batch[1]);
  EXPECT_EQ(by_batch[0], by_batch[2]);
}

TEST(Judgement, TheDataItselfIsRight) {
  const auto data = make<Dataset>("{type: shapes, objects: [1, 2], split: test}", {.shape = {3, 32, 32}});
  const JudgedSet set = judge_data(*make<Metric>("caption_accuracy"), *data, {3, 32, 32}, 100);
  EXPECT_EQ(set.asked.size(), 100u);
  const std::vector<Tally::Group> groups = set.tally.groups();
  ASSERT_EQ(groups.size(), 3u);
  EXPECT_EQ(groups[1].name, "one object");
  EXPECT_EQ(groups[2].name, "two objects");
  EXPECT_GE(groups[0].whole.share(), 0.99);
}

TEST(Judgement, TheProgramPrintsATable) {
  if (!std::filesystem::exists(std::filesystem::path(BRUME_BINARY_DIR) / "brume")) GTEST_SKIP() << "the program is not built";
  const TempFolder folder;
  const std::string model = folder.file("x.yaml", gaussian), captions = folder.file("c.txt", "a small red circle\n\na small rde star\n");
  const std::string json = (folder.path() / "out.json").string();
  const Finished done = run_brume(
      {"evaluate", model, "--metric", "caption_accuracy", "--data", "{type: shapes, objects: [1, 2]}", "-n", "20", "--json", json});
  EXPECT_EQ(done.code, 0) << done.err;
  for (const char* line : {"data, all", "data, one object", "data, two objects", "samples, all", "relation", "colour"})
    EXPECT_NE(done.out.find(line), std::string::npos) << line << " in\n" << done.out;
  const auto read = nlohmann::json::parse(std::ifstream(json));
  ASSERT_EQ(read["sets"].size(), 2u);
  EXPECT_EQ(read["sets"][0]["groups"]["all"]["right"], 1.0);
  EXPECT_EQ(read["sets"][1]["groups"]["all"]["right"], 0.0);
  EXPECT_EQ(read["sets"][1]["images"].size(), 20u);

  const auto said = [](const std::vector<std::string>& arguments) {
    const Finished failed = run_brume(arguments);
    EXPECT_EQ(failed.code, 2);
    return failed.err;
  };
  EXPECT_EQ(said({"evaluate", model, "--metric", "caption_accuracy", "--captions", captions}),
            "error: caption 'a small rde star': 'rde' is not a colour or a form; did you mean 'red'?\n");
  EXPECT_EQ(said({"evaluate", model, "--metric", "caption_accuracy"}),
            "error: --metric: needs captions: either --data DATA or --captions FILE\n");
  EXPECT_EQ(said({"evaluate", model, "--metric", "caption_acuracy", "--captions", captions}),
            "error: --metric:1:1: metric: unknown metric 'caption_acuracy'; did you mean 'caption_accuracy'?\n");
  EXPECT_EQ(said({"evaluate", model, "--captions", captions}), "error: --captions: is for --metric\n");
}

}  // namespace
}  // namespace brume::test
