#pragma once
// The third condition of a run, for guidances that need the empty prompt as well as the negative one (GuidanceTraits::uses_empty).
#include <functional>
#include <memory>
#include <vector>

#include "brume/core/condition.h"
#include "brume/core/dataset.h"
#include "brume/core/guidance.h"

namespace brume {

/// Returns true if one of the guidances needs the empty prompt and an image has a negative prompt, which is its null condition.
bool needs_empty(const std::vector<std::shared_ptr<const Guidance>>& guidance, const std::vector<Annotation>& images);
/// Returns encode(images), whose null condition has that of the empty prompt as its own if needs_empty().
Condition encode_with_empty(const std::vector<std::shared_ptr<const Guidance>>& guidance, const std::vector<Annotation>& images,
                            const std::function<Condition(const std::vector<Annotation>&)>& encode);

}  // namespace brume
