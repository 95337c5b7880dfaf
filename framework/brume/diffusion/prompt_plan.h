#pragma once
// Prompts that change from step to step and prompts side by side (text/prompt_schedule.h), as a denoiser below all guidances:
//
//   D = D_null + sum_i w_i m_i (D_i - D_null),   m_i: 1, or the mask of the region in which prompt i counts
//
// so that classifier-free guidance over it is that of Liu et al. 2022, "Compositional Visual Generation with Composable Diffusion Models".
#include <functional>
#include <memory>
#include <vector>

#include "brume/core/dataset.h"
#include "brume/core/denoiser.h"

namespace brume {

/// The prompts of a batch, step by step.
class PromptPlan {
 public:
  /// Encodes the prompts of a batch. `encode` gives the condition of annotations, one row each. `with_empty`: the plan has the empty prompt
  /// too. `regions`: [prompts side by side, 1, H, W] in [0, 1], as many as each image has; undefined = everywhere.
  PromptPlan(const std::vector<Annotation>& images, int64_t steps, bool with_empty,
             const std::function<Condition(const std::vector<Annotation>&)>& encode, Tensor regions = {});

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
    int64_t empty = -1;             ///< row of the null condition; -1 = not encoded
  };
  Condition encoded_;
  Tensor regions_;
  std::vector<Image> images_;
};

/// Returns a denoiser that follows the plan of this thread's run, if it follows one.
std::shared_ptr<const Denoiser> following_plan(std::shared_ptr<const Denoiser> inner);

/// Lets the run of this thread (RunMemory) follow a plan; null: none.
void follow(std::shared_ptr<const PromptPlan> plan);

/// Returns true if the prompts of an image change within so many steps, or are several.
bool changes(const std::vector<Annotation>& images, int64_t steps);

}  // namespace brume
