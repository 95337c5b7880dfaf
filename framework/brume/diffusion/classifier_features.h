#pragma once
// A classifier as an extractor of features.
#include <memory>
#include <string>

#include "brume/core/features.h"
#include "brume/diffusion/classifier_pipeline.h"

namespace brume {

/// Returns the features and logits of a frozen classifier at no noise. `name`: of its file, for reports; `hash`: of the file.
std::shared_ptr<const Features> features_of(std::shared_ptr<const ClassifierPipeline> classifier, const std::string& name,
                                            const std::string& hash = {});

}  // namespace brume
