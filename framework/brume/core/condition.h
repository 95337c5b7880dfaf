#pragma once
// The condition of a batch, as a network takes it.
#include <memory>

#include "brume/core/tensor.h"

namespace brume {

/// One row per image. A part that a model does not use stays undefined; a network ignores the parts that it does not know.
struct Condition {
  Tensor classes;         ///< [B] int64, rows of the class embedding
  Tensor context{};       ///< [B, L, D], tokens to attend to
  Tensor context_mask{};  ///< [B, L] float32, 1 = a token, 0 = padding; undefined = all are tokens
  Tensor image{};         ///< [B, C', H, W], concatenated to the network's input
  Tensor vector{};        ///< [B, D], one pooled vector per image: of a prompt (SDXL, SD3, FLUX), of a reference image
  Tensor sizes{};         ///< [B, N] float32, pixels: original height and width, top and left of the crop, target height and width (SDXL)
  Tensor guidance{};      ///< [B] float32, the guidance scale that a guidance-distilled network imitates (FLUX.1-dev)

  /// The condition of the unconditional estimate (classifier-free guidance); null if the model was trained without one.
  std::shared_ptr<const Condition> null{};

  // Read by guidances, never by the network; the null condition has the same.
  Tensor labels{};  ///< [B] int64, the requested class, whether or not the model knows classes (classifier guidance)
  Tensor known{};   ///< [B, C, H, W], the clean latent of a partly known image (inpainting)
  Tensor mask{};    ///< [B, 1, H, W] float32 in [0, 1]: 1 = to generate, 0 = known
  /// [B] int64, rows of the run's prompts that change from step to step (diffusion/prompt_plan.h), by which a null condition differs;
  /// undefined = none do.
  Tensor plan{};

  /// Returns rows [begin, begin + count) of every part.
  Condition slice(int64_t begin, int64_t count) const;
  /// Returns the given rows of every part; rows: [n] int64.
  Condition select(const Tensor& rows) const;
  /// Returns every part on `device`.
  Condition to(at::Device device) const;
};

/// Returns the rows of `a`, then those of `b`, without a null condition. Throws std::logic_error if one has a part that the other lacks.
Condition concat(const Condition& a, const Condition& b);

}  // namespace brume
