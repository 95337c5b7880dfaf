#pragma once
// The architecture of a UNetModel, SuperResModel or EncoderUNetModel of guided-diffusion and improved-diffusion, as names and shapes of
// its weights tell it.
#include <cstdint>
#include <string>
#include <vector>

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
  /// The network's options, as YAML, for images of this height; `heads`: "heads: 4, ".
  std::string options(int64_t height, const std::string& heads, double dropout) const;
};

/// Whether they are such weights.
bool is_guided_unet(const NamedTensors& tensors);
/// Throws ConfigError where they are not of one piece. `blocks`: the flag that is asked for where more than one number of blocks a
/// level is possible.
GuidedUnet read_guided_unet(const Source& source, const Flags& flags, const std::string& blocks);

}  // namespace brume
