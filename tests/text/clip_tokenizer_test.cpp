// CLIP's tokenizer on a vocabulary of bytes and seven pairs, and what UTF-8 is. tests/parity/clip_text_test.cpp has the published one.
#include "brume/text/clip_tokenizer.h"
#include "brume/config/utf8.h"
#include "brume/text/unicode.h"
#include "support/registry.h"
#include "support/tokenizers.h"

namespace brume::test {
namespace {

using text::ClipTokenizer;

ClipTokenizer make_small() { return {small_tokenizers().at("clip/vocab.json"), small_tokenizers().at("clip/merges.txt"), "clip"}; }

const ClipTokenizer& small() {
  static const ClipTokenizer tokenizer = make_small();
  return tokenizer;
}

int64_t end_of(char letter) { return small().encode(std::string(1, letter)).front(); }

TEST(ClipTokenizer, DropsByteOrderMarks) {
  const std::string mark = "\xEF\xBB\xBF";
  const ClipTokenizer marked(mark + small_tokenizers().at("clip/vocab.json"), mark + small_tokenizers().at("clip/merges.txt"), "clip");
  EXPECT_EQ(marked.encode("red circle"), small().encode("red circle"));
}

TEST(ClipTokenizer, JoinsThePairsOfLowestRank) {
  EXPECT_EQ(small().size(), 512 + 7 + 2);
  EXPECT_EQ(small().encode("red"), (std::vector<int64_t>{513}));
  EXPECT_EQ(small().encode("cat"), (std::vector<int64_t>{518}));
  // c i comes before i r: "circle" is cir, c, l, e</w>.
  const std::vector<int64_t> circle = small().encode("circle");
  ASSERT_EQ(circle.size(), 4u);
  EXPECT_EQ(circle.front(), 515);
  EXPECT_EQ(circle.back(), end_of('e'));
  EXPECT_EQ(small().begin(), 519);
  EXPECT_EQ(small().end(), 520);
}

TEST(ClipTokenizer, WordsAreWhatItsPatternSays) {
  const auto words = [](const std::string& text) { return small().decode(small().encode(text)); };
  EXPECT_EQ(words("Don't STOP!!! 2024"), "don 't stop !!! 2 0 2 4");
  EXPECT_EQ(words("we'll they've I'd it's I'm you're o'clock"), "we 'll they 've i 'd it 's i 'm you 're o ' clock");
  EXPECT_EQ(words("!'s"), "!' s");
  EXPECT_EQ(words(" \t\n a \xC2\xA0 b\r\n"), "a b");
  EXPECT_EQ(words("ÉCOLE ΣΑΣ Ж"), "école σας ж") << "as Python's str.lower()";
  EXPECT_EQ(words("\xC4\xB0"), "i \xCC\x87") << "one letter becomes a letter and a mark, which is no letter";
  EXPECT_EQ(words("日本 café"), "日 本 café");
  EXPECT_EQ(words("a\x01\xE2\x80\x8D"
                  "b"),
            "ab")
      << "control characters are left out";
  EXPECT_TRUE(small().encode("").empty());
  EXPECT_TRUE(small().encode(" \n ").empty());
}

TEST(ClipTokenizer, SpecialTokensMayBeWrittenOut) {
  EXPECT_EQ(small().encode("red<|endoftext|>cat<|startoftext|>"), (std::vector<int64_t>{513, 520, 518, 519}));
}

TEST(ClipTokenizer, ThePaddingIsATokenOfItsOwn) {
  const ClipTokenizer padded(small_tokenizers().at("clip/vocab.json"), small_tokenizers().at("clip/merges.txt"), "clip", 33);  // "!"
  EXPECT_EQ(padded.padding(), 33);
  EXPECT_EQ(padded.encode("red!!"), (std::vector<int64_t>{513, 33, 33}));
  EXPECT_EQ(small().padding(), small().end());
  EXPECT_EQ(small().encode("red!!"), (std::vector<int64_t>{513, 33, 256 + 33}));
}

TEST(ClipTokenizer, Mistakes) {
  const std::string &vocabulary = small_tokenizers().at("clip/vocab.json"), &merges = small_tokenizers().at("clip/merges.txt");
  const auto said = [](const std::string& v, const std::string& m) { return error_of([&] { ClipTokenizer(v, m, "here"); }); };
  EXPECT_EQ(said("[1]", merges), "here: vocab.json is no JSON object of tokens and their numbers");
  EXPECT_EQ(said("{\"a\": 0", merges), "here: vocab.json is no JSON object of tokens and their numbers");
  EXPECT_EQ(said("{\"a\": 0, \"b\": 2}", merges), "here: vocab.json gives the token \"b\" no number from 0 to 1");
  EXPECT_EQ(said("{\"a\": 0, \"b\": \"1\"}", merges), "here: vocab.json gives the token \"b\" no number from 0 to 1");
  EXPECT_EQ(said("{\"a\": 0, \"b\": 0}", merges), "here: vocab.json gives the number 0 twice");
  EXPECT_EQ(said("{\"a\": 0, \"b\": 1}", merges), "here: vocab.json lacks the token <|startoftext|>");
  EXPECT_EQ(said(vocabulary, "#version\na b\nab\n"), "here: merges.txt:3: two tokens are expected, not \"ab\"");
  EXPECT_EQ(error_of([&] { ClipTokenizer(vocabulary, merges, "here", 600); }), "here: has no token 600 to pad with: they are 0 to 520");
  EXPECT_EQ(error_of([] { small().encode("caf\xE9"); }), "a prompt is not UTF-8 at byte 3: \"caf\\xe9\"");
  EXPECT_EQ(error_of([] { small().decode({521}); }), "token 521 is out of range: the tokenizer has 521, 0 to 520");
}

// Any bytes are either refused as no UTF-8 or give tokens that there are.
TEST(ClipTokenizer, AnyBytes) {
  uint32_t state = 3;
  const auto next = [&] { return (state = state * 1664525u + 1013904223u) >> 16; };
  int read = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    const size_t length = next() % 40;
    for (size_t k = 0; k < length; ++k) {
      if (i % 2)
        text += char(next());
      else
        append_utf8(text, char32_t(next() % 3 ? next() % 0x3000 : 0x1F000 + next() % 0x1000));
    }
    if (invalid_utf8(text)) {
      EXPECT_THROW(small().encode(text), ConfigError);
      continue;
    }
    ++read;
    for (const int64_t id : small().encode(text)) ASSERT_TRUE(id >= 0 && id < small().size());
  }
  EXPECT_GT(read, 1400);
}

// Merging takes the square of a word's length.
TEST(ClipTokenizer, AWordHasAnEnd) {
  const text::ClipTokenizer tokenizer = small();
  EXPECT_NO_THROW(tokenizer.encode(std::string(10000, 'a')));
  const std::string said = error_of([&] { tokenizer.encode("a " + std::string(10001, 'a')); });
  EXPECT_TRUE(said.starts_with("a prompt has a word of 10001 bytes; 10000 is the most: ")) << said;
}

TEST(ClipTokenizer, ComposedAndDecomposedTextIsTheSame) {
  const auto same = [](const std::string& one, const std::string& other) { return small().encode(one) == small().encode(other); };
  EXPECT_TRUE(same("caf\xC3\xA9", "cafe\xCC\x81"));
  EXPECT_TRUE(same("CAF\xC3\x89", "CAFE\xCC\x81"));
  EXPECT_TRUE(same("\xED\x95\x9C", "\xE1\x84\x92\xE1\x85\xA1\xE1\x86\xAB")) << "Hangul";
  EXPECT_TRUE(same("\xE3\x81\x8C", "\xE3\x81\x8B\xE3\x82\x99")) << "kana";
  EXPECT_FALSE(same("cafe", "caf\xC3\xA9"));
}

TEST(ClipTokenizer, AddedWordsStandForThemselves) {
  const std::string &vocabulary = small_tokenizers().at("clip/vocab.json"), &merges = small_tokenizers().at("clip/merges.txt");
  const text::ClipTokenizer clip(vocabulary, merges, "clip", {}, R"({"<x>": 521, "<x>_1": 523, "<y>": 522, "<|endoftext|>": 520})");
  EXPECT_EQ(clip.size(), 524);
  EXPECT_EQ(clip.encode("red <x> cat"), (std::vector<int64_t>{513, 521, 523, 518})) << "with its further vectors";
  EXPECT_EQ(clip.encode("red<y>cat<x>_1"), (std::vector<int64_t>{513, 522, 518, 523}));
  EXPECT_NE(clip.encode("<X>"), clip.encode("<x>"));
  EXPECT_EQ(clip.decode(clip.encode("red <y> cat")), "red <y> cat");
  EXPECT_EQ(clip.encode("red <z>"), small().encode("red <z>"));
  const auto said = [&](const std::string& added) { return error_of([&] { text::ClipTokenizer(vocabulary, merges, "here", {}, added); }); };
  EXPECT_EQ(said("[1]"), "here: added_tokens.json is no JSON object of tokens and their numbers");
  EXPECT_EQ(said(R"({"<x>": 520})"), "here: added_tokens.json gives the token \"<x>\" no number from 521 to 1521");
  EXPECT_EQ(said(R"({"<x>": 1000000000})"), "here: added_tokens.json gives the token \"<x>\" no number from 521 to 1521");
  EXPECT_EQ(said(R"({"<x>": 521, "<y>": 521})"), "here: added_tokens.json gives the number 521 twice");
}

TEST(Unicode, LowerCase) {
  for (const auto& [upper, lower] : std::vector<std::pair<std::string, std::string>>{
           {"A", "a"}, {"ß", "ß"}, {"Ā", "ā"}, {"ā", "ā"}, {"Ω", "ω"}, {"ΟΔΟΣ ΟΣ.", "οδος ος."}, {"caf\xE9", "caf\xE9"}})
    EXPECT_EQ(text::lower_case(upper), lower);
  for (char32_t c = 1; c < 0x20000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string text;
    append_utf8(text, c);
    ASSERT_EQ(text::lower_case(text::lower_case(text)), text::lower_case(text)) << uint32_t(c);
  }
}

}  // namespace
}  // namespace brume::test
