#pragma once
// What the frozen parts of a model make of images and captions, kept in a folder from training to training (train.cache).
//
// A file is named by hashes of all that its content depends on: the weights, the compute dtype, and the numbers of the image or the words
// of the caption. Whatever changes is encoded again; nothing old is ever taken for it.
#include <filesystem>
#include <functional>
#include <string>

#include "brume/diffusion/pipeline.h"
#include "brume/nn/blocks/caption_conditioner.h"
#include "brume/weights/tensors.h"

namespace brume {

class EncodedCache final : public nn::CaptionStore {
 public:
  /// Opens the folder, which is made if it is missing. `first_stage`: the type of the pipeline's, as fingerprint() has it. The weights are
  /// those at the first call. Throws ConfigError if the folder cannot be made.
  EncodedCache(std::filesystem::path folder, const Pipeline& pipeline, const std::string& first_stage);

  /// Returns the moments of images [B, C, H, W] on the host, bit for bit those of Autoencoder::encode_moments, which those alone go through
  /// that the folder lacks; undefined if the first stage has no weights.
  Tensor moments(const Tensor& images);
  nn::EncodedCaptions get(int64_t encoder, const std::string& caption, const std::function<nn::EncodedCaptions()>& encode) override;

  /// Files read and written.
  struct Account {
    int64_t images = 0, images_encoded = 0, captions = 0, captions_encoded = 0;
  };
  const Account& account() const { return account_; }

 private:
  void open();
  std::string file_of(const std::string& part, const std::string& content) const;

  std::filesystem::path folder_;
  const Pipeline& pipeline_;
  std::string type_;
  bool opened_ = false;
  std::string first_stage_, conditioner_;  ///< their folders; empty = without weights
  Account account_;
};

}  // namespace brume
