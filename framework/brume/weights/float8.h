#pragma once
// Floats of 8 bits, which LibTorch 1.13 has no type for (Micikevicius et al. 2022, "FP8 Formats for Deep Learning"): E4M3 without
// infinities, and E5M2. Their values are all bfloat16 values, which they become; with a scale they become float32.
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "brume/weights/tensors.h"

namespace brume {

/// Returns true for "F8_E4M3" and "F8_E5M2".
bool is_float8(std::string_view dtype);
/// Returns the values of bytes as bfloat16, of this shape. The caller has checked that the bytes are there.
at::Tensor from_float8(const uint8_t* bytes, const std::vector<int64_t>& shape, std::string_view dtype);

/// Multiplies the tensors called `names`, which were of 8 bits, by their scales ("x.scale_weight" or "x.weight_scale" of "x.weight": one
/// number, or one per row), and takes the scales out. Throws ConfigError naming the tensor if the file says that its tensors are scaled
/// ("scaled_fp8") and one has no scale, or if a scale fits no row.
void apply_float8_scales(NamedTensors& tensors, const std::vector<std::string>& names, const std::string& path);

}  // namespace brume
