#pragma once
#include <memory>
#include <string>

#include "brume/core/dataset.h"
#include "program/program.h"

namespace brume::tools {

/// The data set that an option names: YAML written there ("{type: idx, …}"), or a YAML file of that, or of a whole configuration,
/// whose `train.data` it then is.
std::shared_ptr<const Dataset> open_data(Program& program, const std::string& option, const std::string& text, const ImageShape& shape);

}  // namespace brume::tools
