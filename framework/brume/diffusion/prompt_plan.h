#pragma once
// Prompts that change from step to step and prompts side by side (text/prompt_schedule.h), as a denoiser below all guidances:
//
//   D = D_null + sum_i w_i m_i (D_i - D_null),   m_i: 1, or the mask of the region in which prompt i counts
//
// so that classifier-free guidance over it is that of Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models".
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"

namespace brume {

/// What a plan is made of.
struct PlannedPrompts {
  const std::vector<Annotation>& images;
  int64_t steps = 1;
  bool with_empty = false;  ///< the plan has the empty prompt, too
  bool changes = true;      ///< prompts have [a:b:0.5], [a|b] and AND; false = they are words
  Tensor regions{};         ///< [prompts side by side, 1, H, W] in [0, 1], as many as each image has; undefined = everywhere
  int64_t first = 0;        ///< number of the first image, by which controls know it
  int64_t encodings = 1;    ///< equal shares of the steps, each of which encodes the prompts otherwise
};

/// The prompts of a batch, step by step.
class PromptPlan {
 public:
  /// Returns the condition of annotations, one row each, in a share of the steps, from 0.
  using Encode = std::function<Condition(const std::vector<Annotation>&, int64_t share)>;
  PromptPlan(const PlannedPrompts& prompts, const Encode& encode);

  /// Returns the condition of the batch at step 0, whose rows name their image of n: Condition::plan is i, -1 - i in the null condition,
  /// and -1 - n - i in that of the empty prompt, the null condition's null condition.
  Condition first() const;
  /// Returns the estimate at `step` for a condition that first() gave, or rows of it.
  Estimate denoise(const Denoiser& inner, const Tensor& x, double sigma, const Condition& condition, int64_t step) const;

 private:
  struct Piece {
    double weight;
    std::vector<int64_t> rows;  ///< of `encoded_`, by step
  };
  struct Image {
    std::vector<Piece> pieces;
    std::vector<int64_t> negative;  ///< rows of the null condition, by step
    std::vector<int64_t> empty{};   ///< the same of the empty prompt; empty = not encoded
  };
  Condition encoded_;
  Tensor regions_;
  int64_t first_ = 0;
  std::vector<Image> images_;
};

/// Returns a denoiser that follows the plan of this thread's run, if it follows one.
std::shared_ptr<const Denoiser> following_plan(std::shared_ptr<const Denoiser> inner);

/// Lets the run of this thread (RunMemory) follow a plan; null: none.
void follow(std::shared_ptr<const PromptPlan> plan);

/// Returns [parts, 1, H, W] in [0, 1], where the parts of prompts joined by AND count, of masks for images of this shape: files, or "all"
/// for everywhere; undefined if there are none. Throws ConfigError if a caption has another number of parts, or if a file is missing.
Tensor regions_of(const std::vector<std::string>& masks, const std::vector<Annotation>& images, const ImageShape& shape);

/// Returns true if the prompts of an image change within so many steps, or are several.
bool changes(const std::vector<Annotation>& images, int64_t steps);

}  // namespace brume
