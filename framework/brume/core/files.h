#pragma once
// Files that belong to a model, such as a tokenizer, which a checkpoint stores.
#include <map>
#include <string>

namespace brume {

/// Contents by the path that the configuration names.
using Files = std::map<std::string, std::string>;

}  // namespace brume
