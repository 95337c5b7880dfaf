#pragma once
// brume's tensors, which have CompVis' names, under those of diffusers: the inverse of DiffusersUnet::tensors and from_diffusers_vae
// (interop/import/diffusers_unet.h, interop/import/diffusers_vae.h), tested against them.
#include <cstdint>

#include "brume/interop/layouts/unet_layout.h"
#include "brume/weights/tensors.h"

namespace brume {

/// A U-Net's tensors: q, k and v of plain attention apart, as linear layers [C, C].
NamedTensors to_diffusers_unet(const NamedTensors& tensors, const UnetLayout& layout);
/// A first stage's; `levels` it has. Projections become linear layers [C, C].
NamedTensors to_diffusers_vae(const NamedTensors& tensors, int64_t levels);

}  // namespace brume
