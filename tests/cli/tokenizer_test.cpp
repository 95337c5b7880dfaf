// brume tokenizer: from captions in each form to a model, and what is wrong with them.
#include <gtest/gtest.h>

#include <filesystem>

#include "brume/text/sentencepiece.h"
#include "support/process.h"
#include "support/tempdir.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

class Tokenizer : public testing::Test {
 protected:
  void SetUp() override {
    if (!text::sentencepiece_missing().empty()) GTEST_SKIP() << text::sentencepiece_missing();
  }
  Finished at(std::vector<std::string> words) {
    words.insert(words.begin(), "tokenizer");
    return run_brume(std::move(words), {.folder = folder_.path()});
  }
  std::string error(std::vector<std::string> words) {
    words.insert(words.begin(), "train");
    const Finished done = at(std::move(words));
    EXPECT_EQ(done.code, 2) << done.out;
    EXPECT_FALSE(std::filesystem::exists(folder_.file("tokenizer.model")));
    return done.err;
  }
  /// The captions, one per line with something before and after.
  std::string lines(const std::string& head, const std::string& before, const std::string& after) {
    std::string text = head;
    for (const std::string& caption : shape_captions()) text += before + caption + after + "\n";
    return text;
  }
  TempFolder folder_;
};

TEST_F(Tokenizer, TheFormOfTheCaptionsDoesNotMatter) {
  folder_.file("a.txt", lines("", "", ""));
  folder_.file("a.tsv", lines("file\tcaption\tclass\n", "x.png\t", "\t3"));
  folder_.file("a.csv", lines("text,file\r\n", "\"", "\",x.png\r"));
  folder_.file("b.csv", lines("said,caption\n", "", ",no"));
  const Finished done = at({"train", "a.txt", "--size", "34", "-o", "txt.model"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_TRUE(done.out.starts_with("txt.model: 34 pieces from 48 captions, which have ")) << done.out;
  EXPECT_EQ(at({"train", "a.tsv", "--size", "34", "-o", "tsv.model"}).code, 0);
  EXPECT_EQ(at({"train", "a.csv", "--size", "34", "-o", "csv.model"}).code, 0);
  EXPECT_EQ(at({"train", "b.csv", "--size", "34", "-o", "said.model", "--column", "said"}).code, 0);
  for (const char* name : {"txt.model", "tsv.model", "csv.model", "said.model"})
    EXPECT_EQ(read_text(folder_.path() / name), small_tokenizers().at("tokenizer.model")) << name;
}

TEST_F(Tokenizer, ShowsThePiecesOfAText) {
  folder_.file("t.model", small_tokenizers().at("tokenizer.model"));
  const Finished done = at({"encode", "t.model", "a RED circle"});
  EXPECT_EQ(done.code, 0) << done.err;
  EXPECT_NE(done.out.find("▁circle\n"), std::string::npos) << done.out;
  EXPECT_NE(done.out.find(" of 34 pieces; read back: a red circle\n"), std::string::npos) << done.out;
}

TEST_F(Tokenizer, Mistakes) {
  EXPECT_EQ(error({"none.txt"}), "error: none.txt: cannot be opened: No such file or directory\n");
  folder_.file("bad.txt", "a cat\na d\xC3(g\n");
  EXPECT_EQ(error({"bad.txt"}), "error: bad.txt:2: byte 4 (0xc3) is not UTF-8\n");
  folder_.file("a.csv", "file,captoin\nx.png,a cat\n");
  EXPECT_EQ(error({"a.csv"}), "error: --column: a.csv has no column 'caption'; did you mean 'captoin'?; its columns: file, captoin\n");
  folder_.file("a.tsv", "file\tcaption\nx.png\n");
  EXPECT_EQ(error({"a.tsv"}), "error: a.tsv:2: has 1 cell, and there are 2 columns\n");
  folder_.file("a.txt", lines("", "", ""));
  EXPECT_EQ(error({"a.txt", "--column", "text"}), "error: --column: a.txt is read line by line; tables end in .csv or .tsv\n");
  EXPECT_NE(error({"a.txt", "--size", "5000"}).find("error: a.txt: 5000 pieces are more than these captions give; at most "),
            std::string::npos);
  folder_.file("empty.txt", "\n\n");
  EXPECT_EQ(error({"empty.txt"}), "error: empty.txt: there are no captions to train a tokenizer on\n");
  EXPECT_EQ(at({"encode", "a.txt", "a"}).err, "error: a.txt: is no sentencepiece model\n");
}

}  // namespace
}  // namespace brume::test
