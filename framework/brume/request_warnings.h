#pragma once
#include <string>
#include <vector>

#include "brume/request.h"

namespace brume {
class Pipeline;
struct SampleOptions;

/// Returns a warning for each thing that a request asks for and that has no effect, or that its prompts write as other programs read it and
/// brume does not. `images`: its annotations.
std::vector<std::string> warnings_of(const ImageRequest& request, const SampleOptions& options, const Pipeline& model,
                                     const std::vector<Annotation>& images);

}  // namespace brume
