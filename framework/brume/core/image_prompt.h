#pragma once
// Controls that see an image as a prompt: IP-Adapter.
#include <vector>

#include "brume/core/control.h"

namespace brume {

class OpenImagePrompt : public OpenControl {
 public:
  /// Returns as OpenControl::encode(), of images as in their files, [B, 3, H, W] in [0, 1] of any size. Each tensor has a last row more:
  /// what the unconditional estimate receives, which sees no image.
  std::vector<Tensor> encode(const Tensor& images) const override = 0;
};

}  // namespace brume
