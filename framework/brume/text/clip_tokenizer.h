#pragma once
// CLIP's tokenizer (Radford et al. 2021): byte pairs (Sennrich et al. 2016) of lower-cased words, the last of a word with "</w>".
#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace brume::text {

/// Reads text as transformers' CLIPTokenizer does without ftfy. `const` use is safe from several threads.
class ClipTokenizer final {
 public:
  /// Takes the contents of vocab.json and merges.txt; `name` is for messages. `pad`: the token that fills a prompt up, if that is not the
  /// end; written out in a text it is read as itself ("!" of Stable Diffusion 2). `added`: the content of added_tokens.json, words that a
  /// training added to the vocabulary {"<cat-toy>": 49408}; "" without such words. A word W with words W_1, W_2, … stands for all of them,
  /// as diffusers reads it. Throws ConfigError if a file is not what it should be.
  ClipTokenizer(std::string_view vocabulary, std::string_view merges, const std::string& name, std::optional<int64_t> pad = {},
                std::string_view added = {});

  /// Returns the tokens without begin and end. Throws ConfigError if the text is not UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int64_t>& ids) const;
  int64_t size() const { return int64_t(tokens_.size()); }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  int64_t padding() const { return pad_; }

 private:
  void read_vocabulary(std::string_view json, const std::string& name);
  void read_merges(std::string_view lines, const std::string& name);
  void read_added(std::string_view json, const std::string& name);
  void encode_plain(std::string_view text, std::vector<int64_t>& ids) const;
  void encode_word(const std::string& bytes, std::vector<int64_t>& ids) const;

  std::array<std::string, 256> letters_;  ///< how each byte is written in the files
  std::unordered_map<std::string, int> bytes_;
  std::unordered_map<std::string, int64_t> ids_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int64_t> ranks_;  ///< of "left right"
  int64_t begin_ = 0, end_ = 0, pad_ = 0;
  std::map<std::string, std::vector<int64_t>> whole_;  ///< words that are read as they stand, and their tokens
};

}  // namespace brume::text
