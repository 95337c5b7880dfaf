#pragma once
// Where the blocks of a U-Net stand, by its options.
#include "io/export/diffusers_names.h"
#include "io/sections.h"

namespace brume::io {

inline UnetLayout unet_layout(const Value& network) {
  return {integer_of(network, "blocks"), truth_of(network, "middle_attention"), std::max<int64_t>(1, integer_of(network, "heads")),
          integer_of(network, "head_channels"), text_of(network, "attention_order") != "new"};
}

}  // namespace brume::io
