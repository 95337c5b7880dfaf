#include "brume/diffusion/empty_prompt.h"

#include <algorithm>

namespace brume {

bool needs_empty(const std::vector<std::shared_ptr<const Guidance>>& guidance, const std::vector<Annotation>& images) {
  return std::any_of(guidance.begin(), guidance.end(), [](const auto& g) { return g->traits().uses_empty; }) &&
         std::any_of(images.begin(), images.end(), [](const Annotation& a) { return !a.negative.empty(); });
}

Condition encode_with_empty(const std::vector<std::shared_ptr<const Guidance>>& guidance, const std::vector<Annotation>& images,
                            const std::function<Condition(const std::vector<Annotation>&)>& encode) {
  Condition condition = encode(images);
  if (!condition.null || !needs_empty(guidance, images)) return condition;
  std::vector<Annotation> without_negatives = images;
  for (Annotation& a : without_negatives) a.negative.clear();
  Condition null = *condition.null;
  null.null = encode(without_negatives).null;
  condition.null = std::make_shared<Condition>(std::move(null));
  return condition;
}

}  // namespace brume
