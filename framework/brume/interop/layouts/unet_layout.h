#pragma once
// The places of the blocks of a U-Net, by its options.
#include <algorithm>
#include <cstdint>

#include "brume/interop/layouts/sections.h"

namespace brume {

/// What decides the place of a block of a U-Net, and how its projections are cut.
struct UnetLayout {
  int64_t blocks = 2;  ///< residual blocks per level of the encoder
  bool middle_attention = true;
  int64_t heads = 1, head_channels = 0;  ///< head_channels counts if it is not 0
  bool heads_first = true;               ///< attention_order legacy: q, k and v of a head stand together; else all q, all k, all v
  int64_t heads_of(int64_t channels) const { return head_channels > 0 ? channels / head_channels : heads; }
};

inline UnetLayout unet_layout(const Value& network) {
  return {integer_of(network, "blocks"), truth_of(network, "middle_attention"), std::max<int64_t>(1, integer_of(network, "heads")),
          integer_of(network, "head_channels"), text_of(network, "attention_order") != "new"};
}

/// Returns what an import gave, whose qkv have all q first, in the order that the layout has.
NamedTensors in_attention_order(const NamedTensors& tensors, const UnetLayout& layout);

}  // namespace brume
