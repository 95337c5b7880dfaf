#pragma once
#include <memory>
#include <string>

#include "brume/core/dataset.h"
#include "program/program.h"

namespace brume::tools {

/// Returns the data set that an option names: YAML written there ("{type: idx, …}"), or a YAML file of that, or of a whole configuration,
/// whose `train.data` it then is.
std::shared_ptr<const Dataset> open_data(Program& program, const std::string& option, const std::string& text, const ImageShape& shape);

/// Prints on stderr what a data set has and what it left out: "data: 8 images, 2 classes; left out: 3 hidden (first: .git)".
void print_inventory(const std::string& name, const Dataset& data);

/// Reads the header of every image. Prints a warning for each that cannot be read if the set leaves such images out; else throws
/// ConfigError with the first ten.
void check_images(const std::string& name, const Dataset& data);

}  // namespace brume::tools
