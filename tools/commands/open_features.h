#pragma once
#include <memory>
#include <string>

#include "brume/core/features.h"
#include "program/program.h"

namespace brume::tools {

/// Opens an extractor: "NAME:FILE", which sets its option `path`, a name, or YAML of it. --precision (fp32 if it is not given: a measure
/// must not depend on the processor), --device and --threads count.
std::shared_ptr<const Features> open_features(Program& program, const std::string& text, const Overrides& overrides);

/// Returns what is done to images before the extractor sees them: "images are resized to 299x299", "images are not preprocessed".
std::string preprocessing_of(const Features& extractor);

}  // namespace brume::tools
