#include "support/tokenizers.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "brume/config/utf8.h"
#include "brume/text/sentencepiece.h"

namespace brume::test {

std::vector<std::string> shape_captions() {
  std::vector<std::string> captions;
  for (const char* colour : {"red", "green", "blue", "yellow"})
    for (const char* form : {"circle", "square", "triangle"})
      for (const char* size : {"small", "large"}) {
        captions.push_back(fmt::format("a {} {} {}", size, colour, form));
        captions.push_back(fmt::format("a {} {} {} left of a white ring", size, colour, form));
      }
  return captions;
}

namespace {

/// The 256 bytes, the same at the end of a word, and a few pairs.
void add_clip(Files& files) {
  const std::vector<std::string> merges = {"r e", "re d</w>", "c i", "ci r", "a t</w>", "i r", "c at</w>"};
  nlohmann::json vocabulary;
  std::vector<std::string> letters;
  for (int b = 0, next = 256; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    letters.emplace_back();
    append_utf8(letters.back(), char32_t(printable ? b : next++));
  }
  const auto add = [&](const std::string& token) { vocabulary.emplace(token, vocabulary.size()); };
  for (const std::string& letter : letters) add(letter);
  for (const std::string& letter : letters) add(letter + "</w>");
  std::string lines = "#version: 0.2\n";
  for (std::string merge : merges) {
    lines += merge + "\n";
    merge.erase(merge.find(' '), 1);
    add(merge);
  }
  add("<|startoftext|>");
  add("<|endoftext|>");
  files["clip/vocab.json"] = vocabulary.dump();
  files["clip/merges.txt"] = lines;
}

}  // namespace

const Files& small_tokenizers() {
  static const Files all = [] {
    Files files;
    if (text::sentencepiece_missing().empty()) files["tokenizer.model"] = text::SentencePiece::train(shape_captions(), {.size = 34});
    add_clip(files);
    return files;
  }();
  return all;
}

void write_clip_tokenizer(const TempFolder& folder, const std::string& inside) {
  for (const std::string name : {"vocab.json", "merges.txt"}) folder.file(inside + "/" + name, small_tokenizers().at("clip/" + name));
}

}  // namespace brume::test
