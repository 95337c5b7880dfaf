#pragma once
// Where training images come from.
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

/// What is known of an image beside its pixels.
struct Annotation {
  int64_t label = -1;      ///< class index, -1 where unlabelled
  std::string caption{};   ///< empty where uncaptioned
  std::string negative{};  ///< what a sample is steered away from, in the place of the empty caption
};

/// What a set holds in the place of images: what a first stage made of them.
struct EncodedSet {
  ImageShape shape;         ///< of the moments of one image
  std::string autoencoder;  ///< fingerprint of the first stage that made them
};

/// A set of images, finite or endless. `const` and safe to call from several threads at once: the loader reads ahead.
class Dataset {
 public:
  static constexpr std::string_view kind = "dataset";
  /// The image shape the model wants; an implementation that cannot deliver it throws ConfigError naming both shapes.
  struct Context {
    ImageShape shape;
  };
  virtual ~Dataset() = default;
  virtual int64_t size() const = 0;                             ///< number of images; 0 = endless (any index is an image)
  virtual const std::vector<std::string>& classes() const = 0;  ///< class names by label; empty where there are none
  /// Not nothing where read() gives the moments of a first stage (Autoencoder::encode_moments) instead of images.
  virtual std::optional<EncodedSet> encoded() const { return {}; }
  /// Writes image `index` to `pixels` (Context::shape, channel by channel, values in [-1, 1]). `draw` numbers the draw in the
  /// stream of training images and is the only source of randomness for augmentation: equal arguments give equal pixels.
  virtual Annotation read(int64_t index, uint64_t draw, std::span<float> pixels) const = 0;
};

}  // namespace brume
