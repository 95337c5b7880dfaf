#pragma once
// CLIP's tokenizer (Radford et al. 2021): byte pairs (Sennrich et al. 2016) of lower-cased words, the last of a word with "</w>".
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace brume::text {

/// Reads text as transformers' CLIPTokenizer does without ftfy, but for two things: characters that could be composed (NFC) stay as they
/// are, and so does what becomes two characters in lower case. `const` use is safe from several threads.
class ClipTokenizer final {
 public:
  /// The contents of vocab.json and merges.txt; `name` is for messages. `pad`: the token that fills a prompt up, where that is not the
  /// end; written out in a text it is read as itself ("!" of Stable Diffusion 2). Throws ConfigError where they are not what they should
  /// be.
  ClipTokenizer(std::string_view vocabulary, std::string_view merges, const std::string& name, std::optional<int64_t> pad = {});

  /// Without begin and end. Throws ConfigError where the text is not UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int64_t>& ids) const;
  int64_t size() const { return int64_t(tokens_.size()); }
  int64_t begin() const { return begin_; }
  int64_t end() const { return end_; }
  int64_t padding() const { return pad_; }

 private:
  void read_vocabulary(std::string_view json, const std::string& name);
  void read_merges(std::string_view lines, const std::string& name);
  void encode_plain(std::string_view text, std::vector<int64_t>& ids) const;
  void encode_word(const std::string& bytes, std::vector<int64_t>& ids) const;

  std::array<std::string, 256> letters_;  ///< how each byte is written in the files
  std::unordered_map<std::string, int> bytes_;
  std::unordered_map<std::string, int64_t> ids_;
  std::vector<std::string> tokens_;
  std::unordered_map<std::string, int64_t> ranks_;  ///< of "left right"
  int64_t begin_ = 0, end_ = 0, pad_ = 0;
};

}  // namespace brume::text
