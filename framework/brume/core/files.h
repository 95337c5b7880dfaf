#pragma once
// Files that belong to a model, such as a tokenizer: a checkpoint keeps their bytes.
#include <map>
#include <string>

namespace brume {

/// Bytes by the path that the configuration names.
using Files = std::map<std::string, std::string>;

}  // namespace brume
