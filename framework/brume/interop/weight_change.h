#pragma once
// Changes of one weight W as adapters have them: what a file holds of a module, and what `train.adapters` trains.
//
//   LoRA (Hu et al. 2021)             W + s up down, s = alpha / r; of a convolution down is [r, in, k, k] and up [out, r, 1, 1]
//   LoCon (LyCORIS, Yeh et al. 2023)  the same with a core [r, r, k, k] between two 1x1 (CP decomposition)
//   LoHa (Hyeon-Woo et al. 2021)      W + s (w1_a w1_b) * (w2_a w2_b), elementwise; each may have a core t
//   LoKr (Edalati et al. 2022)        W + s kron(w1, w2); each may be a product a b, w2 may have a core t; s = 1 if both are full and no r
//                                     is given
//   DoRA (Liu et al. 2024)            m (W + dW) / ||W + dW||, the norm per row or per column, as m has it; dW of any kind above
//   IA3 (Liu et al. 2022)             W (1 + w) per row, or per column with on_input
//   GLoRA (Chavan et al. 2023)        W + s (W A + B), A and B products of two
//   OFT (Qiu et al. 2023)             R W with orthogonal blocks R = (1 + Q)(1 - Q)^-1, Q = P - P^T (Cayley)
//   BOFT (Liu et al. 2023)            the same with the product of m butterfly factors of such blocks
//   PEFT's OFT and BOFT               W R^T (interop/input_rotation.h)
//   full difference                   W + diff
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace brume {

struct WeightChange {
  /// Tensors by their role, in kohya's and LyCORIS' words: "lora_down", "lora_up", "lora_mid", "hada_w1_a", "lokr_w2_b", "dora_scale",
  /// "diff", "weight" (IA3), "a1" (GLoRA), "oft_blocks", ...
  std::map<std::string, at::Tensor, std::less<>> parts;
  double alpha = 0, rank_power = 1;  ///< s = alpha / r^rank_power; of OFT alpha bounds the norm of Q
  bool has_alpha = false;            ///< false: s = 1
  int64_t given_rank = 0;            ///< r of a LoKr whose parts do not say it; 0 = not given
  int64_t neumann_terms = 0;         ///< of PEFT's OFT: terms of the series that stands for an inverse; 0 = the inverse itself
  double rotation_bound = 0;         ///< of PEFT's OFT: eps of its constrained variant; 0 = none

  /// Returns the tensor of a role; undefined if the change has none.
  at::Tensor part(std::string_view role) const;
  /// Returns "LoRA", "DoRA", "LoHa", "LoKr", "IA3", "GLoRA", "OFT", "BOFT" or "difference"; "" if its parts make none of them.
  std::string kind() const;
  /// Returns r; 0 if the kind has no rank.
  int64_t rank() const;
  double scale() const;
};

/// Returns in words what is wrong with a change: parts that are missing, or sizes that do not fit each other or a weight of this size; ""
/// if nothing is. Nothing is multiplied.
std::string problem_of(const std::string& module, const WeightChange& change, const std::string& weight, at::IntArrayRef sizes);

/// Returns what a change adds to `weight`, float32 of its shape; differentiable in the parts. At strength 1 that is the change itself; of
/// DoRA the strength counts for the rescaling, of OFT for R - 1. Throws c10::Error if the parts cannot be multiplied.
at::Tensor added_by(const WeightChange& change, const at::Tensor& weight, double strength);

/// Returns the norm of each row of a weight, [out, 1, ...] float32, as a DoRA starts with it.
at::Tensor row_norms(const at::Tensor& weight);

}  // namespace brume
