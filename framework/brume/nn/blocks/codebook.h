#pragma once
// Vector quantisation (van den Oord et al. 2017, arXiv:1711.00937): each position's vector is replaced by the nearest code.
//
//   q = e_k,  k = argmin_k |z - e_k|^2
//   gradient: loss = mean |q - sg(z)|^2 + beta mean |sg(q) - z|^2                                     (eq. 3; sg stops the gradient)
//   ema:      loss = beta mean |sg(q) - z|^2, and after each update, over the vectors of code k       (app. A.1)
//             N_k <- d N_k + (1 - d) n_k,   m_k <- d m_k + (1 - d) sum z,   e_k = m_k / N_k           (N_k smoothed as there)
//
// The gradient passes from q to z as it is ("straight through"). A code that no vector was nearest to for a number of updates starts
// again as one of the encoder's vectors (Dhariwal et al. 2020, "Jukebox", sec. 3.1).
#include <mutex>

#include "brume/config/fields.h"
#include "brume/nn/blocks/layers.h"

namespace brume::nn {

struct CodebookOptions {
  enum class Learning { gradient, ema };
  int64_t codes = 512;
  double commitment = 0.25;
  Learning learning = Learning::gradient;
  double decay = 0.99;
  int64_t restart_after = 100;
  void declare(Fields& f);
};

/// `const` use is safe from several threads. What training has seen since the last update is the only thing that changes without a
/// call of `update`, and it changes only in `quantise`, if gradients are on.
class Codebook {
 public:
  /// Makes the weights "embedding.weight" [codes, width]; if needed, the buffers "embedding.cluster_size", "embedding.embed_avg" (as in
  /// taming-transformers) and "unused", updates since each code was used.
  Codebook(const Builder& build, const CodebookOptions& options, int64_t width);

  /// Returns the numbers of the nearest codes, [B, H, W] int64. z: [B, width, H, W]; distances in float32, a bounded number of them at a
  /// time.
  Tensor nearest(const Tensor& z) const;
  /// Returns the vectors of codes [B, H, W], [B, width, H, W] float32; differentiable in the codebook.
  Tensor vectors(const Tensor& codes) const;

  struct Quantised {
    Tensor z;      ///< the values of the codes, with the gradient of z
    Tensor loss;   ///< scalar, weighted
    Tensor codes;  ///< [B, H, W]
  };
  /// Runs one pass of training; z: [B, width, H, W] float32. Remembers what was nearest to what until `update`: passes between two updates
  /// (of parts of a batch, say) count together.
  Quantised quantise(const Tensor& z) const;
  /// Moves the codes (ema), restarts unused ones, and forgets the passes, after an update of the weights. Does nothing without passes.
  void update(at::Generator& random) const;

 private:
  void remember(const Tensor& z, const Tensor& codes) const;
  void move() const;
  void restart_unused(at::Generator& random) const;
  bool ema() const { return o_.learning == CodebookOptions::Learning::ema; }

  /// Of the passes since the last update.
  struct Seen {
    Tensor counts;       ///< [codes]
    Tensor sums;         ///< [codes, width], for ema
    Tensor vectors;      ///< [N, width], of the last step
    bool finite = true;  ///< the last step's vectors
  };
  CodebookOptions o_;
  Tensor codes_, cluster_size_, embed_avg_, unused_;
  mutable std::mutex mutex_;
  mutable Seen seen_;
};

}  // namespace brume::nn
