#pragma once
#include <memory>
#include <string>

#include "brume/diffusion/classifier_pipeline.h"
#include "program/program.h"

namespace brume::tools {

/// Opens the classifier of a model.safetensors, frozen. Of the overrides --precision (fp32 if not given), --device and --threads count.
std::unique_ptr<ClassifierPipeline> open_classifier(Program& program, const std::string& path, const Overrides& overrides);

}  // namespace brume::tools
