#pragma once
// Extractors of feature vectors from images.
//
// How to write one:
//   1. Derive a final class from Features with a nested `Options` (fields with defaults, `declare(Fields&)`), made from (Options, Context).
//   2. Implement `extract()`: one row per image, the same for an image whatever its batch; several threads call it at once.
//   3. Return from `input()` the images that it takes, and from `preprocessing()` what it does to them before its network.
//   4. Call the option that names a file `path`: `brume evaluate --features NAME:FILE` sets it.
//   5. A static `check(options, context)` refuses what does not fit, before weights are read.
//   6. Put it into plugins/features/NAME.cpp, which ends with `register_feature_NAME`.
//   7. Read plugins/features/classifier.cpp as an example; `brume new features NAME` writes another.
//   8. Run test_contracts --gtest_filter='*Features*NAME*' (tests/contracts/features_test.cpp).
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/tensor.h"

namespace brume {

/// Feature vectors of images, and class logits if the extractor is a classifier. `const` and safe to call from several threads at once.
class Features {
 public:
  static constexpr std::string_view kind = "features";

  struct Context {
    /// Opens a classifier that brume trained. Throws ConfigError if the file is none.
    std::function<std::shared_ptr<const Features>(const std::string& path)> classifier;
    at::Device device = at::kCPU;       ///< device of its networks
    at::ScalarType dtype = at::kFloat;  ///< what they compute in
  };

  struct Output {
    Tensor features;   ///< [N, D] float32 on the host
    Tensor logits;     ///< [N, logit_width()] float32 on the host; undefined if that is 0
    Tensor spatial{};  ///< [N, spatial_width()] float32 on the host, for sFID; undefined if that is 0
  };

  virtual ~Features() = default;
  /// Returns what tells it from other extractors, for reports: "classifier runs/digits/model.safetensors".
  virtual std::string name() const = 0;
  /// Returns the shape of the images that it takes; height and width 0 = any, which it resizes.
  virtual ImageShape input() const = 0;
  /// Returns in words what it does to images in [-1, 1] before its network: "none", "resized to 299x299, bilinear".
  virtual std::string preprocessing() const = 0;
  virtual int64_t width() const = 0;  ///< D
  /// Returns the number of classes that it tells apart; 0 = it does not classify.
  virtual int64_t classes() const { return 0; }
  /// Returns the number of logits, for the Inception score: classes(), or those of classes that the compared images do not have.
  virtual int64_t logit_width() const { return classes(); }
  /// Returns the number of spatial features; 0 = it has none.
  virtual int64_t spatial_width() const { return 0; }
  /// Returns the number of features of a patch; 0 = it has none of patches.
  virtual int64_t patch_width() const { return 0; }
  /// Returns whether embed() embeds captions.
  virtual bool reads_captions() const { return false; }
  /// Returns the name of the Fréchet distance of these features in tables and in EDM2's files: "fid", "fd_dinov2"; empty if it has none.
  virtual std::string frechet_name() const { return {}; }
  /// Returns the dtype that its network computes in: scores in float32 and in bfloat16 differ.
  virtual at::ScalarType dtype() const { return at::kFloat; }
  /// Returns the SHA-256 of its weights' file; empty if it has none.
  virtual std::string hash() const { return {}; }
  /// Returns the features of images [N, C, H, W] float32 in [-1, 1] of the shape input(). Throws ConfigError if their shape is another.
  virtual Output extract(const Tensor& images) const = 0;
  /// Returns the features of the patches of such images, [N, patch_width(), rows, columns] float32 on the host; undefined if that is 0.
  virtual Tensor patches(const Tensor& /*images*/) const { return {}; }
  /// Returns the tokens that the last block of its transformer receives, [N, L, W] float32 on the host; undefined if it has no tokens.
  /// images: as for extract(); undefined = one image of the mean colour of its training data, whose normalised values are 0.
  virtual Tensor tokens(const Tensor& /*images*/) const { return {}; }
  /// Returns the features of captions in the space of the images' features, [N, D] float32 on the host; undefined unless reads_captions().
  virtual Tensor embed(const std::vector<std::string>& /*captions*/) const { return {}; }
};

}  // namespace brume
