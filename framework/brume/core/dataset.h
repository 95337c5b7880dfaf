#pragma once
// Training images.
//
// How to write one:
//   1. Derive a final class from Dataset with a nested `Options` (its fields, `declare(Fields&)`), made from (Options, Context).
//   2. Open the data in the constructor. Throw ConfigError naming the file and both shapes if it cannot deliver the context's shape.
//   3. Implement `size()`, `classes()` and `read()`, which several threads call at once.
//   4. Take every random number from `draw`, so that equal arguments give equal pixels.
//   5. Put it into plugins/datasets/NAME.cpp, which ends with `register_dataset_NAME`.
//   6. Read plugins/datasets/idx.cpp as an example; `brume new dataset NAME` writes another.
//   7. Add tests/datasets/NAME_test.cpp; test_contracts --gtest_filter='*Plugin*NAME*' checks its options.
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace brume {

/// Channels, height and width of an image.
struct ImageShape {
  int64_t channels = 3;
  int64_t height = 0;
  int64_t width = 0;
  int64_t numel() const { return channels * height * width; }
  bool operator==(const ImageShape&) const = default;
  std::string text() const { return std::to_string(channels) + "x" + std::to_string(height) + "x" + std::to_string(width); }
};

/// The sizes that some networks are conditioned on, in pixels (Podell et al. 2023, "SDXL", sec. 2.2). A height or width of 0 is the
/// image's.
struct SizeIds {
  int64_t original_height = 0, original_width = 0;  ///< before the image was resized
  int64_t top = 0, left = 0;                        ///< of the crop
  int64_t target_height = 0, target_width = 0;      ///< of the crop
  bool operator==(const SizeIds&) const = default;
};

/// What is known of an image, besides its pixels.
struct Annotation {
  int64_t label = -1;                       ///< class index, -1 = unlabelled
  std::string caption{};                    ///< empty = uncaptioned
  std::string negative{};                   ///< caption of the null condition, instead of the empty caption
  SizeIds sizes{};                          ///< for networks that are conditioned on sizes
  std::optional<SizeIds> negative_sizes{};  ///< of the null condition; absent = `sizes`
};

/// The contents of a set of encoded images.
struct EncodedSet {
  ImageShape shape;         ///< of the moments of one image (Autoencoder::moments)
  std::string autoencoder;  ///< fingerprint of the first stage that made them
};

/// A set of images, finite or endless. `const` and safe to call from several threads at once.
class Dataset {
 public:
  static constexpr std::string_view kind = "dataset";
  /// The shape of the model's images.
  struct Context {
    ImageShape shape;
  };
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;                             ///< number of images; 0 = endless (any index is an image)
  virtual const std::vector<std::string>& classes() const = 0;  ///< class names by label; empty if there are no classes
  /// Returns the shape and source if read() gives moments of a first stage (Autoencoder::encode_moments) instead of images.
  virtual std::optional<EncodedSet> encoded() const { return {}; }
  /// Writes image `index` to `pixels` (Context::shape, channel by channel, values in [-1, 1]) and returns its annotation. `draw`: the
  /// number of the draw in the training, and the only source of randomness for augmentation.
  virtual Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const = 0;
};

}  // namespace brume
