#pragma once
// The architecture of a UNetModel, SuperResModel or EncoderUNetModel of guided-diffusion and improved-diffusion, as names and shapes of
// its weights tell it.
#include <cstdint>
#include <string>
#include <vector>

#include "brume/config/value.h"
#include "brume/interop/import/flags.h"

namespace brume {

struct GuidedUnet {
  bool encoder = false;  ///< a classifier: no decoder
  int64_t channels = 0, blocks = 0, in = 0, out = 0, classes = 0;
  std::vector<double> multipliers;
  std::vector<bool> attention;  ///< of each level
  std::string resampling = "pool";
  bool scale_shift = false;
  std::string pooling;    ///< of a classifier: attention, adaptive, spatial or spatial_v2
  int64_t positions = 0;  ///< of attention pooling: height times width of the last feature map

  size_t levels() const { return multipliers.size(); }
  /// Returns the network's options for images of this height. `heads`: the options of its attention, {heads: 4}.
  Value options(int64_t height, const Value& heads, double dropout) const;
};

/// Returns true if they are such weights.
bool is_guided_unet(const NamedTensors& tensors);
/// Throws ConfigError if they are not of one piece. `blocks`: the flag that is asked for if more than one number of blocks a
/// level is possible.
GuidedUnet read_guided_unet(const Source& source, const Flags& flags, const std::string& blocks);

}  // namespace brume
