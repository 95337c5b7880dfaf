#pragma once
// brume's tensors, which have CompVis' names, under those of diffusers: the inverse of DiffusersUnet::tensors and from_diffusers_vae
// (io/import/diffusers_unet.h, io/import/diffusers_vae.h), tested against them.
#include <cstdint>

#include "io/tensors.h"

namespace brume::io {

/// What decides where a block of a U-Net stands, and how its projections are cut.
struct UnetLayout {
  int64_t blocks = 2;  ///< residual blocks a level on the way down
  bool middle_attention = true;
  int64_t heads = 1, head_channels = 0;  ///< head_channels, where not 0, counts
  bool heads_first = true;               ///< attention_order legacy: q, k and v of a head stand together; else all q, all k, all v
  int64_t heads_of(int64_t channels) const { return head_channels > 0 ? channels / head_channels : heads; }
};
/// A U-Net's tensors: q, k and v of plain attention apart, as linear layers [C, C].
NamedTensors to_diffusers_unet(const NamedTensors& tensors, const UnetLayout& layout);
/// After the import, whose qkv have all q first: in the order that the layout has.
NamedTensors in_attention_order(const NamedTensors& tensors, const UnetLayout& layout);
/// A first stage's; `levels` it has. Projections become linear layers [C, C].
NamedTensors to_diffusers_vae(const NamedTensors& tensors, int64_t levels);

}  // namespace brume::io
