#pragma once
#include <string>
#include <vector>

namespace brume::tools {

/// Returns the captions in the file of --captions, one per line; blank lines are left out. Throws ConfigError if it has none.
std::vector<std::string> captions_in(const std::string& file);

}  // namespace brume::tools
