#pragma once
// What conditioners of words share: which captions of a batch are replaced by the empty one, and each distinct one encoded once.
#include <cstdint>
#include <functional>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "brume/core/conditioner.h"

namespace brume::nn {

/// Distinct captions as the network sees them.
struct EncodedCaptions {
  Tensor context;   ///< [B, L, D]
  Tensor mask{};    ///< [B, L] float32; undefined = all are tokens
  Tensor filler{};  ///< [1, F, D]: what makes a context as long as the one it is compared with; undefined = all have one length
  Tensor vector{};  ///< [B, P], a pooled vector of each; undefined = none
};
using EncodeCaptions = std::function<EncodedCaptions(const std::vector<std::string>& captions)>;

/// Returns the condition of a batch: its captions, each replaced by the empty one with probability `dropout` while training; otherwise, if
/// dropout > 0, the null condition of its negative captions. If nothing is learned each is encoded alone, so that its bits do not
/// depend on the others. Of a caption and its negative the shorter is filled up; what a batch adds to that is masked.
Condition encode_captions(const ConditionRequest& request, double dropout, const EncodeCaptions& encode);

/// Keeps what frozen encoders make of captions.
class CaptionStore {
 public:
  virtual ~CaptionStore() = default;
  /// Returns what encode() returns for the caption alone. `encoder`: number of the encoder, by the order in which a condition calls them.
  virtual EncodedCaptions get(int64_t encoder, const std::string& caption, const std::function<EncodedCaptions()>& encode) = 0;
};

/// While one lives, the captions of one condition that this thread encodes without gradients go through a store; null = none.
class CaptionStoreScope {
 public:
  explicit CaptionStoreScope(CaptionStore* store);
  ~CaptionStoreScope();
  CaptionStoreScope(const CaptionStoreScope&) = delete;
  CaptionStoreScope& operator=(const CaptionStoreScope&) = delete;

 private:
  CaptionStore* outer_;
  int64_t outer_calls_;
};

/// Warns (core/warnings.h) of prompts too long for their context: once of each, and of the first ten only.
class CutPrompts {
 public:
  void warn(const std::string& prompt, const std::string& cut, int64_t length) const;

 private:
  mutable std::mutex lock_;
  mutable std::set<std::string> known_;
};

/// A conditioner of words. `Options` has width, dropout and need_files(), which throws ConfigError if one is not named, and `projection`,
/// the width of the pooled vector, if it gives one; `Encoder` is made from (Options, EncoderOrigin), and its static reads_prompts is true
/// if it follows ConditionRequest::reading.
template <class O, class Encoder>
class CaptionConditioner final : public Conditioner {
 public:
  using Options = O;
  explicit CaptionConditioner(const Options& o) : o_(o) { o_.need_files(); }
  ConditionerTraits traits() const override {
    ConditionerTraits traits{
        .context_width = o_.width, .captions = true, .reads_prompts = Encoder::reads_prompts, .has_null = o_.dropout > 0};
    if constexpr (requires(const O& o) { o.projection; }) traits.vector_width = o_.projection;
    return traits;
  }
  std::shared_ptr<const ConditionEncoder> encoder(const EncoderOrigin& origin) const override {
    return std::make_shared<Encoder>(o_, origin);
  }

 private:
  Options o_;
};

}  // namespace brume::nn
