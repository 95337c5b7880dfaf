#pragma once
// What a sample is asked to be.
#include <memory>

#include "brume/core/tensor.h"

namespace brume {

/// The condition of a batch, one row an image, as the network takes it. Parts that a model does not use stay undefined.
struct Condition {
  Tensor classes;         ///< [B] int64, rows of the class embedding
  Tensor context{};       ///< [B, L, D], tokens to attend to
  Tensor context_mask{};  ///< [B, L] float32, 1 = a token, 0 = padding; undefined = all are tokens
  Tensor image{};         ///< [B, C', H, W], laid beside the network's input

  /// The same batch without its condition (classifier-free guidance); null where the model was trained without one.
  std::shared_ptr<const Condition> null{};

  // What guidances go by and the network never sees; the null condition has them too.
  Tensor labels{};  ///< [B] int64, the class asked for, whether the model knows classes or not (classifier guidance)
  Tensor known{};   ///< [B, C, H, W], the clean latent of an image that is given in part (inpainting)
  Tensor mask{};    ///< [B, 1, H, W] float32 in [0, 1]: 1 = to be made, 0 = known

  /// Rows [begin, begin + count) of every part.
  Condition slice(int64_t begin, int64_t count) const;
  /// These rows of every part; [n] int64.
  Condition select(const Tensor& rows) const;
  Condition to(at::Device device) const;
};

/// The rows of `a`, then those of `b`.
Condition concat(const Condition& a, const Condition& b);

}  // namespace brume
