// sentencepiece in a process that has LibTorch as well: it trains, loads, encodes and decodes.
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>

#include <filesystem>
#include <thread>

#include "brume/config/errors.h"
#include "brume/files/mapped_file.h"
#include "brume/text/sentencepiece.h"
#include "support/refs.h"
#include "support/registry.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

using text::SentencePiece;

#define BRUME_NEED_SENTENCEPIECE() \
  if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing()

const SentencePiece& small() {
  static const SentencePiece tokenizer(small_tokenizers().at("tokenizer.model"), "tokenizer.model");
  return tokenizer;
}

TEST(SentencePiece, TrainsBesideLibTorch) {
  BRUME_NEED_SENTENCEPIECE();
  EXPECT_EQ(at::matmul(at::ones({2, 3}), at::ones({3, 2})).sum().item<double>(), 12);
  EXPECT_EQ(small().size(), 34);
  EXPECT_EQ(at::matmul(at::ones({2, 3}), at::ones({3, 2})).sum().item<double>(), 12);
}

TEST(SentencePiece, ReadsBackWhatItWrote) {
  BRUME_NEED_SENTENCEPIECE();
  for (const std::string& caption : shape_captions()) {
    const std::vector<int64_t> ids = small().encode(caption);
    EXPECT_EQ(small().decode(ids), caption);
    for (const int64_t id : ids) EXPECT_NE(id, small().unknown()) << caption;
  }
  EXPECT_EQ(small().encode("A  RED\tCircle"), small().encode("a red circle"));
  EXPECT_TRUE(small().encode("").empty());
  EXPECT_EQ(small().encode("☃").back(), small().unknown());
}

TEST(SentencePiece, SpecialPieces) {
  BRUME_NEED_SENTENCEPIECE();
  const std::vector<int64_t> special{small().padding(), small().unknown(), small().begin(), small().end()};
  EXPECT_EQ(special, (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(small().piece(2), "<s>");
}

TEST(SentencePiece, TrainingIsAFunctionOfItsCaptions) {
  BRUME_NEED_SENTENCEPIECE();
  EXPECT_EQ(SentencePiece::train(shape_captions(), {.size = 34}), small_tokenizers().at("tokenizer.model"));
  const SentencePiece cased(SentencePiece::train({"A Cat", "a cat", "A cat", "a Cat"}, {.size = 10, .fold_case = false}), "cased");
  EXPECT_NE(cased.encode("A Cat"), cased.encode("a cat"));
  EXPECT_EQ(cased.decode(cased.encode("A Cat")), "A Cat");
}

TEST(SentencePiece, FromSeveralThreads) {
  BRUME_NEED_SENTENCEPIECE();
  const std::vector<std::string> captions = shape_captions();
  std::vector<std::vector<std::vector<int64_t>>> all(4);
  std::vector<std::thread> threads;
  for (auto& mine : all)
    threads.emplace_back([&] {
      for (int i = 0; i < 20; ++i)
        for (const std::string& caption : captions) mine.push_back(small().encode(caption));
    });
  for (std::thread& t : threads) t.join();
  for (const auto& mine : all) EXPECT_EQ(mine, all.front());
}

TEST(SentencePiece, Mistakes) {
  BRUME_NEED_SENTENCEPIECE();
  const auto trained = [](const std::vector<std::string>& captions, int64_t size) {
    return error_of([&] { SentencePiece::train(captions, {.size = size}); });
  };
  EXPECT_EQ(trained({"", "  "}, 100), "there are no captions to train a tokenizer on");
  EXPECT_EQ(trained({"a cat", "\xC3("}, 100), "caption 2 is not UTF-8 at byte 0");
  EXPECT_EQ(trained({"a cat"}, 4), "4 pieces: a tokenizer has between 8 and 1000000");
  EXPECT_NE(trained(shape_captions(), 5000).find("5000 pieces are more than these captions give; at most "), std::string::npos)
      << trained(shape_captions(), 5000);
  EXPECT_NE(trained(shape_captions(), 10).find("10 pieces are too few for these captions; their characters alone need more than "),
            std::string::npos)
      << trained(shape_captions(), 10);
  EXPECT_EQ(error_of([] { SentencePiece("", "t.model"); }), "t.model: is no sentencepiece model: it is empty");
  EXPECT_EQ(error_of([] { SentencePiece("not a model", "t.model"); }), "t.model: is no sentencepiece model");
  EXPECT_EQ(error_of([] { small().encode("a \xFF"); }), "a prompt is not UTF-8 at byte 2: \"a \\xff\"");
  EXPECT_EQ(error_of([] { small().decode({1, 34}); }), "piece 34 is out of range: the tokenizer has 34, 0 to 33");
}

// A model from elsewhere is read as far as it is one, and never brings the process down.
TEST(SentencePiece, CutAndChangedModels) {
  BRUME_NEED_SENTENCEPIECE();
  const std::string& whole = small_tokenizers().at("tokenizer.model");
  uint32_t state = 7;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = whole.substr(0, i % 2 ? whole.size() : whole.size() * size_t(i) / 200);
    if (bytes.empty()) continue;
    for (int k = 0; k < 3; ++k) {
      state = state * 1664525u + 1013904223u;
      bytes[state % bytes.size()] = char(state >> 24);
    }
    try {
      const SentencePiece tokenizer(bytes, "x");
      tokenizer.decode(tokenizer.encode("a small red circle"));
    } catch (const ConfigError&) {
    } catch (const std::logic_error&) {  // loaded, and of no use
    }
  }
}

TEST(SentencePiece, PublishedModels) {
  BRUME_NEED_SENTENCEPIECE();
  for (const char* name : {"en_small.model", "t5_style_30k.model"}) {
    const std::string path = ref_path(std::string("../data/sentencepiece/") + name).string();
    if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not there";
    const SentencePiece tokenizer(MappedFile::open(path)->bytes(), name);
    EXPECT_GT(tokenizer.size(), 500);
    for (const char* text : {"a small test of the world", "they were seen, and then they were gone."})
      EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << name;
  }
}

}  // namespace
}  // namespace brume::test
