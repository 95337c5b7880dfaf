#pragma once
// Configurations of trainings that come over the network: what is wrong with them, and what they may not ask for.
#include <string>
#include <vector>

#include "brume/config/errors.h"
#include "brume/config/registry.h"

namespace brume::tools {

struct CheckedText {
  std::vector<Problem> problems, warnings;
  std::string resolved = {};  ///< YAML with every key in force; "" if there are problems
};

/// Checks the YAML of a training as `brume check` does. Libraries (`plugins:`), parts (`include:`), sweeps, and paths that are absolute or
/// have ".." are problems: a text from the network loads no code and reads nothing outside the folder of the server.
CheckedText check_training(const Registry& registry, const std::string& yaml);

/// Returns the same as JSON: {"problems": [{"line", "column", "path", "message"}], "warnings": [...], "resolved"}. Lines and columns count
/// from 1; line 0 is the whole text.
std::string check_json(const Registry& registry, const std::string& yaml);

}  // namespace brume::tools
