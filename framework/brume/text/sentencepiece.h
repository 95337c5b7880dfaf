#pragma once
// SentencePiece (Kudo & Richardson 2018): text to pieces of words and back, by a model trained on raw sentences.
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace brume::text {

/// Returns why sentencepiece cannot be used here; empty if it can.
const std::string& sentencepiece_missing();

/// `const` use is safe from several threads.
class SentencePiece final {
 public:
  struct Training {
    int64_t size = 2000;    ///< pieces, with the four special ones
    bool fold_case = true;  ///< upper case is read as lower case
    bool merges = false;    ///< by byte-pair merges (Sennrich et al. 2016), which give whole words if there are few
  };
  /// Trains a unigram model, or one of merges; the same captions in the same order give the same bytes. Throws ConfigError if the size
  /// does not suit the captions, saying which does, and if a caption is not UTF-8.
  static std::string train(const std::vector<std::string>& captions, const Training& training);

  /// Reads a model. `model`: the bytes of a model file; `name` is for messages.
  SentencePiece(std::string_view model, const std::string& name);
  ~SentencePiece();
  SentencePiece(const SentencePiece&) = delete;
  SentencePiece& operator=(const SentencePiece&) = delete;

  /// Returns the tokens without begin and end. Throws ConfigError if the text is not UTF-8.
  std::vector<int64_t> encode(std::string_view text) const;
  std::string decode(const std::vector<int64_t>& ids) const;
  std::string piece(int64_t id) const;
  int64_t size() const;

  // Special pieces; -1 = the model has none.
  int64_t unknown() const { return special_[0]; }
  int64_t begin() const { return special_[1]; }
  int64_t end() const { return special_[2]; }
  int64_t padding() const { return special_[3]; }

 private:
  void* model_ = nullptr;
  int special_[4] = {};
};

}  // namespace brume::text
