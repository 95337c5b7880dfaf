#pragma once
// Weights as integers of seven bits and a sign, symmetric per output channel (Jacob et al. 2018, arXiv:1712.05877, sec. 2).
#include <cstdint>

#include "brume/core/tensor.h"

namespace brume {

/// The greatest integer of a weight: with inputs of eight bits, two products fit into int16.
inline constexpr int32_t int8_greatest = 63;

/// A weight: w = scale v, scale of its output channel.
struct Int8Values {
  Tensor values;  ///< int8, shaped as the weight, [O, ...]; from -63 to 63
  Tensor scales;  ///< [O] float32
};

/// Returns the nearest integers of a weight [O, ...] of any floating type; the greatest of each output channel becomes +-63.
Int8Values int8_values(const Tensor& weight);

/// Returns the numbers that they stand for, float32.
Tensor from_int8(const Int8Values& values);

}  // namespace brume
