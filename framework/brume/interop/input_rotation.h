#pragma once
// OFT and BOFT as PEFT has them: orthogonal blocks R turn the inputs of a layer, where those of LyCORIS turn its outputs.
//
//   OFT (Qiu et al. 2023)   W R^T,  R = (1 - S)(1 + S)^-1 of skew-symmetric blocks S, whose upper triangles are stored; or the first terms
//                           of the Neumann series of the inverse, of -S
//   BOFT (Liu et al. 2023)  s W R^T,  R = R_m ... R_1, each of such blocks between two permutations; S = (P - P^T) / 2, s per row
#include <ATen/core/Tensor.h>

#include <string>

#include "brume/interop/weight_change.h"

namespace brume {

/// Returns true if a change is one of these.
bool is_input_rotation(const WeightChange& change);
/// Returns in words why the parts do not fit each other or a weight of this size; "" if they do.
std::string rotation_problem(const WeightChange& change, at::IntArrayRef sizes);
/// Returns the turned weight. weight: float32, [out, in, ...].
at::Tensor rotated(const WeightChange& change, const at::Tensor& weight);

}  // namespace brume
